"""What every in-process executor promises, in every place and on every loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import Context, ContextVar
from random import Random
from typing import Any

import pytest

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import ExecutorClosed, ExecutorFull, InvalidOption
from quarterjack.executors import CommandExecutor, Executor, Home, LoopThread, ProcessExecutor, ThreadExecutor
from quarterjack.executors._away import Away
from quarterjack.model import OutcomeKind
from tests.unit.executors.kit import (
    PLACES,
    FakeCall,
    Listener,
    all_free,
    in_each_place,
    on_each_loop,
    outcome_of,
    started,
)

COLOUR: ContextVar[str] = ContextVar("colour", default="none")


async def forever() -> None:
    await asyncio.Event().wait()


async def swallow() -> str:
    try:
        await forever()
    except asyncio.CancelledError:
        return "I stay"
    return "never"


class Stubborn:
    """A coroutine that ignores every cancel until it is let go."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.let_go = threading.Event()

    async def body(self) -> str:
        self.inside.set()
        while not self.let_go.is_set():
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                continue
        return "at last"

    async def begin(self) -> None:
        """Wait until a cancel would find the body inside."""
        while not self.inside.is_set():
            await asyncio.sleep(0)


@in_each_place
@on_each_loop
async def test_a_thousand_calls_each_begin_and_finish_once(place: str) -> None:
    """The runtime counts on one `finished` per call, and on its slot coming back."""

    async def double(n: int) -> int:
        if n % 3 == 0:
            await asyncio.sleep(0)
        return 2 * n

    def triple(n: int) -> int:
        return 3 * n

    listeners: list[Listener] = []
    async with started(PLACES[place](16)) as executor:
        for n in range(1_000):
            while executor.free <= 0:
                await asyncio.sleep(0)
            listeners.append(Listener())
            executor.submit(FakeCall(triple if n % 2 else double, n), listeners[-1])
        for n, listener in enumerate(listeners):
            outcome = await listener.end()
            assert outcome.kind is OutcomeKind.DONE
            assert outcome.result == (3 * n if n % 2 else 2 * n)
        await all_free(executor)
    for listener in listeners:
        listener.check()
        assert listener.log == ["began", "finished"]


@in_each_place
@pytest.mark.parametrize("error_type", [ValueError, KeyboardInterrupt, SystemExit, StopIteration, GeneratorExit])
@pytest.mark.parametrize("is_coroutine", [True, False])
@on_each_loop
async def test_whatever_a_body_raises_is_its_outcome(
    place: str, error_type: type[BaseException], is_coroutine: bool
) -> None:
    """No exception of a user's may end a loop, a thread or another job."""
    error = error_type("mine")

    def plain() -> None:
        raise error

    async def coroutine() -> None:
        raise error

    async with started(PLACES[place](1)) as executor:
        outcome = await outcome_of(executor, coroutine if is_coroutine else plain)
        assert outcome.kind is OutcomeKind.RAISED
        if is_coroutine and error_type is StopIteration:  # Python itself turns it into a RuntimeError
            assert isinstance(outcome.error, RuntimeError)
        else:
            assert outcome.error is error
        assert (await outcome_of(executor, lambda: "next")).result == "next"


@in_each_place
@pytest.mark.parametrize("is_coroutine", [True, False])
@on_each_loop
async def test_a_body_that_raises_cancelled_error_is_cancelled(place: str, is_coroutine: bool) -> None:
    """It may come from a task group of its own; it is no failure to be retried."""

    def plain() -> None:
        raise asyncio.CancelledError

    async def coroutine() -> None:
        raise asyncio.CancelledError

    async with started(PLACES[place](1)) as executor:
        outcome = await outcome_of(executor, coroutine if is_coroutine else plain)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.CANCELLED, "the body raised CancelledError")


@in_each_place
@on_each_loop
async def test_a_coroutine_that_takes_too_long_is_interrupted(place: str) -> None:
    """A timeout counts from the beginning of the body and stops it."""
    async with started(PLACES[place](1)) as executor:
        outcome = await outcome_of(executor, forever, timeout_s=0.01)
        assert (outcome.kind, outcome.stopped) == (OutcomeKind.TIMED_OUT, True)
        assert outcome.reason == "ran longer than its timeout of 0.01 s"
        await all_free(executor)


@in_each_place
@on_each_loop
async def test_an_error_raised_while_being_timed_out_is_a_timeout(place: str) -> None:
    """What a body makes of its interruption does not hide why it was interrupted."""
    entered: list[bool] = []

    async def clumsy() -> None:
        try:
            entered.append(True)
            await forever()
        except asyncio.CancelledError:
            raise ValueError("in the way") from None

    async with started(PLACES[place](1)) as executor:
        outcome = await outcome_of(executor, clumsy, timeout_s=0.01)
    assert (outcome.kind, outcome.stopped) == (OutcomeKind.TIMED_OUT, True)
    assert (
        isinstance(outcome.error, ValueError) or not entered
    )  # on a busy machine the time is up before its first line


