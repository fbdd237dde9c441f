"""Flows whose gates hold for a fleet, in apps that share a store."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import pytest

from quarterjack import (
    ConcurrencyLimit,
    FixedWindow,
    Flow,
    Gate,
    Quarterjack,
    SlidingWindow,
    TokenBucket,
    current_job,
    gather,
)
from quarterjack.errors import StoreUnavailable
from quarterjack.testing import virtual_time
from quarterjack.testing._clock import VirtualClock
from tests.runtime.fleet import Connection, Server, fleet


class Inside:
    """Who runs, and how many at once there were."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.by: Counter[str] = Counter()

    async def work(self, who: str, key: str, seconds: float) -> None:
        self.now[key] += 1
        self.by[who] += 1
        self.most[key] = max(self.most[key], self.now[key])
        try:
            await asyncio.sleep(seconds)
        finally:
            self.now[key] -= 1


def worker(server: Server, inside: Inside, name: str, flow: Flow) -> Quarterjack:
    """Return an app of a process: what it runs passes *flow*."""
    app = Quarterjack(server.connect(name), role="worker", clock=server.clock)

    @app.task(name="call", flow=flow)
    async def call(tenant: str, seconds: float) -> None:
        await inside.work(name, tenant, seconds)

    return app


async def test_workers_of_one_store_keep_one_limit() -> None:
    """Two processes, five jobs of each of two tenants, two at once of each: whoever runs them."""
    server, inside = Server(VirtualClock()), Inside()
    client = Quarterjack(server.connect("client"), role="client", clock=server.clock)

    @client.task(name="call")
    async def call(tenant: str, seconds: float) -> None: ...

    apps = [
        worker(server, inside, name, Flow(ConcurrencyLimit(2, scope="fleet", name="api", by="tenant")))
        for name in ("one", "two")
    ]
    async with fleet(server, client, *apps) as clock:
        jobs = await client.submit_many(call.bind(tenant, 10.0) for _ in range(5) for tenant in ("a", "b"))
        done = asyncio.ensure_future(gather(jobs))
        await clock.run_for(60)
        assert done.done()
        await done
    assert inside.most == {"a": 2, "b": 2}
    assert set(inside.by) == {"one", "two"}
    assert not server.store._limits._slots.get("slots:api['a']")


async def test_two_limits_of_a_flow_hold_together() -> None:
    """A job that has a slot and no start keeps the slot from nobody for long, and takes both in one step."""
    server, inside = Server(VirtualClock()), Inside()
    client = Quarterjack(server.connect("client"), role="client", clock=server.clock)

    @client.task(name="call")
    async def call(tenant: str, seconds: float) -> None: ...

    def flow() -> Flow:
        limit = ConcurrencyLimit(3, scope="fleet", name="api")
        return Flow(limit, SlidingWindow(2, per=10, scope="fleet", name="api"))

    apps = [worker(server, inside, name, flow()) for name in ("one", "two")]
    async with fleet(server, client, *apps) as clock:
        await client.submit_many(call.bind("a", 60.0) for _ in range(18))  # more than one worker claims ahead
        await clock.run_for(5)
        assert inside.now["a"] == 2
        await clock.run_for(10)
        assert inside.now["a"] == 3
        await clock.run_for(40)
        assert inside.now["a"] == 3
        await clock.run_for(400)
        assert inside.most["a"] == 3
        assert sum(inside.by.values()) == 18
        assert set(inside.by) == {"one", "two"}


async def test_slots_of_a_worker_that_is_cut_off_go_to_the_others() -> None:
    """Its jobs are run elsewhere when their leases are over, and there is room for them by then."""
    server, inside = Server(VirtualClock()), Inside()
    client = Quarterjack(server.connect("client"), role="client", clock=server.clock)

    @client.task(name="call")
    async def call(tenant: str, seconds: float) -> None: ...

    apps = [
        worker(server, inside, name, Flow(ConcurrencyLimit(1, scope="fleet", name="api"))) for name in ("one", "two")
    ]

    async def cut(by: Connection, name: str, is_after: bool) -> None:
        if by.label == holder:
            raise StoreUnavailable("the line is cut")

    async with fleet(server, client, *apps) as clock:
        await client.submit_many(call.bind("a", 1_000.0) for _ in range(10))  # more than one worker claims ahead
        await clock.run_for(5)
        assert inside.now == {"a": 1}
        (holder,) = inside.by
        server.fault = cut
        await clock.run_for(45)
        assert set(inside.by) == {"one", "two"}
        server.fault = None


async def test_a_gate_is_entered_in_a_body_as_anywhere() -> None:
    """The store of the app that runs the body serves it."""
    server, inside = Server(VirtualClock()), Inside()
    limit = ConcurrencyLimit(1, scope="fleet", name="printer")
    app = Quarterjack(server.connect("app"), clock=server.clock)

    @app.task(flow=Flow(ConcurrencyLimit(5)))
    async def print_page() -> int:
        async with limit:
            await inside.work("app", "printer", 1.0)
        return current_job().attempt

    app.queue("printing", flow=limit)
    async with fleet(server, app) as clock:
        jobs = [await app.submit(print_page) for _ in range(3)]
        done = asyncio.ensure_future(gather(jobs))
        await clock.run_for(10)
        assert await done == [1, 1, 1]
    assert inside.most == {"printer": 1}


def q() -> SlidingWindow:
    return SlidingWindow(2, per=60, scope="fleet", name="q")


@pytest.mark.parametrize(
    "other",
    [
        partial(TokenBucket, 5, burst=2),
        partial(SlidingWindow, 4, per=1),
        partial(FixedWindow, 4, per=1),
        partial(ConcurrencyLimit, 3),
    ],
    ids=["bucket", "sliding", "fixed", "slots"],
)
@pytest.mark.parametrize("is_first", [True, False])
async def test_gate_that_keeps_a_job_is_told_and_not_the_one_it_has_not_come_to(
    other: partial[Gate], is_first: bool
) -> None:
    """The bug: a bucket that was refilled long ago "opens when one gives something back", beside a full window."""
    app = Quarterjack()
    more = other(scope="fleet", name="t")
    gates = [more, q()] if is_first else [q(), more]

    @app.task(flow=Flow(*gates))
    async def call() -> None: ...

    async with virtual_time(app, start="2026-03-02T09:00Z") as world:
        jobs = [await app.submit(call) for _ in range(5)]
        await world.run_for(30)
        waits = await app.why_waiting(jobs[3])
    assert waits.words.startswith("it waits in its flow: q lets it start Monday 2 March 2026 at 09:01:01"), waits.words


async def test_limit_that_is_known_to_be_full_is_told_without_being_asked() -> None:
    """What this very process uses up needs no store's answer: its slots are taken, whichever gate the job waits at."""
    app = Quarterjack()

    @app.task(flow=Flow(q(), ConcurrencyLimit(2, scope="fleet", name="slots")))
    async def call() -> None:
        await asyncio.sleep(600)

    async with virtual_time(app, start="2026-03-02T09:00Z") as world:
        jobs = [await app.submit(call) for _ in range(3)]
        await world.run_for(30)
        waits = await app.why_waiting(jobs[2])
        assert waits.words.startswith("it waits in its flow: slots is full for all processes"), waits.words
