"""Bodies in processes, as an app sees them: real children, real signals, real deaths."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from quarterjack import Job, JobCancelled, JobFailed, JobState, JobTimedOut, Quarterjack
from quarterjack.errors import BodyDied, RaisedElsewhere, ResultUnavailable, UsageError
from quarterjack.executors import _crew
from tests.app import process_bodies as bodies
from tests.app.process_bodies import app, pool
from tests.real_time import heirs_of, is_alive, until

pytestmark = pytest.mark.usefixtures("quiet")
on_one_python = pytest.mark.slow  # each starts processes: what one Python shows is enough


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Failures are meant here."""
    caplog.set_level(logging.CRITICAL, "quarterjack")


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Where bodies leave their notes."""
    return str(tmp_path / "notes")


def notes(file: str) -> list[str]:
    return Path(file).read_text(encoding="utf-8").split() if Path(file).exists() else []


async def failure(job: Job[Any]) -> JobFailed:
    with pytest.raises(JobFailed) as caught:
        await job
    return caught.value


async def test_bodies_of_every_kind_run_in_children_that_end_with_the_app() -> None:
    """Plain functions and coroutine functions leave this interpreter, and nothing of them stays behind."""
    async with app:
        pids = {await (await app.submit(task)) for task in (bodies.pid, bodies.pid_later) for _ in range(3)}
        assert os.getpid() not in pids
        assert pids <= pool.pids
        assert len(pool.pids) <= pool.slots
    assert pool.pids == frozenset()
    assert not any(is_alive(pid) for pid in pids)


@on_one_python
async def test_what_a_body_returns_or_raises_comes_back_as_far_as_it_can() -> None:
    """What cannot travel is told in words; none of it hurts the child or the app."""
    async with app:
        job = await app.submit(bodies.unwritable)
        with pytest.raises(ResultUnavailable, match="JSON"):
            await job
        assert job.state is JobState.DONE
        error = await failure(await app.submit(bodies.odd))
        assert (error.error_type, error.message) == ("Odd", "1 is not 2")
        assert "raise Odd(1, 2)" in error.traceback_text
        assert "_child.py" not in error.traceback_text
        error = await failure(await app.submit(bodies.leave, 3))
        assert error.error_type == "SystemExit"
        assert isinstance(error.__cause__, RaisedElsewhere | None)
        assert await (await app.submit(bodies.pid)) in pool.pids


@on_one_python
@pytest.mark.parametrize("size", [1_000_000, 20_000_000])
async def test_large_arguments_and_results_travel(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one goes through a file, and that is gone afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with app:
        text = "x" * size
        assert await (await app.submit(bodies.echo, text)) == text
        (folder,) = tmp_path.iterdir()
        assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


async def test_a_body_that_sleeps_is_interrupted_where_it_stands(file: str) -> None:
    """Its `finally` runs, and its child lives on."""
    async with app:
        job = await app.submit(bodies.sleep.options(timeout=0.2), file)
        with pytest.raises(JobTimedOut):
            await job
        pid, word = notes(file)
        assert word == "cleaned"
        assert int(pid) in pool.pids
        cancelled = await app.submit(bodies.sleep, file)
        await until(lambda: len(notes(file)) == 3)
        assert await cancelled.cancel()
        with pytest.raises(JobCancelled):
            await cancelled
        assert notes(file)[3] == "cleaned"


@on_one_python
@pytest.mark.parametrize("body", [bodies.spin, bodies.in_c], ids=["python", "c"])
async def test_a_body_that_never_ends_is_ended_within_its_grace(body: Any, file: str) -> None:
    """Python is interrupted; a C call that holds the interpreter is killed with its process, and replaced."""
    async with app:
        neighbour = await app.submit(bodies.sleep, file + "2")
        await until(lambda: notes(file + "2"))
        job = await app.submit(body.options(timeout=0.2), file)
        with pytest.raises(JobTimedOut):
            await job
        (pid,) = notes(file)
        assert (int(pid) in pool.pids) is (body is bodies.spin)
        assert is_alive(int(pid)) is (body is bodies.spin)
        assert await (await app.submit(bodies.pid)) in pool.pids
        assert neighbour.state is JobState.RUNNING
        await neighbour.cancel()


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("segfault", -11, "SIGSEGV: it crashed"),
        pytest.param("exit", 7, "exit code 7", marks=on_one_python),
        pytest.param("kill", -9, "perhaps out of memory", marks=on_one_python),
    ],
)
async def test_a_death_ends_one_attempt_and_says_what_it_was(how: str, code: int, words: str, file: str) -> None:
    """The neighbour lives on, and the next body finds a child."""
    async with app:
        neighbour = await app.submit(bodies.sleep, file)
        await until(lambda: notes(file))
        error = await failure(await app.submit(bodies.crash, how))
        assert error.error_type == "BodyDied"
        assert isinstance(error.__cause__, BodyDied)
        assert error.__cause__.code == code
        assert words in error.message
        assert await (await app.submit(bodies.pid)) in pool.pids
        assert neighbour.state is JobState.RUNNING
        await neighbour.cancel()


@on_one_python
async def test_a_death_is_retried_at_once_with_what_the_body_kept(file: str) -> None:
    """It certainly runs no more, so nothing has to be waited for."""
    async with app:
        assert await (await app.submit(bodies.crash_once, file)) == 5


@on_one_python
async def test_a_task_whose_processes_keep_dying_is_parked(file: str) -> None:
    """Its retries stay stored and are claimed here no more; others go on."""
    async with app:
        job = await app.submit(bodies.crash_always, file)
        await until(lambda: len(notes(file)) == 3)
        await until(lambda: job.state is JobState.SUBMITTED)
        assert await (await app.submit(bodies.pid)) in pool.pids
        why = await app.why_waiting(job)
        assert why.kind == "task_parked"
        assert "exit code 3, exit code 3, exit code 3" in why.words
        assert len(notes(file)) == 3
        await job.cancel()


@on_one_python
async def test_the_last_word_about_progress_arrives_and_not_each() -> None:
    """A body that tells it in a tight loop does not drown the app."""
    told: list[Any] = []
    async with app:
        events = app.events()
        job = await app.submit(bodies.tell, 10_000)
        assert await job is False
        events.close()
        told = [event async for event in events if getattr(event, "kind", "") == "progress"]
    assert job.progress is not None
    assert (job.progress.done, job.progress.text) == (10_000, "telling")
    assert 1 <= len(told) < 50


@on_one_python
async def test_every_body_may_have_a_process_of_its_own() -> None:
    """`max_jobs=1`: nothing that one leaves behind is there for the next."""
    async with bodies.other:
        pids = [await (await bodies.other.submit(bodies.fresh_pid)) for _ in range(4)]
        assert len(set(pids)) == 4
        await until(lambda: not any(is_alive(pid) for pid in pids))


@on_one_python
async def test_a_child_that_has_grown_is_replaced_by_one_that_is_ready() -> None:
    """`max_rss=`: the old one serves until then."""
    async with bodies.other:
        first = await (await bodies.other.submit(bodies.small_pid))
        await until(lambda: first not in bodies.small.pids)
        assert await (await bodies.other.submit(bodies.small_pid)) != first


@on_one_python
async def test_a_stop_ends_what_runs_and_leaves_nothing(file: str) -> None:
    """A body that ignores everything is killed: the app's end does not depend on it."""
    app.shutdown_grace_s = 0.0
    try:
        async with app:
            job = await app.submit(bodies.in_c, file)
            await until(lambda: notes(file))
    finally:
        app.shutdown_grace_s = 2.0
    assert job.state is JobState.CANCELLED
    assert not is_alive(int(notes(file)[0]))


