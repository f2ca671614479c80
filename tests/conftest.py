"""Settings all tests share."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT, SMALL, kill
from tests.s3 import BUCKET, s3_server


@pytest.fixture
def small() -> dict[str, Any]:
    """Settings of a run that takes a second."""
    return dict(SMALL)


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start one of the two commands in a session of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        kill(process)


@pytest.fixture(scope="session")
def _server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(_server: str, request: pytest.FixtureRequest) -> str:
    """The URI of an empty folder in a bucket of a real S3 server on loopback."""
    return f"s3://{BUCKET}/{request.node.originalname}"
