"""Two runs, methods or result folders against each other on the same test images: tests, and which images flip."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report.machines import mixture_notes
from benchmarks.report.prediction import find_run, is_run_id
from benchmarks.report.reproduce import given_settings
from benchmarks.report.scored_runs import phase_arrays, scored_runs
from benchmarks.report.undefined import undefined_notes
from benchmarks.runs import files
from benchmarks.runs.records import SPEC, RunFolder, RunRecord, find_runs
from benchmarks.significance import Comparison, ScoredRun, compare
from benchmarks.significance.paired import predictions, right_at_own_bias
from datasets.places import hidden_path, plainly_a_path
from errors import UserError, counted
from registry import METHODS

CONDITIONS = ("dataset", "world", "profile", "backbone", "precision")
"""What a method's runs may differ in, and what a person can choose among."""

AGREEING = (*CONDITIONS, "dataset_digest", "backbone_digest")
"""What makes a comparison: the same, and the same data and weights, whatever their names."""


@dataclass(frozen=True)
class Side:
    """One of the two: its runs, of one method or of several in a folder. note: on what its name was taken for."""

    label: str
    runs: tuple[RunRecord, ...]
    note: str = ""

    def kinds(self) -> dict[tuple[str, ...], list[RunRecord]]:
        """Return the finished runs by method, ablation and what must agree, see `AGREEING`."""
        found: dict[tuple[str, ...], list[RunRecord]] = {}
        for run in self.runs:
            key = (run.spec.method, run.spec.ablation or "", *(str(getattr(run.spec, name)) for name in AGREEING))
            found.setdefault(key, []).append(run)
        return found


@dataclass(frozen=True)
class Flip:
    """A test image that one side gets right more often than the other, each at its own validation bias.

    by_a, by_b: in how many of the `runs` compared only A, only B is right. truth, a, b: pairs; of a side with several
    runs the prediction it makes most often.
    """

    image: str
    truth: str
    a: str
    b: str
    by_a: int
    by_b: int
    runs: int


@dataclass(frozen=True)
class Faceoff:
    """A comparison of two sides; differences are A less B. notes: what a reader should know of it."""

    a: str
    b: str
    seeds: tuple[int, ...]
    comparison: Comparison
    flips: tuple[Flip, ...]
    notes: tuple[str, ...]


def side(results: Path, name: str, only: Mapping[str, str | None]) -> Side:
    """Return the runs that a word means: a method or a run's id, else a results folder or the beginning of an id.

    A word that is plainly a path (see `plainly_a_path`) is no name.

    only: conditions that runs must have, by name; None is no condition. A name without finished runs is a `UserError`.
    """
    place, note = Path(name).expanduser(), ""
    if not plainly_a_path(name) and name in METHODS.names():
        label, runs = name, [run for run in find_runs(results)[0] if run.spec.method == name and not run.spec.ablation]
        note = hidden_path(name, "method")
    elif place.is_dir() and not (place / SPEC).is_file() and not is_run_id(results, name):
        label, runs = place.resolve().name or name, find_runs(place)[0]
    else:
        run = find_run(results, name)
        label, runs, note = run.run_id, [run], hidden_path(name, "run", run.path)
    done = [run for run in runs if run.result is not None]
    kept = [run for run in done if all(v is None or str(getattr(run.spec, k)) == v for k, v in only.items())]
    if not kept:
        given = ", ".join(f"{key} {value}" for key, value in only.items() if value is not None)
        raise UserError(
            f"'{name}' has no finished run{f' with {given}' if given else ''}.",
            f"{len(done)} of {counted(len(runs), 'run')} {'is' if len(done) == 1 else 'are'} done.",
            note or "Finish it with bench.py run, or pass another method, run or folder.",
        )
    return Side(label, tuple(kept), note)


