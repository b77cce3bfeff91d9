"""What a score matrix looks like: masks of the released codes, probabilities, cosines, rows that were never filled.

Only the first images are looked at; masks and softmaxes are the same for all. What is certainly wrong is refused, what
only looks so is told.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from benchmarks.evaluation.image_scores import ImageScores
from errors import UserError, counted

IMAGES = 256
"""So many images are looked at."""

MARK = -1e9
"""At most so much is a mark: the released evaluators write -1e10 where a pair is no candidate."""

TOLERANCE = 0.01
"""How far a row of probabilities may be from 1; half precision rounds."""


class Signs:
    """Collects what the first rows of a matrix say, block by block.

    seen, unseen: the columns of candidates of either group.
    """

    def __init__(self, rows: int, columns: int, seen: np.ndarray, unseen: np.ndarray) -> None:
        self.rows = min(rows, IMAGES)
        self.seen, self.unseen = seen, unseen
        self.low = np.full(columns, np.inf, np.float32)
        self.high = np.full(columns, -np.inf, np.float32)
        self.sums = np.zeros(self.rows)
        # Of each row and group: smallest, largest and sum of the finite scores, and how many these are.
        self.groups = {name: np.tile([np.inf, -np.inf, 0.0, 0.0], (self.rows, 1)) for name in ("seen", "unseen")}

    def look(self, row: int, column: int, block: np.ndarray) -> None:
        """Look at a block that begins at a row and column."""
        block = block[: max(0, self.rows - row)]
        if not len(block):
            return
        stop = column + block.shape[1]
        np.minimum(self.low[column:stop], block.min(axis=0), out=self.low[column:stop])
        np.maximum(self.high[column:stop], block.max(axis=0), out=self.high[column:stop])
        with np.errstate(invalid="ignore"):
            self.sums[row : row + len(block)] += block.sum(axis=1, dtype=np.float64)
        for name, columns in (("seen", self.seen), ("unseen", self.unseen)):
            own = columns[(columns >= column) & (columns < stop)] - column
            if not len(own):
                continue
            values, found = block[:, own], self.groups[name][row : row + len(block)]
            valid = np.isfinite(values) & (values > MARK)
            found[:, 0] = np.minimum(found[:, 0], np.where(valid, values, np.inf).min(axis=1))
            found[:, 1] = np.maximum(found[:, 1], np.where(valid, values, -np.inf).max(axis=1))
            found[:, 2] += np.where(valid, values, 0).sum(axis=1, dtype=np.float64)
            found[:, 3] += valid.sum(axis=1)

    @cached_property
    def candidates(self) -> np.ndarray:
        """Columns of all pairs that count."""
        return np.concatenate([self.seen, self.unseen])

    @property
    def zeroed(self) -> np.ndarray:
        """Columns of unseen pairs that are 0 throughout, where others are not."""
        zero = (self.low == 0) & (self.high == 0)
        return self.unseen[zero[self.unseen]] if not zero[self.seen].all() else self.unseen[:0]

    def removed(self) -> int:
        """Return how many unseen pairs are -infinity for all images."""
        return int((self.high[self.unseen] == -np.inf).sum())

    def notices(self, scores: ImageScores, name: str) -> list[str]:
        """Return a sentence or two for each thing that a reader should know; name: of the file.

        scores: of all images. A mask of zeros that changes predictions is a `UserError`.
        """
        found = [*self._zeros(scores, name), *self._marks(), *self._seen_removed(), *self._doubled()]
        found += self._probabilities() or self._cosines()
        if constant := int(_constant(scores, len(self.seen), len(self.unseen)).sum()):
            found.append(
                f"{counted(constant, 'image has', 'images have')} one and the same score for every pair of a group: "
                "rows that were never filled look like that."
            )
        return [f"{name}: {text}" for text in found]

    def _zeros(self, scores: ImageScores, name: str) -> list[str]:
        zeroed = len(self.zeroed)
        if zeroed == 0:
            return []
        what = counted(zeroed, "unseen pair scores", "unseen pairs score")
        if zeroed == len(self.unseen):
            return [f"{what} 0 for all images, and there is no other unseen pair: U and AUC say nothing then."]
        # Zeroed pairs are at the top of their group where every other one is negative.
        taken = int((scores.best_unseen <= 0).sum())
        if taken:
            raise UserError(
                f"The scores {name} were multiplied by a mask of feasibility.",
                f"{what} 0 for all images, and for {counted(taken, 'image')} that is the best unseen score, because "
                "the others are negative: a pair that was to be removed wins.",
                "Save the scores before the mask, or write -infinity where it removes a pair (docs/your_scores.md).",
            )
        return [
            f"{what} 0 for all images, which is how the released codes mask by feasibility. All other best scores are "
            "positive, so no such pair wins and the curve is the same; the cap counts them as candidates. Write "
            "-infinity in their place to have it right."
        ]

    def _marks(self) -> list[str]:
        marked = int(((self.high[self.candidates] <= MARK) & (self.high[self.candidates] > -np.inf)).sum())
        if not marked:
            return []
        return [
            f"{counted(marked, 'candidate pair has', 'candidate pairs have')} a score of -1e9 or less for all images, "
            "the mark of the released evaluators for what is no candidate. It never wins, but it counts as a candidate "
            "in the cap; -infinity says what is meant."
        ]

    def _seen_removed(self) -> list[str]:
        gone = int((self.high[self.seen] == -np.inf).sum())
        if not gone:
            return []
        return [
            f"{counted(gone, 'training pair is', 'training pairs are')} -infinity for all images: no mask of "
            "feasibility removes training pairs."
        ]

    def _doubled(self) -> list[str]:
        seen, unseen = self.groups["seen"], self.groups["unseen"]
        both = (seen[:, 3] > 1) & (unseen[:, 3] > 1)
        if not both.any():
            return []
        seen, unseen = seen[both], unseen[both]
        ratio = float(np.median(seen[:, 2] / seen[:, 3]) / max(float(np.median(unseen[:, 2] / unseen[:, 3])), 1e-30))
        apart = float((seen[:, 0] > unseen[:, 1]).mean())
        if unseen[:, 0].min() < 0 or not 1.7 < ratio < 2.3 or apart < 0.95:
            return []
        return [
            f"every training pair scores above every unseen one, on the whole {ratio:.2f} times as much. The mask of "
            "the released codes doubles the scores of training pairs where the threshold is 0 or less; S and U do not "
            "change by that, AUC and HM do. Save the scores before the mask."
        ]

    def _probabilities(self) -> list[str]:
        if (
            self.low[self.candidates].min(initial=np.inf) < 0
            or self.high[self.candidates].max(initial=-np.inf) > 1 + TOLERANCE
        ):
            return []
        own = self.groups["seen"][:, 2] + self.groups["unseen"][:, 2]
        if not any((np.abs(sums - 1) <= TOLERANCE).all() for sums in (self.sums, own)):
            return []
        return [
            "the scores are probabilities: they are not negative and each image's add up to 1. A bias added to "
            "probabilities is another one for each image than a bias added to logits, so S and U are those of the "
            "logits, and AUC, HM and G are not. Published numbers are of logits: save these, or the logarithm."
        ]

    def _cosines(self) -> list[str]:
        low, high = self.low[self.candidates], self.high[self.candidates]
        low, high = low[np.isfinite(low) & (low > MARK)], high[np.isfinite(high)]
        if not len(low) or low.min() < -1 or high.max() > 1:
            return []
        return [
            "all scores lie between -1 and 1, as cosines do. The exact numbers do not depend on the scale; the "
            "published sweep does, and the calibration takes scores for logits: the released codes multiply by about "
            "100 first."
        ]


def _constant(scores: ImageScores, seen: int, unseen: int) -> np.ndarray:
    """Return which images have one score for their whole own group, bool [N]."""
    size = np.where(scores.is_seen, seen, unseen)
    return (scores.ties == size) & (size > 1)
