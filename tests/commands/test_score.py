"""`score`: scores of a network that was trained elsewhere stand beside runs; what does not fit is one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import here
from PIL import Image
from report_records import make_run
from toy_world import make_toy

from benchmarks.evaluation.curve import exact_curve
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.legacy import legacy_from_image_scores, official_feasibility_mask
from benchmarks.evaluation.metrics import evaluate
from benchmarks.evaluation.scoring import chunk_scores, evaluation_mode
from benchmarks.evaluation.thresholds import kept
from benchmarks.evaluation.topk import exact_topk_curve
from benchmarks.report import published
from benchmarks.report.captions import caption
from benchmarks.report.finished import load_method
from benchmarks.report.groups import group_of, groups
from benchmarks.report.published import comparable, published_table
from benchmarks.report.reproduce import reproduce
from benchmarks.runs import files
from benchmarks.runs.records import find_runs
from benchmarks.runs.spec import External, RunSpec, TrainingConfig
from datasets.base import CompositionDataset, Phase
from datasets.labels import every_pair, labelled
from datasets.metadata import SPLIT, STEM
from datasets.miniature import make
from datasets.transforms import build_transform
from methods.base import Batch, Method
from registry import DATASETS

IMAGES = {"train": 2, "val": 3, "test": 3}


class World:
    """A miniature of MIT-States without pictures, and scores of its images in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make("mit_states", folder, pictures=False, images=IMAGES)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CZSL_DATA", str(folder))
            self.dataset: CompositionDataset = labelled("mit_states")
        rng = np.random.default_rng(0)
        self.matrices = {}
        for phase in ("val", "test"):
            split, pairs = self.dataset.splits[phase], every_pair(self.dataset)
            names = self.dataset.vocabulary
            place = {pair: column for column, pair in enumerate(pairs)}
            true = [place[names.states[s], names.objects[o]] for s, o in zip(split.states, split.objects, strict=True)]
            matrix = rng.normal(20, 2, size=(len(split), len(pairs))).astype(np.float32)
            matrix[np.arange(len(split)), true] += 3
            self.matrices[phase] = matrix
            np.save(self.path(phase), matrix)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def score(self, *arguments: object, check: bool = True, results: Path, **replaced: object):
        given = {"--test": self.path("test"), "--dataset": "mit_states", "--name": "mine"}
        given |= {f"--{name.replace('_', '-')}": value for name, value in replaced.items()}
        words = [word for pair in given.items() for word in pair]
        environment = {"CZSL_DATA": str(self.folder)}
        return here("score", *words, *arguments, "--results", results, check=check, env=environment)

    def candidates(self, phase: str) -> list[int]:
        """Columns of the released order that are candidates of a phase, in our order."""
        place = {pair: column for column, pair in enumerate(every_pair(self.dataset))}
        return [place[pair] for pair in self.dataset.candidates(phase).names()]

    def plain(self, phase: str) -> tuple[ImageScores, Labels]:
        candidates, split = self.dataset.candidates(phase), self.dataset.splits[phase]
        true = candidates.index_of(split.states, split.objects)
        matrix = self.matrices[phase][:, self.candidates(phase)]
        labels = Labels(candidates.states, candidates.objects, split.states, split.objects)
        return ImageScores.from_matrix(matrix, candidates.seen, true), labels


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("scores"))


