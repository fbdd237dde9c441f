"""When a worker is dead: how soon another one has its job."""

from __future__ import annotations

import asyncio
from random import Random
from typing import NamedTuple

import pytest

from quarterjack import Quarterjack, current_job
from quarterjack.errors import StoreUnavailable
from quarterjack.runtime import claiming
from quarterjack.testing._clock import VirtualClock
from tests.runtime.fleet import Connection, Server, fleet

LEASE_S = 2.0


class Latest(Random):
    """Draws the worst that may be drawn."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


class Takeover(NamedTuple):
    """Seconds from the death of a worker to the end of its lease, and from there until the job was claimed anew."""

    lease_s: float
    claim_s: float


async def takeover(starts_after_s: float) -> Takeover:
    """Have a worker die and another one take its job over, by the store's own times; no hint is ever sent."""
    server = Server(VirtualClock(), has_hints=False)
    client = Quarterjack(server.connect("client"), role="client")
    first, second = (Quarterjack(server.connect(name), lease=LEASE_S) for name in ("first", "second"))
    ran: list[int] = []
    is_dead = False

    async def body() -> None:
        ran.append(current_job().attempt)
        await asyncio.sleep(30 if current_job().attempt == 1 else 0)

    async def fault(by: Connection, call: str, is_after: bool) -> None:
        if is_dead and by.label == "first":
            raise StoreUnavailable("dead")

    task, _, _ = (app.task(name="body")(body) for app in (client, first, second))
    server.fault = fault
    async with fleet(server, client, first) as clock:
        job = await client.submit(task)
        await clock.run_for(3 + starts_after_s)
        second.clock = clock
        async with second:
            row = server.store._jobs[job.id]
            died_ns, ends_ns = clock.now_ns(), row.lease_until_ns or 0
            is_dead = True
            await clock.run_for(LEASE_S + 2)
            assert ran == [1, 2]
            is_dead = False
            await job
    claimed_ns = server.store._jobs[job.id].scheduled_at_ns or 0
    return Takeover((ends_ns - died_ns) / 1e9, (claimed_ns - ends_ns) / 1e9)


async def test_a_dead_workers_job_is_claimed_within_its_lease_and_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the other one happens to look, and with nobody to tell it: the bug was that it looked after 1.2 s."""
    monkeypatch.setattr(claiming, "Random", Latest)
    found = [await takeover(part / 10) for part in range(12)]
    assert all(0 < one.lease_s <= LEASE_S for one in found)
    assert all(0 <= one.claim_s <= 1 for one in found)
    assert max(one.claim_s for one in found) > 0.8  # the worst is among them
