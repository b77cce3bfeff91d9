"""Score matrices in files: the record is that of the matrix in memory, whatever the file, its order and its blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from evaluation_problems import Problem, random_problem
from safetensors.numpy import save_file

from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.evaluation.matrix import Order, score_matrix
from benchmarks.evaluation.matrix_files import MatrixFile, open_matrix
from benchmarks.evaluation.metrics import evaluate
from benchmarks.evaluation.topk import exact_topk_curve, topk_curve
from datasets.base import Candidates, Split, Vocabulary
from errors import UserError

WORDS = tuple("abcde")


class SmallBlocks(MatrixFile):
    """A file that is read in blocks of a few numbers."""

    def blocks(self, block_bytes: int = 50, kept: int = 1):
        return super().blocks(block_bytes, kept)


def about(problem: Problem) -> tuple[Candidates, Split]:
    labels = problem.labels
    pairs = np.stack([labels.candidate_states, labels.candidate_objects], axis=1)
    names = tuple(f"{number}.jpg" for number in range(len(problem.matrix)))
    split = Split("test", names, labels.states, labels.objects)
    return Candidates(Vocabulary(WORDS, WORDS), pairs, problem.seen), split


def plain(matrix: np.ndarray) -> Order:
    return Order(np.arange(matrix.shape[1]), np.arange(len(matrix)))


def same(one: ImageScores, other: ImageScores) -> None:
    """Equal in every field; the two log-sum-exps, which single precision rounds, up to rounding."""
    for name, values in other.to_arrays().items():
        ours = getattr(one, name)
        if name.startswith("logsumexp"):
            assert np.allclose(ours, values, rtol=1e-5, atol=1e-5), name
        else:
            assert np.array_equal(ours, values), name


@pytest.mark.parametrize("form", ["C", "F"])
@pytest.mark.parametrize("kind", [MatrixFile, SmallBlocks])
def test_the_record_and_the_top_k_curves_are_those_of_the_matrix_in_memory(tmp_path, kind, form):
    judged = 0
    for seed in range(40):
        problem, rng = random_problem(seed), np.random.default_rng(seed)
        candidates, split = about(problem)
        shuffled, rows = rng.permutation(len(problem.seen)), rng.permutation(len(problem.matrix))
        others = rng.normal(size=(len(rows), 2)).astype(np.float32)  # columns of no candidate
        matrix = np.concatenate([problem.masked[:, shuffled], others], axis=1)[rows]
        path = tmp_path / "scores.npy"
        np.save(path, np.asarray(matrix, order=form))
        there = open_matrix(path)
        order = Order(np.argsort(shuffled), rows)
        if (problem.masked == -np.inf).all(axis=1).any():
            with pytest.raises(UserError, match="have no candidate"):
                score_matrix(there, order, candidates, split)
            continue
        scores, _ = score_matrix(kind(there.path, there.header), order, candidates, split, top=4)
        same(scores, problem.scores)
        assert str(evaluate(scores, problem.labels, bias=0.3)) == str(
            evaluate(problem.scores, problem.labels, bias=0.3)
        )
        for topk in (1, 2, 4):
            ours = topk_curve(scores, topk)
            slow = exact_topk_curve(problem.masked, problem.seen, problem.true_columns, topk)
            for item in fields(slow):
                assert np.array_equal(getattr(ours, item.name), getattr(slow, item.name)), item.name
        judged += 1
    assert judged > 25


def save(path: Path, matrix: np.ndarray) -> Path:
    """Write a matrix in the form that the ending says; `.stored.npz` is an npz that is not compressed."""
    if path.suffix == ".safetensors":
        save_file({"logits": matrix}, path)
    elif path.name.endswith(".stored.npz"):
        np.savez(path, scores=matrix, others=np.zeros(3))
    elif path.suffix == ".npz":
        np.savez_compressed(path, matrix)
    else:
        np.save(path, matrix)
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["s.npy", "s.npz", "s.stored.npz", "s.safetensors"])
def test_every_kind_of_file_and_of_float(tmp_path, name, dtype):
    problem = random_problem(6)
    candidates, split = about(problem)
    matrix = problem.matrix.astype(dtype)
    there = open_matrix(save(tmp_path / name, matrix))
    assert (there.rows, there.columns, there.dtype) == (*matrix.shape, np.dtype(dtype).name)
    scores, _ = score_matrix(SmallBlocks(*(vars(there).values())), plain(matrix), candidates, split)
    same(scores, ImageScores.from_matrix(matrix.astype(np.float32), problem.seen, problem.true_columns))


def pickled(path: Path) -> None:
    np.save(path, np.array([[{}, None]], dtype=object), allow_pickle=True)


def cut(path: Path) -> None:
    np.save(path, np.zeros((9, 9), np.float32))
    path.write_bytes(path.read_bytes()[:-8])


def several(path: Path) -> None:
    np.savez(path, logits=np.zeros((2, 2)), labels=np.zeros(2))


def damaged_zip(path: Path) -> None:
    np.savez_compressed(path, np.random.default_rng(0).normal(size=(50, 50)))
    data = bytearray(path.read_bytes())
    data[3000:3100] = bytes(100)
    path.write_bytes(data)


def bfloat16(path: Path) -> None:
    header = b'{"scores":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


def short_tensors(path: Path) -> None:
    save_file({"scores": np.zeros((9, 9))}, path)
    path.write_bytes(path.read_bytes()[:-8])


def two_in_one(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((9, 9)))
        np.save(file, np.zeros((9, 9)))


def less_than_nothing(path: Path) -> None:
    np.save(path, np.zeros((12, 9)))
    path.write_bytes(path.read_bytes().replace(b"(12, 9)", b"(-2, 9)"))


FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "absent": ("s.npy", lambda path: None, "It is not there."),
    "a folder": ("s.npy", lambda path: path.mkdir(), "It is a folder."),
    "a checkpoint": ("s.pt", lambda path: path.write_bytes(b"PK"), "A file .pt is not known here"),
    "no ending": ("scores", lambda path: path.write_bytes(b"1"), "A file without an ending is not known here"),
    "no npy": ("s.npy", lambda path: path.write_bytes(b"hello"), "it is damaged"),
    "no zip": ("s.npz", lambda path: path.write_bytes(b"hello"), "it is damaged (File is not a zip file)"),
    "no tensors": ("s.safetensors", lambda path: path.write_bytes(b"\xff" * 30), "its header is damaged"),
    "short tensors": ("s.safetensors", short_tensors, "its header and its size do not fit together"),
    "cut": ("s.npy", cut, "bytes instead of 452; it was cut, or is still being written"),
    "several arrays": ("s.npz", several, "It holds logits, labels."),
    "pickled": ("s.npy", pickled, "They can be read with pickle alone"),
    "whole numbers": ("s.npy", lambda path: np.save(path, np.zeros((2, 2), int)), "Their type is int64"),
    "bfloat16": ("s.safetensors", bfloat16, "Their type is BF16; there are float16"),
    "two in one": ("s.npy", two_in_one, "something was written behind the matrix"),
    "less than nothing": ("s.npy", less_than_nothing, "Their shape is -2 x 9."),
    "a vector": ("s.npy", lambda path: np.save(path, np.zeros(4)), "Their shape is 4."),
    "a cube": ("s.npy", lambda path: np.save(path, np.zeros((2, 2, 2))), "Their shape is 2 x 2 x 2."),
    "nothing": ("s.npy", lambda path: np.save(path, np.zeros((0, 2))), "Their shape is 0 x 2."),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_used_is_named_with_its_reason(tmp_path, case):
    name, make, message = FILES[case]
    make(tmp_path / name)
    with pytest.raises(UserError) as refusal:
        open_matrix(tmp_path / name)
    assert message in str(refusal.value)
    assert str(tmp_path / name) in str(refusal.value)


def test_a_damaged_archive_is_found_while_it_is_read(tmp_path):
    damaged_zip(tmp_path / "s.npz")
    with pytest.raises(UserError, match="it is damaged"):
        list(open_matrix(tmp_path / "s.npz").blocks())


def world(images: int = 40, seen: int = 4, unseen: int = 4) -> tuple[np.ndarray, Candidates, Split]:
    """Scores like logits of a CLIP around 20, with the pair's own above the others'."""
    rng = np.random.default_rng(0)
    pairs = np.stack(np.divmod(np.arange(seen + unseen), 4), axis=1)
    candidates = Candidates(Vocabulary(WORDS, WORDS), pairs, np.arange(seen + unseen) < seen)
    columns = rng.integers(0, len(pairs), images)
    matrix = rng.normal(20, 2, size=(images, len(pairs))).astype(np.float32)
    matrix[np.arange(images), columns] += 3
    names = tuple(f"{number}.jpg" for number in range(images))
    return matrix, candidates, Split("test", names, *pairs[columns].T)


def judged(tmp_path: Path, matrix: np.ndarray) -> str:
    _, candidates, split = world()
    np.save(tmp_path / "s.npy", matrix)
    scores, signs = score_matrix(open_matrix(tmp_path / "s.npy"), plain(matrix), candidates, split)
    return " ".join(signs.notices(scores, "s.npy"))


def changed(change: Callable[[np.ndarray], object]) -> np.ndarray:
    matrix = world()[0]
    new = change(matrix)
    return new if isinstance(new, np.ndarray) else matrix


def softmax(matrix: np.ndarray) -> np.ndarray:
    return np.exp(matrix) / np.exp(matrix).sum(axis=1, keepdims=True)


def put(value: float, columns: object, rows: object = slice(None)) -> Callable[[np.ndarray], None]:
    def change(matrix: np.ndarray) -> None:
        matrix[rows, columns] = value

    return change


def double(matrix: np.ndarray) -> None:
    matrix[:, :4] *= 2


def masked_negative(matrix: np.ndarray) -> None:
    matrix -= 60
    matrix[:, 5:] = 0


SIGNS: dict[str, tuple[Callable[[np.ndarray], object], str]] = {
    "zeros that never win": (put(0, [5, 6]), "2 unseen pairs score 0 for all images, which is how the released codes"),
    "seen pairs doubled": (double, "every training pair scores above every unseen one, on the whole"),
    "probabilities": (softmax, "the scores are probabilities"),
    "zeros and no others": (put(0, slice(4, 8)), "4 unseen pairs score 0 for all images, and there is no other"),
    "cosines": (lambda matrix: matrix / 100, "all scores lie between -1 and 1, as cosines do"),
    "marks": (put(-1e10, [4, 5]), "2 candidate pairs have a score of -1e9 or less for all images"),
    "training pairs removed": (put(-np.inf, [0]), "1 training pair is -infinity for all images"),
    "rows not filled": (put(7, slice(None), [3, 4]), "2 images have one and the same score for every pair of a group"),
}
"""What a reader is told, by what was done to the matrix."""


@pytest.mark.parametrize("case", SIGNS)
def test_what_a_matrix_looks_like_is_told(tmp_path, case):
    change, message = SIGNS[case]
    assert message in judged(tmp_path, changed(change))


def test_of_ordinary_logits_nothing_is_told(tmp_path):
    assert judged(tmp_path, changed(lambda matrix: None)) == ""
    assert judged(tmp_path, changed(lambda matrix: matrix - 40)) == "", "negative ones"
    assert judged(tmp_path, changed(put(-np.inf, [5]))) == "", "a mask that is one"


REFUSED: dict[str, tuple[Callable[[np.ndarray], object], str]] = {
    "NaN": (put(np.nan, 6, 3), "hold NaN values. The first is that of the image 3.jpg and the pair 'b c'."),
    "infinity": (put(np.inf, 1, 39), "hold infinite values. The first is that of the image 39.jpg and the pair 'a b'."),
    "half": (
        lambda matrix: np.where(matrix > 25, np.inf, matrix).astype(np.float16),
        "Half precision ends at 65,504.",
    ),
    "no candidate": (put(-np.inf, slice(None), 5), "1 of the images in"),
    "zeros that win": (masked_negative, "were multiplied by a mask of feasibility. 3 unseen pairs score 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_scores_that_would_give_wrong_numbers_are_refused(tmp_path, case):
    change, message = REFUSED[case]
    with pytest.raises(UserError) as refusal:
        judged(tmp_path, changed(change))
    assert message in str(refusal.value)


def test_a_mask_of_zeros_gives_the_numbers_of_one_of_minus_infinity_where_no_score_is_negative(tmp_path):
    matrix, candidates, split = world()
    found = []
    for value in (0.0, -np.inf):
        matrix[:, 5:] = value
        np.save(tmp_path / "s.npy", matrix)
        found.append(score_matrix(open_matrix(tmp_path / "s.npy"), plain(matrix), candidates, split)[0])
    for name in ("best_seen", "best_unseen", "correct", "unseen_winner"):
        assert np.array_equal(getattr(found[0], name), getattr(found[1], name))
