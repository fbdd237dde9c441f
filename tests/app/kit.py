"""What the tests of the application share: apps with little bodies, and how to look at their jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, ClassVar

from quarterjack import Job, JobState, Quarterjack, Task
from quarterjack.stores import MemoryStore

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


class Shared(MemoryStore):
    """A store that says that others use it too: leases, polling, giving back at the end."""

    is_shared: ClassVar[bool] = True


def states(jobs: Iterable[Job[Any]]) -> dict[str, int]:
    """Count jobs by state."""
    found: dict[str, int] = {}
    for job in jobs:
        found[job.state.value] = found.get(job.state.value, 0) + 1
    return found
