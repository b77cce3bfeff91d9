"""Somebody's own images as a data set: a folder of pairs, or a CSV file that lists them.

    python bench.py run --dataset path/to/photos                 # photos/wet cat/1.jpg or photos/wet_cat/1.jpg
    python bench.py run --dataset path/to/split.csv              # path,state,object and, if there is a split, split
    python -m datasets.own.folder path/to/photos --seed 1 --unseen 0.3 --out split.csv
    python -m datasets.own.folder path/to/photos --merge-labels --out merged.csv

Where no split is given one is drawn (`own/split.py`) and written to a CSV file that stands for it. Name, digest and
order of images do not depend on where they lie or on which of the two ways they came, so both are the same runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets import cache
from datasets.base import PHASES, CompositionDataset, Pair, Phase, Split, Vocabulary
from datasets.checking.reading import looks_of
from datasets.content import content_hashes
from datasets.files import write_whole
from datasets.group_crossing import crossing_sentence
from datasets.own.groups import by_groups
from datasets.own.images import Row, read_csv, read_folder, refuse_duplicates, split_csv
from datasets.own.split import SplitOptions, check_split, draw_split
from datasets.pictures import look_sentences
from datasets.spelling import merged_pairs, spellings
from errors import UserError, counted, some

VERSION = 1  # raise whenever the same files would give another split or another order


def load(name: str, options: SplitOptions | None = None, *, merge_labels: bool = False) -> CompositionDataset:
    """Return the data set at a path: a folder of 'state object' folders, or a CSV file.

    options: how a split is drawn where none is given, the defaults if None
    merge_labels: whether labels that are one prompt in several spellings become one, instead of a `UserError`

    Raises UserError for anything that is not as described in docs/add_a_dataset.md.
    """
    if not name.strip():
        raise UserError("No data set is named.", "The name is empty.", "Pass one of 'list datasets', or a path.")
    path = Path(os.path.abspath(Path(name).expanduser()))  # noqa: PTH100 - links in the user's path are kept as named
    if path.is_dir():
        rows, notes = read_folder(path)
    elif path.is_file():
        rows, notes = read_csv(path), []
    else:
        raise UserError(
            f"There is no folder or CSV file '{name}'.",
            f"Nothing lies at {path}.",
            "Pass --dataset with the name of a data set (see 'list datasets') or with a path that is there.",
        )
    if merge_labels:
        pairs, merged = merged_pairs(row.pair for row in rows)
        rows, notes = [replace(row, pair=pair) for row, pair in zip(rows, pairs, strict=True)], [*notes, *merged]
    refuse_spellings([row.pair for row in rows], str(path))
    return _dataset(rows, notes, str(path), options or SplitOptions())


def refuse_spellings(pairs: Sequence[Pair], where: str) -> None:
    """Raise a UserError where labels are one prompt in several spellings; pairs: of each image, where: their place."""
    if groups := spellings(pairs):
        raise UserError(
            f"In {where} {counted(len(groups), 'label is', 'labels are')} written in several ways that a text encoder "
            f"reads as one: {some(groups, 5, '; ', '; and ')}.",
            "Each spelling would be a class of its own with a part of the images, and no prompt tells them apart.",
            "Write each in one way, or have the most frequent one taken everywhere: 'python -m datasets.own.folder "
            f"{shlex.quote(where)} --merge-labels --out merged.csv', then '--dataset merged.csv'.",
        )


def _dataset(rows: Sequence[Row], notes: list[str], where: str, options: SplitOptions) -> CompositionDataset:
    """Make the data set: order, contents, split, digest."""
    refuse_duplicates(rows, where)
    drawn = rows[0].phase is None
    if drawn and any(row.group for row in rows):
        rows, said_of_groups = by_groups(rows, options, where)
        notes = [*notes, *said_of_groups]
    root = Path(os.path.commonpath([row.path.parent for row in rows]))
    names = {row.path: row.path.relative_to(root).as_posix() for row in rows}
    rows = sorted(rows, key=lambda row: names[row.path])
    labels, paths = [row.pair for row in rows], [row.path for row in rows]
    contents = content_hashes(paths)
    if rows[0].phase is None:
        phases = draw_split(labels, contents, options, where)
    else:
        phases = [row.phase for row in rows if row.phase is not None]
        check_split(labels, phases, where)
    table = [
        [phase, names[path], *label, path.stat().st_size, content]
        for phase, path, label, content in zip(phases, paths, labels, contents, strict=True)
    ]
    looks = looks_of(paths)
    rules = sorted({rule for look in looks for rule in look.rules})
    # How pictures are read is in the digest only where it matters: data of plain pictures keep theirs.
    digest = hashlib.sha256(json.dumps([VERSION, table, *([rules] if rules else [])]).encode()).hexdigest()
    vocabulary = Vocabulary.from_pairs(labels)
    splits: dict[Phase, Split] = {}
    pairs: dict[Phase, tuple[Pair, ...]] = {}
    for phase in PHASES:
        own = [i for i, other in enumerate(phases) if other == phase]
        index = vocabulary.indices([labels[i] for i in own])
        groups = tuple(rows[i].group for i in own) if any(row.group for row in rows) else ()
        splits[phase] = Split(phase, tuple(names[paths[i]] for i in own), index[:, 0], index[:, 1], groups=groups)
        pairs[phase] = tuple(sorted({labels[i] for i in own}))
    name = root.name or Path(where).stem
    said = _summary(name, where, labels, phases, contents, options if drawn else None)
    said += look_sentences(looks, turned=True, plain=False)
    said += [text for text in [crossing_sentence(splits)] if text]
    if drawn:
        file = cache.home() / "splits" / f"{name}-{digest[:10]}.csv"
        _keep(file, split_csv(paths, labels, phases, file.parent, [row.group for row in rows]))
        said.append(f"The split is written to {file}; pass that as --dataset to have the same one again.")
    return CompositionDataset(
        name=f"folder:{name}",
        title=f"{name} (own images, {len(vocabulary.states)} states x {len(vocabulary.objects)} objects)",
        root=root,
        vocabulary=vocabulary,
        train_pairs=pairs["train"],
        val_pairs=pairs["val"],
        test_pairs=pairs["test"],
        splits=splits,
        digest=digest,
        image_folder=root,
        notes=(*said, *notes),
        turned=True,
    )


def _summary(
    name: str,
    where: str,
    labels: Sequence[Pair],
    phases: Sequence[Phase],
    contents: Sequence[str],
    options: SplitOptions | None,
) -> list[str]:
    """Return sentences on what the data and the split are; options: those the split was drawn with, None if given."""
    pairs, vocabulary = set(labels), Vocabulary.from_pairs(labels)
    train = {pair for pair, phase in zip(labels, phases, strict=True) if phase == "train"}
    words = f"{len(vocabulary.states)} states x {len(vocabulary.objects)} objects"
    said = [f"{name}: {counted(len(labels), 'image')} of {counted(len(pairs), 'pair')} ({words}) in {where}."]
    if options is not None:
        said.append(
            f"It has no split, so one was drawn with seed {options.seed}: {len(pairs - train)} of {len(pairs)} pairs "
            "are unseen, and every state and object stays in training."
        )
    parts = []
    for phase in PHASES:
        own = [pair for pair, other in zip(labels, phases, strict=True) if other == phase]
        seen, unseen = len(set(own) & train), len(set(own) - train)
        parts.append(
            f"{phase} {counted(len(own), 'image')} of {counted(seen, 'pair')}"
            + (f" + {unseen} unseen" if phase != "train" else "")
        )
    said.append(f"{', '.join(parts)}.".capitalize())
    held_out = [{p for p, other in zip(labels, phases, strict=True) if other == phase} - train for phase in PHASES[1:]]
    if both := held_out[0] & held_out[1]:
        said.append(f"Unseen pairs in both val and test: {len(both)}; what is chosen on val knows them already.")
    counts = Counter(contents)
    copies = sum(count - 1 for count in counts.values())
    if copies:
        places: dict[str, set[str]] = {}
        for content, phase in zip(contents, phases, strict=True):
            places.setdefault(content, set()).add(phase)
        astride = sum(len(found) > 1 for found in places.values())
        said.append(f"Copies of other images, byte for byte: {copies}; contents found in several phases: {astride}.")
    return said


def dataset_csv(dataset: CompositionDataset, folder: Path) -> str:
    """Return the CSV text of a data set's split, as `split_csv` does."""
    rows = [
        (
            dataset.image_path(phase, index),
            (dataset.vocabulary.states[state], dataset.vocabulary.objects[obj]),
            phase,
            split.groups[index] if split.groups else "",
        )
        for phase in PHASES
        for split in [dataset.splits[phase]]
        for index, (state, obj) in enumerate(zip(split.states, split.objects, strict=True))
    ]
    rows.sort(key=lambda row: row[0])
    return split_csv([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], folder, [r[3] for r in rows])


