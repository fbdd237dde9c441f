"""Jobs that await jobs in the limits they hold: told where it can never end, let be where it can, lent if asked."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import (
    AdaptiveLimit,
    ConcurrencyLimit,
    Delay,
    Job,
    JobState,
    Retry,
    TaskManager,
    Waiting,
    WouldDeadlock,
    gather,
)
from quarterjack.testing import virtual_loop

HOUR: Final = 3600.0


async def test_a_job_that_awaits_a_child_in_the_same_full_limit_is_told() -> None:
    """It would wait for ever; the error names both and the gate."""
    limit = ConcurrencyLimit(1, name="database")

    async def child() -> str:
        return "child"

    async def parent() -> str:
        return await manager.submit(child)

    async with TaskManager(limit) as manager:
        job = manager.submit(parent)
        with pytest.raises(WouldDeadlock) as caught:
            await job
        error = caught.value
        assert "parent" in error.job
        assert job.id in error.job
        assert "child" in error.awaited
        assert error.gate == "database"
        assert 'reentrant="donate"' in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        await manager.idle()
    assert limit.used == 0


async def test_a_child_that_will_get_a_slot_is_waited_for() -> None:
    """While one holder still works the limit will open: nobody is told of a deadlock that is none."""

    async def child() -> str:
        return "child"

    async def parent() -> str:
        return await manager.submit(child)

    with virtual_loop():
        async with TaskManager(ConcurrencyLimit(2)) as manager:
            working = manager.submit(asyncio.sleep, 10)
            job = manager.submit(parent)
            assert await job == "child"
            assert working.state is JobState.DONE


async def test_the_wait_that_closes_the_circle_is_told_and_the_others_go_on() -> None:
    """One of three is enough: its slot serves the children of the others."""
    failed: list[str] = []

    async def child() -> None: ...

    async def parent(after: float) -> str:
        await asyncio.sleep(after)
        try:
            await manager.submit(child)
        except WouldDeadlock:
            failed.append(str(after))
            raise
        return "fine"

    with virtual_loop():
        async with TaskManager(ConcurrencyLimit(3)) as manager:
            jobs = [manager.submit(parent, after) for after in (1, 2, 3)]
            outcomes = await gather(jobs, return_exceptions=True)
    assert failed == ["3"]
    assert outcomes[:2] == ["fine", "fine"]


WAYS: Final = (
    "two managers",
    "a chain",
    "a weight",
    "a weight before it",
    "a batch",
    "a retry",
    "a smaller limit",
    "a gate inside",
    "a pause",
    "an adaptive limit",
)


@pytest.mark.parametrize("way", WAYS)
async def test_circles_are_found_wherever_they_close(way: str) -> None:
    """Over other managers and jobs between, by a cost, after a pause, by `update`, at ``async with``."""
    slots = {"a smaller limit": 2, "a weight": 3, "a weight before it": 2}.get(way, 1)
    gates: dict[str, Any] = {"a pause": Delay(5), "an adaptive limit": AdaptiveLimit(initial=1, min=1, max=1)}
    limit = gates.get(way) or ConcurrencyLimit(slots)

    async def leaf() -> None: ...

    async def flaky() -> None:
        raise OSError

    async def all_at_once(items: list[int]) -> list[int]:
        return items

    async def between() -> None:
        await inner.submit(leaf)

    child: Any = None

    async def submit(manager: TaskManager, fn: Any, cost: float = 1.0) -> None:
        await manager.options(cost=cost).submit(fn)

    async def behind_a_weight() -> None:
        manager.options(cost=2).submit(leaf)
        await manager.submit(leaf)

    async def to_retry() -> None:
        await child

    async def block() -> None:
        async with limit:
            pass

    async def parent() -> None:
        awaited: dict[str, Any] = {
            "two managers": lambda: submit(inner, leaf),
            "a chain": lambda: submit(free, between),
            "a weight": lambda: submit(manager, leaf, 3),
            "a weight before it": behind_a_weight,
            "a batch": lambda: manager.submit(together, 1),
            "a retry": to_retry,
            "a gate inside": block,
        }
        await awaited.get(way, lambda: submit(manager, leaf))()

    with virtual_loop():
        retry = Retry(on=OSError, base=5, jitter="none")
        async with (
            TaskManager(limit) as manager,
            TaskManager(limit) as inner,
            TaskManager() as free,
            TaskManager(limit, retry) as retrying,
        ):
            if way == "a retry":
                child = retrying.submit(flaky)
                await asyncio.sleep(1)  # it pauses, its slot is free
            together = manager.batch(all_at_once, max_size=1)
            blocker = manager.submit(asyncio.sleep, 10) if way == "a smaller limit" else None
            job = manager.submit(parent)
            await asyncio.sleep(1)
            if blocker is not None:
                assert not job.state.is_finished
                limit.update(max_concurrent=1)
            with pytest.raises(WouldDeadlock):
                await asyncio.wait_for(job.wait(), HOUR)
        assert limit.stats().get("used", 0) == 0


async def test_tasks_that_take_two_gates_crosswise_are_told() -> None:
    """The oldest deadlock there is, without any job."""
    one, two = ConcurrencyLimit(1, name="one"), ConcurrencyLimit(1, name="two")
    passed: list[str] = []

    async def take(first: ConcurrencyLimit, second: ConcurrencyLimit) -> None:
        async with first:
            await asyncio.sleep(1)
            async with second:
                passed.append(first.label)

    with virtual_loop():
        outcomes = await asyncio.gather(take(one, two), take(two, one), return_exceptions=True)
    (error,) = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(error, WouldDeadlock)
    assert len(passed) == 1
    assert (one.used, two.used) == (0, 0)


async def test_a_limit_that_lends_lets_children_run_in_their_parents_slot() -> None:
    """A tree of any depth passes a limit of one, and at most one body works at a time."""
    limit = ConcurrencyLimit(1, reentrant="donate")
    working = most = 0

    async def work() -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(1)
        working -= 1

    async def tree(depth: int) -> int:
        await work()
        if not depth:
            return 1
        leaves = await gather([manager.submit(tree, depth - 1) for _ in range(2)])
        await work()
        return sum(leaves)

    with virtual_loop() as clock:
        began = clock.monotonic()
        async with TaskManager(limit) as manager:
            assert await manager.submit(tree, 3) == 8
        assert clock.monotonic() - began == pytest.approx(8 + 2 * 7)
    assert (most, limit.used) == (1, 0)


async def test_a_parent_goes_on_before_those_who_came_later() -> None:
    """Its slot served others meanwhile; it has waited longest."""
    order: list[str] = []

    async def child() -> None:
        order.append("child")

    async def parent() -> None:
        await manager.submit(child)
        order.append("parent")

    async def other(n: int) -> None:
        await asyncio.sleep(1)
        order.append(f"other {n}")

    with virtual_loop():
        async with TaskManager(ConcurrencyLimit(1, reentrant="donate")) as manager:
            job = manager.submit(parent)
            others = [manager.submit(other, n) for n in range(3)]
            await gather([job, *others])
    assert order.index("parent") > order.index("child")
    assert order == ["other 0", "other 1", "other 2", "child", "parent"]


async def test_a_parent_takes_its_slot_back_before_a_crowd() -> None:
    """At most the one who was let in as the child left comes between."""
    order: list[str] = []

    async def child() -> None:
        await asyncio.sleep(1)
        for n in range(9):
            manager.submit(other, n)

    async def parent() -> None:
        await manager.submit(child)
        order.append("parent")

    async def other(n: int) -> None:
        await asyncio.sleep(1)
        order.append(f"other {n}")

    with virtual_loop():
        async with TaskManager(ConcurrencyLimit(1, reentrant="donate")) as manager:
            await manager.submit(parent)
    assert order.index("parent") <= 1


async def test_tasks_of_one_body_lend_its_slot_once() -> None:
    """It works again when the last of them has what it waited for; one that is left behind takes nothing back."""
    limit = ConcurrencyLimit(1, reentrant="donate")
    behind: list[asyncio.Task[None]] = []

    async def child(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def wait_for(seconds: float) -> None:
        await manager.submit(child, seconds)

    async def parent() -> float:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for(1))
            group.create_task(wait_for(2))
        behind.append(asyncio.create_task(wait_for(5)))
        await asyncio.sleep(1)
        return limit.used

    with virtual_loop():
        async with TaskManager(limit) as manager:
            job = manager.submit(parent)
            assert await job == 1
            await asyncio.gather(*behind)
    assert limit.used == 0


async def test_a_block_of_what_the_job_holds_already_needs_no_slot_at_a_limit_that_lends() -> None:
    """A helper guards itself with the limit that its caller has passed: one body, one slot."""
    limit = ConcurrencyLimit(1, reentrant="donate")

    async def parent() -> float:
        async with limit, limit:
            return limit.used

    async with TaskManager(limit) as manager:
        assert await manager.submit(parent) == 1
    async with limit, limit:
        assert limit.used == 1
    assert limit.used == 0


async def test_an_interrupted_parent_has_its_slot_back_at_once() -> None:
    """Who is cancelled is not kept from cleaning up by who has its slot; nobody else comes in until there is one."""
    limit = ConcurrencyLimit(1, reentrant="donate")
    used: list[float] = []

    async def child() -> None:
        await asyncio.sleep(HOUR)

    async def parent() -> None:
        try:
            await manager.submit(child)
        finally:
            used.append(limit.used)

    with virtual_loop():
        async with TaskManager(limit) as manager:
            job = manager.submit(parent)
            await asyncio.sleep(1)
            assert await job.cancel()
            assert used == [2]
            assert limit.used == 1
            await manager.stop(drain=False)
    assert limit.used == 0


steps = st.recursive(
    st.sampled_from(["work", "fail", "stall", "heavy"]),
    lambda inner: st.lists(inner, min_size=1, max_size=3),
    max_leaves=8,
)


async def grown(
    kind: type[ConcurrencyLimit], forest: list[Any], slots: int, lends: bool, cancels: list[tuple[int, float]]
) -> None:
    """Run a job for each tree, which awaits one for each branch, and assert what must hold."""
    limit = kind(slots, reentrant="donate" if lends else "raise")
    told = working = 0

    async def work(step: str) -> None:
        nonlocal working
        working += 1
        assert working <= slots or cancels, "never more bodies at work than slots"
        await asyncio.sleep(0.5)
        if step == "stall":
            clock.move_to(clock.monotonic_ns() + 700_000_000)
        working -= 1

    def submit(tree: Any) -> Job[None]:
        return manager.options(cost=min(2, slots) if tree == "heavy" else 1).submit(node, tree)

    async def node(tree: Any) -> None:
        nonlocal told
        await work("begin")
        if isinstance(tree, list):
            jobs = [submit(one) for one in tree]
            try:
                await gather(jobs, return_exceptions=len(tree) % 2 == 0)
            except WouldDeadlock:
                told += 1
                raise
        await work(str(tree))
        if tree == "fail":
            raise OSError

    with virtual_loop() as clock:
        async with TaskManager(limit) as manager:
            jobs = [submit(tree) for tree in forest]
            for n, after in cancels:
                await asyncio.sleep(after)
                await jobs[n % len(jobs)].cancel(0)
            async with asyncio.timeout(HOUR):
                outcomes = await gather(jobs, return_exceptions=True)
                await manager.idle()
    bugs = [outcome for outcome in outcomes if isinstance(outcome, AssertionError)]
    assert not bugs
    assert limit.used == 0, "no slot is lost"
    assert not (lends and told), "a limit that lends tells of no deadlock"


@given(
    forest=st.lists(steps, min_size=1, max_size=4),
    slots=st.integers(1, 3),
    lends=st.booleans(),
    cancels=st.lists(st.tuples(st.integers(0, 3), st.floats(0, 6)), max_size=2),
)
@settings(max_examples=150)
def test_trees_of_jobs_end_whatever_happens(
    forest: list[Any], slots: int, lends: bool, cancels: list[tuple[int, float]]
) -> None:
    """No hang, no slot lost, no more bodies at work than slots; and a limit that lends tells of no deadlock."""
    asyncio.run(grown(ConcurrencyLimit, forest, slots, lends, cancels))


class Silent(ConcurrencyLimit):
    """Does not say that it stays closed."""

    def stays_closed(self, job: Waiting, held: float) -> bool:
        return False


class Generous(ConcurrencyLimit):
    """Lends, and does not wait for what it lent."""

    def eta(self, job: Waiting, now: float) -> float:
        return now if job in self._lent else super().eta(job, now)


class Leaky(ConcurrencyLimit):
    """Forgets to count what it has back."""

    def take_back(self, job: Waiting) -> None:
        self._lent.discard(job)


@pytest.mark.parametrize(
    ("kind", "lends"), [(Silent, False), (Generous, True), (Leaky, True)], ids=["silent", "generous", "leaky"]
)
def test_check_finds_a_limit_that_does_not_hold(kind: type[ConcurrencyLimit], lends: bool) -> None:
    """A check that cannot fail proves nothing."""
    forest = [[["work"], ["work"]], "work", "work"]
    asyncio.run(grown(ConcurrencyLimit, forest, 1, lends, []))
    with pytest.raises((AssertionError, TimeoutError)):
        asyncio.run(grown(kind, forest, 1, lends, []))


async def test_interrupted_before_its_job_has_its_slots_back_a_block_keeps_nothing() -> None:
    """It was let in already: what it took there would be gone for ever."""
    lent, other = ConcurrencyLimit(1, reentrant="donate"), ConcurrencyLimit(1)

    async def body() -> None:
        async def pass_other() -> None:
            async with other:
                pytest.fail("its job has no slot")

        async def await_child() -> None:
            await manager.submit(asyncio.sleep, 1)

        child = asyncio.create_task(await_child())
        await asyncio.sleep(0)
        block = asyncio.create_task(pass_other())
        await child
        await asyncio.sleep(1)
        block.cancel()
        with pytest.raises(asyncio.CancelledError):
            await block

    with virtual_loop():
        async with TaskManager(lent) as manager, asyncio.timeout(60):
            async with other:
                first = manager.submit(body)
                await asyncio.sleep(0.5)
                manager.submit(asyncio.sleep, 10)
                await asyncio.sleep(1)
            await first
            assert other.used == 0
        assert lent.used == 0


async def test_a_body_lends_its_slot_whatever_another_of_its_tasks_waits_for() -> None:
    """One that waits at some other gate first must not keep the slot from the child that the body awaits."""
    lent, other = ConcurrencyLimit(1, reentrant="donate"), ConcurrencyLimit(1)

    async def body() -> str:
        async def pass_other() -> None:
            async with other:
                assert lent.used == 1

        async with asyncio.TaskGroup() as group:
            group.create_task(pass_other())
            await asyncio.sleep(0)
            child = manager.submit(asyncio.sleep, 5, "child")
            return await child

    with virtual_loop():
        async with TaskManager(lent) as manager:
            async with other:
                job = manager.submit(body)
                await asyncio.sleep(1)
            assert await job == "child"
    assert (lent.used, other.used) == (0, 0)


@pytest.mark.parametrize("is_interrupted", [False, True])
async def test_a_body_that_lends_once_more_while_it_waits_for_its_slot_has_it_back_once(is_interrupted: bool) -> None:
    """Two of its tasks by turns: the first waits for the slot still when the second lends it again."""
    lent = ConcurrencyLimit(1, reentrant="donate")

    async def await_child(seconds: float) -> None:
        await manager.submit(asyncio.sleep, seconds)

    async def body() -> None:
        first = asyncio.create_task(await_child(1))
        await asyncio.sleep(0.5)
        manager.submit(asyncio.sleep, 10)  # has the slot from the first second to the eleventh
        await asyncio.sleep(3)  # what a loan does not forbid: this task has no slot, and asks for none
        second = asyncio.create_task(await_child(5))
        await asyncio.sleep(0)
        if is_interrupted:
            first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert lent.used == 1

    with virtual_loop():
        async with TaskManager(lent) as manager:
            job = manager.submit(body)
            async with asyncio.timeout(HOUR):
                await job
        assert lent.used == 0


async def test_an_attempt_that_left_a_waiting_task_behind_leaves_no_slot_to_it() -> None:
    """What it lent ended with it; the next attempt of the same job has a slot of its own."""
    lent = ConcurrencyLimit(2, reentrant="donate")
    behind: list[asyncio.Task[None]] = []

    async def await_child() -> None:
        await manager.submit(asyncio.sleep, 5)

    async def body() -> float:
        if not behind:
            behind.append(asyncio.create_task(await_child()))
            await asyncio.sleep(1)
            raise OSError
        await asyncio.sleep(60)
        return lent.used

    with virtual_loop():
        async with TaskManager(lent, Retry(on=OSError, base=1, jitter="none")) as manager:
            assert await manager.submit(body) == 1
            await behind[0]
        assert lent.used == 0


async def test_a_heavy_job_that_comes_first_after_a_while_is_seen() -> None:
    """The bug: it was looked for when the wait began, and behind a light one there stood one that closed the circle."""
    limit = ConcurrencyLimit(2)

    async def parent() -> None:
        await asyncio.sleep(0.5)
        await manager.submit(asyncio.sleep, 0)

    with virtual_loop():
        async with TaskManager(limit) as manager:
            job = manager.submit(parent)
            for cost, lasts in ((1, 1.0), (1, 1.0), (2, 0.0)):
                manager.options(cost=cost).submit(asyncio.sleep, lasts)
            with pytest.raises(WouldDeadlock):
                await job.wait(timeout=HOUR)
    assert limit.used == 0


async def test_a_heavy_job_of_another_key_that_stands_before_the_child_is_seen() -> None:
    """Keys stand in lanes of their own; at the limit they share, one stands behind the other."""
    limit = ConcurrencyLimit(2)

    async def parent() -> None:
        await asyncio.sleep(0.5)
        await manager.options(key={"tenant": "b"}).submit(asyncio.sleep, 0)

    with virtual_loop():
        async with TaskManager(limit, ConcurrencyLimit(9, by="tenant")) as manager:
            job = manager.options(key={"tenant": "b"}).submit(parent)
            manager.options(key={"tenant": "a"}, cost=2).submit(asyncio.sleep, 0)
            with pytest.raises(WouldDeadlock):
                await job.wait(timeout=HOUR)
    assert limit.used == 0


async def test_an_interrupted_parent_has_the_slots_of_all_its_gates_back() -> None:
    """The bug: those of the gate it waited for came back, and in the others it went on beside who had its slots."""
    first, second = (ConcurrencyLimit(1, reentrant="donate") for _ in range(2))
    used: list[tuple[float, float]] = []

    async def parent() -> None:
        try:
            await manager.submit(asyncio.sleep, 0.5)
        finally:
            used.append((first.used, second.used))

    with virtual_loop():
        async with TaskManager(first, second) as manager:
            job = manager.submit(parent)
            await asyncio.sleep(0.1)
            other = manager.submit(asyncio.sleep, 10)
            await asyncio.sleep(1)
            await job.cancel()
            assert not other.state.is_finished
    assert used == [(2, 2)]
    assert (first.used, second.used) == (0, 0)
