"""The folder of one configuration: which one it is, whose settings it holds, who may write into it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from trainable import atomic
from trainable.atomic import storage_error
from trainable.config import TrainConfig
from trainable.config.keeping import BOOKKEEPING
from trainable.errors import ConfigError

CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"
_SHOWN = 80


def folder_name(config: TrainConfig, stem: str) -> str:
    """STEM-HASH, a hash of every setting that decides what is trained: the same command finds its run.

    A changed setting is a new run, never a continued one. Settings at their default don't count: a version
    with more settings still finds the runs of the one before.
    """
    settings = config.model_dump(mode="json", exclude_defaults=True, exclude=set(BOOKKEEPING))
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return f"{stem}-{digest}"


def changed_settings(config: TrainConfig, folder: Path) -> list[str]:
    """Settings that differ from those the folder's run was started with, as `key: old -> new`."""
    try:
        stored = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError):
        return []  # nothing here yet
    new = config.model_dump(mode="json")
    # A key this version has and the stored run did not know is at what the old version did.
    return [
        f"{key}: {_short(stored[key])} -> {_short(new.get(key))}"
        for key in stored
        if key not in BOOKKEEPING and stored[key] != new.get(key)
    ]


def check_is_run(names: Set[str], place: object) -> None:
    """Refuse to delete what was never a run's, whatever a wrong --name or --storage says.

    Args:
        names: Of the files and folders in the run's folder.
        place: What to call that.

    Raises:
        ConfigError: it holds other files.
    """
    if CONFIG_FILE not in names and any(not name.startswith(".") for name in names):
        raise ConfigError(
            [f"{place}: holds no run, and starting over would delete what is there; give another --name"]
        )


@contextmanager
def claimed(config: TrainConfig, folder: Path, *, fresh: bool) -> Iterator[None]:
    """Own the folder within the block; `fresh` empties it first.

    Raises:
        ConfigError: another command trains this run, or what is to be emptied is no run's.
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        lock.acquire(blocking=False)  # the operating system frees it when the process dies
    except filelock.Timeout:
        raise ConfigError([f"{folder}: another process trains this run"]) from None
    except OSError as error:
        raise storage_error(folder, error) from error
    with lock:
        if fresh:
            check_is_run({path.name for path in folder.iterdir()}, folder)
            _empty(folder)
        atomic.write_json(folder / CONFIG_FILE, config.model_dump(mode="json"))
        yield


def check_writable(folder: Path, option: str, at_least: int = 0) -> None:
    """Check before any compute is spent that files can be made in `folder`, which need not exist yet.

    Args:
        folder: Where files will go.
        option: What named the folder, for the message.
        at_least: Bytes that will be needed for sure.

    Raises:
        ConfigError: read-only, no permission, or not enough space.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise ConfigError([f"{option}: {there} cannot be written: {error.strerror or error}"]) from None
    if free < at_least:
        raise ConfigError(
            [f"{option}: {at_least / 1e6:,.0f} MB are needed at least, {there} has {free / 1e6:,.0f} MB free"]
        )


def _empty(folder: Path) -> None:
    """Remove all but the lock, which others may be waiting for."""
    # The file by which a run is known goes last: a kill in between leaves a run.
    for path in sorted(folder.iterdir(), key=lambda path: path.name == CONFIG_FILE):
        if path.name == ".lock":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
