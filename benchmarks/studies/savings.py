"""What the exact savings save: time and memory with and without each, measured in one run.

    python -m benchmarks.studies.savings                                   # ViT-B-32, 1,262 pairs, 16 images
    python -m benchmarks.studies.savings --backbone ViT-L-14-quickgelu/random --device cuda --only recompute

Weights are random, so nothing is downloaded. Each variant is measured in a process of its own, so that one's memory is
not another's. Seconds are the median of some repetitions after a first one that is not counted; memory is what the
work adds at its peak to what was there before. That the numbers are equal is shown by tests; here nothing is compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cost.peak import peak, reset_peak
from benchmarks.studies.program import program

Work = Callable[[], Any]


@dataclass(frozen=True)
class Saving:
    """A way to compute the same with less. build: the work by (options, whether it is saved)."""

    title: str
    build: Callable[[argparse.Namespace, bool], Work]


def problem(options: argparse.Namespace, method: str, **settings: Any) -> tuple[Any, Any, Any]:
    """Return a method with random weights (of the type asked for), the training pairs and a batch of random images.

    The pairs are as many as asked for of 115 states and 245 objects, the numbers of MIT-States; each word has one.
    """
    import numpy as np
    import torch

    from datasets.base import Candidates, Vocabulary
    from methods.backbone import load_backbone
    from methods.base import Batch
    from registry import METHODS

    vocabulary = Vocabulary(tuple(f"state {n}" for n in range(115)), tuple(f"object {n}" for n in range(245)))
    stream = np.random.default_rng(0)
    first = np.stack([np.arange(245) % 115, np.arange(245)], axis=1)
    rest = np.stack(np.divmod(stream.permutation(115 * 245), 245), axis=1)
    pairs = np.unique(np.concatenate([first, rest[: max(0, options.pairs - len(first))]]), axis=0)
    candidates = Candidates(vocabulary, pairs, np.ones(len(pairs), dtype=bool))
    torch.manual_seed(0)
    backbone = load_backbone(options.backbone).to(options.device)
    chosen = METHODS.get(method)
    built = chosen(backbone, vocabulary, chosen.Config(**settings)).to(options.device)
    columns = torch.arange(options.images) % len(pairs)
    labels = torch.from_numpy(pairs)[columns]
    images = torch.randn(options.images, 3, backbone.image_size, backbone.image_size)
    states, objects, right = (value.to(options.device) for value in (labels[:, 0], labels[:, 1], columns))
    return built, candidates, Batch(states, objects, right, images=images.to(options.device))


def encode_prompts(options: argparse.Namespace, saved: bool, train: bool) -> Work:
    """Text features of all pairs, in training with the gradient of the words: each prompt for itself, or shared."""
    import torch

    method, candidates, _ = problem(options, "csp", dropout=0.0)
    method.backbone.shared_prefix = saved

    def work() -> None:
        with torch.set_grad_enabled(train):
            features = method.pair_text(candidates, method.table())
        if train:
            features.square().sum().backward()

    return work


def interact(options: argparse.Namespace, saved: bool, step: int) -> Work:
    """Cross-attention of Troika in a training step, forward and backward; with the first `step` savings, or one more.

    The savings in turn: keys and values once for all branches, branches together, queries that are the same for all
    images projected once.
    """
    import torch

    from methods.parts.scoring import unit

    memory_once, together, query_once = (number < step + saved for number in range(3))
    method, candidates, batch = problem(options, "troika", traction_dropout=0.0, dropout=0.0, traction_layers=1)
    method.train()
    with torch.no_grad():
        features = method.image_features(batch.images)
        text = {branch: unit(vectors) for branch, vectors in method.prompts(method.backbone, candidates).items()}
    attract, images = method.attract, len(batch)
    if not query_once:
        method.attract = lambda text, memory: attract(text.expand(images, -1, -1), memory)

    def work() -> None:
        if memory_once:
            memories = method.memories(features)
        else:
            memories = {branch: method.memories(features)[branch] for branch in text}
        groups = [text] if together else [{branch: vectors} for branch, vectors in text.items()]
        logits = [value for group in groups for value in method.logits(features, group, memories).values()]
        sum(value.logsumexp(dim=1).sum() for value in logits).backward()

    return work


def score_in_chunks(options: argparse.Namespace, saved: bool) -> Work:
    """Scores of all pairs by Troika: at once, or in chunks whose maxima are kept."""
    import torch

    method, candidates, batch = problem(options, "troika")
    method.eval()
    prepared, batch = method.prepare(candidates), method.encode(batch)
    count = len(candidates)
    chunk = 128 if saved else count
    method.rows_at_once = chunk * len(batch)

    def work() -> None:
        with torch.no_grad():
            parts = (method.score(batch, prepared, slice(at, at + chunk)) for at in range(0, count, chunk))
            torch.stack([part.amax(dim=1) for part in parts]).amax(dim=0)

    return work


def train_step(options: argparse.Namespace, saved: bool, method: str) -> Work:
    """A whole training step without the optimizer: activations kept, or computed again in backward."""
    built, candidates, batch = problem(options, method)
    built.train()
    built.backbone.recompute = saved

    def work() -> None:
        built.zero_grad(set_to_none=True)
        built.training_loss(batch, candidates).total.backward()

    return work


SAVINGS: Mapping[str, Saving] = {
    "prefix_eval": Saving("shared prefix, text of all pairs, evaluation", partial(encode_prompts, train=False)),
    "prefix_train": Saving("shared prefix, text of all pairs, with gradient", partial(encode_prompts, train=True)),
    "memory_once": Saving("keys and values once for three branches, training", partial(interact, step=0)),
    "branches_together": Saving("and the branches together", partial(interact, step=1)),
    "query_once": Saving("and the first query projected once per prompt", partial(interact, step=2)),
    "chunked_scores": Saving("scores of Troika in chunks of 128 pairs", score_in_chunks),
    "recompute_csp": Saving("activations computed again, step of CSP", partial(train_step, method="csp")),
    "recompute_troika": Saving("activations computed again, step of Troika", partial(train_step, method="troika")),
    "recompute_msci": Saving("activations computed again, step of MSCI", partial(train_step, method="msci")),
}


def measure(options: argparse.Namespace, name: str, saved: bool) -> dict[str, float]:
    """Return the median seconds and the peak of added bytes of a variant, in this process."""
    import torch

    def settle() -> None:
        if options.device.startswith("cuda"):
            torch.cuda.synchronize()

    work = SAVINGS[name].build(options, saved)
    before = reset_peak(options.device)
    work()
    settle()
    added = peak(options.device) - before
    seconds = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        work()
        settle()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "bytes": added}


def in_own_process(name: str, saved: bool) -> dict[str, float]:
    """Measure a variant in a fresh process with the options of this one."""
    command = [sys.executable, "-m", "benchmarks.studies.savings", *sys.argv[1:], "--variant", name, str(int(saved))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"Measuring {name} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


@program
def main() -> None:
    """Measure what was asked for and print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="ViT-B-32-quickgelu/random", help="its weights may be random")
    parser.add_argument("--pairs", type=int, default=1262)
    parser.add_argument("--images", type=int, default=16, help="in a batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=SAVINGS, default=list(SAVINGS), metavar="NAME")
    parser.add_argument("--json", type=Path, help="also write the measurements there")
    parser.add_argument("--variant", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.device.startswith("cuda") and not Path("/proc/self/clear_refs").exists():
        parser.exit(2, "Error: The memory of the CPU is measured on Linux alone. Pass --device cuda.\n")
    if options.variant is not None:
        print(json.dumps(measure(options, options.variant[0], options.variant[1] == "1")))
        return
    table = Table(title=f"{options.backbone}, {options.pairs} pairs, {options.images} images, {options.device}")
    table.add_column("saving", overflow="fold")
    for head in ("s without", "with", "ratio", "MB without", "with", "ratio"):
        table.add_column(head, justify="right")
    found = {}
    for name in options.only:
        plain, saved = in_own_process(name, False), in_own_process(name, True)
        found[name] = {"without": plain, "with": saved}
        cells = []
        for key, unit in (("seconds", 1.0), ("bytes", 1e6)):
            values = plain[key] / unit, saved[key] / unit
            cells += [*(f"{value:,.2f}" if unit == 1.0 else f"{value:,.0f}" for value in values)]
            cells.append(f"{values[0] / max(values[1], 1e-9):.2f}")
        table.add_row(SAVINGS[name].title, *cells)
        print(f"{name}: {' '.join(cells)}", file=sys.stderr, flush=True)
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
