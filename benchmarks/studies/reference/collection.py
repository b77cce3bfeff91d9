"""Which finished runs are committed, and in which archive.

Those of the suite `reference`, a file per method, and those of the switches beside it, a file each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from benchmarks.report import archive
from benchmarks.report.columns import PHASES
from benchmarks.report.packing import packed
from benchmarks.runs.budgets import trained_short
from benchmarks.runs.records import RunRecord, find_runs
from benchmarks.runs.resolution import Resolver
from benchmarks.runs.suites import RunRequest, expand, load_suite
from benchmarks.studies.reference.switches import own_settings, switch_of
from errors import UserError

SUITE = "reference"
ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "results" / "reference"
FORMER = "two_epochs"
"""A folder of its own beside the archives: the first reference, whose methods were trained for two to twelve epochs."""

SUFFIX = ".tar.xz"


def request_of(run: RunRecord) -> RunRequest:
    """Return what a run was asked for as."""
    spec = run.spec
    return RunRequest(spec.method, spec.dataset, spec.backbone, spec.world, spec.profile, spec.seed, spec.ablation)


@cache
def planned() -> tuple[RunRequest, ...]:
    """Return every run of the suite; a switch that is set in the full model already is none."""
    resolver = Resolver()
    return tuple(request for request in expand(load_suite(SUITE)) if not resolver.changes_nothing(request))


def missing(runs: Iterable[RunRecord]) -> list[RunRequest]:
    """Return what of the suite is not among finished runs, in the suite's order."""
    there = {request_of(run) for run in runs if run.result is not None}
    return [request for request in planned() if request not in there]


def collect(results: Sequence[Path], folder: Path = FOLDER) -> list[Path]:
    """Put the finished runs of the suite below some folders into archives, beside those that are there already.

    A run with settings of its own, or in half precision, is not the suite's and stays out, unless it is that of a
    switch. Two different runs of one request are a `UserError`: nobody could tell which one the tables should show.
    Returns the archives.
    """
    wanted = set(planned())
    found: dict[RunRequest | str, RunRecord] = {}
    for run in (run for root in results for run in find_runs(root)[0] if run.result is not None):
        asked = request_of(run) if _is_plain(run) and request_of(run) in wanted else switch_of(run)
        if asked is None:
            continue
        first = found.setdefault(asked, run)
        if first.run_id != run.run_id:
            raise UserError(
                f"{first.path} and {run.path} cannot both be collected.",
                "They are the same run of the suite with different settings, data or weights.",
                "Leave out the older one.",
            )
    by_archive: dict[str, dict[str, archive.Packed]] = {}
    for asked, run in found.items():
        # What is said of ablations and switches is said of their test images.
        phases = PHASES if isinstance(asked, RunRequest) and asked.ablation is None else ("test",)
        by_archive.setdefault(_name(asked), {})[run.run_id] = packed(run, phases)
    for name, own in by_archive.items():
        before = archive.read(folder / name) if (folder / name).is_file() else []
        requests = {_parts(run_id)[0] for run_id in own}
        kept = {run.run_id: run for run in before if _parts(run.run_id)[0] not in requests}
        archive.write(folder / name, {**kept, **own}.values(), archive.PLAIN)
    return archives(folder)


def archives(folder: Path = FOLDER) -> list[Path]:
    """Return the archives of a folder, sorted."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def expand_to(to: Path, folder: Path = FOLDER, only: str = "*") -> list[Path]:
    """Write the archives' runs as ordinary record folders; return these. only: a pattern of archive names."""
    chosen = [path for path in archives(folder) if path.match(f"{only}{SUFFIX}")]
    if not chosen:
        raise UserError(
            f"There is nothing to expand in '{folder}'.",
            f"It holds no archives {only}{SUFFIX}.",
            "Run 'python -m benchmarks.studies.reference collect' first.",
        )
    return [archive.unpack(run, to) for path in chosen for run in archive.read(path)]


def _is_plain(run: RunRecord) -> bool:
    """Return whether a run is in full precision and has the reference's budget and no settings of its own."""
    return run.spec.precision == "fp32" and trained_short(run) is not True and not own_settings(run)


def _name(asked: RunRequest | str) -> str:
    if isinstance(asked, str):
        return f"switch-{asked}{SUFFIX}"
    what = "ablations" if asked.ablation is not None else f"{asked.world}-{asked.profile}"
    return f"{asked.method}-{what}{SUFFIX}"


def _parts(run_id: str) -> tuple[str, str]:
    """Return a run's name without its digest, and the digest."""
    name, _, digest = run_id.rpartition("-")
    return name, digest
