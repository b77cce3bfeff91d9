"""Data sets: what the images and labels are. The table of built-in data sets, by lazy target."""

from pathlib import Path

from registry import DATASETS

DATASETS.add(
    "icon_states",
    "datasets.icon_states:load",
    title="rendered icons in different states; offline, small, deterministic",
)


def is_path(name: str) -> bool:
    """Return whether a data set's name is a place: it has a separator or the ending .csv, or there is such a folder."""
    return "/" in name or "\\" in name or name.lower().endswith(".csv") or Path(name).is_dir()


DATASETS.add_family(
    "<folder or .csv>",
    "datasets.folder:load",
    title="your own images: a folder of 'state object' folders, or a CSV file (docs/add_a_dataset.md)",
    fits=is_path,
    bound=True,
)
