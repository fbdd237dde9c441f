"""Bodies in threads: the pool, its zombies, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import quarterjack
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import ExecutorFull
from quarterjack.executors import Home, ThreadExecutor
from quarterjack.executors._away import Desk
from quarterjack.model import OutcomeKind
from quarterjack.testing._loop import virtual_loop
from tests.unit.executors.kit import FakeCall, Listener, all_free, on_each_loop, outcome_of, started


def name_of_thread() -> str:
    return threading.current_thread().name


class Gate:
    """A plain body that stays in its thread until it is let go."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.let_go = threading.Event()

    def body(self) -> str:
        self.inside.set()
        self.let_go.wait()
        return name_of_thread()


async def ended(*names: str) -> None:
    while any(thread.name in names for thread in threading.enumerate()):
        await asyncio.sleep(0.001)


def test_the_default_is_a_few_threads_per_processor() -> None:
    """Bodies in threads mostly wait, but a hundred of them would fight over one interpreter."""
    assert ThreadExecutor().slots == min(32, len(os.sched_getaffinity(0)) + 4)


@on_each_loop
async def test_threads_are_named_started_when_needed_and_reused_last_in_first_out() -> None:
    """A stack of idle threads keeps few warm, and a name in a log says whose thread it is."""
    executor = ThreadExecutor(3, name="mail")
    async with started(executor):
        assert not any(thread.name.startswith("qj-mail") for thread in threading.enumerate())
        assert {(await outcome_of(executor, name_of_thread)).result for _ in range(20)} == {"qj-mail-1"}
        gates = [Gate() for _ in range(3)]
        listeners = [Listener() for _ in gates]
        for gate, listener in zip(gates, listeners, strict=True):
            executor.submit(FakeCall(gate.body), listener)
        for gate, listener in zip(gates, listeners, strict=True):  # they become idle in this order
            gate.let_go.set()
            await listener.end()
        assert [listener.outcome.result for listener in listeners if listener.outcome] == [
            "qj-mail-1",
            "qj-mail-2",
            "qj-mail-3",
        ]
        assert (await outcome_of(executor, name_of_thread)).result == "qj-mail-3"
    assert not any(thread.name.startswith("qj-mail") for thread in threading.enumerate())


@on_each_loop
async def test_a_plain_function_that_is_cancelled_is_reported_at_once_and_counted_as_a_zombie() -> None:
    """A thread cannot be stopped, so its job must not wait for it, and its slot must."""
    gate, listener = Gate(), Listener()
    executor = ThreadExecutor(2)
    async with started(executor):
        handle = executor.submit(FakeCall(gate.body), listener)
        gate.inside.wait()
        handle.cancel("stop")  # its `began` is still on its way
        assert listener.log == ["began", "finished"]
        assert listener.outcome is not None
        assert listener.outcome[:5] == (OutcomeKind.CANCELLED, None, None, "stop", False)
        assert (executor.zombies, executor.free) == (1, 1)
        gate.let_go.set()
        await listener.has_ended.wait()
        assert (executor.zombies, executor.free) == (0, 2)
    listener.check()


@on_each_loop
async def test_a_plain_function_that_takes_too_long_is_timed_out_while_it_runs() -> None:
    """The caller hears of the timeout at its time, not when the thread happens to come back."""
    gate, listener = Gate(), Listener()
    executor = ThreadExecutor(1)
    async with started(executor):
        executor.submit(FakeCall(gate.body, timeout_s=0.02), listener)
        outcome = await listener.end()
        assert (outcome.kind, outcome.stopped, executor.zombies) == (OutcomeKind.TIMED_OUT, False, 1)
        with pytest.raises(ExecutorFull):
            executor.submit(FakeCall(name_of_thread), Listener())
        gate.let_go.set()
        await listener.has_ended.wait()
    listener.check()


@on_each_loop
async def test_a_call_cancelled_before_its_thread_takes_it_never_begins() -> None:
    """It is withdrawn, its slot is free at once, and the thread goes on to the next call."""
    executor = ThreadExecutor(1)
    async with started(executor):
        await outcome_of(executor, name_of_thread)
        thread = executor._idle[0]
        gate = Gate()
        thread.inbox.put(_plug(executor, gate))  # the thread is busy, though the executor does not know
        gate.inside.wait()
        ran: list[int] = []
        withdrawn, listener = Listener(), Listener()
        executor.submit(FakeCall(ran.append, 1), withdrawn).cancel("never mind")
        assert withdrawn.log == ["finished"]
        assert withdrawn.outcome is not None
        assert (withdrawn.outcome.kind, withdrawn.outcome.stopped) == (OutcomeKind.CANCELLED, True)
        assert executor.free == 1
        executor.submit(FakeCall(ran.append, 2), listener)
        gate.let_go.set()
        await listener.end()
    assert ran == [2]


