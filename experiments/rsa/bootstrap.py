"""Rank correlation rho-a of RDMs, and its bootstrap over classes by two exact and fast algorithms.

    rho-a = 12 / (n^3 - n) * sum over the n pairs of (mid-rank - mean rank) of one RDM times that of the other

(Schuett et al. 2023, eLife 12:e82566: the expected Spearman correlation when ties are broken at random).

A bootstrap draws classes with replacement and takes all stimuli of each. If class c comes m_c times, the pair
of stimuli (i, j) comes m_c(i) m_c(j) times; copies of one stimulus are no pair. So a bootstrap only weights
pairs, and ranks need not be sorted again:

- by order: pairs are sorted once, a weighted mid-rank is a cumulative sum of weights in that order;
- by class pairs: all stimulus pairs p of one pair of classes a have one weight w_a. With D[p, a] = number of
  stimulus pairs of a that lie below p, ties by half, minus half of all in a, the centred rank of p is
  sum_a w_a D[p, a]. Hence rho-a ~ sum_q w_q w' T_q w with T_q = D1_q' D2_q, which is computed once for all
  bootstraps.

Shape letters: N stimuli, P pairs of stimuli, K classes, Q pairs of classes, B bootstraps, M models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_CLASS_PAIRS = 300
"""Above this the Q x Q x Q table of the algorithm by class pairs costs more than it saves (216 MB here)."""

FEWEST_CLASSES = 3
"""A bootstrap with fewer distinct classes is not evaluated (NaN), as in rsatoolbox."""


def rho_a(x_P: Floats, y_P: Floats) -> float:
    """rho-a of two RDMs, (P,) each. P must be at least 2."""
    n = len(x_P)
    mean = (n + 1) / 2
    return float(np.dot(rankdata(x_P) - mean, rankdata(y_P) - mean) * 12 / (n**3 - n))


def draw(groups: int, bootstraps: int, seed: int) -> Ints:
    """Indices of drawn classes (or images), (B, groups), each uniform with replacement."""
    return np.random.default_rng(seed).integers(groups, size=(bootstraps, groups))


def multiplicities(draws_BK: Ints, groups: int) -> Floats:
    """How often each class comes in each bootstrap, (B, K)."""
    rows = np.arange(len(draws_BK))[:, None]
    counts = np.bincount((rows * groups + draws_BK).ravel(), minlength=len(draws_BK) * groups)
    return counts.reshape(len(draws_BK), groups).astype(np.float64)


@dataclass(frozen=True)
class ClassPairs:
    """Which pair of classes every pair of stimuli belongs to; absent pairs of classes have no number."""

    first: Ints
    """(Q,) lower class of each pair of classes."""

    second: Ints
    """(Q,) higher class; the same as `first` for pairs within a class."""

    of_pair: Ints
    """(P,) number of the pair of classes of each pair of stimuli."""

    @classmethod
    def of(cls, classes_N: Ints) -> ClassPairs:
        """From the class of every stimulus, 0 to K - 1."""
        i, j = np.triu_indices(len(classes_N), 1)
        low, high = np.minimum(classes_N[i], classes_N[j]), np.maximum(classes_N[i], classes_N[j])
        base = int(classes_N.max()) + 1
        codes, of_pair = np.unique(low * base + high, return_inverse=True)
        return cls(codes // base, codes % base, of_pair.astype(np.int64))

    def weights(self, multiplicity_BK: Floats) -> Floats:
        """How often each pair of classes comes in each bootstrap, (B, Q)."""
        return multiplicity_BK[:, self.first] * multiplicity_BK[:, self.second]

    @property
    def sizes(self) -> Floats:
        """(Q,) pairs of stimuli in each pair of classes."""
        return np.bincount(self.of_pair, minlength=len(self.first)).astype(np.float64)


def bootstrap_rho_a(
    data_P: Floats, models_MP: Floats, classes_N: Ints, draws_BK: Ints, algorithm: str = "auto"
) -> Floats:
    """rho-a of each model with the data in each bootstrap, (B, M); NaN where fewer than 3 classes were drawn.

    Equals rsatoolbox's eval_bootstrap_pattern(method="rho-a") with the same draws.

    Args:
        data_P: RDM of the data.
        models_MP: RDMs of the models, one per row.
        classes_N: Class of each stimulus, 0 to K - 1, each occurring. To draw single images: arange(N).
        draws_BK: Classes drawn for each bootstrap.
        algorithm: "order", "class_pairs", or "auto" for what is faster.
    """
    groups = int(classes_N.max()) + 1
    multiplicity = multiplicities(draws_BK, groups)
    pairs = ClassPairs.of(classes_N)
    if algorithm == "auto":
        algorithm = "class_pairs" if len(pairs.first) <= MAX_CLASS_PAIRS else "order"
    evaluate = {"order": _by_order, "class_pairs": _by_class_pairs}[algorithm]
    stimuli_K = np.bincount(classes_N, minlength=groups)
    n = ((multiplicity @ stimuli_K) ** 2 - multiplicity**2 @ stimuli_K) / 2  # copies are no pair
    with np.errstate(divide="ignore", invalid="ignore"):
        result = evaluate(data_P, models_MP, pairs, multiplicity) * (12 / (n**3 - n))[:, None]
    result[(multiplicity > 0).sum(axis=1) < FEWEST_CLASSES] = np.nan
    return result


class _Order:
    """The values of an RDM sorted once: where each pair stands, and where its ties begin and end."""

    def __init__(self, values_P: Floats) -> None:
        self.by_value = np.argsort(values_P, kind="stable")
        ordered = values_P[self.by_value]
        new = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        run = np.repeat(np.arange(len(new)), np.diff(np.append(new, len(ordered))))
        begins, ends = new[run], np.append(new[1:], len(ordered))[run]
        self.begin = np.empty(len(ordered), dtype=np.int64)
        self.end = np.empty(len(ordered), dtype=np.int64)
        self.begin[self.by_value], self.end[self.by_value] = begins, ends

    def centred_ranks(self, weights_P: Floats) -> Floats:
        """Weighted mid-ranks of all pairs minus their mean, (P,)."""
        below = np.concatenate([[0.0], np.cumsum(weights_P[self.by_value])])
        return (below[self.begin] + below[self.end] - below[-1]) / 2


def _by_order(data_P: Floats, models_MP: Floats, pairs: ClassPairs, multiplicity_BK: Floats) -> Floats:
    data, models = _Order(data_P), [_Order(model) for model in models_MP]
    result = np.empty((len(multiplicity_BK), len(models)))
    for b in range(len(result)):
        # One bootstrap at a time: over images, Q is P, and the weights of 1,000 would be gigabytes.
        weights_P = pairs.weights(multiplicity_BK[b : b + 1])[0, pairs.of_pair]
        weighted = weights_P * data.centred_ranks(weights_P)
        result[b] = [weighted @ model.centred_ranks(weights_P) for model in models]
    return result


def _by_class_pairs(data_P: Floats, models_MP: Floats, pairs: ClassPairs, multiplicity_BK: Floats) -> Floats:
    weights_BQ = pairs.weights(multiplicity_BK)
    by_class_pair = np.argsort(pairs.of_pair, kind="stable")
    borders = np.concatenate([[0], np.cumsum(pairs.sizes)]).astype(np.int64)
    slices = [slice(low, high) for low, high in zip(borders[:-1], borders[1:], strict=True)]
    data = _counts_below(data_P, pairs, by_class_pair)
    result = np.empty((len(weights_BQ), len(models_MP)))
    for m, model_P in enumerate(models_MP):
        model = _counts_below(model_P, pairs, by_class_pair)
        # Entries are half of integers: float64 products of them are exact.
        table_QQQ = np.stack([data[:, s].astype(np.float64) @ model[:, s].T for s in slices])
        result[:, m] = _trilinear(table_QQQ, weights_BQ) / 4
    return result


def _counts_below(values_P: Floats, pairs: ClassPairs, by_class_pair: Ints) -> NDArray[np.float32]:
    """2 D[a, p] for pairs p sorted by class pair, (Q, P): integers, which float32 holds exactly to 2^24."""
    order = _Order(values_P)
    begin, end = order.begin[by_class_pair], order.end[by_class_pair]
    of_ordered = pairs.of_pair[order.by_value]
    result = np.empty((len(pairs.first), len(values_P)), dtype=np.float32)
    below = np.zeros(len(values_P) + 1, dtype=np.int32)
    for a in range(len(result)):
        np.cumsum(of_ordered == a, out=below[1:])
        result[a] = below[begin] + below[end] - below[-1]
    return result


def _trilinear(table_QQQ: Floats, weights_BQ: Floats) -> Floats:
    """sum over q, i, j of w_q w_i w_j table[q, i, j] for every bootstrap, (B,)."""
    count = len(table_QQQ)
    result = np.empty(len(weights_BQ))
    for start in range(0, len(weights_BQ), 128):  # 128 x Q x Q values at a time: 45 MB for 20 classes
        part = weights_BQ[start : start + 128]
        matrices = (part @ table_QQQ.reshape(count, -1)).reshape(-1, count, count)
        result[start : start + 128] = np.einsum("bij,bi,bj->b", matrices, part, part, optimize=True)
    return result
