"""`TaskManager`: submit, await, cancel, stop, and what is left afterwards."""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar
from typing import Any

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Dedupe,
    Fallback,
    Flow,
    Gate,
    InvalidOption,
    Job,
    JobCancelled,
    JobState,
    NotRunning,
    Retry,
    TaskManager,
    Waiting,
    WrongLoop,
    current_job,
    gather,
)
from quarterjack.testing import virtual_loop


async def test_at_most_so_many_run_at_once_and_all_are_done_at_the_end() -> None:
    """The limit is what the manager is for, and leaving the block waits."""
    running = most = 0

    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        return n

    with virtual_loop() as clock:
        async with TaskManager(ConcurrencyLimit(3)) as manager:
            began = clock.monotonic()
            jobs = [manager.submit(work, n) for n in range(8)]
        assert most == 3
        assert clock.monotonic() - began == pytest.approx(3)
        assert [job.result() for job in jobs] == list(range(8))
        assert await gather(jobs) == list(range(8))


async def test_the_oldest_that_waits_is_cancelled_for_a_newer_one() -> None:
    """As in an app; the bug: it ended as FAILED, with advice for whoever submits as the reason."""

    async def work() -> None:
        await asyncio.sleep(1)

    with virtual_loop():
        async with TaskManager(Flow(ConcurrencyLimit(1), max_queue=1, overflow="drop_oldest")) as manager:
            first = manager.submit(work)
            await asyncio.sleep(0.1)
            second, third = manager.submit(work), manager.submit(work)
            with pytest.raises(JobCancelled):
                await second
        assert [job.state for job in (first, second, third)] == [JobState.DONE, JobState.CANCELLED, JobState.DONE]
        assert second.reason == "a newer one came while max_queue=1 jobs waited"


async def test_a_job_without_a_key_is_told_what_a_manager_takes() -> None:
    """Each of the four uses of a flow has its own way to give a key."""
    limit = ConcurrencyLimit(1, by="tenant")
    async with TaskManager(limit) as manager:
        with pytest.raises(InvalidOption, match=r"give it one: options\(metadata=\{'tenant': …\}\)"):
            manager.submit(asyncio.sleep, 0)
        await manager.options(key={"tenant": "acme"}).submit(asyncio.sleep, 0)
    with pytest.raises(InvalidOption, match=r"give it one: permit\(tenant=…\)"):
        async with limit.permit():
            pass


async def test_job_raises_the_very_exception_of_its_body() -> None:
    """A manager is in one process: nothing need stand for the error."""
    error = OSError("no route")

    async def fail() -> None:
        raise error

    async with TaskManager() as manager:
        job = manager.submit(fail)
        with pytest.raises(OSError, match="no route") as caught:
            await job
        assert caught.value is error
        assert job.state is JobState.FAILED


async def test_job_that_works_at_the_second_try_has_its_result() -> None:
    """The failure before is history: it neither hides the result nor stays as the reason."""
    answers: list[str | OSError] = [OSError("no route"), "42 bytes"]

    async def fetch() -> str:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    with virtual_loop():
        async with TaskManager(Retry(on=OSError)) as manager:
            job = manager.submit(fetch)
            assert await job == "42 bytes"
    assert (job.state, job.error, job.reason) == (JobState.DONE, None, None)


async def test_submitting_before_the_block_waits_for_it() -> None:
    """A program can collect its work where no loop runs yet."""

    async def work() -> str:
        return "done"

    manager = TaskManager(ConcurrencyLimit(1))
    job = manager.submit(work)
    assert job.state is JobState.SUBMITTED
    async with manager:
        assert await job == "done"
    with pytest.raises(NotRunning):
        manager.submit(work)


async def test_cancelled_jobs_give_their_slots_back_wherever_they_stand() -> None:
    """Waiting, admitted in this very turn, or running: no slot leaks."""
    limit = ConcurrencyLimit(2)

    async def work() -> None:
        await asyncio.sleep(3600)

    async with TaskManager(limit) as manager:
        jobs = [manager.submit(work) for _ in range(4)]
        await asyncio.sleep(0)
        assert await asyncio.gather(*(job.cancel() for job in jobs)) == [True] * 4
        assert {job.state for job in jobs} == {JobState.CANCELLED}
        assert limit.used == 0
        with pytest.raises(JobCancelled):
            await jobs[0]


async def test_an_exception_in_the_block_cancels_what_is_left() -> None:
    """Nobody waits for an hour of work after the program has failed."""
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        await asyncio.sleep(3600)

    async def program() -> None:
        async with manager:
            await began.wait()
            raise KeyError

    manager = TaskManager()
    job = manager.submit(work)
    with pytest.raises(KeyError):
        await program()
    assert job.state is JobState.CANCELLED


async def test_each_job_has_the_context_it_was_submitted_in() -> None:
    """A request's id follows its jobs, and what a job sets is its own."""
    request: ContextVar[str] = ContextVar("request", default="none")

    async def work() -> tuple[str, str]:
        before = request.get()
        request.set("changed")
        await asyncio.sleep(0)
        return before, current_job().id

    async with TaskManager(ConcurrencyLimit(1)) as manager:
        request.set("one")
        one = manager.submit(work)
        request.set("two")
        two = manager.submit(work)
        assert await gather([one, two]) == [("one", one.id), ("two", two.id)]
        assert one.id != two.id
        assert request.get() == "two"


