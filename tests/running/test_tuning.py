"""`tune`: every point of a grid, a budget of them, and validation alone."""

from __future__ import annotations

import pytest
from in_process import here
from toy_world import make_toy

from benchmarks.running import tuning
from benchmarks.runs.records import find_runs
from errors import UserError
from registry import DATASETS


def test_points_are_every_combination():
    assert tuning.points(["lr=1,2", "dropout=0,0.3"]) == [
        ("lr=1", "dropout=0"), ("lr=1", "dropout=0.3"), ("lr=2", "dropout=0"), ("lr=2", "dropout=0.3"),
    ]  # fmt: skip
    assert tuning.points(["layers=[0, 1],[2]"]) == [("layers=[0, 1]",), ("layers=[2]",)]


def test_a_budget_draws_the_same_points_again_and_fewer_are_among_more():
    def chosen(budget: int | None) -> list[tuple[str, ...]]:
        return tuning.Search("csp", ["lr=1,2,3", "dropout=0,0.1,0.2"], budget=budget).points

    every = chosen(None)
    assert len(every) == 9 and chosen(20) == every
    assert chosen(4) == chosen(4) and len(chosen(4)) == 4
    assert set(chosen(3)) < set(chosen(5)) < set(every)
    assert chosen(5) == [point for point in every if point in chosen(5)], "in the order of the grid"


ERRORS = {
    "no value": (["--grid", "lr"], "The option '--grid lr' is not understood."),
    "an empty value": (["--grid", "lr="], "The option '--grid lr=' is not understood."),
    "twice": (["--grid", "lr=1", "lr=2"], "The setting 'lr' is twice in the grid."),
    "no such setting": (["--grid", "lrr=1,2"], "Did you mean 'lr'"),
    "no such method": (["--grid", "lr=1", "--dataset", "icon_state"], "Did you mean 'icon_states'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path, case):
    words, message = ERRORS[case]
    done = here("tune", "csp", *words, "--results", tmp_path / "r", "--device", "cpu", check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "r").exists()


def test_the_best_on_validation_comes_first_and_a_second_start_runs_nothing(tmp_path):
    toy = make_toy(tmp_path / "toy", name="toy_tuning")
    if "toy_tuning" not in DATASETS.names():
        DATASETS.register("toy_tuning", title="toy icons")(lambda: toy)
    words = ["tune", "csp", "--grid", "lr=1e-2,0.0", "--seeds", "100", "--dataset", "toy_tuning", "--epochs", "2"]
    words += ["--results", tmp_path / "r", "--out", tmp_path / "log.md", "--device", "cpu"]
    shown = here(*words).stdout
    runs = find_runs(tmp_path / "r")[0]
    by_rate = {run.spec.training.lr: run.finished.metrics for run in runs}
    lines = (tmp_path / "log.md").read_text().splitlines()
    assert lines[0] == "# Tuning of csp on toy_tuning"
    first = lines[6].split("|")[1].strip()
    best = by_rate[float(first.removeprefix("lr="))].val.auc
    assert best == max(metrics.val.auc for metrics in by_rate.values()) and f"{100 * best:.2f}" in lines[6]
    same = "--methods csp --dataset toy_tuning --backbone tiny-icons --world closed --no-short --epochs 2"
    assert f"Best: python bench.py run {same} --set csp.{first}" in shown
    tests = {f"{100 * metrics.test.auc:.2f}" for metrics in by_rate.values()}
    vals = {f"{100 * metrics.val.auc:.2f}" for metrics in by_rate.values()}
    assert not [text for text in tests - vals if text in shown], "no test number is shown"
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").glob("*/result.json")}
    here(*words)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "r").glob("*/result.json")}


def test_without_unseen_validation_images_nothing_can_be_tuned(tmp_path):
    from made_results import metrics, result

    class Record:
        finished = result(test=metrics(auc=0.5))

    Record.finished = Record.finished.model_copy(
        update={
            "metrics": Record.finished.metrics.model_copy(
                update={"val": metrics(auc=float("nan"), undefined={"auc": "there are no unseen images"})}
            )
        }
    )
    with pytest.raises(UserError, match="The validation AUC is undefined: there are no unseen images"):
        tuning.mean_auc([Record()])


def test_settings_of_training_are_not_tuned_for_a_method_without_any(tmp_path):
    words = ["--grid", "lr=1e-3,3e-3", "--results", tmp_path / "r", "--device", "cpu"]
    done = here("tune", "clip_zero_shot", *words, check=False)
    assert done.returncode == 2
    assert "The setting 'lr' of clip_zero_shot cannot be tuned." in done.stderr
    assert "The method is not trained, so every value gives the same scores." in done.stderr
    assert not (tmp_path / "r").exists()
