"""A gate alone: ``async with gate``, with and without keys."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Deadline,
    Dedupe,
    Fallback,
    Flow,
    Hedge,
    InvalidOption,
    Priority,
    Resource,
    Retry,
    TaskManager,
    Timeout,
    UsageError,
    Waiting,
    WeightedRoundRobin,
    WouldDeadlock,
    Wrap,
    WrongLoop,
)


async def test_a_gate_guards_a_block_for_those_who_share_it() -> None:
    """The same object is the same limit, and first come is first served."""
    limit = ConcurrencyLimit(2)
    inside = most = 0
    order: list[int] = []

    async def work(n: int) -> None:
        nonlocal inside, most
        async with limit:
            order.append(n)
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work(n) for n in range(20)))
    assert most == 2
    assert order == list(range(20))
    assert limit.used == 0


async def test_cancelled_while_it_waits_it_leaves_nothing_taken() -> None:
    """Neither before its turn nor in the very turn in which it was let in."""
    limit = ConcurrencyLimit(1)

    async def hold() -> None:
        async with limit:
            await asyncio.sleep(3600)

    for turns in range(4):
        first = asyncio.create_task(hold())
        await asyncio.sleep(0)
        second = asyncio.create_task(hold())
        await asyncio.sleep(0)
        first.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await asyncio.sleep(0)
        assert limit.used == 0


async def test_keys_have_limits_of_their_own() -> None:
    """One tenant's crowd is not another's."""
    limit = ConcurrencyLimit(1, by="tenant")
    async with limit.permit(tenant="acme"), limit.permit(tenant="blue"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), limit.permit(tenant="acme"):
                pass
    async with limit.permit(tenant="acme"):
        assert limit.stats_by_key()["acme"]["used"] == 1


async def test_a_flow_takes_all_its_gates_or_none() -> None:
    """Who waits for one gate holds no other up."""
    narrow, wide = ConcurrencyLimit(1), ConcurrencyLimit(2)
    flow = Flow(narrow, wide)
    async with narrow:
        waiting = asyncio.create_task(flow.permit().__aenter__())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert wide.used == 0
    await waiting
    assert (narrow.used, wide.used) == (1, 1)


async def test_a_pass_taken_in_one_task_may_be_left_in_another() -> None:
    """As a fixture does, or a generator that somebody else closes."""
    limit = ConcurrencyLimit(2)
    await asyncio.create_task(limit.__aenter__())
    async with limit:
        assert limit.used == 2
    await asyncio.create_task(limit.__aexit__(None, None, None))
    assert limit.used == 0


async def test_a_pass_lets_one_in_at_a_time() -> None:
    """The bug: who entered it twice was counted once, and a router kept a pass for ever."""
    router = WeightedRoundRobin(Resource("a"), Resource("b"))
    one = router.permit()
    async with one:
        with pytest.raises(UsageError, match="one in at a time"):
            async with one:
                pass
    assert [stats["running"] for stats in router.stats().values()] == [0, 0]
    async with one:  # it was left
        pass


class Around(Wrap):
    async def __call__(self, job: Waiting, proceed: Callable[[], Awaitable[Any]]) -> Any:
        return await proceed()


@pytest.mark.parametrize(
    "part",
    [
        Timeout(0.01),
        Deadline(0.02),
        Dedupe(by="h"),
        Fallback(0),
        Retry(on=OSError),
        Hedge(after=1),
        Around(),
        Priority(),
    ],
    ids=lambda part: type(part).__name__,
)
async def test_what_acts_on_jobs_is_refused_around_a_block(part: Any) -> None:
    """The bug: a block ran on and on beyond the Timeout of its flow, and nothing said so."""
    flow = Flow(part, ConcurrencyLimit(1))
    for passing in (flow, flow.permit(), flow.permit(h="a")):
        with pytest.raises(
            InvalidOption, match=rf"{type(part).__name__}.*: what acts on jobs cannot act around a block"
        ):
            async with passing:
                pytest.fail("it was let in")


async def test_a_flow_of_gates_is_passed_like_a_gate() -> None:
    """All its gates are taken at once, and a router's choice is the value of the block."""
    limit = ConcurrencyLimit(1)
    flow = Flow(limit, WeightedRoundRobin(Resource("a"), Resource("b")))
    async with flow as resource:
        assert (resource.name, limit.used) == ("a", 1)
        other = asyncio.create_task(flow.__aenter__())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not other.done()
    assert (await other).name == "b"
    await flow.__aexit__(None, None, None)
    assert limit.used == 0


