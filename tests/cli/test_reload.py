"""``qj run --reload`` with real processes: edits, broken edits, signals, and who is left at the end."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import Result

from quarterjack.cli._target import folders
from tests.cli.kit import command, environment

watchfiles = pytest.importorskip("watchfiles")
pytestmark = pytest.mark.slow  # each test starts programs and edits them

APP = """
import asyncio, os, signal, time
from quarterjack import Every, Once, OnShutdown, Quarterjack

app = Quarterjack(shutdown_grace=20)

@app.task(Once())
async def first() -> None:
    print("pid", os.getpid(), flush=True)
    print("begun", {version}, flush=True)
    {body}
    print("finished", flush=True)

@app.task(Every(hours=1))
async def hourly() -> None: ...

@app.task(OnShutdown())
def down() -> None:
    print("down", flush=True)
"""


class Reloading:
    """A ``qj run --reload`` in a session of its own, and what it has written so far."""

    def __init__(self, folder: Path, words: tuple[str, ...], terminal: int | None, more: dict[str, str]) -> None:
        self.written: list[str] = []
        self._controlled = terminal is not None
        self.process = subprocess.Popen(
            # On a terminal setsid(1) makes it the controlling one, so that Ctrl-C is a signal to all in front of it.
            [*(["setsid", "--ctty", "--wait"] if self._controlled else []), *command("run", *words, "--reload")],
            cwd=folder,
            # Two edits of one second and one length look the same to the cache of compiled modules.
            env=environment(PYTHONDONTWRITEBYTECODE="1", **more),
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.pids = [self.process.pid]

    def until(self, words: str) -> str:
        """Read on until a line holds *words*; return that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.written.append(line)
            if line.startswith("pid "):
                self.pids.append(int(line.split()[1]))
            if words in line:
                return line
        raise AssertionError(f"it ended without {words!r}: {''.join(self.written)}")

    def end(self) -> int:
        """Wait for the end, of every process that it started; return the exit code."""
        assert self.process.stdout is not None
        self.written += self.process.stdout.readlines()  # until nobody can write any more
        code = self.process.wait(30)
        for pid in self.pids:
            wait_until_gone(pid)
        return code

    @property
    def text(self) -> str:
        return "".join(self.written)

    def kill(self) -> None:
        """End every process of it, those of its terminal's session included; else reading its output never ends."""
        for pid in {*self.pids, *descendants(self.process.pid)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=20)


def descendants(pid: int) -> list[int]:
    """Return the processes that *pid* and its children have started."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended, or there is no /proc
        return []
    return [*children, *(found for child in children for found in descendants(child))]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until_gone(pid: int, within_s: float = 30.0) -> None:
    """Poll for the end of a process that is no child of ours."""
    deadline = time.monotonic() + within_s
    while not is_gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is left over"
        time.sleep(0.02)


@pytest.fixture
def reloading(folder: Path) -> Iterator[Callable[..., Reloading]]:
    """Start commands in the empty folder; what is left of them at the end is killed."""
    started: list[Reloading] = []

    def start(*words: str, terminal: int | None = None, **more: str) -> Reloading:
        started.append(Reloading(folder, words, terminal, more))
        return started[-1]

    yield start
    for one in started:
        print(one.text)  # pytest shows it where a test has failed
        one.kill()


Start = Callable[..., Reloading]


def write(folder: Path, version: int = 1, body: str = "await asyncio.sleep(0)") -> None:
    (folder / "live.py").write_text(APP.format(version=version, body=body))


def test_an_edit_starts_the_new_code(folder: Path, reloading: Start) -> None:
    """What it is for: save, and see; the old run has ended in order before the new one begins."""
    write(folder)
    run = reloading("live")
    run.until("begun 1")
    run.until("finished")
    write(folder, 2)
    run.until("live.py changed: restarting")
    run.until("down")
    run.until("begun 2")
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 0, run.text
    assert run.text.count("down") == 2


def test_a_module_beside_the_app_counts_as_well(folder: Path, reloading: Start) -> None:
    """The project is more than the file that holds the app; a package's folders are in it."""
    write(folder)
    (folder / "shop").mkdir()
    run = reloading("live")
    run.until("begun 1")
    (folder / "shop" / "prices.py").write_text("VAT = 22\n")
    run.until("prices.py changed")
    run.until("begun 1")


