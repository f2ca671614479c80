import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.cells import CELLS
from models.convolution import StateConv
from models.registry import build_model
from models.tower import FeedForwardTower
from models.tower_types import TOWER_TYPES

SMALL: dict[str, Any] = {
    "filters": [4, 6, 5],
    "pools": [True, False, True],
    "first_kernel": 3,
    "first_stride": 1,
}


def _tower(cell_type: str = "rnn", **settings: Any) -> FeedForwardTower:
    return FeedForwardTower(5, **{**SMALL, "cell_type": cell_type, "time_steps": 3, **settings})


def _by_the_definition(tower: FeedForwardTower, x: Tensor, steps: int) -> list[Tensor]:
    """Every block in every step, nothing shared and no shortcut: an independent way to the logits."""
    states: list[Any] = [None] * len(tower.cell_blocks)
    logits = []
    for t in range(steps):
        feature = x
        for i, block in enumerate(tower.cell_blocks):
            feature, states[i] = block(feature, states[i], t)
            feature = F.max_pool2d(feature, 2) if tower.pools[i] else feature
        logits.append(F.conv2d(feature, tower.last_conv.weight, tower.last_conv.bias).mean((2, 3)))
    return logits


def test_tower_reproduces_the_recorded_model(
    golden_tower: str, golden: Callable[[str], Any], assert_close: Callable[..., None]
) -> None:
    record = golden(golden_tower)
    model = build_model(record.settings, record.settings["num_classes"])
    model.load_state_dict(record.under("state."), strict=True)
    x = record["input"].float()

    model.eval()
    with torch.no_grad():
        logits, hidden = model(x, return_all=True, return_hidden=True)
        assert_close(torch.stack(logits), record["eval.logits_per_step"], "logits of each step")
        assert_close(model(x), record["eval.logits"], "logits")
        for layer, state in enumerate(hidden[-1]):
            output = state[0] if isinstance(state, tuple) else state
            assert_close(output.mean((2, 3)), record[f"eval.hidden{layer}.mean"], f"hidden {layer}")
        if record.get("eval.logits_more_steps") is not None:
            more = model(x, time_steps=record.settings["time_steps"] + 3)
            assert_close(more, record["eval.logits_more_steps"], "three more steps")

    model.train()
    loss = F.cross_entropy(model(x), torch.tensor([1, 5]))
    assert_close(loss, record["train.loss"], "loss")
    loss.backward()
    recorded = record.under("train.gradnorm.")
    whole = torch.stack(list(recorded.values())).norm().item()
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad.norm(), recorded[name], name, floor=5e-7 * whole)
    for name, buffer in record.under("after.").items():
        assert_close(model.get_buffer(name), buffer, name)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"cell_type": "conv"}, 6_760_168),
        ({"cell_type": "rnn"}, 10_447_720),
        ({"cell_type": "gru"}, 22_101_352),
        ({"cell_type": "lstm"}, 38_993_128),
        ({"cell_type": "reciprocal"}, 19_612_136),
        ({"cell_type": "hgru"}, 13_066_600),
        ({"tower_type": "wider"}, 19_270_888),
        ({"tower_type": "deeper"}, 11_703_784),
        ({"tower_type": "more"}, 9_305_896),
    ],
)
def test_parameter_count_is_the_originals(settings: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        model = FeedForwardTower(1000, skip_first=True, **settings)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("tower_type", TOWER_TYPES)
def test_every_tower_type_makes_a_3x3_map_of_224_px(tower_type: str) -> None:
    with torch.device("meta"):
        model = FeedForwardTower(1000, tower_type=tower_type)
        seen: list[torch.Size] = []
        model.last_conv.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[2:]))
        assert model(torch.empty(1, 3, 224, 224)).shape == (1, 1000)
    assert seen == [(3, 3)]


