"""Jobs and schedules of every kind for tests of rows, and what must hold for a row."""

from __future__ import annotations

import zlib
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any, Final

from hypothesis import strategies as st

from quarterjack import (
    Every,
    Progress,
    Retry,
    SubmittedBy,
    Trigger,
    Unique,
)
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
from quarterjack.stores._rows import (
    SCHEDULE_COLUMNS,
    Column,
)
from tests.stores.things import Broken, is_poor, is_worth_it

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


def fits(row: tuple[Any, ...], columns: tuple[Column, ...]) -> None:
    """Assert that every value is what its column takes."""
    for value, column in zip(row, columns, strict=True):
        if value is None:
            assert column.is_nullable, column
        else:
            assert type(value) is KINDS[column.kind], column
            assert column.kind != "text" or "\0" not in value


def columns_of(row: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """Return the values of a schedule's row with the names of their columns."""
    return [(column.name, value) for column, value in zip(SCHEDULE_COLUMNS, row, strict=True)]
