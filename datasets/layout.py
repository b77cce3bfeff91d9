"""Reader of the published layout of MIT-States, UT-Zappos, C-GQA and VAW-CZSL (docs/datasets.md).

    <CZSL_DATA>/mit-states/images/...
    <CZSL_DATA>/mit-states/compositional-split-natural/{train,val,test}_pairs.txt
    <CZSL_DATA>/mit-states/metadata_compositional-split-natural.t7

Reading has three steps: `read_layout` takes what the files say, `judge` names everything that is wrong with it, and
`assemble` makes the data set. A run stops at the first thing wrong; `data check` shows them all.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import cache
from datasets.base import PHASES, CompositionDataset, Pair, Phase, Split, Vocabulary
from datasets.metadata import MEND, SPLIT, STEM, Entry, entries, find_metadata, read_metadata, read_text
from datasets.published import Published, differences, image_counts, list_counts, shipped_lists
from datasets.slices import frequency_tags
from errors import UserError, counted, did_you_mean

MINIATURE = "miniature.json"
"""A file of this name marks a made data set (`miniature.py`): real words and pairs, other sizes, drawn pictures."""


@dataclass(frozen=True)
class Layout:
    """What the files of a data set say, not judged yet.

    lists, entries: in file order; entries are the images whose pair is in a list
    not_used: entries whose state or split is NA
    unlisted: number of images of each pair that no list has; they are passed over, as in the published code
    miniature: the mark of a made data set, "" for a real one
    """

    root: Path
    lists: Mapping[Phase, tuple[Pair, ...]]
    entries: tuple[Entry, ...]
    not_used: int
    unlisted: Mapping[Pair, int]
    miniature: str = ""

    def counts(self) -> dict[str, int]:
        """Return the sizes found, under the names of `Published.counts`."""
        labels: dict[Phase, list[Pair]] = {phase: [] for phase in PHASES}
        for entry in self.entries:
            labels[entry.phase].append(entry.pair)
        return list_counts(self.lists) | image_counts(self.lists, labels)


@dataclass(frozen=True)
class LayoutReader:
    """Reads one published data set; calling it is what the registry's loaders are for."""

    published: Published

    def find(self) -> Path:
        """Return the data set's folder; a `UserError` that says how to get it where there is none."""
        about, root = self.published, cache.data_root()
        for folder in about.folders:
            if (root / folder).is_dir():
                return root / folder
        raise UserError(
            f"The data set {about.name} is not here.",
            f"{root} has no folder {' or '.join(about.folders)}.",
            f"Run 'python bench.py data fetch {about.name}', or put images/, {SPLIT}/ and {STEM}.t7 into "
            f"{root / about.folders[0]} by hand (CZSL_DATA names another place than {root}).",
        )

    def __call__(self, root: Path | None = None) -> CompositionDataset:
        """Return the data set in its folder, or in another one; whatever is wrong with it is a `UserError`.

        That an image is missing is not looked for here, see `presence.py`.
        """
        layout = read_layout(self.published, self.find() if root is None else root)
        problems = judge(layout, self.published)
        if problems:
            first = problems[0]
            more = f" That is the first of {len(problems)} problems." if len(problems) > 1 else ""
            step = f"{first.next_step} See 'python bench.py data check {self.published.name}'."
            raise UserError(first.asked, first.there + more, step)
        return assemble(layout, self.published)


def read_layout(about: Published, root: Path) -> Layout:
    """Return what the files in a data set's folder say; a file that is missing or cannot be read is a `UserError`."""
    lists = {phase: read_pairs(root / SPLIT / f"{phase}_pairs.txt", about.separator) for phase in PHASES}
    path = find_metadata(root)
    every, not_used = entries(read_metadata(path), path)
    listed = {pair for pairs in lists.values() for pair in pairs}
    unlisted = Counter(entry.pair for entry in every if entry.pair not in listed)
    mark = root / MINIATURE
    return Layout(
        root,
        lists,
        tuple(entry for entry in every if entry.pair in listed),
        not_used,
        unlisted,
        read_text(mark) if mark.is_file() else "",
    )


