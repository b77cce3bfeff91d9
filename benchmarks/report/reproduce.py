"""How a run came about and how to do it again: the exact command, every setting with its source, the environment."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.runs.budgets import trained_short
from benchmarks.runs.numbers import defined
from benchmarks.runs.open_world_settings import FILE_SOURCES
from benchmarks.runs.overrides import setting_text
from benchmarks.runs.places import as_asked, unknown_places
from benchmarks.runs.records import RunRecord
from benchmarks.runs.spec import EXTERNAL, NOT_KNOWN
from datasets.resizing import Resizing

GIVEN = ("file", "command line")
"""Origins of settings that a command must name; the others follow from defaults, presets and the names."""


def reproduce(run: RunRecord, seeds: Sequence[int] | None = None) -> str:
    """Return the command for a POSIX shell that repeats a run, with every setting of no default and no preset.

    Data, weights and word vectors stand in it by the paths that they had; of a record that does not tell these (see
    `unrepeatable`) it is the command without them.

    seeds: those of runs that differ in nothing else; by default the run's own.
    """
    spec, asked = run.spec, run.asked
    if spec.external is not None:
        return _scored(run)
    lacking = " ".join(option for _, option in unknown_places(run))
    seeds = [spec.seed] if seeds is None else seeds
    parts = ["python", "bench.py", "run", "--methods", spec.method]
    if spec.imported is not None:
        file = "FILE" if asked is None or asked.checkpoint is None else asked.checkpoint
        parts = ["python", "bench.py", "import", file, "--method", spec.method]
    if "--dataset" not in lacking:
        parts += ["--dataset", spec.dataset if asked is None else asked.dataset]
    parts += ["--seed" if spec.imported is not None else "--seeds", *map(str, seeds)]
    parts += ["--world", spec.world, "--profile", spec.profile]
    if "--backbone" not in lacking:
        parts += ["--backbone", as_asked(run)]
    parts += ["--precision", spec.precision]
    if spec.imported is None and (short := trained_short(run)) is not None:
        parts += ["--short" if short else "--no-short"]
    if spec.threads != 1:
        parts += ["--threads", str(spec.threads)]
    if spec.ablation is not None:
        parts += ["--ablations", spec.ablation]
    left_out = 0 if asked is None else asked.allow_missing
    if run.result is not None:
        left_out = len(run.result.left_out_images or ())
    if left_out:
        parts += ["--allow-missing", str(left_out)]
    if (processes := run.environment.get("processes", 1)) > 1:
        parts += ["--devices", str(processes)]
    if asked is not None and asked.plugins:
        parts += ["--plugin", *asked.plugins]
    bare = [f"{spec.method}.feasibility={source}" for source in FILE_SOURCES]
    given = [text for text in given_settings(run) if text not in bare]
    if given := [*given, *_feasibility(run)]:
        parts += ["--set", *given]
    return shlex.join(parts)


def _scored(run: RunRecord) -> str:
    """Return the command that makes a record from files of scores again; they are named without their folders."""
    spec, scores = run.spec, run.environment["scores"]
    parts = ["python", "bench.py", "score", "--test", scores["test"]["file"]]
    parts += ["--val", scores["val"]["file"]] if "val" in scores else []
    lists = spec.external.orders if spec.external is not None else ()
    for option, digest in zip(("--pairs", "--images", "--val-pairs", "--val-images"), lists, strict=False):
        parts += [option, f"<list with the digest {digest[:12]}>"] if digest else []
    parts += ["--dataset", spec.dataset, "--name", spec.method.removeprefix(EXTERNAL), "--seed", str(spec.seed)]
    parts += ["--world", spec.world] + (["--backbone-name", spec.backbone] if spec.backbone != NOT_KNOWN else [])
    if (world := spec.open_world) is not None:
        source = f"{world.feasibility}:<file>" if world.feasibility in FILE_SOURCES else world.feasibility
        parts += ["--feasibility", source, "--threshold", str(world.threshold), "--masking", world.masking]
    parts += ["--paper", scores["paper"]] if scores.get("paper") else []
    return shlex.join(parts)


def given_settings(run: RunRecord) -> list[str]:
    """Return the settings of a run that neither a default nor a preset gives, as `--set` takes them.

    Of the source of feasibility scores that is the kind alone, without the file.
    """
    values = run.spec.settings
    given = [key for key, note in run.provenance.items() if note["origin"] in GIVEN and key in values]
    return [f"{run.spec.method}.{key}={setting_text(values[key])}" for key in given]


def _feasibility(run: RunRecord) -> list[str]:
    """Return the setting that names the file behind feasibility scores, or says that every pair is kept."""
    if run.spec.world == "closed":
        return []
    kind = "none" if run.spec.open_world is None else run.spec.open_world.feasibility
    if kind in FILE_SOURCES and run.asked is not None:
        return [f"{run.spec.method}.feasibility={setting_text(run.asked.feasibility)}"]
    return [f"{run.spec.method}.feasibility=none"] if kind == "none" else []


def commands(runs: Sequence[RunRecord]) -> list[str]:
    """Return the commands that repeat some runs, one for all that differ in their seed alone.

    Runs of which no command can be given are left to `unrepeatable`.
    """
    alike: dict[str, list[RunRecord]] = {}
    for run in runs:
        if not unknown_places(run):
            alike.setdefault(reproduce(run, ()), []).append(run)
    return [reproduce(own[0], [run.spec.seed for run in own]) for own in alike.values()]


def unrepeatable(runs: Sequence[RunRecord]) -> list[str]:
    """Return in sentences what to pass to repeat those runs whose records do not tell where their files lie."""
    alike: dict[str, list[RunRecord]] = {}
    for run in runs:
        if unknown_places(run):
            alike.setdefault(reproduce(run, ()), []).append(run)
    sentences = []
    for own in alike.values():
        lacking = unknown_places(own[0])
        rest = reproduce(own[0], [run.spec.seed for run in own])
        sentences.append(
            f"No command can be given: the record does not say where {' and '.join(what for what, _ in lacking)} lie. "
            f"Pass {' and '.join(option for _, option in lacking)} to: {rest}"
        )
    return sentences


def provenance(run: RunRecord) -> dict[str, Any]:
    """Return what a page says of one run: id, status, facts by name, and settings as (name, value, source)."""
    environment = run.environment
    origins = {key: note.get("where") or note["origin"] for key, note in run.provenance.items()}
    values, brought = run.spec.settings, run.spec.external is not None
    started = run.starts[-1]
    facts = {
        "started": started.get("time"),
        "started as": shlex.join(started.get("command_line") or ()),
        "starts": len(run.starts) if len(run.starts) > 1 else None,
        "commit": _commit(environment.get("git")),
        "device": environment.get("gpu") or environment.get("device"),
        "processor": (environment.get("cpu") or {}).get("name"),
        "python": environment.get("python"),
        "packages": ", ".join(f"{name} {number}" for name, number in (environment.get("packages") or {}).items()),
        "data": run.spec.dataset_digest[:12],
        "weights of the backbone": run.spec.backbone_digest[:12],
        **_backbone_facts(environment.get("backbone") or {}),
        "weights from": run.spec.imported and f"a file with the SHA-256 {run.spec.imported[:12]}",
        "training": None
        if run.result is None or run.spec.imported or brought
        else f"{run.result.cost.train_seconds:.1f} s",
        "epoch selected": None if run.result is None else run.result.selection.epoch,
        "bias of validation": None if run.result is None else defined(run.result.selection.bias),
        "error": run.error["message"] if run.error else None,
    }
    return {
        "id": run.run_id,
        "seed": run.spec.seed,
        "status": run.status,
        "facts": {name: _short(value) for name, value in facts.items() if value not in (None, "")},
        "settings": [(key, _short(values[key]), origins.get(key, "")) for key in sorted(values)],
    }


def _backbone_facts(origin: Mapping[str, Any]) -> dict[str, str]:
    """Return what a record says of how the backbone's weights were trained."""
    if not origin:
        return {}
    mean, std = (", ".join(f"{value:.4g}" for value in origin[key]) for key in ("mean", "std"))
    resized = f", {Resizing.of(origin['resizing'])}" if "resizing" in origin else ""
    return {
        "activation": f"{origin['activation']} ({origin['activation_from']})",
        "images": f"mean {mean}, deviation {std}{resized} ({origin['preprocessing_from']})",
    }


def _commit(git: Mapping[str, Any] | str | None) -> str | None:
    if not isinstance(git, Mapping):
        return git
    return f"{git['commit']}{', with changes not committed' if git.get('dirty') else ''}"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
