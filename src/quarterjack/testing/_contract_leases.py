"""The part of the store contract's suite that is about keeping leases from a thread, and about retention."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

import asyncio
from datetime import timedelta

from quarterjack.model import JobRecord, JobState, Overlap, WorkerInfo, lanes_of
from quarterjack.stores.base import Claim, Renewal, Want

from ._bench import TASKS, Bench

__all__ = ["LeaseContract"]


class LeaseContract:
    """Renewals over `Store.lease_link`, what a renewal tells others, and how much is kept."""

    async def test_renewal_that_tells_of_the_body_makes_the_job_running(self, b: Bench) -> None:
        """Other processes see what runs, although only its worker knows when it began."""
        job = await b.put()
        (row,) = await b.claim(lease_s=30)
        now = await b.store.now_ns()
        for _ in range(2):  # a renewal that is sent again says nothing new
            await b.store.jobs_renew("w1", [Renewal(row.id, row.attempt, running_at_ns=now)], 30)
        seen = await b.get(job.id)
        assert (seen.state, seen.running_at_ns) == (JobState.RUNNING, now)
        assert await b.finish(row.fence, started_at_ns=now, running_at_ns=now)
        assert (await b.get(job.id)).state is JobState.DONE

    async def test_lease_that_is_renewed_for_no_time_is_over(self, b: Bench) -> None:
        """So the jobs of a process that is known to be dead are free at once; what it says later is refused."""
        job = await b.put()
        (row,) = await b.claim(lease_s=30)
        stale = row.fence
        await b.store.jobs_renew("w1", [Renewal(row.id, row.attempt)], 0.0)
        (again,) = await b.claim(owner="w2")
        assert (again.id, again.attempt, again.rescues) == (job.id, 2, 1)
        assert not await b.finish(stale)

    async def test_renewal_that_tells_of_a_queue_makes_the_job_started(self, b: Bench) -> None:
        """Other processes see what waits in a cluster; once its body has begun they see that, and since when."""
        job, quick, running = [await b.put() for _ in range(3)]
        rows = {row.id: row for row in await b.claim(3, lease_s=30)}
        now = await b.store.now_ns()
        for _ in range(2):  # a renewal that is sent again says nothing new
            await b.store.jobs_renew("w1", [Renewal(job.id, 1, started_at_ns=now)], 30)
        seen = await b.get(job.id)
        assert (seen.state, seen.started_at_ns, seen.running_at_ns) == (JobState.STARTED, now, None)
        for one, began in ((job, now + 2), (quick, now + 2), (running, now + 3)):
            await b.store.jobs_renew("w1", [Renewal(one.id, 1, running_at_ns=began, started_at_ns=now + 1)], 30)
        await b.store.jobs_renew("w1", [Renewal(running.id, 1, started_at_ns=now + 9)], 30)  # it was overtaken
        found = [await b.get(one.id) for one in (job, quick, running)]
        assert {one.state for one in found} == {JobState.RUNNING}
        assert [one.started_at_ns for one in found] == [now, now + 1, now + 1]
        assert [one.running_at_ns for one in found] == [now + 2, now + 2, now + 3]
        assert await b.finish(rows[job.id].fence, started_at_ns=now, running_at_ns=now + 2)

    async def test_renewal_that_comes_after_the_end_moves_nothing(self, b: Bench) -> None:
        """What waited in a cluster may end there before anybody was told that it waits."""
        job = await b.put()
        (row,) = await b.claim(lease_s=30)
        await b.finish(row.fence)
        await b.store.jobs_renew("w1", [Renewal(job.id, 1, started_at_ns=1)], 30)
        assert (await b.get(job.id)).state is JobState.DONE

    async def test_stale_renewal_makes_nothing_running(self, b: Bench) -> None:
        """Whoever has lost a job says nothing of it any more."""
        job = await b.put()
        (row,) = await b.claim(lease_s=30)
        await b.advance(31)
        await b.claim(owner="w2")
        answer = await b.store.jobs_renew("w1", [Renewal(row.id, row.attempt, running_at_ns=1)], 30)
        assert answer.lost == [job.id]
        assert (await b.get(job.id)).running_at_ns is None

    async def test_lease_link_renews_from_another_thread(self, b: Bench) -> None:
        """A loop that users' code blocks must not be the one that keeps leases."""
        await b.put()
        (row,) = await b.claim(lease_s=30)
        await b.advance(20)
        link = b.store.lease_link()
        worker = WorkerInfo("w1", "host", 1, "worker", ("default",), 0, 0)

        async def renew() -> tuple[object, object]:
            await link.open()
            try:
                answer = await link.jobs_renew("w1", [Renewal(row.id, row.attempt)], 30)
                return answer, await link.workers_put(worker)
            finally:
                await link.close()

        answer, command = await asyncio.to_thread(lambda: asyncio.run(renew()))
        assert (answer, command) == (([], []), None)
        await b.advance(20)
        assert await b.claim(owner="w2") == []
        assert [one.id for one in await b.store.workers_list()] == ["w1"]

    async def test_what_an_owner_leased_and_does_not_know_of_goes_back(self, b: Bench) -> None:
        """The answer of a claim may be lost: its jobs must not wait for the lease, nor count as a worker's death."""
        known, unknown, begun, others = [await b.put(max_rescues=0) for _ in range(4)]
        held = {row.id: row for row in await b.claim(3)}
        await b.claim(owner="w2")
        await b.store.jobs_renew("w1", [Renewal(begun.id, 1, running_at_ns=1)], 30)
        await b.began(held[begun.id].fence)
        released = await b.store.jobs_release_unknown("w1", [held[known.id].fence], reason="unanswered")
        assert released == [unknown.id]
        row = await b.get(unknown.id)
        assert (row.state, row.reason, row.attempt, row.rescues) == (JobState.SUBMITTED, "unanswered", 1, 0)
        assert await b.states([known, begun, others]) == ["scheduled", "running", "scheduled"]
        assert [row.id for row in await b.claim()] == [unknown.id]

    async def test_earlier_attempt_of_an_owner_is_not_the_one_it_holds_now(self, b: Bench) -> None:
        """Who lost a lease may have leased the job again by the claim whose answer is lost."""
        job = await b.put()
        (before,) = await b.claim(lease_s=30)
        fence = before.fence
        await b.advance(31)
        (again,) = await b.claim(lease_s=30)
        assert await b.store.jobs_release_unknown("w1", [again.fence]) == []
        assert await b.store.jobs_release_unknown("w1", [fence]) == [job.id]
        assert await b.store.jobs_release_unknown("w1", []) == []

    async def test_wants_that_overlap_take_each_job_once(self, b: Bench) -> None:
        """A worker asks for one lane several times: for all jobs, and for ticks with the slots it keeps for them."""
        jobs = [await b.put() for _ in range(3)]
        await b.schedule(every_s=60, overlap=Overlap("queue_all"))
        for _ in range(2):
            await b.advance(60)
            await b.store.schedules_fire([await b.plan()])
        lanes = lanes_of(TASKS)
        wants = [Want(("default",), lanes, 2), Want(("default",), lanes, 9), Want(("default",), lanes, 9)]
        held = (await b.store.jobs_claim(Claim("w1", wants, 30))).jobs
        assert len(held) == len({job.id for job in held}) == len(jobs) + 1
        assert {job.attempt for job in held} == {1}

    async def test_purge_keeps_the_newest_finished_jobs(self, b: Bench) -> None:
        """History is bounded in rows as well as in days."""
        waiting = await b.put("b")
        jobs: list[JobRecord] = []
        for _ in range(4):
            jobs.append(await b.put())
            await b.finish((await b.claim(tasks=frozenset({"a"})))[0].fence)
            await b.advance(1)
        assert await b.store.jobs_purge(timedelta(days=1), keep=5) == 0
        assert await b.store.jobs_purge(timedelta(days=1), keep=2) == 2
        assert await b.states([waiting, *jobs]) == ["submitted", "gone", "gone", "done", "done"]
