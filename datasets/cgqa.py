"""C-GQA, updated release: crops of things with attributes from GQA. 5,592 training pairs, extremely long-tailed."""

from __future__ import annotations

from datasets.layout import LayoutReader
from datasets.published import PhaseCounts, Published

load = LayoutReader(
    Published(
        name="cgqa",
        title="C-GQA (updated)",
        folders=("cgqa",),
        states=413,
        objects=674,
        pairs=7767,
        train=PhaseCounts(5592, 0, 26_920),
        val=PhaseCounts(1040, 1252, 7_280, unseen_images=3_588),
        test=PhaseCounts(888, 923, 5_098, unseen_images=1_144),
        source="Naeem et al., CVPR 2021 (updated release), from GQA and Visual Genome",
        licence="CC BY 4.0",
        homepage="https://github.com/ExplainableML/czsl",
        special=(
            "Many papers print the validation pairs the wrong way round; there are 1,040 seen and 1,252 unseen ones.",
            "14 words are a state and an object (orange, snow, street, ...), and 8 pairs repeat a word.",
            "4,524 of the 7,767 pairs have a single image.",
            "Names of image files hold the label, so nothing here reads them.",
            "The first release (453 states, 870 objects) is another data set; results on it cannot be compared.",
        ),
    )
)
