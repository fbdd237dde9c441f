"""The watchdog: blocks are told while they last, at the user's line, and counted."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import logging
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from quarterjack.clock import SYSTEM_CLOCK, SystemClock
from quarterjack.context import CURRENT
from quarterjack.events import Event, EventStream, LoopBlocked
from quarterjack.executors import Home, LoopExecutor
from quarterjack.runtime import watchdog as module
from quarterjack.runtime._stacks import Sleeping, Stack
from quarterjack.runtime.watchdog import Blocked, Owner, Watchdog
from tests.unit.executors.kit import LOOPS, FakeCall, Listener, on_each_loop

THRESHOLD_S = 0.03


class Records(logging.Handler):
    """Log records, with an event that a blocked loop can wait for."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.all: list[logging.LogRecord] = []
        self._came = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._came:
            self.all.append(record)
            self._came.notify_all()

    def wait_for(self, count: int) -> None:
        """Block this thread, and so its loop, until *count* records have come."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.all) >= count, 20.0)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.all]


@pytest.fixture
def records() -> Iterator[Records]:
    handler = Records()
    logger = logging.getLogger("quarterjack.watchdog")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(before)
    logger.removeHandler(handler)


def nobody(task: asyncio.Task[Any] | None) -> Owner | None:
    del task
    return None


def line_of(function: Any, text: str) -> int:
    lines, start = inspect.getsourcelines(function)
    return next(start + number for number, line in enumerate(lines) if text in line)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


@on_each_loop
async def test_a_block_is_told_while_it_lasts_at_the_users_line(records: Records) -> None:
    """A log line that comes after the block is of no use for a block that does not end."""
    reports: list[Blocked] = []
    watchdog = Watchdog(asyncio.get_running_loop(), THRESHOLD_S, reports.append, lambda _: Owner("crunch", "job-7"))
    watchdog.start()

    def body() -> None:
        records.wait_for(1)  # here it stands, inside the standard library

    await asyncio.sleep(0)
    body()
    assert reports == []  # the loop has not turned
    await until(lambda: reports)
    watchdog.stop()
    here = f"{__file__}:{line_of(Records.wait_for, 'self._came.wait_for(')} in wait_for"
    assert f"at {here}, in task crunch, job job-7; use executor='process' for it if it computes" in records.messages[0]
    assert records.all[0].levelno == logging.WARNING
    (blocked,) = reports
    assert (blocked.where, blocked.task, blocked.job_id) == (here, "crunch", "job-7")
    assert blocked.seconds >= THRESHOLD_S
    assert "in body\n" in blocked.stack
    assert "in wait_for\n" in blocked.stack
    assert (watchdog.blocks, watchdog.blocked_s) == (1, blocked.seconds)


@on_each_loop
async def test_a_long_block_is_told_again_only_when_it_has_doubled(records: Records) -> None:
    """One line for a short block, a handful for an hour's."""
    reports: list[Blocked] = []
    watchdog = Watchdog(asyncio.get_running_loop(), THRESHOLD_S, reports.append, nobody)
    watchdog.start()
    await asyncio.sleep(0)
    records.all.clear()  # a busy machine may have held up the loop by itself, before this block and after it
    records.wait_for(4)
    told = [(float(line.split()[7]), "\n" in line) for line in records.messages[:4]]
    await until(lambda: reports)
    watchdog.stop()
    assert all(later >= 1.99 * earlier for (earlier, _), (later, _) in itertools.pairwise(told))
    assert watchdog.blocks == len(reports)
    assert max(blocked.seconds for blocked in reports) >= told[-1][0] - 0.001
    assert "in code that is no job's" in records.messages[0]
    stacks = [has_stack for _, has_stack in told]
    assert stacks[0]
    assert not any(stacks[1:]), "the stack of one place is shown once"


