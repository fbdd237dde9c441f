"""``qj run`` as a supervisor sees it: signals, exit codes, log lines."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from quarterjack import Quarterjack
from quarterjack.cli._serving import part_of
from quarterjack.runtime.service import Role

Start = Callable[..., "subprocess.Popen[str]"]

SLOW = """
import asyncio
from quarterjack import Once, OnShutdown, Quarterjack

app = Quarterjack(shutdown_grace=20)

@app.task(Once())
async def slow() -> None:
    print("begun", flush=True)
    await asyncio.sleep({seconds})
    print("finished", flush=True)

@app.task(OnShutdown())
def down() -> None:
    print("down", flush=True)
"""


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"the command ended without {word!r}: {process.communicate()}")


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_drains_and_is_a_success(folder: Path, qj_process: Start, number: signal.Signals) -> None:
    """A supervisor that stops a server must not read a failure into it, and no run may be torn."""
    write(folder, "slow", SLOW.format(seconds=0.5))
    process = qj_process("run", "slow")
    read_until(process, "begun")
    process.send_signal(number)
    code, out, err = end(process)
    assert (code, out) == (0, "finished\ndown\n"), err
    assert f"{number.name}: draining" in err
    assert err.rstrip().endswith("stopped: 1 done")


@pytest.mark.parametrize(("second", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_means_now(folder: Path, qj_process: Start, second: signal.Signals, expected: int) -> None:
    """Who asks twice does not want to wait; shutdown hooks run all the same."""
    write(folder, "slow", SLOW.format(seconds=60))
    process = qj_process("run", "slow")
    read_until(process, "begun")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "SIGINT: draining" not in process.stderr.readline():
        pass
    process.send_signal(second)
    code, out, err = end(process)
    assert (code, out) == (expected, "down\n"), err
    assert "1 cancelled" in err


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_start_undoes_it(
    folder: Path, qj_process: Start, number: signal.Signals, expected: int
) -> None:
    """An app that never ran has not succeeded, and what its lifespan opened is closed."""
    write(
        folder,
        "starting",
        "import asyncio\nfrom contextlib import asynccontextmanager\n"
        "from quarterjack import OnStartup, Once, Quarterjack\n"
        "@asynccontextmanager\nasync def lifespan(app):\n"
        "    try:\n        yield\n    finally:\n        print('closed', flush=True)\n"
        "app = Quarterjack(lifespan=lifespan)\n"
        "@app.task(OnStartup())\nasync def up():\n    print('starting', flush=True)\n    await asyncio.sleep(60)\n"
        "@app.task(Once())\nasync def once():\n    print('ran', flush=True)\n",
    )
    process = qj_process("run", "starting")
    read_until(process, "starting")
    process.send_signal(number)
    code, out, err = end(process)
    assert (code, out) == (expected, "closed\n"), err
    assert "Traceback" not in err


def test_an_interrupted_import_is_interrupted(folder: Path, qj_process: Start) -> None:
    """Ctrl-C while a slow module loads gives no traceback of ours."""
    write(folder, "heavy", "import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    process = qj_process("run", "heavy")
    read_until(process, "loading")
    process.send_signal(signal.SIGINT)
    code, _, err = end(process)
    assert code == 130
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("@app.task(OnStartup())\ndef up(): raise OSError('port taken')\n", "did not start"),
        ("@app.task(OnShutdown())\ndef down(): raise OSError('port taken')\n", "has stopped"),
    ],
)
def test_a_failing_hook_is_exit_code_1(folder: Path, qj_process: Start, body: str, where: str) -> None:
    """The process has to look failed to whoever started it, with the hook's own traceback."""
    write(
        folder,
        "hooks",
        "from quarterjack import OnShutdown, OnStartup, Quarterjack\napp = Quarterjack()\n" + body,
    )
    code, _, err = end(qj_process("run", "hooks", "--until-idle"))
    assert code == 1
    assert err.count("OSError: port taken") == 2  # in the traceback and in the last sentence
    assert where in err
    assert "sub-exception" not in err
    assert err.splitlines()[-1] == "Try:   qj run hooks:app, once that is mended"


def test_until_idle_ends_when_nothing_is_left(folder: Path, qj_process: Start) -> None:
    """A batch in a file: jobs that submit jobs, a delayed one, and then the end."""
    write(
        folder,
        "batch",
        "from quarterjack import Once, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Once())\nasync def first():\n    await app.submit(second.options(delay=0.3), 2)\n"
        "@app.task\nasync def second(n):\n"
        "    print('second', n, flush=True)\n    if n: await app.submit(second, n - 1)\n",
    )
    code, out, err = end(qj_process("run", "batch", "--until-idle"))
    assert (code, out) == (0, "second 2\nsecond 1\nsecond 0\n"), err
    assert err.rstrip().endswith("stopped: 4 done")


