"""One task at a time beside training; its error reaches whoever asks next."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """A thread for one task at a time: a second one waits for the first."""

    def __init__(self, name: str) -> None:
        """Args: name: of the thread, seen in a debugger."""
        self._name = name
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether the task still runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, task: Callable[[], None]) -> None:
        """Wait for the task before (raising its error), then run `task` beside the caller."""
        self.wait()

        def run() -> None:
            try:
                task()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name=self._name)
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing runs; raises the error of the last task, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error
