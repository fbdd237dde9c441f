"""What the commands over stored jobs do with words that were almost right, and with what is not there."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import Result

from quarterjack import ConcurrencyLimit, Job, JobState, Quarterjack
from quarterjack.cli import _client
from quarterjack.cli._runlog import job_words
from quarterjack.cli._spans import span
from quarterjack.cli.jobs import headline
from quarterjack.events import JobEvent
from quarterjack.model import NO_OPTIONS, JobRecord
from quarterjack.stores import base
from quarterjack.testing import virtual_time

Qj = Callable[..., Result]

APP = """
from quarterjack import ConcurrencyLimit, Every, Flow, Quarterjack

app = Quarterjack("sqlite:///jobs.db")

@app.task(Every(hours=1))
async def pulse() -> None: ...

@app.task
async def fetch(n: int) -> int:
    return n

@app.task(flow=Flow(ConcurrencyLimit(5, by="tenant")))
async def crawl() -> None: ...
"""


@pytest.fixture
def stored(folder: Path) -> Path:
    """A file ``shop.py`` whose app keeps its jobs in a file; nobody serves it."""
    (folder / "shop.py").write_text(APP)
    return folder


def submitted(qj: Qj, *words: str) -> str:
    result = qj("submit", "shop.py", *words)
    assert result.exit_code == 0, result.output
    return result.stdout.split()[0]


# -- looking makes nothing --------------------------------------------------------------


@pytest.mark.parametrize("command", [("jobs",), ("errors",), ("slowest",), ("workers",), ("check",), ("show", "aaaa")])
def test_look_at_a_misspelt_file_does_not_make_it(folder: Path, qj: Qj, command: tuple[str, ...]) -> None:
    """The bug: an empty list, exit code 0, and a new file that everybody took for the store."""
    result = qj(*command, "--store", "sqlite:///nope.db")
    assert result.exit_code == (2 if command == ("check",) else 1)
    assert "nothing was ever stored in sqlite:///" in result.output
    assert not list(folder.iterdir())


@pytest.mark.parametrize("command", [("jobs",), ("errors",), ("slowest",), ("workers",), ("check",)])
def test_look_at_an_app_that_never_ran_finds_nothing_and_makes_nothing(
    stored: Path, qj: Qj, command: tuple[str, ...]
) -> None:
    """That is no mistake: it is a new app."""
    result = qj(*command, "shop.py")
    assert result.exit_code == (1 if command == ("check",) else 0), result.output
    assert "nothing was ever stored" in result.output
    assert not (stored / "jobs.db").exists()


@pytest.mark.parametrize(
    "command", [("cancel", "aaaa"), ("retry", "aaaa"), ("pause", "pulse"), ("purge", "--older", "1d")]
)
def test_nothing_is_changed_where_nothing_is(stored: Path, qj: Qj, command: tuple[str, ...]) -> None:
    """A job or schedule that was never stored cannot be acted on, and what would hold it is not made."""
    name, *rest = command
    result = qj(name, "shop.py", *rest)
    assert result.exit_code == 1
    assert result.stderr.endswith("Try:   qj run shop.py:app\n")
    assert not (stored / "jobs.db").exists()


# -- waiting, and options -----------------------------------------------------------------


async def test_who_waits_hears_why_nothing_begins(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bug: `qj submit --wait` stood there for ever, without a word, while nobody was at work."""
    monkeypatch.setattr(_client, "_SILENT_S", 0.0)
    app = Quarterjack("sqlite:///jobs.db")

    @app.task
    async def fetch() -> None: ...

    async with app.as_client():
        job = await app.submit(fetch)
        end = asyncio.create_task(_client.ended(app, job))
        async with asyncio.timeout(20):
            while not (told := capsys.readouterr().err):
                await asyncio.sleep(0.01)
        assert told == f"· {job.id} waits: nobody is at work: qj run starts a process\n"
        await job.cancel()
        assert (await end).state.value == "cancelled"


