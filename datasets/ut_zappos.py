"""UT-Zappos50K: catalogue pictures of shoes, materials as states. Natural split of 83 training pairs."""

from __future__ import annotations

from datasets.layout import LayoutReader
from datasets.published import PhaseCounts, Published

load = LayoutReader(
    Published(
        name="ut_zappos",
        title="UT-Zappos50K",
        # The CLIP repositories' name, and that of the archive of splits.
        folders=("ut-zappos", "ut-zap50k"),
        states=16,
        objects=12,
        pairs=116,
        train=PhaseCounts(83, 0, 22_998),
        val=PhaseCounts(15, 15, 3_214),
        test=PhaseCounts(18, 18, 2_914, unseen_images=1_891),
        source="images: Yu and Grauman, CVPR 2014; split: Purushwalkam et al., ICCV 2019",
        licence="academic, non-commercial use only",
        homepage="https://vision.cs.utexas.edu/projects/finegrained/utzap50k/",
        special=(
            "Labels hold dots (Faux.Fur, Shoes.Sneakers.and.Athletic.Shoes): they stay as they are, and prompts spell "
            "them 'faux fur', 'shoes sneakers and athletic shoes'.",
            "The images are brought from the archive's folders (_image in the metadata) into images/<state>_<object>/.",
            "18 unseen test pairs carry 1,891 test images, so images of a pair are far from independent.",
            "1,891 was solved from a published log, not counted from files.",
        ),
    )
)