def _plug(executor: ThreadExecutor, gate: Gate) -> Any:
    class Plug:
        def run(self) -> None:
            gate.body()

    return Plug()


@on_each_loop
async def test_the_stamp_of_the_begin_is_the_bodys_not_the_loops() -> None:
    """A loop that is busy must not make a body look late, or give it more time than its timeout."""
    at: list[int] = []
    gate, listener = Gate(), Listener()

    def body() -> None:
        at.append(SYSTEM_CLOCK.monotonic_ns())
        gate.inside.set()

    async with started(ThreadExecutor(1)) as executor:
        before = SYSTEM_CLOCK.monotonic_ns()
        executor.submit(FakeCall(body), listener)
        gate.inside.wait()  # the loop stands still
        await listener.end()
    assert listener.began_at_ns is not None
    assert before <= listener.began_at_ns <= at[0]


@on_each_loop
async def test_many_ends_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wake-up costs more than a body's end; a busy loop takes all letters at one visit."""
    visits: list[int] = []
    deliver = Desk._deliver

    def counted(desk: Desk) -> None:
        visits.append(len(desk._letters))
        deliver(desk)

    monkeypatch.setattr(Desk, "_deliver", counted)
    barrier = threading.Barrier(9)
    listeners = [Listener() for _ in range(8)]
    executor = ThreadExecutor(8)
    async with started(executor):
        for listener in listeners:
            executor.submit(FakeCall(barrier.wait), listener)
        barrier.wait()  # the loop stands still until all have begun …
        while sum(away.outcome is not None for away in executor._desk.out if executor._desk) < 8:  # type: ignore[union-attr]
            time.sleep(0.001)  # … and ended: only then it turns
        for listener in listeners:
            await listener.end()
        assert len(visits) <= 2  # at most one letter was between the outcome and the box
        assert visits[0] >= 23


@on_each_loop
async def test_a_coroutine_has_a_loop_of_its_own_in_its_thread() -> None:
    """Blocking libraries with an asynchronous wrapper work there, and hold up nobody."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def body() -> str:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return name_of_thread()

    async with started(ThreadExecutor(1)) as executor:
        assert (await outcome_of(executor, body)).result == "qj-thread-1"
    assert loops[0] is not asyncio.get_running_loop()
    assert loops[0].is_closed()


@on_each_loop
async def test_a_coroutine_that_stands_in_a_plain_function_is_reported_without_its_grace() -> None:
    """Wrappers make coroutines of plain functions; a loop that cannot hear a cancel has no use for a grace."""
    gate, listener = Gate(), Listener()

    async def wrapped() -> str:
        return gate.body()

    executor = ThreadExecutor(1)
    async with started(executor):
        executor.submit(FakeCall(wrapped, timeout_s=0.01, cancel_grace_s=25.0), listener)
        async with asyncio.timeout(10):
            outcome = await listener.end()
        assert (outcome.kind, outcome.stopped, executor.zombies) == (OutcomeKind.TIMED_OUT, False, 1)
        gate.let_go.set()
        await listener.has_ended.wait()
    listener.check()


@on_each_loop
async def test_a_result_does_not_outlive_its_job_in_an_idle_thread() -> None:
    """A pool must not keep the last thing that each thread made."""

    class Big:
        pass

    async with started(ThreadExecutor(1)) as executor:
        made = weakref.ref((await outcome_of(executor, Big)).result)
        await all_free(executor)
        for _ in range(1_000):
            gc.collect()
            if made() is None:
                break
            await asyncio.sleep(0.001)  # the thread is about to let go of it
        assert made() is None


@on_each_loop
async def test_stop_waits_for_bodies_that_end_in_time() -> None:
    """A plain function at work when the app stops is let finish, and its result counts."""
    gate, listener = Gate(), Listener()
    executor = ThreadExecutor(1)
    await executor.start(Home(SYSTEM_CLOCK))
    executor.submit(FakeCall(gate.body), listener)
    gate.inside.wait()
    asyncio.get_running_loop().call_soon(gate.let_go.set)
    await executor.stop(20.0)
    listener.check()
    assert listener.outcome is not None
    assert listener.outcome.kind is OutcomeKind.DONE


@on_each_loop
async def test_stop_leaves_a_body_that_never_ends_behind_and_says_where(caplog: pytest.LogCaptureFixture) -> None:
    """The app must be able to stop whatever a thread does; the log names the job and the thread."""
    gate, listener = Gate(), Listener()
    call = FakeCall(gate.body)
    executor = ThreadExecutor(2)
    await executor.start(Home(SYSTEM_CLOCK))
    executor.submit(call, listener)
    gate.inside.wait()
    with caplog.at_level(logging.WARNING, "quarterjack"):
        await executor.stop(0.01)
    assert caplog.messages == [f"job {call.ref} still runs in qj-thread-1, which is left behind"]
    listener.check()
    assert listener.outcome is not None
    assert listener.outcome[:5] == (OutcomeKind.CANCELLED, None, None, "shutdown", False)
    left = next(thread for thread in threading.enumerate() if thread.name == "qj-thread-1")
    assert left.daemon
    gate.let_go.set()
    await ended("qj-thread-1")
    await asyncio.sleep(0)
    assert listener.log == ["began", "finished"]  # nobody is told after the stop


@on_each_loop
async def test_a_stop_that_is_cancelled_still_answers_every_call() -> None:
    """A second Ctrl-C cuts the grace short; it must not leave threads that wait for work."""
    gate, listener = Gate(), Listener()
    executor = ThreadExecutor(1)
    await executor.start(Home(SYSTEM_CLOCK))
    executor.submit(FakeCall(gate.body), listener)
    gate.inside.wait()
    stopping = asyncio.create_task(executor.stop(20.0))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    listener.check()
    gate.let_go.set()
    await ended("qj-thread-1")


@on_each_loop
async def test_a_system_without_threads_to_give_is_a_full_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job goes back to the queue, and the app goes on."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    listener = Listener()
    executor = ThreadExecutor(1)
    async with started(executor):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ExecutorFull, match="can't start new thread"):
                executor.submit(FakeCall(name_of_thread), listener)
        assert (listener.log, executor.free) == ([], 1)
        assert (await outcome_of(executor, name_of_thread)).kind is OutcomeKind.DONE


async def test_virtual_time_stands_still_while_a_thread_works() -> None:
    """A test that jumps an hour ahead must not jump over the work that is to be seen in it."""
    with virtual_loop() as clock:
        executor = ThreadExecutor(1)
        async with started(executor, clock):
            listener = Listener()
            begin = clock.monotonic_ns()
            gate = Gate()
            threading.Timer(0.03, gate.let_go.set).start()  # work takes real time
            executor.submit(FakeCall(lambda: (gate.body(), clock.monotonic_ns())[1]), listener)
            await asyncio.sleep(3600)
            assert listener.outcome is not None
            assert listener.outcome.result == begin
            assert clock.monotonic_ns() == begin + 3600 * 10**9


def test_a_body_that_never_ends_does_not_keep_the_interpreter_from_ending() -> None:
    """`concurrent.futures` joins its threads at exit: a program would hang on one stuck call."""
    program = """
