"""Lists of somebody's own images with their pairs: from the names of folders, or from a CSV file.

docs/add_a_dataset.md describes both for a user. What is not as described there is refused with the place named: a
mislabelled image would only show as a worse number.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.base import PHASES, Pair, Phase
from datasets.metadata import SPLIT, STEM
from datasets.own.walking import SHOWN, images_below, sentence
from errors import UserError, counted, did_you_mean, some

COLUMNS = ("path", "state", "object", "split", "group")
"""Columns of a CSV file; the last two may be left out."""
STATELESS = "adj"
"""The word that MIT-States writes for the state of images that have none: 'adj cat', beside 'wet cat'."""

PASS_BY_NAME = (
    "For its own split pass the data set's name (--dataset mit_states, ut_zappos, cgqa or vaw_czsl), with CZSL_DATA "
    "naming the folder that it lies in; a split of another data set goes into a CSV file with the columns path, state, "
    "object, split."
)


@dataclass(frozen=True)
class Row:
    """An image: its absolute path, its pair, its phase if one is given, and how an error names its place.

    group: the photograph, video or patient that it was taken from, "" where nobody says.
    """

    path: Path
    pair: Pair
    phase: Phase | None
    place: str
    group: str = ""


def split_pair(name: str) -> Pair:
    """Return the (state, object) of a folder's name: divided at its one underscore, or, if it has none, its one space.

    >>> split_pair("wet traffic.light"), split_pair("deep fried_green egg")
    (('wet', 'traffic.light'), ('deep fried', 'green egg'))
    """
    separator = "_" if "_" in name else " "
    parts = [part.strip() for part in name.split(separator)]
    if len(parts) != 2 or not all(parts):
        raise ValueError(f"{name!r} is not two words with one underscore or one space between them")
    return parts[0], parts[1]


def read_folder(folder: Path) -> tuple[list[Row], list[str]]:
    """Return the images of a folder of pair folders, and sentences on what was left out.

    Images may lie deeper in a pair's folder, and links are followed; see `walking.py`. Folders of images without a
    state, as MIT-States has them, are left out.
    """
    found = images_below(folder)
    pairs: dict[str, Pair] = {}
    strange = []
    for name in found.folders:
        try:
            pairs[name] = split_pair(name)
        except ValueError:
            strange.append(name)
    if strange:
        raise _no_pairs(folder, strange)
    rows: list[Row] = []
    stray: list[str] = []
    stateless: Counter[str] = Counter()
    for image in found.images:
        place = image.relative_to(folder).parts
        if len(place) == 1:
            stray.append(place[0])
        elif pairs[place[0]][0].lower() == STATELESS:
            stateless[place[0]] += 1
        else:
            rows.append(Row(image, pairs[place[0]], None, f"in {place[0]}"))
    notes = found.sentences()
    if stray:
        notes.append(sentence("because they are in no folder of a pair", stray[:SHOWN], len(stray), len(stray) - SHOWN))
    if stateless:
        notes.append(
            f"Left out, because '{STATELESS}' stands for no state, as in MIT-States: "
            f"{counted(stateless.total(), 'image')} of {counted(len(stateless), 'folder')} ({some(stateless)}). "
            "List them in a CSV file if it is a state of yours; if these are the images of MIT-States, a split that is "
            "drawn is not the published one."
        )
    if not rows:
        raise UserError(
            f"There are no images in {folder}.",
            " ".join(notes) or "It holds no folder of a pair, such as 'wet cat', with files.",
            "Put images into a folder per pair, or pass a CSV file with the columns path, state, object.",
        )
    return rows, [*notes, *_published_images(folder)]


def _no_pairs(folder: Path, strange: Sequence[str]) -> UserError:
    """Return what is wrong with a folder of folders that name no pair."""
    inner = folder / "images"
    if is_published_layout(folder):
        return UserError(
            f"The folder {folder} has the layout of a published data set, which has a split of its own.",
            f"It holds {SPLIT}/ or {STEM}.*, and passed as a path it would have another split drawn.",
            PASS_BY_NAME,
        )
    return UserError(
        f"The folder {strange[0]!r} in {folder} names no pair ({len(strange)} such folders).",
        "A folder's name is a state and an object, divided by its one underscore or, without any, its one space.",
        f"Pass {inner}, if that is meant; a split is drawn for it, which is none that was published."
        if "images" in strange and inner.is_dir()
        else "Rename them, such as 'wet_traffic light', move them away, or list the images in a CSV file.",
    )


def _published_images(folder: Path) -> list[str]:
    """Return a sentence if the folder is the `images` of a published data set, whose own split is not used then."""
    if not is_published_layout(folder.parent):
        return []
    return [f"These are images of a data set with a split of its own beside them, which is not used. {PASS_BY_NAME}"]


def is_published_layout(folder: Path) -> bool:
    """Return whether a folder is laid out as the published data sets are: pair lists and metadata of their split."""
    return (folder / SPLIT).is_dir() or any(folder.glob(f"{STEM}.*"))


def read_csv(file: Path) -> list[Row]:
    """Return the images that a CSV file lists: columns path, state, object, group and, all or none filled in, split.

    Paths are absolute or start from the file's own folder. Files and words are checked, and every fault names its line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"The file {file} cannot be read.", f"It is no text in UTF-8 ({error}).", "Save it as CSV in UTF-8."
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    _check_columns(reader, file)
    rows: list[Row] = []
    try:
        for record in reader:
            rows.append(_row(record, file, reader.line_num))
    except csv.Error as error:
        raise UserError(
            f"Line {reader.line_num} of {file} is no CSV.", f"The reason: {error}.", "Mend the line."
        ) from error
    if not rows:
        raise UserError(f"There are no images in {file}.", "It has a heading and no other line.", "List the images.")
    phased = sum(row.phase is not None for row in rows)
    if 0 < phased < len(rows):
        first = next(row for row in rows if row.phase is None)
        raise UserError(
            f"Only {phased} of the {len(rows)} images of {file} have a split.",
            f"The first without is at {first.place}.",
            "Fill in the column 'split' everywhere, or leave it out to have a split drawn.",
        )
    missing = [row for row in rows if not row.path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(rows)} images that {file} lists are not there.",
            f"The first is {missing[0].path} at {missing[0].place}.",
            "Restore them or take out their lines; paths start from the CSV file's own folder.",
        )
    return rows


