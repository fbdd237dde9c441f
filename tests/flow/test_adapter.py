"""Strategies of three methods inside a flow: their order, their pauses, their mistakes."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import (
    ConcurrencyLimit,
    Delay,
    Flow,
    Gate,
    InvalidOption,
    JobState,
    Order,
    Quarterjack,
    Retry,
    StrategyAdapter,
    TaskManager,
    UsageError,
    Waiting,
)
from quarterjack.testing import virtual_loop, virtual_time


class Queue:
    """First come, first served, without a pause. Tells how often it was asked."""

    def __init__(self) -> None:
        self.tasks: deque[Waiting] = deque()
        self.asked = 0

    def add_task(self, task: Waiting) -> None:
        self.tasks.append(task)

    def get_next_task(self) -> Waiting | None:
        self.asked += 1
        return self.tasks.popleft() if self.tasks else None

    async def get_sleep_interval(self) -> float | None:
        return None


class Slots(Queue):
    """At most so many at once, as such a strategy counts them itself."""

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.free = slots

    def get_next_task(self) -> Waiting | None:
        if not self.free:
            self.asked += 1
            return None
        task = super().get_next_task()
        self.free -= task is not None
        return task

    async def on_task_done(self) -> None:
        await asyncio.sleep(0)
        self.free += 1


class Paced(Queue):
    """Names a pause, whoever is next, as its page taught it."""

    def __init__(self, pause: float) -> None:
        super().__init__()
        self.pause = pause

    async def get_sleep_interval(self) -> float | None:
        return self.pause


class LastFirst(Queue):
    """The newest first."""

    def get_next_task(self) -> Waiting | None:
        return self.tasks.pop() if self.tasks else None


async def starts_of(manager: TaskManager, count: int, seconds: float = 0.0) -> list[tuple[int, float]]:
    """Run so many jobs; return which began when, in order."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    starts: list[tuple[int, float]] = []

    async def work(n: int) -> None:
        starts.append((n, round(loop.time() - began, 3)))
        await asyncio.sleep(seconds)

    async with manager:
        for n in range(count):
            manager.submit(work, n)
    return starts


async def test_jobs_start_in_the_order_of_the_strategy() -> None:
    """It keeps the queue, and so it chooses."""
    with virtual_loop():
        starts = await starts_of(TaskManager(StrategyAdapter(LastFirst())), 4)
    assert [n for n, _ in starts] == [3, 2, 1, 0]


async def test_pause_after_a_job_is_kept_in_full() -> None:
    """Nothing that happens meanwhile cuts it short, not even that job's end."""
    with virtual_loop():
        starts = await starts_of(TaskManager(StrategyAdapter(Paced(0.1))), 4, seconds=0.03)
    assert starts == [(0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3)]


async def test_pause_counts_from_the_start_where_another_gate_is_slower() -> None:
    """Whoever was handed out and waited must not be followed by a burst."""
    with virtual_loop():
        starts = await starts_of(TaskManager(StrategyAdapter(Paced(0.1)), Delay(0.25, after="start")), 3)
        assert [at for _, at in starts] == pytest.approx([0.0, 0.25, 0.5])
        starts = await starts_of(TaskManager(StrategyAdapter(Paced(0.3)), ConcurrencyLimit(1)), 3, seconds=0.5)
        assert [at for _, at in starts] == pytest.approx([0.0, 0.5, 1.0])


async def test_strategy_is_told_of_ends_and_asked_at_once_without_polling() -> None:
    """Eight jobs through three slots take three rounds, and a question each time that something happened."""
    strategy = Slots(3)
    with virtual_loop():
        starts = await starts_of(TaskManager(StrategyAdapter(strategy)), 8, seconds=1)
        await asyncio.sleep(1)
    assert [at for _, at in starts] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert strategy.free == 3
    assert strategy.asked < 25


async def test_nobody_is_asked_while_nobody_waits() -> None:
    """An idle flow wakes nobody, whatever the strategy would say."""
    strategy = Paced(0.01)
    with virtual_loop():
        async with TaskManager(StrategyAdapter(strategy)) as manager:
            await manager.submit(asyncio.sleep, 0)
            await asyncio.sleep(0.1)
            asked = strategy.asked
            await asyncio.sleep(3600)
            assert strategy.asked == asked