@in_each_place
@on_each_loop
async def test_a_running_coroutine_is_cancelled_where_it_stands(place: str) -> None:
    """A cancel runs the body's own cleanup, once, and says who asked."""
    cleaned: list[str] = []

    async def body() -> None:
        try:
            await forever()
        finally:
            cleaned.append("up")

    async with started(PLACES[place](1)) as executor:
        listener = Listener()
        handle = executor.submit(FakeCall(body), listener)
        await listener.has_begun.wait()
        await asyncio.sleep(0)
        handle.cancel("changed my mind")
        handle.cancel("again")
        outcome = await listener.end()
        handle.cancel("too late")
        await all_free(executor)
    assert (outcome.kind, outcome.reason, outcome.stopped) == (OutcomeKind.CANCELLED, "changed my mind", True)
    assert cleaned in (["up"], [])  # it may have been cancelled between `began` and its first line
    listener.check()


@in_each_place
@on_each_loop
async def test_a_body_that_swallows_its_cancel_and_returns_is_done(place: str) -> None:
    """A body has the last word as long as it comes within the grace."""
    async with started(PLACES[place](1)) as executor:
        listener = Listener()
        ready = threading.Event()

        async def body() -> str:
            ready.set()
            return await swallow()

        handle = executor.submit(FakeCall(body), listener)
        while not ready.is_set():
            await asyncio.sleep(0)
        handle.cancel("stop")
        outcome = await listener.end()
    assert (outcome.kind, outcome.result) == (OutcomeKind.DONE, "I stay")
    listener.check()


@in_each_place
@pytest.mark.parametrize("by", ["cancel", "timeout"])
@on_each_loop
async def test_a_body_that_ignores_its_cancel_past_the_grace_keeps_its_slot(place: str, by: str) -> None:
    """Its job is over for the caller, but a slot given away early would let more bodies run than allowed."""
    stubborn, listener = Stubborn(), Listener()
    async with started(PLACES[place](2)) as executor:
        timeout_s = 0.02 if by == "timeout" else None
        handle = executor.submit(FakeCall(stubborn.body, timeout_s=timeout_s, cancel_grace_s=0.01), listener)
        await stubborn.begin()
        await listener.has_begun.wait()
        if by == "cancel":
            handle.cancel("stop")
        outcome = await listener.end()
        assert not outcome.stopped
        assert outcome.kind is (OutcomeKind.TIMED_OUT if by == "timeout" else OutcomeKind.CANCELLED)
        assert executor.free == 1
        handle.cancel("once more")
        stubborn.let_go.set()
        await listener.has_ended.wait()
        await all_free(executor)
    listener.check()
    assert listener.log == ["began", "finished", "ended"]


@in_each_place
@on_each_loop
async def test_context_variables_reach_the_body_and_stay_in_it(place: str) -> None:
    """Each job has a context of its own; none leaks into the loop, the thread or the next job."""

    def paint(colour: str) -> str:
        before = COLOUR.get()
        COLOUR.set(colour)
        return before

    async def paint_later(colour: str) -> str:
        before = paint(colour)
        await asyncio.sleep(0)
        return before if COLOUR.get() == colour else "lost"

    async with started(PLACES[place](1)) as executor:
        for fn in (paint, paint_later):
            context = Context()
            context.run(COLOUR.set, "red")
            assert (await outcome_of(executor, fn, "blue", context=context)).result == "red"
            assert context[COLOUR] == "blue"
            assert (await outcome_of(executor, fn, "green")).result == "none"
    assert COLOUR.get() == "none"


@in_each_place
@on_each_loop
async def test_reports_come_in_the_context_the_executor_was_started_in(place: str) -> None:
    """A job started by the report of another must not inherit that one's variables."""
    if place == "loop":
        pytest.skip("on the app's loop reports come from the job's own task, and the runtime pumps")
    seen: list[str] = []

    class Nosy(Listener):
        def finished(self, outcome: object, at_mono_ns: int | None = None) -> None:
            seen.append(COLOUR.get())
            super().finished(outcome)  # type: ignore[arg-type]

    async with started(PLACES[place](1)) as executor:
        token = COLOUR.set("submitter's")
        listener = Nosy()
        executor.submit(FakeCall(COLOUR.set, "body's"), listener)
        COLOUR.reset(token)
        await listener.end()
    assert seen == ["none"]


@in_each_place
@on_each_loop
async def test_a_full_executor_refuses_without_a_trace(place: str) -> None:
    """The worker gives such a job back; it must not hear of it twice. A lent slot counts as free."""
    async with started(PLACES[place](1)) as executor:
        first, second, third = Listener(), Listener(), Listener()
        one = executor.submit(FakeCall(forever), first)
        assert executor.free == 0
        with pytest.raises(ExecutorFull):
            executor.submit(FakeCall(forever), second)
        executor.lent += 1
        assert executor.free == 1
        other = executor.submit(FakeCall(forever), third)
        one.cancel("enough")
        other.cancel("enough")
        await first.end()
        await third.end()
        executor.lent -= 1
    assert second.log == []