async def test_an_app_that_no_other_process_could_find_is_told_at_its_start() -> None:
    """Not by the first job, at night."""
    hidden = Quarterjack()

    @hidden.task(executor="process")
    def body() -> None: ...

    with pytest.raises(UsageError, match="top level of a file"):
        async with hidden:
            pass


@on_one_python
async def test_a_job_alone_may_ask_for_a_process() -> None:
    """`options(executor="process")` brings the app's own pool to life."""
    async with app:
        assert await (await app.submit(bodies.pid.options(executor="process"))) not in {os.getpid(), *pool.pids}


@on_one_python
async def test_a_thousand_jobs_leave_no_descriptor_and_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins and ends once, and afterwards all is as it was: children, and who started them, are gone."""
    monkeypatch.setenv("QJ_TEST_THOUSAND", "1")

    def held() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    before = held()
    async with app:
        jobs = [await app.submit(bodies.pid) for _ in range(1_000)]
        assert {await job for job in jobs} <= pool.pids
        assert all(job.attempt == 1 for job in jobs)
        assert pool.pids < set(heirs_of("QJ_TEST_THOUSAND"))
    assert held() <= before
    await until(lambda: heirs_of("QJ_TEST_THOUSAND") == [])


@on_one_python
async def test_a_child_that_died_idle_costs_no_body_an_attempt() -> None:
    """The app has not heard of it yet: a body that never began is given to another child."""
    async with app:
        pid = await (await app.submit(bodies.pid))
        await until(lambda: len(pool.pids) == 2)
        for child in pool.pids:
            os.kill(child, signal.SIGKILL)
        job = await app.submit(bodies.pid)
        assert await job != pid
        assert job.attempt == 1


@on_one_python
async def test_a_start_that_was_to_be_tried_again_does_not_hold_up_the_next_app(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pause after a failed start ends with the app that made it."""
    monkeypatch.setattr(_crew, "AGAIN_S", 60.0)
    async with app:
        await until(lambda: pool.pids)
        for child in pool.pids:  # they load the app, and are not ready
            os.kill(child, signal.SIGKILL)
        crew = pool._crew
        assert crew is not None
        await until(lambda: crew._pause is not None)
    async with app:
        assert await (await app.submit(bodies.pid))