async def test_strategy_that_names_no_time_is_asked_again_though_nothing_happens() -> None:
    """It may go by a clock of its own, and nobody would ever tell."""

    class Later(Queue):
        def get_next_task(self) -> Waiting | None:
            return super().get_next_task() if asyncio.get_running_loop().time() >= opens else None

    with virtual_loop():
        opens = asyncio.get_running_loop().time() + 5
        starts = await starts_of(TaskManager(StrategyAdapter(Later(), poll_interval=0.5)), 2)
    assert [at for _, at in starts] == [5, 5]


async def test_strategy_that_says_no_is_asked_again_when_it_named() -> None:
    """A time that it names after a no is the next question."""

    class Later(Queue):
        def get_next_task(self) -> Waiting | None:
            self.asked += 1
            return self.tasks.popleft() if self.tasks and loop.time() >= opens else None

        async def get_sleep_interval(self) -> float | None:
            return max(0.0, opens - loop.time())

    strategy = Later()
    with virtual_loop():
        loop = asyncio.get_running_loop()
        opens = loop.time() + 60
        starts = await starts_of(TaskManager(StrategyAdapter(strategy)), 2)
    assert [at for _, at in starts] == [60, 60]
    assert strategy.asked < 6


async def test_cancelled_job_is_passed_over_and_counts_as_done() -> None:
    """The strategy has no way to take one out, and its slot must not leak."""
    strategy = Slots(1)
    with virtual_loop():
        async with TaskManager(StrategyAdapter(strategy)) as manager:
            jobs = [manager.submit(asyncio.sleep, 1, n) for n in range(4)]
            await asyncio.sleep(0.5)
            await jobs[1].cancel()
            await jobs[2].cancel()
            assert await jobs[3] == 3
        await asyncio.sleep(0)
    assert strategy.free == 1
    assert not strategy.tasks


async def test_metadata_and_retries_reach_the_strategy() -> None:
    """It sees the job; one that is tried again comes once more."""
    seen: list[Any] = []

    class Curious(Queue):
        def add_task(self, task: Waiting) -> None:
            seen.append(task.metadata)
            super().add_task(task)

    fails = iter([True, False])

    async def work() -> str:
        if next(fails):
            raise OSError("no route")
        return "done"

    with virtual_loop():
        async with TaskManager(StrategyAdapter(Curious()), Retry(on=OSError)) as manager:
            assert await manager.options(metadata={"level": "high"}).submit(work) == "done"
    assert seen == [{"level": "high"}] * 2


@pytest.mark.parametrize("method", ["add_task", "get_next_task", "get_sleep_interval", "on_task_done"])
async def test_method_that_raises_fails_a_job_and_the_others_go_on(method: str) -> None:
    """A broken strategy must not hang the queue; where a job is over already there is only the log."""
    strategy = Slots(1)
    whole = getattr(strategy, method)
    calls = iter(range(100))

    def broken(*args: Any) -> Any:
        if next(calls) == 1:
            raise LookupError("a mistake")
        return whole(*args)

    setattr(strategy, method, broken)
    with virtual_loop():
        async with TaskManager(StrategyAdapter(strategy), Flow(ConcurrencyLimit(9))) as manager:
            jobs = [manager.submit(asyncio.sleep, 1, n) for n in range(4)]
            if method == "on_task_done":
                strategy.free += 1  # which the mistake cost
            await manager.idle()
        failed = [job for job in jobs if job.state is JobState.FAILED]
        assert all("a mistake" in str(job.reason) for job in failed)
    assert len(failed) == (0 if method == "on_task_done" else 1)
    assert sum(job.state is JobState.DONE for job in jobs) == 4 - len(failed)


