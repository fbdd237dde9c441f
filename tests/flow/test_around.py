"""What stands around a job of a manager: timeout, deadline, fallback, single flight, hedge; callbacks and events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import (
    CircuitOpen,
    ConcurrencyLimit,
    Deadline,
    DeadlineExceeded,
    Dedupe,
    Fallback,
    Flow,
    Gate,
    Hedge,
    InvalidOption,
    Job,
    JobCancelled,
    JobState,
    JobTimedOut,
    Retry,
    Snooze,
    TaskManager,
    Timeout,
    Waiting,
    current_job,
    gather,
)
from quarterjack.testing import virtual_loop

HOUR: Final = 3600.0


async def sleep_for(seconds: float) -> str:
    """Be a body."""
    await asyncio.sleep(seconds)
    return "slept"


async def fail() -> None:
    """Be a body that fails."""
    raise OSError("no route")


class Closed(Gate):
    """A gate that turns everybody away."""

    def eta(self, job: Waiting, now: float) -> float:
        raise CircuitOpen("api", 5.0)


# -- limits of time -------------------------------------------------------------------------------


async def test_timeout_is_of_an_attempt_and_its_waiting_does_not_count() -> None:
    """The second job waits for longer than its timeout, and is not to blame."""
    with virtual_loop() as clock:
        async with TaskManager(ConcurrencyLimit(1), Timeout(5)) as manager:
            began = clock.monotonic()
            jobs = [manager.submit(sleep_for, 4), manager.submit(sleep_for, 4), manager.submit(sleep_for, HOUR)]
            assert await gather(jobs[:2]) == ["slept", "slept"]
            with pytest.raises(JobTimedOut, match="its timeout of 5 s"):
                await jobs[2]
            assert clock.monotonic() - began == pytest.approx(13)
            own = manager.options(timeout=1).submit(sleep_for, 2)
            with pytest.raises(JobTimedOut, match="its timeout of 1 s"):
                await own


@pytest.mark.parametrize("what", ["waits", "pauses", "is delayed", "runs", "waits after a pause"])
async def test_deadline_ends_a_job_wherever_it_stands(what: str) -> None:
    """Who has stopped asking at 09:10 needs no answer at 09:15, from whatever it is that the job hangs in."""
    limit = ConcurrencyLimit(1)
    with virtual_loop() as clock:
        retry = Retry(on=OSError, attempts=99, base=4 if what == "waits after a pause" else 60, jitter="none")
        async with TaskManager(limit, Deadline(10), retry) as manager:
            began = clock.monotonic()
            if what == "waits":
                manager.submit(sleep_for, 9.5)
            submitter = manager.options(delay=60) if what == "is delayed" else manager
            is_slow = "run" in what or "wait" in what
            job: Job[Any] = submitter.submit(sleep_for, HOUR) if is_slow else submitter.submit(fail)
            if what == "waits after a pause":
                await job.cancel()
                job = manager.submit(fail)
                manager.submit(sleep_for, 9.9)
            with pytest.raises(DeadlineExceeded, match="its deadline of 10 s") as caught:
                await job
            assert clock.monotonic() - began == pytest.approx(10)
            assert job.state is JobState.TIMED_OUT
            assert isinstance(caught.value, TimeoutError)
        assert limit.used == 0


async def test_timeout_above_the_deadline_is_refused() -> None:
    """It could never be met, and nobody would see why."""
    with pytest.raises(InvalidOption, match=r"Timeout\(20\).*above Deadline\(10\)"):
        Flow(Timeout(20), Deadline(10))
    with pytest.raises(InvalidOption, match="timeout=20 of an attempt is above"):
        TaskManager(Deadline(10)).options(timeout=20)


# -- fallback --------------------------------------------------------------------------------------


async def test_fallback_stands_in_once_all_retries_have_failed() -> None:
    """A value, what a function makes of the error, or what a coroutine function fetches elsewhere."""
    calls = 0

    async def flaky() -> str:
        nonlocal calls
        calls += 1
        raise OSError("no route")

    async def from_cache(error: BaseException) -> str:
        await asyncio.sleep(1)
        return f"cached, as {error}"

    values: list[tuple[Any, Any]] = [
        ([], []),
        (str, "no route"),
        (from_cache, "cached, as no route"),
    ]
    with virtual_loop():
        for value, expected in values:
            calls = 0
            async with TaskManager(Retry(on=OSError, attempts=3, base=0), Fallback(value)) as manager:
                job = manager.submit(flaky)
                assert await job == expected
                assert calls == 3
                assert (job.state, job.failures, job.error) == (JobState.DONE, 3, None)
                assert job.reason == "its fallback stood in for OSError"


async def test_fallback_stands_in_for_what_a_gate_refused() -> None:
    """An open breaker is what one has a fallback for."""
    async with TaskManager(Closed(), Fallback("cached")) as manager:
        assert await manager.submit(sleep_for, 1) == "cached"
    async with TaskManager(Closed(), Fallback("cached", on=(OSError,))) as manager:
        with pytest.raises(CircuitOpen):
            await manager.submit(sleep_for, 1)


async def test_fallback_that_fails_or_hangs_is_the_jobs_end() -> None:
    """The user's code runs there as well: its error is raised, its deadline ends it, and it can be cancelled."""

    async def broken(error: BaseException) -> str:
        raise KeyError("typo")

    async def hangs(error: BaseException) -> str:
        return await sleep_for(HOUR)

    with virtual_loop() as clock:
        began = clock.monotonic()
        async with TaskManager(Fallback(broken)) as manager:
            with pytest.raises(KeyError, match="typo"):
                await manager.submit(fail)
        async with TaskManager(Fallback(hangs), Deadline(10)) as manager:
            with pytest.raises(DeadlineExceeded):
                await manager.submit(fail)
        assert clock.monotonic() - began == pytest.approx(10)
        async with TaskManager(Fallback(hangs)) as manager:
            for turns in range(4):
                job = manager.submit(fail)
                for _ in range(turns):
                    await asyncio.sleep(0)
                assert await job.cancel()
                with pytest.raises(JobCancelled):
                    await job
            job = manager.submit(fail)
            await asyncio.sleep(1)
            await manager.stop(drain=False)
            assert job.state is JobState.CANCELLED


