"""Every option of every cell: it trains, it says what it says, and it is refused where it has no meaning."""

from typing import Any, get_args

import pytest
import torch

from models import build_model
from models.blocks import ACTIVATIONS
from models.cells import CELLS, HGRUCell, build_cell, option_names
from models.normalization import NORMALIZATIONS
from models.tower import FeedForwardTower
from trainable.config import TrainConfig
from trainable.config.network import CELLS_WITH, NetworkSettings

VALUES: dict[str, list[Any]] = {
    "norm_position": ["after", "before"],
    "peepholes": ["conv", "hadamard", "none"],
    "forget_bias": [0.5],
    "shared_kernel": [True],
    "symmetry": ["gradient", "parametrized", "free"],
    "gate_bias": ["before_norm", "after_norm"],
    "attention": ["gala", "se", "none"],
    "attention_layers": [1, 3],
    "force_alpha_divisive": [True],
    "force_non_negativity": [False],
    "multiplicative_excitation": [False],
}
COMBINATIONS = [
    (cell_type, {option: value})
    for cell_type, cell in CELLS.items()
    for option in cell.options()
    for value in VALUES.get(option, [])
]
COMBINATIONS += [(cell_type, {"kernel_size": 4}) for cell_type in CELLS]
COMBINATIONS += [
    (cell_type, {"hidden_init": "random", "hidden_seed": 3}) for cell_type in CELLS_WITH["hidden_seed"]
]
COMBINATIONS += [
    (cell_type, {"hidden_init": start})
    for cell_type, cell in CELLS.items()
    if cell.recurrent
    for start in cell.allowed_hidden_inits
]
COMBINATIONS += [(cell_type, {"activation": name}) for cell_type in CELLS for name in ACTIVATIONS]
COMBINATIONS += [
    (cell_type, {"thesis_exact": exact, "dropout": 0.3, "dropout_recurrent": 0.3, "recompute": recompute})
    for cell_type in CELLS
    for exact in (False, True)
    for recompute in (False, True)
]
COMBINATIONS += [(cell_type, {"skip_first": True, "preconv_kernel": 2}) for cell_type in CELLS]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize(("cell_type", "options"), COMBINATIONS, ids=str)
def test_every_combination_trains_for_two_steps(
    cell_type: str, options: dict[str, Any], normalization: str
) -> None:
    of_cell = {name: value for name, value in options.items() if name in option_names()}
    of_tower = {name: value for name, value in options.items() if name not in of_cell}
    tower = FeedForwardTower(
        3,
        cell_type=cell_type,
        filters=[4, 5],
        pools=[True, True],
        time_steps=3,
        first_kernel=3,
        first_stride=1,
        normalization=normalization,
        cell_kernel=of_tower.pop("kernel_size", 3),
        cell_options=of_cell,
        **of_tower,
    )
    optimizer = torch.optim.SGD(tower.parameters(), lr=0.01)
    x, labels = torch.randn(2, 3, 12, 14), torch.tensor([0, 2])
    for _ in range(2):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(tower(x), labels)
        assert loss.isfinite()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in tower.parameters())
        optimizer.step()
    assert all(p.isfinite().all() for p in tower.parameters())


def test_the_configuration_knows_which_cell_has_which_option() -> None:
    assert sorted(CELLS_WITH) == option_names()
    for option, cells in CELLS_WITH.items():
        assert cells == tuple(name for name, cell in CELLS.items() if option in cell.options())


def test_the_configuration_allows_the_normalizations_there_are() -> None:
    assert set(get_args(TrainConfig.model_fields["normalization"].annotation)) == set(NORMALIZATIONS)


def test_an_option_of_another_cell_is_refused_with_the_cells_that_have_it() -> None:
    with pytest.raises(ValueError, match="'gru' has no option 'peepholes'; cells that have it: lstm"):
        build_cell("gru", 3, 4, peepholes="none")
    with pytest.raises(ValueError, match="peepholes is an option of lstm; cell_type 'gru' has none"):
        NetworkSettings(cell_type="gru", peepholes="none")


