"""A run in the open world: its threshold from validation or given, masking, what is recorded, what identifies it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_runs import CPU, make_backbone, numbers, without_times

from benchmarks.evaluation.feasibility import clip_vectors, feasibility, from_clip, open_world, source_of, summarise
from benchmarks.evaluation.legacy import official_feasibility_mask
from benchmarks.evaluation.metrics import ImageScores, Labels, evaluate
from benchmarks.evaluation.open_scoring import score_thresholds
from benchmarks.evaluation.open_world import ThresholdedWorld
from benchmarks.evaluation.scoring import score_images
from benchmarks.evaluation.thresholds import feasibility_grid, kept
from benchmarks.running.choices import Choices, How
from benchmarks.running.plan import plan_runs
from benchmarks.running.workbench import Workbench
from benchmarks.runs.open_world_settings import THRESHOLD_GRID, OpenWorld, OpenWorldSettings
from benchmarks.runs.records import RunFolder
from benchmarks.runs.result import UnseenCap, result_of
from benchmarks.runs.spec import RunSpec, TrainingConfig
from benchmarks.runs.suites import RunRequest
from benchmarks.training.batches import Surroundings
from benchmarks.training.frozen_features import FeatureStore
from benchmarks.training.loop import Trainer
from datasets.base import CompositionDataset, Vocabulary
from datasets.feasibility import feasibility_scores, load_shipped, table_digest
from datasets.transforms import derived_seed
from errors import UserError
from methods.backbone.clip import Backbone
from methods.clip_zero_shot import CLIPZeroShot
from methods.csp import CSP
from methods.dfsp import DFSP
from methods.troika import Troika

GOLDEN = Path(__file__).parents[1] / "golden"
FEATURES = FeatureStore()
"""Image features, computed once for all runs here."""
MIDDLE = 0.1
"""A threshold that keeps some of the toy data set's unseen pairs."""


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_backbone()


@pytest.fixture(scope="module")
def world(toy: CompositionDataset) -> CompositionDataset:
    """The toy data set without four of its training pairs, so that more is unseen than the lists say, with scores."""
    absent = {("golden", "car"), ("mossy", "tree"), ("outlined", "dog"), ("striped", "house")}
    pairs = {
        name: tuple(pair for pair in getattr(toy, name) if pair not in absent)
        for name in ("train_pairs", "val_pairs", "test_pairs")
    }
    words = toy.vocabulary
    splits = {}
    for phase, split in toy.splits.items():
        labels = zip(split.states, split.objects, strict=True)
        keep = np.array([(words.states[s], words.objects[o]) not in absent for s, o in labels])
        images = tuple(np.array(split.images)[keep])
        splits[phase] = dataclasses.replace(
            split, images=images, states=split.states[keep], objects=split.objects[keep],
            slices={name: values[keep] for name, values in split.slices.items()},
        )  # fmt: skip
    data = dataclasses.replace(toy, splits=splits, digest="toy without four pairs", **pairs)
    rng = np.random.default_rng(11)
    scores = feasibility_scores(rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), data.seen)
    assert (scores[~data.seen] < 0).any() and (scores[~data.seen] > 0.1).any()
    return dataclasses.replace(data, feasibility=scores)


def make_trainer(folder, data, backbone, method=CSP, *, config=None, profile="clean", settings=None, **open_settings):
    spec = RunSpec(
        method=method.info.name,
        method_config={},
        training=TrainingConfig(
            **{"epochs": 2, "batch_size": 16, "lr": 3e-3, "augmentation": "none", **(settings or {})}
        ),
        dataset="toy",
        dataset_digest=data.digest,
        backbone="tiny",
        backbone_digest="random",
        world="open",
        profile=profile,
        open_world=OpenWorld(**{"feasibility": "clip", **open_settings}),
    )
    record = RunFolder(folder)
    record.start(spec, provenance={}, command_line=[], environment={})
    torch.manual_seed(derived_seed("init", spec.seed))
    built = method(backbone, data.vocabulary, config or method.Config())
    return Trainer(spec, record, built, data, CPU, Surroundings(FEATURES))


