"""`result.json`: what is read is written again alike, what is wrong is named, results/README.md says what it holds."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
from made_results import at_bias, metrics, result
from toy_runs import make_backbone, make_trainer

from benchmarks.runs import files, numbers
from benchmarks.runs import result as results
from benchmarks.runs.records import RunFolder, find_runs
from errors import UserError

ROOT = Path(__file__).parents[2]
README = ROOT / "results/README.md"
GOLDEN = ROOT / "tests/golden/report/records"
BEGIN, END = "<!-- keys of result.json: begin -->", "<!-- keys of result.json: end -->"

PLACES = {
    "": results.Result,
    "selection": results.Selection,
    "metrics": results.PhaseMetrics,
    "metrics.*": numbers.Metrics,
    "metrics.*.at_zero": numbers.BiasAccuracies,
    "metrics.*.at_bias": numbers.BiasAccuracies,
    "open_world": results.OpenWorldResult,
    "open_world.kept": results.Kept,
    "open_world.unseen_cap": results.UnseenCap,
    "legacy": results.Legacy,
    "legacy.test": numbers.LegacyMetrics,
    "legacy.test.at_zero": numbers.LegacyAccuracies,
    "legacy.test.at_huge": numbers.LegacyAccuracies,
    "slices.*": numbers.SliceAccuracies,
    "errors": numbers.ErrorKinds,
    "macro": numbers.MacroAccuracies,
    "calibration": numbers.Calibration,
    "counts": results.Counts,
    "cost": results.Cost,
}
"""Where the classes of a result stand in the file; `*` is each key or item."""


def optional(kind: type) -> dict[str, bool]:
    """Return the fields of a class by name, and whether a record may lack them."""
    if dataclasses.is_dataclass(kind):
        return {item.name: False for item in dataclasses.fields(kind)}
    return {name: not item.is_required() for name, item in kind.model_fields.items()}


def described(kind: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each field."""
    found = {}
    for one in reversed(kind.__mro__):
        lines = re.findall(r"^    (\w+(?:, \w+)*): (.+)$", one.__doc__ or "", re.MULTILINE) if one is not object else []
        found |= {name: text for names, text in lines for name in names.split(", ")}
    return found


def tables() -> str:
    """Return the tables of results/README.md: one for each class, a line for each thing said."""
    parts = []
    for kind in dict.fromkeys(PLACES.values()):
        places = " and ".join(f"`{place or 'result.json'}`" for place, own in PLACES.items() if own is kind)
        texts = described(kind)
        lines = [f"{places}: {kind.__doc__.splitlines()[0]}", "", "| key | meaning |", "| --- | --- |"]
        lines += [f"| `{name}` | {text} |" for name, text in results.AROUND.items() if kind is results.Result]
        for text in dict.fromkeys((texts[name], lacks) for name, lacks in optional(kind).items()):
            names = ", ".join(f"`{name}`" for name, lacks in optional(kind).items() if (texts[name], lacks) == text)
            lines.append(f"| {names} | {text[0]}{' (not in every record)' if text[1] else ''} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


@pytest.mark.parametrize("kind", dict.fromkeys(PLACES.values()))
def test_every_field_has_a_line_and_every_line_a_field(kind):
    assert set(described(kind)) == set(optional(kind))


def test_the_readme_has_the_keys(request):
    if request.config.getoption("--rewrite-golden"):
        files.put_between(README, BEGIN, END, tables())
    assert f"{BEGIN}\n{tables()}\n{END}" in README.read_text(encoding="utf-8"), "pytest --rewrite-golden writes it anew"


def objects(content, place: str = ""):
    """Yield the objects of a result with their places."""
    if isinstance(content, list):
        content = dict(enumerate(content))
    elif place not in ("metrics.*.undefined", "not_finite"):
        yield place, content
    for name, value in content.items():
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            below = "*" if place in ("metrics", "slices") else name
            yield from objects(value, f"{place}.{below}" if place else below)


def test_a_fresh_record_has_these_keys(tmp_path, toy):
    trainer = make_trainer(tmp_path / "run", toy, make_backbone(), epochs=1)
    trainer.folder.finish(trainer.run())
    content = files.read_json(trainer.folder.path / "result.json")
    found = dict(objects(content))
    assert set(PLACES) - set(found) == {"open_world", "open_world.kept", "open_world.unseen_cap"}
    for place, own in found.items():
        fields = optional(PLACES[place])
        around = set(results.AROUND) if not place else set()
        assert set(own) <= set(fields) | around, place
        assert {name for name, lacks in fields.items() if not lacks} <= set(own), place
        assert [name for name in own if name not in around] == [name for name in fields if name in own], place
    assert set(content["counts"]) == set(results.Counts.model_fields)
    assert set(content["cost"]) == set(results.Cost.model_fields)


def test_committed_records_are_written_again_alike():
    runs, _ = find_runs(GOLDEN)
    done = [run for run in runs if run.result is not None]
    assert len(done) == 11
    for run in done:
        text = (run.path / "result.json").read_text()
        again = {"schema_version": 1, **run.finished.content()}
        assert json.dumps(files.with_finite_numbers(again), indent=1) + "\n" == text


@pytest.fixture
def folder(tmp_path, toy):
    trainer = make_trainer(tmp_path / "run", toy, make_backbone())
    trainer.folder.finish(result(test=metrics(auc=0.5, best_hm_interval=(-math.inf, 0.5))))
    return trainer.folder


def test_what_is_not_finite_comes_back(folder: RunFolder):
    test = folder.read().finished.metrics.test
    assert test.best_hm_interval == (-math.inf, 0.5)
    assert test.get("auc") == 0.5 and math.isnan(test.gate)
    assert test.get("gate") is None and test.get("at_zero.state") is None and test.get("at_bias.hm") is None


def test_keys_of_a_later_release_are_passed_over(folder: RunFolder):
    path = folder.path / "result.json"
    content = json.loads(path.read_text())
    content["metrics"]["test"]["later"] = content["later"] = {"new": 1}
    path.write_text(json.dumps(content))
    assert folder.read().finished.metrics.test.auc == 0.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("run_id"), "run_id: Field required"),
        (lambda content: content["metrics"]["test"].pop("auc"), "metrics.test.auc: Field required"),
        (lambda content: content["metrics"]["test"].update(auc="0.5"), "metrics.test.auc: Value error, a number or"),
        (lambda content: content["cost"].update(trained_parameters="many"), "cost.trained_parameters: Input should be"),
        (lambda content: content.update(slices=[{"tag": "kind"}]), "slices.0.value: Field required"),
        (lambda content: content.update(not_finite={"metrics.test.gate": "much"}), "ValueError: could not convert"),
        (lambda content: content.update(not_finite=3), "TypeError: argument of type 'int'"),
    ],
)
def test_a_wrong_field_is_named_when_the_record_is_read(folder: RunFolder, change, reason):
    path = folder.path / "result.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"result\.json is not complete") as caught:
        folder.read()
    assert reason in str(caught.value)


def test_metrics_have_names():
    found = metrics(auc=0.25, images=3, at_zero=at_bias(state=0.5))
    assert (found.get("auc"), found.get("images"), found.get("at_zero.state")) == (0.25, 3, 0.5)
    for name in ("acu", "at_zero.pairs", "undefined", "at_bias"):
        with pytest.raises(ValueError, match=f"there is no metric '{name}'"):
            found.get(name)