def test_until_idle_fails_if_a_job_did(folder: Path, qj_process: Start) -> None:
    """In a pipeline the exit code is all there is to go by; an attempt that is retried is no failure."""
    text = (
        "from quarterjack import Once, Quarterjack, RetryLater, current_job\napp = Quarterjack()\n"
        "@app.task(Once(), retry=2)\nasync def job():\n"
        "    if {condition}: raise RetryLater(after=0.05)\n"
    )
    write(folder, "recovers", text.format(condition="current_job().attempt == 1"))
    write(folder, "fails", text.format(condition="True"))
    assert end(qj_process("run", "recovers", "--until-idle"))[0] == 0
    code, _, err = end(qj_process("run", "fails", "--until-idle"))
    assert code == 1
    assert err.rstrip().endswith("stopped: 1 failed")


def test_until_idle_that_is_interrupted_has_not_succeeded(folder: Path, qj_process: Start) -> None:
    """The work was not all done, although the app drained."""
    write(
        folder,
        "waits",
        "from quarterjack import Every, Once, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Once())\nasync def once(): print('begun', flush=True)\n"
        "@app.task(Every(hours=1))\nasync def hourly(): ...\n",
    )
    process = qj_process("run", "waits", "--until-idle")
    read_until(process, "begun")
    with pytest.raises(subprocess.TimeoutExpired):  # it looked in the meantime, and there is a fire to come
        process.wait(0.4)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 143


def test_json_logs_are_an_object_a_line_with_the_jobs_fields(folder: Path, qj_process: Start) -> None:
    """A collector reads every line, the traceback of a failed job included."""
    write(
        folder,
        "logs",
        "import logging\nfrom quarterjack import Once, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Once())\nasync def job():\n"
        "    logging.getLogger('mine').info('hello')\n    raise ValueError('bad')\n",
    )
    _, _, err = end(qj_process("run", "logs", "--until-idle", "--log-format", "json"))
    lines = [json.loads(line) for line in err.splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(line) for line in lines))
    moves = {line["event"]: line for line in lines if line["logger"] == "quarterjack.moves"}
    assert set(moves) == {"job.running", "job.failed"}
    assert moves["job.running"]["lag_s"] >= 0
    assert moves["job.failed"]["reason"] == "ValueError: bad"
    assert any(line["logger"] == "mine" and line["message"] == "hello" for line in lines)
    assert any("ValueError: bad" in line.get("traceback", "") for line in lines)


def test_the_log_level_decides_how_much_is_told(folder: Path, qj_process: Start) -> None:
    """At debug every move is told, at warning trouble alone."""
    write(
        folder,
        "calm",
        "from quarterjack import Once, Quarterjack\napp = Quarterjack()\n@app.task(Once())\nasync def job(): ...\n",
    )
    loud = end(qj_process("run", "calm", "--until-idle", "--log-level", "debug"))[2]
    for words in ("schedule job put", "schedule job fired", "job ", " running", " done"):
        assert words in loud
    assert end(qj_process("run", "calm", "--until-idle", "--log-level", "warning"))[2] == ""


def test_logging_that_the_module_set_up_is_left_alone(folder: Path, qj_process: Start) -> None:
    """Their format is theirs; our lines only join in."""
    write(
        folder,
        "own",
        "import logging\nfrom quarterjack import Once, Quarterjack\napp = Quarterjack()\n"
        "logging.basicConfig(format='OWN %(message)s', level='INFO')\n"
        "@app.task(Once())\nasync def job(): ...\n",
    )
    lines = end(qj_process("run", "own", "--until-idle"))[2].splitlines()
    assert lines
    assert all(line.startswith("OWN ") for line in lines)


@pytest.mark.parametrize(("ending", "expected"), [("SystemExit(7)", 7), ("KeyboardInterrupt", 130)])
def test_a_body_can_end_the_app(folder: Path, qj_process: Start, ending: str, expected: int) -> None:
    """sys.exit in a job ends the process with its code, after an orderly shutdown."""
    write(
        folder,
        "leaves",
        "from quarterjack import Once, OnShutdown, Quarterjack\napp = Quarterjack()\n"
        f"@app.task(Once())\nasync def job(): raise {ending}\n"
        "@app.task(OnShutdown())\nasync def down(): print('down', flush=True)\n",
    )
    code, out, err = end(qj_process("run", "leaves"))
    assert (code, out) == (expected, "down\n"), err


def test_two_schedules_of_one_name_are_told_without_a_traceback(folder: Path, qj_process: Start) -> None:
    """A mistake in the app is told in one sentence."""
    write(
        folder,
        "twice",
        "from quarterjack import Every, Group, Quarterjack\napp = Quarterjack()\ng = Group('g')\n"
        "@app.task(Every(hours=1), id='same')\nasync def a(): ...\n"
        "@g.task(Every(hours=1), id='same')\nasync def b(): ...\napp.include_group(g)\n",
    )
    code, _, err = end(qj_process("run", "twice"))
    assert code == 1
    assert "two schedules have the id 'same'" in err
    assert "Traceback" not in err


