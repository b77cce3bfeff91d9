"""What bf16 and torch.compile make of a training step on a processor: its time as a ratio to fp32 without a compiler.

    python -m benchmarks.studies.modes                         # ViT-B-32, MIT-States, batch 8: over an hour
    python -m benchmarks.studies.modes --methods csp msci --rounds 2 --update docs/savings.md
    python -m benchmarks.studies.modes --quick                 # tiny sizes, to see that it works

A step in a mode and one in plain fp32 are made in turn, in processes of their own, and the ratio is taken round by
round. What comes before the rounds is not counted: torch.compile works there, for minutes at full size, and needs a C++
compiler. Whether the processor has instructions for products in bf16 is said under the table.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from benchmarks.runs import files
from benchmarks.runs.environment import capture_environment
from benchmarks.studies.against.builds import ROOT, alternately
from benchmarks.studies.program import page_with, program
from errors import UserError
from registry import METHODS

BEGIN, END = "<!-- measured by benchmarks.studies.modes -->", "<!-- end -->"
MODES = {
    "bf16": {"precision": "bf16", "compiled": False},
    "fp32, compiled": {"precision": "fp32", "compiled": True},
    "bf16, compiled": {"precision": "bf16", "compiled": True},
}
PLAIN = {"precision": "fp32", "compiled": False}


def ratios(method: str, mode: str, options: argparse.Namespace) -> tuple[list[float], float]:
    """Return the ratio of each round, and the median seconds of a plain step; `UserError` where a step fails."""
    job = {"kind": "step", "method": method, "backbone": options.backbone, "labels": options.labels}
    job |= {"batch": options.batch, "threads": 1, "cores": options.cores}
    work = [(ROOT, job | MODES[mode]), (ROOT, job | PLAIN)]
    ours, plain = ([found["step"] for found in child] for child in alternately(work, options.rounds, options.warmup))
    return [one / other for one, other in zip(ours, plain, strict=True)], statistics.median(plain)


def shown(found: Sequence[float]) -> str:
    """Return a cell: the median ratio with its range."""
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def has_bf16() -> bool | None:
    """Return whether the processor multiplies bf16 by instructions of its own; None where torch does not say."""
    import torch

    asked = getattr(torch.cpu, "get_capabilities", None)
    if asked is None:
        return None
    able = asked()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def about(options: argparse.Namespace) -> str:
    """Return what the table was measured on."""
    environment = capture_environment()
    able = {True: "with", False: "without", None: "with or without"}[has_bf16()]
    return (
        f"{environment['cpu']['name']}, {able} instructions for bf16, torch {environment['packages']['torch']}, one "
        f"thread; {options.backbone} with random weights, {options.labels}, batch {options.batch}; median and range of "
        f"{options.rounds} rounds."
    )


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS.names()), metavar="METHOD")
    parser.add_argument("--modes", nargs="+", choices=tuple(MODES), default=list(MODES), metavar="MODE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="rounds that are not counted")
    parser.add_argument("--backbone", default="ViT-B-32")
    parser.add_argument("--labels", default="mit_states")
    parser.add_argument("--batch", type=int, default=8, help="images of a step")
    parser.add_argument("--cores", type=int, nargs="*", default=[0], help="that a step may use; none: not pinned")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--update", type=page_with(BEGIN, END), metavar="FILE", help="put the table into a document")
    options = parser.parse_args(arguments)
    if options.quick:
        options.backbone, options.labels, options.batch, options.rounds = "tiny-icons", "icon_states", 2, 1
    return options


@program
def main() -> None:
    """Measure, print the table, and put it where it is asked for."""
    options = parsed()
    lines = [f"| method | fp32, s | {' | '.join(options.modes)} |", f"| --- | ---: |{' ---: |' * len(options.modes)}"]
    reasons = []
    for method in options.methods:
        if method == "clip_zero_shot":  # it has no step
            continue
        cells, plain = [], float("nan")
        for mode in options.modes:
            try:
                found, plain = ratios(method, mode, options)
                cells.append(shown(found))
            except UserError as error:
                cells.append("–")
                reasons.append(f"{method}, {mode}: {error.there}")
        lines.append(f"| {method} | {plain:.3g} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    text = "\n".join([*lines, "", about(options), *reasons])
    print(text)
    if options.update is not None:
        files.put_between(options.update, BEGIN, END, f"\n{text}\n")


if __name__ == "__main__":
    main()
