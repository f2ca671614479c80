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

    batch_max: int | Literal["auto"] | None = Field(default=None, union_mode="left_to_right")
    """Most images per forward pass and worker. Smaller saves memory (gradients are accumulated exactly),
    but batch normalization then averages over fewer images. `auto` tries before the first epoch how many
    fit; without it a step that runs out of memory is repeated with half as many."""

    batch_frag: int | None = Field(default=None, gt=0)
    """Forward passes per optimizer step and worker, at most: another way to say `batch_max`."""

    memory_check: bool = True
    """Work out before the first step what a step keeps in memory at least. Where that is more than is free,
    fewer images are computed at a time; where not even one fits, the run is refused."""

    epochs: int | Literal["early-stop"] = Field(union_mode="left_to_right")
    """Passes over the training data, or `early-stop`: until validation loss stops improving."""

    early_stop_patience: int = Field(default=5, gt=0)
    """With `early-stop`: epochs without improvement after which the run ends."""

    early_stop_min_delta: float = Field(default=0.0, ge=0.0)
    """With `early-stop`: by how much validation loss must fall to count as an improvement."""

    learning_rate: float = Field(gt=0)
    """Step size of the optimizer. Not rescaled with the batch size or the number of workers."""

    optimizer: Literal["adam", "adamw", "sgd", "rms", "nadam", "radam", "adafactor"] = "adam"
    """Optimizer: a key of trainable.optim.OPTIMIZERS."""

    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Momentum of sgd (Nesterov, where above 0) and rms; the others don't read it."""

    weight_decay: float = Field(default=0.0, ge=0.0)
    """Weight decay of convolution and linear weights; norms, biases and gains are left alone."""

    decay_all: bool = False
    """Let weight decay reach norms, biases and gains too, as the original did."""

    lr_scheduler: Literal["none", "step", "cosine", "linear", "onecycle"] = "none"
    """Learning rate over the optimizer steps: `step` divides by 10 every `lr_step` epochs, `cosine` and
    `linear` fall to 0 at the end, `onecycle` rises from 1/25 and falls to 1/250000 along cosines."""

    lr_step: int | None = Field(default=None, gt=0)
    """Epochs between two drops of the `step` schedule."""

    warmup_epochs: float = Field(default=0.0, ge=0.0)
    """Epochs (or a part of one) over which the learning rate rises linearly from 0 before the schedule
    begins; for `onecycle` how long it rises, 30 % of the run where this is 0."""

    do_gradient_clipping: bool = False
    """Clip gradients before each optimizer step, to `clip_norm` unless `clip_value` is given."""

    clip_norm: float = Field(default=1.0, gt=0)
    """Largest L2 norm of all gradients together."""

    clip_value: float | None = Field(default=None, gt=0)
    """Largest absolute value of one gradient entry; the thesis used 0.7."""

    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability spread evenly over all classes in training targets; validation never smooths."""

    mixup: float = Field(default=0.0, ge=0.0)
    """Mixup of neighbouring images: alpha of the Beta distribution of the mixture; 0 is off, 0.2 usual."""

    cutmix: float = Field(default=0.0, ge=0.0)
    """CutMix of neighbouring images: alpha of the Beta distribution of the area; 0 is off, 1 usual."""

    ema_decay: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Keep an exponential moving average of the weights with this decay per step (0.9999 for long runs).
    The average is then what is validated and written as the run's weights."""

    time_loss: Literal["last", "uniform", "linear"] | list[float] = "last"
    """Which time steps the loss supervises: the `last` one, all alike (`uniform`), later ones more
    (`linear`), or one weight per time step; weights are divided by their sum."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the network's arithmetic; weights stay fp32. fp16 scales the loss, and waits for
    the GPU in every step to see whether the scaled gradients overflowed."""

    sync_batchnorm: bool = False
    """With several workers, batch normalization over all workers' images instead of each one's own. A step
    that runs out of memory then ends the run: no worker can repeat it alone."""

    val_2t: Literal["end", "always", "never"] = "end"
    """When accuracy at twice the trained time steps (`val_acc_2t`) is measured: it costs as much
    as two validations."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of weights, order of images, augmentation and dropout."""

    @model_validator(mode="after")
    def _optimization_settings_fit_together(self) -> Self:
        if isinstance(self.epochs, int) and self.epochs < 1:
            raise ValueError(f"epochs must be at least 1 or 'early-stop', got {self.epochs}")
        if isinstance(self.batch_max, int) and self.batch_max < 1:
            raise ValueError(f"batch_max must be at least 1 or 'auto', got {self.batch_max}")
        if self.epochs == "early-stop" and self.lr_scheduler in ("cosine", "linear", "onecycle"):
            raise ValueError(
                f"lr_scheduler {self.lr_scheduler!r} needs a number of epochs, got epochs 'early-stop'"
            )
        if self.warmup_epochs >= self.max_epochs:
            raise ValueError(
                f"warmup_epochs must be below epochs ({self.epochs}), got {self.warmup_epochs:g}"
            )
        if (self.lr_scheduler == "step") != (self.lr_step is not None):
            raise ValueError("lr_scheduler 'step' and lr_step go together: give both or neither")
        if self.batch_max is not None and self.batch_frag is not None:
            raise ValueError("batch_max and batch_frag say the same thing: give one of them")
        if isinstance(self.time_loss, list) and (
            min(self.time_loss, default=0) < 0 or sum(self.time_loss) <= 0
        ):
            raise ValueError(f"time_loss must be weights of at least 0, one above 0, got {self.time_loss}")
        if self.clip_value is not None and not self.do_gradient_clipping:
            raise ValueError(f"clip_value (got {self.clip_value:g}) needs do_gradient_clipping: true")
        if self.sync_batchnorm and self.batch_max == "auto":
            raise ValueError("batch_max 'auto' does not go with sync_batchnorm: workers cannot try alone")
        return self

    @property
    def max_epochs(self) -> int:
        """Epochs after which the run ends at the latest."""
        return EARLY_STOP_CAP if self.epochs == "early-stop" else int(self.epochs)

    def micro_batch(self, images: int) -> int:
        """Images per forward pass for a worker that sees `images` per optimizer step."""
        if self.batch_frag is not None:
            return -(-images // self.batch_frag)
        return min(images, self.batch_max) if isinstance(self.batch_max, int) else images