def test_task_of_a_bare_module_is_submitted(stored: Path, qj: Qj) -> None:
    """The bug: `qj run shop` took the module's name, and `qj submit shop fetch 1` took it for a task's."""
    result = qj("submit", "shop", "fetch", "1")
    assert result.exit_code == 0, result.output
    assert "(fetch) is submitted" in result.stdout
    assert "no app was named" in qj("submit", "fetch", "1").stderr
    (stored / "pyproject.toml").write_text('[tool.quarterjack]\napp = "shop:app"\n')
    (stored / "fetch.py").write_text("raise AssertionError('no app is looked for in it')\n")
    assert qj("submit", "fetch", "1").exit_code == 0


def test_options_of_a_job_are_those_of_the_library(stored: Path, qj: Qj) -> None:
    """The bug: priorities ended at 4, and a flow that goes by a key could not be fed at all."""
    told = ("--priority", "1000", "--cost", "2.5", "--timeout", "1m30s", "--metadata", "tenant=acme")
    job_id = submitted(qj, "crawl", *told, "--metadata", "tries=3")
    found = json.loads(qj("show", "shop.py", job_id, "--json").stdout)
    assert (found["priority"], found["metadata"]) == (1_000, {"tenant": "acme", "tries": 3})

    async def options() -> tuple[float, float | None]:
        app = Quarterjack("sqlite:///jobs.db")
        async with app.as_client():
            own = (await app.job(job_id))._record.options
            return own.cost, own.timeout_s

    assert asyncio.run(options()) == (2.5, 90.0)


def test_number_without_a_unit_is_seconds_where_jobs_are_meant(stored: Path, qj: Qj) -> None:
    """As everywhere in Python; how old what is purged must be wants its unit, for it may be meant in days."""
    job_id = submitted(qj, "fetch", "1", "--timeout", "2", "--in", "3600.5")
    found = json.loads(qj("show", "shop.py", job_id, "--json").stdout)
    moments = [datetime.fromisoformat(found[name]) for name in ("run_at", "submitted_at")]
    assert (moments[0] - moments[1]).total_seconds() == pytest.approx(3600.5, abs=0.01)
    assert qj("purge", "shop.py", "--older", "30").exit_code == 2


def test_schedules_that_no_start_has_put_yet_are_told_as_such(stored: Path, qj: Qj) -> None:
    """The bug: "1 schedule" of the app, and "schedules 0" a few lines on."""
    submitted(qj, "fetch", "1")
    assert "none in the store yet; the first start puts the app's 1 there" in qj("check", "shop.py").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("crawl",), "metadata={'tenant': …}"),
        (("fetch",), "missing a required argument: 'n'"),
        (("fetch", "1", "--cost", "0"), "cost"),
        (("fetch", "1", "--metadata", "acme"), "--metadata tenant=acme"),
        (("fetch", "1", "--timeout", "soon"), "--timeout 30s"),
        (("fetsh", "1"), "Try:   qj submit shop.py fetch 1"),
    ],
)
def test_what_cannot_be_submitted_was_asked_wrongly(stored: Path, qj: Qj, words: tuple[str, ...], told: str) -> None:
    """Exit code 2, and nothing is stored."""
    result = qj("submit", "shop.py", *words)
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert qj("jobs", "shop.py").stdout == ""


# -- almost right ---------------------------------------------------------------------------


def test_beginning_of_an_id_names_its_job_if_it_is_unique(stored: Path, qj: Qj) -> None:
    """Ids are typed by people; an id that is there counts before longer ones that begin like it."""
    first, second = submitted(qj, "fetch", "1"), submitted(qj, "fetch", "2")
    assert qj("show", "shop.py", first[:6]).stdout.startswith(f"job          {first}\n")
    assert qj("cancel", "shop.py", second[:8]).stdout.startswith(second)
    none = qj("show", "shop.py", "zz")
    assert none.exit_code == 1
    assert none.stderr == "Error: no job zz: it was purged, or never was\nTry:   qj jobs shop.py:app\n"


