"""One configuration from its file to its weights: a folder of its own, a TorchTrainer, lines of progress."""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
from ray.train import TrainingFailedError
from typing_extensions import Self

from trainable import atomic, cluster
from trainable.config import TrainConfig
from trainable.config_file import ConfigError
from trainable.distributed import Workers, fit
from trainable.loop import WEIGHTS_FILE
from trainable.metrics import DIVERGED, EPOCH, FINISHED, VAL_ACC, epoch_line
from trainable.tracking import read_rows


@dataclass(frozen=True)
class Run:
    """One configuration and the folder of its checkpoints, metrics and weights."""

    config: TrainConfig
    """What is trained."""

    folder: Path
    """Where everything about it lies."""

    @classmethod
    def of(cls, config: TrainConfig, source: Path, storage: Path) -> Self:
        """The run of `config`, read from `source`: its folder's name holds a hash of every setting.

        So the same command finds its run again, and a changed setting is a new run, never a continued one.
        """
        digest = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:8]
        return cls(config, storage / f"{source.stem}-{digest}")

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to continue from."""
        return any(self.folder.glob("checkpoints/epoch_*.json"))

    def train(self, *, workers: int, out: str | None, fresh: bool) -> int:
        """Train to the end and write the weights to `out`; returns the exit code, 0 or 1.

        Raises:
            ConfigError: another process trains the same run.
        """
        if (fresh or not self.config.do_reload) and self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.folder / ".lock")
        try:
            lock.acquire(blocking=False)  # the operating system frees it when the process dies
        except filelock.Timeout:
            raise ConfigError([f"{self.folder}: another process trains this run"]) from None
        with lock:
            print(f"Run folder: {self.folder}")
            if (self.folder / WEIGHTS_FILE).exists():
                print("This run is finished already; --fresh trains it again.")
            else:
                error = self._fit(workers)
                if error:
                    print(error, file=sys.stderr)
                    return 1
            last = read_rows(self.folder)[-1]
            if out:
                for suffix in (".json", ""):
                    source = self.folder / f"{WEIGHTS_FILE}{suffix}"
                    atomic.write_bytes(f"{out}{suffix}", source.read_bytes())
            print(f"val_acc {100 * last[VAL_ACC]:.1f} %  weights: {out or self.folder / WEIGHTS_FILE}")
            return 0

    def _fit(self, workers: int) -> str | None:
        """Train; returns what went wrong, or None."""
        cluster.connect(dashboard=False)
        cpus, gpus = cluster.capacity()
        if workers > cpus:
            raise ConfigError([f"--workers: must not exceed the cluster's {cpus} CPUs, got {workers}"])
        plan = Workers(workers, cpus=cpus // workers, gpus=1 if gpus >= workers else 0)
        with _EpochLines(self.folder, self.config):
            try:
                fit(self.config, self.folder, plan)
            except TrainingFailedError as error:
                return f"{self.folder}: training failed: {error}"
        rows = read_rows(self.folder)
        if rows and DIVERGED in rows[-1]:
            return f"{self.folder}: diverged in epoch {rows[-1][EPOCH]}: {rows[-1][DIVERGED]}"
        if not rows or FINISHED not in rows[-1]:
            raise KeyboardInterrupt  # Ray ends an interrupted run as if it were done
        return None


class _EpochLines:
    """Prints a line per epoch while the run's result file grows.

    The workers' own output may come from other machines and through Ray's log files; the result file is
    in the run's folder, which all see.
    """

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._folder, self._config = folder, config
        self._printed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        rows = read_rows(self._folder)
        if rows:
            print(f"{len(rows)} epochs were done before; going on from the last checkpoint.")
            self._printed = int(rows[-1][EPOCH])
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self._print_new()
        self._print_new()

    def _print_new(self) -> None:
        best, best_epoch = -math.inf, 0
        for row in read_rows(self._folder):
            best, best_epoch = max((best, best_epoch), (_accuracy(row), row[EPOCH]), key=lambda pair: pair[0])
            if row[EPOCH] > self._printed:
                print(epoch_line(row, self._config.epochs, best, best_epoch), flush=True)
                self._printed = row[EPOCH]


def _accuracy(row: dict[str, Any]) -> float:
    value = float(row[VAL_ACC])
    return value if math.isfinite(value) else -math.inf
