"""The suite that holds a store to `quarterjack.stores.base.Store`. Needs pytest, pytest-asyncio and hypothesis.

    from quarterjack.testing.store_contract import Bench, StoreContract

    class TestMyStore(StoreContract):
        def bench(self) -> Bench:
            return Bench(MyStore())

`Bench` is the store with a clock that a test moves. A store whose clock is its
server's overrides `Bench.advance`. Each case is one promise of one call; the
state machine in `quarterjack.testing.store_machine` puts them together."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

from quarterjack import planner
from quarterjack._durations import NS_PER_S
from quarterjack.errors import MissingExtra, UniqueConflict
from quarterjack.model import (
    Finish,
    FinishKind,
    JobFilter,
    JobRecord,
    JobState,
    Origin,
    Overlap,
    Progress,
    RunOptions,
    Unique,
    WorkerInfo,
    as_datetime,
    lanes_of,
)
from quarterjack.stores.base import AuditRow, CancelAnswer, Claim, Hint, Renewal, Want
from quarterjack.triggers import Forever, Once, Trigger

from ._bench import TASKS, Bench
from ._contract_backfill import BackfillContract
from ._contract_leases import LeaseContract
from ._contract_texts import TextContract
from ._contract_versions import VersionContract

try:
    import pytest
except ImportError as error:
    raise MissingExtra("the store contract suite", "testing") from error

__all__ = ["Bench", "StoreContract"]


class _Broken(Trigger):
    """A rule of a user's own that raises."""

    def next(self, after: datetime) -> datetime | None:
        del after
        raise ZeroDivisionError("broken")


