"""Jobs and schedules as rows: what goes in comes out, and whatever a row says, it is read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import (
    Every,
    FixedDelay,
    Overlap,
    Unique,
)
from quarterjack.model import (
    JobRecord,
    JobState,
    Payload,
    Schedule,
    Timing,
)
from quarterjack.stores._rows import (
    JOB_COLUMNS,
    JOB_STATE_COLUMNS,
    SCHEDULE_COLUMNS,
    SCHEDULE_STATE_COLUMNS,
    Column,
    Encoding,
)
from quarterjack.testing.strategies import triggers
from tests.stores.rows_kit import (
    OWN,
    Zlib,
    columns_of,
    fits,
    instants,
    job,
    jobs,
    maybe_instants,
    names,
    plain,
    run_options,
    same,
    schedule,
    texts,
)
from tests.stores.things import EveryOther


def in_other_words(row: tuple[Any, ...], columns: tuple[Column, ...]) -> list[Any]:
    """Return a row as a database without booleans gives it back."""
    return [int(v) if c.kind == "bool" else v for v, c in zip(row, columns, strict=True)]


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
