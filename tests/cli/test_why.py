"""``qj why``: the rule's half of the answer, without running the app."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

QJ = Callable[..., Result]


def test_why_tells_the_next_run_and_that_only_the_rule_is_known(qj: QJ, shop: Path) -> None:
    """Pauses and running jobs live in another process; an answer that hides it would mislead."""
    result = qj("why", "shop", "reports.nightly")
    assert result.exit_code == 0
    assert result.stdout.startswith("its next run is on ")
    assert result.stdout.endswith(": at 02:30 every day, Rome time\n")
    assert result.stderr.startswith("· this is what the rule says")
    assert "await app.why(…)" in result.stderr


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("2027-03-27T02:31", "Saturday 27 March 2027 at 02:31 CET is no fire time of it: its time is 02:30"),
        ("2027-03-27T01:30Z", "Saturday 27 March 2027 at 02:30 CET is a fire time of it"),
        ("2027-03-28T02:30", "02:30 does not exist, it runs at 03:00 CEST; the one before is Saturday 27 March"),
        ("2020-03-27T02:30", "what became of it is known where the app runs, not here"),
    ],
)
def test_why_at_reads_the_moment_on_the_clock_of_the_rule(qj: QJ, shop: Path, at: str, words: str) -> None:
    """Who asks why nothing ran at half past two means the clock of the schedule, also when it skips that time."""
    assert words in qj("why", "shop", "reports.nightly", "--at", at).stdout


def test_why_answers_for_a_cron_line(qj: QJ) -> None:
    """A line from somewhere else, and the field that does not match."""
    line = ("why", "*/5 9-17 * * mon-fri", "--tz", "Europe/Rome", "--at")
    assert "the hour is 08, and the field says '9-17'" in qj(*line, "2027-03-26T08:30").stdout
    found = json.loads(qj(*line, "2027-03-26T09:30", "--json").stdout)
    said, _, rule = found["words"].partition(": ")
    assert said == "Friday 26 March 2027 at 09:30 CET is a fire time of it"
    assert rule == "every 5 minutes from 09:00 to 17:55, Monday to Friday, Rome time"


def test_why_knows_the_jobs_of_a_shared_store(qj: QJ, folder: Path) -> None:
    """There the rows are at hand, and with them what became of a fire time."""
    (folder / "shared.py").write_text(
        "from quarterjack import Every, MemoryStore, Quarterjack\n"
        "from quarterjack.model import JobRecord, JobState, Origin, RunOptions\n"
        "from quarterjack.stores.base import JobPage\n"
        "class Shared(MemoryStore):\n"
        "    is_shared = True\n"
        "    async def schedules_list(self):\n"
        "        row = app.declared_schedules()[0].copy()\n"
        "        row.paused_at_ns, row.pause_note = 1_700_000_000_000_000_000, 'migration'\n"
        "        return [row]\n"
        "    async def jobs_list(self, where, **more):\n"
        "        origin = Origin('sync', 1, 1_699_999_200_000_000_000)\n"
        "        job = JobRecord('k-1', 'sync', (), {}, RunOptions(), None, origin)\n"
        "        job.state, job.reason = JobState.SKIPPED, 'job k-0 of the same schedule is still running'\n"
        "        return JobPage([job], None)\n"
        "app = Quarterjack(Shared())\n"
        "@app.task(Every(hours=1))\nasync def sync() -> None: ...\n"
    )
    paused = qj("why", "shared", "sync")
    assert paused.stdout.startswith("it is paused since Tuesday 14 November 2023 at 22:13:20 UTC (migration)")
    assert paused.stderr == ""
    skipped = json.loads(qj("why", "shared", "sync", "--at", "2023-11-14T22:00Z", "--json").stdout)
    assert (skipped["kind"], skipped["job"], skipped["is_live"]) == ("skipped", "k-1", True)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("shop",), "qj ls shop:app"),
        (("shop", "nightly"), "qj why shop:app reports.nightly"),
        (("shop", "noon", "--at", "noon"), "qj why shop noon --at 2027-03-28T02:30"),
        (("30 2 * * *",), "qj why '30 2 * * *' --at 2027-03-28T02:30"),
    ],
)
def test_wrong_questions_end_with_the_right_one(qj: QJ, shop: Path, words: tuple[str, ...], hint: str) -> None:
    """As everywhere: the command to try next."""
    result = qj("why", *words)
    assert result.exit_code == 2
    assert result.stderr.rstrip().endswith(f"Try:   {hint}")
