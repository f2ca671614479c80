"""One configuration from its file to its weights: a folder of its own, a TorchTrainer, lines of progress."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from trainable import atomic, cluster, signals, weights_and_biases
from trainable.atomic import StorageError
from trainable.config import TrainConfig
from trainable.distributed import Workers, fit
from trainable.errors import ConfigError
from trainable.failure import ERROR_FILE, explain
from trainable.loop import WEIGHTS_FILE
from trainable.metrics import DIVERGED, DIVERGED_STEP, EPOCH, FINISHED, VAL_ACC
from trainable.progress import EpochLines
from trainable.run_place import RunPlace
from trainable.say import say
from trainable.tracking import read_rows
from trainable.weights import described


class Stopped(Exception):
    """The run was asked to stop; its state is on the disk. The message says how to go on."""


@dataclass(frozen=True)
class Run:
    """One configuration, the place of its checkpoints, metrics and weights, and where its weights go."""

    config: TrainConfig
    """What is trained."""

    source: str
    """File the configuration came from."""

    place: RunPlace
    """Where everything about it lies."""

    out: Path | None = None
    """Where the final weights are copied to, and their description beside them."""

    fresh: bool = False
    """Whether to delete what is in the folder and start over."""

    def train(self, *, workers: int) -> int:
        """Train to the end and write the weights to `out`; returns the exit code, 0 or 1.

        Raises:
            ConfigError: another process trains the same run, or the workers don't fit the cluster.
            Stopped: a signal asked for it.
        """
        try:
            with self.place.claimed(self.config, fresh=self.fresh):
                say(f"Run folder: {self.place}")
                if self.place.has(WEIGHTS_FILE):
                    say("This run is finished already; --fresh trains it again.")
                else:
                    problem = self._fit(workers)
                    if problem:
                        say(problem, sys.stderr)
                        return 1
                return self._deliver()
        except StorageError as error:
            say(str(error), sys.stderr)
            return 1

    def _deliver(self) -> int:
        weights = self.place.folder / WEIGHTS_FILE
        if self.out is not None:
            for file in (weights, described(weights)):
                self.place.fetch(file.name)
            for source, target in ((described(weights), described(self.out)), (weights, self.out)):
                atomic.write_bytes(target, source.read_bytes())
        last = read_rows(self.place.folder)[-1]
        say(f"val_acc {100 * last[VAL_ACC]:.1f} %  weights: {self.out or self.place.address(WEIGHTS_FILE)}")
        return 0

    def _fit(self, workers: int) -> str | None:
        """Train; returns what went wrong, or None."""
        place = self.place
        place.forget_stop()
        if self.config.logs_to_wandb and (why := weights_and_biases.unavailable()):
            say(why)
        cluster.connect(dashboard=False)
        cpus, gpus = cluster.capacity()
        if workers > cpus:
            raise ConfigError([f"--workers: must not exceed the cluster's {cpus} CPUs, got {workers}"])
        if 0 < gpus < workers:
            say(f"{workers} workers don't fit the cluster's GPUs ({gpus}): training on CPUs.")
        plan = Workers(workers, cpus=cpus // workers, gpus=1 if gpus >= workers else 0)
        position = self._position()
        if position:
            say(f"Going on from the last checkpoint: {position}.")
        failure: Exception | None = None
        with EpochLines(place.folder, self.config.epochs, place.read, place.pause):
            try:
                signals.run_stoppable(
                    lambda: fit(self.config, place.folder, plan, remote=place.remote, stoppable=True),
                    self._ask_to_stop,
                )
            except Exception as error:
                failure = error
        place.read()
        rows = read_rows(place.folder)
        if rows and DIVERGED in rows[-1]:
            last = rows[-1]
            where = f"epoch {last[EPOCH]}, step {last[DIVERGED_STEP]} of the run"
            return f"{place}: diverged in {where}: {last[DIVERGED]}"
        finished = bool(rows) and FINISHED in rows[-1]
        # Without a failure and unfinished: the signal reached a worker, and the command never saw it.
        if not finished and (failure is None or place.asked_to_stop):
            where = self._position()
            raise Stopped(f"Stopped; {where or 'no epoch'} is kept in {place}. The same command goes on.")
        if failure is None:
            return None
        told = explain(failure, place.folder, str(place))
        if (place.folder / ERROR_FILE).exists():
            place.put(ERROR_FILE)
        return told

    def _ask_to_stop(self, signal_name: str) -> None:
        try:
            self.place.ask_to_stop(signal_name)
            told = "saving a checkpoint"
        except StorageError as error:
            told = f"the workers cannot be told ({error})"
        say(f"{signal_name}: {told}. A second Ctrl-C exits at once.", sys.stderr)

    def _position(self) -> str:
        if (position := self.place.last_checkpoint()) is None:
            return ""
        epoch, step = position
        return f"epoch {epoch}" if step == 0 else f"epoch {epoch} and {step} steps of the next"
