"""What the runtime makes of bodies that are out of its sight: lost, or outliving their worker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Every,
    Flow,
    InvalidArguments,
    JobCancelled,
    JobFailed,
    JobLost,
    JobMissed,
    JobState,
    Quarterjack,
)
from quarterjack.errors import NotRunning, Orphaned
from quarterjack.executors import Call, Capabilities, Executor, Handle, Home, Report
from quarterjack.executors.elsewhere import Elsewhere
from quarterjack.model import FinishKind, Outcome, OutcomeKind
from quarterjack.runtime import claiming, decoding, endings
from quarterjack.stores.base import Hint, Renewal
from tests.real_time import LONG_S, until


class Cluster:
    """Bodies that go on without any worker: what each attempt became, and who listens."""

    def __init__(self) -> None:
        self.is_deaf = False
        """Cancels do not reach it."""
        self.submitted: list[str] = []
        self.cancelled: list[str] = []
        self.reports: dict[str, Report] = {}

    def end(self, ref: str, outcome: Outcome) -> None:
        self.reports.pop(ref).finished(outcome)


class ToCluster(Executor):
    """Hands bodies to a cluster."""

    name = "cluster"
    slots = 10
    is_remote: ClassVar[bool] = True
    capabilities: ClassVar[Capabilities] = Capabilities(
        can_cancel_queued=True,
        can_interrupt=True,
        can_kill=True,
        can_report_start=True,
        can_report_progress=False,
        survives_worker_restart=True,
        submit_is_idempotent=True,
        runs_coroutines=True,
    )

    def __init__(self, cluster: Cluster, *, begins: bool = True) -> None:
        self.cluster, self.begins = cluster, begins
        self.ref_by_handle: dict[int, str] = {}

    async def start(self, home: Home) -> None:
        pass

    @property
    def free(self) -> int:
        return self.slots

    def submit(self, call: Call, report: Report) -> Handle:
        self.cluster.submitted.append(call.ref)
        report.accepted()
        return self._listen(call.ref, report)

    def _listen(self, ref: str, report: Report) -> Handle:
        self.cluster.reports[ref] = report
        if self.begins:
            report.began()
        handle = _Cancel(self.cluster, ref)
        self.ref_by_handle[id(handle)] = ref
        return handle

    def leave(self, handle: Handle) -> None:
        del self.cluster.reports[self.ref_by_handle[id(handle)]]

    def reattach(self, ref: str, call: Call, report: Report) -> Handle | None:
        if ref not in self.cluster.submitted:
            return None
        self.cluster.submitted[self.cluster.submitted.index(ref)] = call.ref
        return self._listen(call.ref, report)

    async def stop(self, grace_s: float) -> None:
        pass


class _Cancel:
    def __init__(self, cluster: Cluster, ref: str) -> None:
        self.cluster, self.ref = cluster, ref

    def cancel(self, reason: str) -> None:
        if self.ref in self.cluster.reports and not self.cluster.is_deaf:
            self.cluster.cancelled.append(self.ref)
            self.cluster.end(self.ref, Outcome(OutcomeKind.CANCELLED, reason=reason))


async def test_a_body_that_outlives_its_worker_is_taken_up_by_the_next_one(tmp_path: Path) -> None:
    """A deploy must not begin an hour's work a second time."""
    cluster, url = Cluster(), f"sqlite:///{tmp_path}/jobs.db"

    def made() -> tuple[Quarterjack, Any]:
        app = Quarterjack(url, shutdown_grace=0)

        @app.task(executor=ToCluster(cluster))
        def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

        return app, work

    app, work = made()
    async with app:
        job = await app.submit(work)
        await until(lambda: cluster.reports)
    assert cluster.reports == {}
    app, _ = made()
    async with app:
        again = await app.job(job.id)
        await until(lambda: cluster.reports)
        (ref,) = cluster.submitted
        assert ref == f"{job.id}.2"  # the same body, under its new name
        cluster.end(ref, Outcome(OutcomeKind.DONE, 7))
        assert await again == 7


async def test_a_lost_body_is_begun_anew_later_and_not_at_once() -> None:
    """Nobody knows whether it still runs."""
    cluster = Cluster()
    app = Quarterjack(shutdown_grace=0)

    @app.task(executor=ToCluster(cluster))
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        job = await app.submit(work)
        await until(lambda: cluster.reports)
        assert job.timestamps.started_at is not None
        cluster.end(f"{job.id}.1", Outcome(OutcomeKind.LOST, reason="the scheduler is gone"))
        await until(lambda: job.state is JobState.SUBMITTED)
        assert job._record.failures == 0
        assert job._record.run_at_ns > app.clock.now_ns() + 20 * 10**9
        assert cluster.submitted == [f"{job.id}.1"]


