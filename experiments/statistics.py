"""Tests and intervals of the analysis, each with its formula.

- p-values of resampling tests: (b + 1) / (n + 1), b of n draws as extreme as what was observed (Phipson &
  Smyth 2010). It is never 0 and never above 1. rsatoolbox's test_zero(test_type="bootstrap") and the
  thesis' code divide by n: the same up to 1 / n, but with b = n above 1.
- several tests at once: Benjamini-Hochberg, as adjusted p-values.
- trends over time steps: Kendall's tau, exact and one-sided, with ties too. The Mann-Kendall test that the
  thesis' code took uses a normal approximation, which for a perfect trend of 7 steps gives p = .0027 where
  .0004 is exact (both two-sided). scipy's one for ties is too bold: p = .035 for 1, 2, 3, 3, where .083 is
  exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CONFIDENCE = 0.95


def resampling_p(extreme: int, draws: int) -> float:
    """(b + 1) / (n + 1) for b = `extreme` of n = `draws`."""
    return (extreme + 1) / (draws + 1)


def benjamini_hochberg(p_values: Sequence[float] | Floats) -> Floats:
    """Adjusted p-values; those at most q are significant with a false discovery rate of q."""
    p = np.asarray(p_values, dtype=np.float64)
    return stats.false_discovery_control(p, method="bh") if p.size else p


def accuracy_interval(hits: int, total: int) -> tuple[float, float]:
    """95% confidence interval of an accuracy (Wilson)."""
    interval = stats.binomtest(hits, total).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def balanced_accuracy(decisions: Ints, classes: Ints) -> float:
    """Mean over the classes that occur of the share of their images that was recognised."""
    return float(np.mean([np.mean(decisions[classes == c] == c) for c in np.unique(classes)]))


def chance_accuracy(decisions: Ints, classes: Ints) -> float:
    """Accuracy expected if decisions had nothing to do with images: the mean of the permutation test's null.

    sum over classes of (share of decisions) * (share of images). With unequal classes this is not 1 / K.
    """
    kinds = np.unique(classes)
    return float(sum(np.mean(decisions == c) * np.mean(classes == c) for c in kinds))


class Permutations:
    """Permutation test of accuracy: which share of shuffled label sequences does a model hit as often?

    Hits are counted as integers, so that equal counts compare equal. The same shuffles serve all models,
    stimuli and time steps.
    """

    def __init__(self, classes_N: Ints, permutations: int, seed: int) -> None:
        """Args: classes_N: true classes; permutations: n; seed: decides the shuffles."""
        self.classes_N = classes_N
        self.permutations = permutations
        # Classes as small numbers: 10,000 shuffles of 1,000 images are 20 MB.
        self._kinds, codes = np.unique(classes_N, return_inverse=True)
        shuffled = np.broadcast_to(codes.astype(np.int16), (permutations, len(codes)))
        self._shuffled = np.random.default_rng(seed).permuted(shuffled, axis=1)

    def null_hits(self, decisions_N: Ints) -> Ints:
        """Hits of the decisions on each shuffled sequence of labels, (permutations,)."""
        at = np.searchsorted(self._kinds, decisions_N).clip(max=len(self._kinds) - 1)
        codes = np.where(self._kinds[at] == decisions_N, at, -1).astype(np.int16)
        return (self._shuffled == codes).sum(axis=1)

    def p_value(self, decisions_N: Ints) -> float:
        """p of as many hits or more under shuffled labels."""
        observed = int((decisions_N == self.classes_N).sum())
        return resampling_p(int((self.null_hits(decisions_N) >= observed).sum()), self.permutations)


class Trend(NamedTuple):
    """A monotonic trend over time steps."""

    tau: float
    """Kendall's tau, -1 to 1; NaN for fewer than two steps or constant values."""

    p: float
    """One-sided p of an increase."""

    method: str
    """"exact", or "none" where nothing could be tested."""


def trend(values: Sequence[float] | Floats) -> Trend:
    """Whether values rise over time steps."""
    y = np.asarray(values, dtype=np.float64)
    if len(y) < 2 or len(np.unique(y)) < 2 or not np.isfinite(y).all():
        return Trend(float("nan"), 1.0, "none")
    tau = stats.kendalltau(np.arange(len(y)), y).statistic
    falls = int(np.triu(y[:, None] > y[None, :], 1).sum())
    return Trend(float(tau), _share_with_falls(falls, np.unique(y, return_counts=True)[1].tolist()), "exact")


def _share_with_falls(falls: int, ties: Sequence[int]) -> float:
    """Share of all orders of some values in which at most `falls` pairs fall.

    The orders with 0, 1, 2, ... falling pairs are the coefficients of the Gaussian multinomial
    prod (1 - q^k for k to n) / prod (1 - q^k for k to t, for every t), as power series to q^falls.

    Args:
        ties: t: how often each value occurs, n in all.
    """
    orders = [1] + [0] * falls
    for k in range(1, sum(ties) + 1):
        for j in range(falls, k - 1, -1):
            orders[j] -= orders[j - k]
    for tied in ties:
        for k in range(1, tied + 1):
            for j in range(k, falls + 1):
                orders[j] += orders[j - k]
    return sum(orders) * math.prod(map(math.factorial, ties)) / math.factorial(sum(ties))


class BootstrapSummary(NamedTuple):
    """What a bootstrap distribution says of one comparison."""

    mean: float
    low: float
    high: float
    p_zero: float
    """p of the hypothesis that the value is not above 0."""

    draws: int
    """Bootstraps that could be evaluated."""


def summarize_bootstrap(evaluations_B: Floats) -> BootstrapSummary:
    """Mean, 95% percentile interval and test against zero of (B,) evaluations, NaN left out.

    The interval is rsatoolbox's get_ci(0.95, "bootstrap"): quantiles with -inf and inf added to the draws.
    """
    valid = evaluations_B[np.isfinite(evaluations_B)]
    if not len(valid):
        return BootstrapSummary(float("nan"), float("nan"), float("nan"), 1.0, 0)
    framed = np.concatenate([[-np.inf], valid, [np.inf]])
    with np.errstate(invalid="ignore"):
        low, high = np.quantile(framed, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    p = resampling_p(int((valid <= 0).sum()), len(valid))
    return BootstrapSummary(float(valid.mean()), float(low), float(high), p, len(valid))
