"""`Batch`: items gather, go together, and end one by one, in a `TaskManager` and in an app."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import (
    Batch,
    BatchMismatch,
    ConcurrencyLimit,
    Deadline,
    Depends,
    Every,
    Fallback,
    Flow,
    Gate,
    InvalidArguments,
    InvalidOption,
    Job,
    JobCancelled,
    JobFailed,
    JobState,
    JobTimedOut,
    Priority,
    Quarterjack,
    QueueFull,
    Resource,
    Retry,
    TaskManager,
    Timeout,
    Waiting,
    WeightedRoundRobin,
    Wrap,
    current_job,
    gather,
)
from quarterjack.runtime.batching import Batcher, Group, Seat
from quarterjack.testing import virtual_loop, virtual_time


class Body:
    """A batch's body that notes what it was called with; a text of several letters goes wrong as it says."""

    def __init__(self, takes: float = 1.0) -> None:
        self.calls: list[list[str]] = []
        self.takes = takes
        self.running = 0

    async def __call__(self, rows: list[str]) -> list[str | Exception]:
        self.calls.append(list(rows))
        self.running += 1
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.running -= 1
        if "raise" in rows:
            raise OSError("no route")
        results: list[str | Exception] = [ValueError(row) if row == "bad" else row.upper() for row in rows]
        return results[1:] if "short" in rows else results


# -- every item one outcome, whatever happens -------------------------------------------------------


@dataclass
class Asked:
    """One item of a random run."""

    text: str
    at: float
    cancel_after: float | None
    timeout: float | None
    job: Job[Any] | None = field(default=None, compare=False)


TENTHS = st.integers(0, 30).map(lambda tenth: tenth / 10)
ITEMS = st.lists(
    st.builds(
        Asked,
        st.sampled_from(["a", "b", "c", "bad", "raise", "short"]),
        TENTHS,
        st.one_of(st.none(), st.none(), TENTHS),
        st.one_of(st.none(), st.none(), st.sampled_from([0.5, 500.0])),
    ),
    min_size=1,
    max_size=12,
)


async def played(body: Body, how: Batch, asked: list[Asked], *, stall: float) -> None:
    """Submit the items over some seconds, cancel some, let the loop stand still once; wait for all."""
    limit = ConcurrencyLimit(2)
    with virtual_loop() as clock:

        async def ask(one: Asked) -> None:
            await asyncio.sleep(one.at)
            one.job = manager.options(timeout=one.timeout).submit(batched, one.text)
            if one.cancel_after is not None:
                await asyncio.sleep(one.cancel_after)
                await one.job.cancel()

        async with TaskManager(limit) as manager:
            batched = manager.batch(body, max_size=how.max_size, max_wait=how.max_wait_s, on_error=how.on_error)
            asyncio.get_running_loop().call_later(stall, lambda: clock.move_to(clock.monotonic_ns() + 700_000_000))
            await asyncio.gather(*(ask(one) for one in asked))
    assert limit.used == 0
    assert body.running == 0


def every_item_has_its_own_outcome(how: Batch, asked: list[Asked], stall: float = 1.0) -> None:
    """It is the one its text asks for, whichever batches it went in, whoever else was cancelled."""
    body = Body()
    asyncio.run(played(body, how, asked, stall=stall))
    assert all(1 <= len(call) <= how.max_size for call in body.calls)
    for one in asked:
        job = one.job
        assert job is not None
        assert job.state.is_finished
        if job.state is JobState.CANCELLED:
            assert one.cancel_after is not None, "one caller's cancel is nobody else's"
        elif job.state is JobState.TIMED_OUT:
            assert one.timeout == 0.5
        elif one.text in {"a", "b", "c"} and job.state is JobState.DONE:
            assert job.result() == one.text.upper()
        elif one.text in {"a", "b", "c"}:
            assert how.on_error == "fail_all" or "short" in {other.text for other in asked}
            assert isinstance(job.error and job.error.exception, OSError | BatchMismatch)
        else:
            assert job.state is JobState.FAILED


