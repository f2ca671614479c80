"""Population based training: who copies whom, what changes, and that it goes on after a kill."""

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from search.conductor import Conductor
from search.executor import trial_payload
from search.explore import explore
from search.lineage import lineage
from search.schedulers import Decision
from search.schedulers.pbt import PopulationBasedTraining
from search.spec import SearchSpec
from search.study import SearchStudy
from tests.search.conftest import FINISHED, make_spec, row
from trainable.config import TrainConfig
from trainable.inprocess import take_over
from trainable.loop import train
from trainable.session import LocalSession
from trainable.tracking import read_rows
from trainable.working_folder import WorkingFolder

PBT = {"type": "pbt", "perturbation_interval": 3, "quantile_fraction": 0.25}


def test_a_round_waits_for_all_and_the_worst_quarter_copies_the_best() -> None:
    pbt = PopulationBasedTraining(3, population=8, quantile=0.25, seed=0)
    for number in range(8):
        assert pbt.report(number, 1, 1.0) is Decision.CONTINUE
        assert pbt.next_promotion() is None
        assert pbt.report(number, 3, number / 10) is Decision.PAUSE
    sources: dict[int, int | None] = {}
    while (number := pbt.next_promotion()) is not None:
        sources[number] = pbt.source(number)
        pbt.promoted(number)
    assert list(sources) == list(range(8))
    assert {n for n, source in sources.items() if source is not None} == {0, 1}
    assert {source for source in sources.values() if source is not None} <= {6, 7}


def test_nobody_waits_for_a_member_that_ended_nor_copies_it() -> None:
    pbt = PopulationBasedTraining(1, population=4, quantile=0.5, seed=0)
    for number, value in enumerate([0.9, 0.1, 0.5]):
        pbt.report(number, 1, value)
    assert pbt.next_promotion() is None
    pbt.ended(0, complete=False)
    assert pbt.next_promotion() is None
    pbt.ended(3, complete=False)  # before its first report
    assert pbt.next_promotion() == 1
    assert pbt.source(1) == 2


def test_exploring_scales_within_bounds_moves_to_neighbours_and_leaves_the_network_alone() -> None:
    spec = SearchSpec(
        train={"dataset": "digits", "cell_type": "rnn", "batch_size": 64, "epochs": 9},
        space={
            "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
            "time_steps": {"type": "int", "low": 1, "high": 8},
            "label_smoothing": {"type": "categorical", "choices": [0.0, 0.1, 0.2]},
            "activation": {"type": "categorical", "choices": ["relu", "elu", "tanh"]},
        },
        search={"scheduler": {**PBT, "resample_probability": 0.0}},
    )
    start = {
        "learning_rate": 0.01,
        "dropout": 0.5,
        "time_steps": 2,
        "label_smoothing": 0.1,
        "activation": "elu",
    }
    seen = [explore(spec, start, number, 3) for number in range(40)]
    assert seen == [explore(spec, start, number, 3) for number in range(40)]
    assert {round(params["learning_rate"], 6) for params in seen} == {0.008, 0.012}
    assert {round(params["dropout"], 6) for params in seen} == {0.4, 0.5}
    assert {params["time_steps"] for params in seen} == {1, 3}  # 2.4 and 1.6 round to 2: a step all the same
    assert {params["label_smoothing"] for params in seen} == {0.0, 0.2}
    assert {params["activation"] for params in seen} == {"elu"}
    anew = spec.model_copy(
        update={
            "search": spec.search.model_copy(
                update={"scheduler": spec.search.scheduler.model_copy(update={"resample_probability": 1.0})}
            )
        }
    )
    drawn = {explore(anew, start, number, 3)["learning_rate"] for number in range(40)}
    assert len(drawn) == 40
    assert all(1e-4 <= rate <= 1e-1 for rate in drawn)


@pytest.mark.parametrize(
    ("scheduler", "space", "message"),
    [
        (PBT, {"cell_type": {"type": "categorical", "choices": ["rnn", "gru"]}}, "space has none"),
        ({**PBT, "resource": "images"}, {"learning_rate": 0.1}, "pbt counts in epochs"),
        ({**PBT, "quantile_fraction": 0.6}, {"learning_rate": 0.1}, "quantile_fraction"),
    ],
)
def test_what_pbt_cannot_do_is_refused(
    scheduler: dict[str, Any], space: dict[str, Any], message: str
) -> None:
    fixed = {"dataset": "digits", "cell_type": "rnn", "batch_size": 64, "epochs": 9, "learning_rate": 0.1}
    with pytest.raises(ValueError, match=message):
        SearchSpec(
            train={key: value for key, value in fixed.items() if key not in space},
            space=space,
            search={"scheduler": scheduler},
        )


