"""``qj run --workers N`` with real processes: one that is killed, signals, and who is left at the end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import Result

from quarterjack.cli._children import held_back
from quarterjack.cli._fleet import MOST_STARTS, Fleet, Pauses, roles_of
from quarterjack.cli._member import Member
from quarterjack.cli._shell import Failure
from tests.cli.kit import command, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

APP = """
import asyncio, os
from quarterjack import Once, OnShutdown, OnStartup, Quarterjack

app = Quarterjack("sqlite:///jobs.db", lease=2, shutdown_grace=20)

@app.task(OnStartup())
def up() -> None:
    print("pid", os.getpid(), app.role, *(app.queues or ()))

@app.task(Once())
async def work() -> None:
    print("begun")
    {body}
    print("finished")

@app.task(OnShutdown())
def down() -> None:
    print("down")
"""


class Running:
    """A ``qj run`` of several processes in a session of its own, and what it has written so far."""

    def __init__(self, folder: Path, words: tuple[str, ...]) -> None:
        self.written: list[str] = []
        self.pids: dict[str, int] = {}
        """The last process of each name."""
        self.all_pids: set[int] = set()
        self.process = subprocess.Popen(
            command("run", *words),
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _take(self, line: str) -> None:
        self.written.append(line)
        found = re.match(r"\[(\w+)] +pid (\d+)", line)
        if found:
            self.pids[found[1]] = int(found[2])
            self.all_pids.add(int(found[2]))

    def until(self, *words: str) -> str:
        """Read on until each of *words* was in a line, from now on; return the last line."""
        assert self.process.stdout is not None
        missing = set(words)
        for line in self.process.stdout:
            self._take(line)
            missing -= {word for word in missing if word in line}
            if not missing:
                return line
        raise AssertionError(f"it ended without {missing}: {self.text}")

    def end(self) -> int:
        """Wait for the end of every process of it; return the exit code."""
        assert self.process.stdout is not None
        for line in self.process.stdout:  # until nobody can write any more
            self._take(line)
        code = self.process.wait(60)
        self.assert_none_left()
        return code

    def assert_none_left(self) -> None:
        deadline = time.monotonic() + 30
        while left := {pid for pid in self.all_pids if not is_gone(pid)}:
            assert time.monotonic() < deadline, f"processes {left} are left over"
            time.sleep(0.02)

    @property
    def text(self) -> str:
        return "".join(self.written)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=20)


def is_gone(pid: int) -> bool:
    """Say whether a process that is no child of ours has ended; one that nobody has waited for counts as there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


Start = Callable[..., Running]


@pytest.fixture
def running(folder: Path) -> Iterator[Start]:
    """Start commands over a file in the empty folder; what is left of them at the end is killed."""
    started: list[Running] = []

    def start(*words: str, body: str = "pass") -> Running:
        (folder / "shop.py").write_text(APP.format(body=body))
        started.append(Running(folder, ("shop", *words)))
        return started[-1]

    yield start
    for one in started:
        print(one.text)  # pytest shows it where a test has failed
        one.kill()


# -- a life ---------------------------------------------------------------------------


def test_a_killed_process_is_started_again_and_one_signal_drains_all(running: Start) -> None:
    """What it is for: a crash costs one process for a moment; a deploy ends all, in order."""
    run = running("--workers", "2", "--log-level", "debug")
    run.until("[w1] pid", "[w2] pid", "started, as worker")
    while run.text.count("started, as worker") < 2:
        run.until("started, as worker")
    killed = run.pids["w2"]
    os.kill(killed, signal.SIGKILL)
    run.until("w2 has ended by SIGKILL; it is started again in", "has died and is struck off", "[w2] pid")
    assert run.pids["w2"] != killed
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 0, run.text
    assert run.text.count("] down") == 2
    assert run.text.count("SIGTERM: draining") == 1
    assert run.text.count("finished") == 1  # one file of jobs: each runs once


@pytest.mark.slow
def test_a_signal_to_every_process_counts_once(running: Start) -> None:
    """So systemd ends a service: what runs must have its time to end, not be cancelled by an order on top."""
    body = "while not app.signals_came: await asyncio.sleep(0.01)\n    await asyncio.sleep(0.5)"
    run = running("--workers", "2", body=body)
    run.until("[w1] pid", "[w2] pid", "begun")
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.end() == 0, run.text
    assert "finished" in run.text
    assert "cancelled" not in run.text


@pytest.mark.slow
def test_a_second_signal_means_now(running: Start) -> None:
    """As without --workers; shutdown hooks run all the same."""
    run = running("--workers", "2", body="await asyncio.sleep(60)")
    run.until("[w1] pid", "[w2] pid", "begun")
    run.process.send_signal(signal.SIGINT)
    run.until("SIGINT: draining; once more stops now")
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 143, run.text
    assert "finished" not in run.text
    assert run.text.count("] down") == 2


