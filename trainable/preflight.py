"""Everything that can be known to be wrong with a configuration before any compute is spent."""

from __future__ import annotations

from data import DataError, DataInfo, check_data
from models import build_uninitialized
from trainable.checkpoint import CheckpointStore
from trainable.config import TrainConfig
from trainable.errors import ConfigError
from trainable.metrics import DIVERGED, FINISHED
from trainable.run_folder import CHECKPOINTS, changed_settings
from trainable.run_place import RunPlace
from trainable.shape import check_shape
from trainable.tracking import read_rows
from trainable.weights import WeightsError, check_fit, read_weights


def check(config: TrainConfig, source: str, workers: int = 1) -> DataInfo:
    """Check data, batch, network and initial weights; the sample data are prepared on first use.

    Args:
        config: What is to be trained.
        source: File the configuration came from, named in errors.
        workers: Processes the batch is divided over.

    Raises:
        ConfigError: one line per problem.
    """
    try:
        info = check_data(**config.data_source())
    except DataError as error:
        raise ConfigError(f"{source}: {line}" for line in str(error).splitlines()) from None
    problems = []
    if config.batch_size > info.num_train:
        problems.append(
            f"batch_size: must not exceed the {info.num_train} training images, got {config.batch_size}"
        )
    if config.batch_size % workers:
        problems.append(f"batch_size: must be a multiple of the {workers} workers, got {config.batch_size}")
    try:
        model = build_uninitialized(config, info.num_classes)
        assert callable(model.check_size)
        for size in {info.image_size, config.first_size or info.image_size}:
            model.check_size(size, size)
        if config.init is not None:
            check_fit(model, read_weights(config.init), config.init)
    except WeightsError as error:
        problems.append(f"init: {error}")
    except ValueError as error:
        problems.append(str(error))
    try:
        check_shape(config, info.class_names)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(f"{source}: {problem}" for problem in problems)
    return info


def check_forced(config: TrainConfig, place: RunPlace, info: DataInfo) -> None:
    """Check that the run in `place` can go on under settings that have changed.

    Raises:
        ConfigError: it has ended already, or its weights are those of another network.
    """
    changed = changed_settings(config, place.folder)
    rows = read_rows(place.folder)
    if not changed:
        return
    told = f"{place} holds a run with other settings ({'; '.join(changed)})"
    if rows and not rows[-1].keys().isdisjoint((FINISHED, DIVERGED)):
        raise ConfigError([f"--force: {told} that has ended; give this one another --name, or --fresh"])
    store = CheckpointStore(place.folder / CHECKPOINTS)
    if (position := place.last_checkpoint()) is not None:
        place.fetch(f"{CHECKPOINTS}/{store.path(position).name}")
    content = store.load_latest()
    if content is None:
        return
    try:
        check_fit(build_uninitialized(config, info.num_classes), content["model"], place.address(CHECKPOINTS))
    except WeightsError as error:
        raise ConfigError([f"--force: {told}; {error}"]) from None
