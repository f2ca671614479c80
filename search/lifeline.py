"""A search whose Ray has died ends and says so; Ray Tune would wait for ever for resources to come back."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray import tune

_SECONDS = 2.0  # between two looks: a call of a millisecond


class Lifeline(tune.Callback):
    """Raises where Ray lost the node that the search's own command runs on.

    That node's raylet is what the command reaches Ray through. Where Ray was started for the search there is
    no other node either; somebody killed the raylet, or the machine did, short of memory. Ray notices within
    half a minute, the search with it.
    """

    def __init__(self) -> None:
        self._next_look = 0.0

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look, now and then.

        Raises:
            ConnectionError: the node is dead.
        """
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _SECONDS
        here = ray.get_runtime_context().get_node_id()
        if any(node["NodeID"] == here and not node["Alive"] for node in ray.nodes()):
            raise ConnectionError(
                "Ray's raylet on this machine died: killed, perhaps for want of memory. "
                "The same command resumes."
            )
