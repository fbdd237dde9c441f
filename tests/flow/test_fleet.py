"""``scope="fleet"``: limits of several processes on one store, on virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import (
    ConcurrencyLimit,
    Delay,
    FixedWindow,
    Flow,
    Gate,
    InvalidOption,
    Job,
    JobState,
    Quarterjack,
    Resource,
    SlidingWindow,
    TaskManager,
    TokenBucket,
    UsageError,
    fleet,
)
from quarterjack.flow._fleet import FleetForm
from quarterjack.flow.concurrency import FleetConcurrencyLimit
from quarterjack.runtime.stewards import ROUND_TRIPS, TOKEN_S
from quarterjack.stores._limits import Limits
from quarterjack.stores.base import Acquired
from quarterjack.testing import virtual_loop, virtual_time
from tests.flow.fleets import FORMS, Line, Place, entered, played_by
from tests.flow.loads import Load, Played, Start, breaks, loads
from tests.flow.test_sliding_window import is_exact

MORE: Final = settings(max_examples=25)
DELAYS: Final = st.sampled_from([(0.0, 0.0), (0.0, 0.003), (0.002, 0.04, 0.001)])
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def in_turns(came: Played, processes: int) -> bool:
    """Say whether in each process who came first began first."""
    by_process: dict[int, list[int]] = {}
    for one in came.starts:
        by_process.setdefault(one.number % processes, []).append(one.number)
    return all(numbers == sorted(numbers) for numbers in by_process.values())


# ---------------------------------------------------------------- what must hold


def most_inside(starts: Sequence[Start]) -> int:
    """Return the most cost that was inside at once; who ends at an instant is out before who begins then."""
    moves = sorted([(one.at, one.cost) for one in starts] + [(one.ended, -one.cost) for one in starts])
    inside = most = 0
    for _, cost in moves:
        inside += cost
        most = max(most, inside)
    return most


def slots_hold(load: Load, delays_s: Sequence[float], batch: int, place: Place | None = None) -> bool:
    """Say whether a limit of 3 is kept, all jobs end, and nothing is left taken."""
    place = place or Place()

    def make() -> Gate:
        return ConcurrencyLimit(3, scope="fleet", name="l", batch=batch)

    came = played_by(make, load, delays_s=delays_s, place=place)
    kept = most_inside(came.starts) <= 3 and came.is_whole and in_turns(came, len(delays_s))
    return kept and not place.slots("slots:l")


@MORE
@given(load=loads(max_cost=3), delays=DELAYS, batch=st.sampled_from([1, 10]))
def test_no_more_than_the_slots_of_all_are_ever_used(load: Load, delays: tuple[float, ...], batch: int) -> None:
    """Through cancels, failures, timeouts, stalls, heavy jobs; all jobs end, and every slot goes back."""
    assert slots_hold(load, delays, batch)


def window_holds(load: Load, delays_s: Sequence[float], batch: int, place: Place | None = None) -> bool:
    """Say whether no true second holds more than 3, all jobs end, in each process as they came."""

    def make() -> Gate:
        return SlidingWindow(3, per=1.0, scope="fleet", name="w", batch=batch)

    came = played_by(make, load, delays_s=delays_s, place=place)
    return is_exact(came.starts, 3, 1.0) and came.is_whole and in_turns(came, len(delays_s))


@MORE
@given(load=loads(max_cost=3), delays=DELAYS, batch=st.sampled_from([1, 2, 10]))
def test_no_stretch_of_a_window_holds_more_of_all(load: Load, delays: tuple[float, ...], batch: int) -> None:
    """Exact for the fleet as it is for one process: the upstream counts all of them."""
    assert window_holds(load, delays, batch)


@MORE
@given(load=loads(max_cost=3, with_stalls=False), delays=DELAYS, batch=st.sampled_from([1, 10]))
def test_no_window_of_the_clock_holds_more_of_all(load: Load, delays: tuple[float, ...], batch: int) -> None:
    """An upstream that counts per calendar second refuses the fourth, whoever sends it."""

    def make() -> Gate:
        return FixedWindow(3, per=1, scope="fleet", name="w", batch=batch)

    came = played_by(make, load, delays_s=delays)
    counts: Counter[int] = Counter()
    for one in came.starts:
        counts[one.wall_ns // 10**9] += one.cost
    assert max(counts.values(), default=0) <= 3
    assert came.is_whole
    assert in_turns(came, len(delays))


@MORE
@given(load=loads(max_cost=3, with_stalls=False), delays=DELAYS, batch=st.sampled_from([1, 10]))
def test_no_stretch_holds_more_than_the_burst_and_its_tokens(load: Load, delays: tuple[float, ...], batch: int) -> None:
    """One bucket for all; a token is good for a moment, and that is all that is added."""

    def make() -> Gate:
        return TokenBucket(4, 3, scope="fleet", name="t", batch=batch)

    came = played_by(make, load, delays_s=delays)
    moment_s = max(TOKEN_S, ROUND_TRIPS * max(delays))
    for n, first in enumerate(came.starts):
        total = 0
        for one in came.starts[n:]:
            total += one.cost
            assert total <= 3 + 4 * (one.at - first.at + moment_s) + 1e-5
    assert came.is_whole
    assert in_turns(came, len(delays))


# ---------------------------------------------------------------- what the properties would find


class CountsNothing(Limits):
    """Grants whatever is asked for."""

    def acquire(
        self, limit: str, holders: Sequence[str], maximum: int, ttl_ns: int, now_ns: int, waiter: str | None
    ) -> Acquired:
        return super().acquire(limit, holders, 10**9, ttl_ns, now_ns, waiter)


class RunsOutEarly(Limits):
    """Forgets a row half-way."""

    def acquire(
        self, limit: str, holders: Sequence[str], maximum: int, ttl_ns: int, now_ns: int, waiter: str | None
    ) -> Acquired:
        return super().acquire(limit, holders, maximum, ttl_ns // 2, now_ns, waiter)


@pytest.mark.parametrize("limits", [CountsNothing, RunsOutEarly])
def test_store_that_keeps_no_window_is_found(limits: type[Limits]) -> None:
    """A property that no mistake violates says nothing."""
    found = breaks(lambda load: window_holds(load, (0.0, 0.003), 10, Place(limits())), loads(max_cost=3))
    assert found is not None
    assert window_holds(found, (0.0, 0.003), 10)


def test_store_that_keeps_no_slots_is_found() -> None:
    """Likewise of the slots."""
    found = breaks(lambda load: slots_hold(load, (0.0, 0.003), 10, Place(CountsNothing())), loads(max_cost=3))
    assert found is not None
    assert slots_hold(found, (0.0, 0.003), 10)


# ---------------------------------------------------------------- slots of processes that die, or hear nothing


async def test_slots_of_a_process_that_died_are_free_after_its_lease() -> None:
    """Nobody gives them back: they run out, and until then they count."""
    with virtual_loop() as clock:
        place, since = Place(), clock.monotonic()
        async with TaskManager(FORMS["ConcurrencyLimit"](name="l"), store=Line(place)) as manager:
            place.limits.acquire("slots:l", ["dead1", "dead2"], 2, 30 * 10**9, clock.now_ns(), None)
            began = await manager.submit(_when, clock)
    assert 30 <= began - since <= 31


async def _when(clock: Any) -> float:
    return float(clock.monotonic())


async def test_slot_is_kept_as_long_as_a_job_runs() -> None:
    """A job of an hour outlives a lease of half a minute by far."""
    with virtual_loop() as clock:
        place = Place()
        async with AsyncExitStack() as stack:
            one = await entered(stack, ConcurrencyLimit(1, scope="fleet", name="l"), Line(place))
            two = await entered(stack, ConcurrencyLimit(1, scope="fleet", name="l"), Line(place))
            since = clock.monotonic()
            long = one.submit(asyncio.sleep, 3600)
            await asyncio.sleep(1)
            assert await two.submit(_when, clock) - since >= 3600
            await long


@pytest.mark.parametrize(("tells", "within_s"), [(True, 0.06), (False, 1.0)])
async def test_slot_that_is_given_back_is_taken_at_once(tells: bool, within_s: float) -> None:
    """Who waits is told; where no word comes it looks once a second at the latest, and not all the time."""
    with virtual_loop() as clock:
        place = Place()
        lines = [Line(place, tells=tells) for _ in range(2)]
        async with AsyncExitStack() as stack:
            one, two = [await entered(stack, ConcurrencyLimit(1, scope="fleet", name="l"), line) for line in lines]
            first = one.submit(asyncio.sleep, 20)
            await asyncio.sleep(0.01)
            waits = two.submit(_when, clock)
            await first
            ended = clock.monotonic()
            assert 0 <= await waits - ended <= within_s
            assert lines[1].calls.count("acquire") <= 40


async def test_processes_that_all_wait_share_the_slots() -> None:
    """One that came first with a long queue does not keep the others out."""
    with virtual_loop() as clock:
        place = Place()
        async with AsyncExitStack() as stack:
            gates = [ConcurrencyLimit(4, scope="fleet", name="l") for _ in range(2)]
            one, two = [await entered(stack, gate, Line(place, 0.002)) for gate in gates]
            jobs = [one.submit(asyncio.sleep, 0.1) for _ in range(400)]
            await asyncio.sleep(1)
            jobs += [two.submit(asyncio.sleep, 0.1) for _ in range(400)]
            since = clock.monotonic()
            await asyncio.sleep(4)
            held = [gate._purse.held for gate in gates if isinstance(gate, FleetConcurrencyLimit)]
            done = Counter(job.state for job in jobs[400:])
            await one.stop(drain=False)
            await two.stop(drain=False)
    assert [len(slots) for slots in held] == [2, 2]
    assert 50 <= done[JobState.DONE] <= 20 * (clock.monotonic() - since)


async def test_processes_that_share_one_slot_take_turns() -> None:
    """There is no half a slot: it goes back and forth."""
    with virtual_loop():
        place = Place()
        async with AsyncExitStack() as stack:
            gates = [ConcurrencyLimit(1, scope="fleet", name="l") for _ in range(3)]
            managers = [await entered(stack, gate, Line(place, 0.002)) for gate in gates]
            jobs = [[manager.submit(asyncio.sleep, 0.05) for _ in range(500)] for manager in managers]
            await asyncio.sleep(20)
            done = [sum(job.state.is_finished for job in those) for those in jobs]
            for manager in managers:
                await manager.stop(drain=False)
    assert min(done) >= 80
    assert sum(done) >= 350
    assert max(len(line.calls) for line in place.lines) <= 500, "a turn is more than a job"


async def test_heavy_jobs_of_two_processes_do_not_wait_for_each_other() -> None:
    """Each holds a part of what it needs, and the rest is the other's: one lets go."""
    with virtual_loop():
        place = Place()
        async with AsyncExitStack() as stack:
            gates = [ConcurrencyLimit(4, scope="fleet", name="l") for _ in range(2)]
            managers = [await entered(stack, gate, Line(place, 0.002)) for gate in gates]
            held = [manager.options(cost=2).submit(asyncio.sleep, 1 + n / 10) for n, manager in enumerate(managers)]
            await asyncio.sleep(0.1)
            heavy = [manager.options(cost=3).submit(asyncio.sleep, 1) for manager in managers]
            async with asyncio.timeout(60):
                for job in (*held, *heavy):
                    await job


