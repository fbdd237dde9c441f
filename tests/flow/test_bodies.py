"""What a `TaskManager` takes as a body, and what it says of one that fails."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from types import coroutine
from typing import Any
from unittest.mock import AsyncMock

import pytest

from quarterjack import (
    CircuitBreaker,
    ConcurrencyLimit,
    Deadline,
    Discard,
    Fallback,
    Flow,
    Hedge,
    InvalidArguments,
    Job,
    Resource,
    Retry,
    TaskManager,
    WeightedRoundRobin,
)
from quarterjack.testing import virtual_loop

LOG = "quarterjack.manager"


async def fetch(url: str, *, depth: int = 1) -> str:
    return url * depth


async def broken() -> None:
    raise ValueError("unseen")


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, bool]]:
    """Return level, text and whether a traceback goes with it, of what the manager said."""
    return [
        (record.levelname, record.getMessage().partition(") ")[2], record.exc_info is not None)
        for record in caplog.records
        if record.name == LOG
    ]


async def test_failure_that_nobody_awaits_is_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    """The bug: leaving the block was silent, and the stats knew of nothing."""
    async with TaskManager(ConcurrencyLimit(1)) as manager:
        manager.submit(broken)
        await manager.idle()
        assert manager.stats()["failed"] == 1
    assert logged(caplog) == [("ERROR", "failed in attempt 1: unseen", True)]
    assert caplog.records[0].task == broken.__qualname__  # type: ignore[attr-defined]  # as a log's handler reads it


async def test_each_way_to_fail_is_told_once_and_what_did_not_fail_is_not(caplog: pytest.LogCaptureFixture) -> None:
    """As in an app: no traceback of what a rule of the user's own refuses, no word of tries, stand-ins and cancels."""

    async def discards() -> None:
        raise Discard("nothing to say")

    caplog.set_level(logging.INFO)
    with virtual_loop():
        async with TaskManager(Flow(Retry(on=ValueError, attempts=3), CircuitBreaker(min_calls=100))) as manager:
            manager.submit(broken)
            manager.submit(discards)
            manager.options(timeout=1).submit(asyncio.sleep, 2)
            await manager.submit(asyncio.sleep, 9).cancel()
        async with TaskManager(Deadline(1)) as manager:
            manager.submit(asyncio.sleep, 2)
        async with TaskManager(Fallback(0)) as manager:
            manager.submit(broken)
    assert sorted(logged(caplog)) == [
        ("ERROR", "failed in attempt 3: unseen", True),
        ("INFO", "is discarded: nothing to say", False),
        ("WARNING", "is over: it was not done within its deadline of 1 s, waits and retries included", False),
        ("WARNING", "timed out in attempt 1: ran longer than its timeout of 1 s", False),
    ]