@on_each_loop
async def test_two_blocks_are_two(records: Records) -> None:
    """Counts and seconds add up over the app's life."""
    reports: list[Blocked] = []
    watchdog = Watchdog(asyncio.get_running_loop(), THRESHOLD_S, reports.append, nobody)
    watchdog.start()
    for number in (1, 2):
        count = len(records.all)
        records.wait_for(count + 1)
        await until(lambda number=number: len(reports) == number)
    watchdog.stop()
    assert watchdog.blocks == 2
    assert watchdog.blocked_s == sum(blocked.seconds for blocked in reports)


@on_each_loop
async def test_a_place_that_blocks_again_is_told_without_its_stack(records: Records) -> None:
    """A schedule's body blocks at each run, and people have read its stack."""
    watchdog = Watchdog(asyncio.get_running_loop(), THRESHOLD_S, lambda _: None, nobody)
    watchdog.start()
    for number in (1, 2):
        records.wait_for(2 * number - 1)
        await until(lambda number=number: len(records.all) == 2 * number)
    watchdog.stop()
    first, _, second, _ = records.messages
    assert first.partition("\n")[0].rpartition(" at ")[2] == second.rpartition(" at ")[2]
    assert ("\n" in first, "\n" in second) == (True, False)


async def test_a_block_in_a_job_counts_from_the_beginning_of_its_body(records: Records) -> None:
    """The watchdog looks only now and then; what it tells should be what the job's own line tells."""
    reports: list[Blocked] = []
    began_ns: list[int] = []
    watchdog = Watchdog(
        asyncio.get_running_loop(), THRESHOLD_S, reports.append, lambda _: Owner("crunch", "job-7", *began_ns)
    )
    watchdog.start()
    await asyncio.sleep(0.4)  # it has seen the loop sleep
    began_ns.append(SYSTEM_CLOCK.monotonic_ns())
    records.wait_for(1)
    lasted_s = (SYSTEM_CLOCK.monotonic_ns() - began_ns[0]) / 1e9
    await until(lambda: reports)
    watchdog.stop()
    assert reports[0].seconds >= lasted_s
    assert float(records.messages[0].split()[7]) >= lasted_s - 0.025


async def test_a_body_that_began_before_the_loop_last_slept_lends_no_beginning(records: Records) -> None:
    """It has waited in between, and the loop with it."""
    began_ns = SYSTEM_CLOCK.monotonic_ns()
    watchdog = Watchdog(
        asyncio.get_running_loop(), THRESHOLD_S, lambda _: None, lambda _: Owner("crunch", "job-7", began_ns)
    )
    watchdog.start()
    await asyncio.sleep(0.5)
    records.wait_for(1)
    watchdog.stop()
    assert float(records.messages[0].split()[7]) < 0.4


@on_each_loop
async def test_reports_come_on_the_loop_outside_every_context(records: Records) -> None:
    """They go to the app's event stream, which belongs to its loop."""
    places: list[tuple[int, object]] = []
    mark: Any = object()
    token = CURRENT.set(mark)
    watchdog = Watchdog(
        asyncio.get_running_loop(),
        THRESHOLD_S,
        lambda _: places.append((threading.get_ident(), CURRENT.get())),
        nobody,
    )
    watchdog.start()
    await asyncio.sleep(0)
    records.wait_for(1)
    await until(lambda: places)
    watchdog.stop()
    CURRENT.reset(token)
    assert places == [(threading.get_ident(), None)]


