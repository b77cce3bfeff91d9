"""Whole comparisons: what a table gets, its families and pairings, its refusals, and runs read from folders."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import result

from benchmarks.evaluation.metrics import evaluate
from benchmarks.report.scored_runs import scored_run, scored_runs
from benchmarks.runs.records import RunFolder, RunRecord
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.significance import (
    STATISTICS,
    Comparison,
    Resampling,
    ScoredRun,
    Units,
    average,
    bootstrap,
    check_same_images,
    compare,
    compare_over_seeds,
    difference,
    estimate,
    holm,
    mcnemar_by_group,
    mean_over_seeds,
    over_seeds,
)
from benchmarks.significance.simulation import Population
from datasets.streams import stream
from errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FEW = {"resampling": Resampling(60)}


def sampled(methods: int = 3, seeds: int = 3, name: object = 0) -> dict[str, list[ScoredRun]]:
    runs = Population((40, 60), (4, 6), by_seed=0.01).sample(stream("test compare", name), methods, seeds)
    return dict(zip("ABCDEFG", runs, strict=False))


def every_number(comparison: Comparison, method: str) -> list[float]:
    """All numbers of a method's statistics and differences, in order."""
    numbers: list[float] = []
    for summary in comparison.methods[method].statistics.values():
        numbers += [summary.value, summary.standard_deviation, summary.seed_interval.low]
        for found in (summary.sources, summary.difference.sources if summary.difference else {}):
            for one in found.values():
                numbers += [one.value, one.standard_error, one.percentile.low, one.percentile.high]
                numbers += [one.p_value if one.p_value is not None else -1, one.bca.high if one.bca else -1]
    return numbers


def test_values_are_means_of_the_evaluator_over_seeds() -> None:
    runs = sampled(2)
    found = compare(runs, "A", STATISTICS, **FEW)
    assert list(found.methods) == ["A", "B"] and list(found.methods["B"].statistics) == list(STATISTICS)
    for name, own in runs.items():
        for statistic, summary in found.methods[name].statistics.items():
            values = [attrgetter(statistic)(evaluate(run.scores, run.labels, bias=run.bias)) for run in own]
            assert summary.per_seed == pytest.approx(values, rel=1e-12)
            assert (summary.value, summary.standard_deviation) == pytest.approx(
                (np.mean(values), np.std(values, ddof=1))
            )
            assert summary.seed_interval == mean_over_seeds(values)
    assert (found.images, found.pairs, found.level, found.resamples) == ((40, 60), (4, 6), 0.95, 60)


def test_each_part_is_what_its_own_function_gives() -> None:
    runs = sampled(2)
    found = compare(runs, "A", ("auc", "best_hm"), resampling=Resampling(60, seed=7))
    first = runs["A"][0]
    units = {"images": Units.images(first.scores), "pairs": Units.pairs(first.scores, first.labels)}
    for name, unit in units.items():
        ours, theirs = (bootstrap(runs[key], ("auc", "best_hm"), unit, resamples=60, seed=7) for key in "BA")
        summary = found.methods["B"].statistics["best_hm"]
        assert summary.sources[name] == estimate(average(ours))["best_hm"]
        assert summary.difference.sources[name] == difference(average(ours) - average(theirs))["best_hm"]
        joint = over_seeds([a - b for a, b in zip(ours, theirs, strict=True)], [0, 1, 2], seed=7)
        assert summary.difference.sources[f"seeds and {name}"] == difference(joint)["best_hm"]
        assert summary.sources[f"seeds and {name}"] == estimate(over_seeds(ours, [0, 1, 2], seed=7))["best_hm"]
    per_seed = [found.methods[key].statistics["best_hm"].per_seed for key in "BA"]
    assert summary.difference.seeds == compare_over_seeds(*per_seed)
    assert summary.difference.interval == summary.difference.sources["seeds and images"].percentile
    assert summary.closed_form is None and summary.difference.closed_form is None
    assert found.methods["B"].statistics["auc"].difference.closed_form.standard_error > 0
    assert found.methods["B"].mcnemar[2] == mcnemar_by_group(runs["B"][2], runs["A"][2])
    assert found.methods["A"].mcnemar == {} and found.methods["A"].statistics["auc"].difference is None


