"""On a real terminal: tables, the live demo, colours; and the demo in a pipe."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from quarterjack import Once, Quarterjack
from tests.cli.kit import command, environment
from tests.cli.test_look import documented, shape

pytestmark = pytest.mark.slow  # each test starts programs and watches them for a while

Start = Callable[..., "subprocess.Popen[str]"]

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[1-6]m")


def on_terminal(folder: Path, *words: str, width: int = 80, height: int = 24, code: int = 0, **more: str) -> str:
    """Run the command on a terminal of its own and return all that it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    env = environment(TERM="xterm-256color", **more)
    for name in ("COLUMNS", "LINES", "CI"):
        env.pop(name, None)
    process = subprocess.Popen(command(*words), cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 65_536):
            written += chunk
    except OSError:  # Linux says EIO when the other side is closed
        pass
    os.close(ours)
    assert process.wait(30) == code, written
    return written.decode()


def frames(written: str) -> list[str]:
    """Return the frames that were drawn, as text."""
    return [ANSI.sub("", part) for part in written.split("\x1b[H") if "schedules" in part]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_ls_draws_a_table_for_people(shop: Path, width: int) -> None:
    """Headings, weekday and zone instead of ISO times; nothing wider than the terminal, and nothing cut off."""
    written = ANSI.sub("", on_terminal(shop.parent, "ls", "shop", width=width))
    lines = written.splitlines()
    headings = "schedule next in rule" if width == 120 else "schedule, rule next, in"
    assert " ".join(lines[1].split()) == headings
    assert re.search(r"reports\.nightly +\w{3} \d{4}-\d\d-\d\d 02:30:00 CES?T", written)
    words = set(written.split())
    assert {"at", "02:30", "every", "day,", "Rome", "time", "h", "m", "lives"} <= words
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [40, 50, 60])
@pytest.mark.parametrize("command", ["ls", "next"])
def test_no_value_is_cut_on_a_narrow_terminal(shop: Path, command: str, width: int) -> None:
    """1 d 1 for 1 d 13 h would be believed; names may be broken, times and spans are whole."""
    shop.write_text(shop.read_text().replace("def nightly", "def nightly_report_for_the_whole_of_europe"))
    written = ANSI.sub("", on_terminal(shop.parent, command, "shop", width=width))
    lines = written.splitlines()
    assert all(len(line) <= width for line in lines)
    times = [line for line in lines if re.search(r"\d{4}-\d\d-\d\d", line)]
    assert times
    assert all(re.search(r"\w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d (UTC|CES?T)\b", line) for line in times)
    if command == "ls":
        edge = re.search(r"\w{3} \d{4}", times[0]).start()  # type: ignore[union-attr]  # it is one of *times*
        first_column = "".join(line[:edge].strip() for line in lines)
        assert "nightly_report_for_the_whole_of_europe" in first_column
    assert len(re.findall(r"(?:\d+ [hm](?: \d+ [ms])?|\d+(?:\.\d+)? s)\b", written)) >= len(times)


def test_a_long_error_is_broken_between_words(shop: Path) -> None:
    """Terminals break anywhere; and the command to try next must stay in one line to be copied."""
    written = on_terminal(shop.parent, "next", "shop:app", "a-schedule-that-does-not-exist", width=60, code=2)
    assert written.splitlines() == [
        "Error: shop:app has no schedule",
        "       'a-schedule-that-does-not-exist'; it has noon, pulse,",
        "       reports.nightly",
        "Try:   qj ls shop:app",
    ]


@pytest.mark.parametrize(
    "words", [("ls", "shop"), ("check", "shop"), ("explain", "30 2 * * *"), ("demo", "--for", "0.5s")]
)
def test_no_color_is_honoured(shop: Path, words: tuple[str, ...]) -> None:
    """Who asks for no colour gets none, in tables, in notes and in the demo."""
    assert not COLOUR.search(on_terminal(shop.parent, *words, NO_COLOR="1"))


def test_a_table_is_coloured_on_a_terminal(shop: Path) -> None:
    """Otherwise the test above would prove nothing."""
    assert COLOUR.search(on_terminal(shop.parent, "ls", "shop"))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30)])
def test_the_demo_fits_its_terminal(folder: Path, width: int, height: int) -> None:
    """A frame that is too long by one line scrolls, and the picture is gone."""
    drawn = frames(on_terminal(folder, "demo", "--for", "2s", width=width, height=height))
    assert len(drawn) > 5
    for frame in drawn[:-1]:
        lines = frame.replace("\r", "").split("\n")
        assert len(lines) == height
        assert all(len(line) <= width for line in lines)
        for part in (
            "quarterjack",
            "schedules",
            "running now",
            "what happened",
            "pulse",
            "every second",
            "ticks",
            "tried again",
        ):
            assert part in frame


def test_the_demo_shows_the_pulse_and_sums_up_after_it(folder: Path) -> None:
    """The last words stay on the terminal when the live picture has gone."""
    written = on_terminal(folder, "demo", "--for", "2.2s")
    assert any("▸ pulse" in frame for frame in frames(written))
    last = ANSI.sub("", written.rpartition("\x1b[?1049l")[2])
    assert re.search(r"\d ticks: 0 missed, 0 early", last)
    assert re.search(r"ticks late by \d+\.\d\d ms p50", last)


def test_the_demo_in_a_pipe_writes_a_line_for_each_thing(folder: Path, qj_process: Start) -> None:
    """In a log there is no picture to redraw; a tab between time, task and what happened."""
    out, err = qj_process("demo", "--for", "2.2s").communicate(timeout=30)
    *lines, ticks, lag, jobs = out.splitlines()
    assert err == ""
    assert sum("\tpulse\t" in line and line.endswith("ms after its time") for line in lines) >= 2
    assert all(line.count("\t") == 2 for line in lines)
    assert "0 missed, 0 early" in ticks
    assert lag.startswith("ticks late by ")
    assert jobs.startswith("jobs: ")
    assert "\x1b" not in out


def test_the_demo_measures_in_json_as_documented(folder: Path, qj_process: Start) -> None:
    """The numbers for a program, and nothing else on stdout."""
    out, err = qj_process("demo", "--for", "1.2s", "--json").communicate(timeout=30)
    found = json.loads(out)
    assert shape(found) == shape(documented("quarterjack.demo/1"))
    assert found["ticks"] >= 1
    assert (found["missed"], found["early"], err) == (0, 0, "")


def test_the_demo_says_it_lasted_as_long_as_it_was_asked_to(
    qj: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--for 10s that answers 11.1 s looks like a clock that is off: what jobs take to end is not counted."""

    def make_app() -> Quarterjack:
        app = Quarterjack(shutdown_grace=1)

        @app.task(Once())
        async def long() -> None:
            await asyncio.sleep(60)

        return app

    monkeypatch.setattr("quarterjack.cli.demo.make_app", make_app)
    found = json.loads(qj("demo", "--for", "0.3s", "--json").stdout)
    assert 0.3 <= found["seconds"] < 1.0
    assert found["jobs"] == {"cancelled": 1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_demo_with_its_summary(folder: Path, qj_process: Start, number: signal.Signals) -> None:
    """Ctrl-C is the ordinary way to leave it."""
    process = qj_process("demo")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "missed" in out
