"""icon_states, the embedded default data set: rendered, offline, deterministic, in the layout of the real ones.

56 objects x 20 states (9 local, 11 global) at 64 x 64 pixels. 500 plausible pairs occur in some split; the other 620
(some of them implausible by a written table) never do and are the open world. Every image's kind of state (local or
global) and clutter (none or present) is recorded, so results can be broken down by them.

    python bench.py run --dataset icon_states
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from filelock import Timeout
from PIL import Image

from datasets import cache
from datasets.base import PHASES, CompositionDataset, Pair, Phase, Split, Vocabulary
from datasets.files import acquire
from datasets.icons.paint import STATES
from datasets.icons.plan import SEED, VERSION, Drawing, plan_images, plan_pairs
from datasets.icons.render import SIZE, render, stream
from datasets.icons.words import icon_of
from datasets.slices import frequency_tags
from datasets.system import worker_pool
from errors import UserError

CHUNK = 64  # images a rendering task
PATIENCE = 600.0  # seconds that a process waits for another one that renders


def draw(drawing: Drawing, seed: int = SEED) -> np.ndarray:
    """Render one image of the plan, uint8 [64, 64, 3], from its own random stream."""
    state = STATES[drawing.state]
    rng = stream("icon_states", VERSION, seed, "pixels", drawing.name)
    clutter = icon_of(drawing.clutter) if drawing.clutter else None
    return render(rng, icon_of(drawing.obj), state.paint, turn=state.turn, clutter=clutter)


def _draw_files(drawings: list[Drawing], seed: int, folder: Path) -> list[str]:
    """Render and write some images; return the SHA-256 of each one's pixels. Runs in a worker process."""
    digests = []
    for drawing in drawings:
        pixels = draw(drawing, seed)
        digests.append(hashlib.sha256(pixels.tobytes()).hexdigest())
        path = folder / drawing.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=1)
    return digests


def _metadata(drawings: list[Drawing]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "attr", "obj", "set", "kind", "clutter"])
    for item in drawings:
        writer.writerow([item.name, item.state, item.obj, item.phase, STATES[item.state].kind, item.clutter or "none"])
    return text.getvalue()


def _render_all(drawings: list[Drawing], seed: int, folder: Path) -> Iterator[list[str]]:
    """Yield the pixel digests of consecutive chunks, rendered by as many processes as there are cores."""
    chunks = [drawings[i : i + CHUNK] for i in range(0, len(drawings), CHUNK)]
    with worker_pool() as pool:
        yield from pool.map(_draw_files, chunks, [seed] * len(chunks), [folder / "images"] * len(chunks))