def face_offs(a: Side, b: Side, *, resamples: int = 10_000, level: float = 0.95) -> list[Faceoff]:
    """Compare two sides; one comparison for each method and condition (world, profile, ...) that both have.

    Two sides of one method each are compared with each other, else every method with itself. Two single kinds of runs
    may differ in conditions, with a note. Sides that have nothing in common, or are the same runs, are a `UserError`.
    """
    ours, theirs = a.kinds(), b.kinds()
    alone = all(len({key[:2] for key in one}) == 1 for one in (ours, theirs))
    couples = [(x, y) for x in ours for y in theirs if x[2:] == y[2:] and (alone or x[:2] == y[:2])]
    if not couples and len(ours) == len(theirs) == 1:
        couples = [(next(iter(ours)), next(iter(theirs)))]
    if {run.path.resolve() for run in a.runs} == {run.path.resolve() for run in b.runs}:
        raise UserError(
            f"{a.label} and {b.label} are the same runs.", "There is nothing to compare.", "Pass two different ones."
        )
    if not couples:
        raise _unclear(a, b)
    found = [_face_off(a, b, ours[x], theirs[y], x, y, resamples, level) for x, y in couples]
    named = [x[: 2 + len(CONDITIONS)] for x, _ in couples]
    return [  # of those of one name, which data and weights each is about
        one if named.count(name) == 1 else replace(one, notes=(_digests(ours[x][0]), *one.notes))
        for one, name, (x, _) in zip(found, named, couples, strict=True)
    ]


def _digests(run: RunRecord) -> str:
    spec = run.spec
    return f"On {spec.dataset} (data {spec.dataset_digest[:8]}), {spec.backbone} (weights {spec.backbone_digest[:8]})."


def _unclear(a: Side, b: Side) -> UserError:
    def said(one: Side) -> str:
        plain = 2 + len(CONDITIONS)  # what follows are digests
        kinds = [" ".join([*filter(None, key[:plain]), *(digest[:8] for digest in key[plain:])]) for key in one.kinds()]
        return f"{one.label} has {'; '.join(kinds[:4])}" + (f" and {len(kinds) - 4} more" if len(kinds) > 4 else "")

    return UserError(
        f"No runs of {a.label} and {b.label} belong together.",
        f"{said(a)}; {said(b)}.",
        "Pass methods run on the same data set, world, profile and backbone, or two run ids.",
    )


def _face_off(
    a: Side,
    b: Side,
    ours: Sequence[RunRecord],
    theirs: Sequence[RunRecord],
    key: tuple[str, ...],
    other: tuple[str, ...],
    resamples: int,
    level: float,
) -> Faceoff:
    labels = _labels(a, b, key, other)
    (ours, left_out), (theirs, also) = (_of_one_setting(*one) for one in zip(labels, (ours, theirs), strict=True))
    notes = [*filter(None, (a.note, b.note)), *left_out, *also]
    notes += [
        f"They differ in {name.replace('_', ' ')}: {mine[:20]} and {its[:20]}."
        for name, mine, its in zip(AGREEING, key[2:], other[2:], strict=True)
        if mine != its
    ]
    seeds = sorted({run.spec.seed for run in ours} & {run.spec.seed for run in theirs})
    if len(ours) > 1 and len(theirs) > 1 and seeds:  # pairs by seed; one run alone is compared whatever its seed
        unpaired = len(ours) + len(theirs) - 2 * len(seeds)
        if unpaired:
            notes.append(f"Left out, because the other side has no run of their seed: {counted(unpaired, 'run')}.")
        ours, theirs = ([run for run in own if run.spec.seed in seeds] for own in (ours, theirs))
    runs = scored_runs({labels[0]: ours, labels[1]: theirs})
    mine, its = runs[labels[0]], runs[labels[1]]
    found = compare(runs, labels[1], resamples=resamples, level=level)
    flips = _flips(list(zip(ours, mine, strict=True)), list(zip(theirs, its, strict=True)))
    if flips is None:
        notes.append("Which images flip is not said: a run has no validation bias, or no record has names of images.")
    notes += undefined_notes([*ours, *theirs])
    notes += mixture_notes([*ours, *theirs])
    used = tuple(sorted({run.spec.seed for run in (*ours, *theirs)}))
    return Faceoff(*labels, used, found, tuple(flips or ()), tuple(notes))