def _check_columns(reader: csv.DictReader, file: Path) -> None:
    columns = list(reader.fieldnames or [])
    for column in columns:
        if column not in COLUMNS:
            raise UserError(
                f"The file {file} has a column '{column}'.",
                f"The columns are {', '.join(COLUMNS)}, divided by commas, and 'split' and 'group' may be left out.",
                did_you_mean(column, COLUMNS) or "Rename it or take it out.",
            )
    lacking = [column for column in COLUMNS[:3] if column not in columns]
    if lacking or len(set(columns)) < len(columns):
        raise UserError(
            f"The first line of {file} has to name the columns path, state, object and, if wanted, split and group.",
            f"It lacks {', '.join(lacking)}." if lacking else "It names one of them twice.",
            "Mend the first line.",
        )


def _row(record: dict[str | None, str | list[str] | None], file: Path, line: int) -> Row:
    place = f"line {line}"
    values = {key: (value or "").strip() for key, value in record.items() if key and not isinstance(value, list)}
    if None in record or not all(values[column] for column in COLUMNS[:3]):
        raise UserError(
            f"{place.capitalize()} of {file} does not have a path, a state and an object.",
            f"It has {', '.join(repr(value) for value in values.values())}"
            + (" and more fields than columns." if None in record else "."),
            "Fill them in; a field that holds a comma is put in double quotes.",
        )
    split = values.get("split", "")
    phase = next((known for known in PHASES if known == split), None)
    if split and phase is None:
        raise UserError(
            f"{place.capitalize()} of {file} has the split '{split}'.",
            f"A split is {', '.join(PHASES[:2])} or {PHASES[2]}.",
            did_you_mean(split, PHASES) or "Choose one of these.",
        )
    path = Path(os.path.normpath(file.parent / Path(values["path"]).expanduser()))
    return Row(path, (values["state"], values["object"]), phase, place, values.get("group", ""))


def refuse_duplicates(rows: Sequence[Row], where: str) -> None:
    """Raise a UserError where an image occurs twice; where: what the rows come from."""
    first: dict[Path, Row] = {}
    for row in rows:
        other = first.setdefault(row.path, row)
        if other is not row:
            raise UserError(
                f"The image {row.path} is listed twice in {where}.",
                f"It stands at {other.place} as '{' '.join(other.pair)}' and at {row.place} as '{' '.join(row.pair)}'.",
                "Leave one of the two; an image has one pair and one split.",
            )


def split_csv(
    paths: Sequence[Path], labels: Sequence[Pair], phases: Sequence[Phase], folder: Path, groups: Sequence[str] = ()
) -> str:
    """Return the CSV text of a split for a file in `folder`: paths below it are relative to it, others absolute.

    groups: of each image; without any the column is left out.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS if any(groups) else COLUMNS[:4])
    for row, (path, label, phase) in enumerate(zip(paths, labels, phases, strict=True)):
        place = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
        writer.writerow([place, *label, phase, *([groups[row]] if any(groups) else [])])
    return text.getvalue()
