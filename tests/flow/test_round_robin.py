"""`WeightedRoundRobin`: whose turn it is, who is left out, and how one comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from quarterjack import (
    Between,
    CircuitBreaker,
    ConcurrencyLimit,
    Flow,
    Gate,
    InvalidOption,
    NoResource,
    Quarterjack,
    Resource,
    SlidingWindow,
    TaskManager,
    TimeWindow,
    Waiting,
    WeightedRoundRobin,
    current_job,
)
from quarterjack.flow.outcome import CANCELLED, RETURNED, Ended, EndKind
from quarterjack.flow.permit import Pass
from quarterjack.testing import virtual_loop, virtual_time

FAILED: Final = Ended(EndKind.RAISED, OSError("down"))


def breaker(**options: Any) -> CircuitBreaker:
    """Return a breaker without jitter that opens after two failures of two."""
    chosen: dict[str, Any] = {"min_calls": 2, "open_for": 10, "jitter": 0, **options}
    return CircuitBreaker(**chosen)


def pick(router: WeightedRoundRobin[Any], now: float = 0.0, ended: Ended = RETURNED) -> str:
    """Pass one call through by hand; return what it got."""
    job = Pass()
    assert router.eta(job, now) <= now
    router.take(job, now)
    job.started_at = now
    router.started(job, now)
    router.give(job, now, ended)
    name: str = job.resource.name
    return name


def picks(router: WeightedRoundRobin[Any], count: int, now: float = 0.0) -> str:
    """Return what so many calls got, their names in a row."""
    return "".join(pick(router, now) for _ in range(count))


# ---------------------------------------------------------------- whose turn it is


def test_turns_are_spread_smoothly() -> None:
    """Five in a row to the strongest would be a burst each time."""
    router = WeightedRoundRobin(Resource("a", weight=5), Resource("b", weight=1), Resource("c", weight=1))
    assert picks(router, 14) == "aabacaa" * 2


WEIGHTS: Final = st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any)
ROUNDS: Final = st.lists(
    st.tuples(st.sampled_from(["pick", "pick", "pick", "weigh", "fail", "busy"]), st.integers(0, 5), st.integers(0, 6)),
    max_size=30,
)


class Switch(Gate):
    """A limit that is full when told."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False

    def eta(self, job: Waiting, now: float) -> float:
        return now + 1 if self.is_full else now


def play(kind: type[WeightedRoundRobin[Any]], weights: list[int], rounds: list[tuple[str, int, int]]) -> None:
    """Whoever is well has exactly its share, and whoever is not is never chosen; before, between and after troubles."""
    switches = [Switch() for _ in weights]
    breakers = [breaker() for _ in weights]
    router = kind(
        *(Resource(str(n), weight=weight, breaker=breakers[n], limit=switches[n]) for n, weight in enumerate(weights))
    )
    exactly(router, {str(n): weight for n, weight in enumerate(weights)})
    current = dict(enumerate(weights))
    for what, number, value in rounds:
        n = number % len(weights)
        if what == "weigh":
            router.update(weights={str(n): value})
            current[n] = value
        elif what == "fail":
            breakers[n].isolate() if breakers[n].state == "closed" else breakers[n].reset()
        elif what == "busy":
            switches[n].is_full = not switches[n].is_full
        well = {str(n) for n, weight in current.items() if weight and breakers[n].state == "closed"}
        ready = {name for name in well if not switches[int(name)].is_full}
        if ready:
            assert pick(router) in ready
        elif well:
            assert router.eta(Pass(), 0.0) == 1.0, "it is busy, not down"
        else:
            with pytest.raises(NoResource):
                router.eta(Pass(), 0.0)


def exactly(router: WeightedRoundRobin[Any], weights: dict[str, int]) -> None:
    """In each round of all weights each has its share."""
    for _ in range(3):
        shares = Counter(picks_of(router, sum(weights.values())))
        assert shares == Counter({name: weight for name, weight in weights.items() if weight})


def picks_of(router: WeightedRoundRobin[Any], count: int) -> list[str]:
    return [pick(router) for _ in range(count)]


