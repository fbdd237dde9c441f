"""Flows in apps: what waits where, what is taken and given back, how jobs end that a flow turns away."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import (
    CircuitOpen,
    ConcurrencyLimit,
    Deadline,
    DeadlineExceeded,
    Dedupe,
    Depends,
    DuplicateName,
    Every,
    Fallback,
    Flow,
    Gate,
    Group,
    InvalidOption,
    Job,
    JobFailed,
    JobState,
    JobTimedOut,
    Order,
    Quarterjack,
    Timeout,
    Waiting,
    Wrap,
    WrongLoop,
    gather,
)
from quarterjack.flow.outcome import Ended, EndKind
from quarterjack.policies.backoff import Retry
from quarterjack.runtime.admission import AHEAD, AHEAD_SHARED
from quarterjack.stores import MemoryStore
from quarterjack.testing import simulate, virtual_time

from .kit import Boom, Shared, ends_as, sleeper, spawn, states


class Door(Gate):
    """A gate that is opened by hand, and keeps account of what it is told."""

    def __init__(self, *, is_open: bool = True, opens_at: float = math.inf, by: Any = None) -> None:
        super().__init__(by=by)
        self.is_open = is_open
        self.opens_at = opens_at
        self.inside: dict[str, str] = {}
        self.told: list[tuple[str, str]] = []

    def eta(self, job: Waiting, now: float) -> float:
        return now if self.is_open or now >= self.opens_at else self.opens_at

    def take(self, job: Waiting, now: float) -> None:
        assert job.id not in self.inside
        self.inside[job.id] = "taken"

    def started(self, job: Waiting, now: float) -> None:
        assert self.inside[job.id] == "taken"
        self.inside[job.id] = "started"
        self.told.append((job.id, "started"))

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        was = self.inside.pop(job.id)  # raises if it is given back twice
        assert (was == "taken") is (ended.kind is EndKind.NOT_STARTED)
        self.told.append((job.id, ended.kind.value))

    def open(self) -> None:
        """Let them in."""
        self.is_open = True
        self.wake()


# -- limits ---------------------------------------------------------------------------


async def test_two_tasks_with_one_flow_share_its_limit() -> None:
    """The limit is the flow's, not the task's: that is why it is an object."""
    app = Quarterjack()
    limit = ConcurrencyLimit(3)
    flow = Flow(limit)
    running = most = 0

    async def body() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    one = app.task(name="one", flow=flow)(body)
    two = app.task(name="two", flow=flow)(body)
    async with virtual_time(app) as world:
        began = world.clock.monotonic()
        await gather([await app.submit(task) for _ in range(10) for task in (one, two)])
        assert most == 3
        assert world.clock.monotonic() - began == pytest.approx(7.0, abs=0.01)
    assert limit.used == 0


async def test_plain_functions_pass_the_same_gates() -> None:
    """A body in a thread counts where it runs as one on the loop does."""
    app = Quarterjack()
    limit = ConcurrencyLimit(2)
    lock, counts = threading.Lock(), {"now": 0, "most": 0}

    @app.task(flow=limit)
    def work() -> None:
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts["most"], counts["now"])
        threading.Event().wait(0.01)
        with lock:
            counts["now"] -= 1

    async with app:
        await gather([await app.submit(work) for _ in range(8)])
    assert counts["most"] == 2
    assert limit.used == 0


async def test_ticks_and_submitted_jobs_pass_one_flow() -> None:
    """A schedule's runs are jobs like others: they count at the limit, and wait for it."""
    app = Quarterjack()
    limit = ConcurrencyLimit(1)
    spans: list[tuple[float, float]] = []

    @app.task(Every(seconds=10), flow=Flow(limit), overlap="allow")
    async def work() -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.sleep(4)
        spans.append((begin, loop.time()))

    async with virtual_time(app) as world:
        jobs = [await app.submit(work) for _ in range(3)]
        await world.run_for(30)
        assert states(jobs) == {"done": 3}
    assert len(spans) >= 5
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert limit.used == 0


async def test_queue_and_task_are_one_flow() -> None:
    """The gates of both are taken together, so neither limit is exceeded and neither is held in vain."""
    app = Quarterjack()
    of_queue, of_task = ConcurrencyLimit(3, name="queue"), ConcurrencyLimit(1, name="task")
    app.queue("mail", flow=Flow(of_queue))
    limited = sleeper(app, queue="mail", flow=Flow(of_task))
    plain = app.task(name="plain", queue="mail")(asyncio.sleep)
    async with virtual_time(app) as world:
        first, second = await app.submit(limited, 5.0), await app.submit(limited, 5.0)
        third = await app.submit(plain, 5.0)
        await world.run_for(1)
        assert [job.state.value for job in (first, second, third)] == ["running", "scheduled", "running"]
        assert "task" in (await app.why_waiting(second)).words
        await world.run_for(10)
        assert states([first, second, third]) == {"done": 3}
        assert (of_queue.used, of_task.used) == (0, 0)
        assert "mail" in world.apps[0]._running().queues