class StoreContract(BackfillContract, VersionContract, LeaseContract, TextContract):
    """One promise of the contract per case. Subclass it in a test module and give it `bench`."""

    def bench(self) -> Bench:
        """Return a new store on a new clock."""
        raise NotImplementedError

    @pytest.fixture
    async def b(self) -> AsyncIterator[Bench]:
        """Open a new store for the case, and close it."""
        bench = self.bench()
        await bench.open()
        yield bench
        await bench.store.close()

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

    # -- control and views -----------------------------------------------------------

    async def test_request_cancel_answers_by_state(self, b: Bench) -> None:
        """Waiting jobs end at once; held ones are their workers' to end."""
        held = await b.put()
        await b.claim()
        waiting, done = await b.put(), await b.put("b")
        await b.finish((await b.claim(tasks=frozenset({"b"})))[0].fence)
        answers = await b.store.jobs_request_cancel([waiting.id, held.id, done.id, "none"], "why")
        assert answers == [CancelAnswer.CANCELLED, CancelAnswer.REQUESTED, CancelAnswer.FINISHED, CancelAnswer.GONE]
        assert (await b.get(waiting.id)).reason == "why"
        assert (await b.get(held.id)).cancel_requested
        assert await b.claim() == []

    async def test_jobs_retry_starts_finished_jobs_from_the_beginning(self, b: Bench) -> None:
        """Counters of failure begin anew; attempts never repeat."""
        await b.put()
        (fence,) = [row.fence for row in await b.claim()]
        await b.finish(fence, FinishKind.FAILED)
        await b.put("b")
        assert await b.store.jobs_retry(JobFilter(task="a")) == [fence.job_id]
        (row,) = await b.claim(tasks=frozenset({"a"}))
        assert (row.attempt, row.failures, row.result, row.finished_at_ns) == (2, 0, None, None)

    async def test_jobs_retry_of_some_ids_leaves_the_others(self, b: Bench) -> None:
        """An operator repeats the one that failed, not all that ever did; what is gone or unfinished is passed over."""
        for _ in range(3):
            await b.put()
        first, second, third = [row.fence for row in await b.claim()]
        await b.finish(first, FinishKind.FAILED)
        await b.finish(second, FinishKind.FAILED)
        asked = [second.job_id, third.job_id, second.job_id, "gone"]
        assert await b.store.jobs_retry(JobFilter(), asked) == [second.job_id]
        assert await b.store.jobs_retry(JobFilter(task="b"), [first.job_id]) == []
        assert [row.id for row in await b.claim()] == [second.job_id]

    async def test_job_retried_from_where_it_waited_is_claimed_once(self, b: Bench) -> None:
        """Cancelled in the queue, and put back: one entry, not two."""
        for delay_ns in (0, 5 * NS_PER_S):
            job = await b.put(delay_ns=delay_ns)
            await b.store.jobs_request_cancel([job.id])
            await b.store.jobs_retry(JobFilter(states=frozenset({JobState.CANCELLED})))
        got = await b.claim()
        await b.advance(10)
        got += await b.claim(owner="w2")
        assert len({row.id for row in got}) == len(got) == 2

    async def test_job_run_again_takes_its_unique_key_again_or_stays(self, b: Bench) -> None:
        """Running again is no way around the key."""
        first = await b.put(unique=Unique("k"))
        await b.store.jobs_request_cancel([first.id])
        second = await b.put(unique=Unique("k"))
        assert await b.store.jobs_retry(JobFilter(task="a")) == []
        await b.store.jobs_request_cancel([second.id])
        (again,) = await b.store.jobs_retry(JobFilter(text=first.id))
        assert (await b.put(unique=Unique("k"))).id == again == first.id
        assert await b.store.jobs_retry(JobFilter(task="a")) == []

    async def test_job_run_again_is_as_old_as_its_last_end(self, b: Bench) -> None:
        """Retention goes by when a job was over, not by when it first was."""
        job = await b.put()
        await b.finish((await b.claim())[0].fence, FinishKind.FAILED)
        await b.advance(100)
        await b.store.jobs_retry(JobFilter())
        await b.finish((await b.claim())[0].fence)
        assert await b.store.jobs_purge(timedelta(seconds=50)) == 0
        assert await b.states([job]) == ["done"]

    async def test_job_that_ends_where_it_waits_was_not_running(self, b: Bench) -> None:
        """The minutes before a retry that never came are no time its body took."""
        job, now = await b.put(), await b.store.now_ns()
        (fence,) = [row.fence for row in await b.claim()]
        facts = {"started_at_ns": now, "running_at_ns": now}
        assert await b.finish(fence, FinishKind.RETRY, delay_ns=60 * NS_PER_S, **facts)
        await b.advance(50)
        await b.store.jobs_request_cancel([job.id])
        row = await b.get(job.id)
        assert (row.state, row.started_at_ns, row.running_at_ns) == (JobState.CANCELLED, None, None)
        await b.put("b")
        (other,) = await b.claim()
        await b.finish(other.fence, running_at_ns=await b.store.now_ns())
        page = await b.store.jobs_list(JobFilter(), order="slowest")
        assert [row.id for row in page.jobs] == [other.id, job.id]

    async def test_list_pages_newest_first_without_gaps(self, b: Bench) -> None:
        """Views read page by page while jobs come in."""
        jobs = [await b.put() for _ in range(7)]
        seen: list[str] = []
        cursor = None
        while True:
            page = await b.store.jobs_list(JobFilter(), limit=3, cursor=cursor)
            seen += [row.id for row in page.jobs]
            await b.put("b")
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == [job.id for job in reversed(jobs)]

    async def test_list_filters(self, b: Bench) -> None:
        """Each field of the filter narrows."""
        one = await b.put(queue="q")
        await b.advance(10)
        two = await b.put("b")
        now = await b.store.now_ns()
        cases = {
            JobFilter(task="a"): [one.id],
            JobFilter(queue="q"): [one.id],
            JobFilter(since_ns=now): [two.id],
            JobFilter(states=frozenset({JobState.DONE})): [],
            JobFilter(schedule_id="s"): [],
            JobFilter(text=two.id): [two.id],
        }
        for where, expected in cases.items():
            assert [row.id for row in (await b.store.jobs_list(where)).jobs] == expected, where

    async def test_slowest_first(self, b: Bench) -> None:
        """Running ones count up to now."""
        now = await b.store.now_ns()
        for seconds in (1, 3, 2):
            await b.put()
            (row,) = await b.claim()
            end = now + seconds * NS_PER_S
            await b.began(row.fence)
            await b.store.jobs_finish([Finish(*row.fence, FinishKind.DONE, end, now, now)])
        page = await b.store.jobs_list(JobFilter(), order="slowest", limit=2)
        assert [((row.finished_at_ns or 0) - (row.running_at_ns or 0)) // NS_PER_S for row in page.jobs] == [3, 2]

    async def test_purge_deletes_old_finished_jobs_only(self, b: Bench) -> None:
        """Retention must not touch what waits."""
        waiting, old = await b.put("b"), await b.put()
        await b.finish((await b.claim(tasks=frozenset({"a"})))[0].fence)
        await b.advance(100)
        young = await b.put()
        await b.finish((await b.claim(tasks=frozenset({"a"})))[0].fence)
        assert await b.store.jobs_purge(timedelta(seconds=50)) == 1
        assert await b.states([waiting, old, young]) == ["submitted", "gone", "done"]

    async def test_stats_and_outcomes_count(self, b: Bench) -> None:
        """What the views show adds up."""
        start = await b.store.now_ns()
        await b.put(queue="q")
        for kind in (FinishKind.DONE, FinishKind.DONE, FinishKind.FAILED):
            await b.put()
            await b.finish((await b.claim())[0].fence, kind)
        stats = await b.store.stats()
        assert stats.states == {JobState.SUBMITTED: 1, JobState.DONE: 2, JobState.FAILED: 1}
        assert (stats.waiting, stats.oldest_due_ns) == ({"q": 1}, start)
        outcomes = await b.store.outcomes(start)
        assert {(task, state): n for (_, task, state), n in outcomes.items()} == {
            ("a", JobState.DONE): 2, ("a", JobState.FAILED): 1
        }  # fmt: skip

    # -- schedules -------------------------------------------------------------------

    async def test_put_schedule_twice_changes_nothing(self, b: Bench) -> None:
        """A restart with the same code is no change."""
        first = (await b.schedule()).copy()
        await b.advance(10)
        again = await b.schedule()
        facts = ("generation", "revision", "cursor_ns", "next_nominal_ns")
        assert [getattr(first, f) for f in facts] == [getattr(again, f) for f in facts]
        changed = await b.schedule(every_s=30)
        assert (changed.generation, changed.revision) == (2, 1)
        payload = await b.schedule(every_s=30, args=(1,))
        assert (payload.generation, payload.revision) == (2, 2)

    async def test_due_returns_what_falls_due_within_the_horizon(self, b: Bench) -> None:
        """Earliest first, paused ones left out."""
        for name, every_s in (("late", 300.0), ("soon", 20.0), ("paused", 10.0), ("mid", 60.0)):
            await b.schedule(name, every_s=every_s)
        await b.store.schedules_pause("paused", None, None)
        assert [row.id for row in await b.store.schedules_due(100 * NS_PER_S)] == ["soon", "mid"]
        assert [row.id for row in await b.store.schedules_due(100 * NS_PER_S, limit=1)] == ["soon"]

    async def test_fire_moves_the_cursor_and_inserts_one_job(self, b: Bench) -> None:
        """An occurrence is one job, ever: the same plan twice loses."""
        await b.schedule()
        await b.advance(60)
        plan = await b.plan()
        fired = await b.store.schedules_fire([plan])
        (job,) = fired.rows
        assert job.origin == Origin("s", 1, plan.nominals[0])
        (row,) = fired.schedules
        assert row is not None
        assert (row.cursor_ns, row.next_nominal_ns) == (plan.cursor_ns, plan.next_nominal_ns)
        again = await b.store.schedules_fire([plan])
        assert (again.schedules, again.rows) == ([None], [])

    async def test_fire_with_a_claim_leases_what_it_inserts(self, b: Bench) -> None:
        """It saves the round trip, and the rest waits."""
        for name in ("s1", "s2"):
            await b.schedule(name)
        await b.advance(60)
        claim = Claim("w1", [Want(("default",), lanes_of(TASKS), 1)], 30.0)
        fired = await b.store.schedules_fire([await b.plan("s1"), await b.plan("s2")], claim)
        assert [job.owner for job in fired.jobs] == ["w1"]
        assert len(fired.rows) == 2
        assert len(await b.claim(owner="w2")) == 1

    async def test_fire_refuses_a_plan_that_comes_early_and_says_how_long(self, b: Bench) -> None:
        """A scheduler whose clock is ahead waits; nothing fires before its time."""
        await b.schedule()
        row = await b.store.schedules_get("s")
        assert row is not None
        assert row.next_due_ns is not None
        plan = planner.plan(row, row.next_due_ns)
        assert plan is not None
        fired = await b.store.schedules_fire([plan])
        assert (fired.schedules, fired.rows) == ([None], [])
        assert fired.wait_ns == row.next_due_ns - await b.store.now_ns()

    async def test_fire_of_a_paused_changed_or_removed_schedule_loses(self, b: Bench) -> None:
        """The plan was made from a row that is no more."""
        for change in ("pause", "trigger", "remove"):
            await b.schedule(change)
        await b.advance(60)
        plans = [await b.plan(name) for name in ("pause", "trigger", "remove")]
        await b.store.schedules_pause("pause", "why", None)
        await b.schedule("trigger", every_s=7)
        assert await b.store.schedules_remove(["remove", "none"]) == 1
        fired = await b.store.schedules_fire(plans)
        assert (fired.schedules, fired.rows) == ([None] * 3, [])

    @pytest.mark.parametrize(
        ("overlap", "expected"),
        [
            (Overlap("skip"), ["scheduled", "skipped", "skipped"]),
            (Overlap("queue_one"), ["scheduled", "submitted", "skipped"]),
            (Overlap("queue_latest"), ["scheduled", "skipped", "submitted"]),
            (Overlap("queue_all"), ["scheduled", "submitted", "submitted"]),
            (Overlap("queue_all", 1), ["scheduled", "submitted", "skipped"]),
            (Overlap("allow"), ["scheduled", "scheduled", "scheduled"]),
            (Overlap("allow", 2), ["scheduled", "scheduled", "skipped"]),
            (Overlap("cancel_previous"), ["scheduled", "cancelled", "submitted"]),
        ],
        ids=str,
    )
    async def test_fire_decides_overlap(self, b: Bench, overlap: Overlap, expected: list[str]) -> None:
        """Against the open jobs of the key, in the same step; serial ones start one at a time."""
        await b.schedule(overlap=overlap)
        for _ in range(3):
            await b.advance(60)
            await b.store.schedules_fire([await b.plan()])
            await b.claim(lease_s=None)
        rows = list(reversed((await b.store.jobs_list(JobFilter())).jobs))
        assert [row.state.value for row in rows] == expected
        assert rows[0].cancel_requested is (overlap.mode == "cancel_previous")

    async def test_next_in_line_has_its_turn_if_the_one_before_is_cancelled(self, b: Bench) -> None:
        """Its turn had come and nobody had claimed it yet: the line must not stand still behind it."""
        await b.schedule(overlap=Overlap("queue_all"))
        for _ in range(3):
            await b.advance(60)
            await b.store.schedules_fire([await b.plan()])
        (first,) = [row.fence for row in await b.claim(lease_s=None)]
        third, second, _ = (await b.store.jobs_list(JobFilter())).jobs
        await b.finish(first)
        await b.store.jobs_request_cancel([second.id])
        assert [row.id for row in await b.claim(lease_s=None)] == [third.id]

    async def test_run_that_fires_as_another_ends_does_not_overtake_those_in_line(self, b: Bench) -> None:
        """The key is free for a moment, but the turn is that of the run that has waited longest."""
        await b.schedule(overlap=Overlap("queue_all"))
        claim = Claim("w1", [Want(("default",), lanes_of(TASKS), 1)], None)
        rows: list[JobRecord] = []
        for _ in range(3):
            await b.advance(60)
            rows += (await b.store.schedules_fire([await b.plan()], claim)).rows
        await b.finish(rows[0].fence)
        await b.advance(60)
        fired = await b.store.schedules_fire([await b.plan()], claim)
        assert fired.jobs == []
        rows += fired.rows
        for row in rows[1:]:
            assert [held.id for held in await b.claim(1, lease_s=None)] == [row.id]
            await b.finish((await b.get(row.id)).fence)

    async def test_left_out_run_says_whose_job_is_in_its_way(self, b: Bench) -> None:
        """With a shared key it need not be one of its own."""
        for name in ("one", "two"):
            await b.schedule(name, overlap_key="shared")
        await b.advance(60)
        (blocker,) = (await b.store.schedules_fire([await b.plan("one")])).rows
        (other,) = (await b.store.schedules_fire([await b.plan("two")])).rows
        await b.advance(60)
        (own,) = (await b.store.schedules_fire([await b.plan("one")])).rows
        assert own.reason == f"job {blocker.id} of the same schedule is still submitted"
        assert other.reason == f"job {blocker.id} of schedule one (overlap_key='shared') is still submitted"

    async def test_fired_job_takes_its_unique_key_or_is_left_out(self, b: Bench) -> None:
        """A schedule's jobs are jobs of their task: one unfinished job with the key, whoever asks for the next."""
        unique = Unique("k")
        await b.schedule(options=RunOptions(unique=unique), overlap=Overlap("allow"))
        await b.advance(60)
        (first,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert (await b.put(unique=unique)).id == first.id
        await b.advance(60)
        (second,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert (second.state, second.reason) == (JobState.SKIPPED, f"job {first.id} holds its unique key 'k'")
        await b.finish((await b.claim())[0].fence)
        submitted = await b.put(unique=unique)
        assert submitted.id != first.id
        extra = JobRecord(b.ids(), "a", (), {}, RunOptions(unique=unique), None, Origin("s", 1, 1, trigger="manual"))
        row = await b.store.schedules_trigger("s", extra)
        assert row is not None
        assert (row.state, row.reason) == (JobState.SKIPPED, f"job {submitted.id} holds its unique key 'k'")

    async def test_fired_job_replaces_the_waiting_holder_of_its_key_if_it_says_so(self, b: Bench) -> None:
        """``on_conflict`` means the same for a fire time as for a submit; there is nobody to raise to."""
        unique = Unique("k", on_conflict="replace")
        await b.schedule(options=RunOptions(unique=unique), overlap=Overlap("allow"))
        waiting = await b.put(unique=unique)
        await b.advance(60)
        (fired,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert await b.states([waiting, fired]) == ["cancelled", "submitted"]

    async def test_missed_fire_times_are_one_row(self, b: Bench) -> None:
        """An outage is on record with its size."""
        await b.schedule()
        await b.advance(60 * 5 + 30)
        fired = await b.store.schedules_fire([await b.plan()])
        states = {row.state: row.origin.missed_count for row in fired.rows if row.origin}
        assert states == {JobState.MISSED: 4, JobState.SUBMITTED: 4}
        assert [row.reason for row in fired.rows] == ["4 fire times passed unserved (missed='latest')", None]

    async def test_fire_time_that_came_too_late_says_which_bound_it_missed(self, b: Bench) -> None:
        """Who wonders why it did not run must not look at the wrong policy."""
        await b.schedule(max_lateness_ns=10 * NS_PER_S)
        await b.advance(60 + 15)
        (row,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert (row.state, row.reason) == (JobState.MISSED, "1 fire time passed unserved (max_lateness=10)")

    async def test_schedule_that_was_over_when_it_was_put_is_one_missed_row(self, b: Bench) -> None:
        """A reminder that came too late is on record, once, and under its own fire time."""
        now = await b.store.now_ns()
        at = as_datetime(now - 60 * NS_PER_S)
        await b.schedule(trigger=Once(at))
        plan = await b.plan()
        (row,) = (await b.store.schedules_fire([plan])).rows
        assert row.origin is not None
        assert (row.state, as_datetime(row.origin.nominal_ns)) == (JobState.MISSED, at)
        assert "was 0:01:00 before the schedule was put" in (row.reason or "")
        assert (await b.store.schedules_fire([plan])).rows == []
        await b.schedule(trigger=Once(at))
        assert await b.store.schedules_due(NS_PER_S) == []

    async def test_resume_goes_on_from_now_or_from_the_cursor(self, b: Bench) -> None:
        """Two meanings of a pause's end."""
        for name in ("now", "cursor"):
            await b.schedule(name)
            await b.store.schedules_pause(name, "note", None)
        await b.advance(200)
        fresh = await b.store.schedules_resume("now", catch_up=False)
        caught = await b.store.schedules_resume("cursor", catch_up=True)
        assert fresh is not None
        assert caught is not None
        now = await b.store.now_ns()
        assert (fresh.next_nominal_ns or 0) > now >= (caught.next_nominal_ns or 0)
        assert await b.store.schedules_resume("none", catch_up=False) is None
        assert await b.store.schedules_pause("none", None, None) is None

    async def test_parked_schedule_fires_no_more(self, b: Bench) -> None:
        """A broken rule is kept with its reason."""
        await b.schedule()
        await b.store.schedules_park("s", "broken")
        await b.advance(60)
        assert await b.store.schedules_due(10**12) == []
        (row,) = await b.store.schedules_list()
        assert row.parked_reason == "broken"

    async def test_rule_that_raises_when_put_parks_its_row_and_keeps_the_history(self, b: Bench) -> None:
        """What ran stays on record, and a better rule goes on where the good one was left."""
        await b.schedule()
        await b.advance(60)
        await b.store.schedules_fire([await b.plan()])
        before = (await b.store.schedules_list())[0]
        broken = await b.schedule(trigger=_Broken())
        assert broken.parked_reason == "its trigger raised ZeroDivisionError: broken"
        assert (broken.next_due_ns, broken.generation) == (None, 2)
        for row in (broken, await b.schedule()):
            facts = ("runs", "cursor_ns", "last_nominal_ns", "created_at_ns")
            assert [getattr(row, f) for f in facts] == [getattr(before, f) for f in facts]
        (mended,) = await b.store.schedules_list()
        assert (mended.parked_reason, mended.generation) == (None, 3)
        assert mended.next_due_ns == await b.store.now_ns() + 60 * NS_PER_S

    async def test_trigger_obeys_overlap_and_moves_no_cursor(self, b: Bench) -> None:
        """An extra run is a run."""
        before = (await b.schedule()).cursor_ns
        now = await b.store.now_ns()
        rows: list[JobRecord | None] = []
        for overlap in (None, None, "allow"):
            job = JobRecord(b.ids(), "a", (), {}, RunOptions(), None, Origin("s", 1, now, trigger="manual"))
            rows.append(await b.store.schedules_trigger("s", job, overlap))
        assert [row.state.value for row in rows if row] == ["submitted", "skipped", "submitted"]
        after = await b.store.schedules_get("s")
        assert after is not None
        assert after.cursor_ns == before
        assert await b.store.schedules_trigger("none", b.job(), None) is None

    async def test_schedule_that_runs_after_its_end_is_armed_by_the_outcome(self, b: Bench) -> None:
        """The chain survives any death: finish and re-arm are one step, LOST included."""
        await b.schedule(trigger=Forever(pause=10), options=RunOptions(max_rescues=0))
        for outcome in ("done", "lost"):
            plan = await b.plan()
            assert plan.next_due_ns is None
            await b.store.schedules_fire([plan])
            (row,) = await b.claim(lease_s=30)
            if outcome == "done":
                await b.finish(row.fence)
            else:
                await b.advance(31)
                await b.claim()
            now = await b.store.now_ns()
            (due,) = await b.store.schedules_due(10**12)
            assert due.next_due_ns == now + 10 * NS_PER_S
            await b.advance(10)

    @pytest.mark.parametrize("way", ["ended", "rescued"])
    async def test_chain_waits_for_a_body_that_outlived_its_outcome(self, b: Bench, way: str) -> None:
        """One run after the other means bodies: the next one comes when this one has ended, or its worker died."""
        await b.schedule(trigger=Forever())
        await b.store.schedules_fire([await b.plan()])
        (fence,) = [row.fence for row in await b.claim(lease_s=30)]
        await b.finish(fence, FinishKind.TIMED_OUT, zombie=True)
        assert await b.store.schedules_due(10**12) == []
        await b.advance(30)
        if way == "ended":
            await b.store.jobs_ended([fence])
        else:
            await b.claim(owner="w2")
        (due,) = await b.store.schedules_due(0)
        assert due.next_due_ns == await b.store.now_ns()

    @pytest.mark.parametrize("mode", ["skip", "queue_one", "queue_latest", "queue_all", "cancel_previous", "allow"])
    async def test_chain_whose_run_was_left_out_goes_on_when_there_is_room(self, b: Bench, mode: Any) -> None:
        """It neither stops for good nor tries again at once, thousands of times a second."""
        await b.schedule(trigger=Forever(), overlap=Overlap(mode, 1 if mode in {"allow", "queue_all"} else None))
        for n in range(2):
            extra = JobRecord(b.ids(), "a", (), {}, RunOptions(), None, Origin("s", 1, n, trigger="manual"))
            await b.store.schedules_trigger("s", extra, "allow")
        ran: list[str] = []
        for _ in range(6):
            await b.advance(1)
            fired = 0
            while await b.store.schedules_due(0):
                await b.store.schedules_fire([await b.plan()])
                fired += 1
                assert fired == 1, "no more than one run between two ends"
            for row in await b.claim(1, lease_s=None):
                ran.append(row.origin.trigger if row.origin is not None else "")
                await b.finish(row.fence)
        assert ran.count("schedule") >= 3, "it has not stopped"

    async def test_chain_whose_unique_key_is_taken_goes_on_when_it_is_free(self, b: Bench) -> None:
        """A submitted job with the key is in its way as well; a period's end is known beforehand."""
        await b.schedule(trigger=Forever(), options=RunOptions(unique=Unique("k")))
        await b.put(unique=Unique("k"))
        (row,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert row.state is JobState.SKIPPED
        assert await b.store.schedules_due(10**12) == []
        await b.finish((await b.claim())[0].fence)
        assert [row.id for row in await b.store.schedules_due(1)] == ["s"]
        until = await b.store.now_ns() + 600 * NS_PER_S
        hourly = Unique("h", scope=timedelta(minutes=10))
        await b.put(unique=hourly)
        await b.schedule("t", trigger=Forever(), options=RunOptions(unique=hourly))
        await b.store.schedules_fire([await b.plan("t")])
        assert [row.next_due_ns for row in await b.store.schedules_due(10**15) if row.id == "t"] == [until]

    async def test_old_run_that_is_repeated_begins_no_second_chain(self, b: Bench) -> None:
        """Only the end of the newest occurrence makes the next one."""
        await b.schedule(trigger=Forever(), overlap=Overlap("allow"))
        await b.store.schedules_fire([await b.plan()])
        (old,) = await b.claim(lease_s=None)
        await b.finish(old.fence, FinishKind.FAILED)
        await b.advance(1)
        await b.store.schedules_fire([await b.plan()])
        (newest,) = await b.claim(lease_s=None)
        await b.store.jobs_retry(JobFilter(states=frozenset({JobState.FAILED})))
        (again,) = await b.claim(lease_s=None)
        await b.finish(again.fence)
        assert await b.store.schedules_due(10**12) == []
        await b.finish(newest.fence)
        assert len(await b.store.schedules_due(10**12)) == 1

    async def test_chain_put_anew_is_not_armed_by_the_runs_of_the_old_one(self, b: Bench) -> None:
        """The id is the same, the schedule is not."""
        await b.schedule(trigger=Forever(), overlap=Overlap("allow"))
        await b.store.schedules_fire([await b.plan()])
        (old,) = await b.claim(lease_s=None)
        await b.advance(1)
        await b.store.schedules_remove(["s"])
        await b.schedule(trigger=Forever(), overlap=Overlap("allow"))
        await b.store.schedules_fire([await b.plan()])
        await b.finish(old.fence)
        assert await b.store.schedules_due(10**12) == []
        await b.finish((await b.claim(lease_s=None))[0].fence)
        assert len(await b.store.schedules_due(10**12)) == 1

    @pytest.mark.parametrize("mode", ["queue_latest", "cancel_previous"])
    async def test_chains_that_replace_each_other_do_not_turn_on_the_spot(self, b: Bench, mode: Any) -> None:
        """A run that was replaced before it began comes back when the key has room, not at once."""
        names = ["one", "two", "three"]
        for name in names:
            await b.schedule(name, trigger=Forever(), overlap=Overlap(mode), overlap_key="shared")
        fired = 0
        while (due := await b.store.schedules_due(0)) and fired < 20:
            fired += 1
            await b.store.schedules_fire([await b.plan(due[0].id)])
        assert fired == 3
        for _ in range(5):
            await b.advance(1)
            for job in await b.claim(lease_s=None):
                await b.finish(job.fence)
            await b.advance(1)
            due = await b.store.schedules_due(0)
            assert {row.id for row in due} == set(names), "none has stopped"
            for row in due:
                await b.store.schedules_fire([await b.plan(row.id)])

    async def test_chain_that_had_come_to_its_end_goes_on_when_it_is_given_more(self, b: Bench) -> None:
        """There is no end of a run left to arm it."""
        for runs in (1, 2, 3):
            await b.schedule(trigger=Forever(), max_runs=runs)
            assert len(await b.store.schedules_due(0)) == 1
            await b.store.schedules_fire([await b.plan()])
            await b.schedule(trigger=Forever(), max_runs=runs)
            assert await b.store.schedules_due(0) == [], "it runs"
            await b.finish((await b.claim(lease_s=None))[0].fence)
            assert await b.store.schedules_due(10**12) == []
            await b.advance(1)

    async def test_parked_chain_is_not_armed_by_its_last_run(self, b: Bench) -> None:
        """Parked is parked, until somebody changes it."""
        await b.schedule(trigger=Forever())
        await b.store.schedules_fire([await b.plan()])
        await b.store.schedules_park("s", "broken")
        await b.finish((await b.claim(lease_s=None))[0].fence)
        assert await b.store.schedules_due(10**12) == []
        await b.schedule(trigger=Forever(), args=(1,))
        assert len(await b.store.schedules_due(1)) == 1

    async def test_failures_in_a_row_pause_a_schedule_that_asks_for_it(self, b: Bench) -> None:
        """In the step that records the last one."""
        await b.schedule(pause_on_failure=2)
        for kind in (FinishKind.FAILED, FinishKind.TIMED_OUT):
            await b.advance(60)
            await b.store.schedules_fire([await b.plan()])
            await b.finish((await b.claim())[0].fence, kind)
        (row,) = await b.store.schedules_list()
        assert (row.paused_at_ns, row.failures_in_a_row) == (await b.store.now_ns(), 2)

    # -- limits ----------------------------------------------------------------------

    async def test_slots_are_taken_all_or_none_and_run_out(self, b: Bench) -> None:
        """A holder that died frees its slots by itself."""
        take = b.store.limit_acquire
        assert await take("l", "h1", 2, maximum=3, ttl_s=30)
        assert not await take("l", "h2", 2, maximum=3, ttl_s=30)
        assert await take("l", "h2", 1, maximum=3, ttl_s=60)
        assert await take("other", "h2", 3, maximum=3, ttl_s=30)
        await b.advance(20)
        assert await b.store.limit_renew("l", "h2", 30)
        await b.advance(10)
        assert not await b.store.limit_renew("l", "h1", 30)
        assert await take("l", "h3", 2, maximum=3, ttl_s=30)
        await b.store.limit_release("l", "h2")
        await b.store.limit_release("l", "h2")
        assert await take("l", "h4", 1, maximum=3, ttl_s=30)

    async def test_tokens_refill_at_their_rate_up_to_the_burst(self, b: Bench) -> None:
        """The answer is when to come back; nothing is taken until then."""
        take = b.store.limit_take
        assert [await take("t", 1, rate=2, burst=3) for _ in range(3)] == [0, 0, 0]
        for _ in range(2):
            assert await take("t", 1, rate=2, burst=3) == pytest.approx(0.5)
        await b.advance(0.5)
        assert await take("t", 1, rate=2, burst=3) == 0
        await b.advance(3600)
        assert [await take("t", 1, rate=2, burst=3) > 0 for _ in range(4)] == [False, False, False, True]

    # -- workers, records, hints -----------------------------------------------------

    async def test_workers_register_get_one_command_and_leave(self, b: Bench) -> None:
        """An operator's word reaches a worker once."""
        worker = WorkerInfo("w1", "host", 1, "both", ("default",), 0, 0)
        assert await b.store.workers_put(worker) is None
        assert await b.store.workers_command("w1", "drain")
        assert not await b.store.workers_command("w2", "drain")
        assert [await b.store.workers_put(worker) for _ in range(2)] == ["drain", None]
        assert [w.id for w in await b.store.workers_list()] == ["w1"]
        await b.store.workers_remove("w1")
        assert await b.store.workers_list() == []

    async def test_audit_rows_come_back_newest_first(self, b: Bench) -> None:
        """Who did what, for the record."""
        rows = [AuditRow(n, "me", "cancel", f"job{n}") for n in range(3)]
        await b.store.audit_put(rows)
        assert await b.store.audit_list(2) == [rows[2], rows[1]]

    async def test_hints_tell_of_new_work_until_the_listener_leaves(self, b: Bench) -> None:
        """They make things quick; polling makes them right."""
        heard: list[Hint] = []
        end = b.store.listen(lambda hint, _: heard.append(hint))
        job = await b.put()
        await b.schedule()
        await b.claim()
        await b.store.jobs_request_cancel([job.id])
        assert {Hint.JOBS, Hint.SCHEDULES, Hint.CANCELS} <= set(heard)
        end()
        heard.clear()
        await b.store.wake(Hint.JOBS)
        assert heard == []

    async def test_close_and_migrate_may_be_repeated(self, b: Bench) -> None:
        """Clean-up code runs twice now and then."""
        await b.store.migrate()
        await b.store.migrate()
        await b.store.close()
        await b.store.close()
