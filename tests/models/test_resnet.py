import pytest
import torch
import torch.nn.functional as F
import torchvision

from models import build_model


def _resnet(num_classes: int = 5) -> torch.nn.Module:
    return build_model({"model_base": "resnet18", "time_steps": 7, "cell_type": "gru"}, num_classes)


def test_resnet18_loads_torchvision_s_weights_and_gives_its_logits() -> None:
    original = torchvision.models.resnet18(num_classes=5).eval()
    model = _resnet().eval()
    model.load_state_dict(original.state_dict(), strict=True)
    x = torch.randn(2, 3, 65, 47)
    assert torch.equal(model(x), original(x))


def test_resnet18_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in _resnet(1000).parameters()) == 11_689_512


def test_it_makes_one_step_whatever_is_asked() -> None:
    model, x = _resnet().eval(), torch.randn(2, 3, 32, 48)
    logits = model(x)
    every, hidden = model(x, time_steps=4, return_all=True, return_hidden=True)
    assert len(every) == len(hidden) == 1
    assert torch.equal(every[0], logits)
    assert torch.equal(model(x, time_steps=4), logits)
    assert len(model(x, return_all=True)) == 1


def test_its_hidden_states_are_the_outputs_of_the_four_stages() -> None:
    model, x = _resnet().eval(), torch.randn(2, 3, 64, 96)
    outputs = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda module, args, output: outputs.append(output))
    logits, hidden = model(x, return_hidden=True)
    assert [tuple(h.shape[1:]) for h in hidden] == [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)]
    assert all(torch.equal(h, output) for h, output in zip(hidden, outputs, strict=True))
    torch.testing.assert_close(logits, model.fc(hidden[-1].mean((2, 3))))


def test_it_learns_two_images_by_heart() -> None:
    model, x, labels = _resnet(), torch.randn(2, 3, 32, 32), torch.tensor([1, 4])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
    assert loss < 0.5


def test_a_single_image_without_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"images must be \(N, C, Y, X\), got shape \(3, 32, 32\)"):
        _resnet()(torch.randn(3, 32, 32))