def test_a_searched_threshold_is_chosen_on_validation_and_recorded(tmp_path, world, backbone):
    trainer = make_trainer(tmp_path, world, backbone)
    result = trainer.run()
    about = result.open_world
    assert (about.masking, about.searched, about.chosen_by) == ("clean", True, "exact AUC")
    candidates = world.candidates("val", "open")
    assert about.grid == feasibility_grid(candidates).tolist()
    assert len(about.val_aucs) == THRESHOLD_GRID
    assert about.threshold == about.grid[int(np.argmax(about.val_aucs))]
    assert max(about.val_aucs) == result.metrics.val.auc == result.selection.value
    keep = kept(candidates, about.threshold)
    assert about.kept.pairs == (int(keep[~candidates.seen].sum()), 8)
    assert [total for _, total in (about.kept.val_pairs, about.kept.test_pairs)] == [2, 2]
    for phase in ("val", "test"):
        assert getattr(about.unseen_cap, phase) == getattr(result.metrics, phase).unseen_cap
        assert getattr(about.unseen_cap, phase) == getattr(about.kept, f"{phase}_pairs")[0] / 2
    # Every epoch was selected in the same way.
    for epoch in trainer.folder.epochs():
        assert epoch["val"]["threshold"] in about.grid
    assert result_of(json.loads(json.dumps(result.content())), tmp_path).open_world == about, "a result is JSON"


def test_the_scores_on_disk_give_every_number_again(tmp_path, world, backbone):
    trainer = make_trainer(tmp_path, world, backbone, threshold=MIDDLE)
    result = trainer.run()
    arrays = trainer.folder.read_arrays()
    own = {name.partition(".")[2]: values for name, values in arrays.items() if name.startswith("test.")}
    pairs = own["candidate_pairs"]
    labels = Labels(pairs[:, 0], pairs[:, 1], own["states"], own["objects"])
    metrics = evaluate(ImageScores.from_arrays(own), labels, bias=result.selection.bias)
    assert numbers(dataclasses.asdict(metrics)) == numbers(dataclasses.asdict(result.metrics.test))
    candidates = world.candidates("test", "open")
    np.testing.assert_array_equal(own["candidate_kept"], kept(candidates, MIDDLE))
    assert not own["candidate_kept"].all()
    winners = own["unseen_winner"][own["unseen_winner"] >= 0]
    assert own["candidate_kept"][winners].all()


@pytest.mark.parametrize(
    ("method", "config"),
    [
        (CLIPZeroShot, {}),
        (CSP, {}),
        (DFSP, {}),  # text averaged over the candidates
        (Troika, {"inference": "probability_product"}),  # a softmax over the candidates
    ],
    ids=["clip_zero_shot", "csp", "dfsp", "troika_probabilities"],
)
@pytest.mark.parametrize("masking", ["clean", "official"])
def test_a_fixed_threshold_gives_what_the_search_would(tmp_path, world, backbone, method, config, masking):
    """And both what the full matrix gives, also where scores depend on the other candidates."""
    torch.manual_seed(0)
    built = method(backbone, world.vocabulary, method.Config(**config)).eval()
    candidates = world.candidates("test", "open")
    trainer = make_trainer(tmp_path, world, backbone, method, config=method.Config(**config))
    trainer.method = built
    batches = list(trainer.batches["test"].ordered())
    record = score_thresholds(built, batches, candidates, feasibility_grid(candidates, 6), pair_chunk=3)
    matrix, columns = full_matrix(built, batches, candidates)
    for index, threshold in enumerate(record.thresholds):
        settings = OpenWorld(feasibility="clip", threshold=threshold, masking=masking)
        fixed = ThresholdedWorld(settings, candidates).score(built, batches, 4)
        searched = record.at(index, masking)
        if masking == "official":
            masked = official_feasibility_mask(matrix, candidates.feasibility, candidates.seen, threshold)
        else:
            masked = np.where(kept(candidates, threshold), matrix, np.float32(-np.inf))
        plain = ImageScores.from_matrix(masked, candidates.seen, columns)
        for ours in (fixed, searched):
            for name, values in plain.to_arrays().items():
                np.testing.assert_allclose(getattr(ours, name), values, rtol=1e-5, atol=1e-5, err_msg=name)


