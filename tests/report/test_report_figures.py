"""Figures: bands against resampled evaluations, styles that can be told apart, sizes, intervals, ranks."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from made_reports import record, stored, switched

from benchmarks.evaluation.curve import exact_curve
from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.report import attention_maps, figures, matrices, pictures, ranking, style, uncertainty
from benchmarks.report.bands import curve_band, resampled_seen
from benchmarks.report.groups import groups
from benchmarks.report.images import Library
from benchmarks.report.scored_runs import read_scored, scored_runs
from benchmarks.runs.open_world_settings import OpenWorld
from benchmarks.runs.records import RunFolder, find_runs
from benchmarks.significance import compare, friedman, nemenyi
from benchmarks.significance.bootstrap import draws
from errors import UserError


def problem(seed: int, ties: bool) -> ImageScores:
    """The record of 40 images and six pairs; with ties, scores are whole numbers."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(40, 6)) * 2
    columns = rng.integers(-1, 6, size=40)
    matrix[np.arange(40), columns] += 2
    return ImageScores.from_matrix(np.round(matrix) if ties else matrix, np.arange(6) < 3, columns)


def highest_seen(scores: ImageScores, unseen: float) -> float:
    """The largest accuracy on seen images of the points that reach an accuracy on unseen ones, by looking at each."""
    curve = exact_curve(scores)
    return max((s for s, u in zip(curve.seen, curve.unseen, strict=True) if u >= unseen - 1e-12), default=0.0)


@pytest.mark.parametrize("ties", [False, True])
def test_a_resampled_curve_is_that_of_the_resampled_images(ties):
    grid = np.linspace(0, 1, 23)
    for seed in range(4):
        scores = problem(seed, ties)
        weights = next(draws(scores.is_seen, 12, seed))
        found = resampled_seen(scores, weights, grid)
        for column, counts in enumerate(weights.T.astype(int)):
            drawn = scores.subset(np.repeat(np.arange(40), counts))
            assert found[:, column] == pytest.approx([highest_seen(drawn, u) for u in grid], abs=1e-12)


def test_a_band_is_of_the_mean_over_seeds_and_pointwise():
    runs, grid = [problem(1, False), problem(1, True)], np.linspace(0, 1, 1001)
    band = curve_band(runs, grid, resamples=200, seed=3)
    assert band.seen == pytest.approx(np.mean([[highest_seen(run, u) for u in grid] for run in runs], axis=0))
    weights = np.concatenate(list(draws(runs[0].is_seen, 200, 3, "images")), axis=1)
    values = np.mean([resampled_seen(run, weights, grid) for run in runs], axis=0)
    assert band.low == pytest.approx(np.quantile(values, 0.025, axis=1))
    assert band.high == pytest.approx(np.quantile(values, 0.975, axis=1))
    alone = exact_curve(runs[0])
    steps = curve_band(runs[:1], grid, resamples=2).seen
    assert np.mean((steps[1:] + steps[:-1]) / 2) == pytest.approx(alone.auc, abs=2e-3), "its area is the AUC"


@pytest.mark.parametrize("steps", [1, 7, 300])
def test_an_area_keeps_the_points_that_its_edges_need(steps):
    unseen = np.linspace(0, 100, 401)
    for edge in (np.round((100 - unseen**2 / 100) / 100 * steps) / steps * 100, 100 - unseen):
        points = figures._sparse(unseen, edge)
        assert len(points) < 0.6 * len(unseen) and (np.diff(points[:, 0]) >= 0).all()
        there = np.column_stack([unseen, edge])
        for start, end in itertools.pairwise(points):  # a long way round: distances to each piece
            along = (end - start) @ (end - start)
            place = np.clip((there - start) @ (end - start) / along, 0, 1) if along else np.zeros(len(there))
            near = np.linalg.norm(there - start - place[:, None] * (end - start), axis=1)
            there = there[(near > 0.021)]
        assert not len(there), "every point lies on the simpler line"
    for few in range(3):
        assert len(figures._sparse(unseen[:few], edge[:few])) >= few


