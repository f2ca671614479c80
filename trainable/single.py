"""One configuration from its file to its weights: a folder of its own, a TorchTrainer, lines of progress."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from trainable import atomic, cluster, signals, weights_and_biases
from trainable.atomic import StorageError
from trainable.checkpoint import CheckpointStore
from trainable.config import TrainConfig
from trainable.distributed import Workers, fit
from trainable.errors import ConfigError
from trainable.failure import explain
from trainable.loop import WEIGHTS_FILE
from trainable.metrics import DIVERGED, DIVERGED_STEP, EPOCH, FINISHED, VAL_ACC
from trainable.progress import EpochLines
from trainable.run_folder import CHECKPOINTS, claimed
from trainable.say import say
from trainable.tracking import read_rows
from trainable.weights import described


class Stopped(Exception):
    """The run was asked to stop; its state is on the disk. The message says how to go on."""


@dataclass(frozen=True)
class Run:
    """One configuration, the folder of its checkpoints, metrics and weights, and where its weights go."""

    config: TrainConfig
    """What is trained."""

    source: str
    """File the configuration came from."""

    folder: Path
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
            with claimed(self.config, self.folder, fresh=self.fresh):
                say(f"Run folder: {self.folder}")
                if (self.folder / WEIGHTS_FILE).exists():
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
        weights = self.folder / WEIGHTS_FILE
        if self.out is not None:
            for source, target in ((described(weights), described(self.out)), (weights, self.out)):
                atomic.write_bytes(target, source.read_bytes())
        last = read_rows(self.folder)[-1]
        say(f"val_acc {100 * last[VAL_ACC]:.1f} %  weights: {self.out or weights}")
        return 0

    def _fit(self, workers: int) -> str | None:
        """Train; returns what went wrong, or None."""
        (self.folder / signals.STOP_FILE).unlink(missing_ok=True)
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
        with EpochLines(self.folder, self.config.epochs):
            try:
                signals.run_stoppable(lambda: fit(self.config, self.folder, plan), self._ask_to_stop)
            except Exception as error:
                failure = error
        rows = read_rows(self.folder)
        if rows and DIVERGED in rows[-1]:
            last = rows[-1]
            where = f"epoch {last[EPOCH]}, step {last[DIVERGED_STEP]} of the run"
            return f"{self.folder}: diverged in {where}: {last[DIVERGED]}"
        finished = bool(rows) and FINISHED in rows[-1]
        # Without a failure and unfinished: the signal reached a worker, and the command never saw it.
        if not finished and (failure is None or (self.folder / signals.STOP_FILE).exists()):
            where = self._position()
            raise Stopped(
                f"Stopped; {where or 'no epoch'} is kept in {self.folder}. The same command goes on."
            )
        return explain(failure, self.folder) if failure else None

    def _ask_to_stop(self, signal_name: str) -> None:
        atomic.write_text(self.folder / signals.STOP_FILE, signal_name)
        say(f"{signal_name}: saving a checkpoint. A second Ctrl-C exits at once.", sys.stderr)

    def _position(self) -> str:
        positions = CheckpointStore(self.folder / CHECKPOINTS).positions()
        if not positions:
            return ""
        epoch, step = positions[0]
        return f"epoch {epoch}" if step == 0 else f"epoch {epoch} and {step} steps of the next"
