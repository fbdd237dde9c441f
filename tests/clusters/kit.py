"""What tests of clusters share: Celery workers as processes, an executor of one slot, a Celery app on a new server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from quarterjack.testing.executor_contract import ExecutorBench

__all__ = ["ROOT", "app_on", "end", "started", "worker"]

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def worker(port: int, *options: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Celery worker with its pool of processes, in a group of its own; end all of them."""
    command = [sys.executable, "-m", "celery", "-A", "tests.clusters.celery_app:celery", "worker", "--loglevel=WARNING"]
    process = subprocess.Popen(
        [*command, "--concurrency=2", "--without-gossip", "--without-mingle", *options],
        cwd=ROOT,
        env={**os.environ, "QJ_TEST_CELERY_URL": f"redis://127.0.0.1:{port}", **variables},
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


def app_on(port: int, *, broker: int = 0) -> Any:
    """Return the user's Celery app on a server; with another *broker*, one whose messages no worker gets."""
    from celery import Celery  # noqa: PLC0415  # an extra

    url = f"redis://127.0.0.1:{port}"
    return Celery("contract", broker=f"{url}/{broker}", backend=f"{url}/1")


@asynccontextmanager
async def started(celery: Any, bench: ExecutorBench, **options: Any) -> AsyncIterator[Any]:
    """Start an executor of one slot."""
    from quarterjack.executors.celery import CeleryExecutor  # noqa: PLC0415  # likewise

    executor = CeleryExecutor(celery, slots=1, **options)
    await executor.start(bench.home())
    try:
        yield executor
    finally:
        await executor.stop(10)
