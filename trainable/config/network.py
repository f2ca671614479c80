"""Settings of a run: the network."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from trainable.config.base import Settings

# Where tower_type chooses something, what it may be.
TOWER_TYPES_OF = {"ff_tower": ("normal", "more", "wider", "deeper"), "gammanet": ("small", "normal")}

# Blocks of an ff_tower without filters.
TOWER_BLOCKS = {"normal": 5, "more": 8, "wider": 5, "deeper": 10}

# The first convolution of a gammanet on VGG-16, whatever is set.
_VGG_STEM = {"first_kernel": 3, "first_stride": 1}

# Which cells have an option, as the constructors of models.cells do.
CELLS_WITH: dict[str, tuple[str, ...]] = {
    "norm_position": ("rnn", "gru", "lstm", "reciprocal"),
    "peepholes": ("lstm",),
    "forget_bias": ("lstm",),
    "shared_kernel": ("hgru",),
    "symmetry": ("hgru",),
    "gate_bias": ("hgru", "fgru"),
    "attention": ("fgru",),
    "attention_layers": ("fgru",),
    "force_alpha_divisive": ("fgru",),
    "force_non_negativity": ("fgru",),
    "multiplicative_excitation": ("fgru",),
    "hidden_seed": ("rnn", "gru", "lstm", "reciprocal", "hgru", "fgru"),
}

# Which networks have a setting, as the keywords of models.MODELS do. What is not here may be set for any: how
# it is executed, and cell_type and time_steps, which the original's configs carry whatever the network.
_TOWERS = ("ff_tower", "dev_tower")
_RECURRENT = (*_TOWERS, "gammanet")
NETWORKS_WITH: dict[str, tuple[str, ...]] = {
    "tower_type": _RECURRENT,
    "gamma_head": ("gammanet",),
    "filters": _RECURRENT,
    "pools": _TOWERS,
    "first_kernel": _RECURRENT,
    "first_stride": _RECURRENT,
    "cell_kernel": _TOWERS,
    "activation": _TOWERS,
    "normalization": _RECURRENT,
    "dropout": _TOWERS,
    "dropout_recurrent": _TOWERS,
    "skip_first": _TOWERS,
    "do_preconv": _TOWERS,
    "preconv_kernel": _TOWERS,
    "hidden_init": _TOWERS,
    "thesis_exact": _TOWERS,
    "recompute": _RECURRENT,
    **{
        option: _RECURRENT if "fgru" in cells and option != "hidden_seed" else _TOWERS
        for option, cells in CELLS_WITH.items()
    },
}


class NetworkSettings(Settings):
    """What network is trained."""

    model_base: Literal["ff_tower", "gammanet", "resnet18", "dev_tower"] = "ff_tower"
    """Overall architecture: `ff_tower` is the unrolled tower of recurrent blocks; `gammanet` has fGRUs that
    also feed back from stage to stage, with the options of fgru; `resnet18` has no memory; `dev_tower` is an
    `ff_tower` of three narrow blocks, to try things out. Settings that a network doesn't have are refused."""

    tower_type: Literal["normal", "more", "wider", "deeper", "small"] = "normal"
    """Which widths and depth the network has; `filters` and `pools` override it. A gammanet is `small`, the
    thesis' one, or `normal`, on VGG-16."""

    gamma_head: Literal["map", "pooled"] = "map"
    """What a gammanet's classifier reads: a 224 x 224 map, which takes 50 million weights for 1000 classes,
    or the means of all its layers."""

    filters: list[int] | None = Field(default=None, min_length=1)
    """Channels of every block, for small images and small models; overrides `tower_type`."""

    pools: list[bool] | None = Field(default=None, min_length=1)
    """For every block, whether 2x2 max pooling follows it. As long as `filters`, or as the tower type's."""

    first_kernel: int = Field(default=7, ge=1)
    """Kernel side of the first block, in pixels."""

    first_stride: int = Field(default=2, ge=1)
    """Stride of the first block, in pixels; 1 keeps small images whole."""

    cell_type: Literal["conv", "rnn", "gru", "lstm", "reciprocal", "hgru", "fgru"] = "conv"
    """Recurrent cell of every block of a tower: a key of models.cells.CELLS. A gammanet has fgru in any case,
    resnet18 none."""

    cell_kernel: int = Field(default=3, ge=1)
    """Kernel side of the recurrent cells, in feature-map positions."""

    time_steps: int = Field(default=1, ge=1, le=10_000)
    """Times one still image is fed through the network. Time and memory per image grow linearly with it."""

    activation: Literal["relu", "elu", "tanh", "sigmoid", "gelu", "silu"] = "relu"
    """Nonlinearity of blocks and cells."""

    normalization: Literal[
        "none", "batchnorm", "batchnorm_per_step", "layernorm", "instancenorm", "groupnorm"
    ] = "batchnorm"
    """Normalization of blocks and cells. Left out: batchnorm, and instancenorm for gammanet and for fgru
    (not with `thesis_exact`, which makes it an hgru); null means none. `batchnorm_per_step` has weights and
    statistics per time step; steps beyond `time_steps` use the last."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability that a whole channel of the last map is silenced before the head, the same channels in all
    steps."""

    dropout_recurrent: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability that a channel of a cell's state is silenced where its convolutions read it, the same
    channels in all steps (variational dropout)."""

    skip_first: bool = False
    """Make the first block a plain convolution: cheaper, as its output is then computed once per image."""

    do_preconv: bool = True
    """Put a linear convolution before cells that need one (reciprocal, hgru, fgru)."""

    preconv_kernel: int = Field(default=1, ge=1)
    """Side of that convolution, in feature-map positions."""

    hidden_init: Literal["zero", "identity", "random"] | None = None
    """Hidden state before the first step. Left out: identity for fgru, zero for all others; with
    `thesis_exact`, random for hgru and fgru."""

    hidden_seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of hidden_init `random`: every image starts from the same map. Left out: new noise per batch."""

    norm_position: Literal["after", "before"] | None = None
    """rnn, gru, lstm, reciprocal: normalization after the activation (the default) or before it."""

    peepholes: Literal["conv", "hadamard", "none"] | None = None
    """lstm: how gates see the memory. `conv` (the default) costs 11 million weights in a normal tower."""

    forget_bias: float | None = None
    """lstm: first bias of the forget gate; 1 by default, so that a fresh cell remembers."""

    shared_kernel: bool | None = None
    """hgru: one kernel for inhibition and excitation, as in its paper, instead of two."""

    symmetry: Literal["gradient", "parametrized", "free"] | None = None
    """hgru: how kernels stay symmetric in their channels; `gradient` by default."""

    gate_bias: Literal["before_norm", "after_norm"] | None = None
    """hgru, fgru: where gates add their time constants; norms cancel them in `before_norm`, the default."""

    attention: Literal["gala", "se", "none"] | None = None
    """fgru: attention of its first gate; `gala` by default."""

    attention_layers: int | None = Field(default=None, ge=1)
    """fgru: depth of that attention; 2 by default."""

    force_alpha_divisive: bool | None = None
    """fgru: let inhibition only divide (sigmoid of alpha); false by default."""

    force_non_negativity: bool | None = None
    """fgru: let inhibition only subtract (a relu); true by default."""

    multiplicative_excitation: bool | None = None
    """fgru: excitation has a product term; true by default."""

    thesis_exact: bool = False
    """Give the original code's numbers where this project corrects them (to load its weights). An fgru is
    then the hgru that the original's towers made of it."""

    channels_last: bool = False
    """Keep feature maps with channels innermost in memory: faster with bfloat16 and on GPUs."""

    compile: Literal["off", "step", "model"] = "off"
    """Compile each cell's time step, or the whole model: faster steps after a slow first one."""

    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them: up to a third more time, and
    memory that grows with time_steps by the states alone. One time step is as it was."""

    @field_validator("compile", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads `off` as false

    @model_validator(mode="before")
    @classmethod
    def _normalization_of_the_cell(cls, values: Any) -> Any:
        if isinstance(values, dict):
            # The fGRU of Linsley et al. 2020 is defined with instance normalization; all else was trained
            # with batch normalization in the thesis, also what is called fgru there, an hgru.
            base, cell = values.get("model_base", "ff_tower"), values.get("cell_type")
            fgru = base in _TOWERS and cell == "fgru" and not values.get("thesis_exact")
            default = "instancenorm" if fgru or base == "gammanet" else "batchnorm"
            given = values.get("normalization", default)
            return {**values, "normalization": "none" if given is None else given}
        return values

    @model_validator(mode="after")
    def _the_network_has_the_settings(self) -> Self:
        missing = []
        for key, networks in NETWORKS_WITH.items():
            value = getattr(self, key)
            if self.model_base not in networks and value != type(self).model_fields[key].default:
                missing.append(f"{key} (got {value!r})")
        if missing:
            it = "it" if len(missing) == 1 else "them"
            raise ValueError(f"{self.model_base} has no {', '.join(missing)}; leave {it} out")
        if (self.model_base, self.tower_type) == ("gammanet", "normal"):
            for key, fixed in _VGG_STEM.items():
                value = getattr(self, key)
                if value not in (fixed, type(self).model_fields[key].default):
                    raise ValueError(f"{key} of a normal gammanet is {fixed}, got {value}; leave it out")
        return self

    @model_validator(mode="after")
    def _the_cell_has_the_options(self) -> Self:
        if self.model_base not in _TOWERS:
            return self
        original = self.thesis_exact and self.cell_type == "fgru"
        for option, cells in CELLS_WITH.items():
            if getattr(self, option) is None or ("hgru" if original else self.cell_type) in cells:
                continue
            if original:
                having = [name for name, cells in CELLS_WITH.items() if "hgru" in cells]
                raise ValueError(
                    f"with thesis_exact an fgru is what the original's towers made of it, an hgru, which has "
                    f"no option {option!r}; it has: {', '.join(having)}"
                )
            raise ValueError(
                f"{option} is an option of {', '.join(cells)}; cell_type {self.cell_type!r} has none"
            )
        return self

    @model_validator(mode="after")
    def _network_settings_fit_together(self) -> Self:
        types = TOWER_TYPES_OF.get(self.model_base)
        if types and self.tower_type not in types:
            raise ValueError(
                f"tower_type of {self.model_base} must be one of {', '.join(types)}, got {self.tower_type!r}"
            )
        if self.hidden_seed is not None and self.hidden_init != "random":
            raise ValueError(f"hidden_seed needs hidden_init random, got {self.hidden_init}")
        if self.recompute and self.compile == "model":
            raise ValueError("recompute goes with compile off or step, got compile model")
        if self.filters is not None and min(self.filters) < 1:
            raise ValueError(f"filters must be positive, got {self.filters}")
        if self.pools is not None:
            self._check_pools(self.pools)
        return self

    def _check_pools(self, pools: list[bool]) -> None:
        if self.filters is not None:
            if len(pools) != len(self.filters):
                raise ValueError(f"pools must be as long as filters, got {pools} for {self.filters}")
        elif self.model_base == "dev_tower":
            raise ValueError(f"pools of a dev_tower go with filters, got {pools} alone")
        elif len(pools) != TOWER_BLOCKS[self.tower_type]:
            raise ValueError(
                f"pools of a {self.tower_type} tower are {TOWER_BLOCKS[self.tower_type]}, one per block; got "
                f"{pools}"
            )
