"""The training loop: epochs, steps, validation, checkpoints. It knows a Session, and nothing of Ray."""

from __future__ import annotations

import contextlib
import math
import platform
import random
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import BatchLoader, Data, open_data
from models import build_model
from trainable import checkpoint
from trainable.config import TrainConfig
from trainable.metrics import DIVERGED, EPOCH, FINISHED, VAL_ACC
from trainable.optim import build_optimizer, clip_gradients
from trainable.schedules import build_schedule
from trainable.session import Session
from trainable.tracking import Tracker

WEIGHTS_FILE = "model.weights"


def train(config: TrainConfig, session: Session) -> None:
    """Train one configuration to its end, from its newest checkpoint where there is one.

    Reports once per epoch. Everything a killed process would miss is on disk before the report:
    checkpoint, result row and, after the last epoch, the final weights.
    """
    torch.set_num_threads(session.threads)
    _seed(config.seed)
    data = open_data(
        config.dataset,
        dataset_path=config.dataset_path,
        dataset_val_path=config.dataset_val_path,
        batch_size=config.batch_size,
        image_size=config.image_size,
        seed=config.seed,
        rank=session.rank,
        world_size=session.world_size,
        loader_threads=session.threads,
    )
    run = _Run(config, session, data)
    if run.history and (FINISHED in run.history[-1] or DIVERGED in run.history[-1]):
        session.report(run.history[-1])  # killed between its last checkpoint and its last report
        return
    with contextlib.ExitStack() as stack:
        tracker = None
        if session.rank == 0:
            tracker = stack.enter_context(
                Tracker(session.folder, run.history, config.model_dump(mode="json"))
            )
        for index in range(len(run.history), config.max_epochs):
            row = run.epoch(index)
            ended = FINISHED in row or DIVERGED in row
            if ended or (index + 1) % config.checkpoint_interval == 0:
                run.save()
            if tracker:
                tracker.log(row)
            session.report(row)
            if ended:
                return


