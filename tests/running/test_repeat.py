"""The command that a report prints for a run, done: it finds that very run, and nothing is left to do."""

from __future__ import annotations

import json
import random
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from in_process import here
from made_reports import record
from own_photos import OBJECTS, STATES, photos
from test_bench import PLUGIN, ROOT

from benchmarks.commands.console import out
from benchmarks.launchers.job import read_job
from benchmarks.report.packing import packed
from benchmarks.report.reproduce import commands, unrepeatable
from benchmarks.runs.asked import Asked
from benchmarks.runs.open_world_settings import OpenWorld
from benchmarks.runs.overrides import parse_value, setting_text
from benchmarks.runs.places import unknown_places
from benchmarks.runs.records import SPEC, find_runs
from datasets.base import Split
from errors import UserError
from registry import DATASETS

QUICK = ["--methods", "clip_zero_shot"]
CSP = ["--methods", "csp", "--epochs", "1"]
METHOD = """
from methods.clip_zero_shot import CLIPZeroShot
from registry import METHODS


@METHODS.register("my_method")
class Mine(CLIPZeroShot):
    pass
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that commands are given in, and another one for the repetition."""
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    monkeypatch.setattr(out, "_width", 400)
    return there


def vectors(path: Path) -> Path:
    draw = random.Random(0)
    path.write_text(
        "\n".join(f"{w} " + " ".join(f"{draw.gauss(0, 1):.3f}" for _ in range(5)) for w in STATES + OBJECTS)
    )
    return path


def feasibility_table(path: Path) -> Path:
    draw = random.Random(1)
    lines = [f"{state},{thing},{draw.random():.3f}" for state in STATES for thing in OBJECTS]
    path.write_text("\n".join(["state,object,score", *lines]))
    return path


