"""Shape metrics of a run's weights, for its reports; the analysis measures them, in `experiments`."""

from __future__ import annotations

from data import Data, DataError
from trainable.config import TrainConfig
from trainable.errors import ConfigError
from trainable.state import RunState

# The analysis is imported where it is asked for: a run without shape metrics needs none of it. It knows
# nothing of `trainable`, so imports go one way.


def measure_shape(state: RunState, data: Data) -> dict[str, float]:
    """`shape_metrics` of the run's weights, the averaged ones where there are some, by name."""
    from experiments.objective import measure

    config = state.config
    return measure(
        state.ema.network if state.ema else state.network,
        data.preprocessing,
        data.info.class_names,
        config.time_steps,
        metrics=config.shape_metrics,
        dataset=config.shape_dataset,
        path=config.shape_path,
    )


def check_shape(config: TrainConfig, class_names: tuple[str, ...]) -> None:
    """Open the stimuli's data set and match its classes; raises ConfigError where that fails."""
    if not config.shape_metrics:
        return
    from experiments.errors import InputError
    from experiments.sources import class_of_outputs, open_source
    from experiments.stimuli.conflict import texture_partners

    try:
        source = open_source(config.shape_dataset, config.shape_path, split="val", protocol="thesis")
        class_of_outputs(source, class_names)
        if "shape_bias" in config.shape_metrics:
            texture_partners(source.class_ids, seed=0)
    except (InputError, DataError) as error:
        raise ConfigError([f"shape_metrics: {line}" for line in str(error).splitlines()]) from None
