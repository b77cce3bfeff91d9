"""The open world in one pass against the plain way: mask the full matrix for each threshold and look at it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from evaluation_problems import THRESHOLD_CASES, Problem, golden_problem
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix_sweep import legacy_sweep
from table_method import TableMethod, batches_of
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.evaluation.curve import exact_curve
from benchmarks.evaluation.empty_groups import BY_NOTHING, BY_UNSEEN
from benchmarks.evaluation.image_scores import ImageScores, Labels
from benchmarks.evaluation.legacy import legacy_from_image_scores, official_feasibility_mask
from benchmarks.evaluation.matrix import Order
from benchmarks.evaluation.matrix_files import open_matrix
from benchmarks.evaluation.matrix_thresholds import threshold_matrix
from benchmarks.evaluation.metrics import evaluate
from benchmarks.evaluation.open_scoring import score_thresholds
from benchmarks.evaluation.thresholds import (
    ThresholdScores,
    arrange,
    choose_threshold,
    feasibility_grid,
    kept,
)
from benchmarks.runs.open_world_settings import THRESHOLD_GRID
from datasets.base import Candidates, Split, Vocabulary
from errors import UserError
from methods.base import Batch, Prepared

MASKINGS = ("clean", "official")


@dataclass(frozen=True, eq=False)
class OpenProblem:
    """A full matrix over all pairs, with their feasibility and some thresholds."""

    candidates: Candidates
    matrix: np.ndarray
    true_columns: np.ndarray
    thresholds: np.ndarray

    @property
    def labels(self) -> Labels:
        pairs = self.candidates.pairs
        own = pairs[self.true_columns]
        return Labels(pairs[:, 0], pairs[:, 1], own[:, 0], own[:, 1])

    def masked(self, threshold: float, masking: str) -> np.ndarray:
        seen, feasibility = self.candidates.seen, self.candidates.feasibility
        if masking == "official":
            return official_feasibility_mask(self.matrix, feasibility, seen, threshold)
        keep = seen | (feasibility >= np.float32(threshold))
        return np.where(keep, self.matrix, np.float32(-np.inf))

    def plain(self, threshold: float, masking: str) -> ImageScores:
        return ImageScores.from_matrix(self.masked(threshold, masking), self.candidates.seen, self.true_columns)

    def streamed(self, batch: int = 7, chunk: int = 5, method: TableMethod | None = None) -> ThresholdScores:
        method = ColumnMethod() if method is None else method
        return score_thresholds(method, self.batches(batch), self.candidates, self.thresholds, pair_chunk=chunk)

    def batches(self, size: int) -> list[Batch]:
        labels, plain = self.labels, batches_of(self.matrix, self.true_columns, size)
        own = (torch.from_numpy(values).split(size) for values in (labels.states, labels.objects))
        return [replace(batch, states=s, objects=o) for batch, s, o in zip(plain, *own, strict=True)]


class ColumnMethod(TableMethod):
    """Scores are the image features, looked up by pair, in whatever order the candidates come; notes what it scored."""

    def __init__(self, candidate_independent: bool = True) -> None:
        super().__init__()
        self.info = replace(self.info, candidate_independent=candidate_independent)
        self.prepared_pairs = self.largest_chunk = 0
        self.scored: set[int] = set()

    def prepare(self, candidates: Candidates) -> Prepared:
        self.prepared_pairs = len(candidates)
        columns = candidates.states * len(candidates.vocabulary.objects) + candidates.objects
        return Prepared(candidates, {"columns": torch.from_numpy(columns)})

    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> torch.Tensor:
        columns = prepared.tensors["columns"][chunk]
        self.largest_chunk = max(self.largest_chunk, len(columns))
        self.scored |= set(columns.tolist())
        here = batch.pairs >= 0  # the batch's pairs are places in the list that was prepared
        own = prepared.tensors["columns"][batch.pairs[here]]
        assert torch.equal(own, batch.states[here] * len(prepared.candidates.vocabulary.objects) + batch.objects[here])
        return batch.features["scores"][:, columns]


def open_problem(seed: int) -> OpenProblem:
    """A small open world; by turns with whole scores (ties everywhere), negative scores, thresholds that are scores."""
    rng = np.random.default_rng(seed)
    states, objects, images = int(rng.integers(1, 6)), int(rng.integers(2, 6)), int(rng.integers(1, 30))
    count = states * objects
    pairs = np.stack(np.divmod(np.arange(count), objects), axis=1)
    seen = rng.random(count) < rng.choice([0.0, 0.3, 0.6])
    seen[int(rng.integers(count))] = False
    feasibility = rng.normal(0.1, 0.3, count).astype(np.float32)
    if seed % 2:
        feasibility = np.round(feasibility, 1)
    feasibility[seen] = 0
    truth = rng.integers(0, count, images)
    matrix = rng.normal(rng.choice([-20, 0, 25]), 3, (images, count))
    matrix[np.arange(images), truth] += 4
    if seed % 3 == 0:
        matrix = np.round(matrix / 2)
    vocabulary = Vocabulary(tuple(map(str, range(states))), tuple(map(str, range(objects))))
    candidates = Candidates(vocabulary, pairs, seen, "open", feasibility)
    if seed % 4 == 0:
        thresholds = np.sort(rng.choice(feasibility[~seen], 4)).astype(np.float64)  # repeated ones among them
    elif seed % 4 == 1:
        thresholds = np.array([-5.0, -0.1, 0.0, 0.1, 5.0])  # below all, both sides of 0, above all
    else:
        thresholds = feasibility_grid(candidates, int(rng.integers(1, 9)))
    if not seen.any():
        thresholds = thresholds[thresholds <= feasibility.max()]
        thresholds = np.array([feasibility.min()], dtype=np.float64) if len(thresholds) == 0 else thresholds
    return OpenProblem(candidates, matrix.astype(np.float32), truth, thresholds)


def assert_same(ours: ImageScores, wanted: ImageScores) -> None:
    for name, values in wanted.to_arrays().items():
        if name.startswith("logsumexp"):  # summed in single precision, in another order
            np.testing.assert_allclose(getattr(ours, name), values, rtol=2e-6, atol=2e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(getattr(ours, name), values, err_msg=name)


repeatable = settings(derandomize=True, deadline=None, max_examples=150)


@repeatable
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 30))
def test_one_pass_gives_the_record_of_each_masked_matrix(seed: int, chunk: int, batch: int) -> None:
    problem = open_problem(seed)
    record = problem.streamed(batch, chunk)
    for index, threshold in enumerate(problem.thresholds):
        for masking in MASKINGS:
            assert_same(record.at(index, masking), problem.plain(threshold, masking))


@pytest.mark.parametrize("form", ["C", "F"])
def test_a_matrix_in_a_file_gives_the_record_of_each_masked_matrix(tmp_path, form: str) -> None:
    for seed in range(60):
        problem = open_problem(seed)
        rng = np.random.default_rng(seed)
        shuffled = rng.permutation(len(problem.candidates))
        np.save(tmp_path / "s.npy", np.asarray(problem.matrix[:, shuffled], order=form))
        labels = problem.labels
        split = Split("test", tuple(map(str, range(len(problem.matrix)))), labels.states, labels.objects)
        order = Order(np.argsort(shuffled), np.arange(len(problem.matrix)))
        try:
            record, _ = threshold_matrix(
                open_matrix(tmp_path / "s.npy"), order, problem.candidates, split, problem.thresholds
            )
        except UserError as error:
            assert "have no candidate" in str(error) and not problem.candidates.seen.any()
            continue
        for index, threshold in enumerate(problem.thresholds):
            for masking in MASKINGS:
                assert_same(record.at(index, masking), problem.plain(threshold, masking))


@pytest.mark.parametrize("name", THRESHOLD_CASES)
@pytest.mark.parametrize("searched", [True, False])
def test_golden_cases(name: str, searched: bool) -> None:
    """Official masking gives the official evaluator's numbers, clean masking those with a real mask."""
    case = THRESHOLD_CASES[name]
    plain, threshold = golden_problem(case["input"]), case["input"]["threshold"]
    problem = from_golden(plain, case["input"]["feasibility"], [threshold])
    if searched:  # among others, of which it is the third
        problem = replace(problem, thresholds=np.array([-0.2, -0.06, threshold, 0.38, 0.5]))
    record = problem.streamed(batch=4, chunk=2)
    index = 2 if searched else 0
    official, clean = (record.at(index, masking) for masking in MASKINGS[::-1])
    np.testing.assert_array_equal(
        problem.masked(threshold, "official"), np.float32(case["expected_official"]["masked_scores"])
    )
    legacy = legacy_from_image_scores(official, plain.labels)
    ours = [legacy.auc, legacy.best_hm, legacy.best_seen, legacy.best_unseen, legacy.best_hm_bias]
    names = ("AUC", "best_hm", "best_seen", "best_unseen", "biasterm")
    assert ours == pytest.approx([case["expected_official"][key] for key in names], rel=0, abs=1e-9)
    for scores, key in ((official, "expected_exact_on_official_scores"), (clean, "expected_exact_with_real_mask")):
        metrics = evaluate(scores, plain.labels)
        exact = {"S": metrics.best_seen, "U": metrics.best_unseen, "AUC": metrics.auc, "HM": metrics.best_hm}
        assert exact == pytest.approx(case[key], rel=1e-12, abs=1e-12)
    unseen = ~clean.is_seen
    assert record.survives(index)[unseen].mean() == evaluate(clean, plain.labels).unseen_cap


