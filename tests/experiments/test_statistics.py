import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments.statistics import (
    Permutations,
    accuracy_interval,
    balanced_accuracy,
    benjamini_hochberg,
    chance_accuracy,
    resampling_p,
    summarize_bootstrap,
    trend,
)

FDR_CASES = json.loads((Path(__file__).parent / "golden" / "fdr.json").read_text())


@pytest.mark.parametrize("case", FDR_CASES)
def test_benjamini_hochberg_finds_what_the_thesis_code_found(case: dict) -> None:
    assert (benjamini_hochberg(case["p"]) <= case["q"]).tolist() == case["significant"]


def test_benjamini_hochberg_is_the_step_up_procedure() -> None:
    p = np.random.default_rng(0).random(9) ** 3
    ordered = np.sort(p)
    for q in (0.01, 0.05, 0.2):
        passing = [k for k in range(1, 10) if ordered[k - 1] <= k / 9 * q]
        threshold = ordered[max(passing) - 1] if passing else -1
        assert ((benjamini_hochberg(p) <= q) == (p <= threshold)).all()


def test_permutation_p_is_that_of_all_permutations() -> None:
    classes = np.array([1, 1, 2, 2, 3, 5, 5])
    decisions = np.array([1, 1, 2, 3, 3, 5, 0])  # 0: none of the classes
    hits = [sum(np.array(order) == decisions) for order in itertools.permutations(classes)]
    exact = np.mean(np.array(hits) >= (classes == decisions).sum())
    test = Permutations(classes, 40_000, seed=0)
    assert test.p_value(decisions) == pytest.approx(exact, abs=4 * math.sqrt(exact / 40_000))
    assert test.null_hits(decisions).mean() / 7 == pytest.approx(
        chance_accuracy(decisions, classes), abs=0.005
    )


def test_permutation_test_agrees_with_scipys() -> None:
    random = np.random.default_rng(2)
    classes = random.integers(4, size=30)
    decisions = np.where(random.random(30) < 0.3, classes, random.integers(4, size=30))
    scipys = stats.permutation_test(
        (decisions,), lambda d: float((d == classes).sum()), permutation_type="pairings",
        alternative="greater", n_resamples=20_000, rng=np.random.default_rng(0), vectorized=False,
    )  # fmt: skip
    ours = Permutations(classes, 20_000, seed=1).p_value(decisions)
    assert ours == pytest.approx(scipys.pvalue, abs=0.01)


def test_permutation_p_is_one_for_constant_decisions_and_the_least_possible_for_perfect_ones() -> None:
    classes = np.repeat(np.arange(5), 20)
    test = Permutations(classes, 999, seed=0)
    assert test.p_value(np.full(100, 3)) == 1.0  # every shuffle has as many hits
    assert test.p_value(classes) == 1 / 1000


def test_the_same_seed_gives_the_same_p() -> None:
    classes, decisions = np.arange(40) % 4, np.arange(40) % 3
    p = {Permutations(classes, 500, seed=7).p_value(decisions) for _ in range(3)}
    assert len(p) == 1


def test_resampling_p_stays_within_its_bounds() -> None:
    assert resampling_p(0, 999) == 0.001
    assert resampling_p(1000, 1000) == 1.0


def test_accuracies_by_hand() -> None:
    classes = np.array([1, 1, 1, 2])
    decisions = np.array([1, 1, 3, 1])
    assert balanced_accuracy(decisions, classes) == pytest.approx((2 / 3 + 0) / 2)
    assert chance_accuracy(decisions, classes) == pytest.approx(3 / 4 * 3 / 4)
    low, high = accuracy_interval(8, 10)  # Wilson 1927: (0.490, 0.943)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_trend_of_a_perfect_rise_is_one_ordering_of_all() -> None:
    rise = trend([1, 2, 3, 4, 5, 6, 7])
    assert rise.tau == 1
    assert rise.p == pytest.approx(1 / math.factorial(7))
    assert trend([7, 6, 5, 4, 3, 2, 1]).p == 1  # a fall is no rise
    assert math.isnan(trend([2, 2, 2]).tau)
    assert math.isnan(trend([2]).tau)


@pytest.mark.parametrize(
    "values",
    [(1, 2, 2), (1, 2, 3, 3), (3, 1, 1, 2), (2, 2, 1), (1, 2, 3, 3, 4, 5), (1, 0, 1, 0, 1, 2), (4, 1, 3, 2)],
)
def test_trend_is_exact_with_and_without_ties(values: tuple[int, ...]) -> None:
    def rise(order: tuple[int, ...]) -> int:
        return sum((b > a) - (b < a) for a, b in itertools.combinations(order, 2))

    orders = list(itertools.permutations(values))
    expected = sum(rise(order) >= rise(values) for order in orders) / len(orders)
    assert trend(values).p == pytest.approx(expected)
    if len(set(values)) == len(values):
        theirs = stats.kendalltau(range(len(values)), values, method="exact", alternative="greater")
        assert trend(values).p == pytest.approx(theirs.pvalue)


def test_bootstrap_summary_leaves_out_what_could_not_be_evaluated() -> None:
    summary = summarize_bootstrap(np.array([np.nan, *np.linspace(-0.1, 0.89, 100)]))
    assert summary.draws == 100
    assert summary.mean == pytest.approx(0.395)
    assert summary.p_zero == pytest.approx(12 / 101)  # -0.10 to 0.00 are eleven
    assert summarize_bootstrap(np.array([np.nan])).p_zero == 1