async def test_a_job_in_another_queue_passes_that_queues_flow() -> None:
    """`options(queue=…)` is how a single job takes another flow."""
    app = Quarterjack()
    door = Door(is_open=False)
    app.queue("shut", flow=door)
    task = sleeper(app)
    async with virtual_time(app) as world:
        free, held = await app.submit(task, 1.0), await app.submit(task.options(queue="shut"), 1.0)
        await world.run_for(2)
        assert (free.state, held.state) == (JobState.DONE, JobState.SCHEDULED)
        door.open()
        await world.run_for(2)
        assert held.state is JobState.DONE


async def test_flow_of_a_group_is_the_default_of_its_tasks() -> None:
    """The nearest wins, and None opts out."""
    inner, outer = Flow(ConcurrencyLimit(1)), Flow(ConcurrencyLimit(2))
    group = Group("g", flow=inner)

    @group.task
    async def one() -> None: ...

    @group.task(flow=None)
    async def two() -> None: ...

    app = Quarterjack(flow=outer)
    app.include_group(group)

    @app.task
    async def three() -> None: ...

    app.declared_schedules()  # names and defaults are given out
    assert [task.definition.flow for task in (one, two, three)] == [inner, None, outer]


# -- claims ---------------------------------------------------------------------------


@pytest.mark.parametrize(("store", "ahead"), [(MemoryStore, AHEAD), (Shared, AHEAD_SHARED)])
async def test_a_closed_gate_does_not_swallow_the_store(store: type[MemoryStore], ahead: int) -> None:
    """What is claimed nobody else can begin, and nobody sees in the queue."""
    app = Quarterjack(store())
    door = Door(is_open=False)
    task = sleeper(app, flow=Flow(door))
    async with virtual_time(app) as world:
        jobs = await app.submit_many(task.bind(10.0) for _ in range(200))
        await world.run_for(1)
        assert states(jobs) == {"scheduled": ahead, "submitted": 200 - ahead}
        assert (await app.why_waiting(jobs[0])).kind == "flow"
        waiting = await app.why_waiting(jobs[-1])
        assert waiting.kind == "flow"
        assert waiting.words.startswith(f"{ahead} jobs wait in its flow")
        door.open()
        await world.run_for(5)
        assert states(jobs)["running"] == 100  # as many as there are slots, and not only those that were claimed before
        await world.run_for(30)
        assert states(jobs) == {"done": 200}


async def test_who_waits_in_a_flow_holds_no_slot() -> None:
    """Fifty jobs before a closed gate leave both slots to others."""
    app = Quarterjack(concurrency=2)
    door = Door(is_open=False)
    held = sleeper(app, flow=Flow(door))
    free = app.task(name="free")(asyncio.sleep)
    async with virtual_time(app) as world:
        for _ in range(50):
            await app.submit(held, 1.0)
        began = world.clock.monotonic()
        await gather([await app.submit(free, 1.0) for _ in range(10)])
        assert world.clock.monotonic() - began == pytest.approx(5.0, abs=0.01)


async def test_open_gates_wait_for_a_slot_and_go_before_what_is_claimed_next() -> None:
    """A flood of plain jobs neither overfills the executor nor starves those of a flow."""
    app = Quarterjack(concurrency=3)
    door = Door()
    flowing = sleeper(app, flow=Flow(door))
    plain = app.task(name="plain")(asyncio.sleep)
    async with virtual_time(app) as world:
        flood = [await app.submit(plain, 1.0) for _ in range(90)]
        jobs = [await app.submit(flowing, 1.0) for _ in range(9)]
        await world.run_for(1.5)
        assert (await app.why_waiting(jobs[-1])).words
        await world.run_for(4)
        assert states(jobs) == {"done": 9}
        await world.run_for(40)
        assert states(flood) == {"done": 90}
        assert {job.attempt for job in jobs} == {1}  # none was let through to a full executor, and given back
    assert not door.inside


async def test_a_flow_leaves_the_slots_that_are_kept_for_schedules() -> None:
    """A flood that passes its gates must not delay a tick."""
    app = Quarterjack(concurrency=10)
    task = sleeper(app, flow=Flow(Door()))
    began: list[float] = []

    @app.task(Every(seconds=10))
    async def tick() -> None:
        began.append(asyncio.get_running_loop().time())

    async with virtual_time(app) as world:
        jobs = [await app.submit(task, 100.0) for _ in range(30)]
        await world.run_for(35)
        assert states(jobs) == {"running": 9, "scheduled": 21}
        assert len(began) == 3


