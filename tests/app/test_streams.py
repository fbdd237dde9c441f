"""Streams: each item of an asynchronous iterable becomes a job, and is let go of only when that is stored."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import (
    ConcurrencyLimit,
    DuplicateName,
    Every,
    Flow,
    Group,
    InvalidOption,
    InvalidTrigger,
    JobState,
    MemoryStore,
    NotPeriodic,
    Quarterjack,
    QueueFull,
    Stream,
    StreamView,
    Unique,
    UnknownSchedule,
    Weekdays,
    current_job,
    ticks,
)
from quarterjack.events import StreamEvent
from quarterjack.flow.room import Overflow
from quarterjack.runtime.service import Role
from quarterjack.testing import World, faults, virtual_time
from tests.app.kit import START, Boom


class Message:
    """What a broker hands out: a body and its acknowledgement."""

    def __init__(self, body: int, log: list[str]) -> None:
        self.body, self._log = body, log

    async def ack(self) -> None:
        self._log.append(f"ack {self.body}")


def numbers(count: int, *, every: float = 0.0) -> Callable[[], AsyncIterator[int]]:
    """Return the factory of a source that counts, with a pause before each number."""

    async def count_up() -> AsyncIterator[int]:
        for number in range(count):
            await asyncio.sleep(every)
            yield number

    return count_up


async def waits() -> AsyncIterator[int]:
    """Wait for an item that never comes."""
    await asyncio.Event().wait()
    yield 0


def told(world: World, kind: str) -> list[StreamEvent]:
    """Return what streams told of one kind."""
    return [event for event in world.events if isinstance(event, StreamEvent) and event.kind == kind]


async def view(app: Quarterjack) -> StreamView:
    """Return the only stream."""
    (one,) = await app.streams()
    return one


# ---------------------------------------------------------------- items become jobs


async def test_each_item_becomes_a_job_in_order() -> None:
    """What a broker gives in order is stored, and with one slot run, in that order."""
    app = Quarterjack(concurrency=1)
    seen: list[int] = []

    @app.task(Stream(numbers(200)))
    async def handle(item: int) -> None:
        seen.append(item)

    async with virtual_time(app, start=START) as world:
        await world.settle()
        assert seen == list(range(200))
        assert set(world.outcomes(handle)) == {"done"}
        one = await view(app)
    assert (one.id, one.taken, one.stored, one.unfinished, one.state) == ("handle", 200, 200, 0, "ended")


async def test_a_source_that_sleeps_lives_in_virtual_time() -> None:
    """A day of items is tested in a moment."""
    app = Quarterjack()
    at: list[str] = []

    @app.task(Stream(numbers(100, every=3600)))
    async def handle(item: int) -> None:
        at.append(f"{app.clock.now():%d %H:%M} {item}")

    async with virtual_time(app, start=START) as world:
        await world.run_for("25h")
        assert at[0] == "02 10:00 0"
        assert at[-1] == "03 10:00 24"
        assert (await view(app)).state == "waiting"


async def test_plain_functions_groups_and_dependencies_take_items() -> None:
    """A stream's task is a task like any other: its group names it and its options apply."""
    app, group = Quarterjack(), Group("shop", timeout=30, missed="all", overlap="allow")
    seen: list[tuple[int, str]] = []

    @group.task(Stream(numbers(3)), retry=2)
    def handle(item: int) -> None:
        me = current_job()
        seen.append((item, me.task))
        if me.attempt == 1:
            raise Boom

    app.include_group(group)
    async with virtual_time(app, start=START) as world:
        await world.run_for("1m")
        (first, *_) = world.jobs("shop.handle")
        assert first.submitted_by.text == "stream shop.handle"
        assert (await view(app)).id == "shop.handle"
    assert sorted(seen) == sorted([(n, "shop.handle") for n in range(3)] * 2)


async def test_all_kinds_of_sources_are_opened_and_closed() -> None:
    """Clients come as generators, objects, coroutines and context managers, or several of these at once."""
    closed: list[str] = []

    class Queue:
        def __aiter__(self) -> AsyncIterator[int]:
            return numbers(1)()

    class Client(Queue):
        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *_: object) -> None:
            closed.append("client")

    @asynccontextmanager
    async def connection() -> AsyncIterator[Queue]:
        try:
            yield Queue()
        finally:
            closed.append("connection")

    async def made() -> Client:
        return Client()

    app = Quarterjack()

    @app.task(Stream(Queue), id="object")
    @app.task(Stream(Client), id="client")
    @app.task(Stream(connection), id="connection")
    @app.task(Stream(made), id="coroutine")
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.settle()
        views = await app.streams()
        assert {one.id: (one.stored, one.state) for one in views} == dict.fromkeys(
            ("client", "connection", "coroutine", "object"), (1, "ended")
        )
    assert sorted(closed) == ["client", "client", "connection"]


