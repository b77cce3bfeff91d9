"""The runs that a word of the command line means: a method, a run's id or the beginning of one, a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report.groups import stated
from benchmarks.runs.records import SPEC, Problem, RunFolder, RunRecord, find_runs
from benchmarks.runs.spec import EXTERNAL
from datasets.places import hidden_path, plainly_a_path
from errors import UserError, counted, did_you_mean, nearest, some
from registry import METHODS

CONDITIONS = ("dataset", "world", "profile", "backbone", "precision")
"""What a method's runs may differ in, and what a person can choose among."""

AGREEING = (*CONDITIONS, "dataset_digest", "backbone_digest")
"""What makes a comparison: the same, and the same data and weights, whatever their names."""


@dataclass(frozen=True)
class Kind:
    """Runs of one method under the same conditions.

    name: the method and the ablation, "" for the full model.
    conditions: the values of what must agree, in the order of `AGREEING`.
    """

    name: tuple[str, str]
    conditions: tuple[str, ...]
    runs: Sequence[RunRecord]


@dataclass(frozen=True)
class Side:
    """One of the two: its runs, of one method or of several in a folder.

    note: on what its name was taken for.
    unread: on records beside its runs that could not be read; "" where all could.
    """

    label: str
    runs: tuple[RunRecord, ...]
    note: str = ""
    unread: str = ""

    def kinds(self) -> list[Kind]:
        """Return the finished runs by method, ablation and what must agree."""
        found: dict[tuple[str, ...], list[RunRecord]] = {}
        for run in self.runs:
            key = (run.spec.method, run.spec.ablation or "", *(stated(run.spec, name) for name in AGREEING))
            found.setdefault(key, []).append(run)
        return [Kind((key[0], key[1]), key[2:], runs) for key, runs in found.items()]


def find_run(results: Path, name: str) -> RunRecord:
    """Return the run that a word means: its id, else its folder, else the beginning of one id alone.

    A word that is plainly a path (see `plainly_a_path`) is no id. A run that is meant and cannot be read says why.
    """
    place = Path(name).expanduser()
    if (place / SPEC).is_file() and not is_run_id(results, name):
        return RunFolder(place).read()
    runs, problems = find_runs(results)
    named = [run for run in runs if run.run_id == name]
    damaged = [problem.path for problem in problems if problem.path.name == name]
    if not named and not damaged:
        named = [run for run in runs if run.run_id.startswith(name)]
        damaged = [problem.path for problem in problems if problem.path.name.startswith(name)]
    if len(named) == 1 and not damaged:
        return named[0]
    if len(damaged) == 1 and not named:
        return RunFolder(damaged[0]).read()  # which says what is wrong with it
    found = [run.run_id for run in named] + [path.name for path in damaged]
    ids = found or [run.run_id for run in runs] + [problem.path.name for problem in problems]
    raise UserError(
        f"'{name}' names {'no run' if not found else f'{len(found)} runs'}.",
        f"In {results} there {'is' if len(ids) == 1 else 'are'} {some(ids, 8) or 'none'}.",
        did_you_mean(name, ids) or "Pass a run's folder, its id, or the beginning of its id alone.",
    )


def unread_note(place: Path, problems: Sequence[Problem]) -> str:
    """Return a sentence on the records below a folder that could not be read; "" where all could."""
    if not problems:
        return ""
    names = some([problem.path.name for problem in problems], 4)
    return (
        f"Not compared, because they cannot be read: {counted(len(problems), 'record')} in {place} ({names}). "
        f"The first: {problems[0].message}"
    )


def is_run_id(results: Path, word: str) -> bool:
    """Return whether a word is the whole id of a run that lies in the results folder."""
    return not plainly_a_path(word) and (results / word / SPEC).is_file()


def _next_step(results: Path, name: str) -> str:
    """Return what to do about a name without finished runs."""
    if not name.startswith(EXTERNAL):
        return "Finish it with bench.py run, or pass another method, run or folder."
    methods = sorted({run.spec.method for run in find_runs(results)[0]})
    there = [method.removeprefix(EXTERNAL) for method in methods if method.startswith(EXTERNAL)]
    hits = [EXTERNAL + hit for hit in nearest(name.removeprefix(EXTERNAL), there)]
    if hits:
        return f"Did you mean {' or '.join(hits)}?"
    return "Judge its scores with bench.py score, or pass another method, run or folder."


def side(results: Path, name: str, only: Mapping[str, str | None]) -> Side:
    """Return the runs that a word means: a method or a run's id, else a results folder or the beginning of an id.

    A word that is plainly a path (see `plainly_a_path`) is no name.

    only: conditions that runs must have, by name; None is no condition. A name without finished runs is a `UserError`.
    """
    place, note = Path(name).expanduser(), ""
    problems: list[Problem] = []
    root = results
    if not plainly_a_path(name) and (name in METHODS.names() or name.startswith(EXTERNAL)):
        every, problems = find_runs(results)
        label, runs = name, [run for run in every if run.spec.method == name and not run.spec.ablation]
        note = hidden_path(name, "method")
    elif place.is_dir() and not (place / SPEC).is_file() and not is_run_id(results, name):
        root, label = place, place.resolve().name or name
        runs, problems = find_runs(place)
    else:
        run = find_run(results, name)
        label, runs, note = run.run_id, [run], hidden_path(name, "run", run.path)
    unread = unread_note(root, problems)
    done = [run for run in runs if run.result is not None]
    kept = [run for run in done if all(v is None or str(getattr(run.spec, k)) == v for k, v in only.items())]
    if not kept:
        given = ", ".join(f"{key} {value}" for key, value in only.items() if value is not None)
        there = f"{len(done)} of {counted(len(runs), 'run')} {'is' if len(done) == 1 else 'are'} done."
        raise UserError(
            f"'{name}' has no finished run{f' with {given}' if given else ''}.",
            f"{there} {unread}".strip(),
            note or _next_step(results, name),
        )
    return Side(label, tuple(kept), note, unread)
