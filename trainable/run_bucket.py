"""A run in an S3 bucket: its lock, and a copy on this machine of what its command must know.

In the bucket it looks as in a folder, but for `.lease`, the lock. The workers have copies of their own, see
working_copy.py. Nothing has to survive on this machine: a run that was killed here goes on anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from trainable.atomic import StorageError
from trainable.config import TrainConfig
from trainable.errors import ConfigError
from trainable.lease import LEASE_FILE, Held, Lease
from trainable.loop import WEIGHTS_FILE
from trainable.mirror import Mirror
from trainable.progress import PROGRESS_FILE
from trainable.remote import HASTY, Remote
from trainable.run_folder import CHECKPOINTS, CONFIG_FILE, check_is_run, claimed
from trainable.run_place import RunPlace
from trainable.say import say
from trainable.scratch import scratch
from trainable.signals import STOP_FILE
from trainable.tracking import RESULT_FILE

_READ = re.compile(
    "|".join(map(re.escape, (CONFIG_FILE, RESULT_FILE, PROGRESS_FILE))) + rf"|{CHECKPOINTS}/.*\.json"
)


class RunBucket(RunPlace):
    """A run whose checkpoints and results are in a bucket.

    Args:
        remote: The run's folder there, once the bucket has answered.
    """

    pause = 2.0

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.remote = remote.uri
        super().__init__(scratch(str(remote).rpartition("/")[2]))
        self._mirror = Mirror(self.folder, remote)

    @classmethod
    def at(cls, storage: str, name: str) -> RunBucket:
        """The run `name` below `storage`; raises ConfigError where that is no bucket, or does not answer."""
        remote = Remote(storage).child(name)
        remote.trying(HASTY).check()
        return cls(remote)

    def __str__(self) -> str:
        return str(self._remote)

    def read(self) -> None:
        """Fetch what is new of it; raises StorageError."""
        self._mirror.pull(lambda name: _READ.fullmatch(name) is not None)

    def has(self, name: str) -> bool:
        """Whether a file of the run is in the bucket; raises StorageError."""
        return self._remote.entry(name) is not None

    def fetch(self, name: str) -> None:
        """Fetch one file; raises StorageError."""
        self._remote.download(name, self.folder / name)

    def put(self, name: str) -> None:
        """Write one file to the bucket."""
        self._remote.upload(name, self.folder / name)

    @contextmanager
    def claimed(self, config: TrainConfig, *, fresh: bool) -> Iterator[None]:
        """Own the run within the block, `fresh` after deleting it; raises ConfigError, StorageError."""
        lease = Lease(self._remote)
        try:
            lease.acquire(say)
        except Held as held:
            raise ConfigError([f"{self}: another process trains this run: {held}"]) from None
        except StorageError as error:
            raise ConfigError([str(error)]) from None
        try:
            if fresh:
                self._clear()
            self.folder = scratch(self.folder.name)  # the copy is made anew
            self._mirror = Mirror(self.folder, self._remote)
            self.read()
            with claimed(config, self.folder, fresh=False):
                self.put(CONFIG_FILE)
                yield
        finally:
            lease.release()

    def _clear(self) -> None:
        """Delete all but the lease; without weights and seals, which go first, there is no run."""
        names = [name for name in self._remote.entries() if name != LEASE_FILE]
        check_is_run({name.partition("/")[0] for name in names}, self)
        seals = [name for name in names if name.startswith(f"{CHECKPOINTS}/") and name.endswith(".json")]
        first = {WEIGHTS_FILE, *seals}
        self._remote.delete_all(name for name in names if name in first)
        self._remote.delete_all(name for name in names if name not in first and name != CONFIG_FILE)
        self._remote.delete(CONFIG_FILE)  # with it, this is a run that can be deleted still

    def ask_to_stop(self, why: str) -> None:
        """Leave the wish where the workers look for it every few seconds."""
        self._remote.write(STOP_FILE, why.encode())
        super().ask_to_stop(why)

    def forget_stop(self) -> None:
        """Take it back there too."""
        super().forget_stop()
        self._remote.delete(STOP_FILE)
