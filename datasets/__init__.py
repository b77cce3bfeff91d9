"""Data sets: what the images and labels are. The table of built-in data sets, by lazy target."""

from pathlib import Path

from datasets.seen_mark import base_of, has_share
from registry import DATASETS

DATASETS.add(
    "icon_states",
    "datasets.icon_states:load",
    title="rendered icons in different states; offline, small, deterministic",
)
DATASETS.add("mit_states", "datasets.mit_states:load", title="MIT-States: photos, 115 states x 245 objects")
DATASETS.add("ut_zappos", "datasets.ut_zappos:load", title="UT-Zappos50K: shoes, 16 materials x 12 kinds")
DATASETS.add("cgqa", "datasets.cgqa:load", title="C-GQA (updated): 413 states x 674 objects, long-tailed")
DATASETS.add("vaw_czsl", "datasets.vaw_czsl:load", title="VAW-CZSL: 440 states x 541 objects, long-tailed")


def is_path(name: str) -> bool:
    """Return whether a data set's name is a place: it has a separator or the ending .csv, or there is such a folder.

    A share of seen pairs behind it does not count.
    """
    name = base_of(name) or name
    return "/" in name or "\\" in name or name.lower().endswith(".csv") or Path(name).is_dir()


DATASETS.add_family(
    "<data set>@seen=<share>",
    "datasets.seen_share:load",
    title="any data set with that share of its pairs seen: icon_states@seen=0.3 (docs/datasets.md)",
    fits=has_share,
)
DATASETS.add_family(
    "<folder or .csv>",
    "datasets.own.folder:load",
    title="your own images: a folder of 'state object' folders, or a CSV file (docs/add_a_dataset.md)",
    fits=is_path,
)
