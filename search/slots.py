"""All slots of a search fill, however short its trials: a correction of how Ray Tune reuses processes."""

from __future__ import annotations

from typing import Any

from ray.tune.execution.tune_controller import TuneController

_reuse = TuneController._maybe_reuse_cached_actor


def _reuse_unless_starting(controller: TuneController, trial: Any) -> bool:
    return False if trial in controller._trial_to_actor else bool(_reuse(controller, trial))


def let_processes_start() -> None:
    """Give a process that falls free to a trial that has none yet, instead of to one whose own is starting.

    Tune kills a starting process as soon as another falls free, for its trial to run there. A process takes
    seconds to start; where trials take less, every one after the first dies so, and a search with room for
    many trials runs one at a time.
    """
    TuneController._maybe_reuse_cached_actor = _reuse_unless_starting
