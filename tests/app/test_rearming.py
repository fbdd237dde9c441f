"""`Forever`: one chain per schedule, that never stops by itself and never turns on the spot."""

from __future__ import annotations

import asyncio
import threading

from quarterjack import Forever, JobState, Quarterjack, Unique
from quarterjack.testing import virtual_time
from tests.app.kit import Boom, ends_as


class Bodies:
    """Counts the bodies that run at once."""

    def __init__(self) -> None:
        self.began = self.running = self.most = 0

    async def run(self, seconds: float) -> None:
        self.began += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.running -= 1


async def skipped(app: Quarterjack) -> int:
    return len(await app.jobs(state=JobState.SKIPPED, limit=1_000))


async def test_forever_waits_for_a_body_that_outlived_its_timeout() -> None:
    """A thread cannot be stopped, so its next run comes when it has ended, whatever its outcome was.

    The bug: the outcome made the next run, which was skipped beside the body that
    still ran, and so made the next one: thousands of rows a second, and a busy core.
    """
    app = Quarterjack(shutdown_grace=0)
    release = threading.Event()
    begins: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    @app.task(Forever(), timeout=0.05)
    def poll() -> None:
        loop.call_soon_threadsafe(begins.put_nowait, None)
        release.wait(5)

    async with app:
        await begins.get()
        (job,) = await app.jobs(task="poll")
        await ends_as(job, JobState.TIMED_OUT)
        await asyncio.sleep(0.05)  # a chain that turned on the spot would do so now
        assert begins.empty()
        assert await skipped(app) == 0
        release.set()
        await begins.get()


async def test_forever_waits_for_a_manual_run_beside_it() -> None:
    """A run that was left out is one row, and the chain goes on when what blocked it has ended."""
    app = Quarterjack()
    bodies = Bodies()

    @app.task(Forever())
    async def poll() -> None:
        await bodies.run(10)

    async with virtual_time(app) as world:
        await world.run_for(5)
        await app.trigger_now("poll", overlap="allow")
        await world.run_for(99)
        assert (bodies.most, await skipped(app)) == (2, 1)
        assert bodies.began == 2 + 9, "from the manual run's end on, every 10 s"


async def test_run_that_is_repeated_begins_no_second_chain() -> None:
    """`app.retry` runs the old job again, beside the chain, and that is all."""
    app = Quarterjack()
    bodies = Bodies()

    @app.task(Forever(), overlap="allow")
    async def poll() -> None:
        is_first = not bodies.began
        await bodies.run(10)
        if is_first:
            raise Boom

    async with virtual_time(app) as world:
        await world.run_for(15)
        assert await app.retry(task="poll", state=JobState.FAILED) == 1
        await world.run_for(11)
        bodies.most = bodies.running
        await world.run_for(100)
        assert bodies.most == 1
        assert bodies.running == 1, "the chain goes on"


async def test_schedule_made_anew_is_one_chain() -> None:
    """The run of the one that was removed belongs to no chain any more."""
    app = Quarterjack()
    bodies = Bodies()

    @app.task
    async def poll() -> None:
        await bodies.run(10)

    async with virtual_time(app) as world:
        await app.schedule(poll, Forever(), overlap="allow")
        await world.run_for(5)
        await app.unschedule("poll")
        await app.schedule(poll, Forever(), overlap="allow")
        await world.run_for(6)
        bodies.most = bodies.running
        await world.run_for(100)
        assert (bodies.most, bodies.running) == (1, 1)


async def test_forever_beside_a_submitted_job_with_its_unique_key() -> None:
    """The key is in the chain's way until that job ends: one row says so, and then it goes on."""
    app = Quarterjack()
    bodies = Bodies()

    @app.task(unique="k")
    async def poll() -> None:
        await bodies.run(10)

    async with virtual_time(app) as world:
        await app.submit(poll)
        await app.schedule(poll, Forever(), overlap="allow", unique=Unique("k"))
        await world.run_for(35)
        assert (bodies.began, bodies.most, await skipped(app)) == (4, 1, 1)
