"""Results made up for tests that look at a few of their numbers; the others are undefined."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from benchmarks.runs.numbers import BiasAccuracies, Metrics, SliceAccuracies
from benchmarks.runs.result import Cost, Counts, OpenWorldResult, PhaseMetrics, Result, Selection


def at_bias(**numbers: float) -> BiasAccuracies:
    return BiasAccuracies(**({item.name: math.nan for item in fields(BiasAccuracies)} | numbers))


def metrics(**values: Any) -> Metrics:
    numbers = {item.name: math.nan for item in fields(Metrics) if item.type == "Number"}
    counts = {"images": 0, "seen_images": 0, "unseen_images": 0, "tied_images": 0}
    others = {"best_hm_interval": (math.nan, math.nan), "at_zero": at_bias()}
    return Metrics(**(numbers | counts | others | values))


def slice_of(tag: str, value: str, group: Any, own_pair: float, images: int = 0) -> SliceAccuracies:
    numbers = [math.nan] * 5
    return SliceAccuracies(tag, value, group, images, 0.0, own_pair, *numbers)


def open_world(test_cap: float) -> OpenWorldResult:
    about = {"feasibility": "shipped", "feasibility_digest": None, "masking": "clean", "selection_world": "open"}
    about |= {"threshold": 0.0, "searched": True, "chosen_by": "exact AUC", "grid": [], "val_aucs": []}
    kept = {"pairs": (0, 0), "val_pairs": (0, 0), "test_pairs": (0, 0)}
    return OpenWorldResult(**about, kept=kept, unseen_cap={"val": 0.5, "test": test_cap})


def result(run_id: str = "run", test: Metrics | None = None, bias: float = 0.25, **changes: Any) -> Result:
    """Make a result. changes: of its fields, or of those of `Cost`."""
    cost = {"trained_parameters": 5, "train_seconds": 5.0, "train_images_per_second": None}
    cost |= {"test_images_per_second": 400.0, "peak_memory_bytes": 500_000_000}
    cost |= {name: changes.pop(name) for name in list(changes) if name in Cost.model_fields}
    known = {
        "run_id": run_id,
        "selection": Selection(policy="val_auc", epoch=3, value=0.5, bias=bias),
        "metrics": PhaseMetrics(test=metrics(auc=0.5) if test is None else test),
        "slices": [],
        "counts": Counts(test_images=0),
        "cost": Cost(**cost),
    }
    return Result(**(known | changes))
