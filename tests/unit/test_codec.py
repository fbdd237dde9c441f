"""Arguments and results through JSON: refused where they are submitted, decoded where they run, else orphaned."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from random import Random
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from pydantic_core import from_json, to_json

from quarterjack import Depends, InvalidArguments, InvalidOption, PayloadCodec, Quarterjack, StoreError, Unique
from quarterjack._payload import Unreadable
from quarterjack.codec import CallCodec, ResultCodec, decode_call, decode_result
from quarterjack.errors import Orphaned
from quarterjack.job import error_of
from quarterjack.model import ErrorInfo, JobRecord, JobState, RunOptions
from quarterjack.task import TaskDefinition


class Colour(Enum):
    RED = "red"


class Order(BaseModel):
    number: int
    at: datetime


@dataclass
class Point:
    x: float
    y: float


def connection() -> str:
    return "db"


def send(to: str, n: int = 1, when: datetime | None = None, *rest: timedelta, tag: Colour = Colour.RED) -> None: ...


def simple(text: str, count: int, ratio: float = 1.0, flag: bool = False, anything: Any = None, bare=None) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001


def with_connection(number: int, db: Annotated[str, Depends(connection)]) -> None: ...


def task(fn: Callable[..., Any]) -> TaskDefinition:
    return TaskDefinition(fn, fn.__name__, {}, {})


def stored(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments as a durable store gives them back."""
    found_args, found_kwargs = from_json(to_json((args, kwargs)))
    return tuple(found_args), found_kwargs


values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.lists(st.integers())
)


@given(st.lists(values, min_size=2, max_size=6))
def test_a_body_gets_the_same_after_a_store_as_strict_says(args: list[Any]) -> None:
    """The short way past JSON for plain values must not show: what passes strict is what runs later."""
    definition = task(simple)
    try:
        expected = CallCodec(definition).round_trip(tuple(args), {})
    except InvalidArguments:
        with pytest.raises(Orphaned):
            decode_call(definition, *stored(tuple(args), {}))
        return
    found = decode_call(definition, *stored(tuple(args), {}))
    assert found == expected
    assert [type(value) for value in found[0]] == [type(value) for value in expected[0]]


def test_arguments_are_decoded_by_their_hints() -> None:
    """A body that takes a datetime must not get a text because the process restarted."""
    args: tuple[Any, ...] = ("a", 2, datetime(2026, 1, 1), timedelta(seconds=3), timedelta(seconds=4))
    kwargs = {"tag": Colour.RED}
    assert decode_call(task(send), *stored(args, kwargs)) == (args, kwargs)

    def typed(order: Order, point: Point, path: Path, uuid: UUID, many: dict[int, tuple[int, ...]]) -> None: ...

    arguments = (Order(number=1, at=datetime(2026, 1, 1)), Point(1, 2), Path("x"), UUID(int=3), {1: (2, 3)})
    assert decode_call(task(typed), *stored(arguments, {}))[0] == arguments
    assert CallCodec(task(typed)).round_trip(arguments, {})[0] == arguments


def several(a: int, /, b: Colour, *rest: timedelta, c: float = 0.5, **others: datetime) -> None: ...


AT = datetime(2026, 1, 1)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1, Colour.RED), {}),
        ((1,), {"b": Colour.RED}),
        ((1, Colour.RED, timedelta(1), timedelta(2)), {"c": 1.5, "later": AT}),
        ((1,), {"later": AT, "b": Colour.RED, "a": AT, "rest": AT}),
    ],
    ids=["by position", "by name", "all", "names of others"],
)
def test_a_call_stays_as_it_was_written(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Strategies look at `args` and `kwargs`: what one store moves from one to the other, they miss."""
    definition = task(several)
    for found in (
        CallCodec(definition).round_trip(args, kwargs),
        decode_call(definition, *stored(args, kwargs)),
    ):
        assert found == (args, kwargs)
        assert list(found[1]) == list(kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [(("a", 1, 1.0, True, 1, 2, 3), {}), (("a", 1), {"more": 1})],
    ids=["too many", "unknown name"],
)
def test_calls_that_do_not_fit_are_refused_before_they_are_written(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """A schedule's call may be of another version of its task when it is put anew."""
    with pytest.raises(InvalidArguments, match=r"simple.* cannot be called like that"):
        CallCodec(task(simple)).round_trip(args, kwargs)


def test_dependencies_are_no_arguments() -> None:
    """They are filled in when the body runs."""
    assert decode_call(task(with_connection), (3,), {}) == ((3,), {})


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((), {}, r"missing a required argument: 'to'"),
        (("a",), {"colour": "red"}, r"unexpected keyword argument 'colour'"),
        (("a", "many"), {}, r"argument n of send: Input should be a valid integer.*got 'many'"),
        (("a", 1, None, "x"), {}, r"argument rest of send: Input should be a valid duration"),
        (("a",), {"tag": "blue"}, r"argument tag of send: Input should be 'red'"),
        ((Unreadable(b"?", "wrong key"),)[0], {}, r"its arguments cannot be read: wrong key"),
    ],
    ids=["missing", "unexpected", "type", "of many", "choice", "unreadable"],
)
def test_arguments_that_fit_no_more_orphan_the_job(args: Any, kwargs: dict[str, Any], why: str) -> None:
    """After a deploy a stored call may not fit its task: that is no failure of the job, and has to be told."""
    with pytest.raises(Orphaned, match=rf"^no job of 'send' can run here: .*{why}") as caught:
        decode_call(task(send), args, kwargs)
    assert isinstance(caught.value, StoreError)
    assert caught.value.task == "send"
    assert "fit send(to" in caught.value.why or isinstance(args, Unreadable)