HOWS = st.builds(
    Batch,
    st.integers(1, 5),
    st.sampled_from([0, 0.5, 2]),
    on_error=st.sampled_from(["fail_all", "bisect", "singles"]),
)


@settings(max_examples=40, deadline=None)
@given(HOWS, ITEMS, TENTHS)
def test_every_item_has_an_outcome_of_its_own(how: Batch, asked: list[Asked], stall: float) -> None:
    """Together is how they run; each of them was asked for alone."""
    every_item_has_its_own_outcome(how, asked, stall)


def items(*texts: str, cancelled: int | None = None) -> list[Asked]:
    """Return items that come at once; the one of that number is cancelled while the body runs."""
    return [Asked(text, 0, 0.5 if n == cancelled else None, None) for n, text in enumerate(texts)]


def swapped(batcher: Batcher, group: Group, pairs: Any) -> None:
    """Broken: results go to the wrong items."""
    seats, results = zip(*pairs, strict=True)
    RETURNED(batcher, group, zip(seats, results[::-1], strict=True))


def cancels_all(seat: Seat) -> bool:
    """Broken: one caller's cancel interrupts the body."""
    if seat.group is not None and seat.group.worker is not None:
        seat.group.worker.cancel()
        return False
    return LEAVE(seat)


def forgets(batcher: Batcher, group: Group, error: BaseException, called_with: int) -> None:
    """Broken: what raised is not tried in parts."""
    batcher.batch = Batch(batcher.batch.max_size)
    RAISED(batcher, group, error, called_with)


RETURNED, LEAVE, RAISED = Batcher._returned, Seat.leave, Batcher._raised


