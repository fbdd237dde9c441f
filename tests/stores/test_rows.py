"""Jobs and schedules as rows: what goes in comes out, and what cannot is refused before anything is stored."""

from __future__ import annotations

import json
import logging
import sys
import zlib
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import (
    Every,
    FixedDelay,
    InvalidArguments,
    InvalidOption,
    InvalidTrigger,
    Overlap,
    Progress,
    Retry,
    RetryBudget,
    StoreError,
    SubmittedBy,
    ThreadExecutor,
    Trigger,
    Unique,
)
from quarterjack._payload import Unreadable
from quarterjack.model import (
    NO_OPTIONS,
    ErrorInfo,
    JobRecord,
    JobState,
    Origin,
    Payload,
    RunOptions,
    Schedule,
    Timing,
)
from quarterjack.stores._paths import PathError, path_of, thing_at
from quarterjack.stores._rows import (
    JOB_COLUMNS,
    JOB_STATE_COLUMNS,
    SCHEDULE_COLUMNS,
    SCHEDULE_STATE_COLUMNS,
    Column,
    Encoding,
)
from quarterjack.stores._stored_schedules import UnknownTrigger
from quarterjack.testing.strategies import triggers
from tests.stores.things import Broken, EveryOther, Lossy, Nameless, is_poor, is_worth_it

OWN: Final = {
    "send": RunOptions(timeout_s=5.0, queue="mail", retry=Retry(on=OSError, attempts=3)),
    "plain": RunOptions(),
}
KINDS: Final[dict[str, Any]] = {"int": int, "bool": bool, "text": str, "bytes": bytes}


class Zlib:
    """The codec of the guide."""

    def encode(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes) -> bytes:
        return zlib.decompress(data)


class Xor:
    """A codec with a key."""

    def __init__(self, key: int) -> None:
        self.key = key

    def encode(self, data: bytes) -> bytes:
        return bytes(byte ^ self.key for byte in data)

    decode = encode


def job(task: str = "plain", *args: Any, options: RunOptions | None = None, **kwargs: Any) -> JobRecord:
    """Return a job of *task*."""
    return JobRecord("k-1", task, args, kwargs, OWN.get(task, NO_OPTIONS) if options is None else options)


def schedule(trigger: Trigger | None = None, *args: Any, task: str = "plain", **payload: Any) -> Schedule:
    """Return a schedule as code declares it."""
    timing = Timing(trigger=Every(hours=1) if trigger is None else trigger)
    given: dict[str, Any] = {"task": task, "args": args, "options": OWN[task], **payload}
    return Schedule("s", timing, Payload(**given))


def same(one: Any, other: Any, kind: type[Any]) -> None:
    """Assert that two objects with slots agree in all of them."""
    for name in kind.__slots__:
        assert getattr(one, name) == getattr(other, name), name


