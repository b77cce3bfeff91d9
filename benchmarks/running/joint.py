"""Which planned runs train the very same weights: they are trained once, and each is judged after every epoch.

Such runs differ in the world, in its threshold, or in settings that only change scores (`MethodConfig.score_only`).
What each of them leaves is, bit for bit, what it would leave by itself, but for what it says of time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.running.plan import PlannedRun
from benchmarks.runs.spec import RunSpec, canonical_json
from registry import METHODS

JUDGING = ("world", "open_world", "ablation")
"""Fields of a specification that say how a run is judged, or what it is called."""


def training_of(spec: RunSpec) -> str | None:
    """Return a text that runs with the same training have in common; None where nothing is trained."""
    method = METHODS.get(spec.method)
    if not method.info.trains or spec.training.epochs == 0:
        return None
    content = {key: value for key, value in spec.model_dump(mode="json").items() if key not in JUDGING}
    judging = method.Config.score_only
    content["method_config"] = {key: value for key, value in spec.method_config.items() if key not in judging}
    return canonical_json(content)


def together(planned: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Return the runs in groups of one training each, in the order of their first members.

    Runs to which nothing will be done are by themselves.
    """
    groups: dict[str, list[PlannedRun]] = {}
    for item in planned:
        training = training_of(item.spec) if item.action != "nothing" else None
        groups.setdefault(training or item.spec.run_id, []).append(item)
    return list(groups.values())