@pytest.mark.parametrize(
    ("owner", "method", "broken", "asked"),
    [
        (Batcher, "_returned", swapped, items("a", "b")),
        (Seat, "leave", cancels_all, items("a", "b", cancelled=0)),
        (Batcher, "_raised", forgets, items("a", "raise")),
    ],
)
def test_check_of_outcomes_finds_what_is_broken(
    owner: type, method: str, broken: Callable[..., Any], asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A property that nothing could break would prove nothing."""
    every_item_has_its_own_outcome(Batch(5, on_error="singles"), asked)
    monkeypatch.setattr(owner, method, broken)
    with pytest.raises(AssertionError):
        every_item_has_its_own_outcome(Batch(5, on_error="singles"), asked)


# -- when a batch goes ------------------------------------------------------------------------------


async def test_batch_goes_when_it_is_full_or_its_first_item_has_waited_or_nothing_more_comes() -> None:
    """Whoever came first waits no longer than max_wait, and nobody waits for what cannot come."""
    body, began = Body(takes=0), []
    with virtual_loop() as clock:

        async def noted(rows: list[str]) -> list[str | Exception]:
            began.append((clock.monotonic() - start, "".join(rows)))
            return await body(rows)

        start = clock.monotonic()
        async with TaskManager() as manager:
            batched = manager.batch(noted, max_size=3, max_wait=10)
            for row in "abcd":
                manager.submit(batched, row)
            await asyncio.sleep(4)
            manager.submit(batched, "e")
            await asyncio.sleep(8)
            first = manager.submit(batched, "f")
            await asyncio.sleep(1)
            manager.submit(batched, "g")
            await first.cancel()
            await asyncio.sleep(9.5)
            manager.submit(batched, "h")
            await asyncio.sleep(2)
            manager.submit(batched, "i")
            await manager.idle()
            manager.submit(batched, "j")
    assert began == [(0, "abc"), (10, "de"), (23, "gh"), (24.5, "i"), (24.5, "j")]


async def test_bytes_bound_a_batch_too() -> None:
    """A bulk endpoint refuses what is too large; what is too large alone goes alone."""
    body = Body(takes=0)
    async with TaskManager() as manager:
        batched = manager.batch(body, max_size=100, max_wait=10, max_bytes=5)
        for row in ("aa", "bb", "éé", "c", "dddddddd", "ee"):
            manager.submit(batched, row)
    assert body.calls == [["aa", "bb"], ["éé", "c"], ["dddddddd"], ["ee"]]


async def test_items_of_different_keys_go_separately_and_a_batch_is_one_job_to_its_gates() -> None:
    """A tenant's limit is a limit of its batches; however many items one has, it takes one slot."""
    body = Body()
    limit = ConcurrencyLimit(1, by="tenant")
    with virtual_loop():
        async with TaskManager(limit) as manager:
            batched = manager.batch(body, max_size=2, max_wait=0)
            for n, tenant in enumerate("xyxyxy"):
                manager.options(key={"tenant": tenant}).submit(batched, str(n))
            await asyncio.sleep(0.5)
            assert {key: stats["used"] for key, stats in limit.stats_by_key().items()} == {"x": 1, "y": 1}
    assert body.calls == [["0", "2"], ["1", "3"], ["4"], ["5"]]


async def test_urgent_item_makes_its_batch_urgent() -> None:
    """And so does who awaits one of its items."""
    body = Body()
    with virtual_loop():
        async with TaskManager(Priority(aging=100), ConcurrencyLimit(1)) as manager:
            batched = manager.batch(body, max_size=2, max_wait=0)
            manager.submit(asyncio.sleep, 1)
            waiting = [manager.options(priority=3).submit(batched, row) for row in "abcdef"]
            manager.options(priority=0).submit(batched, "g")
            manager.submit(batched, "h")
            await asyncio.sleep(0.5)

            async def impatient() -> None:
                await waiting[5]

            async with TaskManager() as other:
                await other.options(priority=1).submit(impatient)
    assert ["".join(call) for call in body.calls] == ["gh", "ef", "ab", "cd"]


# -- what a body does wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([1], "returned 1 results for a batch of 2"),
        ([1, 2, 3], "returned 3 results"),
        (None, "returned NoneType"),
        ("ab", "returned str"),
    ],
)
async def test_wrong_number_of_results_fails_that_batch_alone_in_words(returned: Any, words: str) -> None:
    """Which result is whose cannot be told, and trying the parts would not help."""
    answers = [returned, [1, 2]]

    async def body(rows: list[str]) -> list[int]:
        answer: list[int] = answers.pop(0)
        return answer

    async with TaskManager() as manager:
        batched = manager.batch(body, max_size=2, on_error="singles")
        jobs = [manager.submit(batched, row) for row in "abcd"]
    for job in jobs[:2]:
        with pytest.raises(BatchMismatch, match=words) as caught:
            await job
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # our own
    assert await gather(jobs[2:]) == [1, 2]


@pytest.mark.parametrize(
    ("on_error", "calls", "states"),
    [
        ("fail_all", ["abXc"], "FFFF"),
        ("bisect", ["abXc", "ab", "Xc", "X", "c"], "DDFD"),
        ("singles", ["abXc", "a", "b", "X", "c"], "DDFD"),
    ],
)
async def test_body_that_raises_is_tried_in_parts_as_it_was_told(on_error: Any, calls: list[str], states: str) -> None:
    """One bad row need not lose a hundred good ones; each call passes the flow."""
    seen: list[str] = []

    async def body(rows: list[str]) -> list[str]:
        seen.append("".join(rows))
        if "X" in rows:
            raise OSError
        return rows

    limit = ConcurrencyLimit(1)
    async with TaskManager(limit) as manager:
        batched = manager.batch(body, max_size=4, on_error=on_error)
        jobs = [manager.submit(batched, row) for row in "abXc"]
    assert seen == calls
    assert "".join(job.state.name[0] for job in jobs) == states
    assert limit.used == 0


