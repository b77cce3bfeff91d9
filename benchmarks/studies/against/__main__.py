"""This build beside another commit: what both take of time and memory for the same, as ratios with their spread.

    python -m benchmarks.studies.against 4e92c5f
    python -m benchmarks.studies.against 4e92c5f --targets step memory --rounds 5 --output out

The other commit is cloned into a temporary folder. Both builds work in processes of their own, in turn, so that a
machine that becomes slower becomes so for both; the ratio is taken round by round.

    worlds      closed and open world of one method: asked for together here, in two runs by the other build
    switches    the ablation suite of MSCI and Troika, one epoch; --dataset names a small one for it
    step        a training step, batch 8, fp32
    evaluation  an image against all pairs, with and without the text, and the largest memory
    memory      the largest memory of a training step above that of the imports
    default     `python bench.py run` in an empty CZSL_HOME, on all cores

step, evaluation and memory: random weights, the label space of MIT-States, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.runs.environment import capture_environment
from benchmarks.studies.against.builds import ROOT, alternately, checkout, commands
from benchmarks.studies.program import program

TARGETS = ("worlds", "switches", "step", "evaluation", "memory", "default")
METHODS = {
    "step": ("csp", "dfsp", "troika", "msci"),
    "evaluation": ("csp", "dfsp", "troika", "msci"),
    "memory": ("troika", "msci"),
}


def served(roots: Sequence[Path], target: str, options: argparse.Namespace) -> Iterator[tuple[str, list, list]]:
    """Yield (what, this build's values, the other's) of a target that children measure."""
    for method in options.methods or METHODS[target]:
        job = {
            "kind": "evaluation" if target == "evaluation" else "step",
            "method": method,
            "backbone": options.backbone,
            "labels": options.labels,
            "batch": options.images if target == "evaluation" else options.batch,
            "precision": "fp32",
            "compiled": False,
            "threads": 1,
            "cores": options.cores,
        }
        once = target == "memory"
        rounds = alternately([(root, job) for root in roots], 1 if once else options.rounds, options.warmup)
        for name in rounds[0][0]:
            if (target == "memory" and name != "step memory") or (target == "step" and name == "step memory"):
                continue
            here, other = ([values[name] for values in build] for build in rounds)
            yield f"{method}: {name}", here, other


def run_lines(target: str, here: bool, results: Path, epochs: int, dataset: str = "") -> list[list[str]]:
    """Return the commands of a target for this build or the other. dataset: of worlds and switches, "": icon_states."""
    common = ["--results", str(results)]
    if target == "default":
        return [["run", *common, *(["--epochs", str(epochs)] if epochs else [])]]
    short = [*common, "--epochs", str(epochs or 1), *(["--dataset", dataset] if dataset else [])]
    if target == "switches":
        return [["run", "--suite", "ablation", "--methods", "msci", "troika", *short]]
    worlds = [["closed", "open"]] if here else [["closed"], ["open"]]
    return [["run", "--methods", "csp", *short, "--world" if not here else "--worlds", *world] for world in worlds]


def commanded(roots: Sequence[Path], target: str, options: argparse.Namespace) -> Iterator[tuple[str, list, list]]:
    """Yield (what, this build's seconds, the other's) of a target that is a command; images are rendered before."""
    found: list[list[float]] = [[], []]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.command_rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            for which in order:
                home = Path(folder) / (f"{number}-{which}" if target == "default" else f"home-{which}")
                results = Path(folder) / f"results-{number}-{which}"
                if target != "default" and not home.exists():
                    warm = ["run", "--methods", "clip_zero_shot", "--results", str(home / "warm")]
                    commands(roots[which], [warm], [], home)
                lines = run_lines(target, which == 0, results, options.epochs, options.dataset)
                cores = [] if target == "default" else options.cores
                found[which].append(commands(roots[which], lines, cores, home)["wall"])
    yield target, found[0], found[1]


def row(what: str, here: Sequence[float], other: Sequence[float]) -> dict[str, object]:
    """Return the medians of both and the ratio this / other, round by round: median, least and most."""
    ratios = [one / two for one, two in zip(here, other, strict=True) if two]
    return {
        "what": what,
        "this": statistics.median(here),
        "other": statistics.median(other),
        "ratio": statistics.median(ratios) if ratios else None,
        "least": min(ratios, default=None),
        "most": max(ratios, default=None),
        "rounds": len(ratios),
    }


def shown(rows: Sequence[dict], about: str) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| | this | other | ratio | range | rounds |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for one in rows:
        unit = (1e9, " GB") if "memory" in one["what"] else (1.0, " s")
        sizes = [f"{one[key] / unit[0]:.3g}{unit[1]}" for key in ("this", "other")]
        ratio = (
            ("–", "–") if one["ratio"] is None else (f"{one['ratio']:.3f}", f"{one['least']:.3f} to {one['most']:.3f}")
        )
        lines.append(f"| {' | '.join((one['what'], *sizes, *ratio, str(one['rounds'])))} |")
    return "\n".join([*lines, "", about])


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("revision", help="the other build, a commit")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="of step, evaluation and memory; all that count")
    parser.add_argument("--rounds", type=int, default=3, help="of steps and evaluations")
    parser.add_argument("--command-rounds", type=int, default=1, help="of worlds, switches and default")
    parser.add_argument("--warmup", type=int, default=1, help="rounds that are not counted")
    parser.add_argument("--backbone", default="ViT-B-32")
    parser.add_argument("--labels", default="mit_states")
    parser.add_argument("--dataset", default="", help="of worlds and switches; icon_states by default")
    parser.add_argument("--batch", type=int, default=8, help="images of a step")
    parser.add_argument("--images", type=int, default=64, help="of an evaluation")
    parser.add_argument(
        "--epochs", type=int, default=0, help="of worlds, switches (0: 1) and default (0: the presets')"
    )
    parser.add_argument("--cores", type=int, nargs="*", default=[0], help="of one run; none: not pinned")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--output", type=Path, help="folder for against.json and against.md")
    options = parser.parse_args(arguments)
    if options.quick:
        options.backbone, options.labels, options.batch, options.images = "tiny-icons", "icon_states", 2, 2
        options.rounds, options.epochs = min(options.rounds, 2), options.epochs or 1
    return options


@program
def main() -> None:
    """Measure the targets and print their ratios."""
    options = parsed()
    rows: list[dict[str, object]] = []
    environment = capture_environment()
    pinned = bool(options.cores) and hasattr(os, "sched_setaffinity")
    processor, release = environment["cpu"]["name"], environment["packages"]["torch"]
    threads = f"one thread, {f'pinned to core {options.cores}' if pinned else 'not pinned'}; default on all cores"
    about = f"{processor}, torch {release}; {threads}; other: {options.revision}; ratio: this to other."
    with checkout(options.revision) as other:
        for target in options.targets:
            measure = served if target in METHODS else commanded
            for what, here, there in measure((ROOT, other), target, options):
                rows.append(row(what, here, there))
                print(shown(rows[-1:], "").splitlines()[2], flush=True)
    text = shown(rows, about)
    print(text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "against.md").write_text(text + "\n", encoding="utf-8")
        record = {"about": about, "environment": environment, "rows": rows}
        (options.output / "against.json").write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
