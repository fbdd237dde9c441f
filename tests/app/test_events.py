"""The event stream: order, facts, and subscribers that are too slow."""

from __future__ import annotations

import asyncio

from quarterjack import Every, Quarterjack, Retry, current_job
from quarterjack.events import Event, EventsDropped, JobEvent, ScheduleEvent
from quarterjack.testing import virtual_time
from tests.app.kit import START, Boom, sleeper


async def test_events_of_a_job_come_in_the_order_of_its_moves() -> None:
    """Metrics and traces are built from them without sorting."""
    app = Quarterjack()

    @app.task(retry=Retry(on=Exception, attempts=2, base=1, jitter="none"))
    async def flaky() -> None:
        current_job().progress(1, 2)
        await asyncio.sleep(1)
        if current_job().attempt == 1:
            raise Boom

    async with virtual_time(app) as world:
        job = await app.submit(flaky)
        await job
        await world.settle()
        events = [event for event in world.events if isinstance(event, JobEvent)]
    assert [(event.kind, event.attempt) for event in events] == [
        ("submitted", 0), ("scheduled", 1), ("running", 1), ("progress", 1), ("retry", 1),
        ("scheduled", 2), ("running", 2), ("progress", 2), ("done", 2),
    ]  # fmt: skip
    assert {event.job_id for event in events} == {job.id}
    assert [event.at_ns for event in events] == sorted(event.at_ns for event in events)
    assert events[-1].duration_s == 1


async def test_fired_comes_before_the_job_it_made() -> None:
    """Cause before effect."""
    app = Quarterjack()

    @app.task(Every(minutes=1))
    async def tick() -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("1m")
        kinds = [e.kind for e in world.events if isinstance(e, JobEvent | ScheduleEvent)]
    assert kinds == ["put", "fired", "scheduled", "running", "done"]


async def test_cancelled_waiting_job_is_told() -> None:
    """The store ends such a job itself; listeners must hear of it all the same."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app) as world:
        job = await app.submit(task.options(delay=60), 1)
        await job.cancel()
        await world.settle()
        assert [e.kind for e in world.events if isinstance(e, JobEvent)] == ["submitted", "cancelled"]


async def test_subscriber_sees_everything_from_its_start_and_leaves_nothing_behind() -> None:
    """`async for event in app.events()` is how a program watches itself."""
    app = Quarterjack()
    task = sleeper(app)
    seen: list[str] = []

    async def watch() -> None:
        async for event in app.events():
            if isinstance(event, JobEvent):
                seen.append(event.kind)
                if event.kind == "done":
                    break

    async with virtual_time(app, record_events=False):
        watching = asyncio.ensure_future(watch())
        await asyncio.sleep(0)
        await (await app.submit(task, 1))
        await watching
    assert seen == ["submitted", "scheduled", "running", "done"]
    del watching
    assert not app.event_stream.has_listeners


async def test_slow_subscriber_is_told_what_it_lost() -> None:
    """A watcher that lags must neither stop jobs nor fill memory, and must know."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app), app.events(limit=5) as events:
        for _ in range(5):
            await (await app.submit(task, 0))
        first = await anext(events)
        assert isinstance(first, EventsDropped)
        rest: list[Event] = [await anext(events) for _ in range(5)]
        assert first.count + len(rest) == 5 * 4
        assert getattr(rest[-1], "kind", "") == "done"
        assert events.dropped == first.count


async def test_closed_subscription_ends_its_loop() -> None:
    """Shutdown of the watcher is not an error."""
    app = Quarterjack()
    events = app.events()

    async def watch() -> int:
        return len([event async for event in events])

    watching = asyncio.ensure_future(watch())
    await asyncio.sleep(0)
    events.close()
    assert await watching == 0