async def test_scheduled_runs_wait_for_a_slot_too() -> None:
    """They may have the last one, not one more: they are claimed once and begin when it is free."""
    app = Quarterjack(concurrency=1)
    plain = app.task(name="plain")(asyncio.sleep)

    @app.task(Every(seconds=10), flow=Flow(Door()))
    async def tick() -> None: ...

    async with virtual_time(app) as world:
        await app.submit(plain, 15.0)
        await world.run_for(14)
        (job,) = await app.jobs(task="tick")
        assert job.state is JobState.SCHEDULED
        assert (await app.why_waiting(job)).words
        await world.run_for(2)
        assert (job.state, job.attempt) == (JobState.DONE, 1)


async def test_scheduled_runs_of_a_flooded_flow_are_claimed() -> None:
    """They do not stand behind the flood in the store, but beside it in the flow."""
    app = Quarterjack()
    door = Door(is_open=False)
    task = sleeper(app, flow=Flow(door))

    @app.task(Every(seconds=10), flow=task.definition.flow)
    async def tick() -> None: ...

    async with virtual_time(app) as world:
        for _ in range(100):
            await app.submit(task, 0.0)
        await world.run_for(11)
        (job,) = await app.jobs(task="tick")
        assert job.state is JobState.SCHEDULED


async def test_of_jobs_with_keys_those_that_wait_long_make_room() -> None:
    """One tenant that is blocked for long must not hide another's jobs behind its own."""
    app = Quarterjack()

    class Tenants(Door):
        def eta(self, job: Waiting, now: float) -> float:
            return now + 60 if job.args[0] == "slow" else now

    @app.task(flow=Flow(Tenants(by="tenant")))
    async def call(tenant: str) -> None: ...

    async with virtual_time(app) as world:
        slow = [await app.submit(call, "slow") for _ in range(3 * AHEAD)]
        quick = await app.submit(call, "quick")
        await world.run_for(3)
        assert quick.state is JobState.DONE
        back = [job for job in slow if job.state is JobState.SUBMITTED]
        assert len(back) >= 2 * AHEAD
        record = next(job._record for job in back if job._record.attempt)
        assert 55e9 < record.run_at_ns - world.clock.now_ns() <= 60e9
        assert "its flow lets it start in 1 minute" in (record.reason or "")


async def test_the_order_chooses_among_what_is_claimed() -> None:
    """Whoever is most urgent goes first, not who came first."""

    class Urgent(Order):
        def rank(self, job: Waiting, now: float) -> float:
            return job.enqueued_at + 100 * job.priority

    app = Quarterjack()
    door = Door(is_open=False)
    began: list[int] = []

    @app.task(flow=Flow(door, ConcurrencyLimit(1), Urgent()))
    async def work(n: int) -> None:
        began.append(n)

    async with virtual_time(app) as world:
        for n in (3, 1, 4, 0, 2):
            await app.submit(work.options(priority=n), n)
        await world.run_for(1)
        door.open()
        await world.run_for(1)
    assert began == [0, 1, 2, 3, 4]


# -- ends while it waits ----------------------------------------------------------------


async def test_cancel_ends_a_job_in_its_flow_at_once() -> None:
    """It has taken nothing, so nothing is given back; the one behind it moves up."""
    app = Quarterjack()
    limit = ConcurrencyLimit(1)
    task = sleeper(app, flow=Flow(limit))
    async with virtual_time(app) as world:
        first, second, third = [await app.submit(task, 5.0) for _ in range(3)]
        await world.run_for(1)
        assert await second.cancel()
        assert second.state is JobState.CANCELLED
        assert second.timestamps.running_at is None
        await world.run_for(5)
        assert (first.state, third.state) == (JobState.DONE, JobState.RUNNING)
        assert await third.cancel()
    assert limit.used == 0


async def test_nothing_begins_once_the_end_was_asked_for() -> None:
    """From a signal on no body begins, also of those whose gate opens just then."""
    app = Quarterjack()
    door = Door(is_open=False)
    task = sleeper(app, flow=Flow(door))
    async with virtual_time(app) as world:
        job = await app.submit(task, 1.0)
        await world.run_for(1)
        app._running().stop_beginning()
        door.open()
        await world.run_for(1)
        assert job.state is JobState.SCHEDULED
    assert not door.told