@pytest.fixture(scope="module")
def recorded(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of one method with two seeds and of one without validation scores."""
    results = tmp_path_factory.mktemp("results")
    stated = ("--backbone-name", "ViT-L-14-quickgelu/openai", "--paper", "CSP")
    world.score(*stated, val=world.path("val"), results=results)
    worse = world.folder / "worse.npy"
    np.save(worse, world.matrices["test"] + np.random.default_rng(1).normal(0, 2, world.matrices["test"].shape))
    world.score(*stated, test=worse, val=world.path("val"), seed=1, results=results)
    world.score(*stated[:2], name="without", results=results)
    return results


def runs_of(results: Path, method: str = "external:mine"):
    return [run for run in find_runs(results)[0] if run.spec.method == method]


def test_the_numbers_are_those_of_evaluate_in_memory(world, recorded):
    run = next(run for run in runs_of(recorded) if run.spec.seed == 0)
    val = evaluate(*world.plain("val"))
    assert str(run.finished.metrics.val) == str(val)
    assert str(run.finished.metrics.test) == str(evaluate(*world.plain("test"), bias=val.best_hm_bias))
    assert run.finished.selection.bias == val.best_hm_bias
    assert run.finished.cost.trained_parameters is None
    assert run.spec.settings == {}, "no settings are claimed"
    assert run.spec.method_config == {} and run.finished.selection.policy == "not known"
    assert {slices.tag for slices in run.finished.slices} == set(world.dataset.splits["test"].slices)


def test_without_validation_there_is_no_bias_and_the_reason_is_said(world, recorded):
    (run,) = runs_of(recorded, "external:without")
    assert run.finished.metrics.val is None
    assert run.finished.metrics.test.undefined["at_bias.hm"] == (
        "no bias was chosen, because no validation scores were given"
    )
    again = world.score(name="without", backbone_name="ViT-L-14-quickgelu/openai", results=recorded)
    assert "–: no bias was chosen, because no validation scores were given." in again.stdout
    assert len(runs_of(recorded, "external:without")) == 1


def test_records_of_files_stand_in_report_compare_status_and_list(recorded, svg_alone):
    page = here("report", "--results", recorded, "--resamples", "100").stdout
    for text in ("external:mine", "external:without", "came from a file: the backbone is what was stated"):
        assert text in page
    assert not (recorded / "report-errors.txt").exists(), (recorded / "report-errors.txt").read_text()
    html = (recorded / "report.html").read_text()
    assert "bench.py score --test test.npy --val val.npy --dataset mit_states --name mine" in html
    found = here("compare", "external:mine", "external:without", "--results", recorded, "--resamples", "100").stdout
    assert "A external:mine, B external:without" in found
    assert here("status", "--results", recorded).stdout.count("done") >= 3
    assert "external-mine" in here("list", "runs", "--results", recorded).stdout.replace("\n", "")


def test_top_k_stands_in_the_report_and_older_records_say_why_not(world, recorded, tmp_path, svg_alone):
    shutil.copytree(recorded, tmp_path / "results", ignore=shutil.ignore_patterns("report*"))
    (old,) = runs_of(tmp_path / "results", "external:without")
    arrays = files.read_arrays(old.path / "scores.npz")
    files.write_arrays(old.path / "scores.npz", {name: own for name, own in arrays.items() if ".top_" not in name})
    table = ["report", "--results", tmp_path / "results", "--resamples", "0", "--top-k"]
    shown = here(*table, "1", "3").stdout
    assert f"No top-k numbers of {old.run_id}: the record is of a release that did not keep" in shown
    lines = next((tmp_path / "results").glob("report/*/top-k.csv")).read_text().splitlines()
    mine = dict(zip(lines[0].split(","), next(line for line in lines if "mine" in line).split(","), strict=True))
    candidates, split = world.dataset.candidates("test"), world.dataset.splits["test"]
    worse = np.load(world.folder / "worse.npy").astype(np.float32)
    curves = [
        exact_topk_curve(
            matrix[:, world.candidates("test")], candidates.seen, candidates.index_of(split.states, split.objects), 3
        )
        for matrix in (world.matrices["test"], worse)
    ]
    assert float(mine["AUC@3"]) == pytest.approx(np.mean([curve.auc for curve in curves]))
    assert float(mine["AUC@1"]) < float(mine["AUC@3"])
    refused = here(*table, "9", check=False)
    assert refused.returncode == 2 and "There are no top-9 numbers." in refused.stderr


def test_no_network_is_asked_of_a_record_of_files(recorded, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "some.png")
    done = here("predict", tmp_path, "--run", "external-without", "--results", recorded, check=False)
    assert done.returncode == 2
    assert "Its scores came from a file, without a network." in done.stderr


def stated(spec: RunSpec) -> RunSpec:
    """The specification of scores from a file beside a run's."""
    return RunSpec(
        method="external:mine",
        method_config={},
        training=TrainingConfig(epochs=0),
        dataset=spec.dataset,
        dataset_digest=spec.dataset_digest,
        backbone=spec.backbone,
        backbone_digest="not known",
        external=External(test="0" * 64),
    )


def test_scores_of_a_file_join_the_table_of_their_data_and_backbone(tmp_path):
    own = make_run(tmp_path, "csp")
    other = make_run(tmp_path, "csp", backbone="another", backbone_digest="c" * 64)
    half = make_run(tmp_path, "csp", precision="bf16")
    brought = replace(own, spec=stated(own.spec))
    assert [[run.spec.method for run in group.runs] for group in groups([brought, other, own])] == [
        ["csp"],
        ["csp", "external:mine"],
    ]
    assert "fp32" in groups([brought, own])[0].title, "what is known speaks for the group"
    assert len(groups([brought, own, half])) == 3, "of two groups that fit neither is chosen"
    assert group_of([brought]).title == "toy, closed world, tiny-icons, precision not known"
    assert "epoch selected by a rule that is not known" in caption([brought])
    nameless = stated(own.spec).model_copy(update={"backbone": "not known", "dataset": "mit_states"})
    said = comparable(group_of([replace(own, spec=nameless)]))
    assert isinstance(said, str) and "their backbone is not known" in said


def test_a_paper_named_has_its_numbers_beside(tmp_path, monkeypatch):
    run = make_run(tmp_path, "csp", dataset="mit_states", backbone="ViT-L-14-quickgelu/openai")
    start = {**run.starts[0], "environment": {"scores": {"test": {"file": "s.npy"}, "paper": "dfsp(T2I)"}}}
    brought = replace(run, spec=stated(run.spec), starts=[start])
    monkeypatch.setattr(published, "_other_images", lambda group: "")
    group = group_of([brought])
    table = published_table(group, comparable(group))
    line = next(line for line in table.rows if line[0].text.startswith("DFSP(t2i)"))
    assert line[1].value == pytest.approx(0.469)
    assert line[-1].value == pytest.approx(run.finished.legacy.test.auc)


def test_a_run_keeps_its_digest_and_its_file(tmp_path):
    spec = make_run(tmp_path, "csp").spec
    assert "external" not in spec.model_dump(mode="json")
    assert stated(spec).digest() != stated(spec).model_copy(update={"external": External(test="1" * 64)}).digest()
    content = stated(spec).model_dump(mode="json")
    assert RunSpec.model_validate(content) == stated(spec)


@pytest.mark.parametrize("order", ["candidates", "every pair", "grid", "named"])
def test_every_order_gives_the_same_numbers(world, tmp_path, order):
    split, matrix = world.dataset.splits["test"], world.matrices["test"]
    arguments: list[object] = []
    if order == "candidates":
        matrix = matrix[:, world.candidates("test")]
    elif order == "grid":
        states, objects = world.dataset.vocabulary.states, world.dataset.vocabulary.objects
        place = {pair: column for column, pair in enumerate(every_pair(world.dataset))}
        grid = np.full((len(matrix), len(states) * len(objects)), 99.0, np.float32)
        for column, pair in enumerate((state, obj) for state in states for obj in objects):
            if pair in place:
                grid[:, column] = matrix[:, place[pair]]
        matrix = grid
    elif order == "named":
        rng = np.random.default_rng(2)
        columns, rows = rng.permutation(matrix.shape[1]), rng.permutation(len(matrix))
        pairs = every_pair(world.dataset)
        separators = (" ", "\t", ", ")
        (tmp_path / "pairs.txt").write_text(
            "\n".join(separators[number % 3].join(pairs[c]) for number, c in enumerate(columns))
        )
        (tmp_path / "images.txt").write_text("\n".join(f"/data/mit-states/images/{split.images[row]}" for row in rows))
        matrix = matrix[rows][:, columns]
        arguments = ["--pairs", tmp_path / "pairs.txt", "--images", tmp_path / "images.txt"]
    np.save(tmp_path / "test.npy", matrix)
    done = world.score(*arguments, "--json", test=tmp_path / "test.npy", results=tmp_path / "results")
    assert json.loads(done.stdout)["auc"] == evaluate(*world.plain("test")).auc


def test_validation_alone_is_printed_and_leaves_no_record(world, tmp_path):
    done = world.score("--split", "val", "--json", test=world.path("val"), results=tmp_path)
    assert json.loads(done.stdout)["best_hm"] == evaluate(*world.plain("val")).best_hm
    assert list(tmp_path.iterdir()) == []


def test_the_open_world_takes_a_mask_of_minus_infinity(world, tmp_path):
    candidates, split = world.dataset.candidates("test", "open"), world.dataset.splits["test"]
    rng = np.random.default_rng(3)
    matrix = rng.normal(20, 2, size=(len(split), len(candidates))).astype(np.float16)
    true = candidates.index_of(split.states, split.objects)
    removed = ~candidates.seen & (rng.random(len(candidates)) < 0.5)
    matrix[:, removed] = -np.inf
    np.save(tmp_path / "open.npy", matrix)
    done = world.score("--world", "open", test=tmp_path / "open.npy", results=tmp_path / "results")
    assert f"open.npy: {removed.sum():,} of {(~candidates.seen).sum():,} unseen pairs are -infinity" in done.stderr
    (run,) = runs_of(tmp_path / "results")
    unseen = ~candidates.seen[true]
    assert run.finished.metrics.test.unseen_cap == pytest.approx(1 - removed[true[unseen]].mean())
    assert any("unseen pairs are -infinity" in notice for notice in run.starts[0]["notices"])


class OpenScores:
    """Scores of the open world, and a table of feasibility for it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.dataset, self.folder = world.dataset, folder
        rng, names = np.random.default_rng(4), world.dataset.vocabulary
        self.feasibility = np.round(rng.normal(0, 1, (len(names.states), len(names.objects))), 2).astype(np.float32)
        self.feasibility[world.dataset.seen] = 0
        lines = [
            f"{state},{obj},{self.feasibility[s, o]}"
            for s, state in enumerate(names.states)
            for o, obj in enumerate(names.objects)
        ]
        (folder / "table.csv").write_text("\n".join(["state,object,score", *lines]))
        self.matrices = {}
        for phase in ("val", "test"):
            candidates, split = world.dataset.candidates(phase, "open"), world.dataset.splits[phase]
            matrix = rng.normal(-5, 2, size=(len(split), len(candidates))).astype(np.float32)
            matrix[np.arange(len(split)), candidates.index_of(split.states, split.objects)] += 3
            self.matrices[phase] = matrix
            np.save(folder / f"{phase}.npy", matrix)

    @property
    def arguments(self) -> dict[str, object]:
        return {"test": self.folder / "test.npy", "val": self.folder / "val.npy", "world": "open",
                "feasibility": f"table:{self.folder / 'table.csv'}"}  # fmt: skip

    def plain(self, phase: str, threshold: float, masking: str) -> tuple[ImageScores, Labels]:
        dataset = replace(self.dataset, feasibility=self.feasibility)
        candidates, split = dataset.candidates(phase, "open"), dataset.splits[phase]
        matrix, seen = self.matrices[phase], candidates.seen
        if masking == "official":
            masked = official_feasibility_mask(matrix, candidates.feasibility, seen, threshold)
        else:
            masked = np.where(kept(candidates, threshold), matrix, np.float32(-np.inf))
        labels = Labels(candidates.states, candidates.objects, split.states, split.objects)
        return ImageScores.from_matrix(masked, seen, candidates.index_of(split.states, split.objects)), labels


@pytest.mark.parametrize("masking", ["clean", "official"])
def test_a_threshold_is_searched_on_validation_as_in_a_run(world, tmp_path, masking):
    scores = OpenScores(world, tmp_path)
    world.score("--masking", masking, results=tmp_path / "r", **scores.arguments)
    (run,) = runs_of(tmp_path / "r")
    found = run.finished.open_world
    aucs = []
    for threshold in found.grid:
        record, labels = scores.plain("val", threshold, masking)
        sweep = legacy_from_image_scores(record, labels).auc
        aucs.append(exact_curve(record).auc if masking == "clean" else sweep)
    assert found.val_aucs == pytest.approx(aucs) and found.threshold == found.grid[int(np.argmax(aucs))]
    val = evaluate(*scores.plain("val", found.threshold, masking))
    test = evaluate(*scores.plain("test", found.threshold, masking), bias=val.best_hm_bias)
    assert str(run.finished.metrics.test) == str(test) and str(run.finished.metrics.val) == str(val)
    assert (run.spec.open_world.feasibility, run.spec.open_world.masking) == ("table", masking)
    assert run.spec.settings == {}


def test_a_threshold_may_be_given_without_validation(world, tmp_path):
    scores = OpenScores(world, tmp_path)
    given = {name: value for name, value in scores.arguments.items() if name != "val"}
    world.score("--threshold", "0.5", results=tmp_path / "r", **given)
    (run,) = runs_of(tmp_path / "r")
    assert run.finished.metrics.test.auc == evaluate(*scores.plain("test", 0.5, "clean")).auc
    assert "--feasibility 'table:<file>' --threshold 0.5 --masking clean" in reproduce(run)


MASKS: dict[str, tuple[dict[str, object], str]] = {
    "closed": ({"world": "closed"}, "The feasibility table:"),
    "no validation": ({"val": None}, "The threshold of feasibility cannot be searched."),
    "no number": ({"threshold": "high"}, "'high' is no threshold. It is a number or 'search'."),
    "by CLIP": ({"feasibility": "clip"}, "Feasibility by CLIP needs a backbone."),
    "no source": ({"feasibility": "globe"}, "There is no source of feasibility scores 'globe'."),
    "not shipped": ({"feasibility": "shipped"}, "No feasibility table for mit_states comes with the suite."),
    "a threshold of nothing": ({"feasibility": "none", "threshold": "0.5"}, "There is no --feasibility."),
    "validation alone": ({"split": "val"}, "Validation alone is judged without a threshold."),
}


@pytest.mark.parametrize("case", MASKS)
def test_a_mask_that_cannot_be_is_refused(world, tmp_path, case):
    changes, message = MASKS[case]
    given = {
        name: value for name, value in (OpenScores(world, tmp_path).arguments | changes).items() if value is not None
    }
    done = world.score(check=False, results=tmp_path / "r", **given)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "r").exists()


def test_labels_come_from_the_metadata_file_alone(world, tmp_path):
    """Without images and without a folder of the data set; lists beside the file make it the same data."""
    there = world.folder / "mit-states"
    alone = tmp_path / "labels"
    alone.mkdir()
    shutil.copy(there / f"{STEM}.t7", alone)
    shutil.copy(there / "miniature.json", alone)
    whole = labelled("mit_states", alone / f"{STEM}.t7")
    assert len(whole.train_pairs) == 1262, "the suite's own lists"
    assert whole.splits["test"].images == world.dataset.splits["test"].images
    assert whole.digest != world.dataset.digest
    shutil.copytree(there / SPLIT, alone / SPLIT)
    assert labelled("mit_states", alone / f"{STEM}.t7").digest == world.dataset.digest


def lines(*names: str) -> Callable[[World, Path], dict[str, object]]:
    """Pass a list of pairs in which the first ones are replaced."""

    def given(world: World, folder: Path) -> dict[str, object]:
        pairs = [" ".join(pair) for pair in every_pair(world.dataset)]
        (folder / "pairs.txt").write_text("\n".join([*names, *pairs[len(names) :]]))
        return {"pairs": folder / "pairs.txt"}

    return given


def images(change: Callable[[list[str]], list[str]]) -> Callable[[World, Path], dict[str, object]]:
    def given(world: World, folder: Path) -> dict[str, object]:
        (folder / "images.txt").write_text("\n".join(change(list(world.dataset.splits["test"].images))))
        return {"images": folder / "images.txt"}

    return given


def matrix(change: Callable[[np.ndarray], np.ndarray], **more: str) -> Callable[[World, Path], dict[str, object]]:
    def given(world: World, folder: Path) -> dict[str, object]:
        np.save(folder / "test.npy", change(world.matrices["test"]))
        return {"test": folder / "test.npy", **more}

    return given


def twice(world: World, folder: Path) -> dict[str, object]:
    pairs = [" ".join(pair) for pair in every_pair(world.dataset)]
    (folder / "pairs.txt").write_text("\n".join([pairs[1], *pairs[1:]]))
    return {"pairs": folder / "pairs.txt"}


def short_list(world: World, folder: Path) -> dict[str, object]:
    (folder / "pairs.txt").write_text(" ".join(every_pair(world.dataset)[0]))
    return {"pairs": folder / "pairs.txt"}


def without_a_candidate(world: World, folder: Path) -> dict[str, object]:
    pairs = every_pair(world.dataset)
    absent = next(
        (s, o) for s in world.dataset.vocabulary.states for o in world.dataset.vocabulary.objects if (s, o) not in pairs
    )
    seen = pairs.index(world.dataset.train_pairs[0])
    (folder / "pairs.txt").write_text("\n".join(" ".join(p if n != seen else absent) for n, p in enumerate(pairs)))
    return {"pairs": folder / "pairs.txt"}


ERRORS: dict[str, tuple[Callable[[World, Path], dict[str, object]], str]] = {
    "unknown pair": (lines("sliced spaceship"), "line 1 of"),
    "doubled pair": (twice, "is twice in"),
    "missing pair": (without_a_candidate, "1 candidate pair is missing in"),
    "short list of pairs": (short_list, "It names 1 pair, and the matrix has 32 columns."),
    "unknown image": (images(lambda names: ["x.jpg", *names[1:]]), "The image 'x.jpg' in line 1 of"),
    "doubled image": (images(lambda names: [names[1], *names[1:]]), "Lines 1 and 2 name it."),
    "missing image": (images(lambda names: names[1:]), "1 image is missing in"),
    "no names": (images(lambda names: []), "The list of names"),
    "no list": (lambda world, folder: {"images": folder / "none.txt"}, "The file none.txt is missing."),
    "no text": (
        lambda world, folder: {"images": shutil.copy(world.path("test"), folder / "x.txt")},
        "Pass a text file in UTF-8 with a name on each line.",
    ),
    "too few rows": (matrix(lambda scores: scores[:-1]), "Score each image of the split once"),
    "training's rows": (
        lambda world, folder: matrix(lambda scores: np.ones((len(world.dataset.splits["train"]), 32)))(world, folder),
        "That is the number of the train split's images: pass the scores of test.",
    ),
    "transposed": (matrix(lambda scores: scores.T), "The matrix is transposed: its columns are the images."),
    "other columns": (matrix(lambda scores: scores[:, :9]), "have 9 columns."),
    "closed in the open world": (
        matrix(lambda scores: scores, world="open"),
        "These are pairs of the closed world: leave --world open out",
    ),
    "the same file": (lambda world, folder: {"val": world.path("test")}, "are the same file."),
    "NaN": (matrix(lambda scores: np.full_like(scores, np.nan)), "hold NaN values."),
    "no such split": (lambda world, folder: {"split": "train"}, "There is no split 'train' to score."),
    "a name of other letters": (lambda world, folder: {"name": "a/b"}, "'a/b' cannot be a method's name."),
    "a name of a sign": (lambda world, folder: {"name": "_mine"}, "begins with a letter or digit"),
    "a long name": (lambda world, folder: {"name": "m" * 61}, "A name has up to 60 letters"),
    "validation twice": (
        lambda world, folder: {"test": world.path("val"), "val": world.path("val"), "split": "val"},
        "With --split val --test has them.",
    ),
    "no data set": (lambda world, folder: {"dataset": ""}, "No data set is named."),
    "order of no validation": (lambda world, folder: {"val_images": folder}, "There is no --val."),
    "no such data set": (lambda world, folder: {"dataset": "mit_state"}, "Did you mean 'mit_states' or"),
    "metadata of other data": (
        lambda world, folder: {"dataset": "icon_states", "metadata": folder / "x.t7"},
        "A metadata file was given for icon_states.",
    ),
    "no metadata": (lambda world, folder: {"metadata": folder / "x.t7"}, "There is no such file."),
    "no lists": (
        lambda world, folder: {"dataset": "vaw_czsl", "metadata": shutil.copy(world.path("test"), folder / "m.t7")},
        "The pair lists of VAW-CZSL are not there.",
    ),
}
"""What a user is told, by what is wrong; each leaves no record."""


@pytest.mark.parametrize("case", ERRORS)
def test_what_does_not_fit_is_said_in_a_sentence(world, tmp_path, case):
    given, message = ERRORS[case]
    done = world.score(check=False, results=tmp_path / "results", **given(world, tmp_path))
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "results").glob("*/result.json"))


def test_other_files_under_a_name_and_seed_that_are_there_are_refused(world, tmp_path):
    world.score(results=tmp_path)
    np.save(tmp_path / "other.npy", world.matrices["test"][::-1])
    done = world.score(check=False, test=tmp_path / "other.npy", results=tmp_path)
    assert done.returncode == 2
    assert "external:mine with seed 0 is there already, from other files." in done.stderr
    assert len(runs_of(tmp_path)) == 1


def test_what_differs_under_one_name_is_said_with_its_digests(world, tmp_path):
    world.score(results=tmp_path)
    done = world.score(check=False, val=world.path("val"), results=tmp_path)
    assert done.returncode == 2 and "no validation, these are test" in done.stderr


def test_the_same_scores_under_another_seed_are_told(world, tmp_path):
    world.score(results=tmp_path)
    done = world.score("--seed", "1", results=tmp_path)
    assert "The test scores are those of seed 0 in external-mine" in done.stderr
    assert any("those of seed 0" in notice for run in runs_of(tmp_path) for notice in run.starts[0]["notices"])


def test_no_such_scores_are_told_with_the_next_step(world, tmp_path):
    world.score(results=tmp_path)
    for name, step in (("external:mien", "Did you mean external:mine?"), ("external:zq", "bench.py score")):
        done = here("compare", name, "external:mine", "--results", tmp_path, check=False)
        assert done.returncode == 2 and step in " ".join(done.stderr.split())


def test_the_matrix_of_a_run_gives_the_numbers_of_the_run(tmp_path, svg_alone):
    """A trained run's scores, saved and judged as anybody's: every metric is equal and no image flips."""
    toy = make_toy(tmp_path / "toy", name="toy_scored")
    if "toy_scored" not in DATASETS.names():
        DATASETS.register("toy_scored", title="toy icons")(lambda: toy)
    results = tmp_path / "results"
    words = ["--dataset", "toy_scored", "--results", results]
    here("run", "--methods", "csp", "--epochs", "1", "--device", "cpu", *words)
    (run,) = find_runs(results)[0]
    method = load_method(run, toy.vocabulary)
    for phase in ("val", "test"):
        np.save(tmp_path / f"{phase}.npy", scores_of(method, toy, phase))
    here("score", "--test", tmp_path / "test.npy", "--val", tmp_path / "val.npy", "--name", "same", "--backbone-name",
         "tiny-icons", *words)  # fmt: skip
    (brought,) = runs_of(results, "external:same")
    for name in ("best_seen", "best_unseen", "auc", "best_hm", "gate", "at_bias.hm", "at_zero.state"):
        assert brought.finished.metrics.test.get(name) == run.finished.metrics.test.get(name), name
    found = json.loads(here("compare", "csp", "external:same", "--json", "--results", results).stdout)
    assert found[0]["flips"] == [] and found[0]["statistics"]["auc"]["difference"] == 0
    page = here("report", "--results", results, "--resamples", "0", "--top-k", "2")
    assert not (results / "report-errors.txt").exists(), (results / "report-errors.txt").read_text()
    table = (results / "report.md").read_text()
    assert "toy_scored, closed world, backbone tiny-icons, profile clean, fp32" in table
    assert table.count("## Results\n") == 1 and "| external:same |" in table, "one table has both"
    assert "Computed with different" not in page.stdout


def scores_of(method: Method, toy: CompositionDataset, phase: Phase) -> np.ndarray:
    """The scores of a phase's images in float32, a batch at a time as in its evaluation."""
    candidates, split, backbone = toy.candidates(phase), toy.splits[phase], method.backbone
    transform = build_transform(
        backbone.image_size, backbone.image_mean, backbone.image_std, resizing=backbone.resizing
    )
    images = torch.stack([transform(toy.load_image(phase, row)) for row in range(len(split))])
    pairs = torch.as_tensor(candidates.index_of(split.states, split.objects))
    batch = Batch(
        states=torch.as_tensor(split.states), objects=torch.as_tensor(split.objects), pairs=pairs, images=images
    )
    with torch.inference_mode(), evaluation_mode(method):
        prepared, encoded = method.prepare(candidates), method.encode(batch)
        return torch.cat([part for _, part in chunk_scores(method, encoded, prepared, len(candidates))], dim=1).numpy()