async def test_gate_beside_it_that_raises_costs_no_slot() -> None:
    """Whoever was handed out and turned away is over, and nothing of it is kept."""

    class Breaks(Gate):
        calls = 0

        def eta(self, job: Waiting, now: float) -> float:
            return now

        def take(self, job: Waiting, now: float) -> None:
            self.calls += 1
            if self.calls == 1:
                raise LookupError("a mistake")

    strategy = Slots(1)
    adapter = StrategyAdapter(strategy)
    with virtual_loop():
        async with TaskManager(adapter, Breaks()) as manager:
            jobs = [manager.submit(asyncio.sleep, 1, n) for n in range(3)]
        await asyncio.sleep(0)
    assert [job.state for job in jobs] == [JobState.FAILED, JobState.DONE, JobState.DONE]
    assert strategy.free == 1
    assert adapter.stats() == {"waiting": 0, "running": 0}
    assert not adapter._gone


@pytest.mark.parametrize("answer", ["soon", -1, float("nan"), float("inf")])
async def test_interval_that_is_none_is_refused(answer: Any) -> None:
    """Jobs end with a sentence that names what it returned."""
    with virtual_loop():
        async with TaskManager(StrategyAdapter(Paced(answer))) as manager:
            jobs = [manager.submit(asyncio.sleep, 0) for _ in range(3)]
    assert [job.state for job in jobs] == [JobState.DONE, JobState.FAILED, JobState.DONE]
    assert "get_sleep_interval" in str(jobs[1].reason)


async def test_strangers_from_get_next_task_are_refused() -> None:
    """A strategy that makes jobs up would start what nobody submitted."""

    class Inventive(Queue):
        def get_next_task(self) -> Any:
            return "somebody" if len(self.tasks) > 1 else super().get_next_task()

    with virtual_loop():
        async with TaskManager(StrategyAdapter(Inventive())) as manager:
            jobs = [manager.submit(asyncio.sleep, 0) for _ in range(2)]
    assert [job.state for job in jobs] == [JobState.FAILED, JobState.FAILED]
    assert all("'somebody'" in str(job.reason) for job in jobs)


async def test_it_stands_in_a_flow_alone() -> None:
    """A bare pass has no place in the strategy's queue and would wait for ever."""
    adapter = StrategyAdapter(Queue())
    with pytest.raises(UsageError, match="chooses among the jobs of a flow"):
        async with adapter:
            pass
    with pytest.raises(InvalidOption, match="get_next_task"):
        StrategyAdapter(object())  # type: ignore[arg-type]  # the test
    with pytest.raises(InvalidOption, match="make an object"):
        StrategyAdapter(Queue)  # type: ignore[arg-type]  # the test


def test_it_is_the_order_of_its_flow_also_when_flows_are_joined() -> None:
    """It is gate and order at once, and two who say who is next are one too many."""

    class Other(Order):
        def rank(self, job: Waiting, now: float) -> float:
            return now

    adapter = StrategyAdapter(Queue())
    flow = Flow(Flow(adapter), ConcurrencyLimit(1))
    assert flow.order is adapter
    assert flow.gates[0] is adapter
    with pytest.raises(InvalidOption, match="one Order"):
        Flow(adapter, Other())


async def test_it_orders_an_app_s_task() -> None:
    """The same strategy stands on a task, with jobs that are stored."""
    app = Quarterjack()
    order: list[int] = []

    @app.task(flow=Flow(StrategyAdapter(Paced(60)), ConcurrencyLimit(1)))
    async def work(n: int) -> None:
        order.append(n)

    async with virtual_time(app, start="2026-03-02T09:00") as world:
        for n in range(3):
            await app.submit(work, n)
        await world.run_until("2026-03-02T09:05")
        began = [job.timestamps.running_at for job in world.jobs(work)]
    assert sorted(order) == [0, 1, 2]
    assert sorted(f"{at:%M}" for at in began if at) == ["00", "01", "02"]