@on_one_python
async def test_text_that_no_json_holds_ends_no_process() -> None:
    """The name of a file may hold half a surrogate pair, and stands in many an error."""
    async with app:
        job = await app.submit(bodies.half_a_pair, raises=False)
        assert await job == "done"
        assert job.progress is not None
        with pytest.raises(JobFailed, match=r"ValueError: half \\udcff"):
            await (await app.submit(bodies.half_a_pair, raises=True))


@on_one_python
async def test_what_a_body_left_behind_does_not_speak_for_the_next_one(file: str) -> None:
    """The child works for another job by then, whose next attempt would begin from a checkpoint of the first."""
    async with app:
        first = await app.submit(bodies.leaves_a_thread, file)
        pid = await first
        jobs = [await app.submit(bodies.hears_it, file) for _ in range(2)]  # one of them in that child
        assert pid in [await job for job in jobs]
        assert [job.progress for job in jobs] == [None, None]


@on_one_python
async def test_a_result_whose_type_refuses_it_here_is_an_error_and_no_death() -> None:
    """The body has run; to say that its process died would have it run again."""
    async with app:
        with pytest.raises(JobFailed, match="another process wrote this"):
            await (await app.submit(bodies.picky))
        assert await (await app.submit(bodies.echo, "goes on")) == "goes on"


@on_one_python
async def test_an_app_may_stop_before_its_children_have_begun() -> None:
    """A start that is undone leaves nothing behind, and waits for nothing."""
    began = asyncio.get_running_loop().time()
    async with app:
        pass
    assert asyncio.get_running_loop().time() - began < 30  # a start and an end, on a busy machine
    assert pool.pids == frozenset()
