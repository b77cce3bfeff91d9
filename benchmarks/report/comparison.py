"""Two runs, methods or result folders against each other on the same test images: tests, and which images flip."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report.flips import Flip, image_flips
from benchmarks.report.groups import agree, conditions
from benchmarks.report.machines import mixture_notes
from benchmarks.report.named_runs import AGREEING, CONDITIONS, Kind, Side
from benchmarks.report.reproduce import given_settings
from benchmarks.report.scored_runs import scored_runs
from benchmarks.report.undefined import undefined_notes
from benchmarks.runs import files
from benchmarks.runs.records import RunRecord
from benchmarks.significance import Comparison, Resampling, compare
from errors import UserError, counted, some


@dataclass(frozen=True)
class Faceoff:
    """A comparison of two sides; differences are A less B. notes: what a reader should know of it."""

    a: str
    b: str
    seeds: tuple[int, ...]
    comparison: Comparison
    flips: tuple[Flip, ...]
    notes: tuple[str, ...]


def face_offs(a: Side, b: Side, resampling: Resampling) -> list[Faceoff]:
    """Compare two sides; one comparison for each method and condition (world, profile, ...) that both have.

    Two sides of one method each are compared with each other, else every method with itself. Two single kinds of runs
    may differ in conditions, with a note. Sides that have nothing in common, or are the same runs, are a `UserError`.
    """
    ours, theirs = a.kinds(), b.kinds()
    alone = all(len({one.name for one in kinds}) == 1 for kinds in (ours, theirs))
    couples = [
        (x, y)
        for x in ours
        for y in theirs
        if all(map(agree, x.conditions, y.conditions)) and (alone or x.name == y.name)
    ]
    if not couples and len(ours) == len(theirs) == 1:
        couples = [(ours[0], theirs[0])]
    if {run.path.resolve() for run in a.runs} == {run.path.resolve() for run in b.runs}:
        raise UserError(
            f"{a.label} and {b.label} are the same runs.", "There is nothing to compare.", "Pass two different ones."
        )
    if not couples:
        raise _unclear(a, b)
    notes = [note for note in dict.fromkeys((a.note, b.note, a.unread, b.unread)) if note]
    found = [_face_off(x, y, _labels(a, b, x, y), notes, resampling) for x, y in couples]
    named = [(x.name, x.conditions[: len(CONDITIONS)]) for x, _ in couples]
    return [  # of those of one name, which data and weights each is about
        one if named.count(name) == 1 else replace(one, notes=(_digests(x.runs[0]), *one.notes))
        for one, name, (x, _) in zip(found, named, couples, strict=True)
    ]


def _digests(run: RunRecord) -> str:
    spec = run.spec
    return f"On {spec.dataset} (data {spec.dataset_digest[:8]}), {spec.backbone} (weights {spec.backbone_digest[:8]})."


def _unclear(a: Side, b: Side) -> UserError:
    def said(one: Side) -> str:
        plain = len(CONDITIONS)  # what follows are digests
        kinds = [
            " ".join(
                [*filter(None, (*kind.name, *kind.conditions[:plain])), *(text[:8] for text in kind.conditions[plain:])]
            )
            for kind in one.kinds()
        ]
        return f"{one.label} has {some(kinds, 4, '; ')}"

    return UserError(
        f"No runs of {a.label} and {b.label} belong together.",
        f"{said(a)}; {said(b)}.",
        "Pass methods run on the same data set, world, profile and backbone, or two run ids.",
    )


def _face_off(a: Kind, b: Kind, labels: tuple[str, str], notes: Sequence[str], resampling: Resampling) -> Faceoff:
    ours, left_out = _of_one_setting(labels[0], a.runs)
    theirs, also = _of_one_setting(labels[1], b.runs)
    notes = [*notes, *left_out, *also]
    notes += [
        f"They differ in {name.replace('_', ' ')}: {mine[:20]} and {its[:20]}."
        for name, mine, its in zip(AGREEING, a.conditions, b.conditions, strict=True)
        if not agree(mine, its)
    ]
    mine, its = (conditions(own[0]) for own in (ours, theirs))
    notes += [
        f"They differ in {name}: {mine[name][:20]} and {its[name][:20]}."
        for name in ("threads", "feasibility", "feasibility table", "masking")
        if not agree(mine[name], its[name])
    ]
    if any(run.spec.external is not None for run in (*ours, *theirs)):
        notes.append("Of scores that came from a file weights, precision and training are not known.")
    seeds = sorted({run.spec.seed for run in ours} & {run.spec.seed for run in theirs})
    if len(ours) > 1 and len(theirs) > 1 and seeds:  # pairs by seed; one run alone is compared whatever its seed
        unpaired = len(ours) + len(theirs) - 2 * len(seeds)
        if unpaired:
            notes.append(f"Left out, because the other side has no run of their seed: {counted(unpaired, 'run')}.")
        ours, theirs = ([run for run in own if run.spec.seed in seeds] for own in (ours, theirs))
    runs = scored_runs({labels[0]: ours, labels[1]: theirs})
    first, second = runs[labels[0]], runs[labels[1]]
    found = compare(runs, labels[1], resampling=resampling)
    flips = image_flips(list(zip(ours, first, strict=True)), list(zip(theirs, second, strict=True)))
    if flips is None:
        notes.append("Which images flip is not said: a run has no validation bias, or no record has names of images.")
    notes += undefined_notes([*ours, *theirs])
    notes += mixture_notes([*ours, *theirs])
    used = tuple(sorted({run.spec.seed for run in (*ours, *theirs)}))
    return Faceoff(*labels, used, found, tuple(flips or ()), tuple(notes))


def _of_one_setting(label: str, runs: Sequence[RunRecord]) -> tuple[Sequence[RunRecord], list[str]]:
    """Return those runs that differ in their seed alone, and notes on the others.

    Of trained and imported weights the trained ones are meant. Of several settings those of defaults and presets are;
    where there are none, or those of several versions of the data, nobody can tell: a `UserError`.
    """
    trained = [run for run in runs if run.spec.imported is None]
    said = []
    if trained and len(trained) < len(runs):
        count = counted(len(runs) - len(trained), "run")
        said = [f"Left out of {label}: {count} with imported weights; pass a run's id to compare it."]
        runs = trained
    # Imported files are those of several seeds, where no two have the same.
    seeds = {"imported": "of any seed"} if len({run.spec.seed for run in runs}) == len(runs) and not trained else {}
    kinds: dict[str, list[RunRecord]] = {}
    for run in runs:
        changes = {"seed": 0, "external": None, **seeds}
        kinds.setdefault(run.spec.model_copy(update=changes).digest(), []).append(run)
    if len(kinds) == 1:
        return runs, said
    plain = [own for own in kinds.values() if not given_settings(own[0]) and own[0].spec.imported is None]
    if len(plain) != 1:
        names = ", ".join(own[0].run_id for own in list(kinds.values())[:4])
        raise UserError(
            f"The runs of {label} have {len(kinds)} different settings, and which are meant is not clear.",
            f"There are {names}{' and more' if len(kinds) > 4 else ''}.",
            "Pass the id of a run.",
        )
    count = counted(len(runs) - len(plain[0]), "run")
    said += [f"Left out of {label}: {count} with settings that no preset has; pass a run's id to compare it."]
    return plain[0], said


def _labels(a: Side, b: Side, ours: Kind, theirs: Kind) -> tuple[str, str]:
    names = [f"{method}{f' ({ablation})' if ablation else ''}" for method, ablation in (ours.name, theirs.name)]
    if names[0] != names[1]:
        return names[0], names[1]
    full = [f"{name}, {one.label}" for name, one in zip(names, (a, b), strict=True)]
    return (full[0], full[1]) if full[0] != full[1] else (f"A: {full[0]}", f"B: {full[1]}")


def as_json(found: Faceoff) -> dict[str, Any]:
    """Return a comparison as plain data: fractions, None where a number is undefined."""

    def plain(value: float | None) -> float | None:
        return None if value is None or np.isnan(value) else float(value)

    methods = found.comparison.methods
    statistics = {}
    for name, summary in methods[found.a].statistics.items():
        difference = summary.difference
        assert difference is not None  # A is compared with B
        seeds = difference.seeds
        statistics[name] = {
            "a": plain(summary.value),
            "b": plain(methods[found.b].statistics[name].value),
            "difference": plain(difference.value),
            "interval": [plain(difference.interval.low), plain(difference.interval.high)],
            "decided_by": difference.decided_by,
            "p": plain(difference.p_value),
            "p_holm": plain(difference.adjusted_p),
            "d_z": None if seeds is None else plain(seeds.effect_size),
        }
    mcnemar = {
        str(seed): {group: {name: plain(value) for name, value in vars(test).items()} for group, test in tests.items()}
        for seed, tests in methods[found.a].mcnemar.items()
    }
    return {
        "a": found.a,
        "b": found.b,
        "seeds": list(found.seeds),
        "level": found.comparison.level,
        "resamples": found.comparison.resamples,
        "statistics": statistics,
        "mcnemar": mcnemar,
        "flips": [vars(flip) for flip in found.flips],
        "notes": list(found.notes),
    }


def write_flips(found: Sequence[Faceoff], path: Path) -> None:
    """Write all images that flip as a CSV file; one that cannot be written is a `UserError`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["side_a", "side_b", *Flip.__dataclass_fields__])
    for one in found:
        names = (one.a, one.b)
        writer.writerows([*names, *vars(flip).values()] for flip in one.flips)
    files.write_aside(path, lambda file: file.write(text.getvalue().encode()))
