"""A Celery app as a user has one: its workers run the contract's bodies, and a few tasks of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from celery import Celery

from quarterjack.executors import _celery_pulse
from quarterjack.executors.celery import serve_bodies

URL = os.environ["QJ_TEST_CELERY_URL"]
celery: Any = Celery("contract", broker=f"{URL}/0", backend=f"{URL}/1")
celery.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
serve_bodies(celery, os.environ.get("QJ_TEST_CELERY_BODIES", "quarterjack.testing._contract_bodies:app"))
if alive_s := int(os.environ.get("QJ_TEST_CELERY_ALIVE", "0")):
    _celery_pulse.ALIVE_S, _celery_pulse.PULSE_S = alive_s, alive_s / 4


def named(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Register a task."""
    register: Callable[[Callable[..., Any]], Any] = celery.task(name=name, track_started=True, **options)
    return register


@named("shop.add")
def add(x: int, y: int) -> int:
    return x + y


@named("shop.moment")
def moment(day: int) -> datetime:
    return datetime(2026, 3, day, tzinfo=UTC)


@named("shop.quiet", ignore_result=True)
def quiet() -> int:
    return 5


@named("shop.fail")
def fail() -> None:
    raise LookupError("no such thing")


@named("shop.sleep")
def sleep(seconds: float, note: str) -> None:
    Path(note).write_text(str(os.getpid()))
    time.sleep(seconds)


@named("shop.half", bind=True)
def half(self: Any) -> str:
    self.update_state(state="PROGRESS", meta={"progress": 50})
    time.sleep(0.2)
    return "done"