async def test_body_that_is_no_coroutine_function_says_so() -> None:
    """The mistake is made once, and seen at the first item."""

    def plain(rows: list[str]) -> Any:
        return rows

    async with TaskManager() as manager:
        job = manager.submit(manager.batch(plain, max_size=1), "a")
        with pytest.raises(InvalidArguments, match="not something to await"):
            await job
        with pytest.raises(InvalidOption, match="coroutine function of a list"):
            manager.batch(3, max_size=1)  # type: ignore[arg-type]  # what is tested
        with pytest.raises(InvalidArguments, match="submitted with one item"):
            manager.submit(manager.batch(plain, max_size=1))  # type: ignore[call-arg]  # what is tested


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_size": 0}, "max_size must be a whole number from 1"),
        ({"max_size": 2, "max_wait": -1}, "max_wait"),
        ({"max_size": 2, "max_bytes": 0}, "max_bytes must be"),
        (
            {"max_size": 2, "on_error": "ignore"},
            "on_error must be one of 'fail_all', 'bisect', 'singles', got 'ignore'",
        ),
    ],
)
def test_wrong_options_are_refused_when_it_is_made(options: dict[str, Any], words: str) -> None:
    """In a manager as in an app, with the field, the value and the range."""
    with pytest.raises(InvalidOption, match=words):
        Batch(**options)
    with pytest.raises(InvalidOption, match=words):
        TaskManager().batch(Body(), **options)
    with pytest.raises(InvalidOption, match=words):
        Quarterjack().batch(**options)


def test_flow_says_where_a_batch_belongs() -> None:
    """It stands before a flow, not in it."""
    with pytest.raises(InvalidOption, match=r"manager\.batch"):
        Flow(Batch(3))  # type: ignore[arg-type]  # what is tested


# -- a batch in a flow --------------------------------------------------------------------------------


async def test_batch_that_its_flow_turns_away_fails_its_items() -> None:
    """Nobody waits for a job that a gate refused, and what gates hold comes back."""

    class Closed(Gate):
        def eta(self, job: Waiting, now: float) -> float:
            raise LookupError("closed for good")

    async with TaskManager(Closed()) as manager:
        jobs = [manager.submit(manager.batch(Body(), max_size=2), row) for row in "ab"]
        assert [type(error).__name__ for error in await gather(jobs, return_exceptions=True)] == ["LookupError"] * 2

    body = Body()
    with virtual_loop():
        async with TaskManager(Flow(ConcurrencyLimit(1), max_queue=1)) as manager:
            batched = manager.batch(body, max_size=1)
            first = manager.submit(batched, "a")
            await asyncio.sleep(0)
            jobs = [manager.submit(batched, row) for row in "bc"]
        assert first.state is jobs[0].state is JobState.DONE
        with pytest.raises(QueueFull):
            await jobs[1]


async def test_wraps_and_timeouts_of_the_flow_act_on_the_batch_and_options_on_the_item() -> None:
    """An item's retry tries it anew in another batch; a batch's timeout fails all of it."""

    class Note(Wrap):
        async def __call__(self, job: Waiting, proceed: Callable[[], Awaitable[Any]]) -> Any:
            noted.append(len(job.args[0]))
            return await proceed()

    noted: list[int] = []
    body = Body()
    with virtual_loop() as clock:
        async with TaskManager(Note(), Timeout(1.5)) as manager:
            batched = manager.batch(body, max_size=2, max_wait=1)
            begun = clock.monotonic()
            policy = Retry(on=Exception, attempts=2, base=3.0, jitter="none")
            tried = manager.options(retry=policy).submit(batched, "bad")
            good = manager.submit(batched, "good")
            assert await good == "GOOD"
            with pytest.raises(ValueError, match="bad"):
                await tried
            assert (tried.attempt, clock.monotonic() - begun) == (2, 1 + 3 + 1 + 1)
            body.takes = 2
            late = [manager.submit(batched, row) for row in "ab"]
        assert [job.state for job in late] == [JobState.TIMED_OUT] * 2
    assert noted == [2, 1, 2]


async def test_deadline_counts_for_the_item_while_it_gathers_too() -> None:
    """It began to count when the item was submitted."""
    body = Body()
    with virtual_loop() as clock:
        async with TaskManager(Deadline(2)) as manager:
            begun = clock.monotonic()
            job = manager.submit(manager.batch(body, max_size=9, max_wait=60), "a")
            with pytest.raises(TimeoutError):
                await job
            assert clock.monotonic() - begun == 2
    assert body.calls == []


