"""`Priority`: who is next among jobs of several levels, keys and weights, and who is lifted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import combinations, count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import ConcurrencyLimit, Flow, InvalidOption, Job, Priority, Quarterjack, TaskManager, Waiting
from quarterjack.testing import virtual_loop, virtual_time

AGING = 5.0


@dataclass
class Asked:
    """One job of a random run: what was asked, and what came of it."""

    at: float
    level: int
    tenant: str
    takes: float
    cancel_after: float | None
    fails: bool
    n: int = 0
    came: float = 0.0
    began: float | None = None
    cancelled_at: float | None = None


def jobs(levels: int, tenants: str) -> st.SearchStrategy[list[Asked]]:
    """Draw jobs that come over some seconds; some are cancelled, some fail."""
    one = st.builds(
        Asked,
        at=st.integers(0, 30).map(lambda tenth: tenth / 10),
        level=st.integers(0, levels - 1),
        tenant=st.sampled_from(tenants),
        takes=st.sampled_from([0.0, 0.3, 1.0]),
        cancel_after=st.one_of(st.none(), st.none(), st.integers(0, 30).map(lambda tenth: tenth / 10)),
        fails=st.booleans(),
    )
    return st.lists(one, min_size=2, max_size=16)


async def played(order: Priority, asked: list[Asked]) -> list[Asked]:
    """Run the jobs one at a time in virtual time; return those that began, in order."""
    begun: list[Asked] = []
    limit, arrivals = ConcurrencyLimit(1), count()
    with virtual_loop() as clock:

        async def work(one: Asked) -> None:
            one.began = clock.monotonic()
            begun.append(one)
            await asyncio.sleep(one.takes)
            if one.fails:
                raise OSError

        async def ask(manager: TaskManager, one: Asked) -> None:
            await asyncio.sleep(one.at)
            one.n, one.came = next(arrivals), clock.monotonic()
            one.began = one.cancelled_at = None
            job = manager.options(priority=one.level, key={"tenant": one.tenant}).submit(work, one)
            if one.cancel_after is not None:
                await asyncio.sleep(one.cancel_after)
                one.cancelled_at = clock.monotonic()
                await job.cancel()

        async with TaskManager(order, limit) as manager:
            await asyncio.gather(*(ask(manager, one) for one in asked))
    assert limit.used == 0
    assert {one.n for one in asked if one.cancelled_at is None} <= {one.n for one in begun}
    return begun


def nobody_is_overtaken_unduly(order: Priority, asked: list[Asked]) -> None:
    """Who waits is overtaken only by jobs of a more urgent level that came early enough; levels are FIFO."""
    begun = asyncio.run(played(order, asked))
    for place, overtaken in enumerate(begun):
        for other in begun[:place]:
            if (overtaken.came, overtaken.n) < (other.came, other.n):
                assert other.level < overtaken.level
                assert other.came <= overtaken.came + (overtaken.level - other.level) * AGING + 1e-6


@settings(max_examples=60, deadline=None)
@given(jobs(4, "a"))
def test_job_is_overtaken_only_by_more_urgent_ones_that_came_early_enough(asked: list[Asked]) -> None:
    """Urgency is worth so many seconds and no more: nobody waits for ever."""
    nobody_is_overtaken_unduly(Priority(levels=4, aging=AGING), asked)


class NeverAging(Priority):
    """Broken: the level alone counts, and the last level starves."""

    def rank(self, job: Waiting, now: float) -> float:
        return job.enqueued_at + self.level_of(job) * 1000 * self.aging_s


class LastFirst(Priority):
    """Broken: within a level the newest goes first."""

    def rank(self, job: Waiting, now: float) -> float:
        return self.level_of(job) * self.aging_s - job.enqueued_at


STARVING = [Asked(0, 0, "a", 1.0, None, False), Asked(0.1, 1, "a", 0, None, False)] + [
    Asked(0.2 + n, 0, "a", 1.0, None, False) for n in range(7)
]


@pytest.mark.parametrize(
    ("broken", "asked"),
    [
        (NeverAging, STARVING),
        (LastFirst, [Asked(n / 10, 0, "a", 1.0, None, False) for n in range(4)]),
    ],
)
def test_check_of_overtaking_finds_a_broken_order(broken: type[Priority], asked: list[Asked]) -> None:
    """A property that no order could break would prove nothing."""
    nobody_is_overtaken_unduly(Priority(levels=4, aging=AGING), asked)
    with pytest.raises(AssertionError):
        nobody_is_overtaken_unduly(broken(levels=4, aging=AGING), asked)


# -- fair shares ---------------------------------------------------------------------------------


WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}


def shares_are_fair(make: Callable[[], Priority], asked: list[Asked]) -> None:
    """Over any stretch in which two keys wait, what they were given differs by a job of each at most."""
    begun = asyncio.run(played(make(), asked))
    for one, other in combinations("abc", 2):
        for start in range(len(begun)):
            given_to = dict.fromkeys("abc", 0.0)
            for turn in range(start, len(begun)):
                moment = begun[turn].began or 0
                if not all(_waits(asked, key, begun[start].began or 0, moment) for key in (one, other)):
                    break
                given_to[begun[turn].tenant] += 1 / WEIGHTS[begun[turn].tenant]
                assert abs(given_to[one] - given_to[other]) <= 1 / WEIGHTS[one] + 1 / WEIGHTS[other] + 1e-9


def _waits(asked: list[Asked], key: str, since: float, until: float) -> bool:
    """Say whether a job of *key* came before *since* and still waited after *until*."""
    return any(
        one.tenant == key and one.came < since and one.began is not None and one.began > until for one in asked
    ) and all(one.cancelled_at is None for one in asked)


@settings(max_examples=60, deadline=None)
@given(jobs(3, "abc"))
def test_keys_that_wait_get_their_shares_within_a_job(asked: list[Asked]) -> None:
    """One tenant's crowd holds no other up, whatever levels it claims."""
    shares_are_fair(lambda: Priority(levels=3, aging=AGING, fair_by="tenant", weights=WEIGHTS), asked)


