"""compare, predict and status on finished runs of the toy data set."""

from __future__ import annotations

import csv
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import raising_decoder
import torch
from in_process import here
from PIL import Image
from toy_world import make_toy
from typer.testing import CliRunner

from benchmarks.commands.app import app
from benchmarks.commands.argv import spread_lists
from benchmarks.launchers.states import state_of, states
from benchmarks.report import comparison, named_runs, prediction, prediction_figure
from benchmarks.report.scored_runs import scored_run, validation_bias
from benchmarks.running.choices import Choices, How
from benchmarks.running.execute import execute
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.records import RunFolder, find_runs
from benchmarks.runs.suites import RunRequest
from benchmarks.significance import Resampling
from benchmarks.significance.paired import predictions, right_at_own_bias
from datasets.own.walking import images_below
from errors import UserError
from registry import DATASETS

NONE = dict.fromkeys(named_runs.CONDITIONS)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of CSP (two seeds, and one in the open world) and CLIP zero-shot on a toy data set of a name of its own."""
    folder = tmp_path_factory.mktemp("evidence")
    toy = make_toy(folder / "toy")
    if "toy_evidence" not in DATASETS.names():
        DATASETS.register("toy_evidence", title="toy icons")(lambda: toy)
    root = folder / "results"
    workbench = Workbench(Choices(results=root, epochs=1, how=How(device="cpu")))
    requests = [
        RunRequest(method, "toy_evidence", "tiny-icons", world, "clean", seed)
        for method, world, seed in (
            ("csp", "closed", 0),
            ("csp", "closed", 1),
            ("csp", "open", 0),
            ("clip_zero_shot", "closed", 0),
        )
    ]
    for planned in plan_runs(requests, workbench):
        execute(planned, workbench)
    return root


def run_of(results: Path, start: str):
    return next(run for run in find_runs(results)[0] if run.run_id.startswith(start))


def invoke(*arguments: object) -> str:
    found = CliRunner().invoke(app, spread_lists([str(word) for word in arguments]))
    assert found.exit_code == 0, found.output
    return found.output


# predict --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["csp-toy-tiny-icons-closed", "csp-toy-tiny-icons-open"])
def test_predictions_are_those_of_the_record(results, start):
    run, toy = run_of(results, start), DATASETS.get("toy_evidence")()
    files = [toy.image_path("test", row) for row in range(len(toy.splits["test"]))]
    found = prediction.predict(run, files, top=2)
    record = scored_run(run)
    expected = predictions(record.scores, validation_bias(run))
    names = prediction.candidates_of(run)[0].names()
    assert [(one.guesses[0].state, one.guesses[0].object) for one in found] == [names[column] for column in expected]
    bare = prediction.predict(run, files, bias="none", top=1)
    best = np.maximum(record.scores.best_seen, record.scores.best_unseen)
    np.testing.assert_allclose([one.guesses[0].score for one in bare], best, atol=1e-5)
    for one in found:
        assert one.guesses[0].score >= one.guesses[1].score
        assert 0 < sum(guess.probability for guess in one.guesses) <= 1


def test_probabilities_of_all_candidates_sum_to_one_and_a_bias_moves_unseen_pairs_alone(results):
    run, toy = run_of(results, "csp-toy-tiny-icons-closed"), DATASETS.get("toy_evidence")()
    plain, moved = (
        prediction.predict(run, [toy.image_path("test", 0)], bias=bias, top=999)[0].guesses for bias in ("none", "3.5")
    )
    assert sum(guess.probability for guess in plain) == pytest.approx(1)
    before = {(guess.state, guess.object): guess for guess in plain}
    for guess in moved:
        shift = guess.score - before[guess.state, guess.object].score
        assert shift == pytest.approx(0.0 if guess.seen else 3.5)


def test_what_stands_in_the_way_is_said_before_anything_is_scored(results, tmp_path):
    run = run_of(results, "csp-toy-tiny-icons-closed")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"2 of the 2 images cannot be read.*no such file"):
        prediction.predict(run, [broken, tmp_path / "missing.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="There is no image"):
        prediction.predict(run, [tmp_path / "empty"])
    with pytest.raises(UserError, match="'much' is no bias"):
        prediction.predict(run, [broken], bias="much")
    with pytest.raises(UserError, match="'csp' names 3 runs"):
        named_runs.find_run(results, "csp")
    with pytest.raises(UserError, match="names no run"):
        named_runs.find_run(results, "csq")
    assert named_runs.find_run(results, str(run.path)).run_id == named_runs.find_run(results, run.run_id).run_id


def test_predict_holds_one_picture_at_its_full_size_and_names_all_that_are_unreadable_together(tmp_path):
    seen: list[weakref.ref[Image.Image]] = []
    most = scored = 0

    def transform(picture: Image.Image) -> torch.Tensor:
        nonlocal most
        seen.append(weakref.ref(picture))
        most = max(most, sum(one() is not None for one in seen))
        return torch.zeros(3, 2, 2)

    files = [tmp_path / f"{number}.png" for number in range(prediction.BATCH * 2 + 3)]
    for file in files:
        Image.new("RGB", (5, 5)).save(file)
    sizes = []
    for views in prediction.image_views(files, transform):
        sizes.append(len(views))
    assert sizes == [prediction.BATCH, prediction.BATCH, 3]
    assert most <= 2, "the one before is let go when the next is read"
    with raising_decoder.registered():
        raising_decoder.write(files[40], "RuntimeError")
        raising_decoder.write(files[-1], "struct.error")
        files[50].unlink()
        with pytest.raises(UserError, match="3 of the 67 images cannot be read") as caught:
            for views in prediction.image_views(files, transform):
                scored += len(views)
    for file in (files[40], files[50], files[-1]):
        assert str(file) in str(caught.value)
    assert scored == prediction.BATCH, "nothing after the first that cannot be read"


def test_a_sideways_photograph_and_deep_grey_are_predicted_and_drawn_as_they_are_seen(results, tmp_path):
    run, toy = run_of(results, "csp-toy-tiny-icons-closed"), DATASETS.get("toy_evidence")()
    upright = toy.load_image("test", 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "a.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    grey = np.asarray(upright.convert("L"))
    Image.fromarray(grey).save(tmp_path / "c.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "d.png")
    a, b, c, d = prediction.predict(run, [tmp_path / f"{name}.png" for name in "abcd"])
    assert a.guesses == b.guesses
    assert c.guesses == d.guesses
    prediction_figure.draw([b, d], tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 1000


def test_whatever_a_decoder_raises_is_a_sentence_of_predict(results, tmp_path):
    run = run_of(results, "csp-toy-tiny-icons-closed")
    with raising_decoder.registered():
        file = raising_decoder.write(tmp_path / "a.raises", "KeyError")
        with pytest.raises(UserError, match=r"1 of the 1 images cannot be read.*a\.raises \(KeyError: 'odd bytes'\)"):
            prediction.predict(run, [tmp_path])
        Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
        (found,) = prediction.predict(run, [tmp_path / "b.png"])
        file.rename(tmp_path / "b.png")
        with pytest.raises(UserError, match=r"b\.png cannot be drawn"):
            prediction_figure.draw([found], tmp_path / "drawn.png")


def test_the_command_predicts_into_a_table_json_and_a_picture(results, tmp_path):
    toy = DATASETS.get("toy_evidence")()
    run = run_of(results, "csp-toy-tiny-icons-open")
    words = ("predict", toy.image_path("test", 0).parent, "--run", run.path, "--top", 2, "--device", "cpu")
    shown = invoke(*words, "--picture", tmp_path / "seen.png")
    assert "probability" in shown and run.run_id in shown.replace("\n", "")
    assert (tmp_path / "seen.png").stat().st_size > 1000
    found = json.loads(invoke(*words, "--json"))
    assert all(len(one["pairs"]) == 2 for one in found)


def test_predictions_leave_out_what_own_data_leave_out(results, tmp_path):
    toy = DATASETS.get("toy_evidence")()
    run = run_of(results, "csp-toy-tiny-icons-open")
    photo = toy.load_image("test", 0)
    photos = tmp_path / "photos"
    for name in ("wet cat/1.png", "wet cat/deeper/2.png", "wet dog/3.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        photo.save(photos / name)
    clean = prediction.image_files([photos])
    for name in ("wet cat/@eaDir/1.png/THUMB.png", "__MACOSX/1.png", ".thumbnails/1.png", "#recycle/1.png"):
        (photos / name).parent.mkdir(parents=True)
        photo.save(photos / name)
    for name in ("wet cat/._1.png", "wet cat/Thumbs.db", "desktop.ini", "read me.txt"):
        (photos / name).write_bytes(b"no image")
    (photos / "wet cat/loop").symlink_to("..")
    said = []
    assert prediction.image_files([photos], said.append) == clean == sorted(images_below(photos).images)
    assert [f"{photos}: {sentence}" for sentence in images_below(photos).sentences()] == said
    assert [text.split(":", 1)[1].split("(")[0].strip() for text in said] == [
        "Left out, because systems or storage left them there: 7",
        "Left out, because they are no images: 1",
        "Left out, because these links lead back to a folder that holds the data: 1",
    ]
    shown = invoke("predict", photos, "--run", run.path, "--json", "--device", "cpu")
    assert len(json.loads(shown[shown.index("[\n") :])) == 3
    (tmp_path / "only").mkdir()
    (tmp_path / "only/._1.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no image in .*Left out, because .*1 x \._\*"):
        prediction.image_files([tmp_path / "only"])


# compare --------------------------------------------------------------------------------------------------------------


def test_a_comparison_of_methods_counts_the_images_that_flip(results, tmp_path):
    sides = [named_runs.side(results, name, NONE | {"world": "closed"}) for name in ("csp", "clip_zero_shot")]
    (found,) = comparison.face_offs(*sides, Resampling(200))
    assert (found.a, found.b) == ("csp", "clip_zero_shot")
    ours = [scored_run(run) for run in sides[0].runs]
    (theirs,) = (scored_run(run) for run in sides[1].runs)
    ours = [run for run in ours if run.seed == theirs.seed]
    only_a = right_at_own_bias(ours[0]) & ~right_at_own_bias(theirs)
    only_b = right_at_own_bias(theirs) & ~right_at_own_bias(ours[0])
    assert (sum(flip.by_a for flip in found.flips), sum(flip.by_b for flip in found.flips)) == (
        only_a.sum(),
        only_b.sum(),
    )
    toy = DATASETS.get("toy_evidence")()
    assert {flip.image for flip in found.flips} == {
        toy.splits["test"].images[row] for row in np.flatnonzero(only_a | only_b)
    }
    for flip in found.flips:
        assert (flip.a == flip.truth) == bool(flip.by_a)
        assert (flip.b == flip.truth) == bool(flip.by_b)
    comparison.write_flips([found], tmp_path / "flips.csv")
    with (tmp_path / "flips.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found.flips)


def test_runs_of_other_conditions_are_noted_or_refused(results):
    one = [
        named_runs.side(results, run_of(results, f"csp-toy-tiny-icons-{w}").run_id, NONE) for w in ("closed", "open")
    ]
    with pytest.raises(UserError, match="world differs"):
        comparison.face_offs(*one, Resampling(100))
    closed = named_runs.side(results, "csp", NONE | {"world": "closed"})
    with pytest.raises(UserError, match="are the same runs"):
        comparison.face_offs(closed, closed, Resampling())
    with pytest.raises(UserError, match="'csp' has no finished run with profile official"):
        named_runs.side(results, "csp", NONE | {"profile": "official"})
    opened = named_runs.side(results, "csp", NONE | {"world": "open"})
    with pytest.raises(UserError, match="No runs of csp and clip_zero_shot belong together"):
        comparison.face_offs(
            named_runs.Side("csp", closed.runs + opened.runs),
            named_runs.Side("clip_zero_shot", opened.runs[:0] or _other_profile(results)),
            Resampling(),
        )


def test_data_sets_of_one_name_are_compared_each_with_itself(results):
    csp, zero_shot = (named_runs.side(results, name, NONE | {"world": "closed"}) for name in ("csp", "clip_zero_shot"))

    def other_data(one: named_runs.Side) -> named_runs.Side:
        specs = [(run, run.spec.model_copy(update={"dataset_digest": "f" * 64})) for run in one.runs]
        return named_runs.Side(
            one.label, (*one.runs, *(type(run)(**(vars(run) | {"spec": spec})) for run, spec in specs))
        )

    found = comparison.face_offs(other_data(csp), other_data(zero_shot), Resampling(50))
    own = csp.runs[0].spec.dataset_digest[:8]
    said = [one.notes[0] for one in found]
    assert len(found) == 2 and f"(data {own})" in said[0] and "(data ffffffff)" in said[1]
    (alone,) = comparison.face_offs(csp, zero_shot, Resampling(50))
    assert not any("data" in note for note in alone.notes)


def test_runs_of_one_method_with_several_settings_are_not_mixed(results):
    csp, zero_shot = (named_runs.side(results, name, NONE | {"world": "closed"}) for name in ("csp", "clip_zero_shot"))
    (expected,) = comparison.face_offs(csp, zero_shot, Resampling(100))

    def other(run, origin: str):
        spec = run.spec.model_copy(update={"training": run.spec.training.model_copy(update={"lr": 0.5})})
        return type(run)(**(vars(run) | {"spec": spec, "provenance": {"lr": {"origin": origin}}}))

    # The results of this folder were made with --epochs, so one of the two kinds is made to come from presets alone.
    own = [type(run)(**(vars(run) | {"provenance": {}})) for run in csp.runs]
    several = [*own, other(csp.runs[0], "command line")]
    (found,) = comparison.face_offs(named_runs.Side("csp", tuple(several)), zero_shot, Resampling(100))
    assert found.comparison.methods["csp"].statistics["auc"].value == (
        expected.comparison.methods["csp"].statistics["auc"].value
    )
    assert found.notes[0].startswith("Left out of csp: 1 run with settings that no preset has")
    unclear = named_runs.Side("csp", (*own, other(csp.runs[0], "preset")))
    with pytest.raises(UserError, match="The runs of csp have 2 different settings, and which are meant is not clear"):
        comparison.face_offs(unclear, zero_shot, Resampling())


def _other_profile(results: Path):
    run = run_of(results, "clip_zero_shot")
    changed = run.spec.model_copy(update={"profile": "official"})
    return (type(run)(**(vars(run) | {"spec": changed})),)


def test_two_folders_are_compared_method_by_method(results):
    a, b = named_runs.side(results, str(results), NONE | {"world": "closed"}), named_runs.side(results, "csp", NONE)
    copied = named_runs.Side("copy", tuple(run for run in a.runs if run.spec.seed == 0))
    found = comparison.face_offs(a, copied, Resampling(100))
    assert {one.a.split(",")[0] for one in found} == {"csp", "clip_zero_shot"}
    assert all(not one.flips for one in found if one.a.startswith("clip_zero_shot")), "the same run flips nothing"
    assert b.label == "csp"


def test_the_command_compares_in_a_table_and_in_json(results):
    words = ("compare", "csp", "clip_zero_shot", "--world", "closed", "--resamples", 200, "--results", results)
    shown = invoke(*words)
    assert "A csp, B clip_zero_shot" in shown and "McNemar" in shown
    (found,) = json.loads(invoke(*words, "--json"))
    assert found["statistics"]["auc"]["difference"] == pytest.approx(
        found["statistics"]["auc"]["a"] - found["statistics"]["auc"]["b"]
    )


@pytest.mark.parametrize("words", [["--world", "opne"], ["--profile", "clena"]])
def test_a_condition_that_there_is_not_is_refused_and_not_looked_for(results, words):
    done = here("compare", "csp", "clip_zero_shot", *words, "--results", results, check=False)
    assert done.returncode == 2
    assert words[1] in done.stderr and "Finish it" not in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", ["compare", "predict"])
def test_a_file_that_cannot_be_written_takes_nothing_of_what_was_found(results, tmp_path, command, as_json):
    image = DATASETS.get("toy_evidence")().image_path("test", 0)
    run = run_of(results, "csp-toy-tiny-icons-closed").path
    words = {
        "compare": ["csp", "clip_zero_shot", "--world", "closed", "--resamples", 200, "--flips"],
        "predict": [image, "--run", run, "--device", "cpu", "--picture"],
    }[command]
    place = ["--results", results, *(["--json"] if as_json else [])]
    done = here(command, *words, tmp_path / "no folder/file.csv", *place, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr
    if as_json:
        assert len(json.loads(done.stdout)) == 1
    else:
        assert {"compare": "McNemar", "predict": "probability"}[command] in done.stdout
    done = here(command, *words, tmp_path / "file.svg", *place)
    assert (tmp_path / "file.svg").is_file()
    assert (str(tmp_path / "file.svg") in done.stdout) is not as_json


# status ---------------------------------------------------------------------------------------------------------------


def test_states_of_records_and_of_what_is_planned(results, tmp_path):
    assert {one.state for one in states(results)} == {"done"}
    spec = run_of(results, "csp-toy-tiny-icons-closed").spec
    assert state_of(spec, tmp_path / "nothing").state == "planned"
    folder = RunFolder(tmp_path / spec.run_id)
    folder.start(spec, provenance={}, command_line=[], environment={})
    assert state_of(spec, folder.path).state == "dead"
    from benchmarks.runs import locks

    with locks.hold(folder.path):
        found = state_of(spec, folder.path)
        assert (found.state, found.note[:2]) == ("running", "by")
    folder.fail(ValueError("out of luck"))
    found = state_of(spec, folder.path)
    assert (found.state, "out of luck" in found.note) == ("failed", True)


def test_the_command_shows_states(results):
    shown = invoke("status", "--results", results)
    assert "4 runs: 4 done" in shown
    words = ("status", "--methods", "csp", "--dataset", "toy_evidence", "--seeds", 0, 7, "--epochs", 1)
    found = json.loads(invoke(*words, "--results", results, "--json"))
    assert [one["state"] for one in found] == ["done", "planned"]