async def test_a_job_cancelled_between_its_admission_and_its_body_was_not_started() -> None:
    """Gates that count starts are told so, and take the entry back."""

    class Trap(Door):
        def take(self, job: Waiting, now: float) -> None:
            super().take(job, now)
            asyncio.get_running_loop().call_soon(service.worker.cancel_local, [job.id])

    app = Quarterjack()
    door = Trap()
    task = sleeper(app, flow=Flow(door))
    async with virtual_time(app):
        service: Any = app._running()
        job = await app.submit(task, 1.0)
        await ends_as(job, JobState.CANCELLED)
        begun = sys.version_info >= (3, 12)  # there a body begins in the very turn
        assert door.told == ([(job.id, "started"), (job.id, "cancelled")] if begun else [(job.id, "not_started")])


@pytest.mark.parametrize("store", [MemoryStore, Shared])
async def test_shutdown_gives_back_who_waits_and_does_not_wait_for_gates(store: type[MemoryStore]) -> None:
    """A gate that opens tomorrow must not hold up the end of the app."""
    kept = store()
    app = Quarterjack(kept, shutdown_grace=30)
    door = Door(is_open=False)
    task = sleeper(app, flow=Flow(door))
    async with virtual_time(app) as world:
        jobs = [await app.submit(task, 1.0) for _ in range(3)]
        await world.run_for(1)
        began = world.clock.monotonic()
        await app.__aexit__(None, None, None)
        assert world.clock.monotonic() - began < 1
        ends = {(job.state, job.reason) for job in jobs}
        await app.__aenter__()
    if kept.is_shared:
        assert ends == {(JobState.SUBMITTED, "its worker stopped")}
    else:
        assert ends == {(JobState.CANCELLED, "shutdown")}
    assert not door.inside


async def test_start_deadline_counts_while_it_waits() -> None:
    """A run that is not wanted later than that is missed, not run late."""
    app = Quarterjack()
    task = sleeper(app, flow=Flow(ConcurrencyLimit(1)))
    async with virtual_time(app) as world:
        await app.submit(task, 10.0)
        late = await app.submit(task.options(start_deadline=3), 1.0)
        await world.run_for(4)
        assert late.state is JobState.MISSED
        assert late.reason == "3.000 s late, start_deadline is 3 s"


async def test_max_wait_ends_a_job_as_failed() -> None:
    """The reason is kept with the job, for whoever looks later."""
    app = Quarterjack()
    task = sleeper(app, flow=Flow(ConcurrencyLimit(1), max_wait=3))
    async with virtual_time(app) as world:
        first = await app.submit(task, 10.0)
        jobs = [await app.submit(task, 1.0) for _ in range(100)]
        await world.run_for(4)
        assert states([first, *jobs]) == {"running": 1, "failed": 100}
        assert jobs[99].reason == "it waited longer for its flow than max_wait=3 s"


async def test_a_gate_that_rejects_fails_the_job_for_good() -> None:
    """A retry at once would only ask it again."""

    class Open(Gate):
        def eta(self, job: Waiting, now: float) -> float:
            raise CircuitOpen("api", 30)

    app = Quarterjack()
    task = sleeper(app, flow=Flow(Open(), Retry(on=Exception, attempts=5)))
    async with virtual_time(app):
        job = await app.submit(task, 1.0)
        with pytest.raises(JobFailed, match="api is open for 30 s more") as caught:
            await job
        assert isinstance(caught.value.__cause__, CircuitOpen)
        assert job.reason == "api is open for 30 s more: too many calls have failed"
        assert job.attempt == 1


@pytest.mark.parametrize("method", ["eta", "take", "started", "give", "key_of"])
async def test_a_broken_gate_fails_its_job_and_nothing_else(method: str) -> None:
    """A user's gate runs in the runtime: its exception is one job's, whatever it is raised in."""

    class Broken(ConcurrencyLimit):
        pass

    def broken(self: Any, job: Waiting, *_: Any) -> Any:
        if job.args == (0.5,):
            raise Boom(method)
        return getattr(ConcurrencyLimit, method)(self, job, *_)

    setattr(Broken, method, broken)
    app = Quarterjack()
    task = sleeper(app, flow=Flow(Broken(3)))
    async with virtual_time(app) as world:
        if method == "key_of":
            with pytest.raises(Boom):
                await app.submit(task, 0.5)
        else:
            bad = await app.submit(task, 0.5)
            await world.run_for(1)
            assert bad.state is (JobState.FAILED if method in {"eta", "take"} else JobState.DONE)
        good = await app.submit(task, 1.0)
        await world.run_for(2)
        assert good.state is JobState.DONE


# -- time -------------------------------------------------------------------------------


async def test_timeout_counts_from_the_body() -> None:
    """Waiting for a gate is not the body's fault."""
    app = Quarterjack()
    task = sleeper(app, flow=Flow(ConcurrencyLimit(1)), timeout=1.5)
    async with virtual_time(app):
        assert await gather([await app.submit(task, 1.0) for _ in range(5)]) == [1.0] * 5


