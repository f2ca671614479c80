"""Settings all tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import SMALL, Command, Start
from tests.s3 import BUCKET, s3_server


@pytest.fixture
def small() -> dict[str, Any]:
    """Settings of a run that takes a second."""
    return dict(SMALL)


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Start]:
    """Start one of the two commands; what still runs at the end is killed."""
    started: list[Command] = []

    def start(script: str, *arguments: object) -> Command:
        started.append(Command(tmp_path, script, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture(scope="session")
def _server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(_server: str, request: pytest.FixtureRequest) -> str:
    """The URI of an empty folder in a bucket of a real S3 server on loopback."""
    return f"s3://{BUCKET}/{request.node.originalname}"