def property_of(
    kind: type[WeightedRoundRobin[Any]], *, examples: int, phases: tuple[Phase, ...] = tuple(Phase)
) -> Callable[[], None]:
    """Return the property of a router, for this class."""

    @settings(
        max_examples=examples,
        phases=phases,
        derandomize=len(phases) == 1,
        database=None,
        report_multiple_bugs=False,
    )
    @given(weights=WEIGHTS, rounds=ROUNDS)
    def holds(weights: list[int], rounds: list[tuple[str, int, int]]) -> None:
        play(kind, weights, rounds)

    return holds


def test_each_has_its_share_and_whoever_is_down_or_busy_none() -> None:
    """Weights are what was paid for, and a dead server serves nobody."""
    property_of(WeightedRoundRobin, examples=150)()


class NeverPays(WeightedRoundRobin[Any]):
    """Whoever is chosen keeps what it is owed."""

    def _choose(self, job: Waiting, now: float) -> Any:
        target = super()._choose(job, now)
        target.credit += 0.5
        return target


class AsksNobody(WeightedRoundRobin[Any]):
    """Chooses among all, well or not."""

    def _choose(self, job: Waiting, now: float) -> Any:
        return max(self._targets.values(), key=lambda target: target.weight - target.picked % 7)


class TakesBusyForDown(WeightedRoundRobin[Any]):
    """A full limit is an outage."""

    def eta(self, job: Waiting, now: float) -> float:
        eta = super().eta(job, now)
        if eta > now:
            raise NoResource(self.label)
        return eta


@pytest.mark.parametrize("kind", [NeverPays, AsksNobody, TakesBusyForDown])
def test_the_property_tells_broken_routers(kind: type[WeightedRoundRobin[Any]]) -> None:
    """A property that nothing breaks proves nothing."""
    with pytest.raises((AssertionError, NoResource)):
        property_of(kind, examples=150, phases=(Phase.generate,))()


# ---------------------------------------------------------------- health


def test_failures_that_its_breaker_has_seen_make_one_lighter() -> None:
    """Half a dead server gets less, before it is given up."""
    router = WeightedRoundRobin(
        Resource("a", breaker=breaker(min_calls=10, failure_ratio=1)), Resource("b", breaker=breaker())
    )
    job = Pass()
    for _ in range(12):
        router.take(job, 0.0)
        router.give(job, 0.0, FAILED if job.resource.name == "a" else RETURNED)
    before = Counter(picks(router, 40))
    assert 0 < before["a"] < before["b"]


def test_one_that_comes_back_begins_slowly() -> None:
    """A cold cache under full load is the next outage."""
    gate = breaker()
    router = WeightedRoundRobin(Resource("a", breaker=gate), Resource("b"), slow_start=10)
    assert picks(router, 4) == "abab"
    while gate.state != "open":
        pick(router, 0.0, FAILED)
    assert picks(router, 5, 5.0) == "bbbbb"
    while gate.stats()["state"] != "closed":
        pick(router, 20.0)
    shares = [Counter(picks(router, 40, 20.0 + after))["a"] for after in (0, 5, 10)]
    assert shares[0] <= 5
    assert 10 <= shares[1] <= 15
    assert shares[2] == 20


async def test_health_and_weights_change_at_run_time() -> None:
    """A server is drained before it is switched off, and comes back as gently as after an outage."""
    router = WeightedRoundRobin(Resource("a"), Resource("b"), slow_start=10)
    router.update(weights={"b": 3}, health={"a": 0.5})
    assert Counter(picks(router, 7)) == {"a": 1, "b": 6}
    router.update(weights={"a": 0})
    assert picks(router, 3) == "bbb"
    with pytest.raises(InvalidOption, match=r"weights: .* has a, b, got 'c'"):
        router.update(weights={"a": 1, "c": 1})
    with pytest.raises(InvalidOption, match=r"health of a must be a number from 0 to 1, got 2"):
        router.update(weights={"a": 1}, health={"a": 2})
    with pytest.raises(InvalidOption, match="weights must be a mapping"):
        router.update(weights=5)
    assert router.stats()["a"]["weight"] == 0, "nothing was changed"
    router.update(weights={"a": 3})
    now = router.clock.monotonic()
    assert Counter(picks(router, 10, now))["a"] <= 2


# ---------------------------------------------------------------- in use


