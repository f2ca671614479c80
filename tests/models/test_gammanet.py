import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from serrelabmodels.layers.fgru_cell import GALA_Attention, SE_Attention
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from benchmarks import reference
from models import build_model
from models.gammanet import GAMMANET_TYPES, GammaNet

SMALL: dict[str, Any] = {
    "tower_type": "small",
    "filters": [4, 6, 5, 7, 8],
    "first_kernel": 3,
    "first_stride": 1,
    "gamma_head": "pooled",
}


def _net(**settings: Any) -> GammaNet:
    return GammaNet(5, **{"time_steps": 3, **SMALL, **settings})


def _image(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 33, 49)


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gammanet_reproduces_the_recorded_model(
    golden: Callable[[str], Any], assert_close: Callable[..., None]
) -> None:
    record = golden("gammanet")
    model = build_model(record.settings, record.settings["num_classes"])
    weights = record.under("state.")
    assert len(weights) == 219
    model.load_state_dict(weights, strict=True)
    x = record["input"].float()
    model.eval()
    with torch.no_grad():
        assert_close(model(x), record["eval.logits"], "logits")
    model.train()
    loss = F.cross_entropy(model(x), torch.tensor([1, 3]))
    assert_close(loss, record["train.loss"], "loss")
    loss.backward()
    recorded = record.under("train.gradnorm.")
    whole = torch.stack(list(recorded.values())).norm().item()
    gradients = _gradients(model)
    assert gradients.keys() == recorded.keys()
    for name, gradient in gradients.items():
        assert_close(gradient.norm(), recorded[name], name, floor=5e-7 * whole)


def test_parameter_counts_are_the_original_s() -> None:
    with torch.device("meta"):
        small = GammaNet(1000, tower_type="small", time_steps=3)
        normal = GammaNet(1000, tower_type="normal", gamma_head="pooled")
        vgg = torchvision.models.vgg16().features
        pooled = GammaNet(1000, tower_type="small", gamma_head="pooled")
    assert sum(p.numel() for p in small.parameters()) == 64_308_080
    assert len(small.state_dict()) == 219
    shapes = [tuple(m.weight.shape) for m in vgg if isinstance(m, nn.Conv2d)]
    assert [tuple(m.weight.shape) for m in normal.network.base_ff.children()] == shapes
    # The head on maps: 224 x 224 features, and the norm and 1x1 convolution that make the map of 128.
    head, pooled_head = (224 * 224 + 1) * 1000 + 2 * 128 + 129, (128 + 256 + 256 + 512 + 1) * 1000
    assert sum(p.numel() for p in pooled.parameters()) == 64_308_080 - head + pooled_head


def _circuits(units: Any, kernel_sizes: list[int], normalization: str) -> list[nn.Module]:
    circuits = []
    for unit, kernel_size in zip(units, kernel_sizes, strict=True):
        circuit = reference.FGRUCircuit(unit.alpha.shape[0], kernel_size, normalization)
        circuit.load_state_dict(unit.state_dict(), strict=True)
        circuits.append(circuit.train(unit.training))
    return circuits


def _by_the_equations(net: GammaNet, x: Tensor, steps: int, normalization: str) -> tuple[Any, Any, Any]:
    """Hidden states of every step and the circuits that made them, written out level by level."""
    core = net.network
    c = dict(core.base_ff.named_children())
    stages = [[m for name, m in c.items() if name.startswith(f"conv{i}")] for i in range(1, 6)]
    across = _circuits(core.h_units, [3, 3, 3, 1], normalization)
    down = _circuits(core.td_units, [1, 1, 1], normalization)

    def stage(i: int, y: Tensor) -> Tensor:
        for conv in stages[i]:
            y = F.relu(conv(y))
        return y

    h: list[Any] = [None] * 4
    hidden = []
    for _ in range(steps):
        y = F.max_pool2d(stage(0, x), 2)
        for level in range(4):
            y = stage(level + 1, y if level == 0 else F.max_pool2d(y, 2))
            y = h[level] = across[level](y, y if h[level] is None else h[level])
        for k, level in enumerate((2, 1, 0)):
            block = core.us_blocks[k]
            u = F.interpolate(h[level + 1], h[level].shape[2:], mode="bilinear", align_corners=True)
            u = F.relu(block[3](F.relu(block[1](block[0](u)))))
            h[level] = h[level] + down[k](h[level], u, topdown=True)
        hidden.append(list(h))
    return hidden, across, down