def read_pairs(path: Path, separator: str | None = None) -> tuple[Pair, ...]:
    """Return a pair list in file order; a line that is not a pair, or is there twice, is a `UserError`.

    separator: what parts state and object; None is white space, so that a carriage return does no harm.
    """
    pairs: dict[Pair, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = [word.strip() for word in line.split(separator)]
        if not any(words):
            continue
        if len(words) != 2 or not all(words):
            raise UserError(
                f"Line {number} of {path} is not a pair: {line.strip()[:80]!r}.",
                f"A line is a state and an object with {'blanks' if separator is None else repr(separator)} between.",
                MEND,
            )
        pair = (words[0], words[1])
        if pair in pairs:
            raise UserError(
                f"The pair '{' '.join(pair)}' is twice in {path}.", f"Lines {pairs[pair]} and {number} hold it.", MEND
            )
        pairs[pair] = number
    if not pairs:
        raise UserError(f"The pair list {path} is empty.", "A list has a pair on each line.", MEND)
    return tuple(pairs)


def judge(layout: Layout, about: Published) -> list[UserError]:
    """Return everything for which the data set cannot be used, the worst first; an empty list if it can."""
    train = layout.lists["train"]
    trained = ({state for state, _ in train}, {obj for _, obj in train})
    shipped = shipped_lists(about.name)
    known = trained
    if shipped is not None:
        every = [pair for pairs in shipped.values() for pair in pairs]
        known = ({state for state, _ in every}, {obj for _, obj in every})
    found = []
    for phase in PHASES:
        for pair in layout.lists[phase]:
            for kind, word, words, primitives in zip(("state", "object"), pair, known, trained, strict=True):
                where = f"The {kind} '{word}' of the pair '{' '.join(pair)}' in {phase}_pairs.txt"
                if word not in words and shipped is not None:
                    found.append(_unknown_word(where, word, kind, words, about))
                elif word not in primitives:
                    found.append(_never_trained(where, word, kind, primitives))
    found += _misplaced(layout)
    for phase in PHASES:
        if not any(entry.phase == phase for entry in layout.entries):
            there = f"The metadata in {layout.root} lists none."
            found.append(UserError(f"The data set {about.name} has no {phase} image.", there, MEND))
    wrong = differences(list_counts(layout.lists), about)
    if wrong and about.certain and not layout.miniature:
        found.append(
            UserError(
                f"The pair lists in {layout.root / SPLIT} are not those of {about.title}.",
                f"Their sizes differ: {', '.join(wrong)}.",
                "Get the archive of the splits again; a split of your own runs from a CSV file with the columns path, "
                "state, object, split (docs/add_a_dataset.md), while the images' folder alone has another split drawn.",
            )
        )
    return found


def _unknown_word(where: str, word: str, kind: str, words: Collection[str], about: Published) -> UserError:
    there = f"{about.title} has {len(words)} {kind}s, and this is none of them."
    return UserError(f"{where} is unknown.", there, did_you_mean(word, words) or MEND)


def _never_trained(where: str, word: str, kind: str, trained: Collection[str]) -> UserError:
    there = f"None of the {len(trained)} {kind}s in train_pairs.txt is that word, so no method could know it."
    return UserError(f"{where} is never trained.", there, did_you_mean(word, trained) or MEND)


def _misplaced(layout: Layout) -> list[UserError]:
    """Return the images that no method could be right about, a line for each pair and split."""
    train = set(layout.lists["train"])
    allowed = {phase: train.union(layout.lists[phase]) for phase in PHASES} | {"train": train}
    wrong: dict[tuple[Phase, Pair], list[str]] = {}
    for entry in layout.entries:
        if entry.pair not in allowed[entry.phase]:
            wrong.setdefault((entry.phase, entry.pair), []).append(entry.image)
    found = []
    for (phase, pair), images in wrong.items():
        where = "train_pairs.txt" if phase == "train" else f"train_pairs.txt nor in {phase}_pairs.txt"
        found.append(
            UserError(
                f"{len(images)} {phase} image{'s' * (len(images) > 1)} of the pair '{' '.join(pair)}' "
                f"({images[0]}{' and so on' * (len(images) > 1)}) cannot be used.",
                f"The pair is not in {where}"
                + (": it is unseen, yet it has training images." if phase == "train" else "."),
                MEND,
            )
        )
    return found


def assemble(layout: Layout, about: Published) -> CompositionDataset:
    """Return the data set. Its digest is that of pair lists and image lists in their order, whatever file they lie in.

    The pixels are not in the digest of a real data set, they would have to be read; `data check` shows their own.
    """
    vocabulary = Vocabulary.from_pairs([pair for phase in PHASES for pair in layout.lists[phase]])
    splits: dict[Phase, Split] = {}
    for phase in PHASES:
        own = [entry for entry in layout.entries if entry.phase == phase]
        index = vocabulary.indices([entry.pair for entry in own])
        splits[phase] = Split(phase, tuple(entry.image for entry in own), index[:, 0], index[:, 1])
    tags = frequency_tags(splits)
    splits = {phase: Split(phase, s.images, s.states, s.objects, tags[phase]) for phase, s in splits.items()}
    content = json.dumps([[layout.lists[phase] for phase in PHASES], layout.entries, layout.miniature])
    return CompositionDataset(
        name=about.name,
        title=f"{about.title}, a made miniature" if layout.miniature else about.title,
        root=layout.root,
        vocabulary=vocabulary,
        train_pairs=layout.lists["train"],
        val_pairs=layout.lists["val"],
        test_pairs=layout.lists["test"],
        splits=splits,
        digest=hashlib.sha256(content.encode()).hexdigest(),
        image_folder=layout.root / "images",
        notes=tuple(notes(layout, about)),
    )


def notes(layout: Layout, about: Published) -> list[str]:
    """Return what a person who runs something on the data should know."""
    if layout.miniature:
        return [f"{about.name} in {layout.root} is a made miniature: its numbers say nothing about {about.title}."]
    found = []
    wrong = differences(layout.counts(), about)
    if wrong:
        source = "published" if about.certain else "usually printed (not compared with the files so far)"
        found.append(
            f"{about.name} is not of the {source} size, so its numbers are not comparable with print: "
            f"{', '.join(wrong)}. See 'python bench.py data check {about.name}'."
        )
    if layout.unlisted:
        found.append(
            f"{about.name}: {counted(sum(layout.unlisted.values()), 'image')} of pairs that no list has, passed over "
            f"as in the published code (the first is '{' '.join(next(iter(layout.unlisted)))}')."
        )
    return found