def test_beginning_of_several_ids_lists_them(stored: Path, qj: Qj) -> None:
    """Which one is meant is for the caller to say."""

    async def two() -> list[str]:
        app = Quarterjack("sqlite:///jobs.db")

        @app.task
        async def fetch(n: int) -> None: ...

        async with app.as_client():
            return [job.id for job in await app.submit_many([fetch.bind(1), fetch.bind(2)])]

    first, second = asyncio.run(two())
    result = qj("show", "shop.py", first[:8])
    assert result.exit_code == 1
    assert f"2 jobs begin with {first[:8]}" in result.stderr
    assert all(one in result.stderr for one in (first, second))
    assert qj("show", "shop.py", first).exit_code == 0


def test_task_that_the_app_does_not_have_is_named(stored: Path, qj: Qj) -> None:
    """An empty list says nothing of a misspelt name."""
    submitted(qj, "fetch", "1")
    for command in (("jobs",), ("cancel", "--yes"), ("retry", "--yes")):
        result = qj(*command, "shop.py", "--task", "fetsh")
        assert "shop.py:app has no task 'fetsh': did you mean 'fetch'?" in result.stderr
    assert "no task" not in qj("jobs", "shop.py", "--task", "crawl").output


def test_retry_by_a_filter_says_which_jobs_it_means(stored: Path, qj: Qj) -> None:
    """The bug: "0 jobs run again" of a task with a hundred cancelled ones, and no word why."""
    qj("cancel", "shop.py", submitted(qj, "fetch", "1"))
    without = qj("retry", "shop.py", "--task", "fetch", "--yes")
    assert "without --state those are meant that failed, timed out or were lost" in without.stderr
    stated = qj("retry", "shop.py", "--task", "fetch", "--state", "cancelled")
    assert "1 finished job will run again" in stated.stderr
    assert qj("retry", "shop.py", "--task", "fetch", "--state", "cancelled", "--yes").stdout == "1 job run again\n"


def test_id_of_a_job_where_a_schedule_is_meant_leads_to_show(stored: Path, qj: Qj) -> None:
    """It is the same question, asked of the other command."""
    job_id = submitted(qj, "fetch", "1")
    result = qj("why", "shop.py", job_id)
    assert result.stderr.endswith(f"Try:   qj show shop.py:app {job_id}\n")


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        (("trigger", "shop.py", "puls"), 2, "qj trigger shop.py:app pulse"),
        (("trigger", "shop.py", "xyz"), 2, "qj ls shop.py:app"),
        (("trigger", "shop.py", "fetch"), 2, "qj submit shop.py:app fetch"),
        (("show", "shop.py"), 2, "qj jobs shop.py"),
        (("retry", "shop.py"), 2, "qj retry JOB, or qj retry --state failed --task NAME"),
        (("retry", "shop.py", "--state", "open", "--yes"), 2, "qj retry shop.py --state failed"),
        (("cancel", "shop.py", "--state", "done", "--yes"), 2, "qj cancel shop.py --state open"),
        (("jobs", "--store", "jobs.db"), 2, "the same with the URL mended, or without --store: qj check APP"),
        (("cancel", "shop.py", "what?"), 2, "qj jobs shop.py:app lists them"),
    ],
)
def test_command_to_try_names_the_app(stored: Path, qj: Qj, words: tuple[str, ...], code: int, hint: str) -> None:
    """It can be typed as it is told."""
    names: dict[str, object] = {}
    exec(compile(APP, "served.py", "exec"), names)
    app = names["app"]
    assert isinstance(app, Quarterjack)
    with app.in_thread():
        result = qj(*words)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (code, f"Try:   {hint}"), result.output


# -- orphans, queues, spans --------------------------------------------------------------------


