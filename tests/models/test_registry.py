from types import SimpleNamespace

import pytest
import torch
from pydantic import BaseModel
from torch import nn

from models import CELLS, MODELS, build_model, build_uninitialized
from trainable.config.network import NetworkSettings

CONFIG = {
    "model_base": "ff_tower",
    "cell_type": "gru",
    "normalization": None,
    "time_steps": 2,
    "filters": [4, 5],
    "pools": [True, True],
    "learning_rate": 0.1,
}


class _Config(BaseModel):
    model_base: str = "ff_tower"
    cell_type: str = "gru"
    normalization: str | None = None
    time_steps: int = 2
    filters: tuple[int, ...] = (4, 5)
    pools: tuple[bool, ...] = (True, True)


@pytest.mark.parametrize("config", [CONFIG, SimpleNamespace(**CONFIG), _Config()])
def test_mapping_namespace_and_pydantic_model_give_the_same_model(config: object) -> None:
    torch.manual_seed(4)
    reference = build_model(dict(CONFIG), 3)
    torch.manual_seed(4)
    model = build_model(config, 3)
    assert model.time_steps == 2
    weights = model.state_dict()
    assert weights.keys() == reference.state_dict().keys()
    assert not any("norm" in name for name in weights)
    assert all(torch.equal(weights[name], value) for name, value in reference.state_dict().items())


def test_every_setting_reaches_the_model() -> None:
    config = {"cell_type": "hgru", "filters": [4, 5], "pools": [1, 1], "skip_first": True, "cell_kernel": 5}
    shapes = {
        name: tuple(p.shape) for name, p in build_model({**config, "preconv_kernel": 3}, 3).named_parameters()
    }
    assert shapes["cell_blocks.0.conv.weight"] == (4, 3, 7, 7)
    assert shapes["cell_blocks.1.conv.weight"] == (5, 4, 3, 3)
    assert shapes["cell_blocks.1.hgru.w_gate_inh"] == (5, 5, 5, 5)
    assert shapes["last_conv.weight"] == (3, 5, 3, 3)


def test_defaults_are_the_feed_forward_tower_with_batchnorm() -> None:
    with torch.device("meta"):
        model = build_model({}, 1000)
    assert sum(p.numel() for p in model.parameters()) == 6_760_168
    assert model.get_submodule("cell_blocks.4.norm").num_features == 512


@pytest.mark.parametrize("thesis_exact", [False, True])
@pytest.mark.parametrize(
    "config", [*({"cell_type": cell} for cell in CELLS), *({"model_base": name} for name in MODELS)], ids=str
)
def test_a_mapping_has_the_normalization_of_the_typed_configuration(
    config: dict[str, str], thesis_exact: bool
) -> None:
    if config.get("model_base") in ("gammanet", "resnet18"):
        thesis_exact = False
    config = {**config, "thesis_exact": thesis_exact}
    plain, typed = (build_uninitialized(c, 3) for c in (config, NetworkSettings(**config)))
    assert [type(m) for m in plain.modules()] == [type(m) for m in typed.modules()]
    cell = config.get("cell_type")
    norms = nn.InstanceNorm2d if cell == "fgru" and not thesis_exact else nn.BatchNorm2d
    if cell is not None:
        assert any(isinstance(m, norms) for m in plain.modules())


def test_unknown_model_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="unknown model_base 'resnet'; allowed: ff_tower, gammanet"):
        build_model({"model_base": "resnet"}, 3)
    assert list(MODELS) == ["ff_tower", "gammanet", "resnet18", "dev_tower"]


@pytest.mark.parametrize("cell_type", ["conv", "gru"])
def test_dev_tower_is_three_narrow_blocks_and_has_the_settings_of_a_tower(cell_type: str) -> None:
    config = {"model_base": "dev_tower", "tower_type": "deeper", "cell_type": cell_type, "time_steps": 2}
    model = build_model(config, 5)
    assert [block.out_channels for block in model.cell_blocks] == [8, 16, 32]
    assert model(torch.randn(2, 3, 21, 21)).shape == (2, 5)
    with pytest.raises(ValueError, match="image of 20x20 px is too small .* need 21 px"):
        model(torch.randn(2, 3, 20, 20))
    wide = build_model({**config, "filters": [4, 6], "pools": [True, False]}, 5)
    assert [block.out_channels for block in wide.cell_blocks] == [4, 6]


@pytest.mark.parametrize(
    "config",
    [*({"cell_type": cell} for cell in CELLS), {"model_base": "gammanet"}, {"model_base": "resnet18"}],
    ids=str,
)
def test_an_uninitialized_model_has_every_name_and_shape_and_draws_nothing(config: dict[str, str]) -> None:
    small = {"filters": [4, 5], "pools": [True, True]} if "cell_type" in config else {}
    before = torch.get_rng_state()
    shapes = {
        name: value.shape for name, value in build_uninitialized({**config, **small}, 3).state_dict().items()
    }
    assert torch.equal(torch.get_rng_state(), before)
    with torch.device("meta"):
        model = build_model({**config, **small}, 3)
    assert shapes == {name: value.shape for name, value in model.state_dict().items()}
