"""An event loop of its own: who may use it, what holds it up, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import uvloop

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import ExecutorClosed
from quarterjack.executors import Home, LoopThread
from quarterjack.executors.loop_thread import LoopFactory
from quarterjack.model import OutcomeKind
from tests.unit.executors.kit import FakeCall, Listener, on_each_loop, outcome_of, started

AT_MODULE_LEVEL = LoopThread("early")
OPEN_FILES = Path("/proc/self/fd")

each_inner_loop = pytest.mark.parametrize("factory", [None, uvloop.new_event_loop], ids=["in-asyncio", "in-uvloop"])


async def forever() -> None:
    await asyncio.Event().wait()


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"qj-{name}"]


async def ended(name: str) -> None:
    while threads(name):
        await asyncio.sleep(0.001)


@on_each_loop
async def test_it_is_made_before_any_loop_and_runs_only_while_it_is_used() -> None:
    """It stands at module level, and importing the module must not start a thread."""
    assert not threads("early")
    async with started(AT_MODULE_LEVEL) as executor:
        assert len(threads("early")) == 1
        outcome = await outcome_of(executor, threading.current_thread)
        assert outcome.result is threads("early")[0]
    assert not threads("early")


@each_inner_loop
@on_each_loop
async def test_all_bodies_share_its_loop_and_thread(factory: LoopFactory | None) -> None:
    """Clients bound to a loop can be kept across jobs there."""

    async def where() -> tuple[object, str]:
        await asyncio.sleep(0)
        return asyncio.get_running_loop(), threading.current_thread().name

    async with started(LoopThread("urgent", loop_factory=factory)) as executor:
        places = {(await outcome_of(executor, where)).result for _ in range(5)}
    assert len(places) == 1
    (inner, name), *_ = places
    assert (inner is asyncio.get_running_loop(), name) == (False, "qj-urgent")
    assert isinstance(inner, uvloop.Loop) is (factory is not None)


@each_inner_loop
@on_each_loop
async def test_bodies_go_on_while_the_apps_loop_stands_still(factory: LoopFactory | None) -> None:
    """That is what it is for."""
    steps: list[int] = []
    through = threading.Event()

    async def body() -> None:
        for step in range(5):
            await asyncio.sleep(0.001)
            steps.append(step)
        through.set()

    async with started(LoopThread("urgent", loop_factory=factory)) as executor:
        listener = Listener()
        executor.submit(FakeCall(body), listener)
        assert through.wait(20.0)  # the app's loop is blocked here
        assert (steps, listener.log) == ([0, 1, 2, 3, 4], [])
        await listener.end()
    listener.check()


@on_each_loop
async def test_a_timeout_there_does_not_need_the_apps_loop() -> None:
    """A busy app must not give urgent bodies more time than they have."""
    interrupted = threading.Event()

    async def body() -> None:
        try:
            await forever()
        finally:
            interrupted.set()

    async with started(LoopThread("urgent")) as executor:
        listener = Listener()
        executor.submit(FakeCall(body, timeout_s=0.01), listener)
        assert interrupted.wait(20.0)  # the app's loop is blocked here
        outcome = await listener.end()
    assert (outcome.kind, outcome.stopped) == (OutcomeKind.TIMED_OUT, True)


@on_each_loop
async def test_a_call_cancelled_before_its_first_step_is_withdrawn_at_once() -> None:
    """Even while that loop is held up by a plain function, a waiting call can be taken back."""
    inside, let_go = threading.Event(), threading.Event()
    ran: list[int] = []

    def hold_up() -> None:
        inside.set()
        let_go.wait()

    async with started(LoopThread("urgent")) as executor:
        first, second = Listener(), Listener()
        executor.submit(FakeCall(hold_up), first)
        inside.wait()
        executor.submit(FakeCall(ran.append, 1), second).cancel("never mind")
        assert second.log == ["finished"]
        assert second.outcome is not None
        assert second.outcome[:5] == (OutcomeKind.CANCELLED, None, None, "never mind", True)
        let_go.set()
        await first.end()
        await outcome_of(executor, lambda: None)
    assert ran == []
    first.check()
    second.check()


@pytest.mark.parametrize("by", ["cancel", "timeout"])
@on_each_loop
async def test_a_plain_function_that_holds_up_that_loop_is_reported_from_this_side(by: str) -> None:
    """Its own loop can neither interrupt it nor look at the time."""
    inside, let_go = threading.Event(), threading.Event()

    def hold_up() -> None:
        inside.set()
        let_go.wait()

    async with started(LoopThread("urgent")) as executor:
        listener = Listener()
        timeout_s = 0.01 if by == "timeout" else None
        handle = executor.submit(FakeCall(hold_up, timeout_s=timeout_s, cancel_grace_s=0.01), listener)
        inside.wait()
        if by == "cancel":
            handle.cancel("stop")
        outcome = await listener.end()
        assert not outcome.stopped
        assert outcome.kind is (OutcomeKind.TIMED_OUT if by == "timeout" else OutcomeKind.CANCELLED)
        let_go.set()
        await listener.has_ended.wait()
    listener.check()


@on_each_loop
async def test_two_apps_on_one_loop_share_it_until_the_last_stops() -> None:
    """One app's end must not cancel the other's bodies."""
    executor = LoopThread("shared")
    await executor.start(Home(SYSTEM_CLOCK))
    await executor.start(Home(SYSTEM_CLOCK))
    listener = Listener()
    executor.submit(FakeCall(forever), listener)
    await listener.has_begun.wait()
    await executor.stop(5.0)
    assert (listener.log, len(threads("shared"))) == (["began"], 1)
    assert (await outcome_of(executor, lambda: 1)).result == 1
    await executor.stop(5.0)
    assert not threads("shared")
    listener.check()


@on_each_loop
async def test_apps_on_two_loops_share_its_slots_and_hear_only_of_their_own() -> None:
    """Reports must come on the loop that submitted, whichever stops first."""
    executor = LoopThread("shared", slots=2)
    both, first_left = threading.Barrier(2), threading.Event()
    seen: dict[str, Any] = {}

    async def other_app() -> None:
        await executor.start(Home(SYSTEM_CLOCK))
        listener = Listener()
        executor.submit(FakeCall(forever), listener)
        await listener.has_begun.wait()
        both.wait()
        both.wait()
        await asyncio.to_thread(first_left.wait)
        seen["log"] = listener.log.copy()
        seen["next"] = (await outcome_of(executor, lambda: "goes on")).result
        await executor.stop(5.0)
        listener.check()

    thread = threading.Thread(target=lambda: asyncio.run(other_app()))
    thread.start()
    await executor.start(Home(SYSTEM_CLOCK))
    await asyncio.to_thread(both.wait)
    listener = Listener()
    executor.submit(FakeCall(forever), listener)
    await listener.has_begun.wait()
    assert executor.free == 0
    await asyncio.to_thread(both.wait)
    await executor.stop(5.0)
    listener.check()
    with pytest.raises(ExecutorClosed):
        executor.submit(FakeCall(forever), Listener())
    first_left.set()
    await asyncio.to_thread(thread.join)
    assert seen == {"log": ["began"], "next": "goes on"}
    assert not threads("shared")


def test_an_app_that_died_with_its_loop_is_forgotten() -> None:
    """A crashed app must not keep the thread, or its slots, for ever."""
    executor = LoopThread("crashed", slots=1)
    dead = asyncio.new_event_loop()
    dead.run_until_complete(executor.start(Home(SYSTEM_CLOCK)))
    dead.close()

    async def main() -> None:
        async with started(executor):
            assert (await outcome_of(executor, lambda: 1)).result == 1

    asyncio.run(main())
    assert not threads("crashed")


@each_inner_loop
@on_each_loop
async def test_tasks_that_bodies_left_behind_end_with_the_thread(factory: LoopFactory | None) -> None:
    """A background task of a user's must not outlive the app without a word."""
    ends: list[str] = []
    kept: list[asyncio.Task[None]] = []

    async def background() -> None:
        try:
            await forever()
        finally:
            ends.append("background")

    async def body() -> None:
        kept.append(asyncio.create_task(background()))
        await asyncio.sleep(0)

    async with started(LoopThread("urgent", loop_factory=factory)) as executor:
        await outcome_of(executor, body)
        assert ends == []
    assert ends == ["background"]


