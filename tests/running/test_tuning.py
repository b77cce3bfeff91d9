"""`tune`: every point of a grid, a budget of them, and validation alone."""

from __future__ import annotations

import shlex

import pytest
from in_process import here

from benchmarks.commands import tune
from benchmarks.running import tuning
from benchmarks.running.choices import Choices, How
from benchmarks.running.workbench import Workbench
from benchmarks.runs.locks import Held
from benchmarks.runs.records import find_runs
from benchmarks.training.stopping import Stopped
from errors import UserError
from registry import DATASETS


@pytest.fixture
def toy_tuning(toy) -> str:
    """The name of a toy data set in the registry."""
    if "toy_tuning" not in DATASETS.names():
        DATASETS.register("toy_tuning", title="toy icons")(lambda: toy)
    return "toy_tuning"


def test_points_are_every_combination():
    assert tuning.points(["lr=1,2", "dropout=0,0.3"], "csp") == [
        ("lr=1", "dropout=0"), ("lr=1", "dropout=0.3"), ("lr=2", "dropout=0"), ("lr=2", "dropout=0.3"),
    ]  # fmt: skip
    assert tuning.points(["layers=[0, 1],[2]"], "csp") == [("layers=[0, 1]",), ("layers=[2]",)]


@pytest.mark.parametrize("text", ["csp.lr=1,2,3", " lr =1,2,3", "csp . lr = 1, 2 ,3"])
def test_a_setting_has_one_name_however_it_is_written(text):
    assert tuning.points([text], "csp") == [("lr=1",), ("lr=2",), ("lr=3",)]
    with pytest.raises(UserError, match="The setting 'lr' is twice in the grid"):
        tuning.points(["lr=1", text], "csp")
    with pytest.raises(UserError, match=r"The setting 'lr' cannot be tuned\. The option --set gives it to all points"):
        tuning.check_settings(tuning.Search("csp", [text]), Choices(overrides=["csp.lr=5"]))
    with pytest.raises(UserError, match="The setting 'lr' of clip_zero_shot cannot be tuned"):
        tuning.check_settings(tuning.Search("clip_zero_shot", [text.replace("csp", "clip_zero_shot")]), Choices())


def test_a_budget_draws_the_same_points_however_a_setting_is_written():
    plain, *others = (
        tuning.Search("csp", [f"{name}1,2,3,4,5,6"], budget=2).points for name in ("lr=", " csp.lr =", "lr = ")
    )
    assert others == [plain] * 2


def test_a_seed_that_is_given_twice_counts_once():
    assert tune.Tried(["lr=1"], seeds=[100, 101, 100]).search("csp").seeds == (100, 101)


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
    "a blank value": (["--grid", "lr=1,,2"], "The option '--grid lr=1,,2' is not understood."),
    "a bracket without its end": (["--grid", "lr=[1,2"], "The option '--grid lr=[1,2' is not understood."),
    "a bracket without its begin": (["--grid", "lr=1],[2]"], "The option '--grid lr=1],[2]' is not understood."),
    "a value in two ways": (["--grid", "lr=1e-3,0.001"], "The points 'lr=1e-3' and 'lr=0.001' of the grid"),
    "no seed": (["--grid", "lr=1,2", "--seeds=-1"], "Input should be greater than or equal to 0"),
    "twice": (["--grid", "lr=1", "lr=2"], "The setting 'lr' is twice in the grid."),
    "twice, once with the method's name": (["--grid", "lr=1", "csp.lr=2"], "The setting 'lr' is twice in the grid."),
    "the method's name alone": (["--grid", "csp.=1"], "The option '--grid csp.=1' is not understood."),
    "of another method": (["--grid", "coop.lr=1,2"], "The setting 'coop.lr' in the grid is none of csp."),
    "a wrong name": (["--grid", "cps.lr=1,2"], "Did you mean 'csp'?"),
    "given to all": (["--grid", "lr=1,2", "--set", "lr=3"], "The option --set gives it to all points."),
    "epochs given to all": (["--grid", "epochs=1,2", "--epochs", "1"], "The option --epochs gives it to all points."),
    "nowhere to write": (
        ["--grid", "lr=1,2", "--out", f"{__file__}/log.md"],
        "is no folder. Choose another place for --out.",
    ),
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


def test_the_best_on_validation_comes_first_and_a_second_start_runs_nothing(tmp_path, toy_tuning):
    words = ["tune", "csp", "--grid", "csp.lr=1e-2,0.0", "--seeds", "100", "--dataset", toy_tuning, "--epochs", "2"]
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
    assert f"Best: python bench.py run {same} --device cpu --set csp.{first}" in shown
    tests = {f"{100 * metrics.test.auc:.2f}" for metrics in by_rate.values()}
    vals = {f"{100 * metrics.val.auc:.2f}" for metrics in by_rate.values()}
    assert not [text for text in tests - vals if text in shown], "no test number is shown"
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").glob("*/result.json")}
    here(*words)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "r").glob("*/result.json")}