def test_job_whose_task_is_gone_is_among_the_errors(stored: Path, qj: Qj) -> None:
    """The bug: nobody claims it, so nobody noted that nobody could; it waited unseen."""
    job_id = submitted(qj, "fetch", "1")
    later = submitted(qj, "fetch", "1", "--in", "1h")
    submitted(qj, "crawl", "--metadata", "tenant=a")
    (stored / "shop.py").write_text(APP.replace("def fetch", "def renamed"))
    sys.modules.pop("shop", None)
    (row,) = qj("errors", "shop.py").stdout.splitlines()
    assert row.startswith(f"{job_id}\tfetch\tsubmitted\t")
    assert row.endswith("\tORPHANED: no task 'fetch' is known here")
    told = json.loads(qj("errors", "shop.py", "--json").stdout)["jobs"]
    assert [(one["id"], one["reason"]) for one in told] == [(job_id, "ORPHANED: no task 'fetch' is known here")]
    assert later not in row
    checked = qj("check", "shop.py")
    assert "no worker can run fetch: qj errors" in checked.stdout


def test_what_is_counted_and_searched_goes_over_all_pages(
    stored: Path, qj: Qj, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history, or a backlog, is longer than what is read at once."""
    monkeypatch.setattr(base, "PAGE", 2)
    ended = [submitted(qj, "fetch", str(n)) for n in range(5)]
    qj("cancel", "shop.py", *ended)
    assert qj("purge", "shop.py", "--older", "0s", "--dry-run").stdout == "5 jobs would be deleted\n"
    gone = submitted(qj, "fetch", "0")
    for _ in range(4):
        submitted(qj, "crawl", "--metadata", "tenant=a")
    (stored / "shop.py").write_text(APP.replace("def fetch", "def renamed"))
    sys.modules.pop("shop", None)
    assert qj("errors", "shop.py").stdout.startswith(f"{gone}\t")


async def test_queue_with_a_flow_that_no_task_is_in_is_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """The bug: one letter off, the task ran without its limit, and nobody said so."""
    app = Quarterjack()
    app.queue("emails", flow=ConcurrencyLimit(1))
    app.queue("single", flow=ConcurrencyLimit(1))

    @app.task(queue="email")
    async def send() -> None: ...

    with caplog.at_level(logging.WARNING):
        async with virtual_time(app):
            pass
    assert [record.getMessage() for record in caplog.records] == [
        "no task is in queue 'emails', which has a flow; send: did you mean it by 'email'?"
    ]


def test_queue_that_is_one_letter_off_is_found_by_check(folder: Path, qj: Qj) -> None:
    """CI runs it before the deploy."""
    code = APP.replace("@app.task\n", '@app.task(queue="email")\n')
    (folder / "shop.py").write_text(code + '\napp.queue("emails", flow=ConcurrencyLimit(1))\n')
    result = qj("check", "shop.py")
    assert "!! app        no task is in queue 'emails'" in result.stdout
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("reason", "told"), [("cancelled", "cancelled"), ("shutdown", "cancelled: shutdown"), (None, "cancelled")]
)
def test_reason_is_told_where_it_adds_to_the_state(reason: str | None, told: str) -> None:
    """The bug: a job "is cancelled: cancelled"."""
    record, service = JobRecord("a-1", "fetch", (), {}, NO_OPTIONS), cast("Any", None)
    record.state, record.reason = JobState.CANCELLED, reason
    assert headline(Job(record, service)) == told


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0024, "2.4 ms"), (6.25, "6.25 s"), (69.51, "1 m 10 s"), (90_000.0, "1 d 1 h")]
)
def test_span_is_told_in_the_unit_that_reads_best(seconds: float, words: str) -> None:
    """The bug: a run that began a minute late was late by 69510.0 ms."""
    assert span(seconds) == words
    event = JobEvent(at_ns=0, kind="running", job_id="a-1", task="t", state="running", attempt=1, lag_s=seconds)
    assert job_words(event) == f"t a-1 running, {words} after it was due"