def test_drawings_have_hundredths_of_a_point(tmp_path):
    figure, axes = style.new(2.0)
    axes.plot(np.linspace(0, 1, 50) ** 2, np.sin(np.arange(50)))
    (written,) = style.save(figure, tmp_path / "curve", (".svg",))
    drawn = ElementTree.parse(written).getroot()
    numbers = [
        number
        for path in drawn.iter("{http://www.w3.org/2000/svg}path")
        for number in re.findall(r"[-+.e\d]+", re.sub("[A-Za-z]", " ", path.get("d")))
    ]
    assert len(numbers) > 200 and max(len(number.partition(".")[2]) for number in numbers) == 2


def _linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


# Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009: what a person without one kind of cone sees, in linear light.
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "nobody": np.eye(3),
}


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ linear.clip(0, 1) / (0.9505, 1, 1.089)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_methods_are_told_apart_with_every_colour_vision_and_in_grey(kind):
    looks = style.METHOD_STYLES
    seen = {name: _lab(np.array(BLINDNESS[kind]) @ _linear(look.colour)) for name, look in looks.items()}
    nearest = min(np.linalg.norm(seen[a] - seen[b]) for a in seen for b in seen if a < b)
    assert nearest > 10, "a difference in CIE Lab of 2 is just visible"
    assert np.linalg.norm(seen["msci"] - seen["troika"]) > 60
    assert len({look.marker for look in looks.values()}) == len({look.dashes for look in looks.values()}) == len(looks)


def test_rows_of_one_method_share_a_colour_and_nothing_else():
    runs = [record(), record(method_config={"dropout": 0.5}), record("another", auc=0.2)]
    (group,) = groups(runs)
    looks = style.styles(group.full)
    one, two = (look for label, look in looks.items() if label.startswith("CSP"))
    assert one.colour == two.colour and one.marker != two.marker and one.dashes != two.dashes
    assert looks["another"] in style.OTHERS


@pytest.fixture
def group(tmp_path):
    """Two seeds of CSP with an ablation of one of them, and CLIP, with per-image records."""
    runs = [record(seed=0, auc=0.2), record(seed=1, auc=0.3), record("clip_zero_shot", auc=0.1)]
    for number, run in enumerate([*runs, switched("no_dropout", dropout=0.0)]):
        stored(tmp_path, run, number)
    (found,) = groups(find_runs(tmp_path)[0])
    return found


def labelled(group):
    return [(row.label, [read_scored(run) for run in row.done]) for row in group.full]


def every_figure(group):
    scored, looks = labelled(group), style.styles(group.full)
    intervals, _ = uncertainty.auc_intervals(group.full)
    full = next(row for row in group.full if row.method == "csp")
    yield figures.seen_unseen(uncertainty.curve_lines(scored, looks))
    yield figures.auc_of_runs(group.full, looks, intervals)
    yield figures.cost(group.full, looks, intervals)
    yield figures.ablation_bars("csp", uncertainty.changes(full, group.switches(full)))
    yield matrices.primitive_accuracy(scored, "object")
    yield matrices.state_confusion(scored[0][1])
    field = next(iter(ranking.fields(families())))
    yield ranking.critical_difference(field, nemenyi(field.values))
    maps = attention_maps.Maps(
        {stage: np.full((2, 4, 4), 1.0) + np.arange(16).reshape(4, 4) / 9 for stage in ("local", "global")},
        {}, np.full((2, 32, 32, 3), 0.5), np.zeros(2),
    )  # fmt: skip
    yield attention_maps._draw(maps, ["wet cat", "dry dog, taken for a wet dog of another kind"])


def test_figures_are_a_column_wide_and_no_letter_is_small(group, tmp_path):
    from matplotlib.text import Text

    for number, figure in enumerate(every_figure(group)):
        assert figure.get_figwidth() == style.WIDTH <= 3.3
        figure.draw_without_rendering()
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
        assert texts and min(text.get_fontsize() for text in texts) >= style.SMALLEST >= 7
        if number == 0:
            paths = style.save(figure, tmp_path / "one")
            assert {path.suffix for path in paths} == {".pdf", ".svg", ".png"}


def of_row(row):
    return scored_runs({row.label: row.done})[row.label]