async def test_timeout_of_the_flow_is_the_default_of_its_jobs() -> None:
    """A job's own option wins, as everywhere."""
    app = Quarterjack()
    limit = ConcurrencyLimit(5)
    task = sleeper(app, flow=Flow(limit, Timeout(2)))
    async with virtual_time(app) as world:
        short, long = await app.submit(task, 5.0), await app.submit(task.options(timeout=10), 5.0)
        await ends_as(short, JobState.TIMED_OUT)
        await ends_as(long, JobState.DONE)
        assert world.clock.monotonic() > 0
    assert limit.used == 0


async def test_deadline_ends_waiting_and_running_jobs() -> None:
    """It counts from the submission, and does not ask where the time went."""
    app = Quarterjack()
    limit = ConcurrencyLimit(1)
    task = sleeper(app, flow=Flow(limit, Deadline(3), Retry(on=Exception, attempts=9)))
    async with virtual_time(app) as world:
        began = world.clock.monotonic()
        running, waiting = await app.submit(task, 10.0), await app.submit(task, 1.0)
        with pytest.raises(JobTimedOut, match="not done within its deadline of 3 s"):
            await running
        with pytest.raises(JobTimedOut, match="not done within its deadline of 3 s"):
            await waiting
        assert world.clock.monotonic() - began == pytest.approx(3.0, abs=0.01)
        assert isinstance(running._record.error and running._record.error.exception, DeadlineExceeded)
    assert limit.used == 0


async def test_no_attempt_starts_past_the_deadline() -> None:
    """A retry that could only be too late is not waited for."""
    app = Quarterjack()

    @app.task(flow=Flow(Deadline(5), Retry(on=Exception, attempts=9, base=2, jitter="none")))
    async def fails() -> None:
        raise Boom("no route")

    async with virtual_time(app) as world:
        began = world.clock.monotonic()
        job = await app.submit(fails)
        with pytest.raises(JobFailed, match="no route"):
            await job
        assert job.attempt == 2  # at 0 and 2; the next would be at 6
        assert world.clock.monotonic() - began == pytest.approx(2.0, abs=0.01)
        assert "no retry, as it was not done within its deadline of 5 s" in (job.reason or "")


async def test_retry_is_a_re_enqueue_and_holds_nothing() -> None:
    """While it pauses others have its place; the record says when it comes back."""
    app = Quarterjack()
    limit = ConcurrencyLimit(1)
    calls: list[str] = []

    @app.task(flow=Flow(limit, Retry(on=Exception, attempts=3, base=10, jitter="none")))
    async def flaky(name: str) -> str:
        calls.append(name)
        if name == "a" and calls.count("a") < 3:
            raise Boom
        return name

    async with virtual_time(app) as world:
        first = await app.submit(flaky, "a")
        await world.run_for(1)
        assert first.state is JobState.SUBMITTED
        assert first._record.run_at_ns - world.clock.now_ns() == pytest.approx(9e9, rel=0.01)
        assert limit.used == 0
        assert await (await app.submit(flaky, "b")) == "b"
        assert await first == "a"
        assert (first.attempt, world.clock.monotonic() > 0) == (3, True)


# -- what gates are told ----------------------------------------------------------------


@pytest.mark.parametrize("is_coroutine", [True, False])
async def test_each_pass_is_taken_started_and_given_back_once(is_coroutine: bool) -> None:
    """The start is stamped when the body begins, in a thread too, and its end is the gate's."""
    app = Quarterjack()
    door = Door()

    async def body(fail: bool) -> None:
        if fail:
            raise Boom

    def plain(fail: bool) -> None:
        if fail:
            raise Boom

    task = app.task(name="body", flow=Flow(door))(body if is_coroutine else plain)
    async with app:
        good, bad = await app.submit(task, False), await app.submit(task, True)
        await ends_as(good, JobState.DONE)
        await ends_as(bad, JobState.FAILED)
    assert not door.inside
    assert sorted(door.told) == sorted(
        [(good.id, "started"), (good.id, "returned"), (bad.id, "started"), (bad.id, "raised")]
    )


async def test_a_thread_that_goes_on_keeps_its_gates_until_it_ends() -> None:
    """A limit that forgot it would let one body too many run."""
    app = Quarterjack()
    limit = ConcurrencyLimit(1)
    release = threading.Event()

    @app.task(flow=Flow(limit), timeout=0.05)
    def stuck(wait: bool) -> str:
        if wait:
            release.wait(10)
        return "free"

    async with app:
        first, second = await app.submit(stuck, True), await app.submit(stuck, False)
        await ends_as(first, JobState.TIMED_OUT)
        await asyncio.sleep(0.05)
        assert limit.used == 1
        assert second.state is JobState.SCHEDULED
        release.set()
        assert await second == "free"
    assert limit.used == 0


