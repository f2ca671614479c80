"""The training loop: epochs, steps, validation, checkpoints. It knows a Session, and nothing of Ray."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data import Data, open_data
from trainable.allocator import freed_memory_kept
from trainable.checkpoint import CheckpointStore
from trainable.config import TrainConfig
from trainable.divergence import Verdict, Watch
from trainable.footprint import footprint, free_bytes, images_that_fit
from trainable.memory import peak_gib, reset_peak
from trainable.metrics import DIVERGED, DIVERGED_STEP, EPOCH, FINISHED, NOTES, OBJECTIVES, VAL_ACC, VAL_ACC_2T
from trainable.mixing import Mixing
from trainable.progress import StepReporter
from trainable.session import Interrupted, Session
from trainable.shape import measure_shape
from trainable.state import RunState
from trainable.step import TrainingStep
from trainable.tracking import Tracker
from trainable.validation import Validation, validate
from trainable.weights import export_weights

WEIGHTS_FILE = "model.weights"


def train(config: TrainConfig, session: Session) -> None:
    """Train one configuration to its end, from its newest checkpoint where there is one.

    Reports once per epoch, when its result row is on disk; after the last epoch the final weights and the
    last checkpoint are there too. Checkpoints before are written while training goes on.

    Raises:
        Interrupted: the session was asked to stop; a checkpoint of the last step is on disk.
        TooLarge: not even one image at a time fits into memory.
        StorageError: a file cannot be written.
    """
    torch.set_num_threads(session.threads)
    _seed(config.seed)
    data = open_data(
        **config.data_source(),
        batch_size=config.batch_size,
        seed=config.seed,
        rank=session.rank,
        world_size=session.world_size,
        loader_threads=session.threads,
        device=session.device,
    )
    folder = session.folder / "checkpoints"
    store = CheckpointStore(folder, config.keep_checkpoints, session.checkpoint_written)
    with contextlib.ExitStack() as stack:
        if session.device.type == "cpu":
            stack.enter_context(freed_memory_kept())
        tracker = None
        if session.rank == 0:
            stack.enter_context(store)
        run = _Run(config, session, data, store)
        if session.rank == 0:
            about = config.model_dump(mode="json")
            tracker = stack.enter_context(
                Tracker(session.folder, run.state.history, about, wandb=config.logs_to_wandb)
            )
        if run.state.history:  # killed between the checkpoint and its epoch's report: nobody heard of it
            run.export()
            session.report(run.state.history[-1])
        while not run.ended:
            row = run.epoch()
            if tracker:
                tracker.log(row)
            run.export()
            session.report(row)


class _Run:
    """A run in this process: its state, its data, and what is done with them."""

    def __init__(self, config: TrainConfig, session: Session, data: Data, store: CheckpointStore) -> None:
        self.config, self.session, self.data = config, session, data
        images = self._images_at_a_time() if config.memory_check else None
        self.state = RunState(config, session, data)
        if images is not None:
            self.state.micro_batch.limit(images)
        self.step = TrainingStep(self.state)
        self.mixing = Mixing(config, data.info.num_classes)
        self.watch = Watch(session.device)
        self.store = store
        self.progress = StepReporter(session.folder) if session.rank == 0 else None
        # Weights are equal on all workers; what each of them draws from here on is its own.
        _seed(config.seed + 1 + session.rank)
        if not self._restore() and config.batch_max == "auto":
            self.step.probe(data.info.image_size)

    def _images_at_a_time(self) -> int:
        """How many images this worker computes at a time, by what a step keeps in memory at least."""
        images = self.config.micro_batch(self.config.batch_size // self.session.world_size)
        need = footprint(self.config, self.data.info.num_classes, self.data.info.image_size)
        fits = images_that_fit(need, images, free_bytes(self.session.device))
        return int(min(self.session.gather(fits)))

    @property
    def ended(self) -> bool:
        """Whether the run's last epoch is done, or it diverged."""
        return bool(self.state.history) and not self.state.history[-1].keys().isdisjoint((FINISHED, DIVERGED))

    def epoch(self) -> dict[str, Any]:
        """Train for what is left of the epoch, validate, save where it is due; returns the row."""
        state, config = self.state, self.config
        reset_peak(self.session.device)
        diverged = self._train()
        started = time.perf_counter()
        row: dict[str, Any] = {EPOCH: state.epoch + 1, **self._training_metrics()}
        validation = Validation(math.nan, math.nan, math.nan, [])
        if diverged is None:
            validation = validate(state, self.data.validation, interrupt=self._stop_between_batches)
            if not math.isfinite(row["train_loss"]) or not math.isfinite(validation.loss):
                diverged = Verdict(state.steps, "nan_loss", False)
        row |= {
            "val_loss": validation.loss,
            VAL_ACC: validation.acc,
            "val_acc5": validation.acc5,
            "val_acc_t": validation.acc_t,
        }
        finished = diverged is None and (
            state.epoch + 1 == config.max_epochs or self._stopped_improving(validation.loss)
        )
        if diverged is None and (config.val_2t == "always" or (finished and config.val_2t == "end")):
            twice = validate(
                state,
                self.data.validation,
                time_steps=2 * config.time_steps,
                interrupt=self._stop_between_batches,
            )
            row[VAL_ACC_2T] = twice.acc
        every = config.shape_metrics_every
        due = finished or (every is not None and (state.epoch + 1) % every == 0)
        if config.shape_metrics and due and diverged is None:
            # Stimuli are few: worker 0 measures, the others wait for its numbers.
            shape = measure_shape(state, self.data) if self.session.rank == 0 else {}
            row |= self.session.gather(shape)[0]
        row["peak_memory_gib"] = max(self.session.gather(peak_gib(self.session.device)))
        row["micro_batch"] = min(self.session.gather(state.micro_batch.size))
        notes = [note for worker in self.session.gather(state.micro_batch.notes) for note in worker]
        state.micro_batch.notes = []
        if notes:
            row[NOTES] = notes
        row["seconds"] = state.sums.seconds + time.perf_counter() - started
        if diverged is not None:
            row |= {DIVERGED: diverged.cause, DIVERGED_STEP: diverged.step}
        elif finished:
            row[FINISHED] = True
        state.end_epoch(row)
        if self.ended or self._is_best() or state.epoch % config.checkpoint_interval == 0:
            self._save()
            if self.session.pausable and self.session.rank == 0:
                self.store.wait()
        return row

    def _is_best(self) -> bool:
        """Whether the run stands at the end of its best epoch so far; the earliest of equals is the best."""
        if self.state.step or not self.state.history:
            return False
        metric = self.config.best_metric
        sign = 1.0 if OBJECTIVES[metric] == "max" else -1.0
        *before, last = (sign * row[metric] for row in self.state.history)
        return math.isfinite(last) and all(score < last for score in before)

    def _train(self) -> Verdict | None:
        """Train to the end of the epoch; returns how it diverged, if it did."""
        state, every = self.state, self.config.checkpoint_every_steps
        device = self.session.device
        state.network.train()
        batches = self.data.train.epoch(state.epoch, start_batch=state.step)
        # Left early, the loader stops its thread.
        with contextlib.closing(_Timed(batches, state)) as timed:
            for images, labels in timed:
                images, targets = self.mixing(
                    images.to(device, non_blocking=True),
                    labels.to(device, non_blocking=True),
                    state.epoch,
                    state.step,
                )
                flags = self.step(images, targets, self.session.stop_requested())
                verdict = self.watch.push(state.steps, flags)
                if self.progress:
                    self.progress.step(state.epoch + 1, state.step, state.steps_per_epoch)
                due = every is not None and state.steps % every == 0
                if due:
                    verdict = verdict or self.watch.flush()
                if verdict and verdict.cause:
                    return verdict
                if due or verdict:
                    timed.pause()
                    self._save()
                if verdict:
                    self._stop()
            verdict = self.watch.flush()
        if verdict and verdict.cause is None:
            self._save()
            self._stop()
        return verdict

    def _training_metrics(self) -> dict[str, Any]:
        """Means over the epoch's training part, and what it cost; all workers together."""
        state = self.state
        seconds, wait = state.sums.seconds, state.sums.wait_seconds
        loss, right, five, images = self.session.sum(state.sums.counts.clone()).tolist()
        before = state.history[-1]["image_steps"] if state.history else 0
        return {
            "train_loss": loss / images,
            "train_acc": right / images,
            "train_acc5": five / images,
            "learning_rate": state.optimizer.param_groups[0]["lr"],
            "images_per_second": images / seconds,
            "seconds_per_image": seconds / images,
            "wait_seconds": max(self.session.gather(wait)),
            "image_steps": before + int(images) * self.config.time_steps,
            "parameters": sum(p.numel() for p in state.network.parameters()),
        }

    def _stopped_improving(self, val_loss: float) -> bool:
        """Whether `early-stop` ends the run: validation loss has not fallen for `patience` epochs."""
        if self.config.epochs != "early-stop":
            return False
        best, best_epoch = math.inf, 0
        losses = [row["val_loss"] for row in self.state.history] + [val_loss]
        for epoch, loss in enumerate(losses, start=1):
            if loss < best - self.config.early_stop_min_delta:
                best, best_epoch = loss, epoch
        return len(losses) - best_epoch >= self.config.early_stop_patience

    def export(self) -> None:
        """Write the weights of a run that finished."""
        state = self.state
        if self.session.rank == 0 and state.history and FINISHED in state.history[-1]:
            about = {**state.about, "metrics": state.history[-1]}
            self.store.wait()
            export_weights(self.session.folder / WEIGHTS_FILE, state.weights(), about)

    def _stop_between_batches(self) -> None:
        """Stop in the midst of validation: the run then stands at the end of the epoch's training."""
        asked = torch.full((1,), float(self.session.stop_requested()), device=self.session.device)
        if self.session.sum(asked).item():
            self._save()
            self._stop()

    def _stop(self) -> None:
        self.store.wait()
        raise Interrupted(f"stopped after step {self.state.step} of epoch {self.state.epoch + 1}")

    def _save(self) -> None:
        content = self.state.content()
        if self.session.rank == 0:
            self.store.save(self.state.position, content, best=self._is_best())

    def _restore(self) -> bool:
        """Go on from the newest checkpoint; False where there is none."""
        # Worker 0 alone judges which checkpoint is intact, so that all continue from the same one.
        content = self.store.load_latest() if self.session.rank == 0 else None
        position = self.session.gather(tuple(content["position"]) if content else None)[0]
        if position is not None:
            self.state.restore(self.store.load(position) if content is None else content)
        elif self.config.init is not None:
            self.state.start_from(self.config.init)
        self.state.micro_batch.notes += self.store.notes
        return position is not None


class _Timed:
    """Iterates over batches; adds to the epoch's sums how long it took and how long it waited for data."""

    def __init__(self, batches: Iterator[tuple[Tensor, Tensor]], state: RunState) -> None:
        self._batches, self._sums = batches, state.sums
        self._since = time.perf_counter()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            asked = time.perf_counter()
            batch = next(self._batches, None)
            self._sums.wait_seconds += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def pause(self) -> None:
        """Bring the sums up to date."""
        now = time.perf_counter()
        self._sums.seconds += now - self._since
        self._since = now

    def close(self) -> None:
        """Stop the loader's thread."""
        self.pause()
        close = getattr(self._batches, "close", None)
        if close:
            close()


def _seed(seed: int) -> None:
    """Seed every generator this process draws from; a reused process starts like a new one."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