def test_intervals_are_those_of_the_comparison(group):
    found, alone = uncertainty.auc_intervals(group.full)
    scored = {row.label: of_row(row) for row in group.full}
    by_label = compare(scored, None, ("auc",)).methods
    for label, (low, high) in found.items():
        sources = by_label[label].statistics["auc"].sources
        expected = (sources.get("seeds and images") or sources["images"]).percentile
        if "seeds and images" in sources:
            assert (low, high) == (expected.low, expected.high)
    assert set(found) == {row.label for row in group.full} and alone == ["CLIP zero-shot"]


def test_a_change_is_paired_by_seed(group):
    full = next(row for row in group.full if row.method == "csp")
    (change,) = uncertainty.changes(full, group.switches(full))
    assert change.name == "no_dropout" and change.per_seed == [pytest.approx(0.0)]
    runs = {run.spec.seed: run for run in full.done}
    scored = {"full": [of_row(replace(full, runs=[runs[0]]))[0]]}
    scored["switch"] = of_row(group.switches(full)[0])
    expected = compare(scored, "full", ("auc",)).methods["switch"].statistics["auc"].difference.interval
    assert change.interval == (expected.low, expected.high)


def test_a_damaged_record_costs_its_interval_alone(group):
    row = next(row for row in group.full if row.method == "clip_zero_shot")
    (row.done[0].path / "scores.npz").write_bytes(b"no archive")
    found, _ = uncertainty.auc_intervals(group.full)
    assert set(found) == {"CSP"}
    (row.done[0].path / "scores.npz").unlink()
    assert set(uncertainty.auc_intervals(group.full)[0]) == {"CSP"}


def families(datasets=("one", "two", "three"), methods=("clip_zero_shot", "coop", "csp", "msci")):
    runs = []
    for number, dataset in enumerate(datasets):
        for place, method in enumerate(methods):
            run = record(method, auc=0.1 + 0.1 * place + 0.01 * number)
            runs.append(replace(run, spec=run.spec.model_copy(update={"dataset": dataset})))
    return groups(runs)


def test_methods_are_ranked_where_they_share_data_sets():
    found = families()
    (field,) = ranking.fields([*found, *groups([record("dfsp", auc=0.9)])])
    assert field.methods == [] and "0 methods" in field.problem, "no method has all four data sets"
    (field,) = ranking.fields(found)
    assert field.problem == "" and sorted(field.datasets) == ["one", "three", "two"]
    assert field.values.shape == (3, 4) and friedman(field.values).average_ranks.tolist() == [4, 3, 2, 1]
    said = ranking.caption(field, friedman(field.values), nemenyi(field.values))
    assert "Descriptive: 3 data sets are too few" in said


@pytest.mark.parametrize(
    ("datasets", "methods", "why"),
    [
        (("one",), ("csp", "coop", "msci"), "1 data set (one), and ranks need at least 2"),
        (("one", "two"), ("csp", "coop"), "2 methods have results on all of"),
    ],
)
def test_without_enough_to_rank_a_sentence_says_so(tmp_path, datasets, methods, why):
    drawn = pictures.draw_ranks(families(datasets, methods), tmp_path)
    assert drawn.pictures == [] and why in drawn.absent[0]


def test_other_conditions_are_another_ranking(tmp_path):
    official = [replace(run, spec=run.spec.model_copy(update={"profile": "official"})) for run in families()[0].runs]
    assert [len(field.datasets) for field in ranking.fields([*families(), *groups(official)])] == [3, 1]
    drawn = pictures.draw_ranks([*families(), *groups(official)], tmp_path)
    assert [path.name for path in drawn.files] == ["ranks.pdf", "ranks.svg", "ranks.png"] and len(drawn.absent) == 1


def test_other_threads_and_another_masking_are_another_ranking():
    one, two = families(("one", "two"))
    apart = [replace(run, spec=run.spec.model_copy(update={"threads": 4})) for run in two.runs]
    first, second = ranking.fields([one, *groups(apart)])
    assert (first.datasets, second.datasets) == (["one"], ["two"])
    assert second.conditions.endswith("fp32, 4 threads") and first.conditions.endswith("fp32")
    worlds = [OpenWorld(feasibility="clip", masking=masking) for masking in ("clean", "official")]
    changes = [{"world": "open", "open_world": world} for world in worlds]
    masked = [
        groups([replace(run, spec=run.spec.model_copy(update=own)) for run in group.runs])[0]
        for group, own in zip((one, two), changes, strict=True)
    ]
    assert [field.conditions for field in ranking.fields(masked)] == [
        "open world, tiny-icons, profile clean, fp32",
        "open world, tiny-icons, profile clean, fp32, official masking",
    ]