@on_each_loop
async def test_a_sleeping_loop_is_recognised_and_never_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle app must not pay for its watchdog: looking costs its thread alone, a beat costs the loop too."""
    beats: list[int] = []
    looks = threading.Semaphore(0)
    verdicts: list[bool] = []
    is_so = Sleeping.is_so

    def counted(self: Sleeping, frame: Any) -> bool:
        verdicts.append(is_so(self, frame))
        looks.release()
        return verdicts[-1]

    monkeypatch.setattr(module, "SHORTEST_PERIOD_S", 0.002)
    monkeypatch.setattr(Sleeping, "is_so", counted)
    loop = asyncio.get_running_loop()
    watchdog = Watchdog(loop, 0.002, lambda _: None, nobody)
    post = watchdog._post

    def counted_post(since_ns: int) -> bool:
        beats.append(since_ns)
        return post(since_ns)

    monkeypatch.setattr(watchdog, "_post", counted_post)
    watchdog.start()
    woken = asyncio.Event()
    await asyncio.sleep(0.01)
    beats.clear()
    verdicts.clear()

    def watch_the_watchdog() -> None:
        for _ in range(50):
            looks.acquire()
        loop.call_soon_threadsafe(woken.set)

    thread = threading.Thread(target=watch_the_watchdog)
    thread.start()
    await woken.wait()
    watchdog.stop()
    thread.join()
    # A thread that is woken late sends a beat to be sure; on a machine at work that happens now and then.
    # Were a sleeping loop not recognised, there would be a beat for every look.
    assert verdicts.count(True) >= 25
    assert len(beats) <= 40


@on_each_loop
async def test_a_loop_in_a_body_does_not_pass_for_asleep() -> None:
    """Not even when the body waits in a selector of its own, as subprocess does."""
    sleeping = Sleeping()
    loop_thread = threading.get_ident()
    learnt = asyncio.Event()

    def learn() -> None:
        sleeping.learn(sys._getframe(1))
        learnt.set()

    asyncio.get_running_loop().call_soon(learn)
    await learnt.wait()
    verdicts: list[bool] = []
    here, there = socket.socketpair()

    def look() -> None:
        while (frame := sys._current_frames()[loop_thread]).f_code.co_name != "select":
            time.sleep(0.001)
        verdicts.append(sleeping.is_so(frame))
        there.send(b".")

    with here, there, selectors.DefaultSelector() as selector:
        selector.register(here, selectors.EVENT_READ)
        thread = threading.Thread(target=look)
        thread.start()
        selector.select(20.0)
        thread.join()
    assert verdicts == [False]


@on_each_loop
async def test_a_block_that_nobody_could_see_is_still_counted(records: Records) -> None:
    """C code that holds the interpreter stops the watchdog too: it is late itself, and knows by how much."""

    class Jumping(SystemClock):
        ahead_ns = 0

        def monotonic_ns(self) -> int:
            return SYSTEM_CLOCK.monotonic_ns() + self.ahead_ns

    clock, reports = Jumping(), list[Blocked]()
    watchdog = Watchdog(asyncio.get_running_loop(), 0.05, reports.append, nobody, clock)
    watchdog.start()
    await asyncio.sleep(0)
    clock.ahead_ns = 5 * 10**9  # five seconds in which no thread ran
    await until(lambda: reports)
    watchdog.stop()
    assert reports[0].seconds == pytest.approx(4.9, abs=0.2)
    assert watchdog.blocks == 1
    # Whether the loop is seen at a line depends on where it woke; the block is told either way.
    assert any("stood still for 4." in message or "stood still for 5." in message for message in records.messages)


@on_each_loop
async def test_start_and_stop_leave_nothing_behind() -> None:
    """Apps come and go within one process."""
    loop = asyncio.get_running_loop()
    for _ in range(20):
        watchdog = Watchdog(loop, 10.0, lambda _: None, nobody)
        watchdog.start()
        watchdog.stop()
        watchdog.stop()
        assert not watchdog._thread.is_alive()


@on_each_loop
async def test_it_can_be_stopped_in_the_middle_of_a_block(records: Records) -> None:
    """What is reported after the stop has no stream to go to."""
    reports: list[Blocked] = []
    watchdog = Watchdog(asyncio.get_running_loop(), THRESHOLD_S, reports.append, nobody)
    watchdog.start()
    await asyncio.sleep(0)
    records.wait_for(1)
    watchdog.stop()
    assert not watchdog._thread.is_alive()
    for _ in range(3):
        await asyncio.sleep(0)
    assert reports == []


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_it_survives_a_loop_that_is_closed_or_not_running(
    kind: str, monkeypatch: pytest.MonkeyPatch, records: Records
) -> None:
    """Nobody turns a loop that is not run: that is no block, and a closed one ends the thread."""
    monkeypatch.setattr(module, "SHORTEST_PERIOD_S", 0.002)
    loop = LOOPS[kind]()
    watchdog = Watchdog(loop, 0.002, lambda _: pytest.fail("no block"), nobody)

    async def start() -> None:
        watchdog.start()
        await asyncio.sleep(0.01)

    loop.run_until_complete(start())
    records.all.clear()  # a machine at work may have held us up until here
    time.sleep(0.03)  # the loop stands, as nobody runs it
    loop.close()
    watchdog._thread.join(10.0)
    assert not watchdog._thread.is_alive()
    watchdog.stop()
    assert records.messages == []


class FakeService:
    """As much of a running app as the watchdog asks for."""

    def __init__(self, executor: LoopExecutor) -> None:
        self.loop = asyncio.get_running_loop()
        self.events = EventStream()
        self.clock = SYSTEM_CLOCK
        self.executor = executor
        self.calls: list[Any] = []

    @property
    def worker(self) -> Any:
        return SimpleNamespace(attempts=lambda: self.calls)


@on_each_loop
async def test_a_running_app_is_told_which_job_blocks_it(records: Records) -> None:
    """The event names the job, so that a dashboard can."""
    executor = LoopExecutor(2)
    await executor.start(Home(SYSTEM_CLOCK))
    service = FakeService(executor)
    events: list[Event] = []
    service.events.listen(events.append)

    async def body() -> None:
        await asyncio.sleep(0)
        records.wait_for(1)

    call, listener = FakeCall(body), Listener()
    record = SimpleNamespace(task="crunch", id=call.job_id)
    service.calls = [SimpleNamespace(job_id=call.job_id, record=record)]
    call.context.run(CURRENT.set, service.calls[0])
    watchdog = Watchdog.start_for(service, THRESHOLD_S)
    executor.submit(call, listener)
    await listener.end()
    await until(lambda: events)
    watchdog.stop()
    await executor.stop(5.0)
    (event,) = events
    assert isinstance(event, LoopBlocked)
    assert (event.task, event.job_id) == ("crunch", call.job_id)
    assert event.where.startswith(f"{__file__}:")
    assert event.seconds >= THRESHOLD_S
    assert "in body" in event.stack
    assert "loop.py" not in event.stack, "the stack begins with the user's own frame"
    assert records.all[0].__dict__["job"] == call.job_id


def test_the_users_line_is_the_innermost_outside_ours_and_the_standard_library() -> None:
    """`time.sleep` deep in a library is not where the user can change something."""
    stacks: list[Stack] = []

    class Hook(dict[str, int]):
        def __iter__(self) -> Iterator[str]:
            return super().__iter__()

        def items(self) -> Any:
            stacks.append(Stack(sys._getframe()))
            stacks.append(Stack(sys._getframe(1)))
            return super().items()

    json.JSONEncoder(indent=1).encode(Hook(a=1))  # the encoder written in Python calls back
    mine, librarys = stacks
    assert mine.where() == f"{__file__}:{line_of(Hook, 'sys._getframe()))')} in items"
    assert librarys.where().startswith(f"{__file__}:")
    assert "encoder.py" in librarys.text()
    assert librarys.where().endswith("in test_the_users_line_is_the_innermost_outside_ours_and_the_standard_library")


def test_a_stack_without_a_line_of_the_users_shows_where_it_stands() -> None:
    """A task may be a library's own function."""
    frames: list[Stack] = []
    thread = threading.Thread(target=threading.Event().wait, args=(0.05,))
    thread.start()
    while not frames and thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        if frame is not None and frame.f_code.co_name == "wait":
            frames.append(Stack(frame))
    thread.join()
    assert "threading.py:" in frames[0].where()
