"""A Celery worker over a Valkey of the module's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.running import VALKEY, OwnServer, own

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def worker(url: str, *options: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Celery worker with its pool of processes, in a group of its own; end all of them."""
    command = [sys.executable, "-m", "celery", "-A", "tests.clusters.celery_app:celery", "worker", "--loglevel=WARNING"]
    process = subprocess.Popen(
        [*command, "--concurrency=2", "--without-gossip", "--without-mingle", *options],
        cwd=ROOT,
        env={**os.environ, "QJ_TEST_CELERY_URL": url, **variables},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a worker and its children, at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@pytest.fixture(scope="module")
def valkey() -> Iterator[OwnServer]:
    """Start a server for the messages and the results."""
    with own(VALKEY) as server:
        yield server


@pytest.fixture(scope="module")
def celery(valkey: OwnServer) -> Any:
    """Return the user's Celery app."""
    from celery import Celery  # noqa: PLC0415  # an extra

    url = f"redis://127.0.0.1:{valkey.port}"
    return Celery("contract", broker=f"{url}/0", backend=f"{url}/1")


@pytest.fixture(scope="module")
def at_work(valkey: OwnServer) -> Iterator[None]:
    """Have a worker at work."""
    with worker(f"redis://127.0.0.1:{valkey.port}"):
        yield