async def test_nothing_stands_in_for_a_job_that_nobody_wants() -> None:
    """Cancelled is cancelled, and a deadline that has passed is too late for a second best."""
    with virtual_loop():
        async with TaskManager(Fallback("cached"), Deadline(10)) as manager:
            job = manager.submit(sleep_for, HOUR)
            await asyncio.sleep(1)
            assert await job.cancel()
            with pytest.raises(DeadlineExceeded):
                await manager.submit(sleep_for, HOUR)
            timed_out = manager.options(timeout=1).submit(sleep_for, HOUR)
            assert await timed_out == "cached"


# -- single flight -----------------------------------------------------------------------------------


async def test_one_run_serves_all_who_ask_for_the_same_while_it_lasts() -> None:
    """Waiting, running, pausing: it is there; once it has ended the next one runs anew."""
    runs = count(1)

    async def fetch(url: str) -> str:
        number = next(runs)
        await asyncio.sleep(10)
        if number == 1:
            raise OSError
        return f"{url} {number}"

    with virtual_loop():
        retry = Retry(on=OSError, attempts=2, base=5, jitter="none")
        async with TaskManager(Dedupe(by="url"), retry, ConcurrencyLimit(5)) as manager:
            first = manager.submit(fetch, "a")
            jobs = [first]
            for after in (0, 5, 7):  # waits, runs, pauses
                await asyncio.sleep(after)
                jobs.append(manager.submit(fetch, "a"))
            other = manager.submit(fetch, "b")
            assert [job.is_duplicate for job in (*jobs, other)] == [False, True, True, True, False]
            assert {job.id for job in jobs} == {first.id}
            assert await gather([*jobs, other]) == ["a 3"] * 4 + ["b 2"]
            again = manager.submit(fetch, "a")
            assert not again.is_duplicate
            assert await again == "a 4"


async def test_the_same_key_of_another_function_is_something_else() -> None:
    """To fetch a page and to delete it are not the same."""

    async def one(url: str) -> str:
        return f"one {url}"

    async def two(url: str) -> str:
        return f"two {url}"

    async with TaskManager(Dedupe(by="url")) as manager:
        assert await gather([manager.submit(one, "a"), manager.submit(two, "a")]) == ["one a", "two a"]
        with pytest.raises(InvalidOption, match="goes by 'url'"):
            manager.submit(sleep_for, 1)


