"""Score matrices that a user brings become records as those of runs are, with what is not known left open."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.evaluation.empty_groups import Sizes, check_not_empty
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.matrix import score_matrix
from benchmarks.evaluation.matrix_files import MatrixFile, file_digest, open_matrix
from benchmarks.evaluation.metrics import evaluate
from benchmarks.evaluation.topk import KEPT
from benchmarks.running.external_mask import Mask, Masked
from benchmarks.running.matrix_order import Files, order_of
from benchmarks.runs import locks
from benchmarks.runs.numbers import Metrics
from benchmarks.runs.records import RunFolder, RunRecord, capture_environment, find_runs
from benchmarks.runs.result import Cost, PhaseMetrics, Result, Selection
from benchmarks.runs.spec import EXTERNAL, NOT_KNOWN, External, RunSpec, TrainingConfig
from benchmarks.training.outcome import judged, score_arrays
from datasets.base import Candidates, CompositionDataset, Phase, World
from errors import UserError

NO_VALIDATION = "no validation scores were given"
"""Why no bias is chosen without `--val`."""


@dataclass(frozen=True)
class About:
    """What a user says of a method that was run elsewhere.

    name: without "external:".
    world: of the candidates.
    seed: of its training.
    backbone: what it was built on; None where that is not said.
    paper: what it is called in print, or where it is described; "" where that is not said.
    mask: the feasibility that removes pairs of an open world; None where the scores are taken as they are.
    """

    name: str
    world: World = "closed"
    seed: int = 0
    backbone: str | None = None
    paper: str = ""
    mask: Mask | None = None


@dataclass(frozen=True, eq=False)
class Judged:
    """A phase's record from a file. notices: what a reader should know of the file."""

    matrix: MatrixFile
    digest: str
    candidates: Candidates
    scores: ImageScores
    labels: Labels
    notices: Sequence[str]


def judge(
    dataset: CompositionDataset, phase: Phase, files: Files, world: World, top: int = 0, masked: Masked | None = None
) -> Judged:
    """Return the record of a phase's images from their scores in a file; see `score_matrix` for the errors.

    masked: removes pairs, see `Masked.score`.
    """
    candidates, split = dataset.candidates(phase, world), dataset.splits[phase]
    if len(split) == 0:
        raise UserError(f"{dataset.name} has no {phase} images.", f"{files.scores} has some.", "Leave it out.")
    matrix = open_matrix(files.scores)
    order, notes = order_of(matrix, files, dataset, phase, world)
    labels = Labels(candidates.states, candidates.objects, split.states, split.objects)
    if masked is None:
        scores, signs = score_matrix(matrix, order, candidates, split, top)
    else:
        scores, signs = masked.score(matrix, order, split, labels)
    notices = [*notes, *signs.notices(scores, files.scores.name)]
    if removed := signs.removed():
        unseen = int((~candidates.seen).sum())
        notices.append(f"{files.scores.name}: {removed:,} of {unseen:,} unseen pairs are -infinity for all images.")
    return Judged(matrix, matrix.digest(), candidates, scores, labels, notices)


def metrics_of(test: Judged, val: Judged | None, dataset: CompositionDataset) -> tuple[Metrics, Metrics | None, str]:
    """Return the metrics of test and of validation, and why validation chose no bias, "" where it did."""
    if val is None:
        return evaluate(test.scores, test.labels, bias=np.nan, no_bias=NO_VALIDATION), None, NO_VALIDATION
    chosen = evaluate(val.scores, val.labels)
    no_bias = Sizes.of(dataset, "val").lacks("validation")
    found = evaluate(test.scores, test.labels, bias=chosen.best_hm_bias, no_bias=no_bias)
    return found, chosen, no_bias