async def test_the_body_and_the_block_have_their_resource() -> None:
    """What was chosen is what is to be used."""
    router = WeightedRoundRobin(Resource("a", "https://a"), Resource("b", "https://b"))

    async def work() -> str:
        await asyncio.sleep(0)
        url: str = current_job().resource.value
        return url

    async with TaskManager(router) as manager:
        jobs = [manager.submit(work) for _ in range(4)]
        assert [await job for job in jobs] == ["https://a", "https://b"] * 2
    async with router as one, router as other, router.permit() as third:
        assert (one.name, other.name, third.resource.name) == ("a", "b", "a")
    async with Flow(router, ConcurrencyLimit(1)).permit() as passed:
        assert passed.resource.name == "b"
    assert router.stats()["a"] == {"weight": 1, "effective": 1, "state": "closed", "running": 0, "picked": 4}


async def test_jobs_of_an_app_have_theirs() -> None:
    """A flow is the same wherever it stands; each attempt has its own."""
    app = Quarterjack()
    router = WeightedRoundRobin(Resource("a", breaker=breaker(min_calls=1)), Resource("b"))
    seen: list[str] = []

    @app.task(flow=router, retry=3)
    async def work() -> None:
        seen.append(current_job().resource.name)
        if seen[-1] == "a":
            raise OSError

    @app.task
    async def plain() -> None:
        assert current_job().resource is None

    async with virtual_time(app) as world:
        job = await app.submit(work)
        await app.submit(plain)
        await world.run_for("1h")
        assert (job.attempt, job.state.value) == (2, "done")
    assert seen == ["a", "b"]


async def test_jobs_are_held_or_turned_away_when_all_are_down_and_wait_when_they_are_busy() -> None:
    """Two sorts of "not now", and a third that comes by itself."""
    down = WeightedRoundRobin(Resource("a", breaker=breaker(), limit=ConcurrencyLimit(1)))
    held = WeightedRoundRobin(Resource("a", breaker=breaker(), limit=ConcurrencyLimit(1)), on_down="hold")

    async def fail() -> None:
        await asyncio.sleep(1)
        raise OSError

    for router in (down, held):
        with virtual_loop() as clock:
            began = clock.monotonic()
            async with TaskManager(router) as manager:
                for _ in range(2):
                    manager.submit(fail)
                last = manager.submit(asyncio.sleep, 0)
                await manager.idle()
                if router is down:
                    with pytest.raises(NoResource):
                        await last
                    assert clock.monotonic() - began == pytest.approx(2), "the second waited for the slot"
                else:
                    await last
                    assert clock.monotonic() - began == pytest.approx(12), "it was the probe"


async def test_waiters_are_woken_by_what_happens_to_a_resource() -> None:
    """Nobody polls: a limit that grows, a weight that comes back and a breaker that is reset say so."""
    limit, gate = ConcurrencyLimit(1), breaker()
    router = WeightedRoundRobin(Resource("a", limit=limit, breaker=gate), on_down="hold")
    async with TaskManager(router) as manager:
        first = manager.submit(asyncio.sleep, 3600)
        await asyncio.sleep(0.01)
        steps: list[tuple[Callable[[], object], Callable[[], object]]] = [
            (lambda: None, lambda: limit.update(max_concurrent=2)),
            (gate.isolate, gate.reset),
            (lambda: router.update(weights={"a": 0}), lambda: router.update(weights={"a": 1})),
        ]
        for block, free in steps:
            block()
            job = manager.submit(asyncio.sleep, 0)
            for _ in range(5):
                await asyncio.sleep(0)
            assert not job.state.is_finished
            free()
            async with asyncio.timeout(5):
                await job
        await first.cancel()


async def test_a_limit_that_goes_by_the_wall_clock_has_it_noticed() -> None:
    """A router is asked again when the clock is set, if one of its limits is to be."""
    hours = TimeWindow(Between("09:00", "17:00", tz="UTC"))
    router = WeightedRoundRobin(Resource("a", limit=hours))
    assert router.follows_wall_clock
    assert not WeightedRoundRobin(Resource("a", limit=ConcurrencyLimit(1))).follows_wall_clock
    with virtual_loop(start="2026-03-02T08:00Z") as clock:
        async with TaskManager(router) as manager:
            job = manager.submit(asyncio.sleep, 0)
            await asyncio.sleep(60)
            assert not job.state.is_finished
            clock.step_clock("2h")
            async with asyncio.timeout(60):
                await job