import asyncio, threading
from quarterjack.clock import SYSTEM_CLOCK
from tests.unit.executors.kit import *
async def main():
    executor, listener, inside = ThreadExecutor(1), Listener(), threading.Event()
    await executor.start(Home(SYSTEM_CLOCK))
    executor.submit(FakeCall(lambda: (inside.set(), threading.Event().wait())), listener)
    inside.wait()
    await executor.stop(0.01)
    print(listener.outcome.kind)
asyncio.run(main())
"""
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), str(Path(quarterjack.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "cancelled\n"), done.stderr
    assert done.stderr.splitlines() == [line for line in done.stderr.splitlines() if "is left behind" in line]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_letters_arrive_once_and_in_the_order_of_each_thread(counts: list[int]) -> None:
    """Whatever threads post while the loop delivers: nothing is lost, doubled or overtaken."""

    async def main() -> None:
        desk = Desk(asyncio.get_running_loop(), SYSTEM_CLOCK)
        got: list[tuple[int, int]] = []

        def send(sender: int, count: int) -> None:
            for number in range(count):
                desk.post(got.append, (sender, number))

        threads = [threading.Thread(target=send, args=entry) for entry in enumerate(counts)]
        for thread in threads:
            thread.start()
        while len(got) < sum(counts):
            await asyncio.sleep(0)
        for thread in threads:
            thread.join()
        await asyncio.sleep(0)
        assert len(got) == sum(counts)
        for sender, count in enumerate(counts):
            assert [number for who, number in got if who == sender] == list(range(count))

    asyncio.run(main())


async def test_a_letter_that_cannot_be_read_does_not_hold_up_the_next() -> None:
    """A report that raises against its promise must not silence every other job."""
    loop = asyncio.get_running_loop()
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    desk, got = Desk(loop, SYSTEM_CLOCK), asyncio.Event()
    desk.post(int, "no number")
    desk.post(lambda _: got.set(), None)
    await asyncio.wait_for(got.wait(), 10)
    assert isinstance(told[0]["exception"], ValueError)


def test_a_letter_to_a_closed_loop_is_dropped() -> None:
    """A thread may come back long after its app is gone."""
    loop = asyncio.new_event_loop()
    desk = Desk(loop, SYSTEM_CLOCK)
    loop.close()
    desk.post(print, "nobody")
    assert not desk._letters