@pytest.mark.parametrize("normalization", ["instancenorm", "batchnorm", "layernorm", "none"])
@pytest.mark.parametrize("tower_type", GAMMANET_TYPES)
def test_gammanet_is_its_equations_at_odd_sizes(
    tower_type: str, normalization: str, assert_close: Callable[..., None]
) -> None:
    net = _net(tower_type=tower_type, normalization=normalization)
    with torch.no_grad():
        for parameter in net.network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    x = _image()
    expected, across, down = _by_the_equations(net, x, 3, normalization)
    sum(h.square().mean() for h in expected[-1]).backward()  # type: ignore[union-attr]
    wanted = _gradients(net)
    for prefix, units in (("h_units", across), ("td_units", down)):
        for i, unit in enumerate(units):
            wanted |= {f"network.{prefix}.{i}.{name}": g for name, g in _gradients(unit).items()}

    net.zero_grad()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    logits, hidden = net(x, return_all=True, return_hidden=True)
    sum(h.square().mean() for h in hidden[-1]).backward()
    for t in range(3):
        for level in range(4):
            assert_close(hidden[t][level], expected[t][level], f"step {t}, layer {level}")
        features = torch.cat([h.mean((2, 3)) for h in expected[t]], dim=1)
        assert_close(logits[t], net.cls(features), f"logits of step {t}")
    gradients = _gradients(net)
    assert gradients.keys() == wanted.keys()
    whole = torch.stack([g.norm() for g in wanted.values()]).norm().item()
    for name, gradient in wanted.items():
        assert_close(gradients[name], gradient, name, floor=2e-6 * whole)
    for prefix, units in (("h_units", across), ("td_units", down)):
        for i, unit in enumerate(units):
            for name, buffer in unit.named_buffers():
                assert_close(net.get_buffer(f"network.{prefix}.{i}.{name}"), buffer, name)


@pytest.mark.parametrize("head", ["map", "pooled"])
def test_the_forms_of_the_answer_agree(head: str) -> None:
    net, x = _net(gamma_head=head).eval(), _image()
    every, every_hidden = net(x, time_steps=5, return_all=True, return_hidden=True)
    assert len(every) == len(every_hidden) == 5
    assert torch.equal(net(x), every[2])
    for t in range(5):
        logits, hidden = net(x, time_steps=t + 1, return_hidden=True)
        torch.testing.assert_close(logits, every[t])
        torch.testing.assert_close(hidden, every_hidden[t])
    assert [tuple(h.shape) for h in every_hidden[0]] == [
        (2, 6, 16, 24),
        (2, 5, 8, 12),
        (2, 7, 4, 6),
        (2, 8, 2, 3),
    ]
    assert not torch.allclose(every[0], every[4])


@pytest.mark.parametrize("normalization", ["instancenorm", "batchnorm"])
def test_recompute_changes_nothing_and_does_each_step_but_the_last_twice(
    normalization: str, assert_close: Callable[..., None]
) -> None:
    results = []
    for recompute in (False, True):
        torch.manual_seed(3)
        net, x = _net(normalization=normalization, recompute=recompute), _image()
        calls: list[int] = []
        net.network.ds_blocks[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        loss = F.cross_entropy(net(x), torch.tensor([1, 3]))
        loss.backward()
        results.append((loss, _gradients(net), dict(net.named_buffers()), len(calls)))
    (loss, gradients, buffers, plain_calls), (again, repeated, counted, calls) = results
    assert (plain_calls, calls) == (3, 5)
    assert_close(again, loss, "loss")
    for name, gradient in gradients.items():
        assert_close(repeated[name], gradient, name, floor=1e-6)
    for name, buffer in buffers.items():
        assert_close(counted[name], buffer, name)


@pytest.mark.parametrize("settings", [{}, {"first_kernel": 7, "first_stride": 2}, {"tower_type": "normal"}])
def test_the_smallest_image_works_and_one_pixel_less_is_refused(settings: dict[str, Any]) -> None:
    net = _net(**settings)
    side = net.smallest_image
    assert side == (69 if settings.get("first_stride") == 2 else 32)
    assert net(torch.randn(2, 3, side, side)).shape == (2, 5)
    with pytest.raises(ValueError, match=f"an image of {side}x{side - 1} px is too small .* needs {side} px"):
        net(torch.randn(1, 3, side, side - 1))


@pytest.mark.parametrize("normalization", ["instancenorm", "batchnorm", "batchnorm_per_step", "none"])
def test_a_single_step_gives_every_parameter_a_gradient(normalization: str) -> None:
    for head in ("map", "pooled"):
        net = _net(normalization=normalization, gamma_head=head)
        net(_image(), time_steps=1).sum().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    "normalization",
    ["none", "batchnorm", "batchnorm_per_step", "layernorm", "instancenorm", "groupnorm"],
)
@pytest.mark.parametrize("head", ["map", "pooled"])
def test_two_steps_of_training_stay_finite(head: str, normalization: str) -> None:
    net = _net(gamma_head=head, normalization=normalization)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(_image()), torch.tensor([1, 3]))
        loss.backward()
        optimizer.step()
        assert loss < 1.6094 + 2  # log 5 is a guess at random
    assert all(p.isfinite().all() for p in net.parameters())