def test_a_broken_edit_shows_its_traceback_and_waits(folder: Path, reloading: Start) -> None:
    """A slip is mended by the next save, not by starting the command again."""
    write(folder)
    run = reloading("live")
    run.until("begun 1")
    (folder / "live.py").write_text("def (\n")
    run.until("SyntaxError: invalid syntax")
    run.until("ended with exit code 1; waiting for a change")
    assert "_reload.py" not in run.text
    write(folder, 2)
    run.until("live.py changed: starting again")
    run.until("begun 2")


def test_running_jobs_have_a_second_before_a_restart(folder: Path, reloading: Start) -> None:
    """Nobody waits a minute for a restart: what takes longer is cancelled, in order, with its hooks."""
    write(folder, body="await asyncio.sleep(60)")
    run = reloading("live")
    run.until("begun 1")
    write(folder, 2)
    began = time.monotonic()
    run.until("1 cancelled")
    run.until("begun 2")
    assert time.monotonic() - began < 40
    assert "finished" not in run.text.partition("begun 2")[0]
    assert "killed" not in run.text


def test_an_app_that_does_not_obey_is_killed(folder: Path, reloading: Start) -> None:
    """A body may hold the loop and swallow what interrupts it; the next version must start all the same."""
    write(
        folder,
        body="""
    while True:
        try:
            time.sleep(60)
        except BaseException as error:
            print("swallowed", repr(error), flush=True)
""",
    )
    run = reloading("live")
    run.until("begun 1")
    write(folder, 2)
    run.until("did not end within 4 s of being told to: killed")
    run.until("begun 2")
    assert is_gone(run.pids[1])


def test_the_watchdog_is_on(folder: Path, reloading: Start) -> None:
    """While one writes code is when a blocked loop should be told."""
    write(folder, body="time.sleep(0.6)")
    run = reloading("live")
    assert "live.py" in run.until("the event loop has stood still")


def test_a_batch_is_run_again_after_each_change(folder: Path, reloading: Start) -> None:
    """With --until-idle the run ends by itself, and the command goes on watching."""
    (folder / "batch.py").write_text(
        "from quarterjack import Once, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Once())\nasync def job(): print('ran', flush=True)\n"
    )
    run = reloading("batch", "--until-idle")
    for _ in range(2):
        run.until("ran")
        run.until("the app has ended; waiting for a change")
        (folder / "batch.py").touch()
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 0


# -- ends ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_drains_and_ends_all(folder: Path, reloading: Start, number: signal.Signals) -> None:
    """A supervisor signals the process it knows; the other one must hear of it."""
    write(folder, body="await asyncio.sleep(1.5)")
    run = reloading("live")
    run.until("begun 1")
    run.process.send_signal(number)
    assert run.end() == 0, run.text
    assert run.text.index("finished") < run.text.index("down")
    assert run.text.count(": draining") == 1
    assert f"{number.name}: draining; once more stops now" in run.text