async def test_a_body_left_behind_at_the_end_gives_its_gates_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody will hear of its end, and the next run of the app has the same flow."""
    monkeypatch.setattr("quarterjack._app_life.LAST_GRACE_S", 0.1)
    app = Quarterjack(shutdown_grace=0)
    limit = ConcurrencyLimit(1)
    release, ended = threading.Event(), threading.Event()

    @app.task(flow=Flow(limit), cancel_grace=0.01)
    def stuck() -> None:
        release.wait(10)
        ended.set()

    async with app:
        job = await app.submit(stuck)
        while job.state is not JobState.RUNNING:
            await asyncio.sleep(0.01)
    assert limit.used == 0
    release.set()
    await asyncio.to_thread(ended.wait, 10)


async def test_wraps_surround_the_body_inside_its_gates() -> None:
    """They see what it returns, and may make something else of it."""

    class Twice(Wrap):
        async def __call__(self, job: Waiting, proceed: Any) -> Any:
            assert job.task == "sleeper"
            return 2 * await proceed()

    app = Quarterjack()
    task = sleeper(app, flow=Flow(Twice(), Twice()))
    plain = app.task(name="sleeper2", flow=None)(asyncio.sleep)
    async with virtual_time(app):
        assert await (await app.submit(task, 1.0)) == 4.0
        await (await app.submit(plain, 1.0))


async def test_keys_are_found_among_arguments_and_metadata() -> None:
    """Dependencies are no arguments: they do not shift the places of those that are."""
    app = Quarterjack()
    by_argument, by_metadata = ConcurrencyLimit(1, by="tenant"), ConcurrencyLimit(1, by="region")

    @app.task(flow=Flow(by_argument, by_metadata))
    async def call(asked: int = Depends(lambda: 7), tenant: str = "none") -> int:
        await asyncio.sleep(5)
        return asked

    async with virtual_time(app) as world:
        task: Any = call  # for a checker its first argument is the dependency
        await app.submit(task.options(metadata={"region": "eu"}), "acme")
        await app.submit(task.options(metadata={"region": "us"}), "initech")
        with pytest.raises(InvalidOption, match="neither a key nor an argument of that name"):
            await app.submit(task, "acme")
        await world.run_for(1)
        assert set(by_argument.stats_by_key()) == {"acme", "initech"}
        assert set(by_metadata.stats_by_key()) == {"eu", "us"}


# -- fallbacks --------------------------------------------------------------------------


async def test_fallback_stands_in_for_a_job_that_failed_for_good() -> None:
    """A value, a function of the error, a coroutine function; other errors are raised as ever."""

    async def later(error: BaseException) -> str:
        await asyncio.sleep(1)
        return f"later: {error}"

    class Shut(Gate):
        def eta(self, job: Waiting, now: float) -> float:
            raise CircuitOpen("api")

    app = Quarterjack()

    async def fails() -> str:
        raise Boom("gone")

    value = app.task(name="value", flow=Flow(Fallback("cached")), retry=2)(fails)
    called = app.task(name="called", flow=Flow(Fallback(lambda error: f"was {error}")))(fails)
    awaited = app.task(name="awaited", flow=Flow(Fallback(later)))(fails)
    other = app.task(name="other", flow=Flow(Fallback("x", on=(OSError,))))(fails)
    refused = app.task(name="refused", flow=Flow(Fallback("closed"), Shut()))(fails)
    broken = app.task(name="broken", flow=Flow(Fallback(lambda error: 1 / 0)))(fails)
    async with virtual_time(app):
        assert await (await app.submit(value)) == "cached"
        assert await (await app.submit(called)) == "was gone"
        assert await (await app.submit(awaited)) == "later: gone"
        assert await (await app.submit(refused)) == "closed"
        with pytest.raises(JobFailed, match="gone"):
            await (await app.submit(other))
        with pytest.raises(JobFailed, match="division by zero"):
            await (await app.submit(broken))


async def test_a_refusal_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """In an outage there are thousands, and none has a fault in the code to trace."""

    class Shut(Gate):
        def eta(self, job: Waiting, now: float) -> float:
            raise CircuitOpen("api")

    app = Quarterjack()

    @app.task(flow=Shut())
    async def call() -> None: ...

    async with virtual_time(app):
        with pytest.raises(JobFailed, match="api is open"):
            await (await app.submit(call))
    (line,) = [line for line in caplog.records if "turned away" in line.getMessage()]
    assert (line.levelname, line.exc_info) == ("WARNING", None)


# -- keys and looking -------------------------------------------------------------------


async def test_a_job_without_a_key_is_told_what_an_app_takes() -> None:
    """The bug: it named `options(key=…)`, which a `TaskManager` has and an app refuses."""
    app = Quarterjack()
    limit = ConcurrencyLimit(1, by="tenant")
    task = sleeper(app, flow=Flow(limit))
    async with virtual_time(app) as world:
        with pytest.raises(InvalidOption, match=r"give it one: metadata=\{'tenant': …\} in options"):
            await app.submit(task, 1.0)
        job = await app.submit(task.options(metadata={"tenant": "acme"}), 1.0)
        await world.run_for(2)
        assert job.state is JobState.DONE


async def test_a_trigger_whose_runs_would_have_no_key_is_refused_at_the_start() -> None:
    """The bug: it was accepted, and then every run failed."""
    app = Quarterjack()

    @app.task(Every(seconds=10), flow=Flow(ConcurrencyLimit(1, by="nope")))
    async def tick() -> None: ...

    with pytest.raises(InvalidOption, match=r"task 'tick' has a trigger.*metadata=\{'nope': …\}"):
        async with virtual_time(app):
            raise AssertionError("it started")


@pytest.mark.parametrize("where", ["argument", "task", "app", "group", "function", "no trigger"])
async def test_a_trigger_whose_runs_have_a_key_starts(where: str) -> None:
    """It may come from an argument's default, or from metadata at any level; a function finds its own."""
    metadata: Any = {"metadata": {"tenant": "acme"}}
    app = Quarterjack(**metadata) if where == "app" else Quarterjack()
    group = Group(**metadata) if where == "group" else Group()
    by: Any = (lambda job: job.task) if where == "function" else "tenant"
    trigger = None if where == "no trigger" else Every(seconds=10)
    decorate = group.task(trigger, flow=Flow(ConcurrencyLimit(1, by=by)), **(metadata if where == "task" else {}))
    if where == "argument":

        async def with_argument(tenant: str = "acme") -> None: ...

        decorate(with_argument)
    else:

        async def without() -> None: ...

        decorate(without)
    app.include_group(group)
    async with virtual_time(app) as world:
        await world.run_for(25)
        assert {job.state for job in world.jobs()} == (set() if trigger is None else {JobState.DONE})


