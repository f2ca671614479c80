"""TrainConfig: every setting of a single training run, with its unit and its consequence."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

EARLY_STOP_CAP = 400
"""Epochs after which a run with `epochs: early-stop` ends even if it still improves."""

# The cells' own normalization where the config says nothing: the fGRU of Linsley et al. 2020 is defined
# with instance normalization, all other cells were trained with batch normalization in the thesis.
_DEFAULT_NORMALIZATION = {"fgru": "instancenorm"}


class TrainConfig(BaseModel):
    """Everything that decides one training run; stored beside its results as config.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    # --- data -----------------------------------------------------------------------------------------
    dataset: Literal["digits", "ffcv"]
    """Keyword of the data set: `digits` (embedded sample, 32 px) or `ffcv` (your own .beton files)."""

    dataset_path: str | None = None
    """Training data: for `ffcv` the training .beton file."""

    dataset_val_path: str | None = None
    """Validation data: for `ffcv` the validation .beton file."""

    image_size: int | None = Field(default=None, ge=8)
    """Side of the square images the network sees, in pixels. Left out: the data set's own (224 for ffcv)."""

    # --- network --------------------------------------------------------------------------------------
    model_base: Literal["ff_tower"] = "ff_tower"
    """Overall architecture: `ff_tower` is the unrolled tower of recurrent blocks."""

    tower_type: Literal["normal", "more", "wider", "deeper"] = "normal"
    """Which widths and depth the tower has; `filters` and `pools` override it."""

    filters: list[int] | None = Field(default=None, min_length=1)
    """Channels of every block, for small images and small models; overrides `tower_type`."""

    pools: list[bool] | None = Field(default=None, min_length=1)
    """For every block, whether 2x2 max pooling follows it. As long as `filters`."""

    first_kernel: int = Field(default=7, ge=1)
    """Kernel side of the first block, in pixels."""

    first_stride: int = Field(default=2, ge=1)
    """Stride of the first block, in pixels; 1 keeps small images whole."""

    cell_type: Literal["conv", "rnn", "gru", "hgru", "fgru"] = "conv"
    """Recurrent cell of every block: a key of models.cells.CELLS."""

    cell_kernel: int = Field(default=3, ge=1)
    """Kernel side of the recurrent cells, in feature-map positions."""

    time_steps: int = Field(default=1, ge=1)
    """Times one still image is fed through the network. Time and memory per image grow linearly with it."""

    activation: Literal["relu", "elu", "tanh", "sigmoid", "gelu", "silu"] = "relu"
    """Nonlinearity of blocks and cells."""

    normalization: Literal["none", "batchnorm", "layernorm", "instancenorm", "groupnorm"] = "batchnorm"
    """Normalization of blocks and cells. Left out: batchnorm, and instancenorm for fgru; null means none."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability that spatial dropout silences a whole channel after a block, the same over all steps."""

    skip_first: bool = False
    """Make the first block a plain convolution: cheaper, as its output is then computed once per image."""

    do_preconv: bool = True
    """Put a 1x1 convolution before cells that need one (hgru, fgru)."""

    hidden_init: Literal["zero", "identity", "random"] | None = None
    """Hidden state before the first step. Left out: identity for fgru, zero for all others."""

    thesis_exact: bool = False
    """Give the original code's numbers where this project corrects them (to load its weights)."""

    # --- optimization ---------------------------------------------------------------------------------
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

    # --- keeping --------------------------------------------------------------------------------------
    checkpoint_interval: int = Field(default=5, gt=0)
    """Epochs between two checkpoints: what a killed run has to do again at most."""

    keep_checkpoints: int = Field(default=2, ge=2)
    """Checkpoints kept per run; two at least, so that a torn one has a predecessor."""

    do_reload: bool = True
    """Continue from the last checkpoint when the same command is given again; `--fresh` overrides it."""

    # --- Weights & Biases (optional: pip install wandb) -----------------------------------------------
    wb_suppress: bool = True
    """Don't log to Weights & Biases."""

    wb_group: str | None = None
    """Group of the run there."""

    wb_run_name: str | None = None
    """Name of the run there."""

    wb_sweep_id: str | None = None
    """Refused: sweeps are searched by run_search.py."""

    @model_validator(mode="before")
    @classmethod
    def _normalization_of_the_cell(cls, values: Any) -> Any:
        if isinstance(values, dict):
            default = _DEFAULT_NORMALIZATION.get(str(values.get("cell_type")), "batchnorm")
            given = values.get("normalization", default)
            return {**values, "normalization": "none" if given is None else given}
        return values

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        if isinstance(self.epochs, int) and self.epochs < 1:
            raise ValueError(f"epochs must be at least 1 or 'early-stop', got {self.epochs}")
        if self.epochs == "early-stop" and self.lr_scheduler == "cosine":
            raise ValueError("lr_scheduler 'cosine' needs a number of epochs, got epochs 'early-stop'")
        if (self.lr_scheduler == "step") != (self.lr_step is not None):
            raise ValueError("lr_scheduler 'step' and lr_step go together: give both or neither")
        if self.batch_max is not None and self.batch_frag is not None:
            raise ValueError("batch_max and batch_frag say the same thing: give one of them")
        if self.wb_sweep_id is not None:
            raise ValueError("wb_sweep_id: sweeps are searched by run_search.py; leave the key out")
        if self.filters is not None and min(self.filters) < 1:
            raise ValueError(f"filters must be positive, got {self.filters}")
        if self.pools is not None and (self.filters is None or len(self.pools) != len(self.filters)):
            raise ValueError(f"pools must be as long as filters, got {self.pools} for {self.filters}")
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