# -- everything there and back ----------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\1"), min_size=1, max_size=8)
instants = st.integers(0, 2**63 - 1)
maybe_instants = st.none() | instants
numbers = st.floats(allow_nan=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
uniques = st.builds(
    Unique,
    names,
    st.sampled_from(["queued", "unfinished"]) | st.timedeltas(timedelta(microseconds=1), timedelta(days=999)),
    st.sampled_from(["return", "replace", "raise"]),
)
retries = st.builds(
    Retry,
    on=st.sampled_from([OSError, (OSError, Broken), is_worth_it, ()]),
    attempts=st.integers(1, 9),
    deadline=st.none() | st.floats(0.1, 9),
    base=st.floats(0, 9),
    jitter=st.sampled_from(["full", "none"]),
    on_result=st.sampled_from([None, is_poor]),
    give_up_on=st.sampled_from([(), Broken, is_worth_it]),
)


def run_options(own: RunOptions) -> st.SearchStrategy[RunOptions]:
    """Options of any job of a task whose own are *own*."""
    changes: dict[str, st.SearchStrategy[Any]] = {
        "queue": names,
        "priority": st.integers(0, 1_000),
        "timeout_s": st.none() | st.floats(0.1, 9),
        "cancel_grace_s": st.floats(0, 9),
        "retry": retries,
        "executor": st.sampled_from([None, "loop", "thread"]),
        "unique": st.none() | uniques,
        "delay_ns": instants,
        "run_at_ns": maybe_instants,
        "start_deadline_s": st.none() | st.floats(0.1, 9),
        "max_rescues": st.integers(0, 9),
        "store_result": st.booleans(),
        "max_result_bytes": st.integers(0, 9),
        "metadata": st.none() | st.dictionaries(texts, plain, max_size=3),
        "submitted_by": st.none() | texts,
        "cost": st.floats(0, 9),
    }
    assert changes.keys() == {field.name for field in fields(RunOptions) if field.init and field.compare}
    return st.fixed_dictionaries({}, optional=changes).map(lambda given: replace(own, **given))


@st.composite
def jobs(draw: st.DrawFn) -> JobRecord:
    """Any job, at any point of its life."""
    task = draw(st.sampled_from(["send", "plain", "unheard of"]))
    own = OWN.get(task, NO_OPTIONS)
    made = JobRecord(
        draw(names),
        task,
        tuple(draw(st.lists(plain, max_size=3))),
        draw(st.dictionaries(texts, plain, max_size=2)),
        draw(st.just(own) | run_options(own)),
        draw(st.none() | st.builds(SubmittedBy, texts, *[st.none() | texts] * 3)),
        draw(
            st.none()
            | st.builds(
                Origin,
                names,
                instants,
                instants,
                st.integers(0, 1_000),
                st.sampled_from(["schedule", "manual", "backfill"]),
            )
        ),
    )
    values: dict[str, st.SearchStrategy[Any]] = {
        "state": st.sampled_from(JobState),
        "reason": st.none() | names,
        "owner": st.none() | names,
        "overlap_key": st.none() | names,
        "parent": st.none() | names,
        "result": plain,
        "checkpoint": plain,
        "error": st.none() | st.builds(ErrorInfo, texts, texts, texts, st.none()),
        "progress": st.none() | st.builds(Progress, numbers, st.none() | numbers, texts),
        **dict.fromkeys(["attempt", "failures", "rescues", "run_at_ns"], instants),
        "order_at_ns": st.integers(-(2**63), 2**63 - 1),
        **dict.fromkeys(["cancel_requested", "zombie", "serial", "delay_born"], st.booleans()),
    }
    given = {"id", "task", "args", "kwargs", "options", "submitted_by", "origin", "lane", "queue", "priority"}
    for name in JobRecord.__slots__:
        if name not in given:
            setattr(made, name, draw(values.get(name, maybe_instants)))
    return made


def in_other_words(row: tuple[Any, ...], columns: tuple[Column, ...]) -> list[Any]:
    """Return a row as a database without booleans gives it back."""
    return [int(v) if c.kind == "bool" else v for v, c in zip(row, columns, strict=True)]


def fits(row: tuple[Any, ...], columns: tuple[Column, ...]) -> None:
    """Assert that every value is what its column takes."""
    for value, column in zip(row, columns, strict=True):
        if value is None:
            assert column.is_nullable, column
        else:
            assert type(value) is KINDS[column.kind], column
            assert column.kind != "text" or "\0" not in value


@given(jobs(), st.sampled_from([None, Zlib()]))
def test_a_job_comes_back_as_it_was(made: JobRecord, codec: Zlib | None) -> None:
    """A restart may change nothing about a job: not an instant, not an option, not one byte of its data."""
    encoding = Encoding(OWN.get, codec)
    row = encoding.job_row(made)
    fits(row, JOB_COLUMNS)
    found = Encoding(OWN.get, codec).record(in_other_words(row, JOB_COLUMNS))
    same(found, made, JobRecord)
    assert encoding.job_row(found) == row


def test_the_state_is_the_end_of_the_row() -> None:
    """Engines write a move by the state alone, which has to be the same columns in the same order."""
    made = job("send", 1)
    made.checkpoint, made.result, made.reason = [1], 2, "so"
    encoding = Encoding(OWN.get)
    assert encoding.job_row(made)[-len(JOB_STATE_COLUMNS) :] == encoding.job_state(made)
    assert JOB_COLUMNS[-len(JOB_STATE_COLUMNS) :] == JOB_STATE_COLUMNS
    row = schedule()
    assert encoding.schedule_row(row)[-len(SCHEDULE_STATE_COLUMNS) :] == encoding.schedule_state(row)
    assert SCHEDULE_COLUMNS[-len(SCHEDULE_STATE_COLUMNS) :] == SCHEDULE_STATE_COLUMNS


@given(st.data())
def test_a_schedule_comes_back_as_it_was(data: st.DataObject) -> None:
    """What was planned before a restart is fired after it, with the same rule, cursor and counts."""
    draw = data.draw
    task = draw(st.sampled_from(["send", "plain"]))
    timing = Timing(
        trigger=draw(
            triggers() | st.just(FixedDelay(seconds=3)) | st.just(EveryOther(first=datetime(2026, 1, 1, tzinfo=UTC)))
        ),
        jitter_ns=draw(instants),
        start_ns=draw(maybe_instants),
        end_ns=draw(maybe_instants),
    )
    payload = Payload(
        task=task,
        args=tuple(draw(st.lists(plain, max_size=2))),
        kwargs=draw(st.dictionaries(texts, plain, max_size=2)),
        options=draw(st.just(OWN[task]) | run_options(OWN[task])),
        overlap=draw(st.sampled_from([Overlap(), Overlap("queue_all", 3), Overlap("allow")])),
        overlap_key=draw(st.none() | names),
        missed=draw(st.sampled_from(["latest", "all", "skip"])),
        max_lateness_ns=draw(maybe_instants),
        max_catchup=draw(st.integers(1, 999)),
        max_runs=draw(st.none() | st.integers(1, 9)),
        pause_on_failure=draw(st.none() | st.integers(1, 9)),
    )
    made = Schedule(draw(names), timing, payload)
    made.trigger = draw(st.sampled_from([timing.trigger, Every(hours=5)]))
    values: dict[str, st.SearchStrategy[Any]] = {
        **dict.fromkeys(["version", "code_hash", "code_before", "pause_note"], st.none() | names),
        **dict.fromkeys(["last_job_id", "newest_job_id", "parked_reason"], st.none() | names),
        "last_state": st.none() | st.sampled_from(JobState),
        **dict.fromkeys(["generation", "revision", "created_at_ns", "cursor_ns", "runs"], instants),
        "failures_in_a_row": instants,
        **dict.fromkeys(["in_code", "is_plain"], st.booleans()),
    }
    for name in Schedule.__slots__:
        if name not in {"id", "timing", "payload", "trigger"}:
            setattr(made, name, draw(values.get(name, maybe_instants)))
    encoding = Encoding(OWN.get, draw(st.sampled_from([None, Zlib()])))
    row = encoding.schedule_row(made)
    fits(row, SCHEDULE_COLUMNS)
    assert dict(zip([c.name for c in SCHEDULE_COLUMNS], row, strict=True))["wake_ns"] == made.wake_ns
    found = encoding.schedule(in_other_words(row, SCHEDULE_COLUMNS))
    same(found, made, Schedule)
    assert encoding.schedule_row(found) == row
    same(encoding.settled(made), made, Schedule)


# -- options --------------------------------------------------------------------------------------


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


ODD_VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "text": texts | plain.map(json.dumps),
    "bytes": st.binary(max_size=8) | plain.map(lambda value: json.dumps(value).encode()),
}
"""What a later version, a hand in the tables or a restored backup may have left in a column of a kind."""