async def test_all_callers_gone_the_body_is_interrupted_and_one_gone_it_is_not() -> None:
    """The work is for those who still wait for it."""
    body = Body(takes=100)
    with virtual_loop() as clock:
        async with TaskManager(ConcurrencyLimit(1)) as manager:
            batched = manager.batch(body, max_size=2)
            one, other = (manager.submit(batched, row) for row in "ab")
            await asyncio.sleep(1)
            assert await one.cancel()
            assert body.running == 1
            begun = clock.monotonic()
            assert await other.cancel()
            assert (body.running, clock.monotonic() - begun) == (0, 0)
            waiting = manager.submit(batched, "c")
            assert manager.why_waiting(waiting) == "its batch lets it start in 0.05 seconds"
            assert manager.stats()["waiting"] == 1
            assert await waiting.cancel()
            assert manager.stats()["waiting"] == 0


async def test_cancelled_in_the_very_turn_in_which_the_batch_is_let_in() -> None:
    """Its gates are taken, its body has not begun: no slot leaks, and the body is not entered."""
    limit, body = ConcurrencyLimit(1), Body()
    for pause in range(5):
        async with TaskManager(limit) as manager:
            job = manager.submit(manager.batch(body, max_size=1), "a")
            for _ in range(pause):
                await asyncio.sleep(0)
            await job.cancel()
        assert limit.used == 0
        assert job.state is JobState.CANCELLED


async def test_manager_that_is_left_by_an_exception_ends_its_batches() -> None:
    """Gathering, waiting at a gate, running: none outlives the block."""
    body, limit = Body(takes=100), ConcurrencyLimit(1)
    jobs: list[Job[Any]] = []

    async def program() -> None:
        async with TaskManager(limit) as manager:
            batched = manager.batch(body, max_size=2, max_wait=60)
            jobs.extend(manager.submit(batched, row) for row in "abcde")
            await asyncio.sleep(1)
            raise KeyError

    with virtual_loop():
        with pytest.raises(KeyError):
            await program()
        assert {job.state for job in jobs} == {JobState.CANCELLED}
        assert (len(body.calls), body.running, limit.used) == (1, 0, 0)


async def test_calling_it_submits_the_item_and_cancelling_the_call_cancels_it() -> None:
    """Code that knows nothing of jobs can share a batch."""
    body = Body()
    with virtual_loop():
        async with TaskManager() as manager:
            batched = manager.batch(body, max_size=10, max_wait=1)
            calls = [asyncio.ensure_future(batched(row)) for row in "abc"]
            await asyncio.sleep(0.5)
            calls[1].cancel()
            assert [await calls[0], await calls[2]] == ["A", "C"]
    assert body.calls == [["a", "c"]]


# -- in an app ----------------------------------------------------------------------------------------


def app_with(body: Body, **options: Any) -> tuple[Quarterjack, Any]:
    """Return an app whose task *insert* is a batch of *body*."""
    app = Quarterjack()
    chosen: dict[str, Any] = {"max_size": 3, "max_wait": 2, **options}

    @app.batch(**chosen)
    async def insert(rows: list[str]) -> list[str | Exception]:
        return await body(rows)

    return app, insert


async def test_items_are_ordinary_jobs_which_the_worker_groups() -> None:
    """States, stamps, results and failures of their own, from one call."""
    body = Body()
    app, insert = app_with(body)
    async with virtual_time(app) as world:
        jobs = [await app.submit(insert, row) for row in ("a", "bad", "c", "d")]
        await world.run_for(0.5)
        assert [job.state for job in jobs] == [JobState.RUNNING] * 3 + [JobState.SCHEDULED]
        why = await app.why_waiting(jobs[3])
        assert "its batch lets it start" in why.words
        await world.run_for(5)
        assert [job.state for job in jobs] == [JobState.DONE, JobState.FAILED, JobState.DONE, JobState.DONE]
        assert await jobs[0] == "A"
        with pytest.raises(JobFailed, match="bad"):
            await jobs[1]
        assert [job.duration for job in jobs] == [1, 1, 1, 1]
        assert (jobs[0].lag, jobs[3].lag) == (0, 2)
    assert body.calls == [["a", "bad", "c"], ["d"]]