async def test_a_limit_that_counts_starts_is_told_of_them() -> None:
    """A quota per second belongs to each key of an API, say."""
    router = WeightedRoundRobin(
        Resource("a", limit=SlidingWindow(2, per=1.0)), Resource("b", limit=SlidingWindow(1, per=1.0))
    )
    starts: list[tuple[int, str]] = []
    with virtual_loop() as clock:
        began = clock.monotonic()

        async def work() -> None:
            starts.append((round(clock.monotonic() - began), current_job().resource.name))

        async with TaskManager(router) as manager:
            for _ in range(7):
                manager.submit(work)
    assert Counter(starts) == {(0, "a"): 2, (0, "b"): 1, (1, "a"): 2, (1, "b"): 1, (2, "a"): 1}


async def test_a_hung_probe_of_a_resource_is_given_up() -> None:
    """The breaker of a resource has its alarms though nobody waits at it."""
    gate = breaker(probe_timeout=5)
    with virtual_loop():
        router = WeightedRoundRobin(Resource("a", breaker=gate), Resource("b", weight=0.001))

        async def fail() -> None:
            if current_job().resource.name == "a":
                raise OSError

        async with TaskManager(router) as manager:
            for _ in range(2):
                manager.submit(fail)
            await manager.idle()
            states = [gate.state]
            await asyncio.sleep(10)
            hung = manager.submit(asyncio.sleep, 3600)
            await asyncio.sleep(1)
            states.append(gate.state)
            await asyncio.sleep(5)
            assert [*states, gate.state] == ["open", "half_open", "open"]
            await hung.cancel()


def test_nothing_stays_taken_when_a_gate_of_a_resource_raises() -> None:
    """A user's limit is a program, too."""

    class Broken(Gate):
        def eta(self, job: Waiting, now: float) -> float:
            return now

        def take(self, job: Waiting, now: float) -> None:
            raise KeyError

    gate = breaker()
    router = WeightedRoundRobin(Resource("a", breaker=gate, limit=Broken()))
    with pytest.raises(KeyError):
        router.take(Pass(), 0.0)
    assert gate._passes == {}
    assert router._passes == {}


async def test_cancelled_jobs_leave_nothing_taken() -> None:
    """Waiting, admitted or running."""
    limits = [ConcurrencyLimit(1), ConcurrencyLimit(1)]
    router = WeightedRoundRobin(Resource("a", limit=limits[0]), Resource("b", limit=limits[1]))
    async with TaskManager(router) as manager:
        jobs = [manager.submit(asyncio.sleep, 3600) for _ in range(4)]
        await asyncio.sleep(0)
        await asyncio.gather(*(job.cancel() for job in jobs))
    assert [limit.used for limit in limits] == [0, 0]
    assert all(stats["running"] == 0 for stats in router.stats().values())
    job = Pass()
    router.take(job, 0.0)
    router.forget()
    router.give(job, 0.0, CANCELLED)
    assert [limit.used for limit in limits] == [0, 0]


async def test_keys_have_turns_of_their_own_and_share_the_values() -> None:
    """One tenant's crowd does not shift another's turn; clients are not copied."""

    class Client:
        def __deepcopy__(self, memo: object) -> Client:
            raise AssertionError("a client cannot be copied")

    client = Client()
    limit = ConcurrencyLimit(5)
    router = WeightedRoundRobin(Resource("a", client, 1, breaker(), limit), Resource("b", client), by="tenant")
    router.update(weights={"b": 2})
    for tenant in ("acme", "blue"):
        names: list[str] = []
        for _ in range(3):
            async with router.permit(tenant=tenant) as one:
                names.append(one.resource.name)
                assert one.resource.value is client
        assert sorted(names) == ["a", "b", "b"]
    acme, blue = router.at("acme"), router.at("blue")
    assert isinstance(acme, WeightedRoundRobin)
    assert acme.is_idle(1e12)
    assert acme is not blue
    assert acme.resources[0].limit is not limit
    assert [gate._leader for gate in acme.resources[0].gates] == [acme, acme]


