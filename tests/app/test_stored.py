"""An app over a store that outlives it: what a restart, a deploy, a wrong key make of jobs and schedules."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from quarterjack import (
    ConcurrencyLimit,
    Every,
    Flow,
    InvalidArguments,
    InvalidOption,
    InvalidTrigger,
    JobFailed,
    JobState,
    Quarterjack,
    ResultUnavailable,
    Retry,
    RetryLater,
    StartupFailed,
    ThreadExecutor,
    current_job,
    gather,
)
from quarterjack.testing import VirtualClock
from quarterjack.testing._loop import virtual_loop
from quarterjack.triggers import _rule
from tests.stores.things import Broken, EveryOther, Nameless

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Order(BaseModel):
    """What a body takes."""

    customer: str


class Xor:
    """A codec with a key."""

    def __init__(self, key: int) -> None:
        self.key = key

    def encode(self, data: bytes) -> bytes:
        return bytes(byte ^ self.key for byte in data)

    decode = encode


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store in a file."""
    return f"sqlite:///{tmp_path}/jobs.db?synchronous=off"


def client(url: str, **options: Any) -> Quarterjack:
    """Return an app that only submits."""
    return Quarterjack(url, role="client", **options)


@asynccontextmanager
async def running(app: Quarterjack, start: datetime = START) -> AsyncIterator[VirtualClock]:
    """Run an app in virtual time."""
    app.clock = clock = VirtualClock(start)
    with virtual_loop(clock):
        async with app:
            yield clock


async def submitted(url: str, fn: Any, *args: Any, app: Quarterjack | None = None, **kwargs: Any) -> str:
    """Submit one job by an app that ends before anybody runs it; return its id."""
    app = client(url) if app is None else app
    task = app.task(fn)
    async with running(app):
        return (await app.submit(task, *args, **kwargs)).id


async def test_arguments_and_results_keep_their_types_over_a_restart(url: str) -> None:
    """A body must not care in which process its job was submitted."""
    seen: list[Any] = []

    async def book(at: datetime, who: UUID, places: tuple[int, ...] = (), *, wait: timedelta) -> datetime:
        seen.append((at, who, places, wait))
        return at + wait

    job_id = await submitted(url, book, START, UUID(int=7), (1, 2), wait=timedelta(hours=1))
    app = Quarterjack(url)
    app.task(book)
    async with running(app):
        assert await (await app.job(job_id)) == START + timedelta(hours=1)
    assert seen == [(START, UUID(int=7), (1, 2), timedelta(hours=1))]
    reader = client(url)
    reader.task(book)
    async with running(reader):
        job = await reader.job(job_id)
        assert job.result() == START + timedelta(hours=1)
        assert job.args == (START, UUID(int=7), (1, 2))


async def test_what_cannot_be_stored_is_refused_before_any_of_it_is(url: str) -> None:
    """A batch is stored whole or not at all, and its error names what to change."""
    app = client(url, max_argument_bytes=1_000)

    @app.task
    async def take(thing: Any) -> None: ...

    async with running(app):
        for bad, words in ((object(), "argument thing of take, of type object"), ("x" * 1_001, "take 1003 bytes")):
            with pytest.raises(InvalidArguments, match=words):
                await app.submit_many([take.bind(1), take.bind(bad)])
        with pytest.raises(InvalidOption, match=r"is an object.*set it on the task"):
            await app.submit(take.options(executor=ThreadExecutor(1, name="own")), 1)
        with pytest.raises(InvalidOption, match=r"on= of the retry of a job of take cannot be stored by its name"):
            await app.submit(take.options(retry=Retry(on=lambda error: True)), 1)
        assert await app.jobs() == []


async def test_gates_see_the_arguments_that_the_body_gets(url: str) -> None:
    """A key that is read off a model would find a dict, and the job would never start."""
    keys: list[Any] = []

    def customer(job: Any) -> str:
        keys.append(job.args[0])
        return str(job.args[0].customer)

    app = Quarterjack(url)

    @app.task(flow=Flow(ConcurrencyLimit(1, by=customer)))
    async def pay(order: Order) -> str:
        return order.customer

    async with running(app):
        job = await app.submit(pay, Order(customer="Ann"))
        pay.on_done(lambda done: keys.extend(done.args))
        assert await job == "Ann"
    assert len(keys) > 2
    assert set(map(type, keys)) == {Order}