async def test_a_body_that_may_run_once_is_lost_and_not_begun_again() -> None:
    """The bug: on the memory store `max_rescues=0` was no "at most once", and no loss was ever one too many."""
    cluster = Cluster()
    app = Quarterjack(shutdown_grace=0)
    told: list[str] = []

    @app.task(executor=ToCluster(cluster), max_rescues=0, retry=3)
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    work.on_lost(lambda job: told.append(job.id))
    async with app:
        job = await app.submit(work)
        await until(lambda: cluster.reports)
        cluster.end(f"{job.id}.1", Outcome(OutcomeKind.LOST, reason="the scheduler is gone"))
        with pytest.raises(JobLost, match="max_rescues=0"):
            await asyncio.wait_for(job.wait(), LONG_S)
        assert (job.state, job.attempt, told) == (JobState.LOST, 1, [job.id])
        await app.drain()


async def test_losses_count_and_a_lost_body_that_nobody_wants_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a store with leases: after `max_rescues` of them the job is over, and a cancel needs no answer."""
    monkeypatch.setattr(endings, "LOST_S", 0.01)
    cluster = Cluster()
    app = Quarterjack(shutdown_grace=0)

    @app.task(executor=ToCluster(cluster), max_rescues=1)
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        job, unwanted = await app.submit(work), await app.submit(work)
        await until(lambda: len(cluster.reports) == 2)
        cluster.is_deaf = True
        assert not await unwanted.cancel(wait=0)
        for one in (job, unwanted):
            cluster.end(f"{one.id}.1", Outcome(OutcomeKind.LOST, reason="the scheduler is gone"))
        with pytest.raises(JobCancelled):
            await asyncio.wait_for(unwanted.wait(), LONG_S)
        await until(lambda: cluster.reports)
        cluster.end(f"{job.id}.2", Outcome(OutcomeKind.LOST, reason="the scheduler is gone"))
        with pytest.raises(JobLost, match="2 times"):
            await asyncio.wait_for(job.wait(), LONG_S)
        assert list(cluster.reports) == []


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_an_orphan_waits_for_a_cluster_that_knows_its_task(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a rolling deploy the cluster is older for a while: nothing fails because it is new."""
    monkeypatch.setattr(decoding, "AGAIN_S", 0.05)
    monkeypatch.setattr(claiming, "AVOID_S", 0.05)
    cluster, url = Cluster(), "memory" if store == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    app = Quarterjack(url, shutdown_grace=0)

    @app.task(executor=ToCluster(cluster, begins=False), retry=1)
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        job = await app.submit(work)
        for attempt in (1, 2):
            await until(lambda: cluster.reports)
            assert list(cluster.reports) == [f"{job.id}.{attempt}"]
            cluster.end(f"{job.id}.{attempt}", Outcome(OutcomeKind.ORPHANED, reason="it does not know the task"))
        await until(lambda: cluster.reports)
        assert (await app.job(job.id))._record.failures == 0
        cluster.end(f"{job.id}.3", Outcome(OutcomeKind.DONE, 7))
        assert await job == 7
    assert caplog.text.count("waits for a worker that can run it: no job of 'work' can run here") == 1