@pytest.mark.slow
def test_no_process_outlives_the_command_that_was_killed(running: Start) -> None:
    """Nobody would look after them, and the next start would have twice as many."""
    run = running("--workers", "2")
    run.until("[w1] pid", "[w2] pid")
    run.process.kill()
    run.assert_none_left()


@pytest.mark.slow
def test_an_isolated_scheduler_fires_and_the_others_run(running: Start) -> None:
    """A body that blocks its loop must not be able to delay a tick; lines of JSON name the process."""
    run = running("--isolate-scheduler", "--queue", "default", "--log-format", "json")
    run.until("[s1] pid", "[w1] pid", "[w1] finished")
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 0, run.text
    assert f"[s1] pid {run.pids['s1']} scheduler default\n" in run.written
    assert f"[w1] pid {run.pids['w1']} worker default\n" in run.written
    rows = [json.loads(line) for line in run.written if not line.startswith("[")]
    assert {row.get("process") for row in rows} == {None, "s1", "w1"}


@pytest.mark.slow
def test_until_idle_ends_when_all_are_idle(running: Start) -> None:
    """A batch over several processors; a process that has nothing left to do is not started again."""
    run = running("--workers", "2", "--until-idle")
    assert run.end() == 0, run.text
    assert "finished" in run.text
    assert "started again" not in run.text


# -- starts that fail -----------------------------------------------------------------

QUICK = Pauses(first_s=0.001)


def fleet_of(code: str, *, pauses: Pauses = QUICK) -> Fleet:
    return Fleet([sys.executable, "-S", "-c", code], {"w1": None, "w2": None}, pauses=pauses, alone="qj run shop")


def test_what_never_starts_ends_the_command_with_its_last_words(capfd: pytest.CaptureFixture[str]) -> None:
    """Who supervises this command has to hear of it, and the reason should stand last."""
    fleet = fleet_of("import sys; print('tried', flush=True); sys.exit('the port is taken')")
    with pytest.raises(Failure) as raised:
        asyncio.run(fleet.run())
    assert raised.value.code == 1
    assert raised.value.message == (
        "w1 has ended 5 times before it had started, the last time with exit code 1:\n  the port is taken"
    )
    assert raised.value.hint.startswith("qj run shop")
    assert capfd.readouterr().out == "[w1] tried\n" * MOST_STARTS  # the other one waits until the app can be loaded


LOADS = b"loaded\n"
STARTS = b"loaded\nstarted\n"
REPORTING = """
import socket, sys
parent = socket.socket(fileno=int(sys.argv[sys.argv.index("--lifeline") + 1]))
parent.sendall({reports!r})
{then}
"""


def test_what_has_started_is_started_again_however_often_it_ends() -> None:
    """Crashes in the middle of work are no reason to give up the rest: only starts that fail are counted."""

    async def main() -> int:
        fleet = fleet_of(REPORTING.format(reports=STARTS, then="sys.exit(3)"))
        running = asyncio.create_task(fleet.run())
        while fleet._posts[0]._restarts <= MOST_STARTS + 1:
            assert not running.done()
            await asyncio.sleep(0.01)
        fleet.orders.take(signal.SIGTERM)
        return await running

    assert asyncio.run(main()) == 0


class Standin:
    """As much of a process as the fleet asks when it looks for one that strikes off the dead."""

    def __init__(self, owner: str, code: int = -9) -> None:
        self.owner, self.code = owner, code
        self.burying: list[str] = []

    def bury(self, worker_id: str) -> None:
        self.burying.append(worker_id)


def test_who_lives_is_told_of_the_dead_until_one_has_struck_them_off() -> None:
    """A dead worker's jobs need not wait for their leases; what one leaves undone when it dies is the next one's."""
    fleet: Any = fleet_of("")
    first, second, third, ended = Standin("w1"), Standin("w2"), Standin("w3"), Standin("w4", code=0)
    fleet.started(first)
    fleet.started(ended)
    fleet.over(ended)
    assert first.burying == [], "who ends in order strikes itself off"
    fleet.over(first)
    fleet.started(second)
    assert second.burying == ["w1"], "nobody was there before"
    fleet.over(second)
    fleet.started(third)
    assert sorted(third.burying) == ["w1", "w2"]


def test_reports_are_lines_however_they_come() -> None:
    """One that has struck off a dead process is not asked for it again by the next; a report may come in parts."""
    ours, theirs = socket.socketpair()
    member: Any = Member.__new__(Member)  # the process itself takes no part in this
    member._socket, member._report, member.burying = ours, b"", ["a", "b"]
    with ours, theirs:
        theirs.sendall(b"forgot a\nforg")
        member._on_report()
        assert member.burying == ["b"]
        theirs.sendall(b"ot b\nforgot c\n")
        member._on_report()
        assert member.burying == []