def test_one_argument_too_few_or_too_many_is_found_on_the_short_way_too() -> None:
    """Plain arguments alone do not make a call that fits."""
    for args in (("a",), ("a", 1, 1.0, True, 1, 2, 3)):
        with pytest.raises(Orphaned, match="argument"):
            decode_call(task(simple), args, {})


@pytest.mark.parametrize(
    "value", [object(), Random(), "\ud800", b"\xff", [open]], ids=lambda value: type(value).__name__
)
def test_what_is_no_json_is_refused_by_its_name(value: Any) -> None:
    """Named with its type, the argument to change is found at once."""
    with pytest.raises(InvalidArguments, match=rf"argument anything of simple, of type {type(value).__name__},"):
        CallCodec(task(simple)).round_trip(("a", 1, 1.0, True, value), {})


def test_large_arguments_are_refused_by_the_name_of_the_largest() -> None:
    """Six arguments, one of them a file's content: it should not have to be guessed which."""
    codec = CallCodec(task(simple), max_bytes=2_000)
    with pytest.raises(
        InvalidArguments, match=r"simple take 20\d\d bytes of JSON.* up to 2000; the largest is text, of type str"
    ):
        codec.round_trip(("x" * 2_000, 1), {})
    codec.round_trip(("x" * 1_900, 1), {})


def test_a_hint_that_restricts_is_asked() -> None:
    """A plain value under a hint that is more than its type takes the long way."""

    def small(n: Annotated[int, Field(lt=10)], *, m: Annotated[int, ["no hash"]] = 1) -> None: ...

    with pytest.raises(InvalidArguments, match="less than 10"):
        CallCodec(task(small)).round_trip((11,), {})
    with pytest.raises(Orphaned, match="less than 10"):
        decode_call(task(small), (11,), {})


def returns(hint: Any) -> TaskDefinition:
    """Return a task whose result has *hint*."""

    def body() -> None: ...

    body.__annotations__["return"] = hint
    return task(body)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, 3),
        (datetime, datetime(2026, 1, 1)),
        (Order, Order(number=1, at=datetime(2026, 1, 1))),
        (Any, [1]),
        (None, None),
    ],
    ids=repr,
)
def test_a_result_comes_back_by_its_hint(hint: Any, value: Any) -> None:
    """Whoever awaits a job gets the same in the process that ran it and in any other."""
    plain = from_json(to_json(value))
    assert decode_result(returns(hint), plain) == value == ResultCodec(returns(hint)).round_trip(value, 10_000)


def test_a_result_that_does_not_fit_its_hint_is_plain() -> None:
    """The body has run; its hint is no reason to withhold what it returned."""
    assert decode_result(returns(int), "three") == "three"
    assert decode_result(None, [1]) == [1]
    assert isinstance(decode_result(returns(int), Unreadable(b"", "so")), Unreadable)
    assert math.isnan(ResultCodec(returns(float)).round_trip(math.nan, 9_999))


def test_a_short_limit_of_results_is_kept() -> None:
    """The short way must not let pass what ``max_result_bytes`` forbids."""
    with pytest.raises(ValueError) as caught:
        ResultCodec(returns(str)).round_trip("x" * 20, 10)
    assert isinstance(caught.value.args[0], ErrorInfo)


def test_whoever_awaits_a_job_learns_why_its_result_cannot_be_read() -> None:
    """With the wrong key a finished job must not seem to have returned nothing."""
    record = JobRecord("k-1", "send", (), {}, RunOptions())
    record.state, record.result = JobState.DONE, Unreadable(b"?", "wrong key")
    assert str(error_of(record)) == "job k-1 is done, but its result is not available: it cannot be read: wrong key"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"codec": zlib}, r"codec must be an object with encode\(data\) and decode\(data\)"),
        ({"codec": PayloadCodec}, "codec must be an object"),
        ({"max_argument_bytes": 10}, "max_argument_bytes must be a whole number from 1000 to 268435456, got 10"),
        ({"max_argument_bytes": True}, "max_argument_bytes must be a whole number"),
    ],
    ids=["module", "class", "too small", "no number"],
)
def test_an_app_refuses_what_is_no_codec(options: dict[str, Any], words: str) -> None:
    """Found at the first job, a wrong codec would have cost that job."""
    with pytest.raises(InvalidOption, match=words):
        Quarterjack(**options)


@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=["NUL", "surrogate"])
def test_a_name_that_no_database_keeps_is_refused(name: str) -> None:
    """On the memory store too: it is found at the desk, not after the move to a server."""
    app = Quarterjack()

    @app.task
    async def work() -> None: ...

    for option in ("queue", "unique"):
        given: Any = {option: name}
        with pytest.raises(InvalidOption, match=f"{option} must hold no NUL"):
            work.options(**given)
    with pytest.raises(InvalidOption, match="unique must hold no NUL"):
        Unique(name)
    with pytest.raises(InvalidOption, match="name must hold no NUL"):
        app.task(name=name)(work.__wrapped__)
