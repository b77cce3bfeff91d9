"""VAW-CZSL: long-tailed attributes of things in Visual Genome. 11,175 training pairs."""

from __future__ import annotations

from datasets.layout import LayoutReader
from datasets.published import PhaseCounts, Published

load = LayoutReader(
    Published(
        name="vaw_czsl",
        title="VAW-CZSL",
        folders=("vaw-czsl",),
        states=440,
        objects=541,
        pairs=None,
        train=PhaseCounts(11_175, 0, 72_203),
        val=PhaseCounts(2_121, 2_322, 9_524),
        test=PhaseCounts(2_449, 2_470, 10_856),
        source="Saini, Pham and Shrivastava, CVPR 2022, from VAW and Visual Genome",
        licence="that of VAW (https://github.com/adobe-research/vaw_dataset) for the labels, CC BY 4.0 for the images",
        homepage="https://github.com/nirat1606/OADis",
        separator="+",
        certain=False,
        special=(
            "Its pair lists part state and object by '+', and words may hold blanks.",
            "Papers print the AUC of the best three or five answers as often as that of the best.",
            "Its sizes are as papers give them; they were not compared with the files, so a difference is no error.",
        ),
    )
)