@in_each_place
@on_each_loop
async def test_a_call_is_taken_only_between_start_and_stop(place: str) -> None:
    """An executor that is not started, or was stopped, says so at once; it can be started again."""
    executor = PLACES[place](1)
    for _ in range(2):
        with pytest.raises(ExecutorClosed):
            executor.submit(FakeCall(forever), Listener())
        async with started(executor):
            assert (await outcome_of(executor, lambda: 1)).result == 1
        await executor.stop(1.0)  # a second stop does nothing


@in_each_place
@on_each_loop
async def test_stop_cancels_coroutines_and_waits_for_them(place: str) -> None:
    """Every call is answered before stop returns."""
    executor = PLACES[place](4)
    await executor.start(Home(SYSTEM_CLOCK))
    listeners = [Listener() for _ in range(4)]
    for listener in listeners:
        executor.submit(FakeCall(forever), listener)
    await executor.stop(30.0)
    for listener in listeners:
        listener.check()
        assert listener.outcome is not None
        assert (listener.outcome.kind, listener.outcome.reason) == (OutcomeKind.CANCELLED, "shutdown")
        assert listener.outcome.stopped


@in_each_place
@on_each_loop
async def test_stop_reports_what_outlives_its_grace(place: str) -> None:
    """A call whose own grace is longer than the shutdown's must not be left without an answer."""
    executor, stubborn, listener = PLACES[place](1), Stubborn(), Listener()
    around = asyncio.all_tasks()
    await executor.start(Home(SYSTEM_CLOCK))
    executor.submit(FakeCall(stubborn.body), listener)
    await stubborn.begin()
    await executor.stop(0.02)
    listener.check()
    assert listener.outcome is not None
    assert (listener.outcome.kind, listener.outcome.stopped) == (OutcomeKind.CANCELLED, False)
    stubborn.let_go.set()
    while asyncio.all_tasks() - {asyncio.current_task()} - around or any_thread():
        await asyncio.sleep(0.001)


@in_each_place
@on_each_loop
async def test_a_cancel_that_races_the_end_is_answered_once(place: str) -> None:
    """Thousands of cancels at every point of a body's short life: one answer each, and no slot lost."""
    rng = Random(7)  # a fixed seed: failures repeat as far as threads let them

    def plain() -> str:
        return "done"

    async def coroutine() -> str:
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        return "done"

    async with started(PLACES[place](8)) as executor:
        kinds: list[OutcomeKind] = []
        for n in range(2_000):
            listener = Listener()
            handle = executor.submit(FakeCall(coroutine if n % 2 else plain), listener)
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            handle.cancel("race")
            outcome = await listener.end()
            if not outcome.stopped:
                await listener.has_ended.wait()
            kinds.append(outcome.kind)
            listener.check()
        assert set(kinds) <= {OutcomeKind.DONE, OutcomeKind.CANCELLED}
        await all_free(executor)


@pytest.mark.parametrize("place", [place for place in PLACES if place != "loop"])
@pytest.mark.parametrize("is_coroutine", [True, False])
@on_each_loop
async def test_a_body_that_has_returned_is_done_although_its_cancel_comes_before_its_report(
    place: str, is_coroutine: bool
) -> None:
    """What was done was done: the loop was only too busy to hear of it."""

    async def body() -> str:
        return "done"

    async with started(PLACES[place](1)) as executor:
        listener = Listener()
        handle = executor.submit(FakeCall(body if is_coroutine else lambda: "done"), listener)
        assert isinstance(handle, Away)
        while handle.outcome is None:
            time.sleep(0.001)  # the loop stands still
        handle.cancel("too late")
        outcome = await listener.end()
    assert (outcome.kind, outcome.result) == (OutcomeKind.DONE, "done")
    assert listener.log == ["began", "finished"]


@pytest.mark.parametrize("slots", [0, 2.5, True, "2"])
@pytest.mark.parametrize(
    "make", [ThreadExecutor, CommandExecutor, ProcessExecutor, lambda slots: LoopThread("x", slots=slots)]
)
def test_slots_that_are_no_whole_number_from_1_are_an_error_at_once(
    make: Callable[[Any], Executor], slots: Any
) -> None:
    """Without slots every job would wait for ever; with half of one they would never be all taken."""
    with pytest.raises(InvalidOption, match=f"(slots|workers) must be a whole number from 1, got {slots!r}"):
        make(slots)


def any_thread() -> bool:
    """Say whether an executor's thread is alive."""
    return any(thread.name.startswith("qj-") for thread in threading.enumerate())
