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
from datetime import timedelta

from quarterjack._durations import NS_PER_S
from quarterjack.errors import MissingExtra
from quarterjack.model import (
    Finish,
    FinishKind,
    JobFilter,
    JobState,
    Unique,
    WorkerInfo,
)
from quarterjack.stores.base import AuditRow, CancelAnswer, Hint

from ._bench import Bench
from ._contract_backfill import BackfillContract
from ._contract_chains import ChainContract
from ._contract_jobs import JobContract
from ._contract_leases import LeaseContract
from ._contract_limits import LimitContract
from ._contract_schedules import ScheduleContract
from ._contract_texts import TextContract
from ._contract_versions import VersionContract

try:
    import pytest
except ImportError as error:
    raise MissingExtra("the store contract suite", "testing") from error

__all__ = ["Bench", "StoreContract"]


class StoreContract(
    JobContract,
    ScheduleContract,
    ChainContract,
    BackfillContract,
    VersionContract,
    LeaseContract,
    LimitContract,
    TextContract,
):
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
        row = await b.get(held.id)
        assert (row.cancel_requested, row.reason) == (True, "why")  # its worker reads it there
        assert await b.claim() == []

    async def test_job_that_was_to_be_cancelled_and_ended_otherwise_has_no_reason_left(self, b: Bench) -> None:
        """A body may be done before it hears of it; who asks twice is the reason once."""
        await b.put()
        (row,) = await b.claim()
        await b.store.jobs_request_cancel([row.id], "first")
        await b.store.jobs_request_cancel([row.id], "second")
        assert (await b.get(row.id)).reason == "first"
        assert await b.finish(row.fence)
        found = await b.get(row.id)
        assert (found.state, found.reason) == (JobState.DONE, None)

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
            assert await b.store.jobs_count(where) == len(expected), where

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

    # -- workers, records, hints -----------------------------------------------------

    async def test_workers_register_hear_commands_and_leave(self, b: Bench) -> None:
        """An operator's word reaches a worker, though an answer may be lost; what it has heard is not told again."""
        worker = WorkerInfo("w1", "host", 1, "both", ("default",), 0, 0)
        assert await b.store.workers_put(worker) is None
        assert await b.store.workers_command("w1", "drain")
        assert not await b.store.workers_command("w2", "drain")
        assert [await b.store.workers_put(worker) for _ in range(2)] == ["drain", "drain"]
        assert [await b.store.workers_put(worker._replace(command="drain")) for _ in range(2)] == [None, None]
        await b.store.workers_command("w1", "drain")
        await b.store.workers_command("w1", "resume")
        assert await b.store.workers_put(worker._replace(command="drain")) == "resume", "a newer one took its place"
        assert await b.store.workers_put(worker._replace(command="resume")) is None
        assert [w.command for w in await b.store.workers_list()] == [None]
        assert [w.id for w in await b.store.workers_list()] == ["w1"]
        await b.store.workers_remove("w1")
        assert await b.store.workers_list() == []

    async def test_what_a_worker_says_of_itself_comes_back(self, b: Bench) -> None:
        """That it takes nothing more, or has parked a task, is nowhere else to be seen from outside."""
        worker = WorkerInfo("w1", "host", 1, "worker", ("default", "far"), 2, 3, "1.4", 5, 6)
        for told in (worker, worker._replace(halt="drained", parked=("crash", "burn")), worker):
            await b.store.workers_put(told)
            assert await b.store.workers_list() == [told]

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
