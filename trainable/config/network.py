"""Settings of a run: the network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from trainable.config.base import Settings

# The cells' own normalization where the config says nothing: the fGRU of Linsley et al. 2020 is defined
# with instance normalization, all other cells were trained with batch normalization in the thesis.
_DEFAULT_NORMALIZATION = {"fgru": "instancenorm"}


class NetworkSettings(Settings):
    """What network is trained."""

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

    @model_validator(mode="before")
    @classmethod
    def _normalization_of_the_cell(cls, values: Any) -> Any:
        if isinstance(values, dict):
            default = _DEFAULT_NORMALIZATION.get(str(values.get("cell_type")), "batchnorm")
            given = values.get("normalization", default)
            return {**values, "normalization": "none" if given is None else given}
        return values

    @model_validator(mode="after")
    def _network_settings_fit_together(self) -> Self:
        if self.filters is not None and min(self.filters) < 1:
            raise ValueError(f"filters must be positive, got {self.filters}")
        if self.pools is not None and (self.filters is None or len(self.pools) != len(self.filters)):
            raise ValueError(f"pools must be as long as filters, got {self.pools} for {self.filters}")
        return self
