"""The open world at its real size with made features: seconds, peak memory, and the difference from the plain way.

    python -m benchmarks.studies.open_world_scale         # C-GQA's test split: 5,098 images, 278,362 pairs, width 768
    python -m benchmarks.studies.open_world_scale --table mit_states --images 12995

Pairs, seen flags and feasibility are those of the real data set; a pair's text feature is made of a random vector of
its state and one of its object, an image is its pair's feature with noise. What is measured is what every method pays
in the open world: one product of all images with all pairs, and the record under all thresholds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.evaluation.image_scores import ImageScores
from benchmarks.evaluation.legacy import official_feasibility_mask
from benchmarks.evaluation.metrics import Labels, evaluate
from benchmarks.evaluation.open_scoring import score_thresholds
from benchmarks.evaluation.scoring import PAIR_CHUNK
from benchmarks.evaluation.thresholds import ThresholdScores, choose_threshold, feasibility_grid, feasibility_of
from benchmarks.runs.open_world_settings import Masking
from benchmarks.studies.program import program
from benchmarks.training.memory import peak_memory
from datasets.base import Candidates, Vocabulary
from datasets.feasibility import load_shipped, shipped_names
from methods.backbone.clip import Backbone
from methods.base import Batch, Losses, Method, MethodConfig, MethodInfo, Prepared

SCALE = 100.0
BLOCK = 4096  # pairs whose features are made at once


class MadeFeatures(Method):
    """Scores are 100 cosines of given image features with made text features. seconds: spent on each part."""

    info = MethodInfo(name="made", title="Made features", paper="", trains=False)

    def __init__(self, vocabulary: Vocabulary, width: int, seed: int = 0) -> None:
        super().__init__(cast(Backbone, nn.Identity()), vocabulary, MethodConfig())  # it has no backbone
        draw = torch.Generator().manual_seed(seed)
        self.states = torch.randn(len(vocabulary.states), width, generator=draw)
        self.objects = torch.randn(len(vocabulary.objects), width, generator=draw)
        self.seconds = {"text features": 0.0, "products": 0.0}

    def text(self, pairs: np.ndarray) -> Tensor:
        """Return the unit features [K, width] of pairs int64 [K, 2], made block by block."""
        features = torch.empty(len(pairs), self.states.shape[1])
        for start in range(0, len(pairs), BLOCK):
            states, objects = torch.from_numpy(pairs[start : start + BLOCK]).T
            block = self.states[states] + self.objects[objects]
            torch.div(block, block.norm(dim=1, keepdim=True), out=features[start : start + BLOCK])
        return features

    def image_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the images, which are features already."""
        return {"image": images}

    def training_loss(self, batch: Batch, candidates: Candidates) -> Losses:
        """Refuse: there is nothing to train."""
        raise NotImplementedError

    def prepare(self, candidates: Candidates) -> Prepared:
        """Return {"text": [K, width]}."""
        start = time.perf_counter()
        prepared = Prepared(candidates, {"text": self.text(candidates.pairs)})
        self.seconds["text features"] += time.perf_counter() - start
        return prepared

    def score(self, batch: Batch, prepared: Prepared, chunk: slice) -> Tensor:
        """Return 100 cosines [B, n]."""
        start = time.perf_counter()
        scores = (SCALE * batch.encoded["image"]) @ prepared.tensors["text"][chunk].T
        self.seconds["products"] += time.perf_counter() - start
        return scores


def world(table: str) -> Candidates:
    """Return the open world's candidates of a data set whose feasibility comes with the suite."""
    states, objects, seen, scores = load_shipped(table)
    pairs = np.stack(np.divmod(np.arange(seen.size, dtype=np.int64), len(objects)), axis=1)
    return Candidates(Vocabulary(states, objects), pairs, seen.reshape(-1), "open", scores.reshape(-1))


def truth(candidates: Candidates, images: int, seen_share: float) -> np.ndarray:
    """Draw the images' columns, int64 [images]: seen pairs, and unseen ones from the more feasible half."""
    rng = np.random.default_rng(0)
    unseen = np.flatnonzero(~candidates.seen)
    scores = feasibility_of(candidates)[unseen]
    likely = unseen[scores >= np.median(scores)]
    is_seen = rng.random(images) < seen_share
    return np.where(is_seen, rng.choice(np.flatnonzero(candidates.seen), images), rng.choice(likely, images))


def images_of(method: MadeFeatures, candidates: Candidates, columns: np.ndarray, noise: float) -> Tensor:
    """Return unit image features [N, width]: of the true pair, with noise; a seen pair's image has less of it."""
    draw = torch.Generator().manual_seed(1)
    features = method.text(candidates.pairs[columns])
    level = torch.from_numpy(np.where(candidates.seen[columns], 0.7, 1.0)).float()[:, None]
    features += noise * level * torch.randn(features.shape, generator=draw) / features.shape[1] ** 0.5
    return features / features.norm(dim=1, keepdim=True)


def batches(images: Tensor, candidates: Candidates, columns: np.ndarray, size: int) -> Iterator[Batch]:
    """Yield the images in batches."""
    states, objects = torch.from_numpy(candidates.pairs[columns]).T
    pairs = torch.from_numpy(columns)
    for start in range(0, len(columns), size):
        part = slice(start, start + size)
        yield Batch(states[part], objects[part], pairs[part], images=images[part])


def labels_of(candidates: Candidates, columns: np.ndarray) -> Labels:
    """Return what columns and images are."""
    return Labels(candidates.states, candidates.objects, *candidates.pairs[columns].T)