async def test_value_says_what_the_job_gets() -> None:
    """A message is no JSON; its body is."""
    app, log = Quarterjack(), list[str]()
    seen: list[int] = []

    async def messages() -> AsyncIterator[Message]:
        yield Message(7, log)

    @app.task(Stream(messages, value=lambda message: message.body))
    async def handle(body: int) -> None:
        seen.append(body)

    async with virtual_time(app, start=START) as world:
        await world.settle()
    assert (seen, log) == ([7], ["ack 7"])


async def test_streams_run_on_uvloop_and_beside_plain_code() -> None:
    """The same consumer on a loop that is not asyncio's own."""
    uvloop = pytest.importorskip("uvloop")
    seen: list[int] = []

    async def main() -> None:
        app = Quarterjack()

        @app.task(Stream(numbers(50)))
        async def handle(item: int) -> None:
            seen.append(item)

        @app.task(Stream(waits))
        async def never(item: int) -> None: ...

        async with app:
            while len(seen) < 50:  # real time here: there is nothing else to wait for
                await asyncio.sleep(0.001)

    await asyncio.to_thread(uvloop.run, main())
    assert seen == list(range(50))


# ---------------------------------------------------------------- acknowledging


async def test_an_item_is_acknowledged_after_its_job_is_stored_and_before_the_next_is_asked_for() -> None:
    """The promise of the whole: a crash at any point loses no item."""
    app, log = Quarterjack(), list[str]()

    async def messages() -> AsyncIterator[Message]:
        for number in range(2):
            log.append(f"gave {number}")
            yield Message(number, log)

    @app.task(Stream(messages, value=lambda message: message.body))
    async def handle(body: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        stored = world.app.event_stream.listen(lambda event: log.append(getattr(event, "kind", "")))
        await world.settle()
        stored()
    told_of = [entry for entry in log if entry == "submitted" or entry.startswith(("gave", "ack"))]
    assert told_of == ["gave 0", "submitted", "ack 0", "gave 1", "submitted", "ack 1"]


async def test_a_failing_store_is_asked_again_and_nothing_is_acknowledged_before() -> None:
    """The item is in our hands: it waits for the store, and the source waits with it."""
    app, acked = Quarterjack(), list[int]()

    @app.task(Stream(numbers(3), ack=acked.append))
    async def handle(item: int) -> None: ...

    with faults(app.store) as broken:
        broken.fail_next("jobs_put", times=3)
        async with virtual_time(app, start=START) as world:
            await world.settle()
            assert acked == []
            assert (await view(app)).state == "storing"
            await world.run_for("10s")
            assert acked == [0, 1, 2]
            pauses = [event.pause_s or 0.0 for event in told(world, "failed")]
            assert len(pauses) == 3
            assert all(2**n / 2 <= pause <= 2**n for n, pause in enumerate(pauses))
            assert len(world.jobs(handle)) == 3


async def test_a_lost_answer_of_the_store_makes_no_second_job() -> None:
    """The connection may break after the commit; the job is looked for before it is stored again."""
    app, acked = Quarterjack(), list[int]()

    @app.task(Stream(numbers(1), ack=acked.append))
    async def handle(item: int) -> None: ...

    with faults(app.store) as broken:
        broken.fail_next("jobs_put", after=True)
        async with virtual_time(app, start=START) as world:
            await world.run_for("5s")
            assert world.outcomes(handle) == ["done"]
            assert acked == [0]
            one = await view(app)
    assert (one.stored, one.duplicates, one.unfinished) == (1, 0, 0)


@pytest.mark.parametrize("error", [Boom("gone"), asyncio.CancelledError()], ids=["raises", "is cancelled"])
async def test_an_acknowledgement_that_fails_is_told_and_the_stream_goes_on(error: BaseException) -> None:
    """The job is stored all the same; at worst the broker gives the item again."""
    app = Quarterjack()

    def ack(item: int) -> None:
        if item == 0:
            raise error

    @app.task(Stream(numbers(2), ack=ack))
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.settle()
        assert world.outcomes(handle) == ["done", "done"]
        (event,) = told(world, "unacknowledged")
        assert type(error).__name__ in (event.reason or "")
        assert (await view(app)).unacknowledged == 1


# ---------------------------------------------------------------- bad items, duplicates


async def test_a_bad_item_is_told_counted_rejected_and_not_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    """One poisoned message must not stop a queue, nor vanish."""
    app = Quarterjack()
    acked: list[Any] = []
    rejected: list[tuple[Any, str]] = []

    async def mixed() -> AsyncIterator[Any]:
        for item in (1, "one", 2):
            yield item

    async def reject(item: Any, why: Exception) -> None:
        rejected.append((item, type(why).__name__))

    @app.task(Stream(mixed, ack=acked.append, reject=reject))
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.settle()
        assert len(world.jobs(handle)) == 2
        (event,) = told(world, "refused")
        assert "valid integer" in (event.reason or "")
        one = await view(app)
    assert (acked, rejected) == ([1, 2], [("one", "InvalidArguments")])
    assert (one.taken, one.stored, one.refused, one.failures) == (3, 2, 1, 0)
    assert "stream handle: an item was refused: InvalidArguments" in caplog.text


@pytest.mark.parametrize("function", ["value", "key"])
async def test_what_value_and_key_raise_refuses_the_item(function: str) -> None:
    """They run on what came from outside, so they fail on what came from outside."""
    app = Quarterjack()

    def picky(item: int) -> str:
        return str(1 // item)

    options: dict[str, Any] = {function: picky}

    @app.task(Stream(numbers(3), reject=lambda item, why: 1 / 0, **options))
    async def handle(item: Any) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.settle()
        assert ["ZeroDivisionError" in (event.reason or "") for event in told(world, "refused")] == [True]
        assert "reject raised" in (told(world, "unacknowledged")[0].reason or "")
        assert (await view(app)).state == "ended"


async def test_an_item_whose_key_a_job_holds_makes_no_second_one() -> None:
    """Brokers deliver at least once; a redelivery is acknowledged, for its job is stored."""
    app, acked = Quarterjack(), list[str]()

    async def twice() -> AsyncIterator[str]:
        for item in ("a", "b", "a"):
            yield item
        await asyncio.sleep(60)
        yield "a"

    @app.task(Stream(twice, ack=acked.append, key=lambda item: item))
    async def handle(item: str) -> None:
        await asyncio.sleep(10)

    async with virtual_time(app, start=START) as world:
        await world.run_for("2m")
        assert len(world.jobs(handle)) == 3  # the last "a" comes when the first is done
        one = await view(app)
    assert acked == ["a", "b", "a", "a"]
    assert (one.stored, one.duplicates, one.unfinished) == (3, 1, 0)


async def test_the_tasks_unique_says_for_how_long_and_what_happens_then() -> None:
    """The key is the item's, the rest is the task's."""
    app, acked = Quarterjack(), list[str]()

    async def again() -> AsyncIterator[str]:
        yield "a"
        yield "b"
        await asyncio.sleep(60)
        yield "a"
        await asyncio.sleep(3600)
        yield "a"

    unique = Unique("item", scope=timedelta(hours=1), on_conflict="raise")

    @app.task(Stream(again, ack=acked.append, key=lambda item: item), unique=unique)
    async def handle(item: str) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("2h")
        assert len(world.jobs(handle)) == 3
        (event,) = told(world, "refused")
        assert "UniqueConflict" in (event.reason or "")
    assert acked == ["a", "b", "a"]


# ---------------------------------------------------------------- back-pressure


async def test_no_item_is_asked_for_without_room_for_its_job() -> None:
    """A queue of a million must not become a million waiting jobs here."""
    app = Quarterjack(concurrency=2)
    given: list[int] = []

    async def source() -> AsyncIterator[int]:
        for number in range(20):
            given.append(number)
            yield number

    @app.task(Stream(source, max_waiting=3))
    async def handle(item: int) -> None:
        await asyncio.sleep(10)

    async with virtual_time(app, start=START) as world:
        await world.settle()
        assert (len(given), (await view(app)).state, (await view(app)).unfinished) == (3, "full", 3)
        await world.run_for("10s")
        assert len(given) == 5
        await world.run_for("5m")
        assert world.outcomes(handle) == ["done"] * 20


@pytest.mark.parametrize("end", ["fails", "is cancelled", "is retried"])
async def test_every_end_of_a_job_makes_room(end: str) -> None:
    """Room that is never given back would stop the stream for good."""
    app = Quarterjack()

    @app.task(Stream(numbers(3), max_waiting=1), retry=2)
    async def handle(item: int) -> None:
        if end == "is cancelled":
            await asyncio.sleep(3600)
        if end == "fails" or current_job().attempt == 1:
            raise Boom

    async with virtual_time(app, start=START) as world:
        for _ in range(3):
            await world.run_for("10s")
            if end == "is cancelled":
                await app.cancel(task="handle")
        await world.run_for("10s")
        assert len(world.jobs(handle)) == 3
        assert (await view(app)).unfinished == 0


@given(most=st.integers(1, 5), slots=st.integers(1, 4), pauses=st.lists(st.integers(0, 3), max_size=12))
def test_the_bound_holds_and_every_item_is_run_once(most: int, slots: int, pauses: list[int]) -> None:
    """Whatever the times of items and bodies are."""
    app = Quarterjack(concurrency=slots)
    seen: list[int] = []
    gave = open_most = 0

    async def source() -> AsyncIterator[tuple[int, int]]:
        nonlocal gave, open_most
        for number, pause in enumerate(pauses):
            await asyncio.sleep(pause)
            gave += 1
            open_most = max(open_most, gave - len(seen))
            yield number, 3 - pause

    @app.task(Stream(source, max_waiting=most))
    async def handle(item: tuple[int, int]) -> None:
        await asyncio.sleep(item[1])
        seen.append(item[0])

    async def main() -> None:
        async with virtual_time(app, start=START) as world:
            await world.run_for("2m")
            assert world.outcomes(handle) == ["done"] * len(pauses)

    asyncio.run(main())
    assert sorted(seen) == list(range(len(pauses)))
    assert open_most <= most


class Parcel:
    """An item that can be counted while it lives."""


async def test_ten_thousand_items_take_the_memory_of_a_few() -> None:
    """A stream runs for months: it keeps nothing of what has passed."""
    app = Quarterjack(MemoryStore(keep_finished=10))
    alive: weakref.WeakSet[Parcel] = weakref.WeakSet()
    most = handled = 0

    async def parcels() -> AsyncIterator[Parcel]:
        for _ in range(10_000):
            parcel = Parcel()
            alive.add(parcel)
            yield parcel

    @app.task(Stream(parcels, max_waiting=20))
    async def handle(parcel: Parcel) -> None:
        nonlocal most, handled
        handled += 1
        if handled % 500 == 0:
            gc.collect()
            most = max(most, len(alive))

    async with app:
        while handled < 10_000:  # real time here: there is nothing else to wait for
            await asyncio.sleep(0.01)
        await app.drain()
        assert app._running().handles._watchers == {}
    assert most < 100


async def test_a_source_that_never_waits_lets_the_loop_turn() -> None:
    """Thousands of refused items in one turn would stop the clock of everybody else."""
    app = Quarterjack()
    turns = 0
    at: list[int] = []

    async def texts() -> AsyncIterator[str]:
        for _ in range(3_000):
            at.append(turns)
            yield "no number"

    @app.task(Stream(texts))
    async def handle(item: int) -> None: ...

    def turn() -> None:
        nonlocal turns
        turns += 1
        if turns < 10_000:
            asyncio.get_running_loop().call_soon(turn)

    async with virtual_time(app, start=START) as world:
        asyncio.get_running_loop().call_soon(turn)
        await world.settle()
        assert (await view(app)).refused == 3_000
    assert at[-1] - at[0] > 50


# ---------------------------------------------------------------- sources that fail and end


@pytest.mark.parametrize("where", ["factory", "iteration", "entering", "closing", "cancelled inside", "no source"])
async def test_a_source_that_raises_is_opened_again_after_growing_pauses(where: str) -> None:
    """A broker that restarts must not end the stream, nor be asked in a tight loop."""
    app = Quarterjack()
    opened: list[float] = []

    async def iteration() -> AsyncIterator[int]:
        if where == "iteration":
            raise Boom("broken")
        if where == "cancelled inside":
            raise asyncio.CancelledError
        yield 0

    @asynccontextmanager
    async def connection() -> AsyncIterator[AsyncIterator[int]]:
        if where == "entering":
            raise Boom("refused")
        yield iteration()
        if where == "closing":
            raise Boom("reset")

    def factory() -> Any:
        opened.append(app.clock.monotonic_ns() / 1e9)
        if where == "factory":
            raise Boom("no such host")
        return [1, 2] if where == "no source" else connection()

    @app.task(Stream(factory))
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("1h")
        gaps = [b - a for a, b in itertools.pairwise(opened)]
        failed = told(world, "failed")
        one = await view(app)
    if where == "closing":  # each start gives an item first, so the pauses begin small again
        assert all(0.5 <= gap <= 1 for gap in gaps)
        return
    assert all(min(60, 2**n) / 2 <= gap <= min(60, 2**n) for n, gap in enumerate(gaps))
    assert 60 <= len(opened) <= 140
    assert len(failed) == one.failures == len(opened)
    assert all(event.reason and event.pause_s for event in failed)


async def test_pauses_begin_small_again_after_an_item() -> None:
    """A connection that breaks once a day is back within a second."""
    app = Quarterjack()
    starts = 0

    async def source() -> AsyncIterator[int]:
        nonlocal starts
        starts += 1
        if starts >= 5:
            yield starts
        raise Boom

    @app.task(Stream(source))
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("20s")
        pauses = [event.pause_s or 0.0 for event in told(world, "failed")]
    assert max(pauses[:4]) >= 4
    assert all(pause <= 1 for pause in pauses[4:])
    assert len(world.jobs(handle)) == len(pauses) - 4


async def test_a_context_manager_that_swallows_the_failure_does_not_pass_for_an_end() -> None:
    """`suppress` around a client would else end the stream in silence."""
    app = Quarterjack()

    class Lenient:
        async def __aenter__(self) -> AsyncIterator[int]:
            return self.items()

        async def __aexit__(self, *_: object) -> bool:
            return True

        async def items(self) -> AsyncIterator[int]:
            yield 1
            raise Boom

    @app.task(Stream(Lenient))
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("10s")
        assert len(told(world, "failed")) >= 5
        assert told(world, "ended") == []


async def test_an_ended_source_is_left_at_that_or_opened_again() -> None:
    """A file ends for good; a listing of a folder is worth another look."""
    app = Quarterjack()

    @app.task(Stream(numbers(2)), id="once")
    @app.task(Stream(numbers(2), restart=timedelta(seconds=30)), id="again")
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("65s")
        again, once = await app.streams()
        assert (once.stored, once.state, once.is_open) == (2, "ended", False)
        assert (again.stored, again.state, again.is_open) == (6, "pausing", True)
        assert again.failures == 0
        assert {event.pause_s for event in told(world, "ended")} == {None, 30}


async def test_a_source_may_end_the_app_as_a_body_may() -> None:
    """SystemExit is the documented way to end an app from the inside."""
    app = Quarterjack()

    async def source() -> AsyncIterator[int]:
        yield 1
        raise SystemExit(3)

    @app.task(Stream(source))
    async def handle(item: int) -> None: ...

    async def serve() -> object:
        try:
            await app.serve()
        except SystemExit as end:
            return end.code
        return None

    assert await asyncio.wait_for(asyncio.ensure_future(serve()), 5) == 3


# ---------------------------------------------------------------- the end of the app


@pytest.mark.parametrize("state", ["waiting", "full", "pausing", "opening"])
async def test_a_stop_ends_what_waits_at_once_and_closes_the_source(state: str) -> None:
    """Nobody waits out a grace for an item that may never come."""
    app = Quarterjack(shutdown_grace=30)
    closed: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            if state == "full":
                yield 1
            if state == "pausing":
                raise Boom
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            closed.append("source")

    async def slow() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(3600)
        finally:
            closed.append("opening")
        return source()

    @app.task(Stream(slow if state == "opening" else source, max_waiting=1))
    async def handle(item: int) -> None:
        await asyncio.sleep(2)

    async with virtual_time(app, start=START) as world:
        await world.run_for(0.1)
        assert (await view(app)).state == state
        began_ns = world.clock.monotonic_ns()
    assert closed == (["opening"] if state == "opening" else ["source"])
    assert (world.clock.monotonic_ns() - began_ns) / 1e9 <= 3
    assert [task.get_name() for task in asyncio.all_tasks() if "stream" in task.get_name()] == []


async def test_no_item_is_taken_after_the_stop_and_the_one_in_hand_is_stored() -> None:
    """Stop comes while the store is slow: that item is stored and acknowledged, and no other is asked for."""
    app, log = Quarterjack(shutdown_grace=30), list[str]()

    async def source() -> AsyncIterator[int]:
        for number in range(5):
            log.append(f"gave {number}")
            yield number

    @app.task(Stream(source, ack=lambda item: log.append(f"ack {item}")))
    async def handle(item: int) -> None: ...

    with faults(app.store) as broken:
        broken.delay_next("jobs_put", 5.0)
        async with virtual_time(app, start=START) as world:
            await world.run_for("1s")
            assert log == ["gave 0"]
        assert [job.state for job in world.jobs(handle)] == [JobState.CANCELLED]  # memory ends with the app
    assert log == ["gave 0", "ack 0"]


async def test_no_item_is_asked_for_once_a_signal_has_come() -> None:
    """A signal counts from its arrival, though the drain begins some turns later."""
    app = Quarterjack()

    @app.task(Stream(numbers(1_000, every=1.0)))
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("3s")
        app._running().stop_beginning()  # what the handler of a signal calls
        await world.run_for("10s")
        one = await view(app)
    assert (one.taken, one.state) == (4, "stopped")  # the one that was asked for already is stored


async def test_an_item_that_the_store_never_takes_is_told_at_the_end_and_not_acknowledged() -> None:
    """The broker has it still, and gives it to the next process."""
    app, acked = Quarterjack(shutdown_grace=10), list[int]()
    told_of: list[StreamEvent] = []

    @app.task(Stream(numbers(1), ack=acked.append))
    async def handle(item: int) -> None: ...

    app.event_stream.listen(lambda event: told_of.append(event) if isinstance(event, StreamEvent) else None)
    with faults(app.store) as broken:
        broken.fail_next("jobs_put", times=1_000)
        async with virtual_time(app, start=START) as world:
            await world.run_for("1s")
            began_ns = world.clock.monotonic_ns()
    assert acked == []
    assert told_of[-1].kind == "refused"
    assert "the app ended" in (told_of[-1].reason or "")
    assert 10 <= (world.clock.monotonic_ns() - began_ns) / 1e9 <= 12


async def test_a_source_that_does_not_close_gets_the_grace_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A client that hangs in its clean-up must not hang the deploy."""
    app = Quarterjack(shutdown_grace=3)
    ended = asyncio.Event()

    async def hangs() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

    @app.task(Stream(hangs))
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.settle()
        began_ns = world.clock.monotonic_ns()
    assert ended.is_set()
    assert 3 <= (world.clock.monotonic_ns() - began_ns) / 1e9 <= 9
    assert "stream handle does not end and is cancelled" in caplog.text


async def test_the_app_starts_anew_with_its_streams() -> None:
    """An app that was stopped can be started again, and opens its sources again."""
    app = Quarterjack()
    seen: list[int] = []

    @app.task(Stream(numbers(2)))
    async def handle(item: int) -> None:
        seen.append(item)

    for _ in range(2):
        async with virtual_time(app, start=START) as world:
            await world.settle()
    assert seen == [0, 1, 0, 1]


async def test_a_source_that_fails_does_not_fail_the_start() -> None:
    """Unlike a start-up hook: the broker may come up after us."""
    app = Quarterjack()
    ran: list[int] = []

    def factory() -> AsyncIterator[int]:
        raise Boom

    @app.task(Stream(factory))
    async def handle(item: int) -> None: ...

    @app.task(Every(seconds=1))
    async def beat() -> None:
        ran.append(1)

    async with virtual_time(app, start=START) as world:
        await world.run_for("3s")
    assert len(ran) == 3


async def test_somebody_who_cancels_the_consumer_ends_the_app() -> None:
    """A stream that has died in silence would look like a queue that is empty."""
    app = Quarterjack()

    @app.task(Stream(waits))
    async def handle(item: int) -> None: ...

    async def host() -> None:
        async with app:
            await asyncio.sleep(0)
            next(task for task in asyncio.all_tasks() if "stream" in task.get_name()).cancel()
            await asyncio.sleep(5)

    with pytest.raises(RuntimeError, match="somebody cancelled quarterjack-stream handle"):
        await host()


@pytest.mark.parametrize(("role", "state"), [("scheduler", "full"), ("worker", "elsewhere"), ("client", "elsewhere")])
async def test_items_are_taken_where_schedules_fire(role: Role, state: str) -> None:
    """Processes that only run jobs, or only submit them, connect to no broker."""
    app = Quarterjack(role=role)

    @app.task(Stream(numbers(5), max_waiting=2))
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.settle()
        one = await view(app)
    assert (one.state, one.stored) == (state, 2 if role == "scheduler" else 0)


# ---------------------------------------------------------------- what it is not


def test_it_has_no_fire_times() -> None:
    """Whoever asks for them is told why."""
    now = Quarterjack().clock.now()
    stream = Stream(waits)
    for ask in (
        lambda: stream.next(now),
        lambda: stream.prev(now),
        lambda: stream.count(now, now + timedelta(1)),
        lambda: stream.preview(after=now),
    ):
        with pytest.raises(NotPeriodic, match="it runs when an item comes"):
            ask()
    with pytest.raises(NotPeriodic):
        ticks(stream)
    with pytest.raises(InvalidTrigger, match="cannot be written as JSON"):
        stream.to_json()
    assert stream.explain() == "one job for each item of waits, at most 100 unfinished"
    assert Stream(waits, restart=90).explain().endswith("unfinished; when it ends, again 90 seconds later")
    assert repr(Stream(waits, max_waiting=5)) == "Stream(waits, max_waiting=5)"
    assert Stream(waits) == Stream(waits) != Stream(waits, max_waiting=5)


@pytest.mark.parametrize(
    "combine",
    [
        lambda stream: stream | Every(hours=1),
        lambda stream: Every(hours=1) | stream,
        lambda stream: stream & Weekdays("mon-fri"),
        lambda stream: stream - Weekdays("sun"),
    ],
)
def test_it_cannot_be_combined(combine: Callable[[Stream], object]) -> None:
    """There is nothing that a filter could keep or a union could merge."""
    with pytest.raises(InvalidTrigger, match="cannot be combined"):
        combine(Stream(waits))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stream([1, 2]), r"factory must be a function"),  # type: ignore[arg-type]  # wrong on purpose
        (Stream, r"Stream needs factory"),
        (lambda: Stream(lambda broker: waits()), r"called without arguments"),  # type: ignore[arg-type,misc]  # likewise
        (lambda: Stream(lambda: (yield)), r"plain generator"),  # type: ignore[arg-type,misc]  # likewise
        (lambda: Stream(waits, ack=1), r"ack|called with one argument"),  # type: ignore[arg-type]  # likewise
        (lambda: Stream(waits, reject=lambda item: None), r"two arguments"),  # type: ignore[arg-type,misc]
        (lambda: Stream(waits, max_waiting=0), r"max_waiting must be a whole number from 1"),
        (lambda: Stream(waits, restart=0), r"restart must be 0\.001 or more"),
        (lambda: Stream(waits, max_wating=1), r"did you mean 'max_waiting'"),  # type: ignore[call-arg]  # likewise
    ],
)
def test_wrong_streams_are_refused_where_they_are_written(make: Callable[[], object], message: str) -> None:
    """Each message says what to write instead."""
    with pytest.raises(InvalidTrigger, match=message):
        make()


def test_the_call_of_a_generator_function_is_told_to_be_the_function() -> None:
    """The likeliest slip; the generator could be used once only."""
    made = waits()
    with pytest.raises(InvalidTrigger, match=r"write Stream\(waits\), not Stream\(waits\(\)\)"):
        Stream(made)  # type: ignore[arg-type]  # wrong on purpose


def test_tasks_and_policies_that_do_not_fit_are_refused_on_the_users_line() -> None:
    """A stream passes one item and has no fire times."""
    app = Quarterjack()

    with pytest.raises(InvalidOption, match="passes one argument, the item"):

        @app.task(Stream(waits))
        async def takes_nothing() -> None: ...

    with pytest.raises(InvalidOption, match="missed, overlap has no meaning"):

        @app.task(Stream(waits), overlap="skip", missed="all")
        async def handle(item: int) -> None: ...


async def test_ids_are_shared_with_schedules() -> None:
    """One name, one thing: in `qj ls`, in the log, in what is asked of it."""
    app = Quarterjack()

    @app.task(Every(hours=1), id="orders")
    async def hourly() -> None: ...

    @app.task(Stream(waits), id="orders")
    async def handle(item: int) -> None: ...

    with pytest.raises(DuplicateName, match="'orders'"):
        await app.__aenter__()


async def test_control_that_has_no_meaning_is_refused_clearly() -> None:
    """No row stands behind a stream: a pause could hold in one process only, and till its end."""
    app = Quarterjack()

    @app.task(Stream(waits))
    async def handle(item: int) -> None: ...

    @app.task
    async def plain() -> None: ...

    async with app:
        for ask in (
            app.pause("handle"),
            app.resume("handle"),
            app.trigger_now("handle"),
            app.unschedule("handle"),
            app.why("handle"),
            app.update_schedule("handle", priority=1),
        ):
            with pytest.raises(UnknownSchedule, match="is a stream, no schedule"):
                await ask
        assert await app.schedules() == []
        with pytest.raises(InvalidOption, match=r"declare it with @app\.task"):
            await app.schedule(plain, Stream(waits))
        with pytest.raises(DuplicateName, match="the id of a stream"):
            await app.schedule(plain, Every(hours=1), id="handle")


class HandsOver:
    """A source that gives each item by a future, as clients do whose callbacks come from a connection."""

    def __init__(self) -> None:
        self.item: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def __aiter__(self) -> HandsOver:
        return self

    async def __anext__(self) -> int:
        self.item = asyncio.get_running_loop().create_future()
        return await self.item


async def test_item_that_is_handed_over_in_the_turn_of_the_stop_is_stored() -> None:
    """The bug: the stop cancelled who waited for it, and the item, which its source had let go of, was lost."""
    source = HandsOver()
    app = Quarterjack()

    @app.task(Stream(lambda: source), name="handle")
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.settle()
        source.item.set_result(7)
    assert len(world.jobs("handle")) == 1
    assert source.item.done()


# ---------------------------------------------------------------- its task's flow


def app_with_flow(
    overflow: Overflow, items: Callable[[], AsyncIterator[int]], refused: list[int], role: Role = "both"
) -> Quarterjack:
    """Return an app that runs one job at a time, and lets two wait."""
    app = Quarterjack(shutdown_grace=60, role=role)

    def reject(item: int, why: Exception) -> None:
        assert isinstance(why, QueueFull)
        refused.append(item)

    @app.task(
        Stream(items, reject=reject), name="handle", flow=Flow(ConcurrencyLimit(1), max_queue=2, overflow=overflow)
    )
    async def handle(item: int) -> None:
        await asyncio.sleep(10)

    return app


async def test_item_waits_for_room_in_its_flow() -> None:
    """A flow bounds what waits, whoever brings it: the broker keeps the rest."""
    refused: list[int] = []
    async with virtual_time(app_with_flow("block", numbers(10), refused), start=START) as world:
        await world.run_for(5)
        assert (await view(world.app)).taken == 4  # one runs, two wait, one is in hand
        assert len(world.jobs("handle")) == 3
        await world.run_for(10)
        assert len(world.jobs("handle")) == 4
        await world.run_for(100)
        assert world.outcomes("handle") == ["done"] * 10
        assert not refused


async def test_item_for_which_its_flow_has_no_room_is_refused_or_takes_the_place_of_the_oldest() -> None:
    """As the flow says: ``overflow=`` means the same for every job."""
    refused: list[int] = []
    async with virtual_time(app_with_flow("reject", numbers(10, every=1), refused), start=START) as world:
        await world.run_for(9.5)
        assert refused == [3, 4, 5, 6, 7, 8]
        assert (await view(world.app)).refused == 6
    async with virtual_time(app_with_flow("drop_oldest", numbers(10, every=1), refused), start=START) as world:
        await world.run_for(9.5)
        assert world.outcomes("handle").count("cancelled") == 6
    assert len(refused) == 6


@pytest.mark.parametrize("role", ["both", "scheduler"])
async def test_stop_does_not_wait_for_room_in_a_flow(role: Role) -> None:
    """Where other processes run the jobs nobody here makes room: the item in hand is stored without, and at once."""
    app = app_with_flow("block", numbers(10), [], role)
    async with virtual_time(app, start=START) as world:
        await world.run_for(5)
        stored, began = (await view(app)).stored, world.clock.monotonic_ns()
    assert (world.clock.monotonic_ns() - began) / 1e9 < 10
    assert len(world.jobs("handle")) == stored + 1


async def test_item_that_no_gate_can_let_through_is_refused() -> None:
    """It is refused before it is stored: nobody could ever run it."""
    app = Quarterjack()

    @app.task(Stream(numbers(2)), flow=Flow(ConcurrencyLimit(1, by="tenant")))
    async def handle(item: int) -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.settle()
        found = await view(app)
        assert (found.stored, found.refused) == (0, 2)
