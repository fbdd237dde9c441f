"""Several stores on one server, all at once, against a ledger: what must never happen, does not.

Each mechanism that prevents it is taken out of the scripts once, and the ledger must tell."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import redis

from quarterjack import planner
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import StoreUnavailable
from quarterjack.model import (
    Finish,
    FinishKind,
    JobIds,
    JobRecord,
    JobState,
    Overlap,
    Payload,
    RunOptions,
    Schedule,
    Timing,
    Unique,
    lanes_of,
)
from quarterjack.stores import _redis_scripts
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import CancelAnswer, Claim, Want
from quarterjack.triggers import Every
from tests.stores.redis_kit import CLOCK, KeptClockStore, broken_keys

LANES = lanes_of(["a"])
SERIAL = Schedule("serial", Timing(trigger=Every(seconds=1)), Payload(task="a", overlap=Overlap("queue_all", 5)))
SKIPPING = Schedule("skipping", Timing(trigger=Every(seconds=1)), Payload(task="a", overlap=Overlap("skip")))
FEW = Schedule("few", Timing(trigger=Every(seconds=1)), Payload(task="a", overlap=Overlap("allow", 2)))


class Ledger:
    """Who holds what, as told by the stores' answers; whatever must not be is a line of *wrong*."""

    def __init__(self) -> None:
        self.held: dict[str, JobRecord] = {}
        self.ticks: set[tuple[str, int]] = set()
        self.unique: dict[str, str] = {}
        self.ended: set[str] = set()
        self.wrong: list[str] = []

    def took(self, job: JobRecord) -> None:
        if job.id in self.held:
            self.wrong.append(f"{job.id} is held twice")
        for other in self.held.values():
            if job.serial and other.serial and other.overlap_key == job.overlap_key:
                self.wrong.append(f"{job.id} and {other.id} have one turn")
        if len([other for other in self.held.values() if other.overlap_key == "few"]) > 2:
            self.wrong.append("few are too many")
        self.held[job.id] = job

    def fired(self, rows: Sequence[JobRecord]) -> None:
        for row in rows:
            assert row.origin is not None
            tick = row.origin.schedule_id, row.origin.nominal_ns
            if tick in self.ticks and row.state is not JobState.MISSED:
                self.wrong.append(f"{tick} twice")
            if row.state is not JobState.MISSED:
                self.ticks.add(tick)

    def put(self, key: str, job: JobRecord, row: JobRecord) -> None:
        if row is not job:
            return
        before = self.unique.get(key)
        if before is not None and before not in self.ended:
            self.wrong.append(f"{row.id} and {before} have one unique key")
        self.unique[key] = row.id


class Race:
    """Some stores on one prefix, and what each of them does over and over."""

    def __init__(self, stores: list[KeptClockStore], client: Any, root: str) -> None:
        self.stores = stores
        self.client = client
        self.root = root
        self.ledger = Ledger()
        self.ids = JobIds()

    async def run(self, rounds: int, seed: int = 0) -> None:
        """Let all of them do things at once, in an order that *seed* draws."""
        await self.stores[0].schedules_put([SERIAL, SKIPPING, FEW])
        rng = Random(seed)
        await asyncio.gather(
            *(self._act(f"w{n}", store, rng, rounds) for n, store in enumerate(self.stores) for _ in range(2))
        )

    async def _act(self, owner: str, store: KeptClockStore, rng: Random, rounds: int) -> None:
        acts = [self._put, self._claim, self._claim, self._finish, self._fire, self._cancel]
        for _ in range(rounds):
            await rng.choice(acts)(owner, store, rng)

    async def _put(self, owner: str, store: KeptClockStore, rng: Random) -> None:
        key = rng.choice("xyz")
        job = JobRecord(self.ids(), "a", (), {}, RunOptions(unique=Unique(key)))
        (row,) = await store.jobs_put([job])
        self.ledger.put(key, job, row)

    async def _claim(self, owner: str, store: KeptClockStore, rng: Random) -> None:
        claim = Claim(owner, [Want(("default",), LANES, rng.randint(1, 3))], None)
        for job in (await store.jobs_claim(claim)).jobs:
            self.ledger.took(job)

    async def _finish(self, owner: str, store: KeptClockStore, rng: Random) -> None:
        mine = [job for job in self.ledger.held.values() if job.owner == owner][:2]
        for job in mine:
            del self.ledger.held[job.id]
            self.ledger.ended.add(job.id)  # from now on it may be gone
        now = await store.now_ns()
        states = await store.jobs_finish([Finish(*job.fence, FinishKind.DONE, now) for job in mine])
        if states != [JobState.DONE] * len(mine):
            self.ledger.wrong.append(f"refused: {states}")

    async def _fire(self, owner: str, store: KeptClockStore, rng: Random) -> None:
        self.client.incrby(self.root + CLOCK, 700_000)
        plans = [planner.plan(row, await store.now_ns()) for row in await store.schedules_due(0)]
        fired = await store.schedules_fire([plan for plan in plans if plan is not None])
        self.ledger.fired(fired.rows)

    async def _cancel(self, owner: str, store: KeptClockStore, rng: Random) -> None:
        waiting = [job_id for job_id in self.ledger.unique.values() if job_id not in self.ledger.held]
        if waiting and rng.random() < 0.2:
            job_id = rng.choice(waiting)
            if job_id not in self.ledger.ended:
                self.ledger.ended.add(job_id)
                (answer,) = await store.jobs_request_cancel([job_id])
                if answer is CancelAnswer.REQUESTED and job_id in self.ledger.held:
                    self.ledger.ended.discard(job_id)

    def check(self) -> None:
        """Fail if anything went wrong."""
        assert not self.ledger.wrong, self.ledger.wrong[:5]
        assert len(self.ledger.ticks) > 5, "it raced for something"
        assert not (broken := broken_keys(self.client, self.root)), broken