def repeated(place: Path, *arguments: object) -> list[str]:
    """Do a command, and then from another folder what a report would print for each of its runs; return that."""
    results = place / "results"
    here("run", *arguments, "--results", results)
    runs, problems = find_runs(results)
    assert runs and not problems and not unrepeatable(runs)
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    shown = []
    for run in runs:
        (command,) = commands([run])
        shell = subprocess.run(["sh", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
        words = shell.decode().split("\0")[:-1]
        assert words == shlex.split(command) and words[:3] == ["python", "bench.py", "run"]
        done = here(*words[2:], "--dry-run", "--results", results, cwd=elsewhere).stdout
        (line,) = [line for line in done.splitlines() if run.run_id in line and "│" in line]
        assert line.replace("│", " ").split() == [run.run_id, "done", "nothing"], done
        shown.append(command)
    return shown


@pytest.mark.parametrize("name", ["photos", 'it\'s "mine" $HOME `x`', "-фото", "a=b, [c] *", "icons.csv"])
def test_own_folders_are_named_by_their_path(place, name):
    photos(place / name)
    (command,) = repeated(place, *QUICK, "--dataset", name)
    assert shlex.split(command)[6] == str(place / name)


def test_csv_files_and_drawn_splits_are_named(place):
    photos(place / "photos")
    lines = [f"photos/{s} {o}/{n}.png,{s},{o}" for s in STATES for o in OBJECTS for n in range(3)]
    (place / "my list.csv").write_text("\n".join(["path,state,object", *lines]))
    (command,) = repeated(place, *QUICK, "--dataset", "my list.csv")
    assert shlex.split(command)[6] == str(place / "my list.csv")


SETTINGS = {
    "epochs and views": [*CSP, "--views", "2"],
    "numbers, null and a word that is null elsewhere": [
        *CSP,
        *("--set", "lr=1e-3", "clip_norm=1", "micro_batch=none", "augmentation=none", "csp.dropout=0"),
    ],
    "an ablation's setting": [*CSP, "--ablations", "no_dropout"],
    "the official profile": [*CSP, "--profile", "official"],
    "every pair kept": [*QUICK, "--world", "open", "--set", "feasibility=none"],
    "a source by its kind": [*QUICK, "--world", "open", "--set", "feasibility=clip", "threshold=-1"],
    "word vectors": [*QUICK, "--world", "open", "--set", "feasibility=glove:my vectors.txt", "selection_world=closed"],
    "a table of feasibility": [*QUICK, "--world", "open", "--set", "feasibility=table:my table.csv"],
    "a settings file": [*CSP, "--config", "my.toml"],
    "a precision": [*QUICK, "--precision", "bf16"],
    "several seeds": [*QUICK, "--seeds", "1", "2"],
}


@pytest.mark.parametrize("arguments", SETTINGS.values(), ids=SETTINGS)
def test_settings_are_named_where_no_preset_gives_them(place, arguments):
    photos(place / "photos")
    vectors(place / "my vectors.txt")
    feasibility_table(place / "my table.csv")
    (place / "my.toml").write_text("lr = 2e-3\nweight_decay = 0\n[csp]\ninit = 'words'\ndropout = 0.25\n")
    repeated(place, *arguments, "--dataset", "photos")


def test_plugins_are_named_with_their_files(place):
    text = PLUGIN.format(tests=str(ROOT / "tests"), folder=str(place / "toy"), images=2)
    (place / "my data.py").write_text(text)
    (place / "method.py").write_text(METHOD)
    (command,) = repeated(
        place, "--methods", "my_method", "--dataset", "toy", "--plugin", "my data.py", "--plugin", "method.py"
    )
    assert f"--plugin '{place}/my data.py' {place}/method.py" in command


def test_left_out_images_are_allowed_again(place):
    photos(place / "photos", images=5)
    (place / "photos/dry cat/1.png").write_bytes(b"no picture")
    (command,) = repeated(place, *QUICK, "--dataset", "photos", "--allow-missing", "4")
    assert "--allow-missing 1" in command


def test_a_weights_file_is_named_by_its_path(place, monkeypatch):
    from methods.backbone import loading

    (place / "ViT-B-32").mkdir()
    for name in ("my weights.pt", "openai", "random"):
        (place / name).write_bytes(b"")
    assert loading.weights_file("ViT-B-32/my weights.pt") == Path("my weights.pt")
    for name in ("ViT-B-32/openai", "ViT-B-32/random", "ViT-B-32/absent.pt", "ViT-B-32", "tiny-icons"):
        assert loading.weights_file(name) is None, "a tag wins over a file of its name"


def asked(**places):
    """A record that was asked for these places."""
    changes = places.pop("spec", {})
    run = record(method="csp", **changes)
    start = {
        **run.starts[-1],
        "asked": Asked(**({"dataset": "icon_states", "backbone": "tiny-icons"} | places)).model_dump(),
    }
    return run.__class__(**{**vars(run), "starts": [start]})


def test_processes_and_weights_of_a_record_are_named():
    run = asked(backbone="ViT-B-32//a b/w.pt", spec={"backbone": "ViT-B-32/w.pt"})
    start = {**run.starts[0], "environment": {**run.environment, "processes": 2}}
    (command,) = commands([run.__class__(**{**vars(run), "starts": [start]})])
    assert "--backbone 'ViT-B-32//a b/w.pt'" in command and "--devices 2" in command


GLOVE = OpenWorld(feasibility="glove", feasibility_digest="f" * 64, threshold=0.4)
TABLE = GLOVE.model_copy(update={"feasibility": "table"})
OLDER = {
    "--dataset <their folder or CSV file>": {"dataset": "folder:photos"},
    "--backbone ViT-B-32/<path of the weights file>": {"backbone": "ViT-B-32/w.pt"},
    "--set feasibility=glove:<file>": {"world": "open", "open_world": GLOVE},
    "--set feasibility=table:<file>": {
        "world": "open",
        "open_world": GLOVE.model_copy(update={"feasibility": "table"}),
    },
    "--plugin <that file>": {"dataset": "of_a_plugin"},
}


@pytest.mark.parametrize(("option", "changes"), OLDER.items())
def test_of_an_older_record_it_is_said_what_to_pass(option, changes, tmp_path):
    run = record(**changes)
    assert commands([run]) == []
    (sentence,) = unrepeatable([run])
    assert sentence.startswith("No command can be given") and f"Pass {option} to: python bench.py run" in sentence
    assert [option] == [said for _, said in unknown_places(run)]
    assert option.split()[0] not in sentence.partition(" to: ")[2] or "--set" in option
    content = {"schema_version": 1, "digest": run.spec.digest(), "spec": run.spec.model_dump(mode="json")}
    (tmp_path / "old.json").write_text(json.dumps(content | {"provenance": {}, "starts": list(run.starts)}))
    with pytest.raises(UserError, match="does not say where"):
        read_job(tmp_path / "old.json")


def test_a_record_is_done_again_from_its_own_file(place):
    photos(place / "photos")
    vectors(place / "v.txt")
    setting = ["--world", "open", "--set", "feasibility=glove:v.txt"]
    here("run", *QUICK, "--dataset", "photos", *setting, "--results", "results")
    (run,), _ = find_runs(place / "results")
    (place / "elsewhere").mkdir()
    done = here("run", "--spec", run.path.resolve() / SPEC, "--dry-run", cwd=place / "elsewhere").stdout
    assert "nothing" in done and run.run_id in done


def test_places_are_no_part_of_the_identity_and_of_no_committed_record(place, monkeypatch):
    photos(place / "photos")
    (place / "photos").rename(place / "other")
    (place / "photos").symlink_to(place / "other")
    for name in ("photos", "other"):
        here("run", *QUICK, "--dataset", name, "--results", place / name / ".." / f"results {name}")
    digests = {find_runs(path)[0][0].spec.digest() for path in place.parent.rglob("results *") if path.is_dir()}
    assert len(digests) == 2  # the name of the folder is the data set's; nothing else differs
    icons = DATASETS.get("icon_states")()
    few = {
        phase: Split(phase, split.images[::50], split.states[::50], split.objects[::50])
        for phase, split in icons.splits.items()
    }
    monkeypatch.setattr(DATASETS._loaded("icon_states"), "target", lambda: replace(icons, splits=few))
    here("run", *QUICK, "--results", place / "icons")
    (run,), _ = find_runs(place / "icons")
    assert run.asked == Asked(dataset="icon_states", backbone="tiny-icons")
    assert (
        b"asked" not in packed(run).texts[SPEC] and run.spec.digest() == json.loads(packed(run).texts[SPEC])["digest"]
    )


VALUES = [1, 1.0, 1e-7, True, None, "none", "true", "3", " x", "a,b", "[a]", ["state", "object"], [-1, 2], ["a,b"], ""]
VALUES += [[True, None], ["1"], "x y", "it's", {"a": 1}, "glove:/a b", "Ä", [[1, 2], [3]]]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_setting_is_written_as_it_is_read(value):
    assert json.dumps(parse_value(setting_text(value))) == json.dumps(value)
