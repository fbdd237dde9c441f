"""A gate alone: ``async with gate``, with and without keys."""

from __future__ import annotations

import asyncio

import pytest

from quarterjack import ConcurrencyLimit, Flow, Resource, UsageError, WeightedRoundRobin


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