def test_prediction_for_an_image_ignores_the_rest_of_the_batch() -> None:
    net, x = _net().eval(), _image(3)
    torch.testing.assert_close(net(x)[:1], net(x[:1]))


def test_bfloat16_autocast_stays_close_to_float32() -> None:
    net, x = _net().eval(), _image()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = net(x)
    assert (low - net(x)).norm() < 0.1 * net(x).norm()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tower_type": "wider"}, "unknown tower_type of gammanet 'wider'; allowed: small, normal"),
        ({"gamma_head": "mean"}, "unknown gamma_head 'mean'; allowed: map, pooled"),
        ({"filters": [4, 6, 5]}, r"channels of its 5 stages, got \[4, 6, 5\]"),
        ({"filters": [4, 6, 5, 1, 8]}, "1 channels in the gammanet: attention .* of 2 layers .* at least 2"),
        ({"cell_options": {"attention_layers": 4}}, "6 channels .* of 4 layers .* at least 8, got 6"),
        ({"cell_options": {"attention": "all"}}, "unknown attention 'all'; allowed: gala, se, none"),
        ({"cell_options": {"peepholes": "none"}}, "gammanet has no option 'peepholes'; it has: attention, "),
        ({"cell_options": {"hidden_seed": 3}}, "gammanet has no option 'hidden_seed'"),
        ({"normalization": "bn"}, "unknown normalization 'bn'"),
        ({"time_steps": 0}, "time_steps must be at least 1, got 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _net(**settings)


@pytest.mark.parametrize(
    ("option", "value", "attributes"),
    [
        ("attention", "se", {"attention": SE_Attention}),
        ("attention_layers", 1, {"attention": GALA_Attention}),
        ("gate_bias", "after_norm", {"bias_last": True}),
        ("force_alpha_divisive", True, {"force_alpha_divisive": True}),
        ("force_non_negativity", False, {"force_non_negativity": False}),
        ("multiplicative_excitation", False, {"multiplicative_excitation": False}),
    ],
)
def test_an_option_of_the_fgru_reaches_every_circuit_and_acts(
    option: str, value: Any, attributes: dict[str, Any]
) -> None:
    config = {"model_base": "gammanet", "time_steps": 3, "normalization": "instancenorm", **SMALL}
    net, plain = build_model({**config, option: value}, 5), build_model(config, 5)
    assert isinstance(net, GammaNet)
    circuits = [*net.network.h_units, *net.network.td_units]
    assert len(circuits) == 7
    for circuit in circuits:
        for name, wanted in attributes.items():
            actual = getattr(circuit, name)
            assert isinstance(actual, wanted) if isinstance(wanted, type) else actual == wanted, name
    # With the same weights, as far as they have the same.
    weights = {k: v for k, v in plain.state_dict().items() if k in net.state_dict()}
    weights = {k: v for k, v in weights.items() if v.shape == net.state_dict()[k].shape}
    net.load_state_dict(weights, strict=False)
    x = _image()
    net(x).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert not torch.allclose(net(x), plain(x))


def test_a_gammanet_without_attention_has_none_and_may_be_a_channel_wide() -> None:
    net = _net(filters=[1, 1, 1, 1, 1], cell_options={"attention": "none"})
    assert not [name for name, _ in net.named_parameters() if "attention" in name]
    net(_image()).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("normalization", ["instancenorm", "batchnorm"])
def test_a_step_is_one_graph_for_all_steps_but_the_first(
    normalization: str, recompute: bool, assert_close: Callable[..., None]
) -> None:
    net = _net(normalization=normalization, time_steps=5, recompute=recompute)
    compiled = copy.deepcopy(net)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    # No break in the graph: with the kernels of the forward pass, or with its own where steps are recomputed.
    compiled.network.step = torch.compile(  # type: ignore[method-assign]
        compiled.network.step, dynamic=False, fullgraph=True, backend=counter
    )
    x, results = _image(), []
    for model in (net, compiled):
        logits = torch.stack(model(x, return_all=True))  # type: ignore[arg-type]
        logits.square().sum().backward()
        results.append((logits, _gradients(model), dict(model.named_buffers())))
    (logits, gradients, buffers), (again, repeated, counted) = results
    assert_close(again, logits, "logits")
    whole = torch.stack([g.norm() for g in gradients.values()]).norm().item()
    for name, gradient in gradients.items():
        assert_close(repeated[name], gradient, name, floor=2e-6 * whole)
    for name, buffer in buffers.items():
        assert_close(counted[name], buffer, name, floor=1e-6)
    # Repeated steps don't count their batches.
    assert counter.frame_count == (4 if recompute and normalization == "batchnorm" else 2)


def test_calls_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="time_steps must be at least 1, got 0"):
        _net()(_image(), time_steps=0)
    with pytest.raises(ValueError, match=r"images must be \(N, C, Y, X\), got shape \(3, 33, 49\)"):
        _net()(_image()[0])
