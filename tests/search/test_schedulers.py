import math
from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler

from search.schedulers import Decision, build_scheduler
from search.schedulers.halving import Brackets, PromotingASHA, StoppingASHA
from search.schedulers.median import MedianStopping
from tests.search.conftest import make_spec


def test_stopping_asha_decides_as_ray_tunes_on_a_thousand_reports() -> None:
    ours = StoppingASHA(1, 3, 27)
    theirs = AsyncHyperBandScheduler(
        time_attr="t",
        metric="v",
        mode="max",
        max_t=27,
        grace_period=1,
        reduction_factor=3,
        stop_last_trials=False,
    )
    generator, seen = np.random.default_rng(0), set()
    trials = [SimpleNamespace(trial_id=str(i)) for i in range(60)]
    for trial in trials:
        theirs.on_trial_add(None, trial)
    alive, resource = set(range(60)), dict.fromkeys(range(60), 0)
    while alive:
        number = int(generator.choice(sorted(alive)))
        resource[number] += 1
        value = float(generator.normal())
        expected = theirs.on_trial_result(None, trials[number], {"t": resource[number], "v": value})
        assert ours.report(number, resource[number], value).name == expected
        seen.add(expected)
        if expected == "STOP" or resource[number] == 26:
            alive.discard(number)
    assert seen == {"CONTINUE", "STOP"}


def test_promoting_asha_pauses_at_rungs_and_promotes_the_best_third() -> None:
    asha = PromotingASHA(1, 3, 9)
    values = [0.5, 0.9, 0.1, 0.7, 0.8, 0.2]
    promoted = []
    for number, value in enumerate(values):
        assert asha.report(number, 1, value) is Decision.PAUSE
        while (chosen := asha.next_promotion()) is not None:
            asha.promoted(chosen)
            promoted.append(chosen)
    assert promoted == [1, 4]  # 0.9 of the first three, then 0.8 of six; 0.7 is third
    assert asha.report(1, 2, 0.91) is Decision.CONTINUE
    assert asha.report(1, 3, 0.92) is Decision.PAUSE
    assert asha.next_promotion() is None  # one of three at the second rung
    assert asha.last_promotion() == 1
    asha.promoted(1)
    asha.ended(1, complete=True)
    assert asha.last_promotion() is None


def test_an_ended_trial_is_never_promoted() -> None:
    asha = PromotingASHA(1, 2, 4)
    for number, value in enumerate([0.9, 0.1]):
        asha.report(number, 1, value)
    asha.ended(0, complete=False)
    assert asha.next_promotion() is None


@pytest.mark.parametrize(
    ("resource", "rung"), [(0.9, None), (1, 0), (2.9, 0), (3, 1), (26, 2), (27, 2), (100, 2)]
)
def test_rungs_lie_at_powers_of_eta_below_the_maximum(resource: float, rung: int | None) -> None:
    assert Brackets(1, 3, 27, 1, 0).rung(resource, 0) == rung


def test_a_jump_over_a_rung_leaves_no_value_there() -> None:
    asha = StoppingASHA(100, 2, 1000)
    asha.report(0, 450, 0.5)  # an epoch of many images: past 100 and 200 at once
    assert set(asha.rungs) == {(0, 2)}


def test_brackets_are_hyperbands_shares_and_depend_on_seed_and_number_alone() -> None:
    brackets = Brackets(1, 3, 27, None, seed=1)
    drawn = [brackets.of(number) for number in range(2000)]
    assert [brackets.of(number) for number in reversed(range(2000))] == drawn[::-1]
    assert drawn != [Brackets(1, 3, 27, None, seed=2).of(number) for number in range(2000)]
    shares = np.array([27 / 4, 9 / 3, 3 / 2, 1.0])  # eta^(S-s) / (S-s+1), S = 3
    assert np.bincount(drawn) / 2000 == pytest.approx(shares / shares.sum(), abs=0.03)


def test_hyperbands_last_bracket_stops_nothing() -> None:
    scheduler = build_scheduler(make_spec(scheduler={"type": "hyperband", "reduction_factor": 3}))
    assert isinstance(scheduler, StoppingASHA)
    last = [number for number in range(300) if scheduler._brackets.of(number) == 2]
    decisions = {scheduler.report(number, epoch, -number) for number in last for epoch in range(1, 9)}
    assert last
    assert decisions == {Decision.CONTINUE}


def test_median_stopping_compares_the_best_with_the_median_of_running_means() -> None:
    median = MedianStopping(grace=2, min_trials=3)
    for number, curve in enumerate([(0.2, 0.4), (0.4, 0.6), (0.6, 0.8)]):
        assert [median.report(number, t + 1, v) for t, v in enumerate(curve)] == [Decision.CONTINUE] * 2
    # Means at 2 are 0.3, 0.5, 0.7: the median is 0.5.
    assert median.report(3, 1, 0.0) is Decision.CONTINUE  # within the grace period
    assert median.report(3, 2, 0.49) is Decision.STOP
    assert median.report(4, 1, 0.51) is Decision.CONTINUE
    assert median.report(4, 2, 0.1) is Decision.CONTINUE  # its best counts
    assert median.report(5, 1, 0.0) is Decision.CONTINUE
    assert median.report(5, 1.9, 0.0) is Decision.CONTINUE


@pytest.mark.parametrize("scheduler", [StoppingASHA(1, 3, 9), PromotingASHA(1, 3, 9), MedianStopping(1, 2)])
def test_the_same_reports_lead_to_the_same_decisions(scheduler: object) -> None:
    def decisions(one: object) -> list[Decision]:
        return [
            one.report(number, epoch, math.sin(number * epoch))  # type: ignore[attr-defined]
            for epoch in range(1, 5)
            for number in range(9)
        ]

    fresh = (
        MedianStopping(1, 2) if isinstance(scheduler, MedianStopping) else type(scheduler)(1, 3, 9)  # type: ignore[call-arg]
    )
    assert decisions(scheduler) == decisions(fresh)
