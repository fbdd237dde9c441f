"""The durable half of the contract, over plain dicts: what every engine inherits keeps the contract."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings

from quarterjack.errors import StoreUnavailable
from quarterjack.model import JobRecord, JobState, Overlap, lanes_of
from quarterjack.stores._needs import Loaded, Needs
from quarterjack.stores.base import Claim, Want
from quarterjack.testing.store_contract import Bench, StoreContract
from quarterjack.testing.store_machine import store_machine
from quarterjack.triggers import Forever
from tests.stores.reference import ReferenceStore
from tests.stores.stories import Teller, story, told_alike


class TestReferenceStore(StoreContract):
    """The contract, case by case."""

    def bench(self) -> Bench:
        return Bench(ReferenceStore())


class TestReferenceStoreThatLoadsByWhim(StoreContract):
    """The contract, where each decision is made several times, before it has all it asks for."""

    def bench(self) -> Bench:
        return Bench(ReferenceStore(whim=Random(7)))


@pytest.mark.parametrize("seed", range(8))
async def test_nothing_is_kept_of_what_is_over(seed: int) -> None:
    """A key that stays taken, or a job that nobody lets go, would be a leak that no answer shows."""
    store = ReferenceStore()
    teller = Teller(Bench(store))
    await told_alike(story(seed, 120), teller)
    tables = store.tables
    jobs = {job.id: job for job in store._jobs()}
    for key, taken in tables.uniques.items():
        assert taken.until_ns is not None or not jobs[taken.job_id].state.is_finished, key
    assert {schedule_id for schedule_id, _, _ in tables.occurrences} <= tables.schedules.keys()
    for job_id, stored in tables.jobs.items():
        if stored.parked:
            others = [job for job in jobs.values() if job.serial and job.overlap_key == jobs[job_id].overlap_key]
            may_go = [job for job in others if job.state is JobState.SUBMITTED and not tables.jobs[job.id].parked]
            assert may_go or any(job.state.is_held or job.zombie for job in others), f"nobody lets {job_id} go"
            assert jobs[job_id].state is JobState.SUBMITTED


async def test_chain_goes_on_that_a_claim_made_room_for_whose_answer_was_lost() -> None:
    """Nobody knows what was claimed; who waits for room is asked instead, by the next claim that is answered."""
    store = ReferenceStore()
    b = Bench(store)
    await b.open()
    await b.schedule(trigger=Forever(), overlap=Overlap("queue_one"))
    await store.schedules_trigger("s", b.job())
    (row,) = (await store.schedules_fire([await b.plan()])).rows
    assert row.state is JobState.SKIPPED
    store.faults = ["after"]
    with pytest.raises(StoreUnavailable):
        await b.claim()
    assert await store.schedules_due(10**12) == []
    assert await b.claim() == []
    assert [row.id for row in await store.schedules_due(10**12)] == ["s"]
    await store.close()


async def test_tick_behind_others_does_not_load_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands may wait for a key; that the one before waits too is enough to know."""
    store = ReferenceStore()
    lines: list[str] = []
    found = store._found

    def noted(needs: Needs) -> Loaded:
        lines.extend(needs.lines)
        return found(needs)

    monkeypatch.setattr(store, "_found", noted)
    b = Bench(store)
    await b.open()
    await b.schedule(overlap=Overlap("queue_all"))

    async def fire(slots: int) -> list[JobRecord]:
        await b.advance(60)
        claim = Claim("w1", [Want(("default",), lanes_of(["a"]), slots)], None)
        return (await store.schedules_fire([await b.plan()], claim)).jobs

    (held,) = await fire(1)
    lines.clear()
    assert await fire(1) == await fire(1) == await fire(0) == []
    assert lines == []
    for _ in range(4):
        await b.finish(held.fence)
        (held,) = await b.claim(1, lease_s=None) or [held]
    assert await fire(0) == []
    assert lines == []


TestReferenceStoreBesideItsModel = store_machine(lambda: Bench(ReferenceStore())).TestCase
TestReferenceStoreBesideItsModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