async def test_why_of_a_fire_time_whose_run_waits_names_what_holds_it_up() -> None:
    """The bug: it was said to be about to begin, for as long as the gate was full."""
    app = Quarterjack()
    gate = ConcurrencyLimit(1, name="printer")

    @app.task(Every(minutes=1), flow=Flow(gate), overlap="allow")
    async def page() -> None:
        await asyncio.sleep(90)

    async with virtual_time(app, start="2026-03-02T09:00:30") as world:
        await world.run_until("2026-03-02T09:02:10")
        one, two = world.jobs(page)
        said = [await app.why("page", job.nominal or world.now) for job in (one, two)]
        assert [why.kind for why in said] == ["open", "open"]
        assert "still running" in said[0].words
        assert said[1].words == (
            f"job {two.id} for Monday 2 March 2026 at 09:02 UTC waits: {(await app.why_waiting(two)).words}"
        )
        assert "printer is full" in said[1].words


def test_a_simulation_leaves_the_gates_alone() -> None:
    """They belong to the loop of the app, and remember its jobs alone: a play has copies."""
    app = Quarterjack()
    door = Door()

    @app.task(Every(seconds=10), flow=Flow(door))
    async def tick() -> None: ...

    assert simulate(app, "1m").schedules[0].runs == 6
    assert not door.told


# -- refusals ---------------------------------------------------------------------------


async def test_what_makes_no_sense_is_refused_where_it_is_written() -> None:
    """Each says what to use instead."""
    app = Quarterjack()
    task = sleeper(app)
    with pytest.raises(InvalidOption, match=r"a flow belongs to a task, @app.task\(flow=…\)"):
        task.options(flow=Flow())  # type: ignore[call-arg]
    with pytest.raises(InvalidOption, match="retry=3 is given too; give one of the two"):
        app.task(name="x", retry=3, flow=Flow(Retry(on=Exception, attempts=2)))(asyncio.sleep)
    with pytest.raises(InvalidOption, match='an option of theirs: unique="…"'):
        app.task(name="y", flow=Flow(Dedupe(by="seconds")))(asyncio.sleep)
    with pytest.raises(InvalidOption, match=r"flow must be a Flow .*\(the class; make an object of it\)"):
        app.task(flow=ConcurrencyLimit)  # type: ignore[call-overload]
    with pytest.raises(InvalidOption, match="flow must be a Flow"):
        Group("g", flow=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="flow must be a Flow"):
        app.queue("q", flow=None)  # type: ignore[arg-type]
    app.queue("q", flow=Flow())
    with pytest.raises(DuplicateName, match="has a flow already"):
        app.queue("q", flow=Flow())
    async with virtual_time(app):
        with pytest.raises(InvalidOption, match="a flow belongs to a task"):
            await app.schedule(task.bind(1.0), Every(seconds=1), flow=Flow())  # type: ignore[call-arg]


