"""A world of its own for a test: apps on virtual time, and what became of them.

`virtual_time` lets a virtual clock drive the running loop, starts the apps on
it and stops them at the end. Time moves only through the `World` it yields, or
while the test awaits something:

    async with virtual_time(app, start="2026-03-29T00:30", tz="Europe/Rome") as world:
        await world.run_for("2d")
        assert world.runs("midnight") == ["2026-03-30T00:00+02:00", "2026-03-31T00:00+02:00"]

Everything due up to the instant a call names has happened when it returns, and
all that came of it; work in threads is waited for in real time. The world keeps
every job and every event, however many the store itself would keep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from quarterjack._durations import Seconds
from quarterjack.app import Quarterjack
from quarterjack.errors import UsageError
from quarterjack.events import Event
from quarterjack.job import Job
from quarterjack.model import JobState
from quarterjack.task import Task

from ._clock import DEFAULT_START, VirtualClock, instant_ns
from ._history import History
from ._loop import virtual_loop
from ._runs import Runs, iso

__all__ = ["World", "virtual_time"]

_LAST_S: Final = 60.0
"""What apps get beyond their grace to stop in, after a test that failed."""


class World:
    """What a test drives and asks. Made by `virtual_time`."""

    def __init__(self, clock: VirtualClock, zone: ZoneInfo, apps: tuple[Quarterjack, ...]) -> None:
        self.clock = clock
        """The clock that everything in this world reads."""
        self.zone = zone
        """The zone of naive instants that are given, and of those that are returned."""
        self.apps = apps
        self._history = {id(app): History(app) for app in apps}

    @property
    def app(self) -> Quarterjack:
        """The only app, or the first.

        Raises:
            UsageError: In a world without apps.
        """
        if not self.apps:
            raise UsageError("this world has no app: give one to virtual_time(app)")
        return self.apps[0]

    # -- time ------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The wall clock in the world's zone."""
        return self.clock.now().astimezone(self.zone)

    async def run_for(self, duration: Seconds | str) -> None:
        """Let *duration* pass (seconds, a timedelta, ``"2d"``, ``"1h30m"``) with everything due in it.

        Elapsed time: on the day summer time begins, ``"1d"`` ends an hour later on the clock face.

        Raises:
            InvalidOption: If it is no duration.
        """
        await self.clock.run_for(duration)

    async def run_until(self, when: datetime | str) -> None:
        """Let time pass up to and including *when*: an instant, or a local time of the world's zone.

        Raises:
            InvalidOption: If *when* is no instant, or the clock is past it.
        """
        await self.clock.run_until(instant_ns(when, self.zone.key))

    async def advance(self, duration: Seconds | str) -> None:
        """As `run_for`, but time moves even while threads work: how to outlast one that never ends."""
        await self.clock.advance(duration)

    async def settle(self) -> None:
        """Let everything happen that is due now, without moving time."""
        await self.clock.settle()

    async def step_clock(self, delta: Seconds | str) -> None:
        """Set the wall clock by *delta* (seconds or a timedelta, either way), and let all who noticed act.

        Elapsed time stands still: sleeps and timeouts are not affected.
        """
        self.clock.step_clock(delta)
        await self.clock.settle()

    async def suspend(self, delta: Seconds | str) -> None:
        """Let the machine sleep for *delta*, and let all who noticed act.

        The wall clock goes on; the monotonic clock, and with it sleeps and timeouts, does not.
        """
        self.clock.suspend(delta)
        await self.clock.settle()

    async def drain(self) -> None:
        """Wait until nothing that is due waits and nothing runs, in all apps. See `Quarterjack.drain`."""
        for app in self.apps:
            await app.drain()

    # -- what happened ---------------------------------------------------------------

    def runs(self, of: str | Task[..., Any], *, app: Quarterjack | None = None) -> Runs:
        """Return the fire times that a schedule's, or a task's, jobs ran for.

        Args:
            of: A schedule's id, a task's name (with its group), or the task.
            app: Which app; the world's first by default.

        Returns:
            Fire times of bodies that began, in the order they were fired, as ISO 8601 in the world's
            zone and as short as they are exact: ``"2026-03-30T00:00+02:00"``.
            A job that was tried again counts once. Comparing it with a list
            shows, under pytest, what is missing and what is too much.

        Raises:
            UsageError: If the app has no such task and no such schedule: a
                misspelt name would pass for "it never ran".
        """
        chosen = self._of(app)
        name = of.name if isinstance(of, Task) else of
        chosen.check_known(name)
        return Runs(iso(ns, self.zone) for ns in chosen.nominals(name))

    def jobs(
        self, of: str | Task[..., Any] | None = None, *, state: JobState | None = None, app: Quarterjack | None = None
    ) -> list[Job[Any]]:
        """Return the jobs of a task or a schedule (None: all), oldest first; skipped and missed ones too.

        Their ``lag``, ``state``, ``reason``, ``timestamps`` tell what became of them.

        Raises:
            UsageError: If the app has no such task and no such schedule.
        """
        chosen = self._of(app)
        name = of.name if isinstance(of, Task) else of
        if name is not None:
            chosen.check_known(name)
        return [job for job in chosen.jobs(name) if state is None or job.state is state]

    def outcomes(self, of: str | Task[..., Any] | None = None, *, app: Quarterjack | None = None) -> list[str]:
        """Return how the jobs of `jobs` stand, as words: ``["done", "skipped", "running"]``."""
        return [job.state.value for job in self.jobs(of, app=app)]

    @property
    def events(self) -> list[Event]:
        """Everything the first app told so far."""
        return self._of(None).events

    def _of(self, app: Quarterjack | None) -> History:
        chosen = self.app if app is None else app
        try:
            return self._history[id(chosen)]
        except KeyError:
            raise UsageError(f"{chosen!r} does not belong to this world") from None

    def __repr__(self) -> str:
        return f"<World {self.now.isoformat()} {len(self.apps)} apps>"


