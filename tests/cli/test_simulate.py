"""``qj simulate``: the assumptions said, the answer in columns and notes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

QJ = Callable[..., Result]

WEEK = ("simulate", "shop", "--start", "2027-03-25T00:00+01:00", "--tz", "Europe/Rome")


def test_simulate_tells_runs_in_columns_and_the_rest_in_notes(qj: QJ, shop: Path) -> None:
    """A pipe gets the numbers; what was assumed and what stands out is said beside them."""
    result = qj(*WEEK, "--assume", "30s", "--assume", "noon=5m")
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[:7] for row in rows] == [
        ["noon", "7", "0", "0", "0", "0", "0"],
        ["pulse", "84", "0", "0", "0", "0", "0"],
        ["reports.nightly", "7", "0", "0", "0", "0", "0"],
    ]
    assert rows[0][8] == "2100.000"
    notes = result.stderr
    assert "· assumed: each run takes 30 s, but noon 5 m (--assume 30s, --assume TASK=2m); nothing fails" in notes
    assert "at most 2 of 100 slots of executor 'loop' at once" in notes
    assert "no two runs start within one second" in notes
    assert "reports.nightly: on 28 March 2027 the clocks go forward at 02:00: 02:30 does not exist" in notes


def test_simulate_names_who_starts_together(qj: QJ, folder: Path) -> None:
    """What one looks for: the second in which everything begins."""
    (folder / "full.py").write_text(
        "from quarterjack import Cron, Quarterjack\napp = Quarterjack()\n"
        "async def f(): raise AssertionError\n"
        "for n in range(3): app.task(Cron('0 * * * *'), name=f't{n}')(f)\n"
    )
    words = ("simulate", "full", "--for", "1d", "--start", "2027-01-01T00:00Z", "--tz", "UTC")
    said = "3 starts within one second on Fri 2027-01-01 01:00:00 UTC, and so in 24 seconds: t0, t1, t2"
    assert said in qj(*words).stderr
    found = json.loads(qj(*words, "--json").stdout)
    assert found["collisions"][0] == {
        "at": "2027-01-01T01:00:00+00:00",
        "starts": 3,
        "seconds": 24,
        "together": ["t0", "t1", "t2"],
    }


def test_simulate_tells_a_night_once_for_all_whom_it_concerns(qj: QJ, folder: Path) -> None:
    """Six lines of the same words hide the seventh."""
    (folder / "full.py").write_text(
        "from quarterjack import Cron, Quarterjack\napp = Quarterjack()\nasync def f(): ...\n"
        "for n in range(3): app.task(Cron('0 * * * *', tz='Europe/Rome'), name=f't{n}')(f)\n"
    )
    result = qj("simulate", "full", "--start", "2027-03-27T00:00Z", "--for", "2d")
    said = [line for line in result.stderr.splitlines() if "clocks" in line]
    assert said == ["· t0, t1, t2: on 28 March 2027 the clocks go forward at 02:00: 23 runs that day, not 24"]


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (("--for", "7x"), "--for must look like", "qj simulate shop:app --for 7d --assume 30s"),
        (("--assume", "nope=1s"), "no task 'nope'", "qj ls shop:app"),
        (("--assume", "long"), "--assume long must look like", "qj simulate shop:app --for 7d --assume 30s"),
        (("--start", "soon"), "--start 'soon' is no ISO moment", "qj simulate shop --start 2027-03-28T00:00"),
        (("--for", "1000000d"), "about 200 years", "qj simulate shop:app --for 7d --assume 30s"),
    ],
)
def test_wrong_options_end_with_the_command_to_try(
    qj: QJ, shop: Path, words: tuple[str, ...], said: str, hint: str
) -> None:
    """As everywhere."""
    result = qj("simulate", "shop", *words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.rstrip().endswith(f"Try:   {hint}")


def test_too_many_fires_are_answered_with_how_long_can_be_had(qj: QJ, folder: Path) -> None:
    """At once, not after minutes."""
    (folder / "busy.py").write_text(
        "from quarterjack import Every, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Every(seconds=1))\nasync def tick(): ...\n"
    )
    result = qj("simulate", "busy")
    assert result.exit_code == 2
    assert "fire more than 150,000 times" in result.stderr
    assert result.stderr.rstrip().endswith("Try:   qj simulate busy:app --for 41h")