def test_the_command_of_the_best_is_taken_and_names_what_the_points_had(tmp_path, toy_tuning, no_estimates):
    tried = tune.Tried(["csp.lr=1,2"], dataset=toy_tuning, set_=["dropout=0.1"], short=True, epochs=3, precision="fp32")
    (point, _) = tried.search("csp").points
    words = shlex.split(tried.command("csp", point, [], How()))
    done = here(*words[2:], "--dry-run", "--device", "cpu", "--results", tmp_path / "r")
    shown = " ".join(done.stdout.split())
    assert "lr=1 (command line)" in shown or "lr=1.0 (command line)" in shown
    assert "dropout=0.1 (command line)" in shown and "epochs=3 (command line)" in shown
    again = tried.command("csp", point, [], How(allow_missing=3, device="cuda:1"))
    assert "--device cuda:1 --allow-missing 3 --set" in again
    for option in ("--short", "--precision fp32", "--world closed", "--backbone tiny-icons"):
        assert option in " ".join(words)


def search_of(tmp_path, dataset: str, *grid: str) -> list:
    words = ["tune", "csp", "--grid", *grid, "--seeds", "100", "--dataset", dataset, "--epochs", "2", "--set"]
    return [*words, "csp.batch_size=12", "--results", tmp_path / "r", "--out", tmp_path / "log.md", "--device", "cpu"]


def test_a_point_that_diverges_is_a_row_and_the_others_go_on(tmp_path, toy_tuning, monkeypatch):
    words = search_of(tmp_path, toy_tuning, "lr=1e30,1e-2")
    done = here(*words)
    assert "1/2 lr=1e30: failed. The training loss of csp became" in done.stdout
    assert "2/2 lr=1e-2: val AUC" in done.stdout and "why it failed" in done.stdout
    assert "--set csp.batch_size=12 csp.lr=1e-2\n" in done.stdout, "the best"
    lines = (tmp_path / "log.md").read_text().splitlines()
    assert lines[6].startswith("| lr=1e-2 | ") and lines[7] == "| lr=1e30 | failed | – | – |"
    assert lines[11].startswith("- lr=1e30: The training loss of csp became")

    def trained(run, *rest, **more):
        assert run.status == "done", "the loss would diverge again"
        return execute(run, *rest, **more)

    execute = tuning.execute
    monkeypatch.setattr(tuning, "execute", trained)
    again = here(*words).stdout
    (note,) = [line for line in again.splitlines() if line.startswith("Not trained again")]
    assert next(run.run_id for run in find_runs(tmp_path / "r")[0] if run.error) in note
    assert again.index("Not trained again") < again.index("2 points x 1 seed,") < again.index("1/2 lr=1e30: failed.")
    assert (tmp_path / "log.md").read_text().splitlines() == lines


def test_where_every_point_fails_the_reasons_are_shown_and_the_command_fails(tmp_path, toy_tuning):
    done = here(*search_of(tmp_path, toy_tuning, "lr=1e30,1e31"), check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "No point of the grid could be trained, of 2 points." in done.stderr
    assert "Best:" not in done.stdout and done.stdout.count(": failed. The training loss") == 2
    assert (tmp_path / "log.md").read_text().count("| failed |") == 2


@pytest.mark.parametrize("error", [UserError("The disk is full."), RuntimeError("no\nmemory")])
def test_a_point_that_fails_in_another_way_is_tried_again(tmp_path, toy_tuning, monkeypatch, error):
    words, execute, tried = search_of(tmp_path, toy_tuning, "lr=1e-3,1e-2"), tuning.execute, []

    def fails(run, *rest, **more):
        tried.append(run.spec.training.lr)
        if run.spec.training.lr == 1e-3:
            raise error
        return execute(run, *rest, **more)

    monkeypatch.setattr(tuning, "execute", fails)
    for _ in range(2):
        assert {"The disk is full.": "failed. The disk is full."}.get(
            str(error), "failed. RuntimeError: no memory"
        ) in here(*words).stdout
    assert tried == [1e-3, 1e-2] * 2


@pytest.mark.parametrize("error", [Held("a run", None), Stopped(2), KeyboardInterrupt()])
def test_what_is_no_failure_of_a_point_ends_the_search(tmp_path, toy_tuning, monkeypatch, error):
    def ends(*given, **more):
        raise error

    search = tuning.Search("csp", ["lr=1e-3,1e-2"], toy_tuning, seeds=(100,))
    workbench = Workbench(Choices(results=tmp_path / "r", epochs=0, how=How(device="cpu")))
    planned = tuning.plan_search(search, workbench)
    monkeypatch.setattr(tuning, "execute", ends)
    with pytest.raises(type(error)):
        tuning.run_search(planned, workbench)


def test_notes_of_the_plan_are_told_before_anything_is_trained(tmp_path, toy_tuning, monkeypatch):
    plan = tuning.plan_search

    def noted(search, workbench):
        workbench.notes += ["Something to know.", "Something to know."]
        return plan(search, workbench)

    def trains(*given, **more):
        raise Stopped(2)

    monkeypatch.setattr(tuning, "plan_search", noted)
    monkeypatch.setattr(tuning, "execute", trains)
    done = here(*search_of(tmp_path, toy_tuning, "lr=1e-3,1e-2"), check=False)
    assert done.returncode == 130
    assert done.stdout.count("Something to know.") == 1


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
