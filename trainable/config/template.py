"""Write the template configuration: every key with its explanation, and values that run as they are.

python -m trainable.config.template > configs/template.yaml
"""

from __future__ import annotations

import json
import textwrap
from typing import Any

from trainable.config import TrainConfig
from trainable.config.data import DataSettings
from trainable.config.keeping import KeepingSettings
from trainable.config.network import NetworkSettings
from trainable.config.optimization import OptimizationSettings
from trainable.config.shape import ShapeSettings

VALUES: dict[str, Any] = {
    "dataset": "digits",
    "filters": [16, 32],
    "pools": [True, True],
    "first_kernel": 3,
    "first_stride": 2,
    "cell_type": "gru",
    "time_steps": 3,
    "skip_first": True,
    "batch_size": 64,
    "epochs": 10,
    "learning_rate": 3e-3,
}
"""Where the template says something else than the defaults: a small ConvGRU on the embedded digits."""

_HEAD = """\
# A ConvGRU on the embedded digits, every setting with its explanation. It runs as it is, in under a minute:
#   python run_train.py configs/template.yaml --out model.weights
# Settings at their default may be left out; null means "not given". Written from the settings themselves:
#   python -m trainable.config.template > configs/template.yaml
"""


def render() -> str:
    """The template as YAML."""
    config = TrainConfig(**VALUES).model_dump(mode="json")
    lines = [_HEAD]
    for group in (DataSettings, NetworkSettings, OptimizationSettings, ShapeSettings, KeepingSettings):
        title = (group.__doc__ or "").strip().splitlines()[0]
        lines.append(f"\n# ---- {title}\n")
        for key, field in group.model_fields.items():
            text = " ".join((field.description or "").split())
            lines += [f"# {line}" for line in textwrap.wrap(text, 106)]
            lines.append(f"{key}: {json.dumps(config[key])}\n")
    return "\n".join(lines)


if __name__ == "__main__":
    print(render(), end="")