def test_an_fgru_with_thesis_exact_has_the_options_of_an_hgru() -> None:
    assert isinstance(build_cell("fgru", 3, 4, thesis_exact=True, shared_kernel=True), HGRUCell)
    config = NetworkSettings(cell_type="fgru", thesis_exact=True, shared_kernel=True)
    assert not any("w_gate_exc" in name for name in build_model(config, 3).state_dict())
    message = (
        r"with thesis_exact an fgru is .* an hgru, which has no option 'attention'; it has: shared_kernel, "
    )
    with pytest.raises(ValueError, match=message):
        build_cell("fgru", 3, 4, thesis_exact=True, attention="se")
    with pytest.raises(ValueError, match=message):
        NetworkSettings(cell_type="fgru", thesis_exact=True, attention="se")
    with pytest.raises(ValueError, match="shared_kernel is an option of hgru; cell_type 'fgru' has none"):
        NetworkSettings(cell_type="fgru", shared_kernel=True)


def _at_a_pixel(cell: torch.nn.Module, names: str, v: torch.Tensor) -> torch.Tensor:
    conv = cell.get_submodule(names)
    return conv.weight[:, :, 0, 0] @ v + conv.bias


@pytest.mark.parametrize("peepholes", ["conv", "hadamard", "none"])
@pytest.mark.parametrize("norm_position", ["after", "before"])
def test_lstm_with_1x1_kernel_is_the_equation_at_a_pixel(peepholes: str, norm_position: str) -> None:
    cell = build_cell(
        "lstm", 3, 4, kernel_size=1, activation="tanh", peepholes=peepholes, norm_position=norm_position
    )
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_()
    x, h, c = torch.randn(3), torch.randn(4), torch.randn(4)

    def gate(name: str, memory: torch.Tensor) -> torch.Tensor:
        a = _at_a_pixel(cell, f"w{name}", x) + _at_a_pixel(cell, f"u{name}", h)
        if peepholes == "conv" and name != "can":
            a = a + _at_a_pixel(cell, f"v{name}", c)  # all three see the old memory
        if peepholes == "hadamard" and name != "can":
            a = a + getattr(cell, f"v{name}").flatten() * memory
        return a

    i, f, g = torch.sigmoid(gate("i", c)), torch.sigmoid(gate("f", c)), torch.tanh(gate("can", c))
    new_c = f * c + i * g
    o = torch.sigmoid(gate("o", new_c))
    output, state = cell(x.view(1, 3, 1, 1), (h.view(1, 4, 1, 1), c.view(1, 4, 1, 1)), 1)
    torch.testing.assert_close(output.flatten(), o * torch.tanh(new_c))
    torch.testing.assert_close(state[1].flatten(), new_c)


def test_normalization_before_the_activation_leaves_the_state_as_the_activation_made_it() -> None:
    for cell_type in ("rnn", "reciprocal"):
        cell = build_cell(cell_type, 3, 4, normalization="layernorm", norm_position="before")
        assert (cell(torch.randn(2, 3, 5, 7))[0] >= 0).all()  # relu
        after = build_cell(cell_type, 3, 4, normalization="layernorm")
        assert (after(torch.randn(2, 3, 5, 7))[0] < 0).any()


def test_a_fresh_lstm_remembers_and_the_thesis_one_is_undecided() -> None:
    assert (build_cell("lstm", 3, 4).wf.bias == 1).all()
    assert (build_cell("lstm", 3, 4, thesis_exact=True).wf.bias == 0).all()
    assert (build_cell("lstm", 3, 4, forget_bias=2.5).wf.bias == 2.5).all()


def test_batchnorm_per_step_has_its_own_statistics_in_each_step_and_the_last_beyond() -> None:
    cell = build_cell("rnn", 3, 4, normalization="batchnorm_per_step", time_steps=2)
    x, state = torch.randn(5, 3, 6, 7), None
    for t in range(2):
        _, state = cell(x, state, t)
    first, second = cell.norm.steps
    assert first.num_batches_tracked == second.num_batches_tracked == 1
    assert not torch.allclose(first.running_mean, second.running_mean)
    cell.eval()
    assert torch.equal(cell(x, state, 1)[0], cell(x, state, 9)[0])
    assert not torch.allclose(cell(x, state, 0)[0], cell(x, state, 1)[0])