@pytest.mark.parametrize("cell_type", CELLS)
@pytest.mark.parametrize("skip_first", [True, False])
def test_computing_constant_parts_once_changes_neither_logits_nor_gradients(
    cell_type: str, skip_first: bool
) -> None:
    tower = _tower(cell_type, skip_first=skip_first).double()
    reference = copy.deepcopy(tower)
    steps = 1 if cell_type == "conv" else 4
    x = torch.randn(3, 3, 13, 17, dtype=torch.float64)
    logits, expected = tower(x, time_steps=4, return_all=True), _by_the_definition(reference, x, steps)
    torch.testing.assert_close(logits, expected)
    for outputs in (logits, expected):
        sum(output.square().sum() for output in outputs).backward()
    for (name, p), q in zip(tower.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    for (name, b), c in zip(tower.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(b, c, msg=name)


def test_input_convolutions_are_computed_once_for_all_steps() -> None:
    tower = _tower("rnn", skip_first=True)
    calls: list[int] = []
    images: list[int] = []
    tower.cell_blocks[0].conv.register_forward_hook(lambda *_: calls.append(0))
    tower.cell_blocks[1].x2h.register_forward_hook(lambda *_: calls.append(1))
    tower.cell_blocks[2].x2h.register_forward_hook(lambda *_: calls.append(2))
    tower.cell_blocks[2].x2h.register_forward_hook(lambda m, x, y: images.append(len(y)))
    tower(torch.randn(2, 3, 13, 17), time_steps=4)
    assert images == [4 * 2]
    assert [calls.count(block) for block in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(("cell_type", "gate"), [("gru", "wr"), ("lstm", "wf")])
def test_the_first_step_from_zeros_asks_no_gate_that_acts_on_zeros(cell_type: str, gate: str) -> None:
    tower = _tower(cell_type)
    frames: list[int] = []
    for block in tower.cell_blocks:
        getattr(block, gate).register_forward_hook(lambda m, x, y: frames.append(len(y) // 2))
    tower(torch.randn(2, 3, 13, 17), time_steps=1)
    assert frames == []
    tower(torch.randn(2, 3, 13, 17), time_steps=2)
    assert frames == [1] * len(tower.cell_blocks)


@pytest.mark.parametrize("cell_type", CELLS)
def test_a_single_step_gives_every_parameter_a_gradient(cell_type: str) -> None:
    tower = _tower(cell_type, time_steps=1)
    tower(torch.randn(2, 3, 13, 17)).sum().backward()
    assert [name for name, p in tower.named_parameters() if p.grad is None] == []


def test_the_forms_of_the_answer_agree() -> None:
    tower = _tower("gru", skip_first=True).eval()
    x = torch.randn(2, 3, 13, 17)
    last = tower(x)
    every, every_hidden = tower(x, return_all=True, return_hidden=True)
    logits, hidden = tower(x, return_hidden=True)
    assert len(every) == len(every_hidden) == 3
    assert len(hidden) == 3
    assert torch.equal(logits, last)
    assert torch.equal(every[-1], last)
    assert torch.equal(tower(x, return_all=True)[0], every[0])
    for t in range(3):
        step_logits, step_hidden = tower(x, time_steps=t + 1, return_hidden=True)
        torch.testing.assert_close(step_logits, every[t])
        torch.testing.assert_close(step_hidden, every_hidden[t])
    assert [tuple(h.shape) for h in hidden] == [(2, 4, 13, 17), (2, 6, 6, 8), (2, 5, 6, 8)]


def test_a_tower_without_memory_makes_one_step() -> None:
    tower = _tower("conv", time_steps=7).eval()
    x = torch.randn(2, 3, 13, 17)
    assert len(tower(x, time_steps=4, return_all=True)) == 1
    assert torch.equal(tower(x, time_steps=4), tower(x))


def test_the_head_averages_its_valid_positions() -> None:
    tower = _tower("conv").eval()
    x = torch.randn(2, 3, 20, 24)
    features = F.max_pool2d(tower(x, return_hidden=True)[1][-1], 2)
    assert features.shape[2:] == (5, 6)
    windows = [features[:, :, y : y + 3, z : z + 3] for y in range(3) for z in range(4)]
    expected = torch.stack([tower.last_conv(window).flatten(1) for window in windows]).mean(0)
    torch.testing.assert_close(tower(x), expected)


def test_the_head_of_a_224_px_image_is_the_original_s() -> None:
    tower = FeedForwardTower(7, filters=[4, 5, 6, 7, 8]).eval()
    x = torch.randn(2, 3, 224, 224)
    logits, hidden = tower(x, return_hidden=True)
    torch.testing.assert_close(logits, tower.last_conv(F.max_pool2d(hidden[-1], 2)).flatten(1))


def test_blocks_of_a_tower_start_as_their_cells_do() -> None:
    hgru = _tower("hgru", normalization="batchnorm").cell_blocks[1].hgru
    for gate in (hgru.u1_gate, hgru.u2_gate):
        weight = gate.weight.flatten(1)
        torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=0)
    assert all((norm.weight == 0.1).all() for norm in hgru.bn)
    weight = _tower("gru").cell_blocks[1].ur.weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=0)


def test_steps_beyond_the_trained_ones_use_the_last_batch_norm_through_a_whole_tower() -> None:
    tower = _tower("lstm", normalization="batchnorm_per_step", time_steps=2, skip_first=True)
    for _ in range(3):
        tower(torch.randn(5, 3, 13, 17))
    tower.eval()
    x = torch.randn(2, 3, 13, 17)
    longer = _tower("lstm", normalization="batchnorm_per_step", time_steps=5, skip_first=True).eval()
    weights = dict(tower.state_dict())
    for name in longer.state_dict():
        if name not in weights:  # steps 2 to 4 with what step 1 learned
            weights[name] = weights[re.sub(r"steps\.\d", "steps.1", name)]
    longer.load_state_dict(weights, strict=True)
    torch.testing.assert_close(tower(x, time_steps=5, return_all=True), longer(x, return_all=True))


def test_a_symmetric_head_reads_a_small_map_the_same_mirrored() -> None:
    tower = _tower("conv").eval()
    with torch.no_grad():
        tower.last_conv.weight.copy_(tower.last_conv.weight + tower.last_conv.weight.flip(3))
    for width in (1, 2):
        features = torch.randn(2, 5, 1, width)
        torch.testing.assert_close(tower._head(features), tower._head(features.flip(3)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"first_kernel": 7, "first_stride": 2},
        {"normalization": "instancenorm", "pools": [True, False, False]},
        {"normalization": "groupnorm"},
        {"cell_type": "fgru", "cell_options": {"attention": "none"}, "cell_kernel": 5},
    ],
)
def test_the_smallest_image_works_and_one_pixel_less_is_refused(settings: dict[str, Any]) -> None:
    tower = _tower(**{"cell_type": "rnn", **settings}).train()
    side = tower.smallest_image
    assert tower(torch.randn(1, 3, side, side)).shape == (1, 5)
    with pytest.raises(ValueError, match=f"an image of {side}x{side - 1} px is too small .* need {side} px"):
        tower(torch.randn(1, 3, side, side - 1))


def test_the_standard_tower_needs_69_px() -> None:
    assert FeedForwardTower(2, filters=[2] * 5).smallest_image == 69  # 69 -> 32 -> 16 -> 8 -> 4 -> 2 -> 1


@pytest.mark.parametrize("cell_type", CELLS)
def test_cifar_sized_images_pass_five_blocks(cell_type: str) -> None:
    tower = FeedForwardTower(10, filters=[4] * 5, cell_type=cell_type, first_kernel=3, first_stride=1)
    assert tower(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_dropout_drops_the_same_channels_in_every_step() -> None:
    tower = _tower("rnn", dropout=0.5, activation="elu", filters=[4, 6, 40])
    inputs: list[Tensor] = []
    tower.last_conv.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    tower(torch.randn(2, 3, 13, 17), return_all=True)
    alive = [(features.abs().sum((2, 3)) > 0) for features in inputs]
    assert torch.equal(alive[0], alive[1])
    assert torch.equal(alive[0], alive[2])
    assert 0.25 < alive[0].float().mean() < 0.75
    inputs.clear()
    tower.eval()
    tower(torch.randn(2, 3, 13, 17), return_all=True)
    assert all((features.abs().sum((2, 3)) > 0).all() for features in inputs)


def test_recurrent_dropout_hides_the_same_channels_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Tensor] = []
    call = StateConv.__call__

    def recording(conv: StateConv, x: Tensor) -> Tensor:
        read.append(x.abs().sum((2, 3)) == 0)
        return call(conv, x)

    monkeypatch.setattr(StateConv, "__call__", recording)
    small = {"filters": [40], "pools": [False], "activation": "elu", "normalization": "layernorm"}
    tower = _tower("rnn", dropout_recurrent=0.5, **small)
    _, hidden = tower(torch.randn(3, 3, 9, 11), time_steps=5, return_all=True, return_hidden=True)
    assert len(read) == 4  # the first step has no state to read
    assert all(torch.equal(read[0], hidden_channels) for hidden_channels in read)
    assert 0.3 < read[0].float().mean() < 0.7
    assert not any((states[0].abs().sum((2, 3)) == 0).any() for states in hidden)  # carried on whole
    tower.eval()
    tower(torch.randn(3, 3, 9, 11), time_steps=2)
    assert not read[-1].any()


def test_prediction_for_an_image_ignores_the_rest_of_the_batch() -> None:
    tower = _tower("gru").eval()
    x = torch.randn(3, 3, 13, 17)
    torch.testing.assert_close(tower(x)[:1], tower(x[:1]))


def test_the_first_prediction_is_near_uniform() -> None:
    for cell_type in CELLS:
        loss = F.cross_entropy(_tower(cell_type)(torch.randn(8, 3, 32, 32)), torch.arange(8) % 5)
        assert loss < 1.6094 + 1.5, cell_type


def test_bfloat16_autocast_stays_close_to_float32() -> None:
    for cell_type in CELLS:
        tower = _tower(cell_type, normalization="layernorm").eval()
        x = torch.randn(2, 3, 13, 17)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = tower(x)
        assert (low - tower(x)).norm() < 0.1 * tower(x).norm(), cell_type


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pools": [True]}, r"3 filters \[4, 6, 5\], 1 pools \[True\]"),
        ({"pools": None}, "filters has 3 blocks and tower_type 'normal' has 5: give pools too"),
        ({"filters": [], "pools": []}, "at least one block"),
        ({"filters": [4, 0, 5]}, "must all be at least 1"),
        ({"tower_type": "taller"}, "unknown tower_type 'taller'; allowed: normal, more, wider, deeper"),
        ({"cell_type": "elman"}, "unknown cell_type 'elman'"),
        ({"activation": "swish"}, "unknown activation 'swish'"),
        ({"normalization": "bn"}, "unknown normalization 'bn'"),
        ({"time_steps": 0}, "time_steps must be at least 1, got 0"),
        ({"cell_type": "hgru", "do_preconv": False}, "block 0 of the tower: do_preconv=False leaves"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _tower(**{"cell_type": "rnn", **settings})


def test_calls_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="time_steps must be at least 1, got 0"):
        _tower()(torch.randn(2, 3, 13, 17), time_steps=0)
    with pytest.raises(ValueError, match=r"images must be \(N, C, Y, X\), got shape \(3, 13, 17\)"):
        _tower()(torch.randn(3, 13, 17))


def test_the_originals_towers_have_kernels_of_three_whatever_cell_kernel_says() -> None:
    tower = _tower("gru", cell_kernel=7, thesis_exact=True)
    tower.load_state_dict(_tower("gru", thesis_exact=True).state_dict(), strict=True)