class _Run:
    """What one run carries from epoch to epoch, and out of a checkpoint into the next process."""

    def __init__(self, config: TrainConfig, session: Session, data: Data) -> None:
        self.config, self.session, self.data = config, session, data
        self.network = build_model(config, data.info.num_classes).to(session.device)
        self.model = session.wrap(self.network)
        self.optimizer = build_optimizer(self.network, config)
        self.schedule = build_schedule(self.optimizer, config)
        self.history: list[dict[str, Any]] = []
        self.store = checkpoint.CheckpointStore(session.folder / "checkpoints", config.keep_checkpoints)
        # Weights are equal on all workers; what each of them draws from here on is its own.
        _seed(config.seed + 1 + session.rank)
        self._restore()

    def epoch(self, index: int) -> dict[str, Any]:
        """Train and validate once; append and return the metrics of the epoch."""
        started = time.perf_counter()
        learning_rate = self.optimizer.param_groups[0]["lr"]
        train_loss, train_acc, images = self._train_epoch(index)
        seconds = time.perf_counter() - started
        val_loss, val_acc, _ = self._validate()
        self.schedule.step()
        row: dict[str, Any] = {
            EPOCH: index + 1,
            "train_loss": train_loss,
            "train_acc": train_acc,
            "val_loss": val_loss,
            VAL_ACC: val_acc,
            "learning_rate": learning_rate,
            "images_per_second": images / seconds,
            "seconds": time.perf_counter() - started,
        }
        self.history.append(row)
        if not math.isfinite(train_loss) or not math.isfinite(val_loss):
            row[DIVERGED] = "nan_loss"
        elif index + 1 == self.config.max_epochs or self._stopped_improving():
            row[FINISHED] = True
        return row

    def _train_epoch(self, index: int) -> tuple[float, float, float]:
        """One pass over the training data; mean loss (nats), accuracy (fraction), images seen."""
        self.model.train()
        totals = torch.zeros(3, dtype=torch.float64, device=self.session.device)  # loss, correct, images
        for images, labels in self.data.train.epoch(index):
            chunk = self.config.micro_batch(len(labels))
            for start in range(0, len(labels), chunk):
                last = start + chunk >= len(labels)
                # Workers average their gradients once per optimizer step, with the last micro-batch.
                synchronized = contextlib.nullcontext() if last else _no_sync(self.model)
                with synchronized:
                    loss = self._forward(
                        images[start : start + chunk], labels[start : start + chunk], totals, self.model
                    )
                    (loss / len(labels)).backward()
            clip_gradients(self.network.parameters(), self.config)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return self._means(totals)

    @torch.inference_mode()
    def _validate(self) -> tuple[float, float, float]:
        """One pass over the validation data, every image once over all workers."""
        self.network.eval()
        totals = torch.zeros(3, dtype=torch.float64, device=self.session.device)
        loader: BatchLoader = self.data.validation
        for images, labels in loader.epoch(0):
            chunk = self.config.micro_batch(len(labels))
            for start in range(0, len(labels), chunk):
                self._forward(
                    images[start : start + chunk], labels[start : start + chunk], totals, self.network
                )
        return self._means(totals)

    def _forward(self, images: Tensor, labels: Tensor, totals: Tensor, model: nn.Module) -> Tensor:
        """Summed loss of one micro-batch; its sums are added to `totals` without waiting for the device."""
        images = images.to(self.session.device, non_blocking=True)
        labels = labels.to(self.session.device, non_blocking=True)
        logits = model(images)
        loss = F.cross_entropy(logits, labels, reduction="sum")
        with torch.no_grad():
            totals[0] += loss.detach()
            totals[1] += (logits.argmax(1) == labels).sum()
            totals[2] += len(labels)
        return loss

    def _means(self, totals: Tensor) -> tuple[float, float, float]:
        loss, correct, images = self.session.sum(totals).tolist()
        return loss / images, correct / images, images

    def _stopped_improving(self) -> bool:
        """Whether `early-stop` ends the run: validation loss has not fallen for `patience` epochs."""
        if self.config.epochs != "early-stop":
            return False
        best, best_epoch = math.inf, 0
        for row in self.history:
            if row["val_loss"] < best - self.config.early_stop_min_delta:
                best, best_epoch = row["val_loss"], row[EPOCH]
        return bool(self.history[-1][EPOCH] - best_epoch >= self.config.early_stop_patience)

    def save(self) -> None:
        """Write the checkpoint of the epochs done, and the final weights if the run has ended."""
        states = self.session.gather(checkpoint.random_states())
        if self.session.rank != 0:
            return
        about = {
            "config": self.config.model_dump(mode="json"),
            "preprocessing": self.data.preprocessing.to_dict(),
            "class_names": list(self.data.info.class_names),
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        }
        last = self.history[-1]
        if FINISHED in last:
            weights = {name: value.cpu() for name, value in self.network.state_dict().items()}
            checkpoint.export_weights(self.session.folder / WEIGHTS_FILE, weights, {**about, "metrics": last})
        content = {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": self.history,
            "random_states": states,
            **about,
        }
        self.store.save((last[EPOCH], 0), content)

    def _restore(self) -> None:
        # Worker 0 alone judges which checkpoint is intact, so that all continue from the same one.
        content = self.store.load_latest() if self.session.rank == 0 else None
        epoch = self.session.gather(content["history"][-1][EPOCH] if content else 0)[0]
        if epoch == 0:
            return
        if content is None:
            content = self.store.load((epoch, 0))
        self.network.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.history = content["history"]
        states = content["random_states"]
        if self.session.rank < len(states):
            checkpoint.restore_random_states(states[self.session.rank])


def _no_sync(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    no_sync = getattr(model, "no_sync", contextlib.nullcontext)  # DistributedDataParallel has it
    return no_sync()


def _seed(seed: int) -> None:
    """Seed every generator this process draws from; a reused process starts like a new one."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
