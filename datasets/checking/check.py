"""What `data check` and `data info` know: sizes against the published ones, and everything wrong with the files.

    python bench.py data check mit_states
    python bench.py data info cgqa

Nothing here prints or needs a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets import cache
from datasets.base import PHASES, CompositionDataset, Pair, Phase
from datasets.checking.duplicate_sentences import near_duplicates_csv, sentences
from datasets.checking.image_files import Finding, Progress, image_findings
from datasets.checking.near_duplicates import near_duplicates
from datasets.files import write_whole
from datasets.group_crossing import crossing_sentence
from datasets.layout import Layout, LayoutReader, assemble, judge, read_layout
from datasets.published import PairLists, Published, differences, image_counts, list_counts, shipped_lists
from datasets.spelling import spelling_notes
from errors import UserError, counted, some
from registry import DATASETS


class Size(NamedTuple):
    """A size by its name: what is there, what is published, and what the pair lists that ship with the suite say."""

    name: str
    there: int | None
    published: int | None
    shipped: int | None


@dataclass(frozen=True)
class CheckReport:
    """What a check found. digest: that of the data set, None if it could not be read; content: the SHA-256 of all
    pictures, None unless every one was read.
    """

    title: str
    root: Path
    sizes: Sequence[Size]
    findings: Sequence[Finding]
    digest: str | None = None
    content: str | None = None

    @property
    def problems(self) -> list[Finding]:
        """Return the findings that are problems."""
        return [finding for finding in self.findings if finding.problem]


@dataclass(frozen=True)
class About:
    """What is known of a data set. published: None for one that is rendered or a user's own.

    root: where it lies, or None; problem: why it is not there or cannot be used, "" if it can.
    """

    name: str
    title: str
    published: Published | None
    root: Path | None
    problem: str
    sizes: Sequence[Size]


def about(name: str) -> About:
    """Return what is known of a data set, whether or not it is here."""
    reader = DATASETS.get(name)
    if not isinstance(reader, LayoutReader):
        dataset = reader()
        return About(name, dataset.title, None, dataset.root, "", _sizes(_counts(dataset)))
    published = reader.published
    root, problem, there = None, "", {}
    try:
        root = reader.find()
        layout = read_layout(published, root)
        there = layout.counts()
        problem = " ".join(str(error) for error in judge(layout, published)[:1])
    except UserError as error:
        problem = str(error)
    return About(name, published.title, published, root, problem, _sizes(there, published))


def check(
    name: str, *, fast: bool = False, near: bool = False, progress: Progress = lambda done, total: None
) -> CheckReport:
    """Return what is there and what is wrong with it.

    fast: look only whether images exist, without reading them
    near: look for near-duplicates across splits, which are written to a file too

    A data set that is not here at all is a `UserError`; files that cannot be read are findings.
    """
    reader = DATASETS.get(name)
    if not isinstance(reader, LayoutReader):
        dataset = reader()
        of_split = list(split_findings(dataset))
        told = {finding.text for finding in of_split}
        found = [*(Finding(note, problem=False) for note in dataset.notes if note not in told), *of_split]
        pictures, content = image_findings(dataset, fast, progress)
        pictures += near_findings(dataset, progress) if near else []
        sizes = _sizes(_counts(dataset))
        return CheckReport(dataset.title, dataset.root, sizes, found + pictures, dataset.digest, content)
    root = reader.find()
    try:
        layout = read_layout(reader.published, root)
    except UserError as error:
        return CheckReport(reader.published.title, root, _sizes({}, reader.published), [Finding(str(error))])
    dataset = assemble(layout, reader.published)
    found = [*layout_findings(layout, reader.published), *split_findings(dataset)]
    pictures, content = image_findings(dataset, fast, progress)
    pictures += near_findings(dataset, progress) if near else []
    sizes = _sizes(layout.counts(), reader.published)
    return CheckReport(dataset.title, root, sizes, found + pictures, dataset.digest, content)


def near_findings(dataset: CompositionDataset, progress: Progress) -> list[Finding]:
    """Return what near-duplicates there are across splits, and where the whole list was written."""
    found = near_duplicates(dataset, progress)
    if not found:
        return [Finding("No near-duplicates across splits.", problem=False)]
    name = re.sub(r"\W+", "-", dataset.name)
    file = cache.home() / "near_duplicates" / f"{name}-{dataset.digest[:10]}.csv"
    write_whole(file, near_duplicates_csv(dataset, found))
    said = [*sentences(dataset, found, 10), f"The whole list of near-duplicates is in {file}."]
    return [Finding(text, problem=False) for text in said]


def _sizes(there: dict[str, int], published: Published | None = None) -> list[Size]:
    printed = {} if published is None else published.counts()
    lists = None if published is None else shipped_lists(published.name)
    shipped = {} if lists is None else list_counts(lists)
    return [Size(key, there.get(key), printed.get(key), shipped.get(key)) for key in _ordered({**printed, **there})]


def _ordered(names: Iterable[str]) -> list[str]:
    """Return the names of sizes as they are read: words and pairs first, then each split."""
    return sorted(names, key=lambda name: next((i for i, phase in enumerate(PHASES, 1) if name.startswith(phase)), 0))


def _lists(dataset: CompositionDataset) -> PairLists:
    return {"train": dataset.train_pairs, "val": dataset.val_pairs, "test": dataset.test_pairs}


def _labels(dataset: CompositionDataset) -> dict[Phase, list[Pair]]:
    """Return the pair of every image."""
    states, objects = dataset.vocabulary.states, dataset.vocabulary.objects
    return {
        phase: [(states[s], objects[o]) for s, o in zip(split.states, split.objects, strict=True)]
        for phase, split in dataset.splits.items()
    }


def _counts(dataset: CompositionDataset) -> dict[str, int]:
    return list_counts(_lists(dataset)) | image_counts(_lists(dataset), _labels(dataset))


def layout_findings(layout: Layout, published: Published) -> Iterator[Finding]:
    """Yield what the files of a published data set say against what is published."""
    for error in judge(layout, published):
        yield Finding(f"{error.asked} {error.there}")
    lists, images = list_counts(layout.lists), layout.counts()
    if not layout.miniature:
        wrong = differences({key: value for key, value in images.items() if key not in lists}, published)
        if not published.certain:
            wrong = differences(images, published)
        if wrong:
            yield Finding(f"Not of the published size: {', '.join(wrong)}.", published.certain)
        shipped = shipped_lists(published.name)
        for phase, theirs in ({} if shipped is None else shipped).items():
            extra, lacking = (sorted(a - b) for a, b in _both_ways(layout.lists[phase], theirs))
            if extra or lacking:
                more, less = (some(map(" ".join, pairs)) or "none" for pairs in (extra, lacking))
                text = (
                    f"{phase}_pairs.txt differs from the list that ships with the suite (more: {more}; less: {less})."
                )
                yield Finding(text, problem=phase == "train")  # the other two were transcribed, splits/SOURCE.md
    if layout.unlisted:
        pairs = some(f"{' '.join(pair)} ({count})" for pair, count in layout.unlisted.items())
        yield Finding(f"Images passed over, because no list has their pair: {pairs}.", problem=False)
    if layout.not_used:
        yield Finding(
            f"{counted(layout.not_used, 'entry of the metadata is', 'entries of the metadata are')} NA and never used.",
            problem=False,
        )


def _both_ways(ours: Iterable[Pair], theirs: Iterable[Pair]) -> tuple[tuple[set[Pair], set[Pair]], ...]:
    a, b = set(ours), set(theirs)
    return (a, b), (b, a)


def split_findings(dataset: CompositionDataset) -> Iterator[Finding]:
    """Yield what is wrong with the splits: leakage, labels of one prompt, groups and pairs without images."""
    images = {phase: dataset.splits[phase].images for phase in PHASES}
    for one, other in combinations(PHASES, 2):
        both = sorted(set(images[one]).intersection(images[other]))
        if both:
            yield Finding(f"{counted(len(both), 'image is', 'images are')} in {one} and in {other}: {some(both)}.")
    for phase in PHASES:
        names, times = np.unique(np.array(images[phase], dtype=object), return_counts=True)
        if (times > 1).any():
            yield Finding(f"Images that are twice in {phase}: {some(names[times > 1])}.", problem=False)
    for phase in PHASES[1:]:
        seen = dataset.seen[dataset.splits[phase].states, dataset.splits[phase].objects]
        for group, there in (("seen", seen.any()), ("unseen", not seen.all())):
            if not there:
                text = f"There are no {phase} images of {group} pairs, so AUC and HM are undefined there."
                yield Finding(text, problem=False)
    if text := crossing_sentence(dataset.splits):
        yield Finding(text)
    labels, lists, train = _labels(dataset), _lists(dataset), set(dataset.train_pairs)
    shared = sorted(set(lists["val"]).intersection(lists["test"]) - train)
    if shared:
        count = counted(len(shared), "unseen pair is", "unseen pairs are")
        yield Finding(f"{count} in val and in test: {some(map(' '.join, shared))}.")
    yield from (Finding(note, problem=False) for note in spelling_notes(dataset.vocabulary))
    for phase in PHASES:
        empty = sorted(set(lists[phase]).difference(labels[phase]))
        if empty:
            count = counted(len(empty), f"pair of {phase} has", f"pairs of {phase} have")
            text = f"{count} no {phase} image: {some(map(' '.join, empty))}."
            yield Finding(text, problem=phase == "train")