def population(folder: Path) -> tuple[SearchSpec, SearchStudy]:
    """Four members, the last far worse than the others; ten epochs, rounds of three."""
    points = [{"learning_rate": rate, "time_steps": 2} for rate in (1e-2, 8e-3, 6e-3, 1e-4)]
    spec = make_spec(num_samples=4, points_to_evaluate=points, scheduler=PBT)
    return spec, SearchStudy(folder, spec)


def test_a_killed_search_decides_as_it_would_have(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    spec, whole = population(tmp_path / "whole")
    _, killed = population(tmp_path / "killed")

    def value(params: dict[str, Any], epoch: int) -> float:
        return params["learning_rate"] * epoch

    def run(study: SearchStudy, resume: bool) -> SearchStudy:
        conductor = Conductor(study)
        while (trial := conductor.next()) is not None:
            number, decision = trial.number, Decision.CONTINUE
            epoch = study.reports(number)[-1].epoch if study.reports(number) else 0
            while decision is Decision.CONTINUE and epoch < 9:
                epoch += 1
                done = FINISHED if epoch == 9 else {}
                decision = conductor.report(number, row(epoch, value(study.params(trial), epoch), **done))
                if resume:
                    study = SearchStudy(tmp_path / "killed", spec)
                    conductor = Conductor(study)
                    break
        assert conductor.finished
        return study

    one, other = run(whole, False), run(killed, True)
    assert [t.state.name for t in one.trials()] == ["COMPLETE"] * 4
    assert [t.values for t in one.trials()] == [t.values for t in other.trials()]
    taken = [(e.number, e.data) for n in range(4) for e in one.exploits(n)]
    assert taken == [(e.number, e.data) for n in range(4) for e in other.exploits(n)]
    assert len(taken) == 2  # one of four, after the epochs 3 and 6
    first = min(taken, key=lambda event: event[1]["epoch"])
    assert (first[0], first[1]["source"], first[1]["epoch"]) == (3, 0, 3)
    for number in range(4):
        way = lineage(one, number)
        assert [epoch for s in way for epoch in range(s.first, s.last + 1)] == list(range(1, 10))
        assert way[-1].params == one.params(one.trial(number))
        assert [s.number for s in way][-1] == number
    (late,) = [event for event in taken if event[1]["epoch"] == 6]
    assert lineage(one, late[0])[-2].number == late[1]["source"]
    assert lineage(one, late[0])[-2].last == 6


def test_a_member_goes_on_with_the_sources_weights_and_its_own_rows(tmp_path: Path) -> None:
    spec, study = population(tmp_path)
    conductor = Conductor(study)

    def stay(trial: Any) -> dict[str, Any]:
        """What a trial's process does until the scheduler ends its stay."""
        payload = trial_payload(study, trial, os.cpu_count() or 1)
        assert payload["pausable"]
        take_over(payload, WorkingFolder(Path(payload["folder"])))

        class Stay(LocalSession):
            pausable = True

            def report(self, metrics: dict[str, Any]) -> None:
                if conductor.report(trial.number, metrics) is not Decision.CONTINUE:
                    raise StopIteration

        with contextlib.suppress(StopIteration):
            train(TrainConfig(**payload["config"]), Stay(Path(payload["folder"]), payload["threads"]))
        return payload

    for _ in range(4):
        trial = conductor.next()
        assert trial is not None
        stay(trial)
    before = read_rows(tmp_path / "trial_0003")
    source = None
    while source is None:
        trial = conductor.next()
        assert trial is not None
        payload = stay(trial)
        source = payload.get("inherit")
    assert trial.number == 3
    best = int(source["folder"][-4:])
    rows = read_rows(tmp_path / "trial_0003")
    assert rows[:3] == before
    assert [r["epoch"] for r in rows] == [1, 2, 3, 4, 5, 6]
    # Four epochs of a rate of 1e-4 learn next to nothing; the source's weights start where the source was.
    theirs = study.reports(best)[2].values[0]
    assert study.reports(3)[2].values[0] < theirs - 0.2
    assert study.reports(3)[3].values[0] > theirs - 0.1
    assert payload["config"]["learning_rate"] != pytest.approx(1e-4)
    again = read_rows(tmp_path / "trial_0003")
    take_over(payload, WorkingFolder(tmp_path / "trial_0003"))  # a kill now: nothing is copied twice
    assert read_rows(tmp_path / "trial_0003") == again