def record_scores(
    about: About,
    dataset: CompositionDataset,
    test_files: Files,
    val_files: Files | None,
    folder: Path,
    command_line: Sequence[str] = (),
    notify: Callable[[str], None] = lambda message: None,
) -> RunRecord:
    """Make the record of a method from its scores of test and validation; one that is there already is returned.

    folder: of all records. Another file under the same name and seed is a `UserError`: nobody could tell them apart.
    notify: told what a reader should know of the files.
    """
    check_not_empty(dataset)
    masked = None
    if about.mask is not None:
        masked = about.mask.on(dataset, about.world, validated=val_files is not None)
        dataset = masked.dataset
    # Validation comes first: it may choose the threshold.
    val = None if val_files is None else judge(dataset, "val", val_files, about.world, masked=masked)
    test = judge(dataset, "test", test_files, about.world, KEPT, masked)
    if val is not None and val.digest == test.digest:
        raise UserError(
            "The scores of validation and of test are the same file.",
            f"{test_files.scores} and {val_files and val_files.scores} have the digest {test.digest[:12]}.",
            "Pass validation's own, or leave --val out.",
        )
    spec = _spec(about, dataset, test, val, (test_files, val_files))
    if masked is not None:
        spec = spec.model_copy(update={"open_world": masked.settings})
    same_scores = _check_alone(spec, folder)
    made = RunFolder(folder / spec.run_id)
    with locks.hold(made.path, notify):
        for notice in (notices := [*same_scores, *test.notices, *(() if val is None else val.notices)]):
            notify(notice)
        if made.status == "done":
            return made.read()
        made.start(spec, provenance={}, command_line=list(command_line), environment=_environment(about, test, val))
        for notice in notices:
            made.note(notice)
        scores: dict[Phase, ImageScores] = (
            {"test": test.scores}
            if val is None
            else {
                "val": val.scores,
                "test": test.scores,
            }
        )
        candidates: dict[Phase, Candidates] = {
            phase: dataset.candidates(phase, about.world) for phase in ("train", "val", "test")
        }
        world = None if masked is None else masked.world
        made.write_arrays(score_arrays(dataset, candidates, world, scores))
        found, chosen, no_bias = metrics_of(test, val, dataset)
        bias = np.nan if chosen is None else chosen.best_hm_bias
        selection = Selection(
            policy=NOT_KNOWN, epoch=None, value=None, bias=bias, **({"no_bias": no_bias} if no_bias else {})
        )
        nothing = {"train_images_per_second": None, "test_images_per_second": None, "peak_memory_bytes": None}
        result = Result(
            run_id=spec.run_id,
            selection=selection,
            metrics=PhaseMetrics(test=found) if chosen is None else PhaseMetrics(val=chosen, test=found),
            **judged(dataset, candidates, world, scores, test.labels, bias),
            cost=Cost(trained_parameters=None, train_seconds=np.nan, **nothing),
        )
        made.finish(result)
    return made.read()


def _spec(
    about: About,
    dataset: CompositionDataset,
    test: Judged,
    val: Judged | None,
    files: Sequence[Files | None],
) -> RunSpec:
    orders = [path for one in files for path in ((None, None) if one is None else (one.pairs, one.images))]
    return RunSpec(
        method=EXTERNAL + about.name,
        method_config={},
        training=TrainingConfig(epochs=0),
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        backbone=about.backbone or NOT_KNOWN,
        backbone_digest=NOT_KNOWN,
        world=about.world,
        seed=about.seed,
        external=External(
            test=test.digest,
            val=None if val is None else val.digest,
            orders=tuple("" if path is None else file_digest(path) for path in orders) if any(orders) else (),
        ),
    )


def _check_alone(spec: RunSpec, folder: Path) -> list[str]:
    """Refuse other scores under a name and seed that are there: a table would take them for one run.

    Say so where the same scores are there under another seed: a table would take them for two trainings.
    """
    found = []
    for run in find_runs(folder)[0]:
        there = run.spec
        same = all(
            getattr(there, name) == getattr(spec, name)
            for name in ("method", "dataset_digest", "backbone", "world", "open_world")
        )
        if not same or there.external is None or spec.external is None or run.run_id == spec.run_id:
            continue
        if there.seed == spec.seed:
            raise UserError(
                f"{spec.method} with seed {spec.seed} is there already, from other files.",
                f"{run.path} has {_digests(there.external)}, these are {_digests(spec.external)}.",
                "Pass another --seed or --name, or remove that folder.",
            )
        if there.external.test == spec.external.test:
            found.append(
                f"The test scores are those of seed {there.seed} in {run.path.name}: intervals over seeds take them "
                "for another training."
            )
    return found


def _digests(external: External) -> str:
    val = "no validation" if external.val is None else f"validation {external.val[:12]}"
    orders = f", lists {', '.join(one[:12] or '-' for one in external.orders)}" if external.orders else ""
    return f"test {external.test[:12]}, {val}{orders}"


def _environment(about: About, test: Judged, val: Judged | None) -> dict[str, object]:
    """Return what is known of how the scores were made, which is next to nothing, and what evaluated them."""
    facts = {
        phase: {
            "file": one.matrix.path.name,
            "rows": one.matrix.rows,
            "columns": one.matrix.columns,
            "dtype": one.matrix.dtype,
        }
        for phase, one in (("test", test), ("val", val))
        if one is not None
    }
    paper = {"paper": about.paper} if about.paper else {}
    return {**capture_environment(), "scores": {**facts, **paper}}


def as_json(found: Metrics) -> str:
    """Return metrics as JSON text, null where a number is undefined."""
    from dataclasses import asdict

    from benchmarks.runs.files import with_finite_numbers

    return json.dumps(with_finite_numbers(asdict(found)), indent=1)
