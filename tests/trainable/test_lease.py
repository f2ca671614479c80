"""The lock in a bucket, between threads that stand for processes."""

import json
import os
import subprocess
import sys
import time

import pytest

from trainable.atomic import StorageError
from trainable.lease import LEASE_FILE, Held, Lease, Terms
from trainable.remote import Remote

QUICK = Terms(renew=0.2, stale=1.5, settle=0.1)


def silent(line: str) -> None:
    pass


def test_a_renewed_lease_is_refused_and_a_released_one_given(bucket: str) -> None:
    first, second = Lease(Remote(bucket), QUICK), Lease(Remote(bucket), QUICK)
    first.acquire(silent)
    started, said = time.monotonic(), []
    with pytest.raises(Held, match=f"process {os.getpid()} on"):
        second.acquire(said.append)
    assert time.monotonic() - started < QUICK.stale
    assert "to see whether it still runs" in said[0]
    first.check()
    first.release()
    second.acquire(silent)
    second.release()


def elsewhere(remote: Remote) -> None:
    """Make it the lease of a machine this one knows nothing about."""
    lease = json.loads(remote.read(LEASE_FILE) or b"")
    lease |= {"owner": "other", "host": "far", "pids": "unknown"}
    remote.write(LEASE_FILE, json.dumps(lease).encode())


def test_a_lease_nobody_renews_is_waited_for_and_taken(bucket: str) -> None:
    remote = Remote(bucket)
    dead, heir = Lease(remote, Terms(renew=1000, stale=1.5, settle=0.0)), Lease(remote, QUICK)
    dead.acquire(silent)
    elsewhere(remote)
    started, said = time.monotonic(), []
    heir.acquire(said.append)
    assert time.monotonic() - started > QUICK.stale
    assert "on far was at work here" in said[0]
    heir.release()


def test_a_lease_dead_for_long_is_taken_at_once(bucket: str) -> None:
    remote = Remote(bucket)
    dead, heir = Lease(remote, Terms(renew=1000, settle=0.0)), Lease(remote, QUICK)
    dead.acquire(silent)
    elsewhere(remote)
    time.sleep(QUICK.stale + 1.5)  # times in a bucket are whole seconds
    started = time.monotonic()
    heir.acquire(pytest.fail)
    assert time.monotonic() - started < 1
    heir.release()


def test_the_lease_of_a_process_killed_on_this_machine_is_taken_at_once(bucket: str) -> None:
    child = (
        "import os, signal; from trainable.lease import Lease; from trainable.remote import Remote;"
        f"Lease(Remote({bucket!r})).acquire(print); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", child]).returncode == -9
    heir = Lease(Remote(bucket), QUICK)
    assert not heir.is_running()
    started = time.monotonic()
    heir.acquire(pytest.fail)
    assert time.monotonic() - started < 1
    assert heir.is_running()
    heir.release()
    assert not heir.is_running()


def test_a_holder_that_finds_another_name_in_its_lease_stops_writing(bucket: str) -> None:
    remote = Remote(bucket)
    holder = Lease(remote, QUICK)
    holder.acquire(silent)
    elsewhere(remote)
    time.sleep(2 * QUICK.renew + 0.2)
    with pytest.raises(StorageError, match="taken over by .* on far; this process has stopped writing"):
        holder.check()
    holder.release()
    assert json.loads(remote.read(LEASE_FILE) or b"")["owner"] == "other"  # left to whom it belongs


def test_a_holder_that_slept_too_long_asks_before_it_writes(bucket: str) -> None:
    remote = Remote(bucket)
    holder = Lease(remote, Terms(renew=1000, stale=0.4, settle=0.0))
    holder.acquire(silent)
    time.sleep(0.5)
    holder.check()  # late, but still its own
    elsewhere(remote)
    time.sleep(0.5)
    with pytest.raises(StorageError, match="taken over"):
        holder.check()
