"""What a run carries from step to step, and through a checkpoint into the next process."""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor

from data import Data
from models import build_model
from models.execution import prepare_model
from trainable.checkpoint import Position
from trainable.config import TrainConfig
from trainable.ema import Ema
from trainable.memory import MicroBatch
from trainable.metrics import EPOCH
from trainable.optim import build_optimizer, load_optimizer
from trainable.randomness import random_states, restore_random_states
from trainable.session import Session
from trainable.sync_batchnorm import synchronize
from trainable.weights import load_weights


class EpochSums:
    """What the training part of one epoch adds up on one worker, over every process that worked on it."""

    def __init__(self, device: torch.device) -> None:
        self.counts = torch.zeros(4, dtype=torch.float64, device=device)
        """Summed loss, images right at first guess, within five guesses, images. On the device."""

        self.seconds = 0.0
        """Wall time of training."""

        self.wait_seconds = 0.0
        """Part of it that was spent waiting for data."""

    def state(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "counts": self.counts.tolist(),
            "seconds": self.seconds,
            "wait_seconds": self.wait_seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.counts.copy_(torch.tensor(state["counts"], dtype=torch.float64))
        self.seconds, self.wait_seconds = state["seconds"], state["wait_seconds"]


class RunState:
    """Everything a run is, at any optimizer step; `content` and `restore` take it through a checkpoint.

    Args:
        config: What is trained.
        session: Who trains it.
        data: The opened data set.
    """

    def __init__(self, config: TrainConfig, session: Session, data: Data) -> None:
        self.config, self.session = config, session
        self.network = build_model(config, data.info.num_classes).to(session.device)
        if config.sync_batchnorm:
            synchronize(self.network, session)
        self.ema = None if config.ema_decay is None else Ema(self.network, config.ema_decay)
        # After the copy for the average: what is compiled belongs to one network.
        for network in [self.network] + ([self.ema.network] if self.ema else []):
            prepare_model(network, compile=config.compile, channels_last=config.channels_last)
        self.optimizer = build_optimizer(self.network, config)
        self.scaler = torch.amp.GradScaler(session.device.type, enabled=config.precision == "fp16")
        self.micro_batch = MicroBatch(config.micro_batch(config.batch_size // session.world_size))
        self.history: list[dict[str, Any]] = []
        """Result rows of the epochs done, from which early stopping and the best epoch follow too."""

        self.step = 0
        """Optimizer steps done in the current epoch."""

        self.sums = EpochSums(session.device)
        self.steps_per_epoch = len(data.train)
        self.about: dict[str, Any] = {
            "config": config.model_dump(mode="json"),
            "preprocessing": data.preprocessing.to_dict(),
            "class_names": list(data.info.class_names),
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        }
        """What the numbers belong to; also written beside the weights."""

    @property
    def epoch(self) -> int:
        """Epochs done: the index of the current one."""
        return len(self.history)

    @property
    def position(self) -> Position:
        """Where the run stands."""
        return Position(self.epoch, self.step)

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run so far."""
        return self.epoch * self.steps_per_epoch + self.step

    def weights(self) -> dict[str, Tensor]:
        """The run's result, on the CPU: the averaged weights where there are some."""
        network = self.ema.network if self.ema else self.network
        return {name: value.cpu() for name, value in network.state_dict().items()}

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Add the row of the epoch that ends here, and begin the next."""
        assert row[EPOCH] == self.epoch + 1
        self.history.append(row)
        self.step = 0
        self.sums = EpochSums(self.session.device)

    def start_from(self, path: str) -> None:
        """Begin with the weights in `path`; raises WeightsError where they don't fit."""
        load_weights(self.network, path)
        if self.ema:
            self.ema.load_state_dict(self.network.state_dict())

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds. All workers call it together."""
        workers = self.session.gather(
            {
                "random_states": random_states(),
                "sums": self.sums.state(),
                "micro_batch": self.micro_batch.size,
                "notes": self.micro_batch.notes,
            }
        )
        return {
            "position": list(self.position),
            "model": self.network.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "workers": workers,
            **self.about,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Become what `content` was taken from. The number of workers may have changed since."""
        self.network.load_state_dict(content["model"])
        if self.ema:
            self.ema.load_state_dict(content["ema"] or content["model"])
        if self._unchanged(content, "optimizer", "decay_all"):  # or it begins anew
            load_optimizer(self.optimizer, content["optimizer"])
        if content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])
        self.history = content["history"]
        images = content["position"][1] * content["config"].get("batch_size", self.config.batch_size)
        self.step = min(images // self.config.batch_size, self.steps_per_epoch)
        workers, rank = content["workers"], self.session.rank
        if len(workers) == self.session.world_size:
            own = workers[rank]
            self.sums.load(own["sums"])
            if self._unchanged(content, "batch_size", "batch_max", "batch_frag"):
                self.micro_batch.size, self.micro_batch.notes = own["micro_batch"], own["notes"]
        elif rank == 0:
            self.sums.load(_together([worker["sums"] for worker in workers]))
        if rank < len(workers):
            restore_random_states(workers[rank]["random_states"])

    def _unchanged(self, content: dict[str, Any], *keys: str) -> bool:
        """Whether these settings are those that `content` was saved under; one it does not know is."""
        now, then = self.about["config"], content["config"]
        return all(then.get(key, now[key]) == now[key] for key in keys)


def _together(states: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums of several workers as one worker's; they trained and waited at the same time."""
    return {
        "counts": [sum(values) for values in zip(*(state["counts"] for state in states), strict=True)],
        "seconds": max(state["seconds"] for state in states),
        "wait_seconds": max(state["wait_seconds"] for state in states),
    }