class Unfair(Priority):
    """Broken: it takes the key and does not use it."""

    def rank(self, job: Waiting, now: float) -> float:
        return job.enqueued_at


CROWD = [Asked(0, 2, "a", 1.0, None, False) for _ in range(8)] + [Asked(0, 2, "b", 1.0, None, False) for _ in range(8)]


def test_check_of_shares_finds_an_order_that_is_not_fair() -> None:
    """The crowd that came first would go first."""
    shares_are_fair(lambda: Priority(fair_by="tenant", weights=WEIGHTS), CROWD)
    with pytest.raises(AssertionError):
        shares_are_fair(lambda: Unfair(fair_by="tenant", weights=WEIGHTS), CROWD)


async def turns(order: Priority, *jobs: tuple[str, int], gates: tuple[Any, ...] = ()) -> str:
    """Return whose jobs began one after the other, when all of *jobs* (tenant, priority) came at once."""
    begun: list[str] = []

    async def work(tenant: str) -> None:
        begun.append(tenant)
        await asyncio.sleep(1)

    with virtual_loop():
        async with TaskManager(order, *(gates or (ConcurrencyLimit(1),))) as manager:
            for tenant, priority in jobs:
                manager.options(priority=priority).submit(work, tenant)
    return "".join(begun)


async def test_weights_divide_the_turns() -> None:
    """Who pays twice as much has two turns for one; changing weights counts from then on."""
    order = Priority(fair_by="tenant", weights={"b": 2})
    crowd = [(tenant, 2) for tenant in "a" * 6 + "b" * 6]
    assert (await turns(order, *crowd))[:9].count("b") == 6
    order.update(weights={"a": 5})
    assert (await turns(order, *crowd))[:7].count("a") >= 5


async def test_priorities_sort_within_a_key_only() -> None:
    """Calling all one's jobs urgent gives nobody more than a share."""
    begun: list[str] = []

    async def work(name: str) -> None:
        begun.append(name)
        await asyncio.sleep(1)

    with virtual_loop():
        async with TaskManager(Priority(fair_by=lambda job: job.args[0][0]), ConcurrencyLimit(1)) as manager:
            for name in ("a0", "a0", "a0", "b4", "b3", "b0"):
                manager.options(priority=int(name[1])).submit(work, name)
    assert begun == ["a0", "b0", "a0", "b3", "a0", "b4"]


async def test_key_whose_own_gate_is_closed_holds_no_other_up() -> None:
    """Behind one tenant's closed gate the others still take turns, the late one as well."""
    gates = (ConcurrencyLimit(2), ConcurrencyLimit(1, by="tenant"))
    begun = await turns(Priority(fair_by="tenant"), *[("a", 2)] * 4, *[("b", 2)] * 4, ("c", 2), gates=gates)
    assert set(begun[:2]) == {"a", "b"}
    assert "c" in begun[:5]


