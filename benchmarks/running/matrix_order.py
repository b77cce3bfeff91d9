"""What the rows and columns of a user's score matrix are: an order of the suite, or that of lists of names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.evaluation.matrix import Order
from benchmarks.evaluation.matrix_files import MatrixFile
from datasets.base import PHASES, CompositionDataset, Pair, Phase, World
from datasets.labels import every_pair, image_rows, pair_columns, read_names
from errors import UserError, counted


@dataclass(frozen=True)
class Files:
    """The scores of a phase, and lists of names of its columns and rows; None for an order of the suite."""

    scores: Path
    pairs: Path | None = None
    images: Path | None = None


def order_of(
    matrix: MatrixFile, files: Files, dataset: CompositionDataset, phase: Phase, world: World
) -> tuple[Order, list[str]]:
    """Return what rows and columns are, and what a reader should know of that; a shape that does not fit is refused.

    Without a list of pairs the columns are the candidates in the suite's order, or in the closed world all pairs of the
    three lists, sorted, as the released codes have them, or every state x object. Without a list of images the rows are
    the images of the split in the order of the metadata.
    """
    layouts = _layouts(dataset, phase, world)
    _check_rows(matrix, files, dataset, phase, [len(pairs) for pairs in layouts.values()])
    wanted = dataset.candidates(phase, world).names()
    rows = range(matrix.rows) if files.images is None else image_rows(files.images, dataset.splits[phase])
    notes = []
    if files.pairs is not None:
        if (named := len(read_names(files.pairs))) != matrix.columns:
            raise UserError(
                f"The list {files.pairs} does not fit {files.scores}.",
                f"It names {counted(named, 'pair')}, and the matrix has {counted(matrix.columns, 'column')}.",
                "Save both from the same list.",
            )
        columns = pair_columns(files.pairs, dataset.vocabulary, wanted)
    else:
        columns = _columns(matrix, layouts, wanted, dataset, phase, world)
    if (others := matrix.columns - len(wanted)) > 0:
        notes.append(
            f"{files.scores.name}: {counted(others, 'column is', 'columns are')} of pairs that are no candidates of "
            f"the {phase} split in the {world} world and not looked at."
        )
    return Order(np.array(columns, dtype=np.int64), np.array(rows, dtype=np.int64)), notes


def _layouts(dataset: CompositionDataset, phase: Phase, world: World) -> dict[str, Sequence[Pair]]:
    """Return the lists of pairs that columns may be without a list of names, by what they are in words."""
    grid = [(state, obj) for state in dataset.vocabulary.states for obj in dataset.vocabulary.objects]
    if world == "open":
        return {"every state x object": grid}
    return {
        f"the candidates of the {phase} split": dataset.candidates(phase, world).names(),
        "all pairs of the three lists, sorted": every_pair(dataset),
        "every state x object": grid,
    }


def _columns(
    matrix: MatrixFile,
    layouts: dict[str, Sequence[Pair]],
    wanted: Sequence[Pair],
    dataset: CompositionDataset,
    phase: Phase,
    world: World,
) -> list[int]:
    for pairs in layouts.values():
        if len(pairs) == matrix.columns:
            place = {pair: column for column, pair in enumerate(pairs)}
            return [place[pair] for pair in wanted]
    closed = {len(dataset.candidates(phase, "closed")), len(every_pair(dataset))}
    step = "Name the columns with --pairs, a list with a pair on each line."
    if world == "open" and matrix.columns in closed:
        step = "These are pairs of the closed world: leave --world open out, or score every state x object."
    there = ", ".join(f"{len(pairs):,} ({what})" for what, pairs in layouts.items())
    raise UserError(
        f"The scores {matrix.path} have {counted(matrix.columns, 'column')}.",
        f"For {dataset.name} in the {world} world there should be {there}.",
        step,
    )


def _check_rows(
    matrix: MatrixFile, files: Files, dataset: CompositionDataset, phase: Phase, widths: Sequence[int]
) -> None:
    images = len(dataset.splits[phase])
    if matrix.rows == images:
        return
    widths = [*widths, *([] if files.pairs is None else [len(read_names(files.pairs))])]
    asked = f"The scores {matrix.path} have {counted(matrix.rows, 'row')}."
    there = f"The {phase} split of {dataset.name} has {counted(images, 'image')}."
    if matrix.columns == images and matrix.rows in widths:
        raise UserError(asked, f"{there} The matrix is transposed: its columns are the images.", "Save scores.T.")
    step = "Score each image of the split once: no shuffling, no drop_last, no part of it."
    other = next((name for name in PHASES if name != phase and len(dataset.splits[name]) == matrix.rows), None)
    if other is not None:
        step = f"That is the number of the {other} split's images: pass the scores of {phase}."
    raise UserError(asked, there, step)
