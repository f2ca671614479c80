"""Local disk space of a process that works on a copy of what lies elsewhere; it ends with the process.

Each process has a folder of its own and holds a lock in it for as long as it lives. Folders whose process is
gone, killed ones too, are removed by whoever comes next.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import filelock

_LOCK = ".lock"
_own: dict[int, tuple[Path, filelock.FileLock]] = {}  # by process: a forked child gets its own


def scratch(name: str) -> Path:
    """An empty folder `name` of this process, on this machine's disk.

    RECURRENT_VISION_SCRATCH names the disk; otherwise it is that of temporary files.
    """
    folder = _process_folder() / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _process_folder() -> Path:
    if os.getpid() not in _own:
        root = os.environ.get("RECURRENT_VISION_SCRATCH")
        base = Path(root) if root else Path(tempfile.gettempdir()) / f"recurrent-vision-{os.getuid()}"
        base = base.expanduser().absolute()
        base.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(base / _LOCK):  # nobody takes a folder for abandoned before it is locked
            _sweep(base)
            folder = Path(tempfile.mkdtemp(dir=base, prefix=f"{os.getpid()}-"))
            lock = filelock.FileLock(folder / _LOCK)
            lock.acquire()
        _own[os.getpid()] = folder, lock
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _own[os.getpid()][0]


def _sweep(base: Path) -> None:
    for folder in base.iterdir():
        if not folder.is_dir():
            continue
        lock = filelock.FileLock(folder / _LOCK)
        try:
            lock.acquire(blocking=False)
        except (filelock.Timeout, OSError):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
