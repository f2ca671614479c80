"""Settings of a run: the network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from trainable.config.base import Settings

# The cells' own normalization where the config says nothing: the fGRU of Linsley et al. 2020 is defined
# with instance normalization, all other cells were trained with batch normalization in the thesis.
_DEFAULT_NORMALIZATION = {"fgru": "instancenorm"}

# Where tower_type chooses something, what it may be.
TOWER_TYPES_OF = {"ff_tower": ("normal", "more", "wider", "deeper"), "gammanet": ("small", "normal")}


class NetworkSettings(Settings):
    """What network is trained."""

    model_base: Literal["ff_tower", "gammanet", "resnet18"] = "ff_tower"
    """Overall architecture: `ff_tower` is the unrolled tower of recurrent blocks; `gammanet` has fGRUs that
    also feed back from stage to stage, and no use for the settings of cells; `resnet18` has no memory."""

    tower_type: Literal["normal", "more", "wider", "deeper", "small"] = "normal"
    """Which widths and depth the network has; `filters` and `pools` override it. A gammanet is `small`, the
    thesis' one, or `normal`, on VGG-16."""

    gamma_head: Literal["map", "pooled"] = "map"
    """What a gammanet's classifier reads: a 224 x 224 map, which takes 50 million weights for 1000 classes,
    or the means of all its layers."""

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

    @model_validator(mode="before")
    @classmethod
    def _normalization_of_the_cell(cls, values: Any) -> Any:
        if isinstance(values, dict):
            cell = "fgru" if values.get("model_base") == "gammanet" else str(values.get("cell_type"))
            default = _DEFAULT_NORMALIZATION.get(cell, "batchnorm")
            given = values.get("normalization", default)
            return {**values, "normalization": "none" if given is None else given}
        return values

    @model_validator(mode="after")
    def _network_settings_fit_together(self) -> Self:
        types = TOWER_TYPES_OF.get(self.model_base)
        if types and self.tower_type not in types:
            raise ValueError(
                f"tower_type of {self.model_base} must be one of {', '.join(types)}, got {self.tower_type!r}"
            )
        if self.filters is not None and min(self.filters) < 1:
            raise ValueError(f"filters must be positive, got {self.filters}")
        if self.pools is not None and (self.filters is None or len(self.pools) != len(self.filters)):
            raise ValueError(f"pools must be as long as filters, got {self.pools} for {self.filters}")
        return self