async def test_callbacks_run_before_the_one_who_awaits_is_told() -> None:
    """As for the jobs of an app."""
    told: list[str] = []

    async def work() -> None: ...

    async with TaskManager() as manager:
        job = manager.submit(work)

        @job.on_done
        async def note(done: object) -> None:
            await asyncio.sleep(0)
            told.append("callback")

        await job
        told.append("awaited")
    assert told == ["callback", "awaited"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("is_leaving", [False, True], ids=["in the block", "leaving it"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_body_that_ends_the_program_ends_the_block_with_that(
    error: BaseException, is_leaving: bool, count: int
) -> None:
    """``sys.exit(3)`` in a body means exit status 3, and the other jobs are cancelled first."""
    ends: list[asyncio.Task[None] | None] = []
    others: list[Job[None]] = []

    async def end_it() -> None:
        await asyncio.sleep(0.01)
        raise error

    async def main() -> None:
        task = asyncio.current_task()
        try:
            async with TaskManager() as manager:
                others.append(manager.submit(asyncio.sleep, 3600))
                for _ in range(count):
                    manager.submit(end_it)
                if not is_leaving:
                    await asyncio.sleep(3600)
        finally:
            assert task is not None
            assert not task.cancelling()
            ends.append(task)

    with pytest.raises(type(error)) as caught:
        asyncio.run(main())
    assert caught.value is error
    assert len(ends) == 1
    assert [job.state for job in others] == [JobState.CANCELLED]


async def test_a_body_that_ends_the_program_when_it_is_cancelled_leaves_no_job_behind() -> None:
    """The block is left already: whoever takes longer to end is waited for as ever."""
    ended = False

    async def end_it() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise SystemExit(3)

    async def tidy_up() -> None:
        nonlocal ended
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            ended = True

    async def block() -> None:
        async with TaskManager() as manager:
            manager.submit(end_it)
            manager.submit(tidy_up)
            await asyncio.sleep(0.01)
            await manager.stop(drain=False)

    with pytest.raises(SystemExit):
        await block()
    assert ended


async def test_stats_tell_of_each_gate_although_two_have_one_name() -> None:
    """A limit for all and one per tenant is what flows are made of; the bug: only the last of them was shown."""
    async with TaskManager(ConcurrencyLimit(5), ConcurrencyLimit(1, by="tenant")) as manager:
        manager.options(key={"tenant": "acme"}).submit(asyncio.sleep, 0.01)
        await asyncio.sleep(0)
        assert manager.stats()["gates"] == {
            "ConcurrencyLimit": {"max_concurrent": 5, "used": 1.0},
            "ConcurrencyLimit 2": {"acme": {"max_concurrent": 1, "used": 1.0}},
        }
    assert manager.flow.stats() == manager.stats()["gates"]


async def test_what_stands_in_for_a_job_refused_at_the_start_is_waited_for() -> None:
    """The bug: a job of before the block that found no room ended, or not, after the block had been left."""

    async def stand_in(error: BaseException) -> str:
        await asyncio.sleep(5)
        return type(error).__name__

    with virtual_loop():
        manager = TaskManager(Flow(Fallback(stand_in), ConcurrencyLimit(1), max_queue=1))
        jobs: list[Job[Any]] = [manager.submit(asyncio.sleep, 0.1, "done") for _ in range(3)]
        async with manager:
            pass
    assert [job.result() for job in jobs] == ["done", "done", "QueueFull"]


async def test_single_flight_of_a_batch_that_is_turned_away_at_once_leaves_no_trace() -> None:
    """The bug: beside another flight it ended its submission with a KeyError."""

    class Shut(Gate):
        def eta(self, job: Waiting, now: float) -> float:
            return math.inf

    async def body(rows: list[int]) -> list[int]:
        return rows

    async with TaskManager(Flow(Dedupe(by="key"), Shut(), max_queue=1)) as manager:
        batched = manager.batch(body, max_size=1)
        jobs = [manager.options(key={"key": key}).submit(batched, key) for key in (0, 1, 1)]
        assert [job.state for job in jobs] == [JobState.SUBMITTED, JobState.FAILED, JobState.FAILED]
        assert not jobs[2].is_duplicate
        await manager.stop(drain=False)


def test_a_manager_has_no_public_name_but_what_its_pages_tell() -> None:
    """What the handles of its jobs ask of it is no business of whoever writes ``manager.``."""
    looking = {"events", "flow", "stats", "why_waiting"}
    doing = {"batch", "idle", "options", "stop", "submit", "submit_threadsafe", "submit_wait"}
    assert {name for name in dir(TaskManager()) if not name.startswith("_")} == looking | doing


async def test_a_submit_from_another_thread_is_refused_with_what_to_call() -> None:
    """It would not wake the loop, and two threads would share what has no lock."""

    async def work(n: int) -> int:
        return n

    async with TaskManager(ConcurrencyLimit(1)) as manager:
        assert await manager.submit(work, 1) == 1
        submits: list[Any] = [manager.submit, manager.options(cost=1).submit]
        for submit in submits:
            with pytest.raises(WrongLoop, match="from another one: submit_threadsafe"):
                await asyncio.to_thread(submit, work, 2)
        assert await (await asyncio.to_thread(manager.submit_threadsafe, work, 3)) == 3
        assert manager.stats()["waiting"] == 0


async def test_gate_of_ones_own_is_asked_about_light_jobs_as_well() -> None:
    """Those of ours refuse none that costs 1 or less, and are not asked; what is derived from one may be picky."""

    class Picky(ConcurrencyLimit):
        def check(self, job: Waiting) -> None:
            super().check(job)
            if job.args == ("bad",):
                raise InvalidOption("never that one")

    async with TaskManager(Picky(2)) as manager:
        assert await manager.submit(asyncio.sleep, 0, "good") == "good"
        with pytest.raises(InvalidOption, match="never that one"):
            manager.submit(echo, "bad")
        with pytest.raises(InvalidOption, match="cost=3 is above"):
            manager.options(cost=3).submit(echo, "good")


async def echo(value: str) -> str:
    return value
