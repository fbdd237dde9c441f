"""What the tests of the application share: apps with little bodies, and how to look at their jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from quarterjack import Job, JobState, Quarterjack, Task

START = "2026-03-02T09:00"


class Boom(Exception):
    """What bodies raise here."""


def sleeper(app: Quarterjack, **options: Any) -> Task[[float], float]:
    """Register a task that sleeps as long as it is told and returns that."""

    @app.task(name="sleeper", **options)
    async def sleep_for(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    return sleep_for


def stubborn(app: Quarterjack, seconds: float, **options: Any) -> Task[[], str]:
    """Register a task that swallows its cancellation and goes on for *seconds*."""

    @app.task(name="stubborn", **options)
    async def will_not_stop() -> str:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                continue
        return "went on"

    return will_not_stop


async def ends_as(job: Job[Any], state: JobState) -> None:
    """Wait for *job*, whatever it raises, and see that it ends as *state*."""
    await asyncio.gather(_wait(job), return_exceptions=True)
    assert job.state is state, f"{job!r}: {job.reason}"


async def _wait(job: Job[Any]) -> Any:
    return await job


def spawn(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Run beside the test."""
    return asyncio.ensure_future(coroutine)