async def test_single_flight_begins_before_the_block_and_ends_with_a_cancel() -> None:
    """What is collected where no loop runs yet is not run twice either; a cancelled run holds no key."""
    manager = TaskManager(Dedupe(by=lambda job: 0))
    first, second = manager.submit(sleep_for, 1), manager.submit(sleep_for, 1)
    assert second.is_duplicate
    with virtual_loop():
        async with manager:
            assert await gather([first, second]) == ["slept", "slept"]
            third = manager.submit(sleep_for, HOUR)
            assert await third.cancel()
            fourth = manager.submit(sleep_for, 1)
            assert not fourth.is_duplicate
            assert await fourth == "slept"


async def test_a_duplicate_needs_no_room_and_a_refused_job_holds_no_key() -> None:
    """The queue may be full: who asks for what is in it gets it."""
    with virtual_loop():
        flow = Flow(Dedupe(by=lambda job: job.args), ConcurrencyLimit(1), max_queue=1, overflow="block")
        async with TaskManager(flow) as manager:
            manager.submit(sleep_for, 1)
            await asyncio.sleep(0)
            waiting = manager.submit(sleep_for, 2)
            assert manager.submit(sleep_for, 2).is_duplicate
            assert (await manager.submit_wait(sleep_for, 2)).id == waiting.id
            with pytest.raises(Exception, match="max_queue=1"):
                manager.submit(sleep_for, 3)
            late = await manager.submit_wait(sleep_for, 3)
            assert not late.is_duplicate
            assert await late == "slept"


# -- hedge ---------------------------------------------------------------------------------------------


async def test_hedge_takes_the_first_result_and_ends_the_other_body() -> None:
    """The slow one is cancelled, has cleaned up before the job is done, and all of it was one slot."""
    said: list[str] = []
    numbers = count(1)
    limit = ConcurrencyLimit(1)

    async def ask() -> int:
        number = next(numbers)
        try:
            await asyncio.sleep(10 if number == 1 else 2)
        finally:
            said.append(f"{number} ended, {limit.used:g} slot")
        assert current_job().attempt == 1
        return number

    with virtual_loop() as clock:
        began = clock.monotonic()
        async with TaskManager(Hedge(after=3), limit) as manager:
            assert await manager.submit(ask) == 2
        assert clock.monotonic() - began == pytest.approx(5)
        assert said == ["2 ended, 1 slot", "1 ended, 1 slot"]


async def test_hedge_fails_with_the_first_error_when_none_is_left_running() -> None:
    """One failure is no result, for the other body may have one."""
    numbers = count(1)

    async def ask() -> int:
        number = next(numbers)
        await asyncio.sleep(5)
        if number in {1, 3, 4}:
            raise OSError(f"number {number}")
        return number

    with virtual_loop():
        async with TaskManager(Hedge(after=3)) as manager:
            assert await manager.submit(ask) == 2
            with pytest.raises(OSError, match="number 3"):
                await manager.submit(ask)
        async with TaskManager(Hedge(after=1)) as manager:
            with pytest.raises(OSError, match="no route"):
                await manager.submit(fail)


bodies = st.tuples(st.floats(0, 8), st.booleans(), st.floats(0, 2))
"""How long a body takes, whether it has a result, and how long it takes to end once it is cancelled."""


async def hedged(
    kind: type[Hedge], plan: list[tuple[float, bool, float]], after: float, cancel_at: float | None
) -> None:
    """Hedge a job whose bodies go by *plan*, and assert what must hold."""
    inside = most = begun = 0

    async def ask() -> int:
        nonlocal inside, most, begun
        takes, has_result, ending = plan[begun]
        begun, inside = begun + 1, inside + 1
        most = max(most, inside)
        try:
            await asyncio.sleep(takes)
            if not has_result:
                raise OSError
        except asyncio.CancelledError:
            await asyncio.sleep(ending)
            raise
        finally:
            inside -= 1
        return begun

    with virtual_loop():
        async with TaskManager(kind(after=after, max=3)) as manager:
            job = manager.submit(ask)
            if cancel_at is not None:
                await asyncio.sleep(cancel_at)
                await job.cancel(0)
            await gather([job], return_exceptions=True)
            assert inside == 0
            assert most <= 3


@given(plan=st.lists(bodies, min_size=4, max_size=4), after=st.floats(0.1, 4), cancel_at=st.none() | st.floats(0, 9))
@settings(max_examples=100)
def test_hedge_leaves_no_body_behind(
    plan: list[tuple[float, bool, float]], after: float, cancel_at: float | None
) -> None:
    """However bodies end and whenever the job is cancelled: at most so many at once, all over when the job is."""
    asyncio.run(hedged(Hedge, plan, after, cancel_at))