def test_what_was_told_to_stop_stays_ended() -> None:
    """`qj workers stop` ends a process for good; when the last one has ended so has the command."""
    assert asyncio.run(fleet_of(REPORTING.format(reports=STARTS, then="")).run()) == 0


@pytest.mark.parametrize(
    ("reports", "ends_with", "expected"), [(STARTS, 0, 0), (STARTS, 1, 1), (LOADS, -signal.SIGTERM, 143)]
)
def test_one_signal_ends_as_in_one_process(reports: bytes, ends_with: int, expected: int) -> None:
    """A failed shutdown hook of any process is a failure of all; an app that never ran has not succeeded."""
    then = f"assert parent.recv(1) == b'1'\nimport os\nos.kill(os.getpid(), {-ends_with}) if {ends_with} < 0 else 0"

    async def main() -> int:
        fleet = fleet_of(REPORTING.format(reports=reports, then=f"{then}\nsys.exit({ends_with})"))
        running = asyncio.create_task(fleet.run())
        await fleet.loaded.wait()
        while reports == STARTS and not fleet.has_started:
            await asyncio.sleep(0.01)
        fleet.orders.take(signal.SIGTERM)
        return await running

    assert asyncio.run(main()) == expected


def test_output_is_taken_line_by_line_whatever_it_is(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """No end of line at the end, no text at all, more than a pipe holds: nothing of it may be lost."""
    then = "sys.stdout.buffer.write(b'x' * 200_000 + b'\\nnext\\xff\\nlast'); sys.stdout.flush()"
    asyncio.run(fleet_of(REPORTING.format(reports=STARTS, then=then)).run())
    lines = capfdbinary.readouterr().out.splitlines()
    for name in (b"[w1] ", b"[w2] "):
        own = [line.removeprefix(name) for line in lines if line.startswith(name)]
        assert own == [b"x" * 200_000, b"next\xff", b"last"]


def test_pauses_grow_and_spread_and_are_short_again_after_a_long_life() -> None:
    """All processes of a fleet often die of one cause; they should not come back in one moment, for ever."""
    pauses, rng = Pauses(), Random(1)
    drawn = [[pauses.draw(times, rng) for _ in range(50)] for times in (1, 2, 5, 1000)]
    for ceiling, some in zip((0.5, 1, 8, 30), drawn, strict=True):
        assert all(ceiling / 2 <= one <= ceiling for one in some)
        assert len(set(some)) > 10
    post = fleet_of("")._posts[0]
    for _ in range(6):
        post._vacant("", [], has_started=True, lived_s=59)
    assert post._restarts == 6
    post._vacant("", [], has_started=True, lived_s=60)
    assert post._restarts == 1


# -- asked wrongly --------------------------------------------------------------------


def test_names_and_roles() -> None:
    """The names stand in front of every line, so they should say what a process does."""
    assert roles_of(2, None, isolates_scheduler=False) == {"w1": None, "w2": None}
    assert roles_of(2, "scheduler", isolates_scheduler=False) == {"s1": "scheduler", "s2": "scheduler"}
    assert roles_of(2, None, isolates_scheduler=True) == {"s1": "scheduler", "w1": "worker", "w2": "worker"}


def test_processes_that_cannot_share_a_memory_are_refused(
    folder: Path, qj_process: Callable[..., subprocess.Popen[str]]
) -> None:
    """Each would fire every schedule for itself; the way out is one line."""
    (folder / "mem.py").write_text("from quarterjack import Quarterjack\napp = Quarterjack()\n")
    process = qj_process("run", "mem", "--workers", "2")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.count("such as SQLite") == 1
    assert 'Try:   app = Quarterjack("sqlite:///jobs.db")' in errors


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--role", "worker"), "such as SQLite"),
        (("--role", "scheduler"), "such as SQLite"),
        (("--queue", ""), "--queue must be a name"),
        (("--isolate-scheduler", "--role", "worker"), "leave --role out"),
        (("--isolate-scheduler", "--until-idle"), "leave --isolate-scheduler out"),
        (("--workers", "2", "--reload"), "leave --workers"),
        (("--workers", "0"), "0 is not in the range"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    folder: Path, qj: Callable[..., Result], words: tuple[str, ...], told: str
) -> None:
    """A command line that means nothing must not run as something else."""
    (folder / "mem.py").write_text("from quarterjack import Quarterjack\napp = Quarterjack()\n")
    result = qj("run", "mem", *words)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no signal masks")
def test_children_started_side_by_side_leave_ctrl_c_to_the_command() -> None:
    """Each start holds SIGINT back over an await; left in another order than entered, none may leave it held."""
    first, second = held_back(signal.SIGINT), held_back(signal.SIGINT)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    second.__exit__(None, None, None)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
