#!/usr/bin/env bash
# Hugging Face datasets: the object "train" is taken for the name of a split, and test images get into training.
#
# Surprising: load_dataset("imagefolder") finds splits by words in the names of folders at any depth, also in a class's.
# - Folders train and test with a folder for each pair below: the images of test/old train are a part of test and of
#   train too, under their own label. An unseen pair has become a seen one, trained on with the images of its test.
#   Those of train/red train are in train twice.
# - A folder for each pair and no splits, as MIT-States lies on the disk: where one of the pairs is of a train, the data
#   set is its images alone. All other pairs are left out, and the label too, since one folder is no choice.
# Nothing is warned of. "test tube" does the same, "trained dog" does no harm. In C-GQA 48 pairs have the object train,
# 21 of them unseen ones.
#
# Here: a folder of own images has pairs and no splits, whatever their names are (datasets/own); a split is drawn, or is
# a column of a CSV file. Splits of published data come from their lists.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q datasets==5.2.0 pillow==13.0.0
cd "$work"
HF_HUB_OFFLINE=1 HF_HOME="$work/home" "$work/venv/bin/python" - <<'PYTHON'
import sys
from pathlib import Path

import datasets
from PIL import Image

IMAGES = 3
SPLIT = ["train/red car", "train/old car", "train/red train", "test/red car", "test/old bus"]
BARE = ["red car", "old car", "red bus"]


def loaded(name: str, folders: list[str]) -> dict[str, dict[str, int]]:
    """Return, for each split, how many images of each folder it has."""
    root = Path(name)
    for folder in folders:
        (root / folder).mkdir(parents=True)
        for number in range(IMAGES):
            Image.new("RGB", (8, 8)).save(root / folder / f"{number}.png")
    found = {}
    for split, part in datasets.load_dataset("imagefolder", data_dir=str(root)).items():
        paths = part.cast_column("image", datasets.Image(decode=False))["image"]
        below = [Path(image["path"]).parent.relative_to(root.absolute()).as_posix() for image in paths]
        found[split] = {folder: below.count(folder) for folder in sorted(set(below))}
        if "label" in part.features:
            named = part.features["label"].int2str(part["label"])
            assert named == [folder.rpartition("/")[2] for folder in below]
        else:
            print(f"{name}, {split}: no label")
    for split, folders_found in found.items():
        print(f"{name}, {split}: {folders_found}")
    return found


datasets.disable_progress_bars()
print(f"datasets {datasets.__version__}")
plain = loaded("splits without test/old train", SPLIT)
leaked = loaded("splits with it", [*SPLIT, "test/old train"])
whole = loaded("pairs alone", [*BARE, "trained dog"])
lost = loaded("pairs and old train", [*BARE, "old train"])
tube = loaded("pairs and test tube", [*BARE, "test tube"])
test = {folder: IMAGES for folder in SPLIT if folder.startswith("test")}
train = {"train/old car": IMAGES, "train/red car": IMAGES, "train/red train": 2 * IMAGES}
same = plain == {"train": train, "test": test}
same = same and leaked == {
    "train": {**train, "test/old train": IMAGES},
    "test": {**test, "test/old train": IMAGES},
}
same = same and whole == {"train": dict.fromkeys([*BARE, "trained dog"], IMAGES)}
same = same and lost == {"train": {"old train": IMAGES}} and tube == {"test": {"test tube": IMAGES}}
print("as described" if same else "NO LONGER AS DESCRIBED")
sys.exit(not same)
PYTHON
