"""Made records with small per-image scores, for the tests of reports; the golden report's are kept in the tree.

    PYTHONPATH=.:tests python tests/report_records.py tests/golden/report/records

makes those again (numpy may draw other numbers in another release, so a test never does). Then
`pytest tests/report/test_golden_report.py --rewrite-golden` writes what the report should say of them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from toy_world import TOY_OBJECTS, TOY_STATES, TOY_UNSEEN

from benchmarks.evaluation.breakdowns import slice_accuracies
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.legacy import legacy_from_image_scores
from benchmarks.evaluation.metrics import evaluate
from benchmarks.runs.numbers import LegacyHeadline
from benchmarks.runs.records import RunFolder, RunRecord
from benchmarks.runs.result import Cost, Counts, Legacy, PhaseMetrics, Result, Selection
from benchmarks.runs.spec import RunSpec, TrainingConfig

TIME = "2026-01-01T00:00:00+00:00"
ENVIRONMENT = {"device": "cpu", "threads": 2, "cpu": {"name": "a processor", "count": 2}}
CONFIGS: dict[str, dict[str, Any]] = {
    "clip_zero_shot": {},
    "csp": {"dropout": 0.3, "learn_context": False, "init": "words"},
}
SKILL = {"clip_zero_shot": 0.6, "coop": 0.8, "csp": 1.5, "dfsp": 1.7, "troika": 1.6}
"""How far the right state and the right object stand out of the noise."""


def make_run(
    root: Path,
    method: str = "csp",
    seed: int = 0,
    *,
    skill: float | None = None,
    images_per_pair: int = 8,
    test_images: int | None = None,
    **changes: Any,
) -> RunRecord:
    """Write a finished run on the toy pairs' test images below `root` and return its record.

    skill: of the scores, by default the method's. test_images: what the result says there are, by default the truth.
    changes: of the specification.
    """
    training = TrainingConfig(**({"epochs": 0} if method == "clip_zero_shot" else {"epochs": 5}))
    config = CONFIGS.get(method, {"dropout": 0.3}) | changes.pop("method_config", {})
    known = {"dataset": "toy", "dataset_digest": "d" * 64, "backbone": "tiny-icons", "backbone_digest": "b" * 64}
    spec = RunSpec(method=method, method_config=config, training=training, seed=seed, **(known | changes))
    pairs, is_seen, columns = _test_images(images_per_pair)
    skill = SKILL.get(method, 1.0) if skill is None else skill
    scores = _scores(pairs, is_seen, columns, skill, 0 if method == "clip_zero_shot" else seed, method, spec.ablation)
    labels = Labels(pairs[:, 0], pairs[:, 1], *pairs[columns].T)
    tags = {"kind": np.where(labels.states < 2, "local", "global")}
    tags["training images of the pair"] = np.where(scores.is_seen, "2-5", "0")
    bias = 0.5 + 0.1 * seed
    metrics, legacy = evaluate(scores, labels, bias=bias), legacy_from_image_scores(scores, labels)
    trained = {"clip_zero_shot": 0, "csp": 7296}.get(method, 288)
    result = Result(
        run_id=spec.run_id,
        selection=Selection(policy="val_auc", epoch=3, value=0.5, bias=bias),
        metrics=PhaseMetrics(test=metrics),
        legacy=Legacy(test=LegacyHeadline(legacy.auc, legacy.best_hm, legacy.best_seen, legacy.best_unseen)),
        slices=slice_accuracies(scores, labels, tags, bias=bias),
        counts=Counts(test_images=len(scores) if test_images is None else test_images),
        cost=Cost(
            trained_parameters=trained,
            train_seconds=12.5 * seed + 6 if trained else 0.0,
            train_images_per_second=400.0 if trained else None,
            test_images_per_second=1000.0 + seed,
            peak_memory_bytes=500_000_000,
        ),
    )
    folder = start(root, spec)
    arrays = scores.to_arrays() | {"states": labels.states, "objects": labels.objects}
    arrays |= {"candidate_pairs": pairs, "candidate_seen": is_seen}
    folder.write_arrays({f"test.{name}": values for name, values in arrays.items()})
    folder.finish(result)
    return folder.read()


def start(root: Path, spec: RunSpec) -> RunFolder:
    """Begin a run's folder as if at a fixed time and place."""
    folder = RunFolder(root / spec.run_id)
    folder.start(spec, provenance={}, command_line=["bench.py", "run"], environment=ENVIRONMENT)
    path = folder.path / "spec.json"
    content = json.loads(path.read_text())
    content["starts"][0]["time"] = TIME
    path.write_text(json.dumps(content, indent=1) + "\n")
    return folder


def _test_images(images_per_pair: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return candidate pairs [P, 2], which of them are seen [P], and the column of each image [N]."""
    names = [(state, obj) for state in TOY_STATES for obj in TOY_OBJECTS]
    names = [pair for pair in names if pair not in TOY_UNSEEN["val"]]
    is_seen = np.array([pair not in TOY_UNSEEN["test"] for pair in names])
    pairs = np.array([(TOY_STATES.index(state), TOY_OBJECTS.index(obj)) for state, obj in names])
    tested = np.concatenate([np.flatnonzero(is_seen)[6:], np.flatnonzero(~is_seen)])
    counts = np.where(is_seen[tested], images_per_pair, 3 * images_per_pair)
    return pairs, is_seen, np.repeat(tested, counts)


def _scores(
    pairs: np.ndarray, is_seen: np.ndarray, columns: np.ndarray, skill: float, seed: int, *names: object
) -> ImageScores:
    """Scores that methods share in part: an image is hard for all, each run has its own luck."""
    everybody = np.random.default_rng(1).normal(size=(len(columns), len(pairs)))
    own = np.random.default_rng([seed, *map(ord, repr(names))]).normal(size=(len(columns), len(pairs)))
    right = (pairs[:, None] == pairs[None]).sum(axis=2)[columns]  # [N, P], 0 to 2 primitives right
    matrix = skill * right + everybody + 0.5 * own + 0.5 * is_seen
    return ImageScores.from_matrix(matrix, is_seen, columns)


def make_golden(root: Path) -> None:
    """Write the golden report's records: methods, seeds, ablations, two profiles, and every kind of gap."""
    for seed in (0, 1):
        make_run(root, "clip_zero_shot", seed)
        make_run(root, "csp", seed)
        make_run(root, "csp", seed, skill=1.3, ablation="no_dropout", method_config={"dropout": 0.0})
    make_run(root, "csp", 0, skill=0.4, ablation="random_init", method_config={"init": "random"})
    make_run(root, "coop", 0)
    for method in ("coop", "csp"):
        make_run(root, method, 0, profile="official")
    failed = make_run(root, "coop", 1)
    for name in ("result.json", "scores.npz"):
        (failed.path / name).unlink()
    RunFolder(failed.path).fail(FloatingPointError("The loss became nan."))
    unfinished = make_run(root, "dfsp", 0)
    for name in ("result.json", "scores.npz"):
        (unfinished.path / name).unlink()
    (make_run(root, "troika", 0).path / "scores.npz").unlink()  # an old record


if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    make_golden(target)
    for path in target.glob("*/error.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"traceback": ""}, indent=1) + "\n")
