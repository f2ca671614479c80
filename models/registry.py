"""From a configuration to a model."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.blocks import require_choice
from models.cells import option_names
from models.gammanet import GammaNet
from models.tower import DevTower, FeedForwardTower


def _resnet18(num_classes: int) -> nn.Module:
    from models.resnet import ResNet18  # torchvision takes seconds to import, which every process would pay

    return ResNet18(num_classes)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "ff_tower": FeedForwardTower,
    "gammanet": GammaNet,
    "resnet18": _resnet18,
    "dev_tower": DevTower,
}


def build_model(config: Mapping[str, Any] | object, num_classes: int) -> nn.Module:
    """Build the model that a configuration describes.

    Args:
        config: A mapping or an object with attributes, such as TrainConfig. `model_base` names an entry
            of MODELS ("ff_tower" where it is missing); the keyword arguments of that entry are the other
            keys read here, with their defaults; where `normalization` is missing, a tower of fgrus has
            "instancenorm". Keys of the rest of a run (learning_rate, ...) are not looked at: the
            configuration's own type refuses unknown ones.
        num_classes: Length of the logits.

    The weights follow from torch.manual_seed alone.
    """
    model_base = _value(config, "model_base", "ff_tower")
    require_choice("model_base", model_base, MODELS)
    builder = MODELS[model_base]
    settings = {}
    for name, parameter in inspect.signature(builder).parameters.items():
        if name == "cell_options":
            given = {option: _value(config, option, None) for option in option_names()}
            settings[name] = {option: value for option, value in given.items() if value is not None}
        elif name != "num_classes":
            settings[name] = _value(config, name, parameter.default)
    if settings.get("cell_type") == "fgru" and not settings["thesis_exact"]:
        # The fGRU is defined with it; the original's, an hgru, had the batch norm of all its towers.
        settings["normalization"] = _value(config, "normalization", "instancenorm")
    return builder(num_classes, **settings)


def build_uninitialized(config: Mapping[str, Any] | object, num_classes: int) -> nn.Module:
    """The model of `build_model` on the meta device: names and shapes without numbers, at no cost.

    Draws no random number, and doesn't make torch import its compiler, which takes seconds, as starting
    values on the meta device would (those of hgru, fgru and gammanet, which serrelabmodels sets, still do).
    """
    with torch.device("meta"), _Uninitialized():
        return build_model(config, num_classes)


class _Uninitialized(TorchFunctionMode):
    """Leaves tensors as those found them who would fill them with starting values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _value(config: Mapping[str, Any] | object, key: str, default: Any) -> Any:
    if isinstance(config, Mapping):
        return config.get(key, default)
    return getattr(config, key, default)