async def test_one_process_alone_asks_the_store_seldom() -> None:
    """A slot serves one job after the other: a hundred of them are no hundred calls."""
    with virtual_loop():
        line = Line(Place())
        async with TaskManager(ConcurrencyLimit(4, scope="fleet", name="l"), store=line) as manager:
            for _ in range(100):
                manager.submit(asyncio.sleep, 0.01)
            await manager.idle()
            assert len(line.calls) <= 4
    assert Counter(line.calls)["release"] <= 2


async def test_limit_with_nobody_inside_costs_nothing() -> None:
    """When all is given back nothing runs, nothing is polled and nothing is taken."""
    with virtual_loop():
        place = Place()
        line = Line(place)
        async with TaskManager(ConcurrencyLimit(4, scope="fleet", name="l"), store=line) as manager:
            await manager.submit(asyncio.sleep, 0.01)
            await asyncio.sleep(1)
            calls = len(line.calls)
            assert not place.slots("slots:l")
            assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("fleet")]
            await asyncio.sleep(3600)
            assert len(line.calls) == calls


async def test_limit_that_shrinks_gives_back_what_is_too_much() -> None:
    """It cancels nobody; what is left free belongs to the others."""
    with virtual_loop():
        place, gate = Place(), ConcurrencyLimit(3, scope="fleet", name="l")
        async with TaskManager(gate, store=Line(place)) as manager:
            jobs = [manager.submit(asyncio.sleep, n) for n in (1, 1, 5, 5)]
            await asyncio.sleep(0.5)
            gate.update(max_concurrent=1)
            await asyncio.sleep(0.51)
            assert len(place.slots("slots:l")) == 1
            assert [job.state.is_finished for job in jobs] == [True, True, False, False]