def from_golden(problem: Problem, feasibility: list[float], thresholds: list[float]) -> OpenProblem:
    """A golden case as an open world; its pairs are the product of its words, state-major."""
    pairs = np.stack([problem.labels.candidate_states, problem.labels.candidate_objects], axis=1)
    sizes = pairs.max(axis=0) + 1
    vocabulary = Vocabulary(*(tuple(map(str, range(size))) for size in sizes))
    candidates = Candidates(vocabulary, pairs, problem.seen, "open", np.array(feasibility, dtype=np.float32))
    return OpenProblem(candidates, problem.matrix, problem.true_columns, np.array(thresholds, dtype=np.float64))


@pytest.mark.parametrize("masking", MASKINGS)
def test_the_chosen_threshold_is_the_first_of_the_largest_auc(masking: str) -> None:
    chosen = 0
    for seed in range(0, 400, 2):
        problem = open_problem(seed)
        if not problem.candidates.seen.any():
            continue
        record = problem.streamed()
        choice = choose_threshold(record, problem.labels, masking)
        best = -1.0
        for index, threshold in enumerate(problem.thresholds):
            auc = plain_auc(problem, threshold, masking)
            assert choice.aucs[index] == pytest.approx(auc, abs=1e-9, nan_ok=True)
            if auc > best:
                best, wanted = auc, index
        if record.is_seen.any() and not record.is_seen.all():  # else no AUC is defined, whatever the sweep says
            assert best > -1.0
            assert choice.index == wanted
            assert choice.by == ""
            assert choice.threshold == problem.thresholds[wanted]
            chosen += wanted > 0
    assert chosen > 10, "the smallest threshold is nearly always the best"


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("group", ["seen", "unseen"])
def test_without_a_group_what_is_there_chooses_the_threshold(masking: str, group: str) -> None:
    moved = 0
    for seed in range(0, 200, 2):
        problem = open_problem(seed)
        own = problem.candidates.seen[problem.true_columns] & (problem.true_columns >= 0)
        keep = own if group == "seen" else ~own
        if not problem.candidates.seen.any() or not keep.any():
            continue
        part = replace(problem, matrix=problem.matrix[keep], true_columns=problem.true_columns[keep])
        choice = choose_threshold(part.streamed(), part.labels, masking)
        if group == "unseen":
            right = [part.plain(threshold, masking).correct.sum() for threshold in part.thresholds]
            assert choice.index == int(np.argmax(right))
            assert choice.by == BY_UNSEEN
            moved += choice.index > 0
        else:
            assert choice.index == 0
            assert choice.by == BY_NOTHING
    assert group != "unseen" or moved > 5


