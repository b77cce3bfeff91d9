"""Labels without images: what the scores of a method are judged by, and lists of names that say their order.

Pair lists of three data sets come with the suite; which image has which pair does not, and is read from the metadata
file of the data set's archive. No image is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from datasets.base import PHASES, CompositionDataset, Pair, Split, Vocabulary
from datasets.layout import MINIATURE, Layout, LayoutReader, assemble, judge, read_pairs
from datasets.metadata import SPLIT, STEM, entries, find_metadata, read_metadata, read_text
from datasets.published import shipped_lists
from errors import UserError, counted, did_you_mean
from registry import DATASETS

SEPARATORS = ("\t", ",", "+")
SHOWN = 3  # names in a message


def labelled(name: str, metadata: Path | None = None) -> CompositionDataset:
    """Return a data set of which the labels alone need be there; one that lacks them is a `UserError`.

    metadata: a file that says which image has which pair and split, in place of the data set's own.
    """
    loader = DATASETS.get(name)
    if not isinstance(loader, LayoutReader):
        if metadata is not None:
            raise UserError(
                f"A metadata file was given for {name}.",
                "Its labels come from elsewhere.",
                "Leave --metadata out; it is for mit_states, ut_zappos, cgqa and vaw_czsl.",
            )
        made: CompositionDataset = loader()
        return made
    folder = loader.find() if metadata is None else metadata.parent
    if metadata is None and all((folder / SPLIT / f"{phase}_pairs.txt").is_file() for phase in PHASES):
        return loader()
    return _from_metadata(loader, folder, metadata)


def _from_metadata(loader: LayoutReader, folder: Path, metadata: Path | None) -> CompositionDataset:
    """Return a data set from its metadata file and pair lists: those beside the file, else those of the suite."""
    about, path = loader.published, find_metadata(folder) if metadata is None else metadata
    if not path.is_file():
        raise UserError(f"The metadata {path} is not there.", "There is no such file.", f"Pass {STEM}.t7.")
    beside = {phase: folder / SPLIT / f"{phase}_pairs.txt" for phase in PHASES}
    if all(file.is_file() for file in beside.values()):
        lists = {phase: read_pairs(file, about.separator) for phase, file in beside.items()}
    elif (shipped := shipped_lists(about.name)) is not None:
        lists = shipped
    else:
        raise UserError(
            f"The pair lists of {about.title} are not there.",
            f"{folder / SPLIT} lacks some of {', '.join(file.name for file in beside.values())}; none are shipped.",
            "Put the archive's lists there.",
        )
    every, not_used = entries(read_metadata(path), path)
    listed = {pair for pairs in lists.values() for pair in pairs}
    kept = tuple(entry for entry in every if entry.pair in listed)
    mark = folder / MINIATURE
    layout = Layout(folder, lists, kept, not_used, {}, read_text(mark) if mark.is_file() else "")
    for problem in judge(layout, about):
        raise problem
    return assemble(layout, about)


def read_names(path: Path) -> list[str]:
    """Return the lines of a list of names, without the empty ones; a file that cannot be read is a `UserError`."""
    text = read_text(path, "Pass a text file in UTF-8 with a name on each line.")
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise UserError(f"The list of names {path} is empty.", "It has a name on each line.", "Save the names again.")
    return names


def pair_of(line: str, vocabulary: Vocabulary, where: str = "the list of pairs") -> Pair:
    """Return the pair that a line names: a state and an object parted by a tab, a comma, a plus or blanks.

    Where labels hold such signs themselves, the vocabulary decides. No pair of it is a `UserError`. where: the line is.
    """
    parted = [pair for mark in SEPARATORS for pair in _cuts(line.split(mark), mark)]
    splits = list(dict.fromkeys([*parted, *_cuts(line.split(), " ")]))
    known = [(state, obj) for state, obj in splits if state in vocabulary.states and obj in vocabulary.objects]
    if len(known) == 1 or (known and known[0] == splits[0] and "\t" in line):  # a tab parts, whatever else could
        return known[0]
    there, step = f"{len(known) or 'No'} pairs of the data set can be read in it", ""
    if not known and splits:
        state, obj = splits[0]
        kind, word, names = ("object", obj, vocabulary.objects)
        if state not in vocabulary.states:
            kind, word, names = "state", state, vocabulary.states
        there, step = f"The data set has no {kind} '{word}'", did_you_mean(word, names)
    raise UserError(
        f"'{line[:80]}' in {where} is no pair of the data set.",
        f"{there}.",
        step or "Write a state and an object on each line, with a tab between.",
    )


def _cuts(words: Sequence[str], mark: str) -> list[Pair]:
    """Return the two sides of a line for each place where it can be divided. words: what lies between the marks."""
    return [(mark.join(words[:cut]).strip(), mark.join(words[cut:]).strip()) for cut in range(1, len(words))]


def pair_columns(path: Path, vocabulary: Vocabulary, wanted: Sequence[Pair]) -> list[int]:
    """Return the column of each wanted pair in a matrix whose columns a list names, int [P].

    Other pairs of the vocabulary may be in the list. A pair that is doubled or missing is a `UserError`.
    """
    states, objects = set(vocabulary.states), set(vocabulary.objects)
    place: dict[Pair, int] = {}
    for column, line in enumerate(read_names(path)):
        words = line.split("\t") if "\t" in line else line.split()
        plain = len(words) == 2 and words[0] in states and words[1] in objects
        pair = (words[0], words[1]) if plain else pair_of(line, vocabulary, f"line {column + 1} of {path}")
        if pair in place:
            raise UserError(
                f"The pair '{' '.join(pair)}' is twice in {path}.",
                f"It names the columns {place[pair]} and {column} (from 0).",
                "Name each column once.",
            )
        place[pair] = column
    missing = [" ".join(pair) for pair in wanted if pair not in place]
    if missing:
        raise UserError(
            f"{counted(len(missing), 'candidate pair is', 'candidate pairs are')} missing in {path}.",
            f"Of {len(wanted):,} candidates it lacks {_some(missing)}.",
            "Score every candidate; one that your method rules out is a column of -infinity.",
        )
    return [place[pair] for pair in wanted]


def pair_count(path: Path) -> int:
    """Return how many pairs a list names."""
    return len(read_names(path))


def image_rows(path: Path, split: Split) -> list[int]:
    """Return the place in a split of each image that a list names, in the list's order, int [N].

    A name counts from the folder `images` on. One that is unknown, doubled or missing is a `UserError`.
    """
    own = {name: place for place, name in enumerate(split.images)}
    if len(own) < len(split):
        raise UserError(
            f"The rows cannot be named by {path}.",
            f"Names of the {split.name} split are not unique: {len(split) - len(own):,} are there more than once.",
            "Leave the list out and keep the order of the metadata.",
        )
    lines: dict[int, int] = {}
    for number, line in enumerate(read_names(path), start=1):
        found = next((own[name] for name in _spellings(line) if name in own), None)
        if found is None:
            raise UserError(
                f"The image '{line[:120]}' in line {number} of {path} is unknown.",
                f"The {split.name} split has {counted(len(split), 'image')}, and this is none of them.",
                did_you_mean(_spellings(line)[-1], own)
                or "List the images of this split alone, as the data set names them.",
            )
        if found in lines:
            raise UserError(
                f"The image '{split.images[found]}' is twice in {path}.",
                f"Lines {lines[found]} and {number} name it.",
                "Name each row once.",
            )
        lines[found] = number
    missing = [name for place, name in enumerate(split.images) if place not in lines]
    if missing:
        raise UserError(
            f"{counted(len(missing), 'image is', 'images are')} missing in {path}.",
            f"Of {len(split):,} images of the {split.name} split it lacks {_some(missing)}.",
            "Score every image of the split: numbers of a part are not comparable.",
        )
    return list(lines)


def every_pair(dataset: CompositionDataset) -> list[Pair]:
    """Return the pairs of all three lists, sorted: the columns of the released codes in the closed world."""
    lists: Iterable[Sequence[Pair]] = (dataset.train_pairs, dataset.val_pairs, dataset.test_pairs)
    return sorted({pair for pairs in lists for pair in pairs})


def _spellings(name: str) -> list[str]:
    """Return what an image may be called in a split: as it is named, from a folder `images` on, or from another on."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part != "."]
    starts = [0, *(place + 1 for place, part in enumerate(parts) if part == "images"), *range(1, len(parts))]
    return [name, *("/".join(parts[start:]) for start in starts)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" and so on" if len(names) > SHOWN else "")