async def test_cancelled_item_never_reaches_the_body_and_cancels_nobody_else() -> None:
    """Neither while it gathers nor while its batch runs."""
    body = Body()
    app, insert = app_with(body)
    async with virtual_time(app) as world:
        jobs = [await app.submit(insert, row) for row in "ab"]
        await world.run_for(1)
        assert await jobs[0].cancel()
        jobs += [await app.submit(insert, row) for row in "cd"]
        await world.run_for(0.5)
        assert await jobs[2].cancel()
        with pytest.raises(JobCancelled):
            await jobs[2]
        assert (await jobs[1], await jobs[3]) == ("B", "D")
    assert body.calls == [["b", "c", "d"]]


async def test_item_that_takes_too_long_times_out_alone_and_the_last_one_interrupts_the_body() -> None:
    """Its slot is free and its job is over, whatever the others wait for."""
    body = Body(takes=100)
    app, insert = app_with(body)
    async with virtual_time(app) as world:
        quick = await app.submit(insert.options(timeout=1), "a")
        slow = await app.submit(insert.options(timeout=5), "b")
        last = await app.submit(insert, "c")
        await world.run_for(2)
        assert (quick.state, slow.state, body.running) == (JobState.TIMED_OUT, JobState.RUNNING, 1)
        await world.run_for(10)
        assert (slow.state, last.state, body.running) == (JobState.TIMED_OUT, JobState.RUNNING, 1)
        assert await last.cancel()
        assert body.running == 0
        with pytest.raises(JobTimedOut):
            await quick


async def test_item_that_failed_is_retried_in_another_batch() -> None:
    """A retry is the item's own: it waits in the store, and holds no place."""
    body = Body()
    app, insert = app_with(body, retry=Retry(on=Exception, attempts=2, base=10.0, jitter="none"), on_error="singles")
    async with virtual_time(app) as world:
        jobs = [await app.submit(insert, row) for row in ("a", "raise", "c")]
        await world.run_for(20)
        assert [job.state.name for job in jobs] == ["DONE", "FAILED", "DONE"]
        assert [job.attempt for job in jobs] == [1, 2, 1]
    assert body.calls == [["a", "raise", "c"], ["a"], ["raise"], ["c"], ["raise"]]


async def test_flow_of_a_batched_task_is_passed_by_batches() -> None:
    """A limit of one means one body at a time, not one item."""
    body, limit = Body(), ConcurrencyLimit(1)
    app, insert = app_with(body, flow=Flow(limit))
    async with virtual_time(app) as world:
        jobs = [await app.submit(insert, row) for row in "abcdef"]
        await world.run_for(0.5)
        assert (limit.used, body.running) == (1, 1)
        assert [job.state.name for job in jobs] == ["RUNNING"] * 3 + ["SCHEDULED"] * 3
        why = await app.why_waiting(jobs[4])
        assert "ConcurrencyLimit is full" in why.words
        await gather(jobs)
        assert world.now.second == 2
    assert limit.used == 0


async def test_drain_and_shutdown_let_gathered_items_go() -> None:
    """Nobody waits an hour for items that cannot come."""
    body = Body()
    app, insert = app_with(body, max_wait=3600)
    async with virtual_time(app) as world:
        one = await app.submit(insert, "a")
        await app.drain()
        assert (one.state, world.now.minute) == (JobState.DONE, 0)
        two = await app.submit(insert, "b")
        await world.run_for(1)
    assert two.state is JobState.DONE
    assert body.calls == [["a"], ["b"]]