def plain_auc(problem: OpenProblem, threshold: float, masking: str) -> float:
    """AUC from the masked matrix: exact, or in the official way the sampled one."""
    if masking == "clean":
        return exact_curve(problem.plain(threshold, masking)).auc
    everything = np.ones(len(problem.candidates), dtype=bool)
    masked = problem.masked(threshold, masking)
    return legacy_sweep(masked, problem.candidates.seen, everything, problem.labels, problem.true_columns).auc


# Edges


def small_problem(feasibility: list[float], thresholds: list[float], seen: tuple[int, ...] = (0, 3)) -> OpenProblem:
    pairs = np.stack(np.divmod(np.arange(6), 3), axis=1)
    vocabulary = Vocabulary(("a", "b"), ("x", "y", "z"))
    seen_flags = np.isin(np.arange(6), seen)
    table = np.where(seen_flags, 0, np.array(feasibility)).astype(np.float32)
    candidates = Candidates(vocabulary, pairs, seen_flags, "open", table)
    matrix = np.array([[3, 5, 5, 3, 1, 5], [1, 2, 4, 4, 4, 0]], dtype=np.float32)
    return OpenProblem(candidates, matrix, np.array([5, 4]), np.array(thresholds, dtype=np.float64))


def test_a_threshold_keeps_the_pairs_that_equal_it_and_ties_stay_exact() -> None:
    problem = small_problem([0, 0.1, 0.3, 0, 0.3, 0.1], [0.1, 0.1, 0.3, 0.3])
    record = problem.streamed(chunk=1)
    for index, (ties, winner) in enumerate([(3, 1), (3, 1), (1, 2), (1, 2)]):
        scores = record.at(index)
        assert (scores.ties[0], scores.unseen_winner[0]) == (ties, winner)
        assert scores.correct.tolist() == [1 / 3 if index < 2 else 0.0, 0.5]
        assert_same(scores, problem.plain(problem.thresholds[index], "clean"))
    assert record.arrangement.removed.tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("thresholds", [[9.0], [-9.0], [-9.0, 9.0]])