def measure(options: argparse.Namespace) -> None:
    """Score at full size, choose a threshold, and print seconds and peak memory."""
    candidates = world(options.table)
    method = MadeFeatures(candidates.vocabulary, options.width)
    columns = truth(candidates, options.images, options.seen_share)
    images = images_of(method, candidates, columns, options.noise)
    thresholds = feasibility_grid(candidates, options.thresholds)
    print(
        f"{options.table}: {len(columns):,} images, {len(candidates):,} pairs, width {options.width}, "
        f"{len(thresholds)} thresholds, {torch.get_num_threads()} threads"
    )
    whole = time.perf_counter()
    record = score_thresholds(
        method, batches(images, candidates, columns, options.batch), candidates, thresholds, pair_chunk=options.chunk
    )
    scored = time.perf_counter()
    choice = choose_threshold(record, labels_of(candidates, columns))
    done = time.perf_counter()

    products = method.seconds["products"]
    print(f"  {done - whole:.1f} s in all: {method.seconds['text features']:.1f} s text features, ", end="")
    print(f"{products:.1f} s products ({2e-9 * images.numel() * len(candidates) / products:.0f} GFLOP/s), ", end="")
    print(f"{scored - whole - sum(method.seconds.values()):.1f} s records, {done - scored:.1f} s choice")
    text = 4e-6 * len(candidates) * options.width
    matrix = 4e-6 * len(candidates) * len(columns)
    peak = peak_memory(torch.device("cpu"))
    known = "not known here" if peak is None else f"{peak / 1e6:,.0f} MB of the whole process"
    print(f"  peak memory {known}; in it the text ", end="")
    print(f"features, {text:,.0f} MB; the score matrix alone would be {matrix:,.0f} MB")
    metrics = evaluate(record.at(choice.index), labels_of(candidates, columns))
    print(f"  chosen threshold {choice.threshold:.4f}: AUC {metrics.auc:.4f}, S {metrics.best_seen:.4f}, ", end="")
    print(f"U {metrics.best_unseen:.4f} of at most {metrics.unseen_cap:.4f}")


def compare(options: argparse.Namespace) -> None:
    """Compare with a masked full matrix per threshold, on fewer images; print the largest differences."""
    candidates = world(options.check)
    method = MadeFeatures(candidates.vocabulary, options.width)
    columns = truth(candidates, options.check_images, 0.5)
    images, labels = images_of(method, candidates, columns, options.noise), labels_of(candidates, columns)
    thresholds = feasibility_grid(candidates, options.thresholds)
    record = score_thresholds(
        method, batches(images, candidates, columns, 64), candidates, thresholds, pair_chunk=options.chunk
    )
    matrix = ((SCALE * images) @ method.text(candidates.pairs).T).numpy()
    worst: dict[str, float] = {}
    scores = feasibility_of(candidates)
    for index, threshold in enumerate(thresholds):
        keep = candidates.seen | (scores >= np.float32(threshold))
        masked: dict[Masking, np.ndarray] = {
            "clean": np.where(keep, matrix, np.float32(-np.inf)),
            "official": official_feasibility_mask(matrix, scores, candidates.seen, threshold),
        }
        for masking, plain in masked.items():
            wanted = ImageScores.from_matrix(plain, candidates.seen, columns)
            for name, value in differences(record, index, masking, wanted, labels).items():
                worst[name] = max(worst.get(name, 0.0), value)
    print(
        f"{options.check}, {len(columns)} images, {len(candidates):,} pairs, {len(thresholds)} thresholds, clean and "
        "official masking; largest difference from the masked full matrix:"
    )
    print("  " + ", ".join(f"{name} {value:.2g}" for name, value in worst.items()))


def differences(
    record: ThresholdScores, index: int, masking: Masking, wanted: ImageScores, labels: Labels
) -> dict[str, float]:
    """Return the largest differences between the record under a threshold and the plain one."""
    ours = record.at(index, masking)
    found = {}
    for name in ("best_seen", "best_unseen", "logsumexp_seen", "logsumexp_unseen"):
        both = getattr(ours, name), getattr(wanted, name)
        finite = np.isfinite(both[1])
        if not np.array_equal(finite, np.isfinite(both[0])):
            raise ValueError(f"{name} is infinite for other images than in the plain record")
        apart = np.abs(both[0][finite] - both[1][finite])
        if name.startswith("logsumexp"):  # a float32 sum: its rounding grows with its size
            name, apart = f"{name} (relative)", apart / np.abs(both[1][finite])
        found[name] = float(np.max(apart, initial=0.0))
    for name in ("seen_winner", "unseen_winner", "ties"):
        found[f"images of other {name}"] = float((getattr(ours, name) != getattr(wanted, name)).sum())
    numbers = [evaluate(scores, labels) for scores in (ours, wanted)]
    for name, short in (("auc", "AUC"), ("best_hm", "HM"), ("best_seen", "S"), ("best_unseen", "U")):
        found[short] = abs(getattr(numbers[0], name) - getattr(numbers[1], name))
    return found


@program
def main() -> None:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", choices=shipped_names(), default="cgqa", help="whose pairs and feasibility")
    parser.add_argument("--images", type=int, default=5098)
    parser.add_argument("--seen-share", type=float, default=3954 / 5098, help="of the images")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--noise", type=float, default=8.0, help="in an image, times the length of its pair's feature")
    parser.add_argument("--thresholds", type=int, default=50)
    parser.add_argument("--batch", type=int, default=256, help="images at once")
    parser.add_argument("--chunk", type=int, default=PAIR_CHUNK, help="pairs at once")
    parser.add_argument("--check", choices=shipped_names(), default="mit_states", help="table of the comparison")
    parser.add_argument("--check-images", type=int, default=100, help="0: no comparison")
    options = parser.parse_args()
    if options.images:
        measure(options)
    if options.check_images:
        compare(options)


if __name__ == "__main__":
    main()