@given(jobs(), st.data())
def test_whatever_a_jobs_row_says_it_is_read(made: JobRecord, data: st.DataObject) -> None:
    """A row that raised would end every worker that claims it, one after the other, and count each as its death."""
    encoding = Encoding(OWN.get)
    row = [*encoding.job_row(made)]
    place = data.draw(st.integers(0, len(JOB_COLUMNS) - 1))
    row[place] = data.draw(ODD_VALUES[JOB_COLUMNS[place].kind])
    found = encoding.record(row)
    if JOB_COLUMNS[place].kind != "bytes":  # of these equal JSON is as good
        assert [*encoding.job_state(found)] == row[-len(JOB_STATE_COLUMNS) :], "and is written back as it was"


@given(st.data())
def test_whatever_a_schedules_row_says_it_is_read(data: st.DataObject) -> None:
    """One that raised would end every scheduler; it is parked here, and its row stays for who can read it."""
    encoding = Encoding(OWN.get)
    made = schedule(Every(hours=2), 1, max_runs=3, overlap=Overlap("queue_all"), options=replace(OWN["plain"], cost=2))
    row = [*encoding.schedule_row(made)]
    place = data.draw(st.integers(0, len(SCHEDULE_COLUMNS) - 1))
    row[place] = data.draw(ODD_VALUES[SCHEDULE_COLUMNS[place].kind])
    assert encoding.schedule_row(encoding.schedule(row)) is not None