async def test_slots_are_lent_while_a_job_awaits_another() -> None:
    """What holds for the limit of a process holds for that of a fleet: a tree of jobs passes a limit of one."""

    async def tree(manager: TaskManager, depth: int) -> int:
        return 1 + (await manager.submit(tree, manager, depth - 1) if depth else 0)

    with virtual_loop():
        place = Place()
        gate = ConcurrencyLimit(1, scope="fleet", name="l", reentrant="donate")
        async with TaskManager(gate, store=Line(place, 0.001)) as manager:
            assert await manager.submit(tree, manager, 3) == 4
        assert not place.slots("slots:l")


# ---------------------------------------------------------------- a store that does not answer


@every_form
async def test_what_was_not_granted_does_not_start_without_the_store(form: Callable[..., Gate]) -> None:
    """Closed is the default: a limit that nobody can see is none."""
    with virtual_loop() as clock:
        line = Line(Place())
        async with TaskManager(form(name="l"), store=line) as manager:
            line.is_cut = True
            job = manager.submit(_when, clock)
            await asyncio.sleep(100)
            assert "no answer from its store" in str(manager.why_waiting(job))
            line.is_cut = False
            since = clock.monotonic()
            assert 0 <= await job - since <= 2.0


@every_form
async def test_one_lost_call_opens_no_gate(form: Callable[..., Gate]) -> None:
    """It takes seconds to fail, which is no outage yet: the next call may be answered."""
    with virtual_loop(start="2026-03-02T09:00:00Z"):
        line = Line(Place(), delay_s=4.0)
        async with TaskManager(form(name="l", on_store_error="open"), store=line, grace=0) as manager:
            line.is_cut = True
            jobs = [manager.submit(asyncio.sleep, 50) for _ in range(5)]
            await asyncio.sleep(2.05)
            line.is_cut, line.delay_s = False, 0.0
            await asyncio.sleep(1.5)
            assert 1 <= sum(job.state == "running" for job in jobs) <= 2