async def test_an_orphan_of_the_memory_store_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: its job waited for a worker that can run it, and there is none but this one."""
    monkeypatch.setattr(decoding, "AGAIN_S", 0.01)
    cluster = Cluster()
    app = Quarterjack(shutdown_grace=0)

    @app.task(executor=ToCluster(cluster, begins=False), retry=5)
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        job = await app.submit(work)
        for attempt in (1, 2, 3):
            await until(lambda: cluster.reports)
            cluster.end(f"{job.id}.{attempt}", Outcome(OutcomeKind.ORPHANED, reason="it does not know the task"))
        with pytest.raises(JobFailed, match="it does not know the task; it was offered 3 times") as failed:
            await asyncio.wait_for(job.wait(), LONG_S)
        assert isinstance(failed.value.__cause__, Orphaned)
        assert job.attempt == 3


async def test_arguments_that_cannot_travel_are_refused_where_they_are_submitted() -> None:
    """The bug: on the memory store they were taken, and the job waited for ever for another version of the code."""
    cluster = Cluster()
    app = Quarterjack(shutdown_grace=0)

    @app.task(executor=ToCluster(cluster))
    def work(n: int) -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    @app.task
    async def here(n: int) -> object:
        return n

    wrong: Any = "seven"
    async with app:
        with pytest.raises(InvalidArguments, match="argument n of work"):
            await app.submit(work, wrong)
        with pytest.raises(InvalidArguments, match="argument n of work"):
            await app.submit_many([work.bind(1), work.bind(wrong)])
        with pytest.raises(InvalidArguments, match="argument n of here"):
            await app.submit(here.options(executor="process"), wrong)
        with pytest.raises(InvalidArguments, match="argument n of work"):
            await app.schedule(work.bind(wrong), Every(hours=1))
        assert await (await app.submit(here, wrong)) == "seven"  # in this process live objects are passed
        assert cluster.submitted == []


async def test_arguments_that_are_not_stored_may_be_of_any_size() -> None:
    """A store has to keep them, a process only takes them."""
    cluster = Cluster()
    app = Quarterjack(shutdown_grace=0)

    @app.task(executor=ToCluster(cluster))
    def work(data: str) -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        job = await app.submit(work, "x" * 2_000_000)
        await until(lambda: cluster.reports)
        cluster.end(f"{job.id}.1", Outcome(OutcomeKind.DONE, 7))
        assert await job == 7


async def test_an_orphan_says_why_it_waits_and_can_be_cancelled(tmp_path: Path) -> None:
    """Whoever looks at it finds the reason, and nobody has to wait for ever."""
    cluster = Cluster()
    app = Quarterjack(f"sqlite:///{tmp_path}/jobs.db", shutdown_grace=0)

    @app.task(executor=ToCluster(cluster, begins=False))
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        waiting, unwanted = await app.submit(work), await app.submit(work)
        await until(lambda: len(cluster.reports) == 2)
        cluster.is_deaf = True  # the answer is on its way
        assert not await unwanted.cancel(wait=0)
        for job in (waiting, unwanted):
            cluster.end(f"{job.id}.1", Outcome(OutcomeKind.ORPHANED, reason="it does not know the task"))
        with pytest.raises(JobCancelled):
            await unwanted
        await until(lambda: f"{waiting.id}.1" not in cluster.reports)
        while (await waiting.refresh()).state is not JobState.SUBMITTED:
            await asyncio.sleep(0.002)
        assert waiting.reason == "ORPHANED: it does not know the task"
        assert (await app.why_waiting(waiting)).kind == "orphaned"
        assert await waiting.cancel()


async def test_others_see_what_waits_in_a_cluster(tmp_path: Path) -> None:
    """`qj ls` and the board read the store, and only the worker knows that the cluster has it."""
    cluster, url = Cluster(), f"sqlite:///{tmp_path}/jobs.db"
    app = Quarterjack(url, shutdown_grace=0)

    @app.task(executor=ToCluster(cluster, begins=False))
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app, Quarterjack(url, role="client") as client:
        job = await client.job((await app.submit(work)).id)
        await until(lambda: cluster.reports)
        while (await job.refresh()).state is JobState.SCHEDULED:
            await asyncio.sleep(0.01)
        assert str(job.state) == "started"
        since = job.timestamps.started_at
        cluster.reports[f"{job.id}.1"].began()
        while (await job.refresh()).state is JobState.STARTED:
            await asyncio.sleep(0.01)
        assert job.state is JobState.RUNNING
        assert job.timestamps.started_at == since is not None
        cluster.end(f"{job.id}.1", Outcome(OutcomeKind.DONE, 7))
        assert await job == 7


async def test_a_body_whose_lease_was_lost_is_left_to_the_next_attempt(tmp_path: Path) -> None:
    """It may be the next one's by now: who lost the job must not end it there."""
    cluster, url = Cluster(), f"sqlite:///{tmp_path}/jobs.db"
    app = Quarterjack(url, shutdown_grace=0)
    limit = ConcurrencyLimit(1)

    @app.task(executor=ToCluster(cluster), flow=Flow(limit))
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        job = await app.submit(work)
        await until(lambda: cluster.reports)
        worker = app._running().worker
        assert worker is not None
        for _ in range(2):  # each renewal says so
            worker.lose(worker.attempts())
        await until(lambda: not cluster.reports)
        assert cluster.cancelled == []
        assert (worker.running, limit.used) == (0, 0)
        assert (await app.job(job.id)).state is JobState.SCHEDULED, "its row is not ours to write to"


async def test_a_body_of_a_job_that_was_ended_elsewhere_is_cancelled(tmp_path: Path) -> None:
    """Nobody would take it up: left alone it would go on to its end for nothing."""
    cluster, url = Cluster(), f"sqlite:///{tmp_path}/jobs.db"
    app = Quarterjack(url, shutdown_grace=0)

    @app.task(executor=ToCluster(cluster))
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        job = await app.submit(work)
        await until(lambda: cluster.reports)
        worker = app._running().worker
        assert worker is not None
        (attempt,) = worker.attempts()
        await app._running().store.jobs_finish([attempt.finish(FinishKind.FAILED, reason="ended elsewhere")])
        worker.lose([attempt])
        await until(lambda: cluster.cancelled == [f"{job.id}.1"])


