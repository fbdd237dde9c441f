"""The part of the store contract's suite that is about the life of jobs: put, claim, leases, finish."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

from datetime import timedelta
from typing import Any

from quarterjack._durations import NS_PER_S
from quarterjack.errors import MissingExtra, UniqueConflict
from quarterjack.model import (
    Finish,
    FinishKind,
    JobFilter,
    JobState,
    Overlap,
    Progress,
    Unique,
)
from quarterjack.stores.base import NO_CHECKPOINT, Renewal

from ._bench import Bench

try:
    import pytest
except ImportError as error:
    raise MissingExtra("the store contract suite", "testing") from error

__all__ = ["JobContract"]


class JobContract:
    """What becomes of a job from its first row to its outcome, a case for each promise."""

    # -- put -------------------------------------------------------------------------

    async def test_put_stamps_and_submits(self, b: Bench) -> None:
        """The store's clock says when a job came and when it may run."""
        now = await b.store.now_ns()
        rows = await b.store.jobs_put([b.job(), b.job(delay_ns=5 * NS_PER_S), b.job(run_at_ns=now + 7)])
        assert [row.state for row in rows] == [JobState.SUBMITTED] * 3
        assert {row.submitted_at_ns for row in rows} == {now}
        assert [row.run_at_ns - now for row in rows] == [0, 5 * NS_PER_S, 7]

    async def test_put_answers_with_the_callers_own_record_where_it_was_stored(self, b: Bench) -> None:
        """Whoever submits reads the stamps from the record at hand; a duplicate's is never stored, and stays new."""
        unique = Unique("k")
        jobs = [b.job(), b.job(unique=unique), b.job(unique=unique)]
        rows = await b.store.jobs_put(jobs)
        assert rows[0] is jobs[0]
        assert rows[1] is jobs[1]
        assert rows[2].id == jobs[1].id
        assert (jobs[0].submitted_at_ns, jobs[2].state) == (await b.store.now_ns(), JobState.NEW)

    @pytest.mark.parametrize("are_alike", [True, False], ids=["alike", "mixed"])
    async def test_jobs_put_together_are_each_stored_as_asked(self, b: Bench, are_alike: bool) -> None:
        """What many of them have in common may travel once; it must not become what all of them have."""
        now = await b.store.now_ns()
        asked: list[dict[str, Any]] = [
            {"delay_ns": 5 * NS_PER_S},
            {},
            {"priority": 0, "metadata": {"n": 1}},
            {"queue": "other", "run_at_ns": now + 1},
            {"max_rescues": 0, "timeout_s": 3.0},
            {"delay_ns": 7},
        ]
        if are_alike:
            asked = [asked[4]] * 6
        jobs = [b.job("a" if are_alike else "ab"[n % 2], **one) for n, one in enumerate(asked)]
        for n, job in enumerate(jobs):
            job.args = (n,) if are_alike or n % 3 else ()
        await b.store.jobs_put(jobs)
        for job, one in zip(jobs, asked, strict=True):
            row = await b.get(job.id)
            assert (row.task, row.args, row.queue, row.priority) == (job.task, job.args, job.queue, job.priority)
            assert row.options == job.options
            assert row.run_at_ns == one.get("run_at_ns", now + one.get("delay_ns", 0)) == job.run_at_ns
            assert row.state is JobState.SUBMITTED

    async def test_jobs_put_together_of_which_some_keys_are_taken(self, b: Bench) -> None:
        """A batch is answered job by job: who was there already, and whom this very batch has put before."""
        held = await b.put(unique=Unique("held"))
        jobs = [b.job(unique=key) for key in (None, Unique("held"), Unique("new"), Unique("new"), None)]
        rows = await b.store.jobs_put(jobs)
        assert [row.id for row in rows] == [jobs[0].id, held.id, jobs[2].id, jobs[2].id, jobs[4].id]
        stored = await b.store.jobs_get([job.id for job in jobs])
        assert [row is not None for row in stored] == [True, False, True, False, True]

    async def test_put_answers_a_taken_unique_key_with_its_holder(self, b: Bench) -> None:
        """One key, one unfinished job per task."""
        first = await b.put(unique=Unique("k"))
        assert (await b.put(unique=Unique("k"))).id == first.id
        assert (await b.put("b", unique=Unique("k"))).id != first.id
        (held,) = await b.claim(tasks=frozenset({"a"}))
        assert (await b.put(unique=Unique("k"))).id == first.id
        assert await b.finish(held.fence)
        assert (await b.put(unique=Unique("k"))).id != first.id

    async def test_unique_period_outlives_job_and_purge(self, b: Bench) -> None:
        """A period key is about time, not about rows."""
        unique = Unique("k", scope=timedelta(minutes=10))
        first = await b.put(unique=unique)
        (held,) = await b.claim()
        assert await b.finish(held.fence)
        await b.advance(300)
        await b.store.jobs_purge(timedelta(0))
        assert (await b.put(unique=unique)).id == first.id
        await b.advance(301)
        assert (await b.put(unique=unique)).id != first.id

    async def test_unique_period_begins_anew_with_its_newest_job(self, b: Bench) -> None:
        """The end of an old period must not take the key from who got it next."""
        unique = Unique("k", scope=timedelta(minutes=10))
        await b.put(unique=unique)
        await b.advance(601)
        second = await b.put(unique=unique)
        await b.put("b", unique=Unique("other", scope=timedelta(minutes=1)))
        await b.advance(599)
        assert (await b.put(unique=unique)).id == second.id
        await b.advance(2)
        assert (await b.put(unique=unique)).id != second.id

    async def test_unique_conflict_that_raises_stores_nothing(self, b: Bench) -> None:
        """A batch is one transaction."""
        unique = Unique("k", on_conflict="raise")
        await b.put(unique=unique)
        with pytest.raises(UniqueConflict):
            await b.store.jobs_put([b.job("b"), b.job(unique=unique)])
        assert len((await b.store.jobs_list(JobFilter())).jobs) == 1

    async def test_unique_conflict_within_a_batch_raises_and_stores_nothing(self, b: Bench) -> None:
        """The batch itself may hold the conflict."""
        unique = Unique("k", on_conflict="raise")
        with pytest.raises(UniqueConflict):
            await b.store.jobs_put([b.job(unique=unique), b.job(unique=unique)])
        assert (await b.store.jobs_list(JobFilter())).jobs == []

    async def test_unique_replace_cancels_a_waiting_holder_only(self, b: Bench) -> None:
        """What runs already is not undone."""
        unique = Unique("k", on_conflict="replace")
        first = await b.put(unique=unique)
        second = await b.put(unique=unique)
        assert await b.states([first, second]) == ["cancelled", "submitted"]
        await b.claim()
        assert (await b.put(unique=unique)).id == second.id

    # -- claim -----------------------------------------------------------------------

    async def test_claim_takes_due_jobs_of_wanted_tasks_and_queues_in_order(self, b: Bench) -> None:
        """Nobody gets what it cannot run, and the most urgent come first."""
        late = await b.put(priority=3)
        first, urgent = await b.put(), await b.put(priority=0)
        await b.put("unknown")
        await b.put(queue="other")
        await b.put(delay_ns=NS_PER_S)
        got = await b.claim(2)
        assert [job.id for job in got] == [urgent.id, first.id]
        assert [job.id for job in await b.claim()] == [late.id]
        assert {(job.state, job.attempt, job.owner) for job in got} == {(JobState.SCHEDULED, 1, "w1")}

    async def test_claim_says_when_the_next_waiting_job_is_due(self, b: Bench) -> None:
        """The worker sleeps until then."""
        now = await b.store.now_ns()
        assert (await b.claimed()).next_run_at_ns is None
        await b.put(delay_ns=9 * NS_PER_S)
        await b.put(delay_ns=5 * NS_PER_S)
        assert (await b.claimed()).next_run_at_ns == now + 5 * NS_PER_S
        await b.advance(5)
        assert len(await b.claim()) == 1

    async def test_claim_looks_past_the_delays_of_jobs_it_does_not_want(self, b: Bench) -> None:
        """Workers would claim at the rate at which jobs of other queues and tasks fall due."""
        now = await b.store.now_ns()
        for n in range(1, 4):
            await b.put(delay_ns=n * NS_PER_S, queue="other")
            await b.put("b", delay_ns=n * NS_PER_S)
        only_a = frozenset({"a"})
        first_ns = now + NS_PER_S if b.store.keeps_objects else None
        assert (await b.claimed(tasks=only_a)).next_run_at_ns == first_ns
        await b.put(delay_ns=9 * NS_PER_S)
        assert (await b.claimed(tasks=only_a)).next_run_at_ns == (first_ns or now + 9 * NS_PER_S)
        await b.store.jobs_put([b.job(delay_ns=2 * NS_PER_S, queue="other") for _ in range(100)])
        claimed = await b.claimed(tasks=only_a)
        assert now < (claimed.next_run_at_ns or 0) <= now + 9 * NS_PER_S, (
            "no later than it is due, however many there are"
        )

    async def test_no_job_is_held_twice(self, b: Bench) -> None:
        """The one promise everything stands on."""
        await b.store.jobs_put([b.job() for _ in range(20)])
        got = [job.id for owner in ("w1", "w2", "w3") for job in await b.claim(8, owner=owner)]
        assert len(got) == len(set(got)) == 20

    async def test_later_queues_are_served_when_earlier_ones_are_empty(self, b: Bench) -> None:
        """Order of queues is a preference, not a wall."""
        other, own = await b.put(queue="other"), await b.put()
        got = await b.claim(queues=("default", "other"))
        assert [job.id for job in got] == [own.id, other.id]

    # -- leases ----------------------------------------------------------------------

    async def test_lease_that_ran_out_is_rescued_by_the_next_claim(self, b: Bench) -> None:
        """Recovery needs no leader and no clean-up job."""
        job = await b.put()
        (old,) = [row.fence for row in await b.claim(lease_s=30)]
        await b.advance(29)
        assert await b.claim(owner="w2") == []
        await b.advance(1)
        (row,) = await b.claim(owner="w2")
        assert (row.id, row.attempt, row.rescues, row.failures, row.owner) == (job.id, 2, 1, 0, "w2")
        assert not await b.finish(old), "the old holder is fenced off"
        assert (await b.get(job.id)).state is JobState.SCHEDULED
        assert await b.finish(row.fence)

    async def test_renewed_lease_does_not_run_out(self, b: Bench) -> None:
        """A sign of life keeps the job."""
        await b.put()
        (row,) = await b.claim(lease_s=30)
        for _ in range(4):
            await b.advance(20)
            answer = await b.store.jobs_renew("w1", [Renewal(row.id, row.attempt)], 30)
            assert answer == ([], [])
            assert await b.claim(owner="w2") == []

    async def test_renewal_keeps_progress_and_checkpoint(self, b: Bench) -> None:
        """What the body said survives its worker."""
        await b.put()
        (row,) = await b.claim(lease_s=30)
        await b.store.jobs_renew("w1", [Renewal(row.id, row.attempt, Progress(1, 2, "x"), {"at": 5})], 30)
        await b.advance(31)
        (again,) = await b.claim(owner="w2")
        assert (again.checkpoint, again.progress) == ({"at": 5}, (1, 2, "x"))
        await b.store.jobs_renew("w2", [Renewal(again.id, again.attempt, Progress(2, 2, "x"))], 30)
        (found,) = await b.store.jobs_get([again.id])
        assert found is not None
        assert (found.checkpoint, found.progress) == ({"at": 5}, (2, 2, "x"))
        await b.store.jobs_renew("w2", [Renewal(again.id, again.attempt, checkpoint=NO_CHECKPOINT)], 30)
        (found,) = await b.store.jobs_get([again.id])
        assert found is not None
        assert (found.checkpoint, found.progress) == (None, (2, 2, "x"))

    async def test_renewal_answers_what_is_lost_and_what_to_cancel(self, b: Bench) -> None:
        """A worker that was away learns what it no longer holds."""
        lost, wanted, kept = await b.put(), await b.put(), await b.put()
        rows = {row.id: row.fence for row in await b.claim(lease_s=30)}
        await b.store.jobs_renew("w1", [Renewal(j.id, 1) for j in (wanted, kept)], 300)
        await b.store.jobs_request_cancel([wanted.id])
        await b.advance(31)
        await b.claim(owner="w2")
        renewals = [Renewal(fence.job_id, fence.attempt) for fence in rows.values()] + [Renewal("gone", 1)]
        answer = await b.store.jobs_renew("w1", renewals, 30)
        assert (sorted(answer.lost), answer.cancelled) == (sorted([lost.id, "gone"]), [wanted.id])

    async def test_finished_job_is_lost_to_its_renewer(self, b: Bench) -> None:
        """Nobody renews what is over."""
        await b.put()
        (fence,) = [row.fence for row in await b.claim()]
        await b.finish(fence)
        assert (await b.store.jobs_renew("w1", [Renewal(fence.job_id, 1)], 30)).lost == [fence.job_id]

    async def test_job_is_lost_after_too_many_rescues(self, b: Bench) -> None:
        """A job that kills its workers must not kill them for ever."""
        job = await b.put(max_rescues=2)
        for n in range(3):
            (row,) = await b.claim(owner=f"w{n}", lease_s=30)
            assert (row.attempt, row.rescues) == (n + 1, n)
            await b.advance(31)
        assert await b.claim() == []
        assert (await b.get(job.id)).state is JobState.LOST

    async def test_job_at_most_once_is_lost_at_its_first_rescue(self, b: Bench) -> None:
        """``max_rescues=0`` is the at-most-once mode."""
        job = await b.put(max_rescues=0)
        await b.claim(lease_s=30)
        await b.advance(31)
        assert await b.claim() == []
        assert (await b.get(job.id)).state is JobState.LOST

    async def test_cancelled_job_whose_worker_died_is_cancelled(self, b: Bench) -> None:
        """It is not run again only to be cancelled."""
        job = await b.put()
        await b.claim(lease_s=30)
        await b.store.jobs_request_cancel([job.id])
        await b.advance(31)
        assert await b.claim() == []
        assert (await b.get(job.id)).state is JobState.CANCELLED

    async def test_lease_without_an_end_never_runs_out(self, b: Bench) -> None:
        """None is for stores that die with their owner."""
        await b.put()
        await b.claim(lease_s=None)
        await b.advance(86_400)
        assert await b.claim(owner="w2") == []

    async def test_released_job_waits_again_and_no_counter_but_attempt_has_moved(self, b: Bench) -> None:
        """Given back at shutdown is no failure and no rescue."""
        await b.put()
        (row,) = await b.claim()
        await b.store.jobs_release([row.fence], delay_ns=5 * NS_PER_S, reason="shutdown")
        assert await b.claim() == []
        await b.advance(5)
        (again,) = await b.claim(owner="w2")
        assert (again.attempt, again.failures, again.rescues) == (2, 0, 0)

    @pytest.mark.parametrize("verb", ["release", "finish", "retry", "ended"])
    async def test_stale_holder_writes_nothing(self, b: Bench, verb: str) -> None:
        """Whoever comes back after its lease must not touch its successor's run."""
        await b.put()
        (stale,) = [row.fence for row in await b.claim(lease_s=30)]
        await b.advance(31)
        await b.claim(owner="w2")
        before = (await b.get(stale.job_id)).__reduce_ex__(4)[2]
        for fence in (stale, stale._replace(attempt=2), stale._replace(owner="w2")):
            if verb == "release":
                await b.store.jobs_release([fence])
            elif verb == "ended":
                await b.store.jobs_ended([fence])
            else:
                kind = FinishKind.RETRY if verb == "retry" else FinishKind.FAILED
                assert not await b.finish(fence, kind)
        assert (await b.get(stale.job_id)).__reduce_ex__(4)[2] == before

    # -- finish ----------------------------------------------------------------------

    @pytest.mark.parametrize("unique", [None, Unique("k")], ids=["plain", "unique"])
    @pytest.mark.parametrize("is_stale_first", [True, False], ids=["stale first", "stale last"])
    async def test_two_attempts_of_one_job_in_one_call_are_told_apart(
        self, b: Bench, is_stale_first: bool, unique: Unique | None
    ) -> None:
        """A process that lost a lease and claimed the job again may say how both ended at once."""
        await b.put(unique=unique)
        (before,) = await b.claim(lease_s=30)
        stale = before.fence
        await b.advance(31)
        (row,) = await b.claim(lease_s=30)
        await b.began(row.fence)
        now = await b.store.now_ns()
        ends = [Finish(*stale, FinishKind.FAILED, now), Finish(*row.fence, FinishKind.DONE, now, result=5)]
        states: list[JobState | None] = [None, JobState.DONE]
        if not is_stale_first:
            ends, states = ends[::-1], states[::-1]
        assert await b.store.jobs_finish(ends) == states
        row = await b.get(row.id)
        assert (row.state, row.attempt, row.result, row.error) == (JobState.DONE, 2, 5, None)

    async def test_outcome_that_is_told_twice_in_one_call_is_recorded_once(self, b: Bench) -> None:
        """The first one counts, and the other is told so."""
        await b.put()
        (row,) = await b.claim()
        await b.began(row.fence)
        now = await b.store.now_ns()
        ends = [Finish(*row.fence, kind, now) for kind in (FinishKind.DONE, FinishKind.FAILED, FinishKind.RETRY)]
        assert await b.store.jobs_finish(ends) == [JobState.DONE, None, None]
        assert (await b.get(row.id)).state is JobState.DONE

    @pytest.mark.parametrize("kind", ["done", "failed", "timed_out", "cancelled", "missed"])
    async def test_final_outcome_ends_the_job_once(self, b: Bench, kind: str) -> None:
        """The first outcome counts, and is stamped."""
        await b.put()
        (fence,) = [row.fence for row in await b.claim()]
        assert await b.finish(fence, FinishKind(kind), reason="why", result=5)
        row = await b.get(fence.job_id)
        assert (row.state.value, row.reason, row.result, row.owner) == (kind, "why", 5, None)
        assert row.finished_at_ns == await b.store.now_ns()
        assert not await b.finish(fence, FinishKind.DONE)
        assert (await b.get(fence.job_id)).state.value == kind

    @pytest.mark.parametrize(("kind", "failures"), [("retry", 1), ("snooze", 0)])
    async def test_retry_and_snooze_come_back_after_their_delay(self, b: Bench, kind: str, failures: int) -> None:
        """The pause is counted from the outcome, by the store's clock."""
        await b.put()
        (first,) = await b.claim()
        fence, due = first.fence, first.run_at_ns
        assert await b.finish(fence, FinishKind(kind), delay_ns=5 * NS_PER_S)
        await b.advance(4.999)
        assert await b.claim() == []
        await b.advance(0.001)
        (row,) = await b.claim()
        assert (row.attempt, row.failures) == (2, failures)
        assert row.first_due_ns == (due if failures else None)

    async def test_finish_takes_each_entry_of_a_batch_by_itself(self, b: Bench) -> None:
        """One stale entry must not refuse the others."""
        await b.store.jobs_put([b.job(), b.job()])
        one, two = (row.fence for row in await b.claim())
        await b.began(one, two)
        now = await b.store.now_ns()
        stale = Finish(*one._replace(attempt=9), FinishKind.DONE, now)
        answers = await b.store.jobs_finish([stale, Finish(*two, FinishKind.DONE, now)])
        assert answers == [None, JobState.DONE]
        assert (await b.get(two.job_id)).state is JobState.DONE

    async def test_finish_answers_the_state_that_it_made(self, b: Bench) -> None:
        """A retry of a job that somebody wants cancelled is none, and its worker hears of it."""
        await b.store.jobs_put([b.job() for _ in range(3)])
        fences = [row.fence for row in await b.claim()]
        await b.store.jobs_request_cancel([fences[1].job_id])
        await b.began(*fences)
        now = await b.store.now_ns()
        kinds = (FinishKind.RETRY, FinishKind.RETRY, FinishKind.FAILED)
        answers = await b.store.jobs_finish([Finish(*f, kind, now) for f, kind in zip(fences, kinds, strict=True)])
        assert answers == [JobState.SUBMITTED, JobState.CANCELLED, JobState.FAILED]

    async def test_body_that_outlives_its_outcome_keeps_its_overlap_until_it_ends(self, b: Bench) -> None:
        """One at a time means bodies, not rows."""
        await b.schedule(overlap=Overlap("queue_all"))
        await b.advance(60)
        await b.store.schedules_fire([await b.plan()])
        (fence,) = [row.fence for row in await b.claim(lease_s=None)]
        await b.advance(60)
        await b.store.schedules_fire([await b.plan()])
        assert await b.finish(fence, FinishKind.TIMED_OUT, zombie=True)
        assert await b.claim() == []
        await b.store.jobs_ended([fence])
        assert len(await b.claim()) == 1