@pytest.mark.parametrize(
    ("column", "text", "read"),
    [
        ("submitted_by", '["p","s",null,"text","region"]', lambda job: job.submitted_by == ("p", "s", None, "text")),
        ("submitted_by", '{"process":"p"}', lambda job: job.submitted_by is None),
        ("unique_scope", "per_shift", lambda job: job.options.unique == Unique("k")),
        ("unique_conflict", "ask", lambda job: job.options.unique == Unique("k")),
        ("options", '{"timeout_s":{"soft":1},"cost":2}', lambda job: job.options.cost == 2),
        ("options", "[]", lambda job: job.options == replace(OWN["plain"], unique=Unique("k"))),
        ("state", "paused", lambda job: not job.state.is_finished and not job.state.is_held),
    ],
)
def test_what_a_later_version_wrote_is_read_as_far_as_it_is_known(column: str, text: str, read: Any) -> None:
    """In a rolling deploy, and after a rollback, rows of the newer version are there and have to be lived with."""
    encoding = Encoding(OWN.get)
    row = [*encoding.job_row(job(options=replace(OWN["plain"], unique=Unique("k"))))]
    row[[one.name for one in JOB_COLUMNS].index(column)] = text
    found = encoding.record(row)
    assert read(found)
    assert [*encoding.job_state(found)] == row[-len(JOB_STATE_COLUMNS) :]


@pytest.mark.parametrize("text", ['{"overlap":["per_shift",1]}', '{"max_runs":', '{"options":{"unique":["k"]}}'])
def test_a_schedule_whose_payload_cannot_be_read_is_parked_here_alone(text: str) -> None:
    """Fired under another policy than was asked for, it would do harm; who can read it goes on."""
    encoding = Encoding(OWN.get)
    made = schedule(Every(hours=2), 1)
    made.next_nominal_ns = made.next_due_ns = 5
    row = [text if name == "payload" else value for name, value in columns_of(encoding.schedule_row(made))]
    found = encoding.schedule(row)
    assert found.wake_ns is None
    assert found.parked_reason is not None
    assert "cannot be read here" in found.parked_reason
    assert [*encoding.schedule_row(found)] == row