def _keep(file: Path, text: str) -> None:
    """Write a text file, whole or not at all; the same file there already is left alone."""
    if file.is_file() and file.read_text(encoding="utf-8") == text:
        return
    try:
        write_whole(file, text)
    except (OSError, UnicodeError) as error:  # the second for file names that are no text
        raise UserError(
            f"The split cannot be written to {file}.",
            f"The system says: {getattr(error, 'strerror', None) or error}.",
            "Free some space, or set CZSL_HOME to a folder that can be written.",
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw a split with other options than the default ones and write it."""
    parser = argparse.ArgumentParser(description="Draw a compositional split of a folder of images and write it.")
    parser.add_argument("path", help="folder of 'state object' folders, or a CSV file without a split")
    parser.add_argument("--seed", type=int, default=SplitOptions.seed)
    parser.add_argument("--unseen", type=float, default=SplitOptions.unseen, help="share of the pairs")
    parser.add_argument("--val", type=float, default=SplitOptions.val, help="share of a seen pair's images")
    parser.add_argument("--test", type=float, default=SplitOptions.test, help="share of a seen pair's images")
    parser.add_argument(
        "--merge-labels", action="store_true", help="write labels that are one prompt in their most frequent spelling"
    )
    parser.add_argument("--out", type=Path, help="CSV file to write; an existing one is not overwritten")
    given = parser.parse_args(arguments)
    try:
        options = SplitOptions(given.seed, given.unseen, given.val, given.test)
        dataset = load(given.path, options, merge_labels=given.merge_labels)
        print("\n".join(dataset.notes))
        if given.out is not None:
            if given.out.exists():
                raise UserError(
                    f"The split is not written to {given.out}.", "The file exists.", "Delete it or choose another name."
                )
            _keep(given.out, dataset_csv(dataset, Path(os.path.abspath(given.out.parent))))  # noqa: PTH100
            print(f"Written to {given.out}.")
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
