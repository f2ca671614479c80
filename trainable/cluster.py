"""Join the Ray cluster this process belongs to, or start a quiet local one."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import Any

import ray

from trainable import signals

# Ray's own lines about itself would drown the project's; what goes wrong still comes through.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # says that tokens are in use


def connect(*, dashboard: bool) -> None:
    """Connect to the cluster in RAY_ADDRESS (as `ray job submit` sets it), or start a local Ray.

    Args:
        dashboard: Start a local Ray's dashboard (on loopback). A TorchTrainer inside a search needs it: Ray
            frees the workers of a trial that was stopped through the dashboard's state API.
    """
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    else:
        with signals.held_back():
            ray.init(
                address="local",
                include_dashboard=dashboard,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        _end_ray_at_once()


def _end_ray_at_once() -> None:
    """Let Ray's own processes be killed at the end, without the second of grace that each is given.

    They hold SIGTERM back (see `signals.held_back`) and so would all wait their second for nothing. What the
    raylet started looks for it and reports its death to a server that is gone too: that is killed as well.
    """
    node = ray._private.worker._global_node
    if node is None:
        return
    kill = node.kill_all_processes

    def kill_at_once(**options: Any) -> None:
        raylets = [info.process.pid for info in node.all_processes.get("raylet", [])]
        children = [child for raylet in raylets for child in _children(raylet)]
        kill(**{**options, "allow_graceful": False})
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    node.kill_all_processes = kill_at_once


def _children(pid: int) -> list[int]:
    """Processes that a process started, where Linux says so."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def capacity() -> tuple[int, int]:
    """CPU cores and GPUs of the cluster, whether free or in use."""
    resources = ray.cluster_resources()
    return max(1, int(resources.get("CPU", 1))), int(resources.get("GPU", 0))
