"""The edges of the dispatcher and its rooms: each test tells of one way to hang, to leak or to spin."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import sys
from collections.abc import Awaitable
from typing import Any

import pytest

from quarterjack import (
    AdaptiveLimit,
    ConcurrencyLimit,
    Flow,
    InvalidOption,
    JobCancelled,
    JobState,
    QueueFull,
    TaskManager,
    WaitedTooLong,
    WrongLoop,
    current_job,
)
from quarterjack.flow.base import Gate, Order
from quarterjack.flow.dispatcher import STEPS_PER_TURN
from quarterjack.flow.outcome import RETURNED
from quarterjack.flow.waiting import Waiting
from quarterjack.testing import virtual_loop

from .toys import Job, Levels, Slots, Switch, Toy, bench

EAGER = pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks start eagerly from Python 3.12 on")


def jobs(count: int, *, key: int | None = None) -> list[Job]:
    return [Job(n, 0, n if key is None else key, 1.0, 0, 0.0) for n in range(count)]


class Answers(Gate):
    """Says what it was told to say."""

    def __init__(self, eta: Any) -> None:
        super().__init__()
        self.answer = eta

    def eta(self, job: Waiting, now: float) -> Any:
        return self.answer


# ---------------------------------------------------------------- turns of the loop


def test_a_thousand_starts_leave_the_loop_turns_for_others() -> None:
    """Where tasks begin eagerly a start runs a body's first part, and nobody else would be served meanwhile."""
    loop, room, begun, _ = bench()
    for job in jobs(1000):
        room.put(job)
    heard: list[int] = []
    while not heard or heard[-1] < 1000:
        loop.call_soon(lambda: heard.append(len(begun)))
        loop.turn()
    assert max(b - a for a, b in zip([0, *heard], heard, strict=False)) <= STEPS_PER_TURN
    assert [job.id for job in begun] == [str(n) for n in range(1000)]


def test_refusals_are_as_many_in_a_turn_as_starts() -> None:
    """An open breaker turns away a hundred thousand jobs without holding the loop up."""

    class Closed(Gate):
        def eta(self, job: Waiting, now: float) -> float:
            raise OSError

    loop, room, _, refused = bench(Closed())
    for job in jobs(1000):
        room.put(job)
    loop.turn()
    assert 0 < len(refused) <= STEPS_PER_TURN
    loop.settle()
    assert (len(refused), room.size) == (1000, 0)


def test_a_gate_that_wakes_itself_when_it_is_asked_does_not_spin() -> None:
    """A loop that is never quiet keeps a core busy, and no virtual clock moves."""

    class Restless(Gate):
        def eta(self, job: Waiting, now: float) -> float:
            self.wake()
            return math.inf

    gate = Restless()
    loop, room, _, _ = bench(gate, Slots("s", by="k"))
    for job in jobs(5):
        room.put(job)
    loop.settle()
    gate.wake()
    loop.settle()
    assert loop.turns < 20


# ---------------------------------------------------------------- gates that answer nonsense


@pytest.mark.parametrize("eta", [math.nan, None, "now", 10**400, [], object()], ids=lambda eta: type(eta).__name__)
def test_an_answer_that_is_no_instant_fails_that_job_alone(eta: Any) -> None:
    """A gate's mistake is told to those who pass it, and stops nobody else's pump."""
    gate = Answers(eta)
    loop, room, begun, refused = bench(gate)
    one, two = jobs(2)
    room.put(one)
    loop.settle()
    assert isinstance(one.error, ValueError | TypeError | OverflowError)
    gate.answer = 0.0
    room.put(two)
    loop.settle()
    assert (begun, refused, room.size) == ([two], [one], 0)
    assert len(room.dispatcher.alarms) == 0


def test_a_rank_that_is_no_number_is_refused_at_the_door() -> None:
    """Among ranks that cannot be compared a job would never be found again."""

    class Nowhere(Order):
        def rank(self, job: Waiting, now: float) -> float:
            return math.nan

    _, room, _, _ = bench(order=Nowhere())
    with pytest.raises(ValueError, match="nan"):
        room.put(jobs(1)[0])
    assert room.size == 0