@each_inner_loop
@on_each_loop
async def test_starts_and_stops_leave_no_thread_and_no_descriptor(factory: LoopFactory | None) -> None:
    """Reloading servers start and stop apps all day."""
    executor = LoopThread("again", loop_factory=factory)

    async def cycle() -> None:
        async with started(executor):
            await outcome_of(executor, forever, timeout_s=0.001)

    await cycle()
    before = len(list(OPEN_FILES.iterdir()))
    for _ in range(20):
        await cycle()
    assert len(list(OPEN_FILES.iterdir())) == before
    assert not threads("again")


@on_each_loop
async def test_a_thread_that_is_held_up_is_left_behind_and_ends_by_itself(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app stops in bounded time, says what it left, and the thread cleans up when it can."""
    monkeypatch.setattr("quarterjack.executors.loop_thread.WIND_DOWN_S", 0.01)
    monkeypatch.setattr("quarterjack.executors.loop_thread.JOIN_S", 0.01)
    inside, let_go = threading.Event(), threading.Event()

    def hold_up() -> None:
        inside.set()
        let_go.wait()

    executor, listener = LoopThread("stuck"), Listener()
    call = FakeCall(hold_up)
    await executor.start(Home(SYSTEM_CLOCK))
    executor.submit(call, listener)
    inside.wait()
    with caplog.at_level(logging.WARNING, "quarterjack"):
        await executor.stop(0.01)
    assert caplog.messages == [
        f"job {call.ref} still runs in the loop thread 'stuck'",
        "the thread qj-stuck does not end and is left behind",
    ]
    listener.check()
    assert listener.outcome is not None
    assert (listener.outcome.kind, listener.outcome.stopped) == (OutcomeKind.CANCELLED, False)
    assert threads("stuck")[0].daemon
    let_go.set()
    await ended("stuck")
    await asyncio.sleep(0)
    assert listener.log == ["began", "finished"]


@on_each_loop
async def test_a_loop_that_cannot_be_made_fails_the_start_and_nothing_else() -> None:
    """A later start, with the reason gone, must work."""
    tries: list[int] = []

    def factory() -> asyncio.AbstractEventLoop:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no descriptors left")
        return asyncio.new_event_loop()

    executor = LoopThread("unlucky", loop_factory=factory)
    with pytest.raises(OSError, match="no descriptors"):
        await executor.start(Home(SYSTEM_CLOCK))
    async with started(executor):
        assert (await outcome_of(executor, lambda: 1)).result == 1


@on_each_loop
async def test_a_task_factory_that_refuses_is_a_rejected_call() -> None:
    """The call was never begun, and its slot comes back."""

    def factory() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()

        def refuse(loop: asyncio.AbstractEventLoop, coroutine: Any, **_: Any) -> Any:
            if getattr(coroutine, "__name__", "") == "drive":
                coroutine.close()
                raise LookupError("not today")
            return asyncio.Task(coroutine, loop=loop)

        loop.set_task_factory(refuse)
        return loop

    executor = LoopThread("picky", slots=1, loop_factory=factory)
    async with started(executor):
        outcome = await outcome_of(executor, forever)
        assert (outcome.kind, outcome.reason, executor.free) == (OutcomeKind.REJECTED, "not today", 1)