def _of_one_setting(label: str, runs: Sequence[RunRecord]) -> tuple[Sequence[RunRecord], list[str]]:
    """Return those runs that differ in their seed alone, and a note on the others.

    Of several settings those of defaults and presets are meant; where there are none, or those of several versions of
    the data, nobody can tell: a `UserError`.
    """
    kinds: dict[str, list[RunRecord]] = {}
    for run in runs:
        kinds.setdefault(run.spec.model_copy(update={"seed": 0}).digest(), []).append(run)
    if len(kinds) == 1:
        return runs, []
    plain = [own for own in kinds.values() if not given_settings(own[0])]
    if len(plain) != 1:
        names = ", ".join(own[0].run_id for own in list(kinds.values())[:4])
        raise UserError(
            f"The runs of {label} have {len(kinds)} different settings, and which are meant is not clear.",
            f"There are {names}{' and more' if len(kinds) > 4 else ''}.",
            "Pass the id of a run.",
        )
    count = counted(len(runs) - len(plain[0]), "run")
    return plain[0], [f"Left out of {label}: {count} with settings that no preset has; pass a run's id to compare it."]


def _labels(a: Side, b: Side, key: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, str]:
    names = [f"{one[0]}{f' ({one[1]})' if one[1] else ''}" for one in (key, other)]
    if names[0] != names[1]:
        return names[0], names[1]
    full = [f"{name}, {one.label}" for name, one in zip(names, (a, b), strict=True)]
    return (full[0], full[1]) if full[0] != full[1] else (f"A: {full[0]}", f"B: {full[1]}")


def _flips(ours: list[tuple[RunRecord, ScoredRun]], theirs: list[tuple[RunRecord, ScoredRun]]) -> list[Flip] | None:
    """Return the images that flip, those that do so in most pairs of runs first; None where that cannot be said."""
    if any(np.isnan(run.bias) for _, run in (*ours, *theirs)):
        return None
    for record, _ in (*ours, *theirs):  # an older one may have kept no names
        arrays = RunFolder(record.path).read_arrays()
        own = phase_arrays(arrays, "test")
        if "images" in own and "names.states" in arrays:
            break
    else:
        return None
    by_seed = {record.spec.seed: run for record, run in theirs}
    pairs = [(run, by_seed[record.spec.seed]) for record, run in ours if record.spec.seed in by_seed]
    pairs = pairs or [(run, other) for _, run in ours for _, other in theirs]
    right = np.array([[right_at_own_bias(x), right_at_own_bias(y)] for x, y in pairs])  # [runs, 2, N]
    by_a, by_b = (right[:, 0] & ~right[:, 1]).sum(axis=0), (right[:, 1] & ~right[:, 0]).sum(axis=0)
    states, objects = arrays["names.states"], arrays["names.objects"]

    def named(state: int, obj: int) -> str:
        return f"{states[state]} {objects[obj]}"

    def usual(runs: Sequence[ScoredRun], row: int) -> str:
        columns = Counter(int(predictions(run.scores, run.bias)[row]) for run in runs)
        best = min(columns, key=lambda column: (-columns[column], column))
        labels = runs[0].labels
        return named(labels.candidate_states[best], labels.candidate_objects[best])

    mine, its = [run for run, _ in pairs], [run for _, run in pairs]
    rows = sorted(np.flatnonzero(by_a != by_b).tolist(), key=lambda row: (-abs(int(by_a[row]) - int(by_b[row])), row))
    return [
        Flip(
            str(own["images"][row]),
            named(own["states"][row], own["objects"][row]),
            usual(mine, row),
            usual(its, row),
            int(by_a[row]),
            int(by_b[row]),
            len(pairs),
        )
        for row in rows
    ]


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