def full_matrix(method, batches, candidates) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        prepared = method.prepare(candidates)
        rows = [method.score(method.encode(batch), prepared, slice(0, len(candidates))) for batch in batches]
    return torch.cat(rows).numpy(), torch.cat([batch.pairs for batch in batches]).numpy()


def test_the_official_way_selects_the_epoch_in_the_closed_world(tmp_path, world, backbone):
    trainer = make_trainer(
        tmp_path, world, backbone, profile="official", masking="official", selection_world="closed",
        settings={"epochs": 3},
    )  # fmt: skip
    result = trainer.run()
    closed = world.candidates("val", "closed")
    for epoch in trainer.folder.epochs():
        assert "threshold" not in epoch["val"]
    chosen = trainer.folder.epochs()[result.selection.epoch]
    scores = score_images(trainer.method, trainer.selection_batches.ordered(), closed, pair_chunk=5)
    split = world.splits["val"]
    metrics = evaluate(scores, Labels(closed.states, closed.objects, split.states, split.objects))
    assert chosen["val"]["auc"] == metrics.auc == result.selection.value
    about = result.open_world
    assert (about.chosen_by, about.selection_world) == ("AUC of the published sweep", "closed")
    assert about.threshold == about.grid[int(np.argmax(about.val_aucs))]


def test_the_cap_under_official_masking_counts_surviving_pairs(tmp_path, world, backbone):
    trainer = make_trainer(tmp_path, world, backbone, CLIPZeroShot, threshold=9.0, masking="official")
    about = trainer.run().open_world
    assert about.unseen_cap == UnseenCap(val=0.0, test=0.0)
    assert about.kept.model_dump() == {"pairs": (0, 8), "val_pairs": (0, 2), "test_pairs": (0, 2)}


def test_all_pairs_removed_leaves_seen_images_right(tmp_path, world, backbone):
    result = make_trainer(tmp_path, world, backbone, CLIPZeroShot, threshold=9.0).run()
    test = result.metrics.test
    assert (test.auc, test.best_unseen, test.unseen_cap) == (0, 0, 0)
    assert test.best_seen > 0


def test_a_threshold_below_all_scores_is_the_open_world_without_one(tmp_path, world, backbone):
    bare = make_trainer(tmp_path / "bare", world, backbone)
    bare.spec = bare.spec.model_copy(update={"open_world": None})
    bare.world = None
    below = make_trainer(tmp_path / "below", world, backbone, threshold=-2.0)
    results = [trainer.run() for trainer in (bare, below)]
    assert "open_world" not in results[0].content()
    assert results[0].metrics.test.auc == pytest.approx(results[1].metrics.test.auc, abs=1e-12)


def test_an_open_run_killed_half_way_ends_bit_identical(tmp_path, world, backbone):
    whole = make_trainer(tmp_path / "whole", world, backbone)
    expected = numbers(whole.run())
    killed = make_trainer(tmp_path / "killed", world, backbone)

    def report(what: str, done: int, total: int, note: str) -> None:
        if what.startswith("epoch 2"):
            raise KeyboardInterrupt

    killed.report = report
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again = make_trainer(tmp_path / "killed", world, backbone)
    assert numbers(again.run()) == expected
    assert without_times(again.folder.epochs()) == without_times(whole.folder.epochs())


def test_validation_loss_is_taken_where_the_epoch_is_selected(tmp_path, world, backbone):
    losses = []
    for selection_world in ("open", "closed"):
        trainer = make_trainer(
            tmp_path / selection_world, world, backbone, selection_world=selection_world,
            settings={"selection": "val_loss", "epochs": 1},
        )  # fmt: skip
        trainer.run()
        losses.append(trainer.folder.epochs()[0]["val"]["loss"])
    assert losses[0] > losses[1], "more rivals, more loss"


