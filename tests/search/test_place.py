"""The folder a search lies in."""

import contextlib
import threading
from pathlib import Path

from search.place import Place


def test_deleting_what_a_stopped_trial_still_writes_into_is_no_error(tmp_path: Path) -> None:
    stop = threading.Event()
    folder = tmp_path / "trial_0000" / "checkpoints"

    def write() -> None:
        while not stop.is_set():
            for number in range(20):
                with contextlib.suppress(OSError):  # deleted in between
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{number}.pt").touch()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(500):
            Place(tmp_path).delete(["trial_0000/checkpoints", "trial_0000/model.weights"])
    finally:
        stop.set()
        writer.join()
    Place(tmp_path).delete(["trial_0000/checkpoints"])
    assert not folder.exists()
