"""How far raw pixels go: a linear probe, the control that a data set is not trivial.

    python -m benchmarks.studies.pixel_probe

Ridge regression from pixels to one-hot states and to one-hot objects; a pair's score is the sum of its state's and its
object's output. The penalty is chosen by validation AUC, as a method's settings are.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.evaluation.metrics import ImageScores, Labels, Metrics, evaluate
from benchmarks.studies.program import program
from datasets.base import CompositionDataset, Phase
from registry import DATASETS

PENALTIES = (1e1, 1e2, 1e3, 1e4, 1e5)


def pixels(dataset: CompositionDataset, phase: Phase, side: int = 64) -> np.ndarray:
    """Return the images of a phase as float64 [N, 3 side side] in [0, 1]."""
    images = (dataset.load_image(phase, index).resize((side, side)) for index in range(len(dataset.splits[phase])))
    return np.stack([np.asarray(image, dtype=np.float64).reshape(-1) / 255.0 for image in images])


def ridge(
    train: np.ndarray, targets: np.ndarray, others: Sequence[np.ndarray], penalties: Sequence[float]
) -> list[list[np.ndarray]]:
    """Return, for each penalty, the outputs [N, K] of ridge regression for each of `others` [N, D].

    Solved in the dual, (X X^T + penalty I)^-1 Y with centred X and Y, because there are fewer images than pixels.
    """
    centre, mean = train.mean(axis=0), targets.mean(axis=0)
    centred = train - centre
    values, vectors = np.linalg.eigh(centred @ centred.T)
    rotated = vectors.T @ (targets - mean)
    outputs = []
    for penalty in penalties:
        weights = centred.T @ (vectors @ (rotated / (np.maximum(values, 0.0) + penalty)[:, None]))
        outputs.append([(other - centre) @ weights + mean for other in others])
    return outputs


def probe(dataset: CompositionDataset, side: int = 64) -> tuple[float, Metrics, Metrics]:
    """Return (chosen penalty, validation metrics, test metrics) of the probe in the closed world."""
    split = dataset.splits["train"]
    states, objects = len(dataset.vocabulary.states), len(dataset.vocabulary.objects)
    targets = np.concatenate([np.eye(states)[split.states], np.eye(objects)[split.objects]], axis=1)
    phases: tuple[Phase, Phase] = ("val", "test")
    outputs = ridge(
        pixels(dataset, "train", side), targets, [pixels(dataset, phase, side) for phase in phases], PENALTIES
    )
    found: list[tuple[float, Metrics, Metrics]] = []
    for penalty, by_phase in zip(PENALTIES, outputs, strict=True):
        metrics = []
        for phase, output in zip(phases, by_phase, strict=True):
            candidates, images = dataset.candidates(phase), dataset.splits[phase]
            scores = output[:, candidates.states] + output[:, states + candidates.objects]
            columns = candidates.index_of(images.states, images.objects)
            record = ImageScores.from_matrix(scores, candidates.seen, columns)
            metrics.append(
                evaluate(record, Labels(candidates.states, candidates.objects, images.states, images.objects))
            )
        val, test = metrics
        found.append((penalty, val, test))
    return max(found, key=lambda item: item[1].auc)


@program
def main() -> None:
    """Print the probe's test numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="icon_states")
    parser.add_argument("--side", type=int, default=64, help="pixels a side")
    options = parser.parse_args()
    penalty, val, test = probe(DATASETS.get(options.dataset)(), options.side)
    print(f"ridge penalty {penalty:g}, chosen by validation AUC {val.auc:.4f}")
    for name in ("auc", "best_hm", "best_seen", "best_unseen"):
        print(f"test {name} {getattr(test, name):.4f}")
    print(f"test state accuracy {test.at_zero.state:.4f}, object accuracy {test.at_zero.object:.4f}")


if __name__ == "__main__":
    main()
