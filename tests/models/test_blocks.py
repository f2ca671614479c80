import math

import pytest
import torch
from torch import nn

from models.blocks import ACTIVATIONS, get_activation
from models.convolution import GateConvs, init_input_conv, make_conv
from models.dropout import SpatialDropout
from models.normalization import NORMALIZATIONS, batch_statistics_counted, make_norm


@pytest.mark.parametrize("name", ["relu", "elu", "gelu", "silu"])
def test_gain_keeps_the_second_moment_of_a_normal_signal(name: str) -> None:
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    moment = torch.trapezoid(ACTIVATIONS[name].function(z).square() * density, z)
    assert abs(ACTIVATIONS[name].gain - moment.rsqrt().item()) < 1e-3


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_gain_is_torchs_where_torch_has_one(name: str) -> None:
    assert ACTIVATIONS[name].gain == pytest.approx(nn.init.calculate_gain(name))


def test_unknown_names_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="unknown activation 'rlu'; allowed: relu, elu"):
        get_activation("rlu")
    with pytest.raises(ValueError, match="unknown normalization 'bn'; allowed: none, batchnorm"):
        make_norm("bn", 3)


@pytest.mark.parametrize("name", sorted(set(NORMALIZATIONS) - {"none", "batchnorm_per_step"}))
def test_norm_starts_with_the_weight_it_is_given_and_no_shift(name: str) -> None:
    norm = make_norm(name, 6, weight=0.1)
    assert {n: p.tolist() for n, p in norm.named_parameters()} == {
        "weight": [pytest.approx(0.1)] * 6,
        "bias": [0.0] * 6,
    }


def test_layernorm_centres_each_image_and_instancenorm_each_channel() -> None:
    x = torch.randn(2, 3, 5, 7) * 4 + 2
    torch.testing.assert_close(
        make_norm("layernorm", 3)(x).mean((1, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0
    )
    per_channel = make_norm("instancenorm", 3)(x).mean((2, 3))
    torch.testing.assert_close(per_channel, torch.zeros(2, 3), atol=1e-6, rtol=0)
    assert make_norm("layernorm", 3)(x).mean((2, 3)).abs().max() > 1e-2


def test_groupnorm_divides_any_number_of_channels() -> None:
    for channels in (1, 6, 48, 100):
        make_norm("groupnorm", channels)(torch.randn(2, channels, 5, 7))


def test_one_counted_pass_leaves_the_statistics_of_four() -> None:
    x = torch.randn(3, 2, 5, 7) * 2 + 1
    often, once = make_norm("batchnorm", 2), make_norm("batchnorm", 2)
    for _ in range(4):
        expected = often(x)
    with batch_statistics_counted(nn.Sequential(once), 4):
        output = once(x)
    torch.testing.assert_close(output, expected)
    for name, buffer in often.named_buffers():
        torch.testing.assert_close(dict(once.named_buffers())[name], buffer)
    assert once.momentum == often.momentum


def test_counted_pass_in_eval_changes_no_statistic() -> None:
    norm = make_norm("batchnorm", 2).eval()
    with batch_statistics_counted(norm, 4):
        norm(torch.randn(3, 2, 5, 7))
    assert norm.num_batches_tracked == 0
    assert norm.running_mean.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 7])
def test_convolution_keeps_the_map_size_for_odd_and_even_kernels(kernel_size: int) -> None:
    assert make_conv(3, 4, kernel_size)(torch.randn(2, 3, 5, 7)).shape == (2, 4, 5, 7)


def test_strided_convolution_is_unpadded_so_that_224_px_become_109() -> None:
    assert make_conv(3, 4, 7, stride=2)(torch.randn(1, 3, 224, 224)).shape == (1, 4, 109, 109)


@pytest.mark.parametrize("stride", [1, 2])
def test_fused_convolutions_equal_the_separate_ones(stride: int) -> None:
    convs = [make_conv(3, 4, 3, stride), make_conv(3, 4, 3, stride)]
    x = torch.randn(2, 3, 5, 7)
    for output, conv in zip(GateConvs(*convs)(x), convs, strict=True):
        torch.testing.assert_close(output, conv(x))


def test_convolution_of_zeros_is_what_the_convolution_makes_of_zeros() -> None:
    conv, zeros = make_conv(3, 4, 3), torch.zeros(2, 3, 5, 7)
    torch.testing.assert_close(GateConvs(conv).of_zeros(zeros)[0].expand(2, 4, 5, 7), conv(zeros))


def test_input_convolution_starts_with_he_deviation_over_fan_out() -> None:
    conv = make_conv(64, 32, 3)
    init_input_conv(conv, gain=math.sqrt(2))
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.02)


def test_dropout_drops_whole_channels_and_scales_the_rest() -> None:
    dropped = SpatialDropout(0.25)(torch.ones(8, 50, 3, 5))
    assert (dropped == dropped[:, :, :1, :1]).all()
    assert sorted(dropped.unique().tolist()) == pytest.approx([0.0, 1 / 0.75])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.06)


def test_dropout_masks_differ_between_images_and_repeat_with_the_seed() -> None:
    dropout, x = SpatialDropout(0.5), torch.ones(2, 40, 3, 5)
    first = dropout(x)
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(0)
    assert torch.equal(dropout(x), first)


def test_a_given_mask_is_used_instead_of_a_new_one() -> None:
    dropout, x = SpatialDropout(0.5), torch.ones(2, 40, 3, 5)
    mask = dropout.mask(x)
    assert torch.equal(dropout(x, mask), dropout(x, mask))
    assert not torch.equal(dropout(x), dropout(x))


@pytest.mark.parametrize("dropout", [SpatialDropout(0.5).eval(), SpatialDropout(0.0)])
def test_dropout_is_the_identity_in_eval_and_at_zero(dropout: SpatialDropout) -> None:
    x = torch.randn(2, 3, 5, 7)
    assert dropout(x) is x


def test_dropout_keeps_the_dtype() -> None:
    assert SpatialDropout(0.5)(torch.ones(2, 3, 5, 7, dtype=torch.bfloat16)).dtype is torch.bfloat16


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_impossible_dropout_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1"):
        SpatialDropout(p)
