"""Decisions, time steps, passes over stimuli, shape against texture."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments import objective
from experiments.errors import InputError
from experiments.forward import DECISIONS, decide, logits_over_time, parse_steps, states_over_time
from experiments.rsa.collect import Key, collect_rdms
from experiments.sources import NO_CLASS, class_of_outputs, open_source
from experiments.stimuli.conflict import ShapeBias, cue_conflict, shape_bias, texture_partners, texture_patch
from experiments.stimuli.item import Item
from experiments.weights import read_weights


def test_decision_rules_by_hand() -> None:
    outputs = np.array([3, 3, 3, 7, NO_CLASS])
    logits = torch.tensor([[0.0, 0.0, 2.0, 1.5, 3.0]])
    assert decide(logits, outputs, "argmax").tolist() == [NO_CLASS]
    assert decide(logits, outputs, "restricted").tolist() == [3]
    # exp: 1, 1, 7.4 have the mean 3.1, below 4.5.
    assert decide(logits, outputs, "mean").tolist() == [7]


@pytest.mark.parametrize("rule", DECISIONS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_outputs_that_are_not_finite_decide_for_no_class(rule: str, value: float) -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0], [value, 0.0, 0.0], [value, value, value]])
    assert decide(logits, np.array([3, 7, 9]), rule).tolist() == [3, NO_CLASS, NO_CLASS]


def test_imagenets_order_is_understood_without_names() -> None:
    source = open_source("digits", None)
    voc = type(source)("voc", (), source.class_ids, source.load, {})
    ids = class_of_outputs(voc, [str(i) for i in range(1000)])
    assert (ids != NO_CLASS).sum() == 238
    assert ids[281] == 8  # tabby cat
    with pytest.raises(InputError, match="none of voc's"):
        class_of_outputs(voc, [str(i) for i in range(10)])


@pytest.mark.parametrize(
    ("text", "steps"), [("1-3", [1, 2, 3]), ("7", [7]), ("5,1-2", [1, 2, 5]), (None, [1, 2, 3, 4])]
)
def test_time_steps_are_ranges_and_lists(text: str | None, steps: list[int]) -> None:
    assert parse_steps(text, 4, False) == steps
    assert parse_steps(text, 4, True) == [1]


@pytest.mark.parametrize("text", ["0", "a", "3-1", "-2", "2-", ""])
def test_time_steps_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--time-steps"):
        parse_steps(text, 4, False)


def test_one_pass_gives_what_a_pass_per_time_step_gives(trained: Path) -> None:
    model = read_weights(trained).model(torch.device("cpu"))
    images = torch.randn(5, 3, 32, 32)
    together = logits_over_time(model, images, [1, 3, 5])
    states = states_over_time(model, images, [1, 3, 5])
    with torch.inference_mode():
        for step, logits in zip([1, 3, 5], together, strict=True):
            alone, hidden = model(images, time_steps=step, return_hidden=True)
            torch.testing.assert_close(logits, alone)
            torch.testing.assert_close(states["hidden2", step], hidden[1].flatten(1))


@pytest.mark.parametrize("memory", [1, 7 * 4 * 5, 7 * 4 * 9, 10**9])
def test_rdms_are_the_same_whatever_fits_into_memory(memory: int) -> None:
    random = np.random.default_rng(0)
    states = {("hidden1", 1): random.normal(size=(7, 13)), ("cell1", 2): random.normal(size=(7, 4))}
    passes = []

    def batches() -> Iterator[dict[Key, Tensor]]:
        passes.append(1)
        for rows in (slice(0, 3), slice(3, 6), slice(6, 7)):
            yield {key: torch.from_numpy(values[rows]).float() for key, values in states.items()}

    rdms = collect_rdms(batches, 7, memory)
    for key, values in states.items():
        exact = ((values[:, None] - values[None]) ** 2).mean(axis=2)[np.triu_indices(7, 1)]
        np.testing.assert_allclose(rdms[key], exact, rtol=1e-5)
    # One more to see the shapes; the 17 channels then come one, five or nine at a time, or at once.
    assert len(passes) == 1 + {1: 17, 140: 4, 252: 2, 10**9: 1}[memory]


def test_activations_that_are_not_finite_are_named_by_layer_and_step() -> None:
    states = {("hidden1", 1): torch.ones(4, 2), ("cell3", 5): torch.tensor([[1.0], [2], [torch.inf], [3]])}
    with pytest.raises(InputError, match="cell3 after time step 5: activations are not finite"):
        collect_rdms(lambda: [states], 4, 10**6)


def test_shape_bias_by_hand() -> None:
    shapes = np.array([1, 1, 2, 2, 3, 3])
    textures = np.array([2, 3, 1, 3, 1, 3])  # the last pair is of one class
    decisions = np.array([1, 1, 2, 3, 5, 3])
    bias = shape_bias(decisions, shapes, textures)
    assert bias == ShapeBias(shape=3, texture=1, images=5)
    assert bias.value == 0.75
    assert np.isnan(shape_bias(np.full(6, 9), shapes, textures).value)


def test_texture_comes_from_inside_the_other_object_and_fills_the_shape() -> None:
    def item(mask: np.ndarray, value: int) -> Item:
        image = np.where(mask[:, :, None], np.uint8(value), np.uint8(9)) * np.ones((1, 1, 3), dtype=np.uint8)
        return Item(str(value), 1, image, mask, np.zeros_like(mask), None)

    square, bar = np.zeros((12, 12), dtype=bool), np.zeros((12, 12), dtype=bool)
    square[2:7, 3:8] = True
    square[6, 3] = False
    bar[:, 4:6] = True
    patch = texture_patch(item(square, 200).image, square)
    assert patch.shape == (3, 3, 3)  # 4 x 4 fits too, but has no pixel in its middle
    assert (patch == 200).all()
    pixels = cue_conflict(item(bar, 77), item(square, 200), 12)
    assert (pixels[bar] == 200).all()
    assert (pixels[~bar] == 255).all()


def test_partners_are_of_other_classes_and_seeded() -> None:
    classes = np.repeat([0, 1, 2], [5, 3, 9])
    partners = texture_partners(classes, seed=4)
    assert (classes[partners] != classes).all()
    np.testing.assert_array_equal(partners, texture_partners(classes, seed=4))
    with pytest.raises(ValueError, match="two classes"):
        texture_partners(np.zeros(5, dtype=np.int64), 0)


def test_objective_measures_a_network_in_memory_as_the_command_does(trained: Path, tmp_path: Path) -> None:
    from experiments.results import read_result
    from experiments.stimuli.__main__ import main

    weights = read_weights(trained)
    network = weights.model(torch.device("cpu")).train()
    given = (network, weights.preprocessing, weights.class_names, weights.time_steps)
    values = objective.measure(*given, metrics=("silhouette_acc", "shape_bias"), limit=100)
    assert network.training
    assert values == objective.measure(*given, metrics=("silhouette_acc", "shape_bias"), limit=100)
    arguments = ["--weights", str(trained), "--out", str(tmp_path), "--dataset", "digits", "--limit", "100"]
    assert main([*arguments, "--stimuli", "silhouette", "--time-steps", "3", "--permutations", "9"]) == 0
    (path,) = tmp_path.glob("*/stimuli-digits-thesis.json")
    assert values["silhouette_acc"] == read_result(path).rows[0].accuracy
    # The ink of all digits is alike: only shape can be followed.
    assert values["shape_bias"] > 0.5
    with pytest.raises(InputError, match="unknown metric 'shape'"):
        objective.measure(*given, metrics=("shape",))


def test_configuration_of_the_quick_demo_is_valid() -> None:
    from trainable import preflight
    from trainable.config import TrainConfig
    from trainable.config_file import read_mapping, validate

    path = str(Path(objective.__file__).with_name("quick.yaml"))
    config = validate(TrainConfig, read_mapping(path), path)
    preflight.check(config, path, 1)
    assert config.time_steps > 1  # there is something to see over time