def test_thresholds_above_and_below_all(masking: str, thresholds: list[float]) -> None:
    problem = small_problem([0, 0.1, 0.3, 0, 0.3, 0.1], thresholds)
    method = ColumnMethod()
    record = problem.streamed(method=method)
    assert method.scored == ({0, 3} if thresholds == [9.0] else set(range(6)))
    for index, threshold in enumerate(thresholds):
        scores = record.at(index, masking)
        assert_same(scores, problem.plain(threshold, masking))
        if threshold > 0 and masking == "clean":
            assert (scores.unseen_winner == -1).all() and (scores.ties == 0).all() and scores.correct.sum() == 0


def test_removed_pairs_that_score_zero_share_their_tie() -> None:
    """Negative scores: the four removed pairs win with 0 together, and the first of them is the champion."""
    problem = small_problem([0, 0.1, 0.3, 0, 0.3, 0.1], [9.0])
    problem = replace(problem, matrix=problem.matrix - 10)
    scores = problem.streamed().at(0, "official")
    assert (scores.best_unseen.tolist(), scores.unseen_winner.tolist()) == ([0, 0], [1, 1])
    assert (scores.ties.tolist(), scores.correct.tolist()) == ([4, 4], [0.25, 0.25])


def test_what_cannot_be_scored_is_refused() -> None:
    problem = small_problem([0.1] * 6, [0.5], seen=())
    with pytest.raises(ValueError, match="there are 0 candidates"):
        problem.streamed()
    with pytest.raises(ValueError, match="rising"):
        arrange(problem.candidates, [0.5, 0.1])
    with pytest.raises(ValueError, match="rising"):
        arrange(problem.candidates, [])
    with pytest.raises(ValueError, match="no feasibility"):
        kept(replace(problem.candidates, feasibility=None), 0.1)
    with pytest.raises(ValueError, match="no candidate is unseen"):
        feasibility_grid(small_problem([0] * 6, [0.5], seen=tuple(range(6))).candidates)
    assert len(score_thresholds(ColumnMethod(), [], problem.candidates, [0.0])) == 0


