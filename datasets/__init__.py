"""Data sets: what the images and labels are. The table of built-in data sets, by lazy target."""

from registry import DATASETS

DATASETS.add(
    "icon_states",
    "datasets.icon_states:load",
    title="rendered icons in different states; offline, small, deterministic",
)