@pytest.mark.parametrize(("second", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_all_now(folder: Path, reloading: Start, second: signal.Signals, expected: int) -> None:
    """As without --reload."""
    write(folder, body="await asyncio.sleep(60)")
    run = reloading("live")
    run.until("begun 1")
    run.process.send_signal(signal.SIGINT)
    run.until("draining")
    run.process.send_signal(second)
    assert run.end() == expected
    assert "finished" not in run.text
    assert "down" in run.text
    assert f"{second.name} again: stopping now" in run.text


def test_ctrl_c_on_a_terminal_counts_once(folder: Path, reloading: Start) -> None:
    """The terminal signals both processes, and one more comes from the parent: still it only drains."""
    write(folder, body="await asyncio.sleep(1.5)")
    ours, theirs = pty.openpty()
    run = reloading("live", terminal=theirs)
    os.close(theirs)
    run.until("begun 1")
    os.write(ours, b"\x03")
    code = run.end()
    os.close(ours)
    assert code == 0, run.text
    assert "finished" in run.text
    assert "stopping now" not in run.text
    assert "Traceback" not in run.text


def test_ctrl_c_ends_an_app_that_is_still_loading(folder: Path, reloading: Start) -> None:
    """There is nothing to drain yet, and nothing of ours to see."""
    (folder / "live.py").write_text(
        "import os, time\nprint('pid', os.getpid(), flush=True)\nprint('loading', flush=True)\ntime.sleep(60)\n"
    )
    ours, theirs = pty.openpty()
    run = reloading("live", terminal=theirs)
    os.close(theirs)
    run.until("loading")
    os.write(ours, b"\x03")
    code = run.end()
    os.close(ours)
    assert code == 0, run.text
    assert "Traceback" not in run.text


def test_ctrl_c_is_held_back_before_the_first_line_of_ours(folder: Path, reloading: Start) -> None:
    """An interpreter that is about to start would answer it with a traceback, ahead of the parent's order to end."""
    write(folder)
    (folder / "sitecustomize.py").write_text(
        "import signal, sys\nif '--lifeline' in sys.orig_argv:\n"
        "    print('held back:', signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)\n"
    )
    run = reloading("live", PYTHONPATH=os.pathsep.join([str(folder), environment()["PYTHONPATH"]]))
    assert run.until("held back:") == "held back: True\n"


def test_a_signal_ends_the_wait_for_a_change(folder: Path, reloading: Start) -> None:
    """The app's failure has been told; the command that watched has done its work."""
    (folder / "live.py").write_text("1 / 0\n")
    run = reloading("live")
    run.until("waiting for a change")
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 0
    assert "ZeroDivisionError" in run.text


def test_a_parent_that_is_killed_leaves_nobody_behind(folder: Path, reloading: Start) -> None:
    """Else an app would go on firing that nobody sees, beside the one that is started next."""
    write(folder, body="await asyncio.sleep(60)")
    run = reloading("live")
    run.until("begun 1")
    run.process.kill()
    assert run.end() == -signal.SIGKILL
    assert "down" in run.text


def test_a_slip_in_the_command_line_ends_it(folder: Path, reloading: Start) -> None:
    """No edit mends a name that was mistyped, so there is nothing to wait for."""
    write(folder)
    run = reloading("live:application")
    assert run.end() == 2
    assert "Error: live:application: 'application' does not exist" in run.text


# -- what is watched ----------------------------------------------------------------


def test_without_watchfiles_the_install_line_is_named(
    shop: Path, qj: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra; who lacks it must not have to look up its name."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    result = qj("run", "shop", "--reload")
    assert result.exit_code == 1
    assert result.stderr == "Error: --reload needs the package watchfiles\nTry:   pip install watchfiles\n"


@pytest.mark.parametrize("name", ["notes.txt", ".venv/a.py", ".#live.py", "__pycache__/a.py", "env/site-packages/a.py"])
def test_what_is_no_source_of_the_project_restarts_nothing(folder: Path, reloading: Start, name: str) -> None:
    """Editors, tools and installers write a lot that has no bearing on the app."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    write(folder)
    run = reloading("live")
    run.until("begun 1")
    file.write_text("x = 1\n")
    time.sleep(0.4)  # watchfiles gathers changes for 50 ms; then it would have been told apart from the next one
    (folder / "other.py").write_text("x = 1\n")
    assert "other.py changed" in run.until(" changed: ")


def test_the_folders_of_the_app_are_watched_wherever_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file elsewhere, a package elsewhere on the path, a configured app of a folder above: each is the project."""
    elsewhere, here = folder / "elsewhere", folder / "project" / "deep"
    (elsewhere / "pack" / "inner").mkdir(parents=True)
    here.mkdir(parents=True)
    for place in (elsewhere / "pack", elsewhere / "pack" / "inner"):
        (place / "__init__.py").touch()
    (folder / "project" / "pyproject.toml").write_text('[tool.quarterjack]\napp = "jobs:app"\n')
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(elsewhere))
    assert set(folders("../../elsewhere/pack/inner/jobs.py")) == {here, elsewhere}
    assert set(folders("pack.inner.jobs:app")) == {here, elsewhere / "pack"}
    assert folders(None) == [folder / "project"]
    for installed in ("json:app", "pytest:app", "nowhere:app"):
        assert folders(installed) == [here]
    assert "pack" not in sys.modules


def test_what_cannot_be_watched_is_told_and_ends_all(folder: Path, reloading: Start) -> None:
    """Systems limit how many files are watched; an app that runs on without being watched would be a trap."""
    write(folder, body="await asyncio.sleep(60)")
    (folder / "watchfiles.py").write_text(
        "import asyncio\nasync def awatch(*roots, **options):\n"
        "    await asyncio.sleep(1)\n    raise OSError('file watch limit reached')\n    yield set()\n"
    )
    run = reloading("live")
    assert run.end() == 1
    assert "Error: the files cannot be watched: file watch limit reached" in run.text
    assert run.text.splitlines()[-1].startswith("Try:   WATCHFILES_FORCE_POLLING=1 qj run --reload")
