"""A job's options in its row: what differs from its task's own, by names that can be found again."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from quarterjack import (
    InvalidOption,
    Retry,
    RetryBudget,
    ThreadExecutor,
)
from quarterjack.model import (
    RunOptions,
)
from quarterjack.stores._paths import PathError, path_of, thing_at
from quarterjack.stores._rows import (
    JOB_COLUMNS,
    Column,
    Encoding,
)
from tests.stores.rows_kit import (
    OWN,
    job,
)
from tests.stores.things import Broken, is_worth_it


def options_text(options: RunOptions) -> str | None:
    """Return what the row of a job of "send" with *options* keeps of them."""
    row = Encoding(OWN.get).job_row(job("send", options=options))
    text = row[[column.name for column in JOB_COLUMNS].index("options")]
    assert text is None or isinstance(text, str)
    return text


def test_a_row_keeps_what_differs_from_the_tasks_own_options() -> None:
    """A task's new timeout has to reach its waiting jobs, but not those that named one of their own."""
    assert options_text(OWN["send"]) is None
    assert options_text(replace(OWN["send"], priority=0, queue="q")) is None  # these have columns
    own_timeout = replace(OWN["send"], timeout_s=None)
    rows = [Encoding(OWN.get).job_row(job("send", options=options)) for options in (OWN["send"], own_timeout)]
    later = Encoding({"send": replace(OWN["send"], timeout_s=60.0, cancel_grace_s=1.0)}.get)
    assert [later.record(row).options.timeout_s for row in rows] == [60.0, None]
    assert [later.record(row).options.cancel_grace_s for row in rows] == [1.0, 1.0]


def test_options_follow_a_task_that_is_registered_anew() -> None:
    """What was read once is remembered, and must not outlive the options that it was read against."""
    own = dict(OWN)
    encoding = Encoding(own.get)
    made = job("send", options=replace(OWN["send"], priority=0))
    row = encoding.job_row(made)
    assert encoding.record(row).options.timeout_s == 5.0
    own["send"] = replace(OWN["send"], timeout_s=9.0)
    assert encoding.record(row).options.timeout_s == 9.0
    assert encoding.record(encoding.job_row(made)).options.timeout_s == 5.0


def test_an_executor_object_has_to_be_its_tasks_own() -> None:
    """An object cannot be found again by another process; the refusal says where to put it."""
    pool = ThreadExecutor(2, name="pool")
    with pytest.raises(InvalidOption, match=r"executor=.* of a job of send is an object.*set it on the task"):
        options_text(replace(OWN["send"], executor=pool))
    own = RunOptions(executor=pool, own_executor=pool)
    encoding = Encoding({"send": own}.get)
    found = encoding.record(encoding.job_row(job("send", options=replace(own, priority=1))))
    assert found.options.executor is pool


def test_the_lane_of_a_task_does_not_tell_which_executor_it_has() -> None:
    """Jobs that wait while a deploy moves their task to another executor have to be claimed after it."""
    pool = ThreadExecutor(2, name="pool")
    for own in (None, "thread", pool):
        assert job("send", options=RunOptions(executor=own, own_executor=own)).lane == "send"
    assert job("send", options=RunOptions(executor="thread", own_executor=pool)).lane == "send\x1fthread"
    moved = replace(RunOptions(executor="loop", own_executor="thread"), priority=1)
    assert job("send", options=moved).lane == "send\x1floop"


@pytest.mark.parametrize(
    ("option", "retry"),
    [
        ("on", Retry(on=lambda error: True)),
        ("on_result", Retry(on=OSError, on_result=lambda result: not result)),
        ("retry_after", Retry(on=OSError, retry_after=lambda error: 1.0)),
        ("budget", Retry(on=OSError, budget=RetryBudget())),
        ("give_up_on", Retry(on=OSError, give_up_on=type("Local", (Exception,), {}))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_retry_that_has_no_name_is_refused_where_it_is_submitted(option: str, retry: Retry) -> None:
    """Stored without it, the job would be tried again for other reasons than it was told."""
    with pytest.raises(InvalidOption, match=rf"^{option}= of the retry of a job of send .*@app\.task\(retry="):
        options_text(replace(OWN["send"], retry=retry))


def test_what_the_tasks_own_retry_holds_needs_no_name() -> None:
    """Who only wants more attempts keeps the task's budget and functions, which live in the code."""
    own_retry = Retry(on=lambda error: "x" in str(error), budget=RetryBudget())
    encoding = Encoding({"send": RunOptions(retry=own_retry)}.get)
    more = Retry(on=own_retry.on, attempts=9, budget=own_retry.budget)
    found = encoding.record(encoding.job_row(job("send", options=RunOptions(retry=more)))).options.retry
    assert found == more


def test_a_retry_whose_exception_is_gone_gives_way_to_the_tasks_own(caplog: pytest.LogCaptureFixture) -> None:
    """A renamed exception must neither lose the job nor its words: an older process may still know it."""
    encoding = Encoding(OWN.get)
    row = encoding.job_row(job("send", options=replace(OWN["send"], timeout_s=2.0, retry=Retry(on=Broken))))
    gone = tuple(v.replace("things:Broken", "things:Mended") if isinstance(v, str) else v for v in row)
    assert gone != row
    found = encoding.record(gone)
    encoding.record(tuple(3 if column.name == "priority" else v for v, column in zip(gone, JOB_COLUMNS, strict=True)))
    assert (found.options.retry, found.options.timeout_s) == (OWN["send"].retry, 2.0)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "things:Mended" in caplog.text
    assert encoding.job_row(found) == gone


def test_options_of_a_later_version_are_kept() -> None:
    """In a rolling deploy an older process moves the rows of a newer one, and may not strip them."""
    encoding = Encoding(OWN.get)
    row = encoding.job_row(job("send", options=replace(OWN["send"], timeout_s=2.0)))
    newer = tuple('{"timeout_s":2.0,"mood":"good"}' if value == '{"timeout_s":2.0}' else value for value in row)
    found = encoding.record(newer)
    assert found.options.timeout_s == 2.0
    assert json.loads(str(encoding.job_row(found)[JOB_COLUMNS.index(Column("options", "text", True))])) == {
        "timeout_s": 2.0,
        "mood": "good",
    }


@pytest.mark.parametrize(
    "path", ["builtins:eval", "os:system", "posixpath:join", "quarterjack:Every", "subprocess:run"]
)
def test_a_row_cannot_name_any_code(path: str) -> None:
    """Whoever can write into the database must not be able to run a shell through it."""
    with pytest.raises(PathError):
        thing_at(path)


def test_a_path_leads_back() -> None:
    """Exceptions of Python, of users, and functions are found again."""
    for thing in (OSError, Broken, is_worth_it):
        assert thing_at(path_of(thing)) is thing
    with pytest.raises(PathError, match="cannot be imported"):
        thing_at("no.such.module:Thing")