async def test_body_that_ignores_its_interruption_keeps_its_slot_until_it_ends() -> None:
    """Its job is over after the grace; what it holds is not free before it lets go."""
    app = Quarterjack()

    @app.batch(max_size=1, cancel_grace=1, flow=ConcurrencyLimit(1))
    async def stubborn(rows: list[str]) -> list[str]:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(10)
        return rows

    async with virtual_time(app) as world:
        job = await app.submit(stubborn, "a")
        await world.run_for(1)
        assert await job.cancel()
        second = await app.submit(stubborn, "b")
        await world.run_for(5)
        assert second.state.name == "SCHEDULED"
        await world.run_for(10)
        assert second.state.name == "RUNNING"
        await second.cancel()


async def test_dependencies_around_and_current_job_of_a_batch() -> None:
    """Filled in once for the batch, not once for each item."""
    opened: list[int] = []

    def connection() -> int:
        opened.append(1)
        return 7

    app = Quarterjack(strict=True)
    seen: list[str] = []

    @app.around
    async def around(job: Any, proceed: Callable[[], Awaitable[Any]]) -> Any:
        seen.append(job.id)
        return await proceed()

    @app.batch(max_size=2)
    async def insert(rows: list[int], db: int = Depends(connection)) -> list[int]:
        seen.append(current_job().id)
        return [row * db for row in rows]

    async with virtual_time(app):
        jobs = [await app.submit(insert, n) for n in (2, 3)]
        assert await gather(jobs) == [14, 21]
        assert seen == [jobs[0].id] * 2
        assert opened == [1]
        with pytest.raises(InvalidArguments, match="rows"):
            await app.submit(insert, "no number")  # type: ignore[call-overload]  # what is tested
        assert await app.call(insert, 5) == 35
    assert await insert([1, 2], 3) == [3, 6] if False else True


def test_what_means_nothing_to_a_batched_task_is_refused_where_it_is_written() -> None:
    """With what to use instead."""
    app = Quarterjack()

    async def body(rows: list[str]) -> list[str]: ...  # type: ignore[empty-body]  # never called

    for part, words in (
        (Retry(on=Exception, attempts=2), "use retry="),
        (Deadline(3), "start_deadline="),
        (Fallback(None), "a result of the body's"),
    ):
        with pytest.raises(InvalidOption, match=words):
            app.batch(max_size=2, flow=Flow(part))(body)
    with pytest.raises(InvalidOption, match="no executor="):
        app.batch(max_size=2, executor="thread")
    with pytest.raises(InvalidOption, match="did you mean 'max_size'"):
        app.batch(max_size=2, maxsize=3)  # type: ignore[call-arg]  # what is tested
    with pytest.raises(InvalidOption, match="a trigger passes no arguments"):
        app.task(Every(seconds=1))(app.batch(max_size=2)(body))
    with pytest.raises(InvalidOption, match="async def plain"):

        @app.batch(max_size=2)  # type: ignore[arg-type]  # what is tested
        def plain(rows: list[str]) -> list[str]:
            return rows

    with pytest.raises(InvalidOption, match="the list of items"):

        @app.batch(max_size=2)  # type: ignore[arg-type]  # what is tested
        async def nothing() -> list[str]:
            return []


async def test_body_whose_first_item_left_before_it_began_runs_for_one_that_is_there() -> None:
    """The bug: its current job was the cancelled one, which had no resource, and the others failed with it."""
    found: list[Any] = []

    async def body(rows: list[str]) -> list[str]:
        me = current_job()
        found.append((me.id, me.resource.name, me.cancel_requested))
        return rows

    async with TaskManager(WeightedRoundRobin(Resource("a"))) as manager:
        batched = manager.batch(body, max_size=2)
        first, second = (manager.submit(batched, row) for row in "ab")
        asyncio.get_running_loop().call_soon(lambda: manager._jobs.running().cancel(first._record))  # type: ignore[arg-type]
        assert await second == "b"
    assert first.state is JobState.CANCELLED
    assert found == [(second.id, "a", False)]
