"""Records of runs that were never done: in memory, or stored with scores of a few images, for tests of reports."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from made_results import at_bias, metrics, open_world, slice_of
from made_results import result as made_result
from rich.console import Console

from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.report.render import terminal
from benchmarks.report.table_model import Table
from benchmarks.runs.records import RunFolder, RunRecord
from benchmarks.runs.result import PhaseMetrics
from benchmarks.runs.spec import RunSpec, TrainingConfig


def record(method: str = "csp", seed: int = 0, auc: float | None = 0.25, **changes) -> RunRecord:
    """A run as if it had been done; auc None: one that failed."""
    training = TrainingConfig(**{"epochs": 5, **changes.pop("training", {})})
    known = {"dataset": "icon_states", "dataset_digest": "d" * 64, "backbone": "tiny-icons"}
    spec = RunSpec(
        method=method,
        method_config=changes.pop("method_config", {"dropout": 0.3}),
        training=training,
        seed=seed,
        **(known | {"backbone_digest": "b" * 64} | changes),
    )
    result = None
    if auc is not None:
        test = metrics(
            auc=auc, best_hm=auc + 0.1, best_seen=0.6, best_unseen=0.5, gate=0.9, unseen_cap=1.0,
            at_bias=at_bias(hm=auc), at_zero=at_bias(state=0.7, object=0.8),
        )  # fmt: skip
        parts = [(value, group) for value in ("global", "local") for group in ("seen", "unseen")]
        there = {} if spec.open_world is None else {"open_world": open_world(0.4575)}
        slices = [slice_of("kind", value, group, 0.5) for value, group in parts]
        result = made_result(spec.run_id, test, slices=slices, trained_parameters=1234, **there)
    return RunRecord(
        path=Path("somewhere"),
        status="failed" if auc is None else "done",
        spec=spec,
        provenance={},
        starts=[{"environment": {"device": "cpu"}}],
        result=result,
        error={"message": "The loss became nan."} if auc is None else None,
    )


THREE = [record(seed=seed, auc=auc) for seed, auc in enumerate((0.2, 0.3))]
THREE += [record("clip_zero_shot", auc=0.1), record("coop", auc=0.15)]


def switched(name: str, seed: int = 0, auc: float = 0.2, **config):
    return record(seed=seed, auc=auc, ablation=name, method_config={"dropout": 0.3, **config})


def stored(root, run, seed: int = 0, given: str = "lr"):
    """Write a run with a per-image record of two states and two objects, whose unseen pair is (1, 1).

    given: the setting that came from the command line.
    """
    stream = np.random.default_rng(seed)
    pairs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    columns = np.arange(40) % 4
    matrix = stream.normal(size=(40, 4)) + 2 * np.eye(4)[columns]
    scores = ImageScores.from_matrix(matrix, np.arange(4) < 3, columns)
    arrays = scores.to_arrays() | {"states": pairs[columns, 0], "objects": pairs[columns, 1]}
    arrays |= {"candidate_pairs": pairs, "candidate_seen": np.arange(4) < 3, "images": np.array(["a.png"] * 40)}
    folder = RunFolder(root / run.spec.run_id)
    folder.start(
        run.spec, provenance={given: {"origin": "command line"}}, command_line=[], environment={"device": "cpu"}
    )
    names = {"names.states": np.array(["dry", "wet"]), "names.objects": np.array(["cat", "dog"])}
    folder.write_arrays(names | {f"test.{name}": value for name, value in arrays.items()})
    chosen = at_bias(hm=0.5, seen_pair=0.5, unseen_pair=0.5)
    test = replace(run.finished.metrics.test, at_bias=chosen)
    folder.finish(run.finished.model_copy(update={"metrics": PhaseMetrics(test=test)}))
    return folder


def drawn(found: Iterable[Table], width: int = 80) -> str:
    """What a terminal of some width shows of tables."""
    console = Console(file=io.StringIO(), width=width)
    for table in found:
        console.print(terminal(table))
    return console.file.getvalue()