async def test_many_cancels_of_a_key_cost_it_no_turn() -> None:
    """What never ran was no share."""
    begun: list[str] = []

    async def work(tenant: str) -> None:
        begun.append(tenant)
        await asyncio.sleep(1)

    order = Priority(fair_by="tenant")
    with virtual_loop():
        async with TaskManager(order, ConcurrencyLimit(1)) as manager:
            manager.submit(work, "b")
            doomed = [manager.submit(work, "a") for _ in range(50)]
            await asyncio.gather(*(job.cancel() for job in doomed))
            for _ in range(3):
                manager.submit(work, "a")
                manager.submit(work, "b")
            assert order.stats() == {"waiting_by_key": {"a": 3, "b": 3}}
    assert begun == list("babaabb")[:1] + list("ababab")
    assert order.stats() == {"waiting_by_key": {}}


# -- inheritance ---------------------------------------------------------------------------------


async def leaf(begun: list[str], name: str) -> str:
    begun.append(name)
    await asyncio.sleep(1)
    return name


async def awaits(job: Job[str]) -> str:
    return await job


async def awaited_job_goes_next(order: Priority) -> None:
    """The last of all is awaited by a job that an urgent one awaits."""
    begun: list[str] = []
    with virtual_loop():
        async with TaskManager(order, ConcurrencyLimit(3)) as manager:
            for name in ("first 0", "first 1", "first 2"):
                manager.options(priority=0).submit(leaf, begun, name)
            for n in range(8):
                manager.options(priority=1).submit(leaf, begun, f"crowd {n}")
            last = manager.options(priority=4).submit(leaf, begun, "last")
            helper = manager.options(priority=3).submit(awaits, last)
            assert await manager.options(priority=0).submit(awaits, helper) == "last"
    assert begun.index("last") < begun.index("crowd 5")


async def lift_reaches_what_is_awaited_already(order: Priority) -> None:
    """The chain is there, and waits, before the urgent one comes to its end."""
    begun: list[str] = []
    with virtual_loop():
        async with TaskManager(order, ConcurrencyLimit(3)) as manager:
            for name in ("first 0", "first 1"):
                manager.options(priority=0).submit(leaf, begun, name)
            last = manager.options(priority=4).submit(leaf, begun, "last")
            helper = manager.options(priority=3).submit(awaits, last)
            await asyncio.sleep(0.5)
            for n in range(8):
                manager.options(priority=2).submit(leaf, begun, f"crowd {n}")
            await asyncio.sleep(1)
            assert await manager.options(priority=0).submit(awaits, helper) == "last"
    # Then "last"; "crowd 2" before it where bodies begin a turn after their jobs are let in.
    assert begun[:4] == ["first 0", "first 1", "crowd 0", "crowd 1"]
    assert begun.index("last") < begun.index("crowd 5")


@pytest.mark.parametrize("check", [awaited_job_goes_next, lift_reaches_what_is_awaited_already])
async def test_awaited_job_is_as_urgent_as_who_awaits_it(check: Callable[[Priority], Awaitable[None]]) -> None:
    """Else an urgent job waits behind all that its helper waits behind, and the helper's helper."""
    await check(Priority(aging=100))


class NoLift(Priority):
    """Broken: what a job was given is all that counts."""

    def level_of(self, job: Waiting) -> int:
        return job.priority


@pytest.mark.parametrize("check", [awaited_job_goes_next, lift_reaches_what_is_awaited_already])
async def test_check_of_inheritance_finds_an_order_without(check: Callable[[Priority], Awaitable[None]]) -> None:
    """Priority inversion is what it looks like."""
    with pytest.raises(AssertionError):
        await check(NoLift(aging=100))


async def test_child_without_a_priority_is_as_urgent_as_its_parent_and_never_less_than_it_was() -> None:
    """What an urgent job starts is part of its work; what it was told explicitly stays as it is."""
    order = Priority()
    children: list[Waiting] = []

    async def child() -> None: ...

    async def parent() -> None:
        for priority in (None, 4, 1):
            submitter = manager if priority is None else manager.options(priority=priority)
            children.append(submitter.submit(child)._record)  # type: ignore[arg-type]  # a manager's record is what waits

    async with TaskManager(order) as manager:
        await manager.options(priority=0).submit(parent)
        assert [order.level_of(one) for one in children] == [0, 4, 1]
        children.clear()
        await manager.options(priority=3).submit(parent)
        assert [order.level_of(one) for one in children] == [2, 4, 1]