async def test_each_key_gets_its_shares_whoever_comes_between() -> None:
    """The bug: a key with nobody inside was forgotten as others came, and began with the first resource again."""
    router = WeightedRoundRobin(Resource("a"), Resource("b"), Resource("c"), by="tenant")
    got: list[str] = []
    firsts: list[str] = []
    for number in range(30):
        async with router.permit(tenant="steady") as one:
            got.append(one.resource.name)
        async with router.permit(tenant=number) as one:
            firsts.append(one.resource.name)
    assert [got[at : at + 3].count("a") for at in range(0, 30, 3)] == [1] * 10
    assert {name: firsts.count(name) for name in "abc"} == pytest.approx({"a": 10, "b": 10, "c": 10}, abs=1)


async def test_keys_that_nobody_uses_any_more_are_forgotten_by_their_router() -> None:
    """Tenants come and go."""
    router = WeightedRoundRobin(Resource("a"), Resource("b"), by="tenant")
    with virtual_loop():
        for number in range(100):
            async with router.permit(tenant=number):
                pass
        await asyncio.sleep(3601)
        for number in range(100, 200):
            async with router.permit(tenant=number):
                pass
        assert len(router.keys()) <= 101


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (WeightedRoundRobin, "needs resources"),
        (lambda: WeightedRoundRobin("a"), "takes Resource"),  # type: ignore[arg-type]  # that is the case
        (lambda: WeightedRoundRobin(Resource("a"), Resource("a")), "two resources are called 'a'"),
        (lambda: WeightedRoundRobin(Resource("a"), on_down="wait"), "on_down must be"),  # type: ignore[arg-type]
        (lambda: WeightedRoundRobin(Resource("a"), slow_start=-1), "slow_start must be 0 or more"),
        (lambda: Resource(""), "needs a name"),
        (lambda: Resource("a", weight=-1), "weight of a must be a number from 0"),
        (lambda: Resource("a", breaker=ConcurrencyLimit(1)), "breaker of a must be"),  # type: ignore[call-overload]
        (lambda: Resource("a", limit=5), "limit of a must be a gate"),  # type: ignore[call-overload]
        (lambda: Resource("a", limit=ConcurrencyLimit(1, by="x")), "goes by keys"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_built(build: Callable[[], object], told: str) -> None:
    """A router with two servers of one name would be drained by halves."""
    with pytest.raises(InvalidOption, match=told):
        build()


async def test_gates_of_a_resource_belong_to_it_alone() -> None:
    """Shared with a flow, each would wake the waiters of the other only by chance."""
    limit = ConcurrencyLimit(1)
    with pytest.raises(InvalidOption, match="in use elsewhere"):
        WeightedRoundRobin(Resource("a", limit=limit), Resource("b", limit=limit))
    WeightedRoundRobin(Resource("a", limit=limit))
    with pytest.raises(InvalidOption, match="in use elsewhere"):
        WeightedRoundRobin(Resource("a", limit=limit))
    with pytest.raises(InvalidOption, match="belongs to a resource of WeightedRoundRobin alone"):
        async with limit:
            pass


def test_a_job_too_heavy_for_every_resource_is_refused_at_once() -> None:
    """It would wait for ever."""
    router = WeightedRoundRobin(
        Resource("a", limit=ConcurrencyLimit(1)), Resource("b", limit=ConcurrencyLimit(2)), on_down="hold"
    )
    heavy = Pass(cost=2.0)
    router.check(heavy)
    router.take(heavy, 0.0)
    assert heavy.resource.name == "b"
    with pytest.raises(InvalidOption, match="cost=3 is above"):
        router.check(Pass(cost=3.0))


@pytest.mark.parametrize("limit", [ConcurrencyLimit, partial(SlidingWindow, per=1)], ids=["at once", "per second"])
async def test_a_job_too_heavy_for_one_resource_gets_another(limit: Callable[[int], Gate]) -> None:
    """The one that can never take it is no reason to fail."""
    router = WeightedRoundRobin(Resource("small", "s", limit=limit(1)), Resource("large", "l", limit=limit(9)))
    for _ in range(3):
        async with router.permit(cost=2) as one:
            assert one.resource.name == "large"