async def test_a_retry_of_one_job_survives_a_restart(url: str) -> None:
    """What a job was told at its submit holds in the process that runs it."""
    app = client(url)

    async def fails() -> None:
        raise Broken("again")

    task = app.task(fails)
    async with running(app):
        named = await app.submit(task.options(retry=Retry(on=Broken, attempts=4, base=0)))
        plain = await app.submit(task)
    app = Quarterjack(url)
    app.task(fails)
    async with running(app):
        for job_id, attempts in ((named.id, 4), (plain.id, 1)):
            job = await app.job(job_id)
            with pytest.raises(JobFailed, match="again"):
                await job
            assert job.failures == attempts


async def test_a_deploy_that_moves_a_task_to_a_pool_takes_its_backlog_along(url: str) -> None:
    """Jobs stored under the old version would otherwise wait for ever."""
    places: list[str] = []

    def work() -> None:
        places.append(current_job().task)

    job_id = await submitted(url, work)
    app = Quarterjack(url)
    app.task(executor=ThreadExecutor(1, name="own"))(work)
    async with running(app):
        await (await app.job(job_id))
    assert places == ["work"]


async def test_arguments_that_fit_no_more_wait_for_code_that_takes_them(url: str) -> None:
    """A deploy that changes a signature must neither fail nor lose what waits."""

    async def greet(name: str) -> str:
        return f"hello {name}"

    job_id = await submitted(url, greet, "Ann")
    app = Quarterjack(url)

    @app.task(name="greet")
    async def greet_both(name: str, other: str) -> None: ...

    async with running(app) as clock:
        await clock.run_for(1)
        job = await app.job(job_id)
        assert job.state is JobState.SUBMITTED
        assert "ORPHANED" in (job.reason or "")
        assert "missing a required argument: 'other'" in (job.reason or "")
    app = Quarterjack(url)
    app.task(greet)
    async with running(app, START + timedelta(hours=1)):
        assert await (await app.job(job_id)) == "hello Ann"


async def failed(url: str, words: str, codec: Xor) -> None:
    """Have a job fail with *words*."""
    app = Quarterjack(url, codec=codec)

    @app.task
    async def shout() -> None:
        current_job().progress(1, 2, words)
        current_job().checkpoint(words)
        raise OSError(words)

    async with running(app):
        job = await app.submit(shout)
        with pytest.raises(JobFailed, match=words):
            await job
        assert words in ((await app.job(job.id)).reason or "")


async def test_payloads_are_unreadable_on_disk_and_with_the_wrong_key(url: str, tmp_path: Path) -> None:
    """Encryption holds for the file; a wrong key costs time, and no job."""

    async def whisper(secret: str) -> str:
        return secret

    job_id = await submitted(url, whisper, "sesame", app=client(url, codec=Xor(7)))
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"whisper" in files
    assert b"sesame" not in files
    await failed(url, "sesame", Xor(7))
    assert b"sesame" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())

    wrong = Quarterjack(url, codec=Xor(9))
    wrong.task(whisper)
    async with running(wrong) as clock:
        await clock.run_for(1)
        reason = (await wrong.job(job_id)).reason
        assert reason is not None
        assert reason.startswith("ORPHANED: its arguments cannot be read")
    right = Quarterjack(url, codec=Xor(7))
    right.task(whisper)
    async with running(right, START + timedelta(hours=1)):
        assert await (await right.job(job_id)) == "sesame"
    async with running(wrong, START + timedelta(hours=1)):
        with pytest.raises(ResultUnavailable, match="it cannot be read"):
            await (await wrong.job(job_id))
        with pytest.raises(ResultUnavailable, match="it cannot be read"):
            await gather([await wrong.job(job_id)])