def prepare(root: Path, seed: int = SEED, progress: Callable[[int, int], None] | None = None) -> dict:
    """Render the data set into `root` (a folder of its own, replaced as a whole) and return its manifest.

    progress: called with (images done, images in all). The manifest is written last, so its presence means the
    folder is whole. Raises UserError when the folder cannot be written.
    """
    plan = plan_pairs(seed)
    drawings = plan_images(plan, seed)
    work = root.with_name(f"{root.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(work, ignore_errors=True)
        lists = work / "compositional-split-natural"
        lists.mkdir(parents=True)
        for phase, pairs in (("train", plan.train), ("val", plan.val), ("test", plan.test)):
            (lists / f"{phase}_pairs.txt").write_text("".join(f"{state} {obj}\n" for state, obj in pairs))
        metadata = _metadata(drawings)
        (work / "metadata_compositional-split-natural.csv").write_text(metadata)
        digest = hashlib.sha256(json.dumps([plan.train, plan.val, plan.test]).encode() + metadata.encode())
        done = 0
        for hashes in _render_all(drawings, seed, work):
            digest.update("".join(hashes).encode())
            done += len(hashes)
            if progress is not None:
                progress(done, len(drawings))
        manifest = {"name": "icon_states", "version": VERSION, "seed": seed, "images": len(drawings)}
        manifest |= {"pixels": SIZE, "digest": digest.hexdigest()}
        (work / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        shutil.rmtree(root, ignore_errors=True)
        work.rename(root)
    except OSError as error:
        shutil.rmtree(work, ignore_errors=True)
        if (root / "manifest.json").is_file():  # another process was first; its result is the same
            return json.loads((root / "manifest.json").read_text())
        raise UserError(
            f"icon_states cannot be rendered into {root} ({error.strerror or error}).",
            "It needs about 80 MB there.",
            "Free some space, or set CZSL_HOME to a folder that can be written.",
        ) from error
    return manifest


def _terminal_progress() -> tuple[Callable[[int, int], None], Callable[[], None]]:
    """Return a rich progress bar's update and stop; quiet when standard error is not a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    task = bar.add_task("Rendering icon_states", total=None)
    bar.start()
    return (lambda done, total: bar.update(task, completed=done, total=total)), bar.stop


def _rendered(root: Path, seed: int) -> dict:
    """Render the data set, or wait for another process that does; return its manifest."""
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        lock = acquire(root.with_name(f"{root.name}.lock"), PATIENCE)
    except Timeout:
        raise UserError(
            f"icon_states is to be rendered into {root}.",
            f"Another process has been at it for {PATIENCE:.0f} seconds.",
            "Wait for it, or end it and start again.",
        ) from None
    except OSError:
        lock = None  # rendering says why nothing can be written there
    try:
        if (root / "manifest.json").is_file():
            return json.loads((root / "manifest.json").read_text())
        update, stop = _terminal_progress()
        try:
            return prepare(root, seed, update)
        finally:
            stop()
    finally:
        if lock is not None:
            lock.release()


def default_root(seed: int = SEED) -> Path:
    """Return where the data set lies unless another place is named: below the suite's cache."""
    return cache.home() / "datasets" / f"icon_states-v{VERSION}-seed{seed}"


def is_rendered() -> bool:
    """Return whether the data set is there already, so that `load` would not render it."""
    return (default_root() / "manifest.json").is_file()


def load(root: Path | None = None, seed: int = SEED) -> CompositionDataset:
    """Return icon_states, rendering it into the cache at first use (well under a minute on two cores).

    root: where the prepared folder lies or shall lie; by default below the suite's cache. Raises UserError when the
    folder is damaged or cannot be written.
    """
    root = root or default_root(seed)
    manifest_path = root / "manifest.json"
    if manifest_path.is_file():
        manifest = json.loads(manifest_path.read_text())
    else:
        manifest = _rendered(root, seed)
    pairs: dict[str, tuple[Pair, ...]] = {}
    for phase in ("train", "val", "test"):
        lines = (root / "compositional-split-natural" / f"{phase}_pairs.txt").read_text().splitlines()
        pairs[phase] = tuple((line.split()[0], line.split()[1]) for line in lines)
    vocabulary = Vocabulary.from_pairs([pair for phase in pairs.values() for pair in phase])
    with (root / "metadata_compositional-split-natural.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    splits: dict[Phase, Split] = {}
    for phase in PHASES:
        own = [row for row in rows if row["set"] == phase]
        index = vocabulary.indices([(row["attr"], row["obj"]) for row in own])
        tags = {
            "kind": np.array([row["kind"] for row in own]),
            "clutter": np.array(["none" if row["clutter"] == "none" else "present" for row in own]),
        }
        splits[phase] = Split(phase, tuple(row["image"] for row in own), index[:, 0], index[:, 1], tags)
    frequency = frequency_tags(splits)
    splits = {phase: replace(split, slices={**split.slices, **frequency[phase]}) for phase, split in splits.items()}
    return CompositionDataset(
        name="icon_states",
        title="icon_states (rendered icons, 56 objects x 20 states)",
        root=root,
        vocabulary=vocabulary,
        train_pairs=pairs["train"],
        val_pairs=pairs["val"],
        test_pairs=pairs["test"],
        splits=splits,
        digest=manifest["digest"],
    )