def test_a_parametrized_kernel_is_symmetric_whatever_is_stored() -> None:
    cell = build_cell("hgru", 3, 4, symmetry="parametrized")
    with torch.no_grad():
        cell.hgru.w_gate_inh.normal_()
    used = cell.hgru.kernels().inhibition._weight
    assert torch.equal(used, used.transpose(0, 1))
    mirrored = build_cell("hgru", 3, 4, symmetry="parametrized")
    mirrored.load_state_dict(cell.state_dict())
    with torch.no_grad():
        mirrored.hgru.w_gate_inh.copy_(cell.hgru.w_gate_inh.transpose(0, 1))
    x, h = torch.randn(2, 3, 5, 7), torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(cell(x, h, 1)[0], mirrored(x, h, 1)[0])


def test_a_shared_kernel_is_the_cell_with_two_equal_ones() -> None:
    shared, two = build_cell("hgru", 3, 4, shared_kernel=True), build_cell("hgru", 3, 4)
    weights = shared.state_dict()
    two.load_state_dict({**weights, "hgru.w_gate_exc": weights["hgru.w_gate_inh"]})
    x, h = torch.randn(2, 3, 5, 7), torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(shared(x, h, 1)[0], two(x, h, 1)[0])


@pytest.mark.parametrize(("cell_type", "bias"), [("hgru", "hgru.u2_gate.bias"), ("fgru", "fgru.conv_g2_b")])
def test_time_constants_act_only_after_the_norm(cell_type: str, bias: str) -> None:
    x, h = torch.randn(2, 3, 5, 7), torch.rand(2, 4, 5, 7)
    for gate_bias, acts in (("before_norm", False), ("after_norm", True)):
        cell = build_cell(cell_type, 3, 4, normalization="instancenorm", gate_bias=gate_bias)
        before = cell(x, h, 1)[0]
        with torch.no_grad():
            cell.get_parameter(bias).fill_(-50.0)
        assert torch.allclose(cell(x, h, 1)[0], h if acts else before, atol=1e-3), gate_bias


def test_the_flags_of_the_fgru_act() -> None:
    x, h = torch.randn(2, 3, 5, 7), torch.rand(2, 4, 5, 7)
    plain = build_cell("fgru", 3, 4)
    divisive = build_cell("fgru", 3, 4, force_alpha_divisive=True)
    weights = plain.state_dict()
    divisive.load_state_dict({**weights, "fgru.alpha": torch.logit(torch.full((4, 1, 1), 0.1))})
    torch.testing.assert_close(divisive(x, h, 1)[0], plain(x, h, 1)[0])
    additive = build_cell("fgru", 3, 4, multiplicative_excitation=False)
    additive.load_state_dict({k: v for k, v in weights.items() if k != "fgru.omega"})
    with torch.no_grad():
        plain.fgru.omega.zero_()
    torch.testing.assert_close(additive(x, h, 1)[0], plain(x, h, 1)[0])
    signed = build_cell("fgru", 3, 4, force_non_negativity=False)
    signed.load_state_dict(weights)
    assert not torch.allclose(signed(x, h, 1)[0], plain(x, h, 1)[0])


def test_a_seeded_random_start_is_the_same_for_every_call_and_image() -> None:
    cell = build_cell("gru", 3, 4, hidden_init="random", hidden_seed=5)
    x = torch.randn(1, 3, 5, 7).expand(3, -1, -1, -1)
    first = cell(x)[0]
    assert torch.equal(cell(x)[0], first)
    torch.testing.assert_close(first[0], first[2])
    assert not torch.allclose(
        build_cell("gru", 3, 4, hidden_init="random", hidden_seed=6).initial_state(x), cell.initial_state(x)
    )


def test_recurrent_dropout_does_not_grow_the_state_and_the_thesis_one_does() -> None:
    def size(thesis_exact: bool) -> float:
        tower = FeedForwardTower(
            3,
            cell_type="gru",
            filters=[64],
            pools=[False],
            first_kernel=3,
            first_stride=1,
            normalization="none",
            time_steps=2,
            dropout_recurrent=0.3,
            thesis_exact=thesis_exact,
            hidden_init="random",
        )
        with torch.no_grad():
            for parameter in tower.cell_blocks.parameters():
                parameter.zero_()
            tower.cell_blocks[0].wz.bias.fill_(50.0 if thesis_exact else -50.0)  # keep the state
        _, hidden = tower(torch.randn(2, 3, 8, 8), return_all=True, return_hidden=True)
        return (hidden[1][0].abs().max() / hidden[0][0].abs().max()).item()

    assert size(thesis_exact=False) == pytest.approx(1.0)
    assert size(thesis_exact=True) == pytest.approx(1 / 0.7)  # of a channel kept twice