@settings(derandomize=True, deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_equal_methods_do_not_differ_and_differences_are_antisymmetric(seed: int, runs_each: int) -> None:
    runs = sampled(2, runs_each, seed) | {}
    runs["copy"] = runs["A"]
    statistics = ("auc", "best_hm", "at_bias.hm", "at_zero.object")
    there, back = (compare(runs, baseline, statistics, **FEW) for baseline in "AB")
    for name in statistics:
        same = there.methods["copy"].statistics[name].difference
        assert (same.value, same.p_value, same.adjusted_p, same.interval.low) == (0, 1, 1, 0)
        ours, theirs = (c.methods[m].statistics[name].difference for c, m in ((there, "B"), (back, "A")))
        assert ours.value == pytest.approx(-theirs.value)
        assert ours.p_value == pytest.approx(theirs.p_value)
        assert (ours.interval.low, ours.interval.high) == pytest.approx((-theirs.interval.high, -theirs.interval.low))
    assert all(test.p_value == 1 for groups in there.methods["copy"].mcnemar.values() for test in groups.values())


def test_a_method_has_the_same_numbers_in_any_company_and_in_any_order_of_seeds() -> None:
    runs = sampled(3)
    few, many = compare({name: runs[name] for name in "AB"}, "A", **FEW), compare(runs, "A", **FEW)
    assert every_number(few, "B") == pytest.approx(every_number(many, "B"), rel=0, abs=0, nan_ok=True)
    turned = compare({"B": runs["B"][::-1], "A": runs["A"][::-1]}, "A", **FEW)
    assert every_number(turned, "B") == pytest.approx(every_number(many, "B"), rel=0, abs=0, nan_ok=True)
    other = compare(runs, "A", resampling=Resampling(60, seed=1))
    assert every_number(other, "B") != every_number(many, "B")


def test_the_family_of_holm_is_all_that_is_tested() -> None:
    found = compare(sampled(3), "A", ("auc", "best_hm", "gate"), tested=("auc", "gate"), **FEW)
    assert (found.tested, found.family) == (("auc", "gate"), 4)
    made = [found.methods[m].statistics[s].difference for m in "BC" for s in ("auc", "gate")]
    assert [one.adjusted_p for one in made] == pytest.approx(holm(np.array([one.p_value for one in made])))
    assert np.isnan(found.methods["B"].statistics["best_hm"].difference.adjusted_p)
    with pytest.raises(ValueError, match="best_seen"):
        compare(sampled(2), "A", ("auc",), tested=("best_seen",), **FEW)


def test_the_source_that_decides_is_a_choice() -> None:
    runs = sampled(2)
    for source in ("images", "pairs", "seeds and images", "seeds and pairs"):
        one = (
            compare(runs, "A", ("auc",), resampling=Resampling(60, decided_by=source))
            .methods["B"]
            .statistics["auc"]
            .difference
        )
        assert one.decided_by == source and one.p_value == one.sources[source].p_value


@pytest.mark.parametrize(("asked", "got"), [("seeds and images", "images"), ("seeds and pairs", "pairs")])
def test_without_seeds_images_or_pairs_decide(asked: str, got: str) -> None:
    found = (
        compare(sampled(2, seeds=1), "A", ("auc",), resampling=Resampling(60, decided_by=asked))
        .methods["B"]
        .statistics["auc"]
    )
    assert (found.difference.decided_by, set(found.sources)) == (got, {"images", "pairs"})
    assert found.difference.seeds is None and np.isnan(found.standard_deviation)


def test_seeds_that_differ_are_drawn_apart_and_paired_where_they_agree() -> None:
    runs = sampled(2)
    moved = [replace(run, seed=run.seed + 1) for run in runs["B"]]  # 1, 2, 3 against 0, 1, 2
    found = compare({"A": runs["A"], "B": moved}, "A", ("auc",), **FEW).methods["B"]
    one = found.statistics["auc"].difference
    assert one.seeds.runs == 2 and sorted(found.mcnemar) == [1, 2]
    values = [
        found.statistics["auc"].per_seed,
        compare(runs, None, ("auc",), **FEW).methods["A"].statistics["auc"].per_seed,
    ]
    assert one.seeds == compare_over_seeds(values[0][:2], values[1][1:])
    assert one.value == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    parts = [bootstrap(own, ("auc",), Units.images(own[0].scores), resamples=60) for own in (moved, runs["A"])]
    apart = over_seeds(parts[0], [1, 2, 3]) - over_seeds(parts[1], [0, 1, 2])
    assert one.sources["seeds and images"] == difference(apart)["auc"]


@pytest.mark.parametrize("baseline", ["A", "B"])
def test_a_method_without_training_is_compared_with_every_seed(baseline: str) -> None:
    runs = sampled(2)
    runs["A"] = [replace(runs["A"][0], seed=seed, trained=False) for seed in range(3)]
    found = compare(runs, baseline, ("auc",), **FEW)
    assert found.methods["A"].seeds == (0,) and not found.methods["A"].trained
    other = found.methods["B" if baseline == "A" else "A"]
    one = other.statistics["auc"].difference
    assert one.decided_by == "seeds and images" and one.seeds.runs == 3 and sorted(other.mcnemar) == [0, 1, 2]
    spread = found.methods["B"].statistics["auc"].standard_deviation
    assert one.seeds.standard_deviation == pytest.approx(spread)
    assert found.methods["A"].statistics["auc"].sources["seeds and images"].standard_error > 0


def test_values_alone_and_a_run_without_a_validation_bias() -> None:
    alone = compare({"A": sampled(1)["A"]}, statistics=("auc",), **FEW)
    assert (alone.baseline, alone.family, alone.methods["A"].statistics["auc"].difference) == (None, 0, None)
    runs = sampled(2)
    runs["B"] = [replace(run, bias=np.nan) for run in runs["B"]]
    found = compare(runs, "A", **FEW)
    one = found.methods["B"].statistics["at_bias.hm"]
    assert np.isnan([one.value, one.difference.p_value, one.difference.adjusted_p]).all()
    assert found.methods["B"].mcnemar == {}
    assert found.family == len(found.tested) - 1


def test_what_cannot_be_compared_is_refused() -> None:
    runs, other = sampled(2), sampled(2, name=1)
    with pytest.raises(UserError, match=r"baseline 'a' is not among .* There are A, B. Did you mean 'A'"):
        compare(runs, "a", **FEW)
    with pytest.raises(UserError, match=r"There are A, B\. Choose one"):
        compare(runs, "zero-shot", **FEW)
    with pytest.raises(ValueError, match="B has 0 runs"):
        compare({"A": runs["A"], "B": []}, "A", **FEW)
    with pytest.raises(ValueError, match="one run per seed"):
        compare({"A": runs["A"][:1] * 2}, **FEW)
    fewer = Population((40, 50), (4, 6)).sample(stream("test"), 1)[0]
    with pytest.raises(UserError, match="One has 100 test images, the other 90"):
        compare({"A": runs["A"], "B": fewer}, "A", **FEW)
    changed = replace(other["A"][0].labels, states=np.roll(other["A"][0].labels.states, 1))
    with pytest.raises(UserError, match=r"A, seed 0, and B, seed 0, .* 100 test images have other labels"):
        check_same_images([("A, seed 0,", runs["A"][0]), ("B, seed 0,", replace(other["A"][0], labels=changed))])
    with pytest.raises(ValueError, match="labels of 90 images were given for 100"):
        ScoredRun(runs["A"][0].scores, fewer[0].labels)


def test_no_torch_is_needed() -> None:
    code = "import sys, benchmarks.significance, benchmarks.report.scored_runs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# From run folders


def write(root: Path, run: ScoredRun, parameters: int = 5, bias: float | None = 0.25, **changes: object) -> RunRecord:
    spec = RunSpec(
        method="csp", method_config={}, training=TrainingConfig(), dataset="icons", dataset_digest="0" * 64,
        backbone="tiny", backbone_digest="1" * 64, seed=run.seed,
    ).model_copy(update=changes)  # fmt: skip
    folder = RunFolder(root / spec.run_id)
    folder.start(spec, provenance={}, command_line=[], environment={})
    pairs = np.stack([run.labels.candidate_states, run.labels.candidate_objects], axis=1)
    content = run.scores.to_arrays() | {"states": run.labels.states, "objects": run.labels.objects}
    content |= {"candidate_pairs": pairs}
    folder.write_arrays({f"test.{name}": values for name, values in content.items()})
    folder.finish(result(bias=math.nan if bias is None else bias, trained_parameters=parameters))
    return folder.read()


def test_runs_are_read_from_their_folders(tmp_path: Path) -> None:
    runs = sampled(2)
    records = {name: [write(tmp_path / name, run) for run in own] for name, own in runs.items()}
    loaded = scored_runs(records)
    assert [run.seed for run in loaded["B"]] == [0, 1, 2]
    assert loaded["A"][0].bias == 0.25 and loaded["A"][0].trained
    wanted = {name: [replace(run, bias=0.25) for run in own] for name, own in runs.items()}
    ours, theirs = (compare(these, "A", STATISTICS, **FEW) for these in (loaded, wanted))
    assert every_number(ours, "B") == every_number(theirs, "B")
    plain = scored_run(write(tmp_path / "zero", runs["A"][0], parameters=0, bias=None))
    assert np.isnan(plain.bias) and not plain.trained
    assert scored_runs({}) == {}


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    runs = sampled(2, 1)
    first = write(tmp_path / "A", runs["A"][0])
    for field, value in (
        ("dataset_digest", "2" * 64),
        ("world", "open"),
        ("dataset", "others"),
        ("protocol_version", 9),
    ):
        other = write(tmp_path / field, runs["B"][0], **{field: value})
        with pytest.raises(UserError, match=rf"cannot be compared\. Their {field.replace('_', ' ')} differs"):
            scored_runs({"A": [first], "B": [other]})
    fewer = Population((40, 50), (4, 6)).sample(stream("test"), 1)[0][0]
    with pytest.raises(UserError, match="One has 100 test images, the other 90"):
        scored_runs({"A": [first], "B": [write(tmp_path / "fewer", fewer)]})


def test_unfinished_and_incomplete_runs_are_refused(tmp_path: Path) -> None:
    record = write(tmp_path, sampled(1, 1)["A"][0])
    with pytest.raises(UserError, match=r"It is partial, not done\. Finish it"):
        scored_run(replace(record, status="partial", result=None))
    folder = RunFolder(record.path)
    arrays = folder.read_arrays()
    for lost, reason in (("test.ties", "lack ties"), ("test.states", "KeyError: 'states'")):
        folder.write_arrays({name: values for name, values in arrays.items() if name != lost})
        with pytest.raises(UserError, match=rf"scores of .* cannot be used.*{reason}.*Restore"):
            scored_run(record)
