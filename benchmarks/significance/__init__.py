"""Is a difference real? Resampling and tests on the per-image records of runs: arrays in, records out, no printing.

`compare` gives all that a table of one test set says; `friedman`, `nemenyi` and `pairwise_wilcoxon` are for methods
over several data sets. docs/statistics.md says in plain words which question each answers and how well it was checked.
"""

from benchmarks.significance.bootstrap import RESAMPLES, Resampled, average, bootstrap, draws, over_seeds
from benchmarks.significance.closed_form import NormalEstimate, auc_difference, auc_estimate
from benchmarks.significance.compare import Resampling, compare
from benchmarks.significance.components import (
    Components,
    components,
    difference_components,
    pooled_variance,
    seeds_needed,
    winner_shares,
    winner_shares_elsewhere,
)
from benchmarks.significance.intervals import Estimate, Interval, difference, estimate
from benchmarks.significance.multiple import holm
from benchmarks.significance.paired import (
    McNemar,
    SeedTest,
    compare_over_seeds,
    mcnemar,
    mcnemar_by_group,
    mean_over_seeds,
    predictions,
    right_at_own_bias,
    sign_flip,
)
from benchmarks.significance.ranks import (
    Friedman,
    Nemenyi,
    PairwiseWilcoxon,
    friedman,
    nemenyi,
    pairwise_wilcoxon,
    wilcoxon,
)
from benchmarks.significance.reweighting import HEADLINE, STATISTICS, Reweighting, Units
from benchmarks.significance.runs import ScoredRun, check_same_images
from benchmarks.significance.summaries import Comparison, Difference, MethodSummary, Source, StatisticSummary