async def test_a_checkpoint_that_cannot_be_read_is_not_begun_without(url: str) -> None:
    """A body that takes a lost checkpoint for none does its work a second time."""
    seen: list[Any] = []

    async def steps() -> None:
        seen.append(current_job().last_checkpoint)
        if current_job().last_checkpoint is None:
            current_job().checkpoint("half")
            raise RetryLater(after=5)

    job_id = await submitted(url, steps)
    for key, hour in ((7, 0), (9, 1), (7, 2)):
        app = Quarterjack(url, codec=Xor(key))
        app.task(retry=2)(steps)
        async with running(app, START + timedelta(hours=hour)) as clock:
            await clock.run_for(1)
            if key == 9:
                assert "ORPHANED: its checkpoint cannot be read" in ((await app.job(job_id)).reason or "")
    assert seen == [None, "half"]


async def test_a_checkpoint_is_kept_as_it_was_then_or_refused_there(url: str) -> None:
    """What cannot be stored fails in the body, not in the thread that keeps all the leases."""
    app = Quarterjack(url)
    seen: list[Any] = []

    @app.task(retry=2)
    async def steps() -> None:
        job = current_job()
        if job.attempt > 1:
            seen.append(job.last_checkpoint)
            return
        done: dict[str, Any] = {"pages": (1, 2)}
        job.checkpoint(done)
        done["pages"] = ()
        for bad, words in ((object(), "checkpoint of steps, of type object"), ("x" * 2**20, "takes 1048578 bytes")):
            with pytest.raises(InvalidArguments, match=words):
                job.checkpoint(bad)
        raise RetryLater(after=5)

    async with running(app):
        await (await app.submit(steps))
    assert seen == [{"pages": [1, 2]}]


async def test_a_trigger_that_cannot_be_stored_is_refused_when_it_is_put(url: str) -> None:
    """Declared in code or put at run time: a schedule that a restart would lose is none."""
    app = Quarterjack(url)

    @app.task
    async def tick() -> None: ...

    async with running(app):
        with pytest.raises(InvalidTrigger, match="schedule 'tick' cannot be stored: Nameless: thing"):
            await app.schedule(tick, Nameless(thing=object()))
        assert await app.schedules() == []
    app = Quarterjack(url)
    app.task(Nameless(thing=object()))(tick.__wrapped__)
    with pytest.raises((InvalidTrigger, StartupFailed), match="schedule 'tick' cannot be stored"):
        async with running(app):
            pass


async def test_a_trigger_whose_code_is_gone_parks_its_schedule_here(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older process of a deploy shows why it does not fire, and the newer one goes on."""
    runs: list[datetime | None] = []

    async def tick() -> None:
        runs.append(current_job().nominal)

    app = Quarterjack(url)
    task = app.task(tick)
    async with running(app) as clock:
        await app.schedule(task, EveryOther(first=START + timedelta(seconds=10)))
        await clock.run_for(20)
    assert runs == [START + timedelta(seconds=10)]

    older = Quarterjack(url)
    task = older.task(tick)
    with monkeypatch.context() as patch:
        patch.delitem(_rule._RULES, "EveryOther")
        patch.setitem(sys.modules, "tests.stores.things", None)
        async with running(older, START + timedelta(days=2)) as clock:
            await clock.run_for(20)
            (view,) = await older.schedules()
            assert "cannot be rebuilt here" in (view.parked_reason or "")
            with pytest.raises(InvalidTrigger, match="schedule 'tick' cannot be changed by this process"):
                await older.update_schedule("tick", max_runs=9)
            await older.pause("tick")
            await older.resume("tick", catch_up=True)
    assert len(runs) == 1
    async with running(app, START + timedelta(days=3)) as clock:
        await clock.run_for(5)
        (view,) = await app.schedules()
        assert view.parked_reason is None
    assert runs[1:] == [START + timedelta(days=2, seconds=10)]  # made up for, as missed="latest" says


async def test_an_equal_schedule_put_again_is_no_change(url: str) -> None:
    """Programs put their schedules at each start; arguments that JSON changes must not begin a new generation."""
    app = Quarterjack(url)

    @app.task
    async def visit(places: tuple[int, ...]) -> None: ...

    for hour in (0, 1):
        async with running(app, START + timedelta(hours=hour)):
            await app.schedule(visit.bind((1, 2)), Every(days=1), id="round")
            row = await app.store.schedules_get("round")
            assert row is not None
            assert (row.generation, row.revision) == (1, 1)
