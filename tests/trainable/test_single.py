"""One command's run, without Ray."""

from pathlib import Path
from typing import Any

import pytest

from trainable import cluster, single
from trainable.config import TrainConfig
from trainable.distributed import Workers
from trainable.run_place import RunPlace
from trainable.single import Run, Stopped


@pytest.mark.parametrize(
    ("workers", "gpus", "told"),
    [(2, 1, "2 workers don't fit the cluster's GPUs (1): training on CPUs."), (2, 2, ""), (2, 0, "")],
)
def test_workers_that_outnumber_the_gpus_train_on_cpus_and_it_is_said(
    tmp_path: Path,
    small: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: int,
    gpus: int,
    told: str,
) -> None:
    plans: list[Workers] = []
    monkeypatch.setattr(cluster, "connect", lambda dashboard: None)
    monkeypatch.setattr(cluster, "capacity", lambda: (8, gpus))
    monkeypatch.setattr(single, "fit", lambda config, folder, plan, **_: plans.append(plan))
    with pytest.raises(Stopped):  # nothing was trained
        Run(TrainConfig(**small), "run.json", RunPlace(tmp_path)).train(workers=workers)
    assert plans == [Workers(workers, cpus=4, gpus=gpus // workers)]
    printed = capsys.readouterr().out
    assert told in printed
    assert ("training on CPUs" in printed) is bool(told)