def test_a_threshold_before_validation_is_an_error_of_ours(world):
    thresholded = ThresholdedWorld(OpenWorld(feasibility="clip"), world.candidates("val", "open"))
    with pytest.raises(ValueError, match="has not been scored yet"):
        _ = thresholded.threshold


# Identity and settings


@pytest.fixture
def bench(world, monkeypatch, tmp_path):
    """Plan a run of the toy data set with `--set` texts."""
    monkeypatch.setenv("CZSL_HOME", str(tmp_path / "home"))

    def plan(*overrides, world_name="open", profile="clean", method="csp", data=world):
        workbench = Workbench(
            Choices(results=tmp_path / "r", precision="fp32", overrides=overrides, how=How(device="cpu"))
        )
        workbench.datasets["toy"] = dataclasses.replace(data, feasibility=None)
        request = RunRequest(method, "toy", "tiny-icons", world_name, profile, 0)
        (planned,) = plan_runs([request], workbench)
        return planned, workbench

    return plan


def test_what_a_run_is_follows_from_profile_and_settings(bench):
    planned, _ = bench()
    assert planned.spec.open_world == OpenWorld(feasibility="clip", masking="clean", selection_world="open")
    assert planned.provenance["threshold"] == {"origin": "default"}
    planned, _ = bench(profile="official")
    assert planned.spec.open_world == OpenWorld(feasibility="clip", masking="official", selection_world="closed")
    planned, _ = bench("threshold=0.25", "masking=official", "selection_world=closed")
    expected = OpenWorld(feasibility="clip", threshold=0.25, masking="official", selection_world="closed")
    assert planned.spec.open_world == expected
    assert planned.provenance["threshold"] == {"origin": "command line"}
    assert bench("threshold=0.25")[0].spec.run_id != bench("threshold=search")[0].spec.run_id


def test_a_method_without_training_has_its_threshold_too(bench):
    first, second = (bench(f"threshold={value}", method="clip_zero_shot")[0] for value in (0.1, 0.2))
    assert first.spec.run_id != second.spec.run_id
    assert first.spec.training == second.spec.training == TrainingConfig(epochs=0)


def test_closed_runs_know_nothing_of_it(bench):
    planned, _ = bench(world_name="closed")
    assert planned.spec.open_world is None
    assert "threshold" not in planned.provenance
    with pytest.raises(UserError, match=r"'threshold' belongs to the open world.*--world open"):
        bench("threshold=0.4", world_name="closed")