@pytest.mark.parametrize("inner", ["gate", "flow"])
async def test_a_block_of_a_flow_that_waits_for_what_it_holds_is_told(inner: str) -> None:
    """As around a gate alone: it would wait for ever."""
    limit = ConcurrencyLimit(1)
    flow = Flow(limit, ConcurrencyLimit(2))
    async with flow:
        with pytest.raises(WouldDeadlock):
            async with flow if inner == "flow" else limit:
                pytest.fail("it was let in")
        other = Flow(limit)
        with pytest.raises(TimeoutError):  # of a task that goes on it knows nothing
            await asyncio.create_task(asyncio.wait_for(other.__aenter__(), 0.01))
    assert limit.used == 0


async def used(limit: ConcurrencyLimit) -> ConcurrencyLimit:
    """Return *limit*, which knows its loop now: from then on a pass with a slot free takes the short way."""
    async with limit:
        return limit


async def test_nobody_overtakes_who_waits_for_a_limit_with_free_slots() -> None:
    """A heavy pass waits for all three: those that are free meanwhile are not for who comes later."""
    limit = await used(ConcurrencyLimit(3))
    order: list[str] = []

    async def work(name: str, cost: int) -> None:
        async with limit if cost == 1 else limit.permit(cost=cost):
            order.append(name)

    async with asyncio.timeout(5):
        async with limit:
            heavy = asyncio.create_task(work("heavy", 3))
            await asyncio.sleep(0)
            later = asyncio.create_task(work("later", 1))
            for _ in range(5):
                await asyncio.sleep(0)
            assert (limit.used, order) == (1, [])
        await heavy  # it was woken by the one that left
        await later
    assert (limit.used, order) == (0, ["heavy", "later"])


async def test_a_job_that_was_submitted_before_is_before_who_comes_in_the_same_turn() -> None:
    """It has not been asked for yet, and waits nowhere: but it came first."""
    limit = await used(ConcurrencyLimit(1))
    order: list[str] = []

    async def work() -> None:
        order.append("job")

    async with TaskManager(limit) as manager:
        manager.submit(work)
        async with limit:
            order.append("block")
    assert order == ["job", "block"]


async def test_passes_of_one_task_within_each_other_are_counted_each() -> None:
    """The second is a pass of its own, and so is the one of another task."""
    limit = await used(ConcurrencyLimit(4))
    async with limit, limit, limit:
        other = asyncio.create_task(limit.__aenter__())
        await asyncio.sleep(0)
        assert limit.used == 4
    assert limit.used == 1
    assert other.done()
    await limit.__aexit__(None, None, None)  # left by another task than took it
    assert limit.used == 0


async def test_a_loop_in_another_thread_is_refused_while_this_one_stands_still() -> None:
    """The task that holds this loop up is none of the other thread's."""
    limit = await used(ConcurrencyLimit(2))
    said: list[str] = []

    async def pass_it() -> None:
        try:
            async with limit:
                said.append("passed")
        except WrongLoop as error:
            said.append(str(error))

    thread = threading.Thread(target=asyncio.run, args=(pass_it(),))
    thread.start()
    thread.join()
    assert "belongs to the event loop that used it first" in said[0]


async def test_a_limit_that_a_subclass_counts_otherwise_is_asked() -> None:
    """The short way around `eta` and `take` is for the limit whose they are."""
    asked: list[str] = []

    class Told(ConcurrencyLimit):
        def take(self, job: Waiting, now: float) -> None:
            asked.append("take")
            super().take(job, now)

    limit = Told(1)
    for _ in range(3):
        async with limit:
            pass
    assert asked == ["take"] * 3


@pytest.mark.parametrize("cost", [0, -5, math.nan, math.inf, True, "3", None, 10**400])
async def test_a_cost_that_is_no_finite_number_above_0_is_refused(cost: Any) -> None:
    """The bug: a pass of -5 made room for five more than the limit, one of nan waited for ever."""
    limit = ConcurrencyLimit(2)
    with pytest.raises(InvalidOption, match="cost must be a number above 0, got"):
        limit.permit(cost=cost)
    with pytest.raises(InvalidOption, match="cost must be a number above 0, got"):
        Flow(limit).permit(cost=cost)