@asynccontextmanager
async def virtual_time(
    app: Quarterjack | None = None,
    *apps: Quarterjack,
    start: datetime | str = DEFAULT_START,
    tz: str = "UTC",
    strict: bool = True,
    record_events: bool = True,
) -> AsyncIterator[World]:
    """Run apps on a virtual clock inside the block; they start with it and drain at its end.

    Args:
        app: The app under test; None for a world of other code that waits.
        apps: More apps on the same clock.
        start: What the clock shows first: an aware datetime or ISO 8601; a naive one is local to *tz*.
        tz: The zone the world speaks in. Triggers keep to their own.
        strict: Check arguments and results as a durable store would (`Quarterjack`'s ``strict``).
        record_events: Keep `World.events`. Without, runs and jobs are known all the same.

    Raises:
        UsageError: If the running loop is not asyncio's own, or is virtual already.
        InvalidOption: If *start* or *tz* is wrong.
        StartupFailed: If an app cannot start.
    """
    all_apps = apps if app is None else (app, *apps)
    clock = VirtualClock(start, tz=tz)
    world = World(clock, ZoneInfo(tz), all_apps)
    with virtual_loop(clock):
        async with AsyncExitStack() as stack:
            hurry: list[asyncio.Future[None]] = []
            stack.push_async_callback(_end, hurry)
            for one in all_apps:
                stack.enter_context(_settings(one, clock, is_strict=strict))
                stack.enter_context(world._of(one).recording(with_events=record_events))
                await stack.enter_async_context(one)
                world._of(one).started()
            try:
                yield world
            except BaseException:
                # The test has failed: a thread that never ends must not keep it from saying so.
                hurry.append(
                    asyncio.ensure_future(clock.advance(_LAST_S + sum(one.shutdown_grace_s for one in all_apps)))
                )
                raise


async def _end(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


@contextmanager
def _settings(app: Quarterjack, clock: VirtualClock, *, is_strict: bool) -> Iterator[None]:
    """Give *app* the world's clock and strictness, and its own back at the end."""
    if app.is_running:
        raise UsageError(f"{app!r} runs already: virtual_time starts it, so that all of it is on virtual time")
    before = app.clock, app.strict
    app.clock, app.strict = clock, is_strict
    try:
        yield
    finally:
        app.clock, app.strict = before
