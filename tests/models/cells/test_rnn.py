import torch

from models.cells import build_cell


def test_rnn_with_1x1_kernel_is_torch_rnn_at_every_pixel() -> None:
    cell = build_cell("rnn", 3, 4, kernel_size=1, activation="tanh")
    reference = torch.nn.RNN(3, 4)
    with torch.no_grad():
        reference.weight_ih_l0.copy_(cell.x2h.weight[:, :, 0, 0])
        reference.weight_hh_l0.copy_(cell.h2h.weight[:, :, 0, 0])
        reference.bias_ih_l0.copy_(cell.x2h.bias.normal_())
        reference.bias_hh_l0.copy_(cell.h2h.bias.normal_())
    frames, state, outputs = torch.randn(5, 2, 3, 5, 7), None, []
    for t, frame in enumerate(frames):
        output, state = cell(frame, state, t)
        outputs.append(output)
    pixels = frames.permute(0, 1, 3, 4, 2).reshape(5, -1, 3)
    expected = reference(pixels)[0].reshape(5, 2, 5, 7, 4).permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(torch.stack(outputs), expected)


def test_state_convolution_starts_orthogonal() -> None:
    weight = build_cell("rnn", 3, 6).h2h.weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(6), atol=1e-5, rtol=0)