# -- wrong input ---------------------------------------------------------------------------------


async def test_priority_beyond_the_levels_is_refused_when_submitted() -> None:
    """A job that would be sorted in nowhere is a mistake in the program, to be seen at once."""

    async def work() -> None: ...

    early = TaskManager(Priority(levels=3))
    with pytest.raises(InvalidOption, match="priority=3 is not among the 3 levels"):
        early.options(priority=3).submit(work)
    async with TaskManager(Priority(levels=3)) as manager:
        with pytest.raises(InvalidOption, match="priority=7 is not among the 3 levels"):
            manager.options(priority=7).submit(work)
        await manager.options(priority=0).submit(work)
    async with TaskManager(Priority(levels=1)) as manager:
        await manager.submit(work)  # named none: the last level there is


async def test_fair_order_refuses_a_job_without_the_key() -> None:
    """Whose turn it is cannot be told."""

    async def work() -> None: ...

    async with TaskManager(Priority(fair_by="tenant")) as manager:
        with pytest.raises(InvalidOption, match="neither a key nor an argument"):
            manager.submit(work)
        assert manager.stats()["waiting"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": 0}, "levels must be a whole number from 1, got 0"),
        ({"levels": 2.5}, "levels must be a whole number"),
        ({"aging": 0}, "aging"),
        ({"aging": -1}, "aging"),
        ({"fair_by": ""}, "fair_by must be a name"),
        ({"weights": {"a": 1}}, "weights need fair_by="),
        ({"fair_by": "t", "weights": {"a": 0}}, "the weight of 'a' must be"),
        ({"fair_by": "t", "weights": [1]}, "weights must be a mapping"),
    ],
)
def test_wrong_options_are_refused_when_it_is_built(options: dict[str, Any], words: str) -> None:
    """With the field, the value and the range."""
    with pytest.raises(InvalidOption, match=words):
        Priority(**options)


def test_update_refuses_what_it_cannot_change() -> None:
    """A rank is a constant: what it is made of cannot change under those who wait."""
    with pytest.raises(InvalidOption, match="takes weights, got 'aging'"):
        Priority().update(aging=3)
    with pytest.raises(InvalidOption, match="made without"):
        Priority().update(weights={"a": 2})


# -- in an app -----------------------------------------------------------------------------------


async def test_order_of_an_app_has_the_same_say() -> None:
    """Turns among tenants, priorities within, what a body submits as urgent as it, and no level beyond the last."""
    app, begun = Quarterjack(), list[str]()
    order = Priority(levels=4, fair_by="tenant")

    @app.task(flow=Flow(order, ConcurrencyLimit(1)))
    async def work(tenant: str, n: int) -> None:
        begun.append(f"{tenant}{n}")
        await asyncio.sleep(1)

    @app.task
    async def parent() -> None:
        children.append(await app.submit(work, "a", 0))
        children.append(await app.submit(work.options(priority=3), "a", 9))

    children: list[Job[None]] = []
    async with virtual_time(app) as world:
        for n in (1, 2, 3):
            await app.submit(work, "a", n)
        for n in (3, 2, 1):
            await app.submit(work.options(priority=n), "b", n)
        await app.submit(parent.options(priority=0))
        await world.run_for(20)
        assert sorted(name[0] for name in begun[:6]) == list("aaabbb"), "turns, while both wait"
        assert [name for name in begun if name[0] == "a"] == ["a0", "a1", "a2", "a3", "a9"]
        assert [name for name in begun if name[0] == "b"] == ["b1", "b2", "b3"]
        assert [job._record.priority for job in children] == [0, 3]
        with pytest.raises(InvalidOption, match="priority=4 is not among the 4 levels"):
            await app.submit(work.options(priority=4), "a", 0)


async def test_the_time_for_which_a_job_was_put_off_is_no_waiting() -> None:
    """The bug: a job submitted for later came with the age of its delay, and overtook those who had waited."""
    begun: list[str] = []

    async def work(name: str) -> None:
        begun.append(name)
        await asyncio.sleep(10)

    with virtual_loop() as clock:
        async with TaskManager(Priority(aging=60), ConcurrencyLimit(1)) as manager:
            manager.submit(work, "first")
            later = manager.options(delay=8).submit(work, "later")
            submitted = clock.now()
            await asyncio.sleep(5)
            manager.submit(work, "second")
    assert begun == ["first", "second", "later"]
    assert later.timestamps.submitted_at == submitted
