"""What judging a score matrix from a file costs: seconds beside the bare reading of the file, and peak memory.

    python -m benchmarks.studies.score_matrix                        # MIT-States, 12,995 x 1,962 in single precision
    python -m benchmarks.studies.score_matrix --dataset cgqa --world open --dtype float16      # 5,098 x 278,362, 2.8 GB

The scores are drawn, the pair lists are the real ones, the labels of the images are drawn from the test list. Times are
of the pass over the file, the smallest of `--repeats`: "warm" with the file in the system's memory, "cold" after it was
dropped from there (Linux; where the disk has a cache of its own, that one stays). Memory is what the process took at
most beyond what it had before, in a process of its own. A part that fits into memory is held against `evaluate` of the
same scores there: the largest difference of any metric has to be 0.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.cost.peak import peak, reset_peak
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.matrix import score_matrix
from benchmarks.evaluation.matrix_files import BLOCK_BYTES, MatrixFile, open_matrix
from benchmarks.evaluation.metrics import evaluate
from benchmarks.evaluation.topk import KEPT
from benchmarks.running.matrix_order import Files, order_of
from benchmarks.studies.program import program
from datasets.base import CompositionDataset, Phase, Split, Vocabulary, World
from datasets.labels import every_pair
from datasets.published import shipped_lists
from errors import UserError

IMAGES = {"mit_states": 12_995, "ut_zappos": 2_914, "cgqa": 5_098}
COMPARED = 1 << 29
"""Bytes of a matrix that is also judged in memory; of a larger one as many rows as fit."""


def made(name: str, images: int) -> CompositionDataset:
    """Return a data set with the real pair lists and test images whose pairs are drawn from the test list."""
    lists = shipped_lists(name)
    if lists is None:
        raise UserError(f"No pair lists of {name} come with the suite.", f"There are {', '.join(IMAGES)}.", "Take one.")
    vocabulary = Vocabulary.from_pairs([pair for pairs in lists.values() for pair in pairs])
    drawn = np.random.default_rng(0).integers(0, len(lists["test"]), images)
    index = vocabulary.indices([lists["test"][place] for place in drawn])
    splits: dict[Phase, Split] = {"test": Split("test", tuple(map(str, range(images))), index[:, 0], index[:, 1])}
    return CompositionDataset(
        name, name, Path(), vocabulary, lists["train"], lists["val"], lists["test"], splits, digest="made"
    )


def write_matrix(path: Path, dataset: CompositionDataset, world: World, dtype: str) -> None:
    """Write drawn scores of the test images, row block by row block; true pairs stand out."""
    split = dataset.splits["test"]
    pairs = every_pair(dataset) if world == "closed" else dataset.candidates("test", "open").names()
    place = {pair: column for column, pair in enumerate(pairs)}
    states, objects = dataset.vocabulary.states, dataset.vocabulary.objects
    true = np.array([place[states[s], objects[o]] for s, o in zip(split.states, split.objects, strict=True)])
    out = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(len(split), len(pairs)))
    rng = np.random.default_rng(1)
    lines = max(1, (1 << 24) // len(pairs))
    for first in range(0, len(split), lines):
        rows = np.arange(first, min(first + lines, len(split)))
        block = rng.standard_normal((len(rows), len(pairs)), dtype=np.float32)
        block[np.arange(len(rows)), true[rows]] += 3
        out[rows[0] : rows[-1] + 1] = 20 + 2 * block
    out.flush()


def read(path: Path) -> None:
    """Read a file from front to end into one buffer of the size of a block."""
    buffer = bytearray(BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def load(path: Path) -> None:
    """Read a matrix as `numpy.load` does, into memory of its own."""
    np.load(path)


def forget(path: Path) -> None:
    """Have the system drop what it keeps of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fastest(work: Callable[[], object], before: Callable[[], None], repeats: int) -> float:
    """Return the smallest of some times, in seconds."""
    times = []
    for _ in range(repeats):
        before()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(path: Path, name: str, images: int, world: World, repeats: int) -> dict[str, Any]:
    """Return times, memory and the comparison with the evaluation in memory, of a matrix in a file."""
    dataset = made(name, images)
    candidates, split = dataset.candidates("test", world), dataset.splits["test"]
    matrix = open_matrix(path)
    order, _ = order_of(matrix, Files(path), dataset, "test", world)
    read(path)
    before = reset_peak("cpu")
    scores, _ = score_matrix(matrix, order, candidates, split, KEPT)
    memory = peak("cpu") - before

    def judge() -> None:
        score_matrix(matrix, order, candidates, split, KEPT)

    found: dict[str, Any] = {"rows": matrix.rows, "columns": matrix.columns, "dtype": matrix.dtype}
    found |= {"bytes": path.stat().st_size, "peak_bytes": memory}
    for state, prepare in (("warm", lambda: None), ("cold", lambda: forget(path))):
        found[state] = {
            "read": fastest(lambda: read(path), prepare, repeats),
            "load": fastest(lambda: load(path), prepare, repeats) if path.stat().st_size < COMPARED else np.nan,
            "judge": fastest(judge, prepare, repeats),
        }
    found["digest"] = fastest(matrix.digest, lambda: None, repeats)
    found["difference"] = difference(matrix, order.columns, scores, dataset, world)
    return found


