"""MIT-States: photos of things in states, found by a search engine. Natural split of 1,262 training pairs."""

from __future__ import annotations

from datasets.layout import LayoutReader
from datasets.published import PhaseCounts, Published

load = LayoutReader(
    Published(
        name="mit_states",
        title="MIT-States",
        folders=("mit-states",),
        states=115,
        objects=245,
        pairs=1962,
        train=PhaseCounts(1262, 0, 30_338),
        val=PhaseCounts(300, 300, 10_420),
        test=PhaseCounts(400, 400, 12_995),
        source="images: Isola, Lim and Adelson, CVPR 2015; split: Purushwalkam et al., ICCV 2019",
        licence="none declared by its authors; it is used for research",
        homepage="http://web.mit.edu/phillipi/Public/states_and_transformations/index.html",
        special=(
            "States were labelled through a search engine: about 70 % of them are judged wrong or ambiguous "
            "(Atzmon et al., 2020), so differences below a point mean little.",
            "Images without a state ('adj <object>' in the archive, NA in the metadata) are never used.",
            "The 800 test pairs own 23,306 images, of which 12,995 are test images: the split of an image is what the "
            "metadata says, never what its pair suggests.",
        ),
    )
)