async def test_two_orders_are_refused_before_the_app_starts() -> None:
    """They cannot both say who is next."""

    class First(Order):
        def rank(self, job: Waiting, now: float) -> float:
            return now

    shared = First()
    app = Quarterjack()
    app.queue("same", flow=Flow(shared))
    app.queue("other", flow=Flow(First()))
    task = sleeper(app, queue="same", flow=Flow(shared))
    async with virtual_time(app):
        with pytest.raises(InvalidOption, match="two Orders cannot both say who is next"):
            await app.submit(task.options(queue="other"), 1.0)
    app.task(name="wrong", queue="other", flow=Flow(shared))(asyncio.sleep)
    with pytest.raises(InvalidOption, match="task 'wrong' in queue 'other'"):
        await app.__aenter__()


def test_a_gate_belongs_to_one_loop() -> None:
    """Two apps on two loops cannot share it, and hear of it at the start, not job by job."""
    limit = ConcurrencyLimit(1)
    first, second = Quarterjack(flow=limit), Quarterjack(flow=limit)
    sleeper(first)
    sleeper(second)

    async def start() -> None:
        async with second:
            pass

    with first.in_thread(), pytest.raises(WrongLoop, match="belongs to the event loop that used it first"):
        asyncio.run(start())
    asyncio.run(start())  # the first one's loop is gone: now it is free


# -- everything at random ---------------------------------------------------------------

_ENDS = st.sampled_from(["return", "raise", "snooze", "timeout", "ignore"])
_JOB = st.tuples(
    st.integers(0, 2),  # task
    _ENDS,
    st.floats(0.0, 4.0),  # how long it takes
    st.one_of(st.none(), st.floats(0.0, 8.0)),  # when it is cancelled
    st.floats(0.0, 3.0),  # when it is submitted
)


@settings(max_examples=60, deadline=None)
@given(jobs=st.lists(_JOB, min_size=1, max_size=25), limit=st.integers(1, 3), slots=st.integers(1, 4))
def test_whatever_happens_limits_hold_and_nothing_stays_taken(
    jobs: list[tuple[int, str, float, float | None, float]], limit: int, slots: int
) -> None:
    """Cancels, timeouts, exceptions and retries, of three tasks with common gates, with few slots."""
    asyncio.run(_play(jobs, limit, slots))


async def _play(plan: list[tuple[int, str, float, float | None, float]], limit: int, slots: int) -> None:
    app = Quarterjack(concurrency=slots)
    common, own, door = ConcurrencyLimit(limit), ConcurrencyLimit(1), Door()
    flows = [
        Flow(common, Retry(on=Exception, attempts=2, base=0.5, jitter="none")),
        Flow(common, own, door),
        Flow(door),
    ]
    app.queue("default", flow=Flow(Door(by=lambda job: job.task)))
    inside = {"common": 0, "own": 0, "all": 0}

    @contextlib.asynccontextmanager
    async def counted(kind: int) -> AsyncIterator[None]:
        names = [["common"], ["common", "own"], []][kind]
        for name in (*names, "all"):
            inside[name] += 1
        assert inside["common"] <= limit
        assert inside["own"] <= 1
        assert inside["all"] <= slots
        try:
            yield
        finally:
            for name in (*names, "all"):
                inside[name] -= 1

    async def body(kind: int, end: str, seconds: float) -> None:
        async with counted(kind):
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                if end != "ignore":
                    raise
                await asyncio.sleep(1)
            if end == "raise":
                raise Boom

    tasks = [app.task(name=f"task{n}", flow=flow, cancel_grace=0.25)(body) for n, flow in enumerate(flows)]

    async def one(kind: int, end: str, seconds: float, cancel_after: float | None, begin: float) -> Job[None]:
        await asyncio.sleep(begin)
        task = tasks[kind].options(timeout=seconds / 2 + 0.01) if end in {"timeout", "ignore"} else tasks[kind]
        job = await app.submit(task, kind, end, seconds)
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            await job.cancel(wait=0)
        return job

    async with virtual_time(app) as world:
        running = [spawn(one(*each)) for each in plan]
        await world.run_for(timedelta(minutes=5))
        made = [await each for each in running]
        assert all(job.state.is_finished for job in made), states(made)
        assert (common.used, own.used, door.inside, inside["all"]) == (0, 0, {}, 0)
