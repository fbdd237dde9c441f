"""Why a job waits that other processes are to run: told from the registry of those at work."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quarterjack import ConcurrencyLimit, Every, Flow, Quarterjack, TimeWindow
from quarterjack._why_words import state_of
from quarterjack.errors import UsageError
from quarterjack.model import NO_OPTIONS, JobRecord, JobState, WorkerInfo
from quarterjack.stores._firing import _still
from quarterjack.testing import virtual_time
from quarterjack.triggers import Between
from quarterjack.why_waiting import Others, Place, why_waiting

NOW = 1_000_000_000_000
S = 1_000_000_000


def job(state: JobState = JobState.SUBMITTED, reason: str | None = None) -> JobRecord:
    record = JobRecord("aaaaaaaa-1", "fetch", (), {}, NO_OPTIONS)
    record.state, record.run_at_ns, record.reason = state, NOW - S, reason
    record.owner = "w1" if state.is_held else None
    return record


def worker(
    name: str = "w1", role: str = "both", queues: tuple[str, ...] = ("default",), ago: float = 1.0, **more: Any
) -> WorkerInfo:
    return WorkerInfo(name, "host", 1, role, queues, 0, NOW - round(ago * S), **more)


DRAINED = worker("w2", halt="drained")
PARKED = worker("w3", parked=("burn", "fetch"))


def told(record: JobRecord, *workers: WorkerInfo, gates: tuple[str, ...] | None = ()) -> tuple[str, str]:
    found = why_waiting(record, NOW, Place(knows_task=True, others=Others(workers, gates)))
    return found.kind, found.words


@pytest.mark.parametrize(
    ("workers", "kind", "words"),
    [
        ((), "unserved", "nobody is at work: qj run starts a process"),
        ((worker(ago=90),), "unserved", "nobody is at work: qj run starts a process"),
        (
            (worker(role="scheduler"),),
            "unserved",
            "none of the 1 at work runs jobs: start one whose role is 'both' or 'worker'",
        ),
        (
            (worker(queues=("far",)),),
            "unserved",
            (
                "nobody at work serves its queue 'default': give it to a worker by queues=, or start one: "
                "qj run --queue default"
            ),
        ),
        (
            (DRAINED,),
            "unserved",
            "the only one at work that serves its queue 'default' is drained: qj workers resume w2 has it go on",
        ),
        (
            (worker(halt="ending"), DRAINED, worker(queues=("far",))),
            "unserved",
            "each of the 2 at work that serves its queue 'default' is drained: qj workers resume w2 has it go on",
        ),
        (
            (worker(halt="ending"),),
            "unserved",
            "the only one at work that serves its queue 'default' is ending: qj run starts another one",
        ),
        (
            (PARKED, DRAINED),
            "task_parked",
            (
                "its task is parked at worker w3, as its processes died again and again: "
                "restart that process once it is mended"
            ),
        ),
        (
            (worker(), DRAINED, PARKED),
            "next",
            "worker w1 serves its queue 'default' and takes it as soon as a slot is free",
        ),
        ((worker(),), "next", "worker w1 serves its queue 'default' and takes it as soon as a slot is free"),
        (
            (worker(), worker("w2")),
            "next",
            "2 workers serve its queue 'default' and take it as soon as a slot is free",
        ),
    ],
)
def test_job_that_is_due_is_told_by_who_is_at_work(workers: tuple[WorkerInfo, ...], kind: str, words: str) -> None:
    """Whoever only looks knows no slots, but knows who could come."""
    assert told(job(), *workers) == (kind, words)


def test_flow_that_may_keep_a_due_job_is_named() -> None:
    """Its gates are taken where it runs; that there are any is known here."""
    assert told(job(), worker(), gates=("door", "SlidingWindow"))[1].endswith(
        "as soon as a slot is free and its flow (door, SlidingWindow) has room"
    )


@pytest.mark.parametrize(
    ("state", "gates", "words"),
    [
        (JobState.SCHEDULED, (), "worker w1 has it: it is about to begin"),
        (JobState.SCHEDULED, ("door",), "worker w1 has it: it is waiting there in its flow (door), or about to begin"),
        (JobState.SCHEDULED, None, "worker w1 has it: it is about to begin, or waits there in its flow"),
        (JobState.STARTED, ("door",), "worker w1 handed it to its executor; nobody there has begun it yet"),
    ],
)
def test_job_that_another_process_holds_is_told_with_its_flow(
    state: JobState, gates: tuple[str, ...] | None, words: str
) -> None:
    """A gate may keep it for hours: only one that has passed its flow is about to begin."""
    kind = "handed" if state is JobState.STARTED else "held"
    assert told(job(state), worker(), gates=gates) == (kind, words)


@pytest.mark.parametrize(("workers", "how"), [((), "is gone"), ((worker(ago=90),), "was last seen 1 minute and 30")])
def test_job_of_a_process_without_a_sign_of_life_waits_for_its_lease(workers: tuple[WorkerInfo, ...], how: str) -> None:
    """It will not begin there, so its holder is no news; what comes next is."""
    _, words = told(job(JobState.SCHEDULED), *workers)
    assert words.startswith(f"worker w1 had it and {how}")
    assert words.endswith("it is taken up anew when its lease has run out")


def test_running_job_is_told_with_its_worker_and_how_long_that_has_been_silent() -> None:
    """The bug: after a kill it "waits no more: it is running" for half a minute, and who ran it was nowhere told."""
    found = told(job(JobState.RUNNING), worker(ago=12))
    assert found == ("running", "it runs at worker w1 (host, process 1), last seen 12 seconds ago")
    assert told(job(JobState.RUNNING))[1].startswith("worker w1 ran it and is gone")


def test_job_that_was_handed_over_is_not_still_started() -> None:
    """The bug: a tick was skipped as the job before it was "still started", which read as a slip."""
    blocker = job(JobState.STARTED)
    assert _still(blocker) == "handed to its executor, and has not begun"
    assert state_of(blocker) == "handed to its executor, but not begun"


def test_orphan_keeps_its_reason_although_it_is_due() -> None:
    """With nobody at work its moment passes: what nobody could do is told before that nobody is there."""
    kind, words = told(job(reason="ORPHANED: missing a required argument"))
    assert (kind, words.partition(";")[0]) == ("orphaned", "ORPHANED: missing a required argument")
    assert "nobody is at work" in words


async def test_id_in_place_of_a_job_is_told_how_to_find_the_job() -> None:
    """Ids are what a log and `qj jobs` show."""
    asker: Any = Quarterjack()
    async with asker:
        with pytest.raises(UsageError, match=r"takes a Job, got 'abc-1'; await app\.job\(id\) finds"):
            await asker.why_waiting("abc-1")


async def test_run_that_a_held_job_keeps_out_is_told_with_what_holds_that_job() -> None:
    """The bug: the job in the way was about to begin, and its gate opened seven hours later."""
    app = Quarterjack()

    @app.task(Every(minutes=1), flow=Flow(TimeWindow(Between("02:00", "03:00", tz="UTC"))))
    async def often() -> None:
        await asyncio.sleep(0)

    async with virtual_time(app, start="2027-03-26T19:00:30") as world:
        await world.run_for(40)
        (held,) = [one for one in world.jobs(often) if not one.state.is_finished]
        found, cause = await app.why("often"), await app.why_waiting(held)
        assert (found.kind, found.job) == ("blocked", held.id)
        assert "about to begin" not in found.words
        assert found.words.endswith(f"job {held.id} waits: {cause.words}")
        assert "02:00" in cause.words


async def test_only_process_there_is_at_work_after_a_minute() -> None:
    """On the memory store nobody gives signs of life: a row that grows old is no sign of death."""
    app = Quarterjack(queues=["default"])

    @app.task(flow=ConcurrencyLimit(1))
    async def work() -> None: ...

    async with virtual_time(app) as world:
        far = await app.submit(work.options(queue="far"))
        await world.run_for(120)
        assert "nobody at work serves its queue 'far'" in (await app.why_waiting(far)).words
