#!/usr/bin/env bash
# torchmetrics: AUROC and average precision of CLIP's scores are near chance, or depend on the size of the batches.
#
# Surprising: these metrics need nothing but the order of the scores, yet a batch with any number outside of 0 .. 1 goes
# through a sigmoid first, with several labels (mean average precision of attributes) too.
# - CLIP's logits are 100 times a cosine, 15 to 35, and in single precision a sigmoid is exactly 1 from about 17 on.
#   Nearly all scores become ties: AUROC is near 0.5 and average precision near the share of positives, for any model.
# - Cosines without the factor lie on both sides of 0 with some models. Each batch is looked at for itself: one with a
#   negative number becomes 0.5 and more, another stays as it is below 0.5. The result changes with the size of batches.
# scikit-learn has one number for all of them. Ranks brought to 0 .. 1 before the metric avoid it.
#
# Here: nothing passes through a sigmoid. G, which is an AUROC of seen against unseen, comes from a sort of the scores
# themselves (benchmarks/evaluation/curve.py), the AUROC of feasibility from ranks.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torchmetrics==1.9.0 torch==2.14.1 scikit-learn==1.9.1 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import sys
from importlib.metadata import version

import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision, MultilabelAveragePrecision

IMAGES = 2000
BATCHES = (IMAGES, 200, 50, 1)

labels = (torch.arange(IMAGES) % 4 == 0).long()  # a quarter has the attribute
noise = torch.randn(IMAGES, generator=torch.Generator().manual_seed(0))
cosines = 0.22 + 0.04 * labels + 0.03 * noise
around_zero = cosines - 0.14
ranks = cosines.argsort().argsort() / (IMAGES - 1)


def judged(metric, scores: torch.Tensor, batch: int, targets: torch.Tensor = labels) -> float:
    for part, wanted in zip(scores.split(batch), targets.split(batch), strict=True):
        metric.update(part, wanted)
    return round(metric.compute().item(), 2)


print(", ".join(f"{name} {version(name)}" for name in ("torchmetrics", "torch", "scikit-learn")))
same = True
for name, scores, aurocs, precisions in (
    ("cosines", cosines, [0.82] * 4, [0.59] * 4),
    ("100 times them", 100 * cosines, [0.52] * 4, [0.26] * 4),
    ("cosines around 0", around_zero, [0.82, 0.66, 0.74, 0.81], [0.59, 0.43, 0.41, 0.56]),
    ("ranks", ranks, [0.82] * 4, [0.59] * 4),
):
    own = [round(float(one(labels, scores)), 2) for one in (roc_auc_score, average_precision_score)]
    seen = [[judged(metric(), scores, batch) for batch in BATCHES] for metric in (BinaryAUROC, BinaryAveragePrecision)]
    print(f"{name}: {scores.min():.2f} to {scores.max():.2f}, {(scores < 0).sum()} negative; batches of {BATCHES}")
    for title, wanted, found in zip(("AUROC", "average precision"), own, seen, strict=True):
        print(f"  {title:<18} scikit-learn {wanted:.2f}, torchmetrics {found}")
    same = same and own == [0.82, 0.59] and seen == [aurocs, precisions]
ones = ((100 * cosines).sigmoid() == 1).float().mean().item()
two = torch.stack([100 * cosines, 100 * cosines.flip(0)], 1)
mean = judged(MultilabelAveragePrecision(2), two, IMAGES, torch.stack([labels, labels.flip(0)], 1))
print(f"{100 * ones:.0f} % of the logits become exactly 1; mean average precision of two labels {mean}")
same = same and ones > 0.95 and mean == 0.26
print("as described" if same else "NO LONGER AS DESCRIBED")
sys.exit(not same)
PYTHON
