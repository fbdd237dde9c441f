"""Chains under everything that can happen to their jobs: they never stop, never turn on the spot, never double."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import MemoryStore, planner
from quarterjack.model import (
    FinishKind,
    JobFilter,
    JobRecord,
    JobState,
    Origin,
    Overlap,
    OverlapMode,
    RunOptions,
    Unique,
)
from quarterjack.testing.store_contract import Bench
from quarterjack.triggers import Forever

NAMES = ("one", "two", "three")

acts = st.lists(
    st.tuples(
        st.sampled_from(["claim", "finish", "outlive", "end", "manual", "submit", "cancel", "repeat", "anew"]),
        st.integers(0, 11),
    ),
    max_size=25,
)
policies = st.builds(
    Overlap,
    st.sampled_from(["skip", "queue_one", "queue_latest", "queue_all", "cancel_previous", "allow"]),
    st.sampled_from([None, 1, 2]),
)
uniques = st.none() | st.builds(
    Unique, st.just("k"), st.sampled_from(["queued", "unfinished"]), st.sampled_from(["return", "replace"])
)
MANUAL: tuple[OverlapMode | None, ...] = (None, "allow", "queue_latest", "cancel_previous")


class Story:
    """Three chains on one store, and what becomes of their jobs."""

    def __init__(self, chains: list[tuple[Overlap, Unique | None]], key: str | None) -> None:
        self.b = Bench(MemoryStore())
        self.chains = chains
        self.key = key
        self.held: list[JobRecord] = []
        self.zombies: list[JobRecord] = []
        self.repeated: set[str] = set()

    async def put(self, n: int) -> None:
        overlap, unique = self.chains[n]
        options = RunOptions(unique=unique)
        await self.b.schedule(NAMES[n], trigger=Forever(), overlap=overlap, overlap_key=self.key, options=options)

    async def act(self, what: str, n: int) -> None:
        b, name = self.b, NAMES[n % 3]
        if what == "claim":
            self.held += await b.claim(1 + n % 3, lease_s=None)
        elif what in {"finish", "outlive"} and self.held:
            job = self.held.pop(n % len(self.held))
            kind = [FinishKind.TIMED_OUT, FinishKind.DONE, FinishKind.RETRY, FinishKind.CANCELLED][n % 4]
            if what == "outlive" and kind is not FinishKind.RETRY:
                self.zombies.append(job.copy())
            await b.finish(job.fence, kind, zombie=what == "outlive" and kind is not FinishKind.RETRY)
        elif what == "end" and self.zombies:
            await b.store.jobs_ended([self.zombies.pop(n % len(self.zombies)).fence])
        elif what == "manual":
            origin = Origin(name, 1, n, trigger="manual")
            job = JobRecord(b.ids(), "a", (), {}, RunOptions(unique=self.chains[n % 3][1]), None, origin)
            await b.store.schedules_trigger(name, job, MANUAL[n % 4])
        elif what == "submit":
            await b.put(unique=Unique("k"))
        elif what == "cancel":
            jobs = [job for job in await self.jobs() if job.state is JobState.SUBMITTED]
            await b.store.jobs_request_cancel([job.id for job in jobs[n % 5 :][:1]])
        elif what == "repeat":
            state = [JobState.FAILED, JobState.SKIPPED, JobState.DONE, JobState.CANCELLED][n % 4]
            self.repeated.update(await b.store.jobs_retry(JobFilter(states=frozenset({state}), schedule_id=name)))
        elif what == "anew":
            await b.store.schedules_remove([name])
            await self.put(n % 3)

    async def jobs(self) -> list[JobRecord]:
        return (await self.b.store.jobs_list(JobFilter(), limit=10_000)).jobs

    async def fire(self) -> None:
        """Fire all that is due at this instant: a bounded number, or something turns on the spot."""
        await self.b.advance(0.001)
        fired = 0
        while due := await self.b.store.schedules_due(1_000):
            await self.b.advance(1e-6)
            await self.b.store.schedules_fire([await self.b.plan(due[0].id)])
            fired += 1
            assert fired <= 2 * len(NAMES), "it turns on the spot"

    async def no_chain_is_double(self) -> None:
        for row in await self.b.store.schedules_list():
            for job in await self.jobs():
                is_open = not job.state.is_finished or job.zombie
                if is_open and job.id not in self.repeated and job.origin and planner.is_newest(row, job.origin):
                    assert row.next_nominal_ns is None, "its next run is armed while this one runs"

    async def all_go_on_when_everything_has_ended(self) -> None:
        for job in self.zombies:
            await self.b.store.jobs_ended([job.fence])
        self.held += await self.b.claim(lease_s=None)
        while self.held:
            for job in self.held:
                await self.b.finish(job.fence)
            await self.b.advance(0.001)
            is_over = all(job.state.is_finished for job in await self.jobs())  # a claim would look for room again
            self.held = [] if is_over else await self.b.claim(lease_s=None)
        assert {row.id for row in await self.b.store.schedules_due(1_000)} == set(NAMES)


async def tell(chains: list[tuple[Overlap, Unique | None]], key: str | None, story: list[tuple[str, int]]) -> None:
    s = Story(chains, key)
    await s.b.open()
    for n in range(len(NAMES)):
        await s.put(n)
    await s.fire()
    for what, n in story:
        await s.act(what, n)
        await s.no_chain_is_double()
        await s.fire()
    await s.all_go_on_when_everything_has_ended()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(policies, uniques), min_size=3, max_size=3), st.sampled_from([None, "shared"]), acts)
def test_chain_is_one_whatever_happens_and_goes_on(
    chains: list[tuple[Overlap, Unique | None]], key: str | None, story: list[tuple[str, int]]
) -> None:
    """No order of ends, cancels, repeats, manual runs and late bodies stops, spins or doubles a chain."""
    asyncio.run(tell(chains, key, story))