STUBBORN = """
import asyncio
from quarterjack import Once, OnShutdown, Quarterjack

app = Quarterjack(shutdown_grace=20)

@app.task(Once())
async def stubborn() -> None:
    print("begun", flush=True)
    while True:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            pass

@app.task(OnShutdown())
def down() -> None:
    print("down", end="")
    {down}
"""


@pytest.mark.parametrize(
    ("down", "expected"), [("pass", 130), ("raise OSError('port taken')", 1), ("raise SystemExit(7)", 7)]
)
def test_a_body_that_swallows_its_cancellation_is_left_behind(
    folder: Path, qj_process: Start, down: str, expected: int
) -> None:
    """Twice stops now, as the first line says; who is in the way is named, and what was written is not lost."""
    write(folder, "stubborn", STUBBORN.format(down=down))
    process = qj_process("run", "stubborn", PYTHONUNBUFFERED="")
    read_until(process, "begun")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "SIGINT: draining" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=40)
    assert (process.returncode, out) == (expected, "down"), err
    assert "(stubborn, stubborn.py:12) was told to end and does not" in err
    assert "Traceback" not in err or expected == 1


def test_a_thread_that_does_not_end_is_left_behind(folder: Path, qj_process: Start) -> None:
    """Python itself would wait for asyncio.to_thread at its exit, and Ctrl-C cannot reach a thread."""
    write(
        folder,
        "threads",
        "import asyncio, time\nfrom quarterjack import Once, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Once())\nasync def job():\n    print('begun', flush=True)\n"
        "    await asyncio.to_thread(time.sleep, 60)\n",
    )
    process = qj_process("run", "threads")
    read_until(process, "begun")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "SIGINT: draining" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=40)
    assert process.returncode == 130, err
    assert "a thread of asyncio.to_thread was told to end and does not" in err


def test_a_task_that_outlives_the_app_has_a_moment_to_end(folder: Path, qj_process: Start) -> None:
    """What asyncio.run cancels may clean up here as there; with nothing left the process ends as any other."""
    write(
        folder,
        "beside",
        "import asyncio, atexit\nfrom quarterjack import Once, Quarterjack\napp = Quarterjack()\n"
        "atexit.register(print, 'exit')\n"
        "async def watch():\n    try:\n        await asyncio.sleep(60)\n    finally:\n"
        "        await asyncio.sleep(0.1)\n        print('cleaned')\n"
        "@app.task(Once())\nasync def job():\n"
        "    job.task = asyncio.create_task(watch())\n    await asyncio.sleep(0)\n",
    )
    code, out, err = end(qj_process("run", "beside", "--until-idle"))
    assert (code, out) == (0, "cleaned\nexit\n"), err


def test_a_reason_of_many_lines_stays_in_its_line(folder: Path, qj_process: Start) -> None:
    """Who greps the moves gets each one whole; the full text is in the traceback."""
    write(
        folder,
        "wordy",
        "from quarterjack import Once, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Once())\nasync def job(): raise ValueError('first line\\nsecond line')\n",
    )
    _, _, err = end(qj_process("run", "wordy", "--until-idle"))
    moves = [line for line in err.splitlines() if " failed, after" in line]
    assert [line.partition("ValueError: ")[2] for line in moves] == ["first line …"]
    assert "\nsecond line\n" in err


def test_what_was_cancelled_is_not_told_to_be_so_twice(folder: Path, qj_process: Start) -> None:
    """The reason stands at the end of a line where it adds to what happened."""
    write(
        folder,
        "called_off",
        "import asyncio\nfrom quarterjack import Once, Quarterjack\napp = Quarterjack()\n"
        "@app.task\nasync def sleeper(): await asyncio.sleep(60)\n"
        "@app.task(Once())\nasync def job():\n    other = await app.submit(sleeper)\n"
        "    await asyncio.sleep(0.05)\n    await other.cancel()\n",
    )
    _, _, err = end(qj_process("run", "called_off", "--until-idle"))
    (line,) = (line for line in err.splitlines() if "sleeper" in line and " cancelled" in line)
    assert line.count("cancelled") == 1
    assert re.search(r"sleeper \S+ cancelled by request, after \d", line)


@pytest.mark.parametrize(
    ("role", "queues", "words"),
    [
        ("both", None, ""),
        ("worker", ["mails", "far"], " as a worker for queue mails, far"),
        ("scheduler", ["mails"], " as a scheduler"),
        ("both", ["mails"], " for queue mails"),
    ],
)
def test_part_of_the_work_that_a_process_takes_is_in_its_first_line(
    role: Role, queues: list[str] | None, words: str
) -> None:
    """The bug: a worker of one queue began as any other, and its log did not say why it left the rest alone."""
    assert part_of(Quarterjack("sqlite:///never.db", role=role, queues=queues)) == words
