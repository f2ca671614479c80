import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search.confirm import CONFIRM_FOLDER, chosen, confirmation_spec, confirmed, unconfirmed, winner
from search.report import write_results
from search.retention import tidy
from search.spec import SPEC_FILE, SearchSpec
from search.status import Cost
from search.study import SearchStudy, trial_name
from tests.search.conftest import make_spec, row
from trainable import atomic


def spec(top: int = 2, seeds: int = 2) -> SearchSpec:
    return make_spec(
        scheduler={"type": "asha", "grace_period": 1}, confirm={"top": top, "seeds": seeds}, num_samples=4
    )


def searched(folder: Path, one: SearchSpec, values: list[float]) -> SearchStudy:
    study = SearchStudy(folder, one)
    for value in values:
        trial = study.ask()
        if math.isfinite(value):
            study.end(trial.number, TrialState.COMPLETE, (value,))
        else:
            study.end(trial.number, TrialState.FAIL, cause="nan_loss")
    return study


def test_the_best_are_trained_again_in_full_with_seeds_of_their_own(tmp_path: Path) -> None:
    study = searched(tmp_path, spec(), [0.5, 0.9, math.nan, 0.8])
    assert [trial.number for trial in chosen(study)] == [1, 3]
    again = confirmation_spec(study)
    assert again is not None
    assert again.search.scheduler.type == "none"
    assert again.search.num_samples == 4
    folder = tmp_path / CONFIRM_FOLDER
    folder.mkdir()
    configs = []
    second = SearchStudy(folder, again)
    for _ in range(4):
        configs.append(second.config(second.ask()))
    originals = [study.config(study.trial(number)) for number in (1, 1, 3, 3)]
    assert [config.seed for config in configs] == [1, 2, 1, 2]
    assert [c.model_copy(update={"seed": 0}) for c in configs] == originals


def test_the_best_mean_wins_once_every_seed_is_in(tmp_path: Path) -> None:
    study = searched(tmp_path, spec(), [0.5, 0.9, 0.8, 0.1])
    assert unconfirmed(study) == 4
    assert confirmed(study) == []
    again = confirmation_spec(study)
    assert again is not None
    folder = tmp_path / CONFIRM_FOLDER
    atomic.write_text(folder / SPEC_FILE, again.to_yaml())
    second = SearchStudy(folder, again)
    for number, value in enumerate([0.6, 0.7, 0.8, 0.85]):  # the search's best was lucky
        second.ask()
        best = winner(study)
        assert best is not None
        assert best.number == 1  # until all are in
        second.end(number, TrialState.COMPLETE, (value,))
    assert unconfirmed(study) == 0
    first, other = confirmed(study)
    assert (first.trial.number, first.mean, first.wanted) == (2, pytest.approx(0.825), 2)
    assert first.spread == pytest.approx(0.05 / math.sqrt(2))
    assert (other.trial.number, other.value, other.mean) == (1, 0.9, pytest.approx(0.65))
    best = winner(study)
    assert best is not None
    assert best.number == 2


def test_extending_a_search_keeps_what_was_confirmed(tmp_path: Path) -> None:
    study = searched(tmp_path, spec(), [0.5, 0.9])
    first = confirmation_spec(study)
    assert first is not None
    folder = tmp_path / CONFIRM_FOLDER
    atomic.write_text(folder / SPEC_FILE, first.to_yaml())
    SearchStudy(folder, first).ask()
    trial = study.ask()
    study.end(trial.number, TrialState.COMPLETE, (0.95,))
    second = confirmation_spec(study)
    assert second is not None
    points = second.search.points_to_evaluate
    assert points[:4] == first.search.points_to_evaluate
    assert len(points) == 6


def test_without_being_asked_nothing_is_confirmed(tmp_path: Path) -> None:
    study = searched(tmp_path, make_spec(), [0.5])
    assert confirmation_spec(study) is None
    assert unconfirmed(study) == 0
    assert isinstance(winner(study), optuna.trial.FrozenTrial)


def test_two_draws_of_one_configuration_are_confirmed_once(tmp_path: Path) -> None:
    one = spec(top=2).model_dump(mode="json", by_alias=True)
    one["space"] = {
        "learning_rate": 0.01,
        "time_steps": {"type": "int", "low": 1, "high": 9, "quantize": 4},
    }
    one["search"]["points_to_evaluate"] = [{"time_steps": steps} for steps in (3, 4, 8)]
    study = searched(tmp_path, SearchSpec(**one), [0.9, 0.8, 0.7])
    assert [study.config(trial).time_steps for trial in study.trials()] == [4, 4, 8]
    assert [trial.number for trial in chosen(study)] == [0, 2]


def test_the_winner_of_a_confirmation_has_its_weights_whatever_its_rank(tmp_path: Path) -> None:
    one = make_spec(confirm={"top": 3, "seeds": 1}, num_samples=5, keep_checkpoints=1)
    study = SearchStudy(tmp_path, one)
    for value in (0.5, 0.9, 0.8, 0.1, 0.7):
        trial = study.ask()
        (tmp_path / trial_name(trial.number)).mkdir()
        (tmp_path / trial_name(trial.number) / "model.weights").touch()
        study.record(trial.number, row(9, value), 9)
        study.end(trial.number, TrialState.COMPLETE, (value,))
        tidy(study, trial.number)

    def with_weights() -> list[int]:
        return sorted(int(path.parent.name[-4:]) for path in tmp_path.glob("trial_*/model.weights"))

    assert with_weights() == [1, 2, 4]
    tidy(study)
    assert with_weights() == [1, 2, 4]
    again = confirmation_spec(study)
    assert again is not None
    folder = tmp_path / CONFIRM_FOLDER
    atomic.write_text(folder / SPEC_FILE, again.to_yaml())
    second = SearchStudy(folder, again)
    for value in (0.6, 0.65, 0.7):  # the third is the best
        second.end(second.ask().number, TrialState.COMPLETE, (value,))
    tidy(study)
    assert with_weights() == [4]
    write_results(study)
    assert (tmp_path / "best.weights").exists()


def test_the_front_of_several_objectives_has_its_weights_whatever_its_rank(tmp_path: Path) -> None:
    one = make_spec(metric=["val_acc", "parameters"], mode=["max", "min"], num_samples=6, keep_checkpoints=1)
    study = SearchStudy(tmp_path, one)
    left = []
    for point in ((0.5, 10.0), (0.9, 30.0), (0.8, 40.0), (0.4, 5.0), (0.95, 4.0), (0.2, 2.0)):
        trial = study.ask()
        (tmp_path / trial_name(trial.number)).mkdir()
        (tmp_path / trial_name(trial.number) / "model.weights").touch()
        study.end(trial.number, TrialState.COMPLETE, point)
        tidy(study, trial.number)
        left.append(sorted(int(path.parent.name[-4:]) for path in tmp_path.glob("trial_*/model.weights")))
    assert left == [[0], [0, 1], [0, 1], [0, 1, 3], [4], [4, 5]]


def test_status_counts_what_the_machine_was_asked_for(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, make_spec())
    assert study.resources == (1, 0.0)
    study.note_resources(8, 0.5)
    again = SearchStudy(tmp_path, make_spec(), study.storage)
    assert again.resources == (8, 0.5)
    assert str(Cost(7200, *again.resources)) == "16.00 CPU-hours, 1.00 GPU-hours"
