"""Weighted models: several RDMs with non-negative weights, fitted and tested on different classes.

Pearson correlation, cross-validated over classes within each bootstrap, as rsatoolbox's bootstrap_crossval
with method="corr", boot_type="pattern", k_rdm=1 and fit_optimize_positive. As a bootstrap only weights
pairs of classes (see bootstrap.py), a few sums per pair of classes hold everything a correlation needs: no
bootstrap looks at an RDM again.

The weights that correlate best under w >= 0 are those of non-negative least squares between centred RDMs, up
to scale: the closest point of a cone is the one at the smallest angle. So no search from several starting
points is needed. If nothing correlates positively on the training classes the weights are 0, and so is the
result.

Shape letters: P pairs of stimuli, K classes, Q pairs of classes, B bootstraps, M models, R RDMs of a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from experiments.rsa.bootstrap import ClassPairs, Floats, Ints, multiplicities

REPETITIONS = 2
"""Assignments of classes to folds per bootstrap, as in rsatoolbox."""


FEWEST_PER_FOLD = 3
"""A bootstrap with fewer distinct classes per fold is not evaluated (NaN), as in rsatoolbox."""


def default_folds(classes: int) -> int:
    """Folds of a bootstrap over so many classes: rsatoolbox's rule, on the share 1 - 1/e that is drawn."""
    drawn = (1 - 1 / np.e) * classes
    return int(2 + (drawn >= 12) + (drawn >= 24) + (drawn >= 40))


def split(classes: Ints, folds: int) -> list[Ints]:
    """Test classes of each fold, from classes in random order, as rsatoolbox splits them.

    The first floor(n / folds) classes are the first fold and so on; those left over at the end go one by one,
    from the back, to the first folds.
    """
    size = len(classes) // folds
    rest = len(classes) % folds
    return [
        np.concatenate([classes[f * size : (f + 1) * size], classes[len(classes) - 1 - f :][: int(f < rest)]])
        for f in range(folds)
    ]


def bootstrap_weighted(
    data_P: Floats,
    models_MRP: Sequence[Floats],
    classes_N: Ints,
    draws_BK: Ints,
    *,
    folds: int | None = None,
    seed: int = 0,
    assignments: Sequence[Sequence[Sequence[Ints]]] | None = None,
) -> Floats:
    """Cross-validated correlation of each weighted model with the data in each bootstrap, (B, M).

    Mean over folds and repetitions; NaN where fewer than three classes per fold were drawn.

    Args:
        data_P: RDM of the data.
        models_MRP: Of each model the RDMs it adds up, (R, P).
        classes_N: Class of each stimulus, 0 to K - 1.
        draws_BK: Classes drawn for each bootstrap.
        folds: Parts that the drawn classes are split into; left out: rsatoolbox's rule.
        seed: Decides the assignments to folds.
        assignments: Test classes as assignments[bootstrap][repetition][fold], instead of random ones.
    """
    groups = int(classes_N.max()) + 1
    folds = default_folds(groups) if folds is None else folds
    pairs = ClassPairs.of(classes_N)
    models = [WeightedModel(data_P, rdms_RP, pairs) for rdms_RP in models_MRP]
    multiplicity = multiplicities(draws_BK, groups)
    random = np.random.default_rng([seed, 1])
    result = np.full((len(draws_BK), len(models)), np.nan)
    for b, multiplicity_K in enumerate(multiplicity):
        drawn = np.flatnonzero(multiplicity_K)
        if len(drawn) < FEWEST_PER_FOLD * folds:
            continue
        if assignments is None:
            repetitions = [split(random.permutation(drawn), folds) for _ in range(REPETITIONS)]
        else:
            repetitions = [list(parts) for parts in assignments[b]]
        scores = []
        for test in (part for parts in repetitions for part in parts):
            tested = np.zeros(groups)
            tested[test] = multiplicity_K[test]
            test_Q, train_Q = (pairs.weights(m[None])[0] for m in (tested, multiplicity_K - tested))
            scores.append([model.score(train_Q, test_Q) for model in models])
        result[b] = np.mean(scores, axis=0)
    return result


class WeightedModel:
    """A weighted sum of RDMs to be compared with the data, both kept as sums per class pair only."""

    def __init__(self, data_P: Floats, rdms_RP: Floats, pairs: ClassPairs) -> None:
        # Row 0 is the data. Centring and scaling change no correlation, and keep digits.
        rows = np.vstack([data_P, np.atleast_2d(rdms_RP)])
        rows = rows - rows.mean(axis=1, keepdims=True)
        scale = np.sqrt((rows**2).mean(axis=1, keepdims=True))
        rows = rows / np.where(scale > 0, scale, 1)
        count = len(pairs.first)

        def sums(values_P: NDArray[np.float64]) -> Floats:
            return np.bincount(pairs.of_pair, values_P, minlength=count).astype(np.float64)

        self.sizes_Q = pairs.sizes
        self.sums_RQ = np.stack([sums(row) for row in rows])
        self.products_RRQ = np.stack([[sums(a * b) for b in rows] for a in rows])

    def score(self, train_Q: Floats, test_Q: Floats) -> float:
        """Correlation on the test pairs with the weights that fit the training pairs best."""
        weights = _best_weights(self._covariance(train_Q))
        covariance = self._covariance(test_Q)
        shared, own, data = (
            covariance[0, 1:] @ weights,
            weights @ covariance[1:, 1:] @ weights,
            covariance[0, 0],
        )
        return float(shared / np.sqrt(own * data)) if own > 0 and data > 0 else 0.0

    def _covariance(self, weights_Q: Floats) -> Floats:
        """Covariances of data and RDMs over the weighted pairs, times their number, (1 + R, 1 + R)."""
        total = weights_Q @ self.sizes_Q
        sums = self.sums_RQ @ weights_Q
        covariance: Floats = self.products_RRQ @ weights_Q - np.outer(sums, sums) / total
        return covariance


def _best_weights(covariance: Floats) -> Floats:
    """Non-negative least squares from the normal equations: minimise w'Gw / 2 - g'w over w >= 0."""
    gram, target = covariance[1:, 1:], covariance[0, 1:]
    if len(target) == 1:
        return np.array([1.0 if target[0] > 0 else 0.0])
    # A root of G turns the quadratic form into a least-squares problem; the floor keeps G invertible where
    # RDMs are copies of each other.
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 1e-12 * values.max())
    if values.max() <= 0:
        return np.zeros(len(target))
    root = np.sqrt(values)[:, None] * vectors.T
    return nnls(root, (vectors.T @ target) / np.sqrt(values))[0]
