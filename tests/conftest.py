"""Settings all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import SMALL, Command, Start
from tests.s3 import BUCKET, s3_server


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where several pytest processes share the cores, each computes in one thread."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)


def pytest_itemcollected(item: pytest.Item) -> None:
    """For `pytest -n`: a file's tests share a process, and all that start Ray are in one."""
    item.add_marker(pytest.mark.xdist_group("ray" if item.get_closest_marker("ray") else item.path.name))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that start Ray take longest: they come first, and the others are done beside them."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


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
