"""The Celery app of these contenders, as a user has one; the program starts its worker beside the contender's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

from valkey import server

__all__ = ["celery", "noop", "working"]

URL = "QJ_BENCH_CELERY"
celery: Any = Celery("bench", broker=f"{os.environ.get(URL)}/0", backend=f"{os.environ.get(URL)}/1")
celery.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)


@celery.task(name="bench.noop")  # type: ignore[untyped-decorator]
def noop() -> None: ...


@contextmanager
def working(module: str) -> Iterator[None]:
    """Have a worker of two processes at work on a server of its own, with the Celery app that *module* has."""
    with server() as one:
        os.environ[URL] = one.url
        celery.conf.update(broker_url=f"{one.url}/0", result_backend=f"{one.url}/1")
        command = [sys.executable, "-P", "-m", "celery", "-A", f"{module}:celery", "worker", "--loglevel=ERROR"]
        more = ["--concurrency=2", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        process = subprocess.Popen([*command, *more], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            noop.delay().get(timeout=60)  # it is up
            yield
        finally:
            process.terminate()
            process.wait()