def test_take_that_raises_gives_back_what_was_taken_before_even_if_that_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All gates or none; and the pump goes on to the next job."""
    first, second, third = Toy("first"), Toy("second"), Toy("third")
    loop, room, begun, refused = bench(first, second, third)
    second.faults.add("give")
    third.faults.add("take")
    one, two = jobs(2)
    room.put(one)
    room.put(two)
    with caplog.at_level(logging.CRITICAL, "quarterjack.flow"):
        loop.settle()
    assert (begun, refused) == ([two], [one])
    assert [list(gate.inside) for gate in (first, second, third)] == [["1"], ["1"], ["1"]]


def test_a_start_that_fails_gives_everything_back() -> None:
    """A loop's own task factory may raise."""
    slots = Slots("s")
    loop, room, _, refused = bench(slots)

    def start(job: Job) -> None:
        raise OSError("no more tasks")

    room.start = start
    for job in jobs(3):
        room.put(job)
    loop.settle()
    assert (len(refused), slots.inside, room.size) == (3, {}, 0)


# ---------------------------------------------------------------- what must not pile up


def test_a_gate_that_names_a_later_instant_each_time_has_one_alarm() -> None:
    """It is asked with each job that comes and goes."""

    class Later(Gate):
        def eta(self, job: Waiting, now: float) -> float:
            return now + 60.0

    loop, room, _, _ = bench(Later())
    for job in jobs(1000):
        room.put(job)
        loop.advance(0.001)
        room.remove(job)
    loop.settle()
    assert len(room.dispatcher.alarms) <= 2
    assert loop.timers <= 1
    assert loop.timers_set < 20


def test_cancelled_alarms_leave_nothing_behind_and_do_not_wake_an_idle_loop() -> None:
    """Each job with a timeout of an hour would stay for an hour, and wake the process after it."""
    loop, room, _, _ = bench()
    alarms = room.dispatcher.alarms
    kept = alarms.call_at(5000.0, lambda: None)
    for n in range(1000):
        alarms.call_at(3600.0 + n, lambda: None).cancel()
        assert len(alarms) <= 200
    kept.cancel()
    assert (len(alarms), loop.timers) == (0, 0)


def test_an_alarm_that_raises_does_not_silence_the_others() -> None:
    """One timer serves them all."""
    loop, room, _, _ = bench()
    rung: list[int] = []

    def fail() -> None:
        raise KeyError

    room.dispatcher.call_at(1.0, fail)
    room.dispatcher.call_at(1.0, lambda: rung.append(1))
    with pytest.raises(KeyError):
        loop.advance(1.0)
    loop.advance(1.0)
    assert rung == [1]


def test_keys_that_come_and_go_leave_no_more_than_are_in_use() -> None:
    """Ten thousand tenants in turn are not ten thousand gates, whether they are served, refused or cancelled."""

    class Picky(Slots):
        def opens(self, job: Waiting, now: float) -> float:
            if int(job.id) % 3 == 0:
                raise OSError
            return super().opens(job, now)

    gate = Picky("s", by="k")
    loop, room, begun, _ = bench(gate)
    for job in jobs(3000):
        room.put(job)
        if int(job.id) % 3 == 1:
            room.remove(job)
        loop.settle()
        for done in begun:
            room.dispatcher.give(done, RETURNED)
        begun.clear()
    assert len(room._lanes) <= 5
    assert len(gate.keys()) <= 5


def test_one_key_used_again_and_again_is_noted_once() -> None:
    """It falls idle after each job."""
    loop, room, begun, _ = bench(Slots("s", by="k"))
    for job in jobs(500, key=1):
        room.put(job)
        loop.settle()
        room.dispatcher.give(begun.pop(), RETURNED)
    assert len(room._faded) == 1


