"""A trial's folder in a bucket, worked on in a copy on this machine's disk."""

from __future__ import annotations

import shutil

from trainable.correspondence import Correspondence
from trainable.mirror import Claim, Mirror
from trainable.progress import PROGRESS_FILE
from trainable.remote import Remote
from trainable.scratch import scratch
from trainable.signals import STOP_FILE
from trainable.working_folder import WorkingFolder

_CHECKPOINTS = "checkpoints/"
_NOT_PULLED = ("tensorboard/", "model.weights", STOP_FILE, PROGRESS_FILE)  # written anew, never read
_NOT_PUSHED = ("wandb/", STOP_FILE, PROGRESS_FILE)  # of this process only, or see correspondence.py


class WorkingCopy(WorkingFolder):
    """Pulled when made; `store` and `store_checkpoints` push. They may be called by two threads at a time.

    Args:
        uri: The trial's folder.
        writes: Claim the trial: whoever worked on it before writes nothing from here on.
        stoppable: Listen to the command that may ask it to stop, and tell it how far this is.

    Raises:
        StorageError: the bucket cannot be read or written.
    """

    def __init__(self, uri: str, *, writes: bool, stoppable: bool = False) -> None:
        remote = Remote(uri)
        claim = Claim(remote) if writes else None  # first: what is pulled must be the last word
        super().__init__(scratch(uri.partition("?")[0].rpartition("/")[2]))
        self._mirror = Mirror(self.path, remote, claim.check if claim else lambda: None)
        self._mirror.pull(lambda name: not name.startswith(_NOT_PULLED))
        self._correspondence = Correspondence(remote, self.path, tells=writes) if stoppable else None

    def store(self) -> None:
        """Push rows, log, curves and weights."""
        self._mirror.push(lambda name: not name.startswith((_CHECKPOINTS, *_NOT_PUSHED)))

    def store_checkpoints(self) -> None:
        """Push checkpoints; called by the thread that wrote one."""
        self._mirror.push(lambda name: name.startswith(_CHECKPOINTS))

    def discard(self) -> None:
        """Free the disk."""
        if self._correspondence is not None:
            self._correspondence.close()
        shutil.rmtree(self.path, ignore_errors=True)
