"""A Celery worker over a Valkey of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quarterjack.testing.executor_contract import ExecutorBench
from tests.clusters.kit import app_on, worker
from tests.servers.running import VALKEY, OwnServer, own


@pytest.fixture(scope="session")
def valkey() -> Iterator[OwnServer]:
    """Start a server for the messages and the results."""
    with own(VALKEY) as server:
        yield server


@pytest.fixture(scope="session")
def celery(valkey: OwnServer) -> Any:
    """Return the user's Celery app."""
    return app_on(valkey.port)


@pytest.fixture(scope="session")
def at_work(valkey: OwnServer) -> Iterator[None]:
    """Have a worker at work."""
    with worker(valkey.port):
        yield


@pytest.fixture
def bench(tmp_path: Path) -> ExecutorBench:
    """Return what submits the contract's bodies."""
    return ExecutorBench(lambda slots: pytest.fail(f"{slots}"), "plain", tmp_path)