async def test_after_a_standstill_of_the_loop_a_body_that_is_ready_is_not_made_twice() -> None:
    """The bug: the second body began beside a first that had its answer; it was the loop that had been slow."""
    begun: list[int] = []

    async def ask() -> str:
        begun.append(len(begun))
        await asyncio.sleep(0.2)
        return "answer"

    loop = asyncio.get_running_loop()
    with virtual_loop() as clock:
        loop.call_later(0.09, lambda: clock.move_to(clock.monotonic_ns() + 500_000_000))
        async with TaskManager(Hedge(after=0.1)) as manager:
            assert await manager.submit(ask) == "answer"
    assert begun == [0]


class Careless(Hedge):
    """Takes the first result and is gone."""

    async def __call__(self, job: Waiting, proceed: Callable[[], Awaitable[Any]]) -> Any:
        tasks = [asyncio.ensure_future(proceed()) for _ in range(2)]
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return ended.pop().result()


@pytest.mark.leaks("tasks")
def test_check_finds_a_hedge_that_leaves_its_bodies() -> None:
    """A check that cannot fail proves nothing."""
    plan = [(1.0, True, 0.0), (2.0, True, 0.0)]
    asyncio.run(hedged(Hedge, plan, 0.5, None))
    with pytest.raises(AssertionError):
        asyncio.run(hedged(Careless, plan, 0.5, None))


async def test_job_that_is_cancelled_while_the_loser_cleans_up_waits_for_it() -> None:
    """The slot is not free before the last body has ended, whoever is in a hurry."""
    inside = 0

    async def ask() -> str:
        nonlocal inside
        inside += 1
        try:
            await asyncio.sleep(4 if inside == 1 else 1)
        except asyncio.CancelledError:
            await asyncio.sleep(5)
            raise
        finally:
            inside -= 1
        return "fine"

    with virtual_loop() as clock:
        began = clock.monotonic()
        async with TaskManager(Hedge(after=1)) as manager:
            job = manager.submit(ask)
            await asyncio.sleep(3)  # the second has won, the first cleans up until 7
            assert inside == 1
            assert await job.cancel()
            assert inside == 0
        assert clock.monotonic() - began == pytest.approx(7)


@pytest.mark.parametrize("make", [lambda: Hedge(after=0), lambda: Hedge(after=1, max=1), lambda: Hedge(after=-1)])
def test_hedge_that_means_nothing_is_refused(make: Callable[[], Hedge]) -> None:
    """When it is made."""
    with pytest.raises(InvalidOption, match="of Hedge"):
        make()


# -- being told -------------------------------------------------------------------------------------------


async def test_callbacks_tell_of_starts_retries_and_the_end() -> None:
    """As for the jobs of an app."""
    told: list[str] = []

    async def flaky() -> str:
        if current_job().attempt == 1:
            raise OSError
        return "fine"

    with virtual_loop():
        async with TaskManager(Retry(on=OSError, base=1), Timeout(5)) as manager:
            job = manager.submit(flaky)
            for name in ("start", "retry", "done", "error", "timeout"):
                getattr(job, f"on_{name}")(lambda job, name=name: told.append(f"{name} {job.attempt}"))
            await job
            assert told == ["start 1", "retry 1", "start 2", "done 2"]
            told.clear()
            late = manager.submit(sleep_for, HOUR)
            late.on_timeout(lambda job: told.append(job.reason or ""))
            with pytest.raises(JobTimedOut):
                await late
            assert told == ["ran longer than its timeout of 5 s"]


async def test_events_tell_each_move_in_order() -> None:
    """One stream for who logs, counts, or draws."""

    async def moves() -> str:
        if current_job().attempt == 1:
            raise OSError
        if current_job().attempt == 2:
            raise Snooze(1)
        return "fine"

    with virtual_loop():
        async with TaskManager(Retry(on=OSError, base=1), Fallback("cached", on=(KeyError,))) as manager:
            async with manager.events() as events:
                job = manager.submit(moves)
                assert await job == "fine"
                failed = manager.submit(fail)
                with pytest.raises(OSError, match="no route"):
                    await failed
                kinds: dict[str, list[str]] = {job.id: [], failed.id: []}
                async for event in events:
                    kinds[event.job_id].append(event.kind)  # type: ignore[attr-defined]
                    if event.kind == "failed":  # type: ignore[attr-defined]
                        break
            one = ["submitted", "running", "retry", "running"]
            assert kinds[job.id] == [*one, "snooze", "running", "done"]
            assert kinds[failed.id] == [*one, "retry", "running", "failed"]