def test_it_goes_on_in_the_next_loop() -> None:
    """A strategy that counts who runs gets back the slots of those that went down with the first one."""
    strategy = Slots(1)
    adapter = StrategyAdapter(strategy)
    for job in (running := Waiting(), Waiting()):
        adapter.came(job, 0.0)
    assert strategy.get_next_task() is running
    adapter.take(running, 0.0)
    adapter.chosen(running, 0.0)
    adapter.forget()

    async def again() -> str:
        async with TaskManager(adapter) as manager:
            return await manager.submit(asyncio.sleep, 0, "done")

    assert asyncio.run(asyncio.wait_for(again(), 5)) == "done"
    assert not strategy.tasks


# -- what must hold, against a strategy that keeps accounts ------------------------------


class Strict(Slots):
    """Random choice, slots and pauses; notes when it was asked and what it said."""

    def __init__(self, seed: int, slots: int, pause: float) -> None:
        super().__init__(slots)
        self.slots, self.pause, self.rng = slots, pause, random.Random(seed)
        self.handed: list[Waiting] = []

    def get_next_task(self) -> Waiting | None:
        if not self.free or not self.tasks:
            return None
        self.tasks.rotate(self.rng.randrange(len(self.tasks)))
        self.free -= 1
        self.handed.append(self.tasks.popleft())
        return self.handed[-1]

    async def get_sleep_interval(self) -> float | None:
        return self.pause or None


async def play(cls: type[StrategyAdapter], seed: int, slots: int, pause: float, count: int) -> None:
    """Random bodies, cancels and errors; then check what was promised."""
    rng, strategy = random.Random(seed), Strict(seed, slots, pause)
    starts: list[tuple[str, float]] = []
    running = most = 0

    async def work(n: int) -> None:
        nonlocal running, most
        starts.append((str(n), loop.time()))
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(rng.choice([0, 0.05, 0.3]))
            if rng.random() < 0.2:
                raise OSError("no route")
        finally:
            running -= 1

    with virtual_loop():
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(3600), TaskManager(cls(strategy)) as manager:
                jobs = []
                for n in range(count):
                    jobs.append(manager.submit(work, n))
                    if rng.random() < 0.3:
                        await asyncio.sleep(rng.random() / 4)
                    if rng.random() < 0.2:
                        await rng.choice(jobs).cancel()
        finally:
            await asyncio.sleep(0.01)
    assert most <= slots
    assert strategy.free == slots
    assert all(job.state is JobState.CANCELLED for job in strategy.tasks)  # type: ignore[attr-defined]  # a manager's
    assert [str(job.args[0]) for job in strategy.handed if job.started_at is not None] == [n for n, _ in starts]
    assert all(later - earlier >= pause - 1e-9 for (_, earlier), (_, later) in pairwise(starts))


@given(seed=st.integers(0, 10**6), slots=st.integers(1, 3), pause=st.sampled_from([0.0, 0.1]), count=st.integers(1, 12))
def test_order_pauses_and_slots_are_those_of_the_strategy(seed: int, slots: int, pause: float, count: int) -> None:
    """Whatever is cancelled or raises, jobs start as the strategy says, and all its slots come back."""
    asyncio.run(play(StrategyAdapter, seed, slots, pause, count))


class InOwnOrder(StrategyAdapter):
    """Broken: whoever came first starts, whomever the strategy chose."""

    def rank(self, job: Waiting, now: float) -> float:
        return job.enqueued_at

    def eta(self, job: Waiting, now: float) -> float:
        return now if self._turn is not None else super().eta(job, now)


class Forgetful(StrategyAdapter):
    """Broken: it does not tell of those that were passed over or have ended."""

    def _over(self, job: Waiting) -> None:
        super()._over(job)
        self._ends = max(0, self._ends - (self._running == 0))


class Hasty(StrategyAdapter):
    """Broken: it asks again as soon as something happens."""

    def _now(self) -> float:
        return math.inf


@pytest.mark.parametrize("cls", [InOwnOrder, Forgetful, Hasty])
def test_check_notices_an_adapter_that_is_broken(cls: type[StrategyAdapter]) -> None:
    """A property that nothing can break says nothing."""

    async def play_all() -> None:
        for seed in range(40):
            await play(cls, seed, 2, 0.1, 10)

    with pytest.raises((AssertionError, TimeoutError)):
        asyncio.run(play_all())
