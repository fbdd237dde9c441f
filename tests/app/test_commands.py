"""Commands of the operating system as jobs: their output, their end, and what they leave behind."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quarterjack import (
    Command,
    Every,
    InvalidOption,
    Job,
    JobCancelled,
    JobFailed,
    JobState,
    JobTimedOut,
    LoopThread,
    Quarterjack,
    ThreadExecutor,
)
from quarterjack._timerfd import PORTABLE
from quarterjack.cli.jobs import why
from quarterjack.cli.show import lines
from quarterjack.errors import CommandFailed
from quarterjack.executors import CommandExecutor
from quarterjack.executors._leash import has_leash
from quarterjack.executors._output import KEPT, Output
from tests.real_time import LONG_S, heirs_of, is_alive, until

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Failures are meant here."""
    caplog.set_level(logging.CRITICAL, "quarterjack")


@pytest.fixture(params=["leash", "portable"])
def app(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Quarterjack:
    """With what only Linux has, and without."""
    if request.param == "portable":
        monkeypatch.setenv(PORTABLE, "1")
    return Quarterjack(shutdown_grace=1)


async def run(app: Quarterjack, words: list[str] | str, **options: Any) -> Job[Command]:
    """Run a command to its end, whatever that is."""
    given: dict[str, Any] = {"shell": isinstance(words, str), "cancel_grace": 0.3, **options}
    task = app.command("it", words, **given)
    async with app:
        job = await app.submit(task)
        await ended(job)
    return job


async def ended(job: Job[Any]) -> None:
    try:
        async with asyncio.timeout(LONG_S):
            await job
    except (JobFailed, JobTimedOut, JobCancelled):
        pass


async def test_a_command_is_a_job_with_its_output(app: Quarterjack) -> None:
    """Both streams in their order; a job's arguments are further words, and nothing reads them but the program."""
    program = "import sys; print(sys.argv[1], flush=True); print('beside', file=sys.stderr)"
    task = app.command("say", [sys.executable, "-c", program])
    async with app:
        result = await (await app.submit(task, "$HOME; rm -rf x"))
    assert (result.code, result.output) == (0, "$HOME; rm -rf x\nbeside\n")
    assert result.size == len(result.output)
    assert task("a").words[-1] == "a"  # calling it runs nothing


async def test_a_body_may_say_what_to_run(app: Quarterjack) -> None:
    """The words follow from the job's arguments, coroutine functions may look something up first."""

    @app.task(executor="command")
    def greet(name: str) -> Command:
        return Command(["echo", "hello", name], env={"SECRET": "x"})

    @app.task(executor="command")
    async def greet_later(name: str) -> list[str]:
        await asyncio.sleep(0)
        return ["echo", "hello", name]

    @app.task(executor="command")
    def wrong() -> str:
        return "echo hello"

    async with app:
        result = await (await app.submit(greet, "Ada"))
        assert (result.output, result.env) == ("hello Ada\n", None)
        later: Any = await (await app.submit(greet_later, "Bob"))
        assert later.output == "hello Bob\n"
        with pytest.raises(JobFailed, match="says what to run"):
            await (await app.submit(wrong))


async def test_an_exit_code_that_means_failure_is_one_with_the_output_as_its_traceback(app: Quarterjack) -> None:
    """Whoever looks at the job sees what the program said."""
    job = await run(app, "echo so far; exit 3", retry=2)
    assert (job.state, job.attempt) == (JobState.FAILED, 2)
    assert job.error is not None
    assert (job.error.type_name, job.error.traceback_text) == ("CommandFailed", "so far\n")
    assert isinstance(job.error.exception, CommandFailed)
    assert job.error.exception.code == 3
    other = await run(Quarterjack(), "exit 3", ok_codes=(0, 3))
    assert other.state is JobState.DONE
    killed = await run(Quarterjack(), "kill -9 $$")
    assert killed.reason == "CommandFailed: kill -9 $$ ended by SIGKILL"
    odd = await run(Quarterjack(), "exit 0", ok_codes=(3,))
    assert odd.reason == "CommandFailed: exit 0 ended with exit code 0, which is not among its ok_codes"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"words": ["no-such-program"]}, "there is no such program"),
        ({"words": ["echo", "x" * 3_000_000]}, "longer than the system takes"),
        ({"words": ["echo"], "cwd": "/no/such/folder"}, "no folder"),
        ({"words": ["echo"], "env": {"A": "\ud800"}}, "surrogates not allowed"),
        ({"words": [__file__]}, "Permission denied"),
    ],
)
async def test_what_cannot_be_started_is_told_and_not_tried_again(options: Any, why: str) -> None:
    """It would be the same each time."""
    job = await run(Quarterjack(), retry=5, **options)
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert why in (job.reason or "")


