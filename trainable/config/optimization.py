"""Settings of a run: batches, epochs, optimizer, schedule."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from trainable.config.base import Settings

EARLY_STOP_CAP = 400
"""Epochs after which a run with `epochs: early-stop` ends even if it still improves."""


class OptimizationSettings(Settings):
    """How the network is trained."""

    batch_size: int = Field(gt=0)
    """Images per optimizer step, over all workers together."""

    batch_max: int | None = Field(default=None, gt=0)
    """Most images per forward pass and worker. Smaller saves memory (gradients are accumulated exactly),
    but batch normalization then averages over fewer images."""

    batch_frag: int | None = Field(default=None, gt=0)
    """Forward passes per optimizer step and worker: another way to say `batch_max`."""

    epochs: int | Literal["early-stop"] = Field(union_mode="left_to_right")
    """Passes over the training data, or `early-stop`: until validation loss stops improving."""

    early_stop_patience: int = Field(default=5, gt=0)
    """With `early-stop`: epochs without improvement after which the run ends."""

    early_stop_min_delta: float = Field(default=0.0, ge=0.0)
    """With `early-stop`: by how much validation loss must fall to count as an improvement."""

    learning_rate: float = Field(gt=0)
    """Step size of the optimizer. Not rescaled with the batch size or the number of workers."""

    optimizer: Literal["adam", "adamw", "sgd", "rms"] = "adam"
    """Optimizer: a key of trainable.optim.OPTIMIZERS."""

    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Momentum of sgd (Nesterov, where above 0) and rms; adam and adamw don't read it."""

    weight_decay: float = Field(default=0.0, ge=0.0)
    """Weight decay of convolution and linear weights; norms, biases and gains are left alone."""

    lr_scheduler: Literal["none", "step", "cosine"] = "none"
    """Learning rate over epochs: `step` divides by 10 every `lr_step`, `cosine` falls to 0 at the end."""

    lr_step: int | None = Field(default=None, gt=0)
    """Epochs between two drops of the `step` schedule."""

    do_gradient_clipping: bool = False
    """Clip gradients before each optimizer step, to `clip_norm` unless `clip_value` is given."""

    clip_norm: float = Field(default=1.0, gt=0)
    """Largest L2 norm of all gradients together."""

    clip_value: float | None = Field(default=None, gt=0)
    """Largest absolute value of one gradient entry; the thesis used 0.7."""

    seed: int = Field(default=0, ge=0)
    """Seed of weights, order of images, augmentation and dropout."""

    @model_validator(mode="after")
    def _optimization_settings_fit_together(self) -> Self:
        if isinstance(self.epochs, int) and self.epochs < 1:
            raise ValueError(f"epochs must be at least 1 or 'early-stop', got {self.epochs}")
        if self.epochs == "early-stop" and self.lr_scheduler == "cosine":
            raise ValueError("lr_scheduler 'cosine' needs a number of epochs, got epochs 'early-stop'")
        if (self.lr_scheduler == "step") != (self.lr_step is not None):
            raise ValueError("lr_scheduler 'step' and lr_step go together: give both or neither")
        if self.batch_max is not None and self.batch_frag is not None:
            raise ValueError("batch_max and batch_frag say the same thing: give one of them")
        return self

    @property
    def max_epochs(self) -> int:
        """Epochs after which the run ends at the latest."""
        return EARLY_STOP_CAP if self.epochs == "early-stop" else int(self.epochs)

    def micro_batch(self, images: int) -> int:
        """Images per forward pass for a worker that sees `images` per optimizer step."""
        if self.batch_frag is not None:
            return -(-images // self.batch_frag)
        return min(images, self.batch_max or images)