def difference(
    matrix: MatrixFile, columns: np.ndarray, scores: ImageScores, dataset: CompositionDataset, world: World
) -> float:
    """Return the largest difference of any metric from `evaluate` on the same scores in memory; NaN equals NaN."""
    candidates, split = dataset.candidates("test", world), dataset.splits["test"]
    count = max(1, min(matrix.rows, COMPARED // (4 * matrix.columns)))
    plain = np.load(matrix.path, mmap_mode="r")[:count].astype(np.float32)[:, columns]
    rows = np.arange(count)
    true = candidates.index_of(split.states[rows], split.objects[rows])
    labels = Labels(candidates.states, candidates.objects, split.states[rows], split.objects[rows])
    ours = evaluate(scores.subset(rows), labels, bias=0.5)
    theirs = evaluate(ImageScores.from_matrix(plain, candidates.seen, true), labels, bias=0.5)
    pairs = zip(_numbers(asdict(ours)), _numbers(asdict(theirs)), strict=True)
    return max(0.0 if a == b or (np.isnan(a) and np.isnan(b)) else abs(a - b) for a, b in pairs)


def _numbers(content: Any) -> list[float]:
    if isinstance(content, dict):
        return [number for value in content.values() for number in _numbers(value)]
    if isinstance(content, (list, tuple)):
        return [number for value in content for number in _numbers(value)]
    return [float(content)] if isinstance(content, (int, float)) else []


def report(found: dict[str, Any]) -> str:
    """Return the measurements as lines of text."""
    lines = [
        f"{found['rows']:,} x {found['columns']:,} {found['dtype']}, {found['bytes'] / 1e6:,.0f} MB",
        f"peak memory beyond the start: {found['peak_bytes'] / 1e6:,.0f} MB",
        f"SHA-256 of the file: {found['digest']:.2f} s",
        f"largest difference from evaluate in memory: {found['difference']:g}",
    ]
    for state in ("warm", "cold"):
        seconds = found[state]
        times = [f"{seconds['judge'] / seconds[name]:.2f} times {name}" for name in ("read", "load")]
        lines.append(
            f"{state}: reading block by block {seconds['read']:.3f} s, numpy.load {seconds['load']:.3f} s, judging "
            f"{seconds['judge']:.3f} s ({', '.join(times)})"
        )
    return "\n".join(lines)


def study(name: str, world: World, dtype: str, images: int, repeats: int, work: Path) -> dict[str, Any]:
    """Make a matrix below a folder and return what a process of its own measures on it."""
    path = work / "scores.npy"
    write_matrix(path, made(name, images), world, dtype)
    arguments = ["--dataset", name, "--world", world, "--images", str(images), "--repeats", str(repeats)]
    command = [sys.executable, "-m", "benchmarks.studies.score_matrix", "--file", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@program
def main() -> None:
    """Measure and print; with `--file` the part that a process of its own does."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--dataset", choices=sorted(IMAGES), default="mit_states")
    parser.add_argument("--world", choices=("closed", "open"), default="closed")
    parser.add_argument("--dtype", choices=("float16", "float32", "float64"), default="float32")
    parser.add_argument("--images", type=int, help="by default those of the real test split")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder for the matrix; by default a temporary one")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    images = options.images or IMAGES[options.dataset]
    if options.file is not None:
        print(json.dumps(measure(options.file, options.dataset, images, options.world, options.repeats)))
        return
    with TemporaryDirectory(dir=options.work) as work:
        found = study(options.dataset, options.world, options.dtype, images, options.repeats, Path(work))
    print(report(found))


if __name__ == "__main__":
    main()