def test_two_rooms_never_see_two_gates_of_one_key() -> None:
    """A room that drops its lane must not drop the gate that another room still passes."""
    gate = Slots("s", by="k")
    loop, room, begun, _ = bench(gate)
    other = Flow(gate).room(room.dispatcher, begun.append, lambda job, error: None)

    def serve(job: Job, into: Any) -> None:
        into.put(job)
        loop.settle()
        room.dispatcher.give(begun.pop(), RETURNED)

    serve(Job(0, 0, "a", 1.0, 0, 0.0), room)
    serve(Job(1, 1, "a", 1.0, 0, 0.0), other)
    for n in range(2, 20):
        serve(Job(n, 0, n, 1.0, 0, 0.0), room)  # "a" has long been dropped here
    for n, into in enumerate((other, other, room, room), start=20):
        into.put(Job(n, 0, "a", 1.0, 0, 0.0))
    loop.settle()
    assert len(begun) == 2


async def test_gates_of_keys_outlive_a_manager_only_while_they_remember() -> None:
    """A manager for each request, with one limit for them all."""
    limit = ConcurrencyLimit(1, by="k")

    async def work(k: int) -> None: ...

    for k in range(50):
        async with TaskManager(limit) as manager:
            manager.submit(work, k)
        del manager
        if k % 10 == 0:
            gc.collect()
    assert len(limit.keys()) < 30


def test_a_bounded_room_does_not_remember_who_left_it() -> None:
    """A million jobs through a queue that is never full."""
    loop, room, begun, _ = bench(max_queue=10, overflow="drop_oldest")
    for job in jobs(1000):
        room.put(job)
        loop.settle()
        room.dispatcher.give(begun.pop(), RETURNED)
    assert len(room._arrivals) < 100


# ---------------------------------------------------------------- order


def test_a_bare_pass_does_not_overtake_who_came_in_the_same_turn() -> None:
    """First come, first served, although a job waits for the loop's next turn and a pass need not."""
    gate = Slots("s")
    loop, room, begun, _ = bench(gate)
    turnstile = Flow(gate).room(room.dispatcher, begun.append, lambda job, error: None)
    one, two = jobs(2)
    room.put(one)
    assert not turnstile.pass_at_once(two)
    turnstile.put(two)
    loop.settle()
    assert begun == [one, two]


def test_an_order_hears_what_became_of_each_job() -> None:
    """Fair shares count who was chosen, and forget who left."""
    order = Levels()
    gate = Switch("g")
    loop, room, _, _ = bench(gate, order=order)
    gate.is_on = False
    one, two, three = jobs(3)
    for job in (one, two, three):
        room.put(job)
    room.remove(one)
    gate.faults.add("eta")
    gate.is_on = True
    gate.wake()
    loop.settle()
    assert order.gone == [("left", "0"), ("left", "1"), ("chosen", "2")]


# ---------------------------------------------------------------- bounds


def test_open_gates_let_a_burst_through_a_short_queue() -> None:
    """Who has a free slot does not wait, so he is not one too many, even in the very turn he came."""
    slots = Slots("s")
    _, room, begun, _ = bench(slots, max_queue=1)
    for job in jobs(3):
        room.put(job)
    assert len(begun) == 2
    with pytest.raises(QueueFull):
        room.put(Job(3, 0, None, 1.0, 0, 0.0))


def test_a_job_that_comes_back_may_wait_its_full_time_again() -> None:
    """A retry keeps the age of its job, which is no reason to turn it away."""
    gate = Switch("g")
    loop, room, begun, refused = bench(gate, max_wait_s=10.0)
    (job,) = jobs(1)
    room.put(job)
    loop.advance(8.0)
    room.dispatcher.give(begun.pop(), RETURNED)
    gate.is_on = False
    room.put(job)
    loop.advance(9.0)
    assert not refused
    loop.advance(1.5)
    assert isinstance(job.error, WaitedTooLong)


async def test_submitters_get_room_in_the_order_in_which_they_asked() -> None:
    """One who is cancelled meanwhile passes his turn on; nobody is woken for nothing."""
    done: list[int] = []

    async def work(n: int) -> None:
        await asyncio.sleep(1)
        done.append(n)

    with virtual_loop():
        async with TaskManager(Flow(ConcurrencyLimit(1), max_queue=2, overflow="block")) as manager:
            waits = [asyncio.create_task(manager.submit_wait(work, n)) for n in range(12)]
            await asyncio.sleep(1.5)
            waits[4].cancel()
            waits[5].cancel()
            await asyncio.sleep(2)
            waits[9].cancel()
            await asyncio.gather(*waits, return_exceptions=True)
    assert done == [0, 1, 2, 3, 6, 7, 8, 10, 11]