async def test_a_held_pipe_holds_nothing_up(app: Quarterjack) -> None:
    """A daemon that a command starts keeps its output open; the command is over all the same."""
    job = await run(app, "sleep 60 & echo $!")
    pid = int((await job).output)
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)


async def test_a_cancel_ends_all_that_a_command_has_started(app: Quarterjack, tmp_path: Path) -> None:
    """Grandchildren too, also those that ignore SIGTERM."""
    file = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $! >> {file}; (sleep 60; echo) & echo $! $$ >> {file}; wait; sleep 60"
    task = app.command("it", script, shell=True, cancel_grace=0.2)
    async with app:
        job = await app.submit(task)
        await until(lambda: file.exists() and len(file.read_text(encoding="ascii").split()) == 3)
        assert await job.cancel(wait=LONG_S)
        pids = [int(word) for word in file.read_text(encoding="ascii").split()]
        await until(lambda: not any(map(is_alive, pids)))


async def test_a_timeout_keeps_what_was_written(app: Quarterjack) -> None:
    """The last lines before it got stuck are what one looks for."""
    job = await run(app, "echo at work; sleep 60", timeout=0.3)
    assert job.state is JobState.TIMED_OUT
    assert job.error is not None
    assert job.error.traceback_text == "at work\n"


async def test_lines_of_progress_are_progress(app: Quarterjack) -> None:
    """And no output."""
    job = await run(app, "echo begin; echo '::qj progress 1 2 half the tables'; echo '::qj progress x'; printf '::qj'")
    assert job.progress is not None
    assert job.progress == (1.0, 2.0, "half the tables")
    result = await job
    assert (result.output, result.size) == ("begin\n::qj progress x\n::qj", len(result.output))