@asynccontextmanager
async def race(url: str, stores: int = 3) -> AsyncIterator[Race]:
    """Open stores on a prefix of their own, and take its keys away afterwards."""
    prefix = f"qj_{secrets.token_hex(6)}"
    root = f"{{{prefix}}}:"
    with redis.Redis.from_url(url, decode_responses=True) as client:
        client.set(root + CLOCK, 1_700_000_000_000_000)
        opened = [KeptClockStore.from_url(f"{url}?prefix={prefix}") for _ in range(stores)]
        try:
            for store in opened:
                await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
            yield Race(opened, client, root)
        finally:
            for store in opened:
                await store.close()
            client.delete(*client.scan_iter(match=f"{root}*", count=1_000))


class TestRaces:
    @pytest.mark.parametrize("seed", [1, 2])
    async def test_nothing_is_doubled(self, redis_server: str, seed: int) -> None:
        """No job held twice, no tick fired twice, no turn or unique key shared, no more of a key than allowed."""
        async with race(redis_server) as it:
            await it.run(60, seed)
            it.check()

    async def test_lease_that_ran_out_is_taken_back_once(self, redis_server: str) -> None:
        """However many see it at the same moment."""
        async with race(redis_server, 4) as it:
            ids = JobIds()
            jobs = [JobRecord(ids(), "a", (), {}, RunOptions()) for _ in range(30)]
            await it.stores[0].jobs_put(jobs)
            await it.stores[0].jobs_claim(Claim("dead", [Want(("default",), LANES, 30)], 30.0))
            it.client.incrby(it.root + CLOCK, 31_000_000)
            answers = await asyncio.gather(
                *(s.jobs_claim(Claim(f"w{n}", [Want(("default",), LANES, 8)], 30.0)) for n, s in enumerate(it.stores))
            )
            got = [job for answer in answers for job in answer.jobs]
            assert sorted(job.id for job in got) == sorted(job.id for job in jobs)
            assert {(job.attempt, job.rescues) for job in got} == {(2, 1)}
            assert not broken_keys(it.client, it.root)

    async def test_rounds_that_always_meet_somebody_end_with_an_error(
        self, redis_server: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call that would try for ever is worse than one that says so."""
        monkeypatch.setattr("quarterjack.stores._redis_rounds._TRIES", 3)
        async with race(redis_server, 1) as it:
            (store,) = it.stores
            await store.schedules_put([SERIAL])
            run, met = store._scripts.run, 0

            async def meet(name: str, words: Sequence[Any]) -> Any:
                nonlocal met
                if name == "commit":
                    met += 1
                    it.client.hincrby(f"{it.root}sched:serial", "rev", 1)
                return await run(name, words)

            monkeypatch.setattr(store._scripts, "run", meet)
            with pytest.raises(StoreUnavailable, match="changed the same rows 3 times"):
                await store.schedules_pause("serial", None, None)
            assert met == 3


BROKEN = {
    "a commit that does not look": ("commit", "if look(name) ~= was then"),
    "a turn that anybody takes": ("turns", "if holder and holder ~= id then"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_ledger_tells_of_a_broken_script(redis_server: str, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A race that finds nothing proves something only if it would find this."""
    name, right = BROKEN[what]
    source = _redis_scripts._source
    assert right in source(name), "the mechanism has moved: break it where it is now"
    broken = source(name).replace(right, "if false then")
    monkeypatch.setattr(_redis_scripts, "_source", lambda asked: broken if asked == name else source(asked))
    async with race(redis_server) as it:
        await it.run(60, 1)
        with pytest.raises(AssertionError):
            it.check()