async def test_failing_stand_in_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A fallback is the last word, so nobody else would tell that it has none."""

    def stand_in(error: BaseException) -> None:
        raise LookupError("no cache")

    async with TaskManager(Fallback(stand_in)) as manager:
        manager.submit(broken)
    assert logged(caplog) == [("ERROR", "failed in attempt 1: no cache", True)]


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((1, 2, 3), {}, "too many positional arguments"),
        ((), {}, "missing a required argument: 'url'"),
        (("x",), {"dept": 2}, "got an unexpected keyword argument 'dept'"),
        (("x",), {"priority": 0}, r"'priority'; priority= is an option: manager.options\(priority=…\).submit\(fetch"),
    ],
)
@pytest.mark.parametrize("is_entered", [False, True], ids=["before", "inside"])
async def test_arguments_that_do_not_fit_are_refused_at_once(
    args: tuple[Any, ...], kwargs: dict[str, Any], said: str, is_entered: bool
) -> None:
    """Whoever wrote the call hears of it, not the log: as in an app."""
    manager: Any = TaskManager(Flow(ConcurrencyLimit(1), max_queue=1, overflow="block"))
    match = rf"fetch\(url: 'str', \*, depth: 'int' = 1\) -> 'str' cannot be called like that: .*{said}"
    if not is_entered:
        with pytest.raises(InvalidArguments, match=match):
            manager.submit(fetch, *args, **kwargs)
    async with manager:
        await manager.submit(fetch, "x")  # known to fit from now on, with this many
        with pytest.raises(InvalidArguments, match=match):
            manager.submit(fetch, *args, **kwargs)
        with pytest.raises(InvalidArguments, match=match):
            await manager.submit_wait(functools.partial(fetch), *args, **kwargs)
        assert manager.stats()["waiting"] == 0


async def test_body_that_asks_a_manager_for_its_resource_is_told_where_that_is() -> None:
    """Only an app fills in what a router chose; "missing a required argument" alone would be a riddle."""

    async def fetch(path: str, mirror: Resource[str]) -> None: ...

    async with TaskManager(WeightedRoundRobin(Resource("a", 1))) as manager:
        with pytest.raises(InvalidArguments, match=r"'mirror'; .* current_job\(\)\.resource"):
            manager.submit(fetch, "x")  # type: ignore[call-arg]


def annotated(n: int) -> int:
    return n


def returns_nothing() -> None: ...


def one_of_two(n: int) -> list[int] | None:
    return [n]


def generates() -> Iterator[int]:
    yield 1


async def streams() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("fn", "args", "said"),
    [
        (annotated, (1,), "annotated.* is no coroutine function: make it async def, or .*to_thread, annotated"),
        (returns_nothing, (), "is no coroutine function"),
        (one_of_two, (1,), "is no coroutine function"),
        (functools.partial(annotated, 1), (), "annotated.* is no coroutine function"),
        (generates, (), "generates is a generator function, which gives nothing to await"),
        (streams, (), "streams is an async generator function"),
        (int, (1,), "int is a class, which gives nothing to await"),
        (time.sleep, (1,), r"^sleep is no coroutine function: run it in a thread, submit\(asyncio.to_thread, sleep, …"),
        (functools.partial(time.sleep, 1), (), "sleep is no coroutine function"),
        (len, ("x",), "len is no coroutine function"),
    ],
)
async def test_function_that_gives_nothing_to_await_is_refused_at_once(
    fn: Any, args: tuple[Any, ...], said: str
) -> None:
    """It would run on the loop, block it, and fail when what it does is done."""
    async with TaskManager() as manager:
        with pytest.raises(InvalidArguments, match=said):
            manager.submit(fn, *args)


def passed_on(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(fn)
    def with_a_session(*args: Any, **kwargs: Any) -> Awaitable[Any]:
        return fn("session", *args, **kwargs)

    return with_a_session


@passed_on
async def decorated(session: str, n: int) -> int:
    return n


@coroutine
def old_style(n: int) -> Generator[Any, Any, int]:
    yield from asyncio.sleep(0).__await__()
    return n


class Client:
    async def get(self, n: int) -> int:
        return n

    async def __call__(self, n: int) -> int:
        return n

    def later(self, n: int) -> Awaitable[int]:
        return self.get(n)


class Numbers:
    def __init__(self, n: int) -> None:
        self.n = n

    def __aiter__(self) -> Numbers:
        return self

    async def __anext__(self) -> int:
        return self.n


class Later:
    def __init__(self, n: int) -> None:
        self.n = n

    def __await__(self) -> Generator[Any, Any, int]:
        yield from asyncio.sleep(0).__await__()
        return self.n


@pytest.mark.parametrize(
    "fn",
    [
        decorated,
        old_style,
        Client().get,
        Client(),
        Client().later,
        Later,
        AsyncMock(return_value=7),
        functools.partial(functools.partial(fetch), depth=7),
        lambda n: fetch("x", depth=n),
        lambda n: anext(Numbers(n)),
        lambda n: asyncio.get_running_loop().run_in_executor(None, int, n),
    ],
)
async def test_whatever_makes_something_to_await_is_taken(fn: Any) -> None:
    """What a decorator's wrapper, a lambda, a class give is known when they are called, and not before."""
    async with TaskManager(ConcurrencyLimit(1)) as manager:
        argument: Any = "x" if isinstance(fn, functools.partial) else 7
        assert await manager.submit(fn, argument) in {7, "xxxxxxx"}


async def test_built_in_function_that_gives_something_to_await_is_taken() -> None:
    """Some do."""
    async with TaskManager() as manager:
        gives: Any = anext
        assert await manager.submit(gives, Numbers(7)) == 7


@pytest.mark.parametrize("wraps", [(), (Hedge(after=1),)], ids=["bare", "wrapped"])
@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (lambda found: found, "<lambda> returned int, not something to await"),
        ({}.get, "get returned None, not something to await"),
    ],
    ids=["a value", "nothing"],
)
async def test_function_that_turns_out_to_give_nothing_to_await_fails_in_these_words(
    fn: Any, said: str, wraps: tuple[Hedge, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """It might have returned a coroutine: only its call tells. The bug: of None Python's own words were heard."""
    async with TaskManager(*wraps) as manager:
        job = manager.submit(fn, 1)
        with pytest.raises(InvalidArguments, match=rf"{said}: a manager runs .*submit\(asyncio.to_thread, \S+, …"):
            await job
    assert said in logged(caplog)[0][1]


async def test_type_error_of_a_call_is_not_taken_for_an_answer() -> None:
    """A body's own TypeError says what is wrong; that it returned None would be untrue."""
    fails: Any = lambda n: fetch(n + "x")
    async with TaskManager() as manager:
        job: Job[str] = manager.submit(fails, 1)
        with pytest.raises(TypeError, match="unsupported operand"):
            await job


async def test_bodies_that_swallow_their_cancellation_are_named_while_the_end_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ctrl-C was followed by half a minute of silence; whoever ends in a moment is not worth a line."""

    async def stubborn() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(20)

    async def orderly() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.5)

    with virtual_loop():
        async with TaskManager(grace=30) as manager:
            for _ in range(2):
                manager.submit(stubborn)
            manager.submit(orderly)
            await asyncio.sleep(1)
            await manager.stop(drain=False)
        async with TaskManager() as manager:
            manager.submit(orderly)
            await asyncio.sleep(1)
            await manager.stop(drain=False)
    (line,) = [record.getMessage() for record in caplog.records if record.name == LOG]
    assert line == (
        f"cancelled, and still running, so the end waits up to 30 s for them: {stubborn.__qualname__} (2 jobs)"
    )