def test_a_group_that_differs_in_feasibility_is_no_further_data_set_and_is_named():
    runs = []
    for dataset, feasibility, digest in (("first", "clip", "0"), ("first", "glove", "1"), ("second", "clip", "0")):
        world = OpenWorld(feasibility=feasibility, feasibility_digest=digest * 64)
        change = {"world": "open", "open_world": world}
        (own,) = families((dataset,), ("csp", "coop", "msci"))
        runs += [replace(run, spec=run.spec.model_copy(update=change)) for run in own.runs]
    (field,) = ranking.fields(groups(runs))
    assert field.datasets == ["first", "second"] and field.values.shape == (2, 3)
    said = ranking.caption(field, friedman(field.values), nemenyi(field.values))
    assert said.endswith(
        "Not counted, for a data set counts once: first, open world, tiny-icons, fp32, feasibility glove, "
        "feasibility table 11111111."
    )


def test_confusion_counts_images(group):
    (label, runs), *_ = [item for item in labelled(group) if item[0] == "CSP"]
    counts = matrices.confusion_counts(runs)
    expected = np.zeros((2, 2), dtype=int)
    for run in runs:
        for truth, predicted in zip(run.labels.states, run.predicted_states(run.bias), strict=True):
            expected[truth, predicted] += 1
    assert label == "CSP" and np.array_equal(counts, expected) and counts.sum() == 80


def test_images_that_are_not_here_leave_a_reason(group, tmp_path):
    library = Library()
    with pytest.raises(UserError, match=r"not rendered on this machine|has the digest"):
        library.dataset(group.runs[0])
    drawn = pictures.draw(group, tmp_path / "out", library)
    assert [line.split(":")[0] for line in drawn.absent] == ["Successes and failures"]
    assert {path.stem for path in drawn.files} >= {"auc", "cost", "seen-unseen", "states", "objects", "confusion"}


def test_runs_without_unseen_images_or_bias_leave_a_reason(tmp_path):
    good, seen_alone, no_bias = record("csp", 0, 0.2), record("coop", 0, 0.3), record("msci", 0, 0.4)
    for number, run in enumerate((good, seen_alone, no_bias)):
        stored(tmp_path, run, number)
    path = tmp_path / no_bias.spec.run_id / "result.json"
    path.write_text(path.read_text().replace('"bias": 0.25', '"bias": null'))
    folder = RunFolder(tmp_path / seen_alone.spec.run_id)
    arrays = folder.read_arrays()
    arrays["test.is_seen"] = np.ones(40, dtype=bool)
    folder.write_arrays(arrays)
    (group,) = groups(find_runs(tmp_path)[0])
    drawn = pictures.draw(group, tmp_path / "out", Library())
    assert any(problem.message.endswith("most runs here have other test images.") for problem in drawn.problems)
    assert "MSCI: 1 of 1 runs left out, because validation chose no bias." in drawn.absent
    for run in (good, no_bias):
        arrays = RunFolder(tmp_path / run.spec.run_id).read_arrays()
        RunFolder(tmp_path / run.spec.run_id).write_arrays(arrays | {"test.is_seen": np.ones(40, dtype=bool)})
        path = tmp_path / run.spec.run_id / "result.json"
    path.write_text(path.read_text().replace('"auc": 0.4', '"auc": null'))
    (group,) = groups(find_runs(tmp_path)[0])
    drawn = pictures.draw(group, tmp_path / "again", Library())
    assert "CSP: 1 of 1 runs left out, because test has no seen or no unseen images." in drawn.absent
    stems = {path.stem for path in drawn.files}
    assert "seen-unseen" not in stems and {"auc", "states", "confusion"} <= stems
    captions = {picture.title: picture.caption for picture in drawn.pictures}
    assert "MSCI" not in captions["AUC with intervals"] and "no interval" in captions["AUC with intervals"]