async def test_a_body_whose_job_comes_back_to_the_same_worker_keeps_nothing_from_it(tmp_path: Path) -> None:
    """The worker knew already that the lease was lost, and had not asked yet who has the job: it had it itself."""
    cluster, url = Cluster(), f"sqlite:///{tmp_path}/jobs.db"
    app = Quarterjack(url, shutdown_grace=0)

    @app.task(executor=ToCluster(cluster), flow=Flow(ConcurrencyLimit(1)))
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        job = await app.submit(work)
        await until(lambda: cluster.reports)
        running = app._running()
        assert running.worker is not None
        (attempt,) = running.worker.attempts()
        assert running.worker._lose(attempt)
        await running.store.jobs_renew(running.owner, [Renewal(job.id, 1)], 0.0)  # its lease is over
        await running.store.wake(Hint.JOBS)
        await until(lambda: f"{job.id}.2" in cluster.reports)  # the limit is one: nothing holds the first slot any more
        assert cluster.cancelled == []
        cluster.end(f"{job.id}.2", Outcome(OutcomeKind.DONE, 7))
        assert await job == 7


class Deaf(ToCluster):
    """A third party's, which does not take what it is told."""

    def settled(self, ref: str, *, is_stored: bool) -> None:
        raise RuntimeError(f"what is {ref}?")


async def test_an_executor_that_fails_to_hear_of_an_end_ends_nobody_elses(caplog: pytest.LogCaptureFixture) -> None:
    """The outcome is recorded; what somebody else makes of that must not end the app."""
    cluster = Cluster()
    app = Quarterjack(shutdown_grace=0)

    @app.task(executor=Deaf(cluster))
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        for attempt in range(2):
            job = await app.submit(work)
            await until(lambda: cluster.reports)
            cluster.end(f"{job.id}.1", Outcome(OutcomeKind.DONE, attempt))
            assert await job == attempt
    assert caplog.text.count("failed to hear that job") == 2


class Late(ToCluster):
    """Its bodies return while it is stopped, and it keeps their results until the store has them."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self.heard: list[str] = []

    async def stop(self, grace_s: float) -> None:
        self.heard.append("stop")
        for ref in list(self.cluster.reports):
            self.cluster.end(ref, Outcome(OutcomeKind.DONE, 7))

    def settled(self, ref: str, *, is_stored: bool) -> None:
        self.heard.append(f"settled {is_stored}")

    async def all_settled(self) -> None:
        self.heard.append("all settled")
        raise RuntimeError("a third party's")


async def test_an_executor_hears_of_what_is_recorded_after_its_stop(caplog: pytest.LogCaptureFixture) -> None:
    """It keeps results until then, so it must also hear when there is nothing more to come."""
    cluster = Cluster()
    cluster.is_deaf = True
    executor, app = Late(cluster), Quarterjack(shutdown_grace=0)

    @app.task(executor=executor)
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        await app.submit(work)
        await until(lambda: cluster.reports)
    assert executor.heard == ["stop", "settled True", "all settled"]
    assert "raised when all was settled" in caplog.text


async def test_what_came_too_late_to_begin_was_missed() -> None:
    """Its deadline may pass in the cluster's queue, as it may in ours."""
    cluster = Cluster()
    app = Quarterjack(shutdown_grace=0)

    @app.task(executor=ToCluster(cluster, begins=False), start_deadline=60)
    def work() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        job = await app.submit(work)
        await until(lambda: job.state is JobState.STARTED)
        cluster.end(f"{job.id}.1", Outcome(OutcomeKind.MISSED, reason="it came too late"))
        with pytest.raises(JobMissed, match="it came too late"):
            await job


async def test_body_that_submits_from_a_process_without_the_store_is_told_that_it_cannot() -> None:
    """The bug: it was advised to start the app around the call, which would have been a second one in a child."""
    app = Quarterjack()

    @app.task
    async def more() -> None: ...

    told: Any = None  # nobody hears it
    meta = {"id": "a-1", "attempt": 1, "origin": None, "submitted_by": ["a"], "metadata": None, "checkpoint": None}
    there = asyncio.get_running_loop().create_task(app.submit(more), context=Elsewhere("t", meta, told).context())
    with pytest.raises(NotRunning, match="jobs cannot be submitted from there"):
        await there
    with pytest.raises(NotRunning, match="use `async with app:`"):
        await app.submit(more)


def test_body_in_another_process_starts_no_client_to_submit(tmp_path: Path) -> None:
    """The bug: one in a Celery worker started a client of a durable store, with a thread that nobody ended."""
    app = Quarterjack(f"sqlite:///{tmp_path / 'jobs.db'}")

    @app.task
    def work() -> None: ...

    meta = {"id": "aaaaaaaa-1", "attempt": 1, "origin": None, "submitted_by": ["", None, None, None], "metadata": None}
    told: Any = None
    job = Elsewhere("work", {**meta, "checkpoint": None}, told)
    with pytest.raises(NotRunning, match="jobs cannot be submitted from there"):
        job.context().run(app.submit_sync, work)