@every_form
@pytest.mark.parametrize("how", ["open", "local"])
async def test_store_that_does_not_answer_can_be_done_without(
    form: Callable[..., Gate], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Open lets all through, local as many as the limit; once the store is back it holds for all again."""
    with virtual_loop(start="2026-03-02T09:00:00Z"):
        place = Place()
        line = Line(place)
        gate = form(name="l", on_store_error=how)
        async with TaskManager(gate, store=line) as manager:
            line.is_cut = True
            jobs = [manager.submit(asyncio.sleep, 5) for _ in range(5)]
            await asyncio.sleep(0.4)
            assert not any(job.state == "running" for job in jobs), "one lost call opens nothing"
            with caplog.at_level(logging.INFO, "quarterjack.flow"):
                await asyncio.sleep(0.9)
                begun = sum(job.state == "running" for job in jobs)
                line.is_cut = False
                await asyncio.sleep(3)
                assert isinstance(gate, FleetForm)
                assert not gate._purse.is_cut_off
            assert begun == (5 if how == "open" else 2)
            assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
            await manager.idle()


async def test_store_that_does_not_answer_is_asked_no_oftener_the_more_jobs_come() -> None:
    """It is on its knees; a thousand calls a second would keep it there."""
    with virtual_loop():
        line = Line(Place())
        async with TaskManager(ConcurrencyLimit(1, scope="fleet", name="l"), store=line) as manager:
            line.is_cut = True
            for _ in range(600):
                job = manager.submit(asyncio.sleep, 0)
                await asyncio.sleep(0.1)
                await job.cancel()  # so that the gate is asked for each
            assert len(line.calls) <= 80
            line.is_cut = False


async def test_slots_that_cannot_be_renewed_count_no_longer_before_they_run_out() -> None:
    """The store gives them to others then: who holds them must not let the next job in."""
    with virtual_loop() as clock:
        place = Place()
        line = Line(place)
        async with TaskManager(ConcurrencyLimit(1, scope="fleet", name="l"), store=line) as manager:
            jobs: list[Job[float | None]] = [manager.submit(asyncio.sleep, 29), manager.submit(_when, clock)]
            await asyncio.sleep(1)
            (until,) = place.slots("slots:l").values()
            line.is_cut = True
            await asyncio.sleep(59)
            assert until < clock.now_ns()
            assert not jobs[1].state.is_finished
            assert not place.limits.acquire("slots:l", ["other"], 1, 10**10, clock.now_ns(), None).wait_s
            line.is_cut = False
            back = clock.monotonic()
            assert 9.9 <= (await jobs[1] or 0.0) - back <= 12


async def test_call_whose_answer_is_lost_takes_nothing_for_good() -> None:
    """Whether slots were taken is not known then: they are given back, and others are asked for."""

    class Deaf(Line):
        async def limit_acquire(self, *args: Any, **how: Any) -> Acquired:
            answer = await super().limit_acquire(*args, **how)
            if len(self.calls) == 1:
                await asyncio.sleep(60)
            return answer

    with virtual_loop():
        place = Place()
        async with TaskManager(ConcurrencyLimit(2, scope="fleet", name="l"), store=Deaf(place)) as manager:
            jobs = [manager.submit(asyncio.sleep, 20) for _ in range(2)]
            await asyncio.sleep(15)
            assert all(job.state == "running" for job in jobs)
            assert len(place.slots("slots:l")) == 2


async def test_starts_that_nobody_used_are_given_back() -> None:
    """A job that is cancelled while its start is fetched costs the others nothing."""
    with virtual_loop():
        place = Place()
        async with TaskManager(SlidingWindow(5, 60, scope="fleet", name="w"), store=Line(place, 0.01)) as manager:
            jobs = [manager.submit(asyncio.sleep, 1) for _ in range(5)]
            await asyncio.sleep(0.008)
            for job in jobs[1:]:
                await job.cancel()
            await manager.idle()
            await asyncio.sleep(5)
            assert len(place.slots("log:w")) == 1


# ---------------------------------------------------------------- keys, kinds and stores


@every_form
async def test_each_key_is_a_limit_of_its_own_for_all(form: Callable[..., Gate]) -> None:
    """What one process started for a tenant counts in the other, and for no other tenant."""
    with virtual_loop():
        place = Place()
        async with AsyncExitStack() as stack:
            managers = [await entered(stack, form(name="l", by="tenant"), Line(place)) for _ in range(2)]
            jobs = [
                manager.options(key={"tenant": tenant}).submit(asyncio.sleep, 1)
                for tenant in ("a", "b")
                for manager in managers
                for _ in range(2)
            ]
            await asyncio.sleep(0.5)
            states = [job.state.value for job in jobs]
            assert [states[:4].count("running"), states[4:].count("running")] == [2, 2]
            await asyncio.sleep(60)
            for manager in managers:
                await manager.stop(drain=False)


async def test_keys_that_nobody_uses_are_forgotten() -> None:
    """A tenant that was seen once leaves nothing behind."""
    with virtual_loop():
        gate = ConcurrencyLimit(2, scope="fleet", name="l", by="tenant")
        async with TaskManager(gate, store=Line(Place())) as manager:
            for tenant in range(300):
                await manager.options(key={"tenant": tenant}).submit(asyncio.sleep, 1)
            assert len(gate.keys()) < 10


async def test_key_that_processes_would_write_otherwise_is_refused() -> None:
    """Two processes that write a key in two ways have two limits."""
    with virtual_loop():
        gate = ConcurrencyLimit(2, scope="fleet", name="l", by=lambda job: object())
        async with TaskManager(gate, store=Line(Place())) as manager:
            with pytest.raises(InvalidOption, match="write its keys alike"):
                manager.submit(asyncio.sleep, 1)


def test_what_has_no_form_for_a_fleet_says_so() -> None:
    """Whoever reads it knows what to write instead."""

    class Mine(ConcurrencyLimit): ...

    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: ConcurrencyLimit(1, scope="fleet"), "needs name="),
        (lambda: TokenBucket(1, 1, scope="fleet", name=""), "name must be a text such as"),
        (lambda: SlidingWindow(1, 1, scope="all", name="l"), "'process' or 'fleet'"),  # type: ignore[arg-type]  # wrong by intent
        (lambda: FixedWindow(1, 1, batch=3), 'give scope="fleet"'),
        (lambda: ConcurrencyLimit(1, on_store_error="open"), 'give scope="fleet"'),
        (lambda: ConcurrencyLimit(1, scope="fleet", name="l", batch=0), "batch must be"),
        (lambda: ConcurrencyLimit(1, scope="fleet", name="l", on_store_error="x"), "'closed', 'open', 'local'"),  # type: ignore[arg-type]  # likewise
        (lambda: FixedWindow(1, 1, anchor="first", scope="fleet", name="l"), "epoch"),
        (lambda: SlidingWindow(1, 1, smooth=True, scope="fleet", name="l"), "TokenBucket"),
        (lambda: Delay(1, scope="fleet", name="l"), "Delay has no option 'scope'"),  # type: ignore[call-arg]  # likewise
        (lambda: Mine(1, scope="fleet", name="l"), "Mine holds in one process"),
        (lambda: Resource("r", limit=FORMS["TokenBucket"](name="l")), "holds in one process"),
        (lambda: TaskManager(ConcurrencyLimit(1), store="memory"), "the flow has none"),
    ]
    for make, says in wrong:
        with pytest.raises(InvalidOption, match=says):
            make()


async def test_gate_without_a_store_says_where_it_gets_one() -> None:
    """At once, and not as a limit that never lets anybody in."""
    gate = ConcurrencyLimit(1, scope="fleet", name="l")
    with pytest.raises(UsageError, match="no store yet"):
        async with TaskManager(gate):
            pass
    with pytest.raises(UsageError, match="no store yet"):
        async with gate:
            pass
    async with TaskManager(gate, store="memory"):
        with pytest.raises(UsageError, match="another app or block"):
            async with fleet("memory", gate):
                pass
    with pytest.raises(InvalidOption, match="takes gates"):
        async with fleet("memory", ConcurrencyLimit(1)):
            pass


async def test_a_gate_alone_holds_in_a_block() -> None:
    """`async with` waits for the slot of the fleet; after the block it has no store again."""
    with virtual_loop() as clock:
        place = Place()
        gates = [ConcurrencyLimit(1, scope="fleet", name="l") for _ in range(2)]
        inside: list[str] = []

        async def use(gate: Gate, name: str) -> None:
            async with gate:
                inside.append(f"{name} in")
                await asyncio.sleep(1)
                inside.append(f"{name} out")

        async with fleet(Line(place), gates[0]), fleet(Line(place), Flow(gates[1])):
            since = clock.monotonic()
            await asyncio.gather(use(gates[0], "a"), use(gates[1], "b"))
            assert clock.monotonic() - since >= 2
        assert [word.split()[1] for word in inside] == ["in", "out", "in", "out"]
        assert not place.slots("slots:l")


@every_form
async def test_a_block_passes_a_gate_alone_and_in_a_flow(form: Callable[..., Gate]) -> None:
    """A pass around an await is no job: it has the cost of every pass, and nothing may be written to it."""
    with virtual_loop():
        gate = form(name="l")
        async with fleet(Line(Place()), gate):
            async with gate:
                pass
            async with Flow(gate):
                pass


async def test_an_app_gives_its_gates_its_store() -> None:
    """Nothing is to be written but the scope; and why a job waits is told as ever."""
    app = Quarterjack()
    limit = ConcurrencyLimit(1, scope="fleet", name="api")

    @app.task(flow=limit)
    async def call(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async with virtual_time(app, start="2026-03-02T09:00Z") as world:
        first = await app.submit(call, 30)
        second = await app.submit(call, 30)
        await world.run_for("10s")
        assert "api is full for all processes" in str(await app.why_waiting(second))
        await world.run_for("60s")
        assert [job.timestamps.running_at.second for job in (first, second) if job.timestamps.running_at] == [0, 30]
    with pytest.raises(UsageError, match="no store yet"):
        async with limit:
            pass


async def test_a_window_says_when_it_lets_the_next_one_in() -> None:
    """As that of one process does."""
    with virtual_loop():
        async with TaskManager(FORMS["SlidingWindow"](name="w"), store=Line(Place())) as manager:
            jobs = [manager.submit(asyncio.sleep, 0) for _ in range(3)]
            await asyncio.sleep(1)
            assert "lets it start in 9.2" in str(manager.why_waiting(jobs[2]))
            assert manager.stats()["gates"]["w"]["credits"] == 0


async def test_each_window_of_the_clock_lets_as_many_in() -> None:
    """What was used of one window says nothing of the next."""
    with virtual_loop(start="2026-03-02T09:00:00Z") as clock:
        place, since = Place(), clock.monotonic()
        async with AsyncExitStack() as stack:
            managers = [await entered(stack, FORMS["FixedWindow"](name="w"), Line(place)) for _ in range(2)]
            jobs = [manager.submit(_when, clock) for _ in range(3) for manager in managers]
            began = sorted([await job - since for job in jobs])
        assert began == pytest.approx([0, 0, 10, 10, 20, 20], abs=0.01)


class Ahead(Line):
    """A server whose clock is four seconds ahead of this machine's."""

    uses_local_clock = False

    async def now_ns(self) -> int:
        return self._clock.now_ns() + 4 * 10**9


async def test_windows_of_the_clock_are_those_of_the_store() -> None:
    """Machines whose clocks differ would each have a window of their own."""
    with virtual_loop(start="2026-03-02T09:00:00Z") as clock:
        since = clock.monotonic()
        async with TaskManager(FORMS["FixedWindow"](name="w"), store=Ahead(Place())) as manager:
            jobs = [manager.submit(_when, clock) for _ in range(4)]
            assert [await job - since for job in jobs] == pytest.approx([0, 0, 6, 6], abs=0.01)


async def test_tokens_cost_few_calls_while_they_are_scarce() -> None:
    """Who waits for the next token asks when it comes, and once."""
    with virtual_loop():
        line = Line(Place())
        async with TaskManager(TokenBucket(4, 3, scope="fleet", name="t"), store=line) as manager:
            for _ in range(23):
                manager.submit(asyncio.sleep, 0)
            await manager.idle()
        assert line.calls.count("take") <= 50


async def test_light_job_need_not_wait_for_what_a_heavy_one_was_refused() -> None:
    """It stood behind that, and came to be the first."""
    with virtual_loop() as clock:
        async with TaskManager(SlidingWindow(3, 60, scope="fleet", name="w"), store=Line(Place())) as manager:
            await manager.submit(asyncio.sleep, 0)
            heavy, light = manager.options(cost=3).submit(asyncio.sleep, 0), manager.submit(_when, clock)
            await asyncio.sleep(1)
            since = clock.monotonic()
            await heavy.cancel()
            assert await light - since < 0.1


async def test_part_of_what_a_heavy_job_needs_is_left_to_others() -> None:
    """It cannot start on it, and they could."""
    with virtual_loop():
        place = Place()
        async with AsyncExitStack() as stack:
            gates = [SlidingWindow(3, 60, scope="fleet", name="w") for _ in range(2)]
            one, two = [await entered(stack, gate, Line(place, 0.002)) for gate in gates]
            for _ in range(2):
                await one.submit(asyncio.sleep, 0)
            two.options(cost=3).submit(asyncio.sleep, 0)
            await asyncio.sleep(1)
            assert len(place.slots("log:w")) == 2
            await two.stop(drain=False)


async def test_heavy_starts_of_two_processes_do_not_wait_for_each_other() -> None:
    """Neither keeps a part of what the other needs."""
    with virtual_loop():
        place = Place()
        async with AsyncExitStack() as stack:
            gates = [SlidingWindow(3, 1, scope="fleet", name="w") for _ in range(2)]
            managers = [await entered(stack, gate, Line(place, 0.002)) for gate in gates]
            jobs = [manager.options(cost=3).submit(asyncio.sleep, 0) for _ in range(5) for manager in managers]
            async with asyncio.timeout(20):
                for job in jobs:
                    await job


async def test_a_stop_gives_back_the_slots_of_every_key() -> None:
    """One key after the other would take seconds: after a deployment most tenants would stand still for a lease."""
    with virtual_loop():
        place = Place()
        async with AsyncExitStack() as stack:
            gate = ConcurrencyLimit(1, scope="fleet", name="l", by="tenant")
            manager = await entered(stack, gate, Line(place, 0.02))
            for tenant in range(200):
                manager.options(key={"tenant": f"t{tenant}"}).submit(asyncio.sleep, 60)
            await asyncio.sleep(2)
            held = sum(len(rows) for rows in place.limits._slots.values())
            await manager.stop(drain=False)
        left = sum(len(rows) for rows in place.limits._slots.values())
    assert (held, left) == (200, 0)