@pytest.mark.slow
async def test_commands_leave_no_descriptor_and_no_process(app: Quarterjack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many that end, fail, and are ended with what they started."""
    monkeypatch.setenv("QJ_TEST_COMMANDS", "1")
    quick = app.command("quick", ["true"])
    wrong = app.command("wrong", "echo no; exit 3", shell=True)
    stuck = app.command("stuck", "sleep 60 & sleep 60", shell=True, cancel_grace=0.3)

    def held() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    before = held()
    async with app:
        waits = [await app.submit(stuck) for _ in range(3)]
        jobs = [await app.submit(task) for task in (quick, wrong) for _ in range(100)]
        for job in jobs:
            await ended(job)
        await until(lambda: len(heirs_of("QJ_TEST_COMMANDS")) >= 6)
        for job in waits:
            assert await job.cancel(wait=LONG_S)
    assert held() <= before
    await until(lambda: heirs_of("QJ_TEST_COMMANDS") == [])


@pytest.mark.slow
async def test_a_hundred_megabytes_of_output_are_counted_and_not_kept(app: Quarterjack) -> None:
    """The first and the last of them are."""
    job = await run(app, "echo first; head -c 100000000 /dev/zero | tr '\\0' x; echo last")
    result = await job
    assert result.size == 100_000_011
    assert result.output.startswith("first\nxxx")
    assert result.output.endswith("xxxlast\n")
    assert "bytes left out" in result.output
    assert len(result.output) < 2 * KEPT + 100


def test_output_in_any_pieces_is_the_same() -> None:
    """A pipe cuts where it likes."""
    text = b"one\n::qj progress 3 - words here\ntwo \xff\x00\n" * 50 + b"::qj progress 9"
    whole: list[str] = []
    for step in (1, 3, 7, 64, len(text)):
        said: list[Any] = []
        output = Output(lambda *words, said=said: said.append(words))
        for at in range(0, len(text), step):
            output.feed(text[at : at + step])
        whole.append(output.text())
        assert said == [(3.0, None, "words here")] * 50
        assert output.size == len(text) - 50 * len(b"::qj progress 3 - words here\n")
    assert whole == ["one\ntwo \ufffd\ufffd\n" * 50 + "::qj progress 9"] * 5


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("step", [1, 2, 5, 14, 15, 1000])
def test_progress_is_told_whatever_ends_its_line_and_wherever_the_pipe_cuts_it(end: bytes, step: int) -> None:
    """The bug: after a bare carriage return a line whose marker the pipe had cut was taken for output."""
    said: list[Any] = []
    output = Output(lambda *words: said.append(words))
    text = end.join([b"1 %", b"::qj progress 1 2.5 x", b"2 %", b"::qj progress 2", b"::qj progress 3", b"over", b""])
    for at in range(0, len(text), step):
        output.feed(text[at : at + step])
    assert said == [(1, 2.5, "x"), (2, None, ""), (3, None, "")]
    assert [type(one[0]) for one in said] == [int] * 3  # as of a body that counts
    assert output.text() == end.join([b"1 %", b"2 %", b"over", b""]).decode()


@pytest.mark.parametrize("figures", [b"nan", b"inf 3", b"1 nan", b"-inf", b"1e999", b"1 " + b"9" * 400])
def test_what_is_no_finite_number_is_output_like_any_other(figures: bytes) -> None:
    """No store and no page could show it as progress."""
    said: list[Any] = []
    output = Output(lambda *words: said.append(words))
    output.feed(b"::qj progress " + figures + b"\n")
    assert (said, output.text()) == ([], f"::qj progress {figures.decode()}\n")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("echo hi", {}),
        (["echo"], {"shell": True}),
        ([], {}),
        ([1], {}),
        (["a\0b"], {}),
        ("a\0b", {"shell": True}),
        (["x"], {"cwd": "/a\0b"}),
        (["x"], {"env": {"A": "a\0b"}}),
        (["x"], {"env": {"A": 1}}),
        (["x"], {"env": {"A=B": "1"}}),
        (["x"], {"env": {1: "1"}}),
        (["x"], {"env": "A=1"}),
        (["x"], {"cwd": 3}),
        (["x"], {"cwd": b"/tmp"}),
        (["x"], {"ok_codes": "0"}),
        (["x"], {"ok_codes": 300}),
        (["x"], {"ok_codes": (0, -65)}),
        (["x"], {"ok_codes": (True,)}),
        (["x"], {"ok_codes": ()}),
    ],
)
def test_what_no_program_takes_is_refused_where_it_is_written(words: Any, options: Any) -> None:
    """A text goes to a shell only if that is written; a code that no program ends with would fail every run."""
    with pytest.raises(InvalidOption):
        Quarterjack().command("it", words, **options)


@pytest.mark.parametrize("executor", ["loop", "thread", "process", ThreadExecutor(1)])
def test_a_command_goes_to_no_place_that_would_not_run_it(executor: Any) -> None:
    """Its body only says what to run: a backup would be done, with nothing saved."""
    app = Quarterjack()
    with pytest.raises(InvalidOption, match="nothing would be run"):
        app.command("it", ["true"], executor=executor)
    own = CommandExecutor(1)
    for task in (app.command("a", ["true"]), app.command("b", ["true"], executor=own)):
        with pytest.raises(InvalidOption, match="runs a command"):
            task.options(executor=executor)
        with pytest.raises(InvalidOption, match="runs a command"):
            task.bind().options(executor=executor)
        assert task.options(executor=own).run_options.executor is own
    assert app.command("c", ["true"], executor=None).run_options.executor == "command"


async def test_a_schedule_of_a_command_is_not_sent_elsewhere() -> None:
    """Its options can be changed at any time, long after the command was written."""
    app = Quarterjack()
    task = app.command("it", ["true"])
    async with app:
        with pytest.raises(InvalidOption, match="runs a command"):
            await app.schedule(task.bind(), Every(hours=1), executor="thread")
        await app.schedule(task.bind(), Every(hours=1))
        with pytest.raises(InvalidOption, match="runs a command"):
            await app.update_schedule("it", executor="thread")


@pytest.mark.parametrize("executor", ["loop", "thread", LoopThread("aside")])
async def test_a_command_that_a_body_returns_elsewhere_is_an_error(executor: Any) -> None:
    """It was not run, and trying again would not run it; one that has been run is a result like any other."""
    app = Quarterjack()

    @app.task(executor=executor, retry=3)
    def plan() -> Command:
        return Command(["echo", "hi"])

    ran = app.command("ran", ["echo", "hi"])

    @app.task
    async def passes_on() -> Command:
        return await (await app.submit(ran))

    async with app:
        job = await app.submit(plan)
        with pytest.raises(JobFailed, match="nothing has run that"):
            await job
        assert (job.state, job.attempt) == (JobState.FAILED, 1)
        assert (await (await app.submit(passes_on))).output == "hi\n"


async def test_a_word_that_is_no_text_is_named() -> None:
    """The words of a job stand behind those of its task: which of them is meant?"""
    app = Quarterjack()
    task = app.command("ls", ["ls", "-l"])
    async with app:
        with pytest.raises(JobFailed, match=r"3 in .*3.* is of type int"):
            await (await app.submit(task, 3))


async def test_a_program_that_is_not_there_is_told_without_our_lines(caplog: pytest.LogCaptureFixture) -> None:
    """The sentence says it all; the way through subprocess says nothing."""
    caplog.set_level(logging.ERROR, "quarterjack")
    job = await run(Quarterjack(), ["no-such-program"])
    assert "there is no such program" in caplog.text
    assert "Traceback" not in caplog.text
    assert "subprocess" not in caplog.text
    assert job.error is not None
    assert "Traceback" not in (job.error.traceback_text or "")


async def test_the_output_is_in_the_row_and_shown(tmp_path: Path) -> None:
    """Also to somebody who looks from another process, later."""
    url = f"sqlite:///{tmp_path}/jobs.db"

    def made() -> tuple[Quarterjack, Any]:
        app = Quarterjack(url)
        return app, app.command("say", ["echo", "kept"], env={"TOKEN": "secret"})

    app, task = made()
    async with app:
        job = await app.submit(task)
        await job
    app, _ = made()
    async with app.as_client():
        again = await app.job(job.id)
        told = dict(lines(again, None, None))
    assert told["command"] == "echo kept"
    assert (told["exit code"], told["output"]) == ("0", "5 bytes\nkept")
    assert b"secret" not in (tmp_path / "jobs.db").read_bytes()


async def test_a_body_gets_its_command_back_from_a_file_whatever_its_hint_says(tmp_path: Path) -> None:
    """The bug: of one that returns a list of words, or has no hint, a store on disk gave back a dict."""
    app = Quarterjack(f"sqlite:///{tmp_path}/jobs.db")

    @app.task(executor="command")
    def listed() -> list[str]:
        return ["echo", "kept"]

    @app.task(executor="command")
    def bare():  # type: ignore[no-untyped-def]  # noqa: ANN202  # that is what it is about
        return ["echo", "kept"]

    tasks: list[Any] = [listed, bare]
    async with app:
        for task in tasks:
            result: Any = await (await app.submit(task))
            assert (type(result), result.output) == (Command, "kept\n")


async def test_what_ended_a_command_is_told_apart_from_what_it_wrote(app: Quarterjack) -> None:
    """The bug: of one that timed out its output stood under the word error, and the reason nowhere in a list."""
    job = await run(app, "echo start; sleep 60", timeout=0.4)
    told = dict(lines(job, None, None))
    assert (told["error"], told["output"]) == ("ran longer than its timeout of 0.4 s", "start")
    assert why(job) == "ran longer than its timeout of 0.4 s"


@pytest.mark.slow
@pytest.mark.skipif(not has_leash(), reason="the leash is Linux's")
def test_a_command_ends_with_an_app_that_is_killed(tmp_path: Path) -> None:
    """Its job runs again elsewhere: two dumps at once would be one too many."""
    script = tmp_path / "program.py"
    words = f"echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; sleep 60"
    script.write_text(
        "import asyncio\nfrom quarterjack import Once, Quarterjack\napp = Quarterjack()\n"
        f"app.command('it', {words!r}, Once(), shell=True)\n"
        "asyncio.run(app.serve())\n",
        encoding="utf-8",
    )
    with subprocess.Popen([sys.executable, str(script)]) as process:
        while not (tmp_path / "pid").exists():
            assert process.poll() is None
            select.select([], [], [], 0.02)
        watch = os.pidfd_open(int((tmp_path / "pid").read_text(encoding="ascii")))
        process.kill()
        assert select.select([watch], [], [], 30.0)[0]
        os.close(watch)


async def test_a_command_that_python_cannot_even_start_is_told(app: Quarterjack) -> None:
    """Whatever is wrong with its settings ends the job; nobody waits for a thread that has died."""

    @app.task(executor="command")
    def odd() -> Command:
        return Command(["true"], env={"HALF": "\ud800"})

    async with app:
        with pytest.raises(JobFailed, match="cannot be started"):
            await (await app.submit(odd))
