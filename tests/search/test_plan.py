import pytest
from pydantic import ValidationError

from search.plan import make_plan
from search.sections import Resources
from trainable.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "cpus", "gpus", "expected"),
    [
        ({}, 2, 0, (1, 1, 0, 2)),  # workers, CPUs and GPUs per worker, trials at a time
        ({"concurrent_trials": 1}, 8, 0, (1, 8, 0, 1)),
        ({"workers": 2}, 8, 0, (2, 1, 0, 4)),
        ({}, 16, 4, (1, 4, 1, 4)),
        ({"workers": 2}, 16, 4, (2, 4, 1, 2)),
        ({"gpus_per_worker": 0.5}, 16, 1, (1, 8, 0.5, 2)),
        ({"cpus_per_worker": 4}, 10, 0, (1, 4, 0, 2)),
        ({"concurrent_trials": 9}, 4, 0, (1, 1, 0, 4)),
    ],
)
def test_what_is_left_out_fills_the_machine(
    given: dict[str, float], cpus: int, gpus: int, expected: tuple[float, ...]
) -> None:
    plan = make_plan(Resources(**given), cpus, gpus)
    assert (plan.workers.count, plan.workers.cpus, plan.workers.gpus, plan.concurrent) == expected


@pytest.mark.parametrize("gpus", [1.5, 2.25])
def test_more_than_one_gpu_comes_whole(gpus: float) -> None:
    with pytest.raises(ValidationError, match=f"gpus_per_worker must be a whole number, .* got {gpus}"):
        Resources(gpus_per_worker=gpus)


def test_a_trial_larger_than_the_cluster_is_refused() -> None:
    with pytest.raises(ConfigError, match="a trial needs 3 CPUs"):
        make_plan(Resources(workers=3), 2, 0)