def test_without_feasibility_a_run_is_what_it_was_before_thresholds(bench):
    planned, _ = bench("feasibility=none")
    assert planned.spec.open_world is None
    assert "open_world" not in json.loads(json.dumps(planned.spec.model_dump(exclude={"open_world"})))
    with pytest.raises(UserError, match=r"The threshold 0\.4 has nothing to be compared with"):
        bench("feasibility=none", "threshold=0.4")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("feasibility=globe:x", "none of auto, none, shipped, clip, glove"),
        ("feasibility=shipped", "There are tables for the official words and training pairs of cgqa, mit_states"),
        ("threshold=find", "Input should be 'search'"),
        ("masking=hard", "'clean' or 'official'"),
        ("selection_world=round", "'closed' or 'open'"),
        ("treshold=0.4", "Did you mean 'threshold'?"),
        ("feasibility=glove:/nowhere.txt", "The word vectors /nowhere.txt cannot be read"),
        ("feasibility=table:/nowhere.csv", "The feasibility scores /nowhere.csv cannot be read"),
        ("feasibility=table:{folder}/comma.csv", "Line 2 of {folder}/comma.csv is too long"),
    ],
)
def test_wrong_settings_are_refused_in_words(bench, override, message, tmp_path):
    (tmp_path / "comma.csv").write_text("state,object,score\nred,bar,0,5\n")
    with pytest.raises(UserError) as caught:
        bench(override.format(folder=tmp_path))
    assert message.format(folder=tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_word_vectors_are_known_by_their_content_never_by_their_path(bench, tmp_path, world):
    words = [*world.vocabulary.states, *world.vocabulary.objects]
    text = "\n".join(f"{word} {number} 1 {number % 3}" for number, word in enumerate(words))
    ids = []
    for name, content in (("a.txt", text), ("b.txt", text), ("c.txt", text.replace(" 1 ", " 2 "))):
        (tmp_path / name).write_text(content)
        planned, _ = bench(f"feasibility=glove:{tmp_path / name}")
        assert planned.spec.open_world.feasibility == "glove"
        assert str(tmp_path) not in planned.spec.model_dump_json()
        ids.append(planned.spec.run_id)
    assert ids[0] == ids[1] != ids[2]


def test_a_table_of_scores_is_known_by_its_scores(bench, tmp_path, world):
    states, objects = world.vocabulary.states, world.vocabulary.objects
    scores = np.random.default_rng(0).normal(size=(len(states), len(objects))).astype(np.float32)
    lines = [f"{s},{o},{scores[i, j]}" for i, s in enumerate(states) for j, o in enumerate(objects)]
    ids = []
    for name, content in (("a.csv", lines), ("b.csv", lines[::-1])):
        (tmp_path / name).write_text("\n".join(["state,object,score", *content]))
        planned, _ = bench(f"feasibility=table:{tmp_path / name}")
        assert planned.spec.open_world.feasibility == "table"
        assert planned.spec.open_world.feasibility_digest == table_digest(np.where(world.seen, np.float32(0), scores))
        assert str(tmp_path) not in planned.spec.model_dump_json()
        ids.append(planned.spec.run_id)
    assert ids[0] == ids[1], "whatever the file and the order of its lines"


def test_a_data_set_without_unseen_pairs_has_no_open_world(bench, toy):
    every = tuple((state, obj) for state in toy.vocabulary.states for obj in toy.vocabulary.objects)
    with pytest.raises(UserError, match="Every state x object has training images"):
        bench(data=dataclasses.replace(toy, train_pairs=every))


def test_released_thresholds_are_presets_of_the_official_profile():
    from benchmarks.runs.resolution import resolve
    from registry import METHODS

    wanted = {"dfsp": (0.4, 0.4, 0.4), "msci": (0.36183673, 0.46312938, 0.40613617), "troika": ("search",) * 3}
    for method, thresholds in wanted.items():
        config = METHODS.get(method).Config
        for data, threshold in zip(("mit_states", "ut_zappos", "cgqa"), thresholds, strict=True):
            official = resolve(method, config, data, profile="official", world="open").open_world
            assert official is not None and official.threshold == threshold
            assert resolve(method, config, data, world="open").open_world == OpenWorldSettings()


# Sources


def test_clip_scores_are_the_definition_on_text_features_and_kept(backbone, world, monkeypatch, tmp_path):
    monkeypatch.setenv("CZSL_HOME", str(tmp_path))
    loads = []
    table = from_clip(world, "digest", lambda: loads.append(1) or backbone)
    states, objects = world.vocabulary.states, world.vocabulary.objects
    expected = feasibility_scores(clip_vectors(backbone, states), clip_vectors(backbone, objects), world.seen)
    np.testing.assert_array_equal(table.scores, expected)
    sentence = backbone.encode_sentences(["a photo of golden"]).numpy()[0]
    np.testing.assert_allclose(clip_vectors(backbone, ["Golden"])[0], sentence, atol=1e-6)
    assert from_clip(world, "digest", lambda: loads.append(1) or backbone).digest == table.digest
    assert len(loads) == 1
    from_clip(world, "other weights", lambda: loads.append(1) or backbone)
    assert len(loads) == 2


def shipped_dataset(name: str) -> CompositionDataset:
    states, objects, seen, _ = load_shipped(name)
    with np.load(GOLDEN / "unseen_pairs.npz") as stored:
        columns = [np.flatnonzero(seen), stored[f"{name}.val"], stored[f"{name}.test"]]
    pairs = [tuple((states[c // len(objects)], objects[c % len(objects)]) for c in part) for part in columns]
    return CompositionDataset(name, name, Path(), Vocabulary(states, objects), *pairs, splits={}, digest=name)


PUBLISHED = {
    # unseen pairs; smallest, quartiles, largest; thresholds not above 0; AUROC of val and of test pairs
    "mit_states": (26_913, (-0.0447, 0.194, 0.250, 0.311, 0.7184), 3, (0.851, 0.847)),
    "ut_zappos": (109, (0.3296, 0.499, 0.551, 0.675, 0.8749), 0, (0.725, 0.607)),
    "cgqa": (272_770, (-0.1346, 0.151, 0.217, 0.291, 0.7791), 8, (0.949, 0.909)),
}
KEPT = [
    # data set, published threshold, its place in the grid, pairs kept: of all unseen, of val, of test
    ("mit_states", 0.4069159426, 29, 1727, 137, 183),
    ("ut_zappos", 0.5299109123, 18, 66, 13, 12),
    ("cgqa", 0.49937106273612186, 34, 4933, 592, 280),
    ("mit_states", 0.4, None, 1884, None, 192),
    ("ut_zappos", 0.4, None, 106, None, 18),
    ("cgqa", 0.4, None, 18_190, None, 564),
    ("mit_states", 0.36183673, None, 3320, 184, 248),
    ("ut_zappos", 0.46312938, 12, 96, 15, 18),
    ("cgqa", 0.40613617, 29, 16_881, 961, 547),
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_facts_about_the_released_tables(name: str) -> None:
    unseen, quantiles, not_positive, auroc = PUBLISHED[name]
    data = shipped_dataset(name)
    assert source_of("auto", data) == "shipped"
    table = feasibility(data, "auto", lambda: pytest.fail("asked for"), lambda: pytest.fail("loaded"))
    beside = [threshold for found, threshold, *_ in KEPT if found == name]
    rows = [row for row in KEPT if row[0] == name]
    places = [0, *(place for _, _, place, *_ in rows if place is not None)]
    summary = summarise(data, table.scores, places, *beside)
    at_place = {row.place: row for row in summary.kept}
    assert summary.kept[0].unseen == unseen
    assert summary.quantiles == pytest.approx(quantiles, abs=6e-4)
    assert summary.not_positive == not_positive
    assert list(summary.auroc.values()) == pytest.approx(auroc, abs=5e-4)
    for (_, threshold, place, *counts), ours in zip(rows, summary.kept[len(places) :], strict=True):
        for count, found in zip(counts, (ours.unseen, ours.val, ours.test), strict=True):
            assert count is None or count == found
        if place is not None:
            grid_point = at_place[place]
            assert grid_point.threshold == pytest.approx(threshold, abs=3e-6)
            assert grid_point.unseen == ours.unseen
    assert summary.highest[0][2] == pytest.approx(quantiles[-1], abs=6e-4)
    assert summary.lowest[0][2] == pytest.approx(quantiles[0], abs=6e-4)


def test_the_published_threshold_of_cgqa_is_a_grid_point_to_the_last_digit() -> None:
    _, _, seen, scores = load_shipped("cgqa")
    assert np.linspace(float(scores[~seen].min()), float(scores[~seen].max()), 50)[34] == 0.49937106273612186


def test_settings_turn_into_an_identity() -> None:
    data = shipped_dataset("ut_zappos")
    table = feasibility(data, "shipped", lambda: "", lambda: None)
    places = {key: {"origin": "default"} for key in OpenWorldSettings.model_fields}
    made = open_world(OpenWorldSettings(), places, "official", data, lambda: table)
    assert made == OpenWorld(
        feasibility="shipped", feasibility_digest=table.digest, masking="official", selection_world="closed"
    )