def columns_of(row: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """Return the values of a schedule's row with the names of their columns."""
    return [(column.name, value) for column, value in zip(SCHEDULE_COLUMNS, row, strict=True)]


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


# -- payloads -------------------------------------------------------------------------------------


def test_arguments_that_are_no_json_are_named() -> None:
    """The one to change among six arguments should not have to be guessed."""
    with pytest.raises(
        InvalidArguments, match=r"argument number 2 of plain, of type object, cannot be written as JSON"
    ):
        Encoding().job_row(job("plain", 1, object()))
    with pytest.raises(InvalidArguments, match=r"argument who of plain, of type Random,.*pass ids"):
        Encoding().job_row(job("plain", 1, who=Random()))


def test_arguments_that_are_too_large_are_named() -> None:
    """A store is no file server: a megabyte per job would slow everybody's claims."""
    with pytest.raises(InvalidArguments, match=r"takes up to 100; the largest is number 2, of type str, with 99 bytes"):
        Encoding(max_argument_bytes=100).job_row(job("plain", 1, "x" * 97))
    Encoding(max_argument_bytes=100).job_row(job("plain", "x" * 60))


def test_texts_that_no_database_keeps_are_spelled_out() -> None:
    """The end of a job is recorded whatever its reason and error hold: a NUL, half of a surrogate pair."""
    made = job()
    made.reason, made.error = "a\0b\ud800", ErrorInfo("OSError", "no \udcff", "\0")
    row = Encoding().job_row(made)
    fits(row, JOB_COLUMNS)
    found = Encoding().record(row)
    assert found.reason == "a\\x00b\\ud800"
    assert found.error == ErrorInfo("OSError", "no \\udcff", "\\x00")


def test_a_reason_is_told_from_a_coded_one() -> None:
    """Who cancels a job says what he likes, and reads it again; damaged ones are kept."""
    for reason in ("\x01abc", "two\nlines", "grün"):
        made = job()
        made.reason = reason
        assert Encoding().record(Encoding().job_row(made)).reason == reason.replace("\x01", "\\x01")
    place = [column.name for column in JOB_COLUMNS].index("reason")
    row = [*Encoding().job_row(job())]
    row[place] = "\x01!"
    found = Encoding(codec=Zlib()).record(row)
    assert found.reason == "its reason cannot be read"
    assert Encoding().job_row(found)[place] == "\x01!"


def test_a_result_that_is_no_json_becomes_an_error_of_the_result() -> None:
    """The body has run: the job stays done, and whoever awaits it learns why there is no result."""
    made = job()
    made.state, made.result = JobState.DONE, object()
    found = Encoding().record(Encoding().job_row(made))
    assert (found.state, found.result) == (JobState.DONE, None)
    assert found.error is not None
    assert found.error.type_name == "ResultNotSerializable"


def loaded() -> JobRecord:
    """Return a job with something in every payload."""
    made = job("plain", "secret", who="secret")
    made.result, made.checkpoint = "secret", {"secret": 1}
    made.error, made.progress = ErrorInfo("E", "secret", "secret"), Progress(1, 2, "secret")
    made.reason = "E: secret"
    return made


def test_every_payload_passes_the_codec() -> None:
    """What is encrypted is encrypted everywhere, in schedules too."""
    codec = Xor(7)
    assert b"secret" not in repr(Encoding(codec=codec).job_row(loaded())).encode()
    row = Encoding(codec=codec).schedule_row(schedule(None, "secret", kwargs={"who": "secret"}))
    assert "secret" not in repr(row)


def test_rows_from_before_the_codec_stay_readable() -> None:
    """Turning encryption on is no migration."""
    row = Encoding().job_row(loaded())
    same(Encoding(codec=Zlib()).record(row), loaded(), JobRecord)


@pytest.mark.parametrize("reader", [None, Xor(9), Zlib()], ids=["none", "wrong key", "other"])
def test_a_payload_that_cannot_be_read_says_why_and_is_kept(reader: Any) -> None:
    """With the wrong key nothing may be lost: the right one reads the rows again after they were moved."""
    row = Encoding(codec=Xor(7)).job_row(loaded())
    found = Encoding(codec=reader).record(row)
    for payload in (found.args, found.result, found.checkpoint):
        assert isinstance(payload, Unreadable)
        assert payload.reason
    assert found.kwargs == {}
    assert found.error is not None
    assert "cannot be read" in found.error.message
    assert "cannot be read" in str(found.reason)
    again = Encoding(codec=reader).job_row(found)
    assert again == row
    same(Encoding(codec=Xor(7)).record(again), loaded(), JobRecord)


@pytest.mark.parametrize("broken", [b"", b"[", b"{}", b"[1,2]", b"3", b"[[1],{},3]"])
def test_a_broken_payload_breaks_nothing_but_itself(broken: bytes) -> None:
    """One damaged row must not stop the claim of a hundred others."""
    row = [
        broken if column.kind == "bytes" else value
        for value, column in zip(Encoding().job_row(loaded()), JOB_COLUMNS, strict=True)
    ]
    found = Encoding().record(row)
    assert isinstance(found.args, Unreadable)
    assert Encoding().job_row(found)[6] == broken


def test_a_codec_that_cannot_write_refuses_the_job() -> None:
    """A job whose arguments were not encrypted as asked must not be stored at all."""

    class Failing(Xor):
        def encode(self, data: bytes) -> bytes:
            raise OSError("no key")

    with pytest.raises(StoreError, match=r"the codec Failing cannot write a payload: OSError: no key"):
        Encoding(codec=Failing(1)).job_row(loaded())


# -- schedules ------------------------------------------------------------------------------------


def test_a_trigger_that_is_no_json_is_refused_when_it_is_put() -> None:
    """A schedule that would be gone after the restart must not be taken."""
    with pytest.raises(
        InvalidTrigger, match=r"schedule 's' cannot be stored: Nameless: thing cannot be written as JSON"
    ):
        Encoding(OWN.get).settled(schedule(Nameless(thing=object())))
    with pytest.raises(InvalidTrigger, match=r"schedule 's' cannot be stored: .*would come back from the store as"):
        Encoding(OWN.get).settled(schedule(Lossy(thing=datetime(2026, 1, 1, tzinfo=UTC))))


def test_a_trigger_of_a_function_is_refused_when_it_is_put() -> None:
    """No other process could find its class."""

    class Inside(EveryOther):
        pass

    with pytest.raises(InvalidTrigger, match=r"Inside is defined inside a function.*top of a module"):
        Encoding(OWN.get).settled(schedule(Every(hours=1) | Inside(first=datetime(2026, 1, 1, tzinfo=UTC))))


def test_arguments_of_a_schedule_come_back_plain() -> None:
    """What is put is compared with what is stored: a tuple that JSON makes a list must not look like a change."""
    encoding = Encoding(OWN.get)
    put = encoding.settled(schedule(None, (1, 2), task="send"))
    assert put.payload.args == ([1, 2],)
    found = encoding.schedule(encoding.schedule_row(put))
    assert (found.timing, found.payload) == (put.timing, put.payload)
    assert encoding.settled(schedule(None, (1, 2), task="send")).payload == put.payload


def test_a_custom_trigger_is_found_by_a_process_that_has_not_imported_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that reads a schedule before any of its code has run must import the rule, not park it."""
    made = schedule(Every(hours=1) | EveryOther(first=datetime(2026, 1, 1, tzinfo=UTC)))
    row = Encoding(OWN.get).schedule_row(made)
    forget(monkeypatch, "EveryOther")
    monkeypatch.delitem(sys.modules, "tests.stores.things")
    found = Encoding(OWN.get).schedule(row)
    assert found.parked_reason is None
    assert found.timing.trigger.to_dict() == made.timing.trigger.to_dict()


def forget(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Make this process forget a kind of rule."""
    from quarterjack.triggers import _rule  # noqa: PLC0415  # the registry that is to forget

    monkeypatch.delitem(_rule._RULES, kind)


def test_policies_of_a_later_version_are_kept() -> None:
    """An older process that pauses a schedule must not strip what a newer one said of it."""
    encoding = Encoding(OWN.get)
    row = encoding.schedule_row(schedule(None, 1, max_runs=3))
    newer = tuple('{"max_runs":3,"mood":["good"]}' if value == '{"max_runs":3}' else value for value in row)
    assert newer != row
    found = encoding.schedule(newer)
    assert found.payload.max_runs == 3
    assert encoding.schedule_row(found) == newer


def test_a_trigger_that_is_gone_parks_its_schedule_here_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a rolling deploy the newer process goes on firing what the older one cannot even read."""
    made = schedule(EveryOther(first=datetime(2026, 1, 1, tzinfo=UTC)), 1)
    made.next_nominal_ns = made.next_due_ns = 5
    row = Encoding(OWN.get).schedule_row(made)
    with monkeypatch.context() as patch:
        forget(patch, "EveryOther")
        patch.setitem(sys.modules, "tests.stores.things", None)
        older = Encoding(OWN.get)
        found = older.schedule(row)
        assert isinstance(found.trigger, UnknownTrigger)
        assert found.wake_ns is None
        assert found.parked_reason is not None
        assert "cannot be rebuilt here" in found.parked_reason
        assert "EveryOther" in found.parked_reason or "things" in found.parked_reason
        assert older.schedule_row(found) == row
        found.paused_at_ns, found.runs = 7, 3  # an operator pauses it there
        moved = older.schedule_row(found.copy())
    back = Encoding(OWN.get).schedule(moved)
    assert (back.trigger, back.parked_reason, back.next_due_ns) == (made.trigger, None, 5)
    assert (back.paused_at_ns, back.runs) == (7, 3)
    assert back.payload == made.payload
