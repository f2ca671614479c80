"""Where a run lies, and how its command reads and writes there: a folder, or see run_bucket.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainable import atomic
from trainable.checkpoint import CheckpointStore, Position
from trainable.config import TrainConfig
from trainable.errors import ConfigError
from trainable.run_folder import CHECKPOINTS, changed_settings, claimed
from trainable.signals import STOP_FILE


class RunPlace:
    """A folder on a disk that all nodes share.

    The command of a run in a bucket has a copy of what is small there in `folder`: its methods say when the
    two must agree. Here there is but one folder, and nothing to do.

    Args:
        folder: The run's folder.
    """

    remote: str | None = None
    """What the workers are told, if not `folder`: the URI of the run's folder in a bucket."""

    pause = 0.2
    """Seconds between two looks at how far the run is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def address(self, name: str) -> str:
        """A file of the run, as people are told of it."""
        return f"{self}/{name}"

    def read(self) -> None:
        """Bring `folder` up to date: settings, rows, which checkpoints there are."""

    def has(self, name: str) -> bool:
        """Whether a file of the run is in storage."""
        return (self.folder / name).exists()

    def fetch(self, name: str) -> None:
        """Bring one file into `folder`, whatever its size."""

    def put(self, name: str) -> None:
        """Bring one file of `folder` into storage; raises StorageError."""

    @contextmanager
    def claimed(self, config: TrainConfig, *, fresh: bool) -> Iterator[None]:
        """Own the run within the block, see run_folder.claimed; raises ConfigError, StorageError."""
        with claimed(config, self.folder, fresh=fresh):
            yield

    def check_same_run(self, config: TrainConfig) -> None:
        """Refuse to continue a run under other settings.

        Raises:
            ConfigError: names the changed keys and the ways on.
        """
        changed = changed_settings(config, self.folder)
        if changed:
            raise ConfigError(
                [
                    f"{self} holds a run with other settings ({'; '.join(changed)}); give this one another "
                    "--name, --fresh to start over, or --force to go on with the new settings"
                ]
            )

    def last_checkpoint(self) -> Position | None:
        """The newest checkpoint to continue from, by what `folder` holds; None where there is none."""
        return next(iter(CheckpointStore(self.folder / CHECKPOINTS).positions()), None)

    @property
    def asked_to_stop(self) -> bool:
        """Whether this command has asked its workers to stop."""
        return (self.folder / STOP_FILE).exists()

    def ask_to_stop(self, why: str) -> None:
        """Let the workers find the wish that they save a checkpoint and end; raises StorageError."""
        atomic.write_text(self.folder / STOP_FILE, why)

    def forget_stop(self) -> None:
        """Take back what an earlier command asked for."""
        (self.folder / STOP_FILE).unlink(missing_ok=True)