async def test_room_offered_to_one_who_is_cancelled_goes_to_the_next() -> None:
    """Nobody else may leave for an hour, and the room is not full."""

    async def work() -> None:
        await asyncio.sleep(3600)

    async with TaskManager(Flow(ConcurrencyLimit(1), max_queue=1, overflow="block")) as manager:
        running, queued = [await manager.submit_wait(work) for _ in range(2)]
        first, second = [asyncio.create_task(manager.submit_wait(work)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await queued.cancel()
        first.cancel()
        async with asyncio.timeout(1):
            last = await second
        assert first.cancelled()
        await asyncio.gather(running.cancel(), last.cancel())


# ---------------------------------------------------------------- cancel in every phase


async def test_a_pass_that_is_cancelled_in_the_turn_it_was_refused_counts_once() -> None:
    """It has left the room already; leaving twice would make room for one too many."""
    gate = Switch("g")
    gate.is_on = False
    passing = asyncio.create_task(gate.__aenter__())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.faults.add("eta")
    gate.wake()
    loop = asyncio.get_running_loop()
    loop.call_soon(passing.cancel)
    with pytest.raises((asyncio.CancelledError, OSError)):
        await passing
    assert gate._turnstile is not None
    assert gate._turnstile.room.size == 0


async def test_a_pass_whose_coroutine_is_closed_leaves_its_place() -> None:
    """As a generator does that nobody runs to its end."""
    limit = ConcurrencyLimit(1)
    async with limit.permit():  # not `async with limit`: a task that waits for what it holds itself is told
        entering: Any = limit.__aenter__()
        entering.send(None)
        entering.close()
    async with asyncio.timeout(1):
        async with limit:
            pass
    assert limit.used == 0


async def test_a_body_that_ignores_its_cancellation_keeps_its_slot_until_it_ends() -> None:
    """Whoever shares the limit must not run beside it; and the slot comes back once."""
    limit = ConcurrencyLimit(2)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    manager = TaskManager(limit, grace=0.01)
    async with manager:
        job = manager.submit(stubborn)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await manager.stop(drain=False)
    assert job.state is JobState.CANCELLED
    assert limit.used == 1
    release.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert limit.used == 0
    assert job.state is JobState.CANCELLED


async def test_a_body_may_cancel_its_own_job_before_it_first_waits() -> None:
    """Where tasks begin eagerly nobody has its task yet."""
    limit = ConcurrencyLimit(1)

    async def work() -> None:
        await asyncio.gather(own[0].cancel(wait=0))
        await asyncio.sleep(3600)

    async def plain() -> None:
        manager._jobs.engine.cancel(own[0]._record)  # type: ignore[union-attr]
        await asyncio.sleep(3600)

    for body in (work, plain):
        async with TaskManager(limit) as manager:
            own: list[Any] = []
            own.append(manager.submit(body))
            with pytest.raises(JobCancelled):
                await own[0]
            assert own[0].state is JobState.CANCELLED
        assert limit.used == 0


@EAGER
async def test_a_factory_of_eager_tasks_leaves_no_trace_of_bodies_that_end_at_once() -> None:
    """The task is over before its maker has it: a retry that pauses must not hold an old one."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    tries: list[int] = []

    async def flaky() -> str:
        tries.append(current_job().attempt)
        raise OSError

    try:
        async with TaskManager() as manager:
            job = manager.options(retry=3, delay=0).submit(flaky)
            await asyncio.sleep(0.01)
            record: Any = job._record
            assert record.worker is None
            assert await job.cancel()
    finally:
        loop.set_task_factory(None)
    assert tries == [1]


async def test_a_job_that_is_refused_before_the_block_is_entered_fails_alone() -> None:
    """The others run, and the one who awaits it is told."""

    async def work(n: int) -> int:
        return n

    manager = TaskManager(Flow(ConcurrencyLimit(1), max_queue=1))
    early = [manager.submit(work, n) for n in range(4)]
    async with manager:
        results = await asyncio.gather(*map(as_awaitable, early), return_exceptions=True)
    assert results[:2] == [0, 1]
    assert all(isinstance(result, QueueFull) for result in results[2:])


async def as_awaitable(job: Awaitable[Any]) -> Any:
    return await job


async def test_a_start_is_told_to_who_asked_although_the_flow_is_plain() -> None:
    """Callbacks hear of each move."""
    told: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)

    async with TaskManager(ConcurrencyLimit(1)) as manager:
        job = manager.submit(work)
        job.on_start(lambda _: told.append("start"))
        await job
    assert told == ["start"]


# ---------------------------------------------------------------- loops


def test_a_gate_goes_on_with_the_next_loop_and_keys_do_not_hide_the_wrong_one() -> None:
    """Two loops with different keys share a gate as much as two with the same."""
    limit = ConcurrencyLimit(1, by="k")

    async def use(k: int, *, leave: bool = True) -> None:
        one = limit.permit(k=k)
        await one.__aenter__()
        if leave:
            await one.__aexit__(None, None, None)

    asyncio.run(use(1, leave=False))  # the loop goes down with the slot
    asyncio.run(asyncio.wait_for(use(1), 1))
    with asyncio.Runner() as runner:
        runner.run(use(1))
        there = asyncio.new_event_loop()
        try:
            with pytest.raises(WrongLoop):
                there.run_until_complete(TaskManager(limit).__aenter__())
        finally:
            there.close()


async def test_keyed_permits_pass_without_waiting_for_a_turn() -> None:
    """An open gate costs no turn of the loop, with keys as without."""
    limit = ConcurrencyLimit(1, by="k")
    entering: Any = limit.permit(k=1).__aenter__()
    with pytest.raises(StopIteration):
        entering.send(None)
    with pytest.raises(InvalidOption):
        await limit.permit().__aenter__()


@pytest.mark.parametrize("limit", [ConcurrencyLimit(10), AdaptiveLimit(10, 1, 10, pressure=None)], ids=repr)
async def test_costs_that_are_no_whole_numbers_leave_nothing_behind(limit: ConcurrencyLimit | AdaptiveLimit) -> None:
    """In binary 0.1 + 0.7 - 0.1 - 0.7 is not 0: crumbs would close a gate for ever to whoever needs all of it."""
    costs = (0.1, 0.7, 2.3, 0.3, 1.1, 0.2)
    passes = [limit.permit(cost=cost) for cost in costs]
    for one in passes:
        await one.__aenter__()
    for one in passes:
        await one.__aexit__(None, None, None)
    assert limit.used == 0
    async with asyncio.timeout(1), limit.permit(cost=10):
        assert limit.used == 10
    with virtual_loop():
        async with TaskManager(ConcurrencyLimit(1)) as manager:
            job = [manager.options(cost=0.1).submit(asyncio.sleep, 1) for _ in range(10)]
            await asyncio.sleep(0.5)
            assert [one.state for one in job] == [JobState.RUNNING] * 10


async def test_a_job_that_costs_more_than_a_limit_that_shrank_holds_nobody_up() -> None:
    """It could never start, nor could anybody behind it."""
    limit = ConcurrencyLimit(3)
    async with TaskManager(limit) as manager:
        manager.submit(asyncio.sleep, 0.01)
        wide = manager.options(cost=3).submit(asyncio.sleep, 0)
        await asyncio.sleep(0)
        limit.update(max_concurrent=2)
        narrow = manager.submit(asyncio.sleep, 0)
        async with asyncio.timeout(5):
            with pytest.raises(InvalidOption, match="cost=3 is above max_concurrent=2"):
                await wide
            await narrow


async def test_keys_whose_passes_are_refused_are_forgotten() -> None:
    """Anybody may ask for too much under names without end."""

    class Refusing(Gate):
        def eta(self, job: Waiting, now: float) -> float:
            return math.inf

        def check(self, job: Waiting) -> None:
            raise InvalidOption("never")

        def is_idle(self, now: float) -> bool:
            return True

    gate = Refusing(by="tenant")
    for tenant in range(50):
        with pytest.raises(InvalidOption, match="never"):
            async with gate.permit(tenant=tenant):
                pytest.fail("it was let in")
    assert len(gate.keys()) < 10