def test_an_image_whose_pair_is_no_candidate_is_never_right() -> None:
    problem = small_problem([0, 0.1, 0.3, 0, 0.3, 0.1], [0.2])
    method = ColumnMethod()
    batches = [replace(batch, pairs=torch.tensor([-1, 5])) for batch in problem.batches(2)]
    record = score_thresholds(method, batches, problem.candidates, [0.2])
    for masking in MASKINGS:
        wanted = ImageScores.from_matrix(problem.masked(0.2, masking), problem.candidates.seen, np.array([-1, 5]))
        assert_same(record.at(0, masking), wanted)
    assert record.survives(0).tolist() == [False, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_scores_name_the_image(bad: float) -> None:
    problem = small_problem([0, 0.1, 0.3, 0, 0.3, 0.1], [0.2, 0.3])
    problem.matrix[1, 2] = bad
    with pytest.raises(Exception, match=r"NaN or infinite.*image 1"):
        problem.streamed()


# What is scored, and in how much memory


@pytest.mark.parametrize("independent", [True, False])
def test_pairs_below_a_fixed_threshold_are_never_scored(independent: bool) -> None:
    for seed in range(2, 60, 4):
        problem = open_problem(seed)
        for threshold in problem.thresholds:
            method = ColumnMethod(independent)
            fixed = replace(problem, thresholds=np.array([threshold])).streamed(method=method)
            keep = kept(problem.candidates, threshold)
            assert method.scored == set(np.flatnonzero(keep).tolist())
            # Scores that depend on the list are those of the full list, whatever is removed from it.
            assert method.prepared_pairs == (keep.sum() if independent else len(keep))
            for masking in MASKINGS:
                assert_same(fixed.at(0, masking), problem.plain(threshold, masking))


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return result


class CosineMethod(TableMethod):
    """Features [B, 8] against made text features [P, 8]."""

    def __init__(self, text: torch.Tensor) -> None:
        super().__init__()
        self.text, self.chunks = text, []

    def prepare(self, candidates: Candidates) -> Prepared:
        columns = torch.from_numpy(candidates.states * len(candidates.vocabulary.objects) + candidates.objects)
        return Prepared(candidates, {"text": self.text[columns]})

    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> torch.Tensor:
        self.chunks.append(len(prepared.tensors["text"][chunk]))
        return batch.features["scores"] @ prepared.tensors["text"][chunk].T


def test_memory_grows_with_images_and_thresholds_not_with_images_times_pairs() -> None:
    rng = np.random.default_rng(0)
    states, objects, images, chunk, batch = 40, 50, 600, 64, 32
    pairs = np.stack(np.divmod(np.arange(states * objects), objects), axis=1)
    seen = rng.random(len(pairs)) < 0.05
    feasibility = np.where(seen, 0, rng.normal(size=len(pairs))).astype(np.float32)
    vocabulary = Vocabulary(tuple(map(str, range(states))), tuple(map(str, range(objects))))
    candidates = Candidates(vocabulary, pairs, seen, "open", feasibility)
    method = CosineMethod(torch.from_numpy(rng.normal(size=(len(pairs), 8)).astype(np.float32)))
    truth = rng.integers(0, len(pairs), images)
    with LargestTensor() as watch:
        record = score_thresholds(
            method,
            batches_of(rng.normal(size=(images, 8)), truth, batch),
            candidates,
            feasibility_grid(candidates),
            pair_chunk=chunk,
        )
    assert max(method.chunks) == chunk and sum(method.chunks) == len(pairs) * -(-images // batch)
    assert watch.largest <= 8 * len(pairs) < images * len(pairs) / 10, "the text features are the largest tensor"
    assert record.best_unseen.shape == (THRESHOLD_GRID, images)
    size = sum(getattr(record, name).nbytes for name in ("best_unseen", "unseen_winner", "unseen_ties"))
    assert size == 12 * THRESHOLD_GRID * images
