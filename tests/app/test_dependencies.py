"""Dependencies: found however they are written, filled however they are called, left whatever ends the body."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from unittest.mock import AsyncMock, Mock

import pytest

import quarterjack
from quarterjack import (
    Depends,
    InvalidArguments,
    InvalidOption,
    JobFailed,
    JobState,
    JobTimedOut,
    OnStartup,
    Quarterjack,
)
from quarterjack.testing import virtual_time
from tests.app.kit import Boom, ends_as

if TYPE_CHECKING:
    from decimal import Decimal


def answer() -> int:
    return 42


async def resource() -> AsyncIterator[int]:
    yield 1


def decorated(fn: Callable[..., Any]) -> Any:
    """Make a task of *fn* in an app of its own."""
    return Quarterjack().task(fn)


# -- found ------------------------------------------------------------------------------

FIRST = """{future}
import asyncio
from typing import Annotated
from quarterjack import Depends, Quarterjack

def answer() -> int: return 42

{alias}
app = Quarterjack()

@app.task
async def ask(value: {hint}) -> int: return value

print(asyncio.run(app.call(ask)))
"""


@pytest.mark.parametrize("future", ["", "from __future__ import annotations"])
@pytest.mark.parametrize(
    ("alias", "hint"),
    [
        ("", "Annotated[int, Depends(answer)]"),
        ("Asked = Annotated[int, Depends(answer)]", "Asked"),
        pytest.param(
            "type Asked = Annotated[int, Depends(answer)]",
            "Asked",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="syntax of 3.12"),
        ),
    ],
)
def test_first_depends_of_a_program_is_seen_in_a_hint(tmp_path: Path, future: str, alias: str, hint: str) -> None:
    """Postponed hints load fast-depends when they are read, so nobody may ask before whether it is loaded."""
    (tmp_path / "program.py").write_text(FIRST.format(future=future, alias=alias, hint=hint))
    source = str(Path(quarterjack.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "42\n", done.stderr


async def test_hint_for_type_checkers_only_hides_no_dependency() -> None:
    """`if TYPE_CHECKING:` is what linters ask for; it must not make a dependency an argument."""
    app = Quarterjack()

    @app.task
    async def ask(value: Annotated[int, Depends(answer)], price: Decimal | None = None) -> int:
        return value

    task: Any = ask
    assert await app.call(task) == 42


async def test_dependency_may_be_a_local_function() -> None:
    """An app factory defines both inside one function, and postponed hints close over nothing."""

    def local() -> int:
        return 5

    def nested(inner: Annotated[int, Depends(local)]) -> int:
        return inner + 1

    app = Quarterjack()

    @app.task
    async def ask(value: Annotated[int, Depends(nested)]) -> int:
        return value

    task: Any = ask
    async with virtual_time(app):
        assert await (await app.submit(task)) == 6


def test_hint_with_depends_that_cannot_be_read_is_refused_at_the_decorator() -> None:
    """Not seen, it would fail at every fire with "missing argument"."""

    async def ask(price: Annotated[Decimal, Depends(answer)]) -> None: ...

    with pytest.raises(InvalidOption, match=r"price.*'Decimal' is not defined.*TYPE_CHECKING"):
        decorated(ask)


def test_missing_argument_with_an_unreadable_hint_says_that_it_may_be_a_dependency() -> None:
    """`conn: Conn` may be an alias of `Annotated[…, Depends(…)]`; nobody can know."""

    async def ask(price: Decimal) -> None: ...

    with pytest.raises(InvalidArguments, match="Decimal cannot be read"):
        decorated(ask).bind()


# -- refused at the decorator --------------------------------------------------------------


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("called", [coroutine, generator, resource])
def test_depends_of_a_result_is_told_to_take_the_function(called: Callable[[], Any]) -> None:
    """`Depends(f())` is the commonest slip; the message writes what is meant."""
    with pytest.raises(InvalidOption, match=rf"write Depends\({called.__name__}\)"):
        Depends(called())


def test_depends_of_a_value_is_refused() -> None:
    """A number fills nothing."""
    with pytest.raises(InvalidOption, match=r"takes a function.*got 42"):
        Depends(answer())  # type: ignore[call-overload]


@pytest.mark.parametrize("asynchronous", [coroutine, resource])
def test_asynchronous_dependency_of_a_plain_function_is_refused(asynchronous: Callable[[], Any]) -> None:
    """Its thread has no loop; this once came out of the app's start, without the task's name."""

    def inner(value: int = Depends(asynchronous)) -> int:
        return value

    def plain(value: int = Depends(inner)) -> int:
        return value

    with pytest.raises(InvalidOption, match=rf"plain is a plain function.*{asynchronous.__name__}.*async def plain"):
        decorated(plain)


def test_dependency_that_asks_for_what_the_task_does_not_take_is_refused() -> None:
    """It could never be called."""

    def user(name: str) -> str:
        return name

    async def greet(user: str = Depends(user)) -> None: ...

    with pytest.raises(InvalidOption, match="needs 'name', but greet has no argument"):
        decorated(greet)


def test_two_depends_on_one_parameter_are_refused() -> None:
    """Only one of them could win."""

    async def ask(value: Annotated[int, Depends(answer)] = Depends(coroutine)) -> None: ...

    with pytest.raises(InvalidOption, match="value has 2 Depends"):
        decorated(ask)


def chicken(value: Annotated[int, Depends(egg)]) -> int:  # pyright: ignore[reportUndefinedVariable]  # read later
    return value


def egg(value: Annotated[int, Depends(chicken)]) -> int:
    return value


def test_circle_of_dependencies_is_refused() -> None:
    """It would never end."""

    async def ask(value: int = Depends(chicken)) -> None: ...

    with pytest.raises(InvalidOption, match=r"chicken depends on itself: ask needs chicken needs egg needs chicken"):
        decorated(ask)


# -- filled ------------------------------------------------------------------------------


async def test_arguments_of_a_strict_app_go_to_their_own_parameters() -> None:
    """Checked against the dependency's hint, the text "7" would arrive as a number."""
    app = Quarterjack()

    @app.task
    async def fetch(value: Annotated[int, Depends(answer)], url: str) -> list[Any]:
        return [value, url]

    task: Any = fetch
    async with virtual_time(app):
        assert await (await app.submit(task, "7")) == [42, "7"]
        assert await (await app.submit(task, url="u")) == [42, "u"]


async def test_every_shape_of_signature_is_filled() -> None:
    """Positional-only, defaults, variadic, keyword-only: what a caller passes arrives where Python would put it."""
    app = Quarterjack()

    @app.task
    async def shape(
        a: int, /, b: int = 2, *rest: int, stack: int = 3, value: int = Depends(answer), **more: int
    ) -> list[Any]:
        return [a, b, list(rest), stack, value, more]

    task: Any = shape
    async with virtual_time(app):
        assert await (await app.submit(task, 1)) == [1, 2, [], 3, 42, {}]
        assert await (await app.submit(task, 1, 5, 6, 7, stack=8, nested=9)) == [1, 5, [6, 7], 8, 42, {"nested": 9}]


async def test_dependency_takes_an_argument_of_the_task_by_its_name() -> None:
    """A user is looked up by the id that the job was given, or by its default."""
    app = Quarterjack()

    def user(user_id: int, domain: str = "here") -> str:
        return f"{user_id}@{domain}"

    @app.task
    async def greet(user_id: int = 7, user: str = Depends(user)) -> str:
        return user

    assert await app.call(greet, 5) == "5@here"
    assert await app.call(greet) == "7@here"


async def test_parameters_of_one_name_are_filled_each_by_its_own_dependency() -> None:
    """`session` may mean one thing to the task and another to what it depends on."""
    app = Quarterjack()

    def other(value: int = Depends(answer)) -> int:
        return value

    @app.task
    async def ask(value: int = Depends(lambda: 1), other: int = Depends(other)) -> list[int]:
        return [value, other]

    assert await app.call(ask) == [1, 42]


async def test_use_cache_is_each_parameters_own() -> None:
    """Another task, or another parameter, that shares the dependency changes nothing for this one."""
    app = Quarterjack()
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made)

    @app.task
    async def thrice(
        x: int = Depends(make), y: int = Depends(make, use_cache=False), z: int = Depends(make)
    ) -> list[int]:
        return [x, y, z]

    @app.task
    async def once(x: int = Depends(make), y: int = Depends(make)) -> list[int]:
        return [x, y]

    async with virtual_time(app):
        assert await (await app.submit(thrice)) == [1, 2, 1]
        assert await (await app.submit(once)) == [3, 3]


async def test_whatever_can_be_called_can_be_a_dependency() -> None:
    """Classes, methods, partials, instances (without a hash too), and their asynchronous kinds."""
    app = Quarterjack()

    class Client:
        def __init__(self, base: Annotated[int, Depends(answer)]) -> None:
            self.base = base

        def port(self) -> int:
            return self.base + 1

    @dataclass
    class Asks:
        word: str

        async def __call__(self) -> str:
            return self.word

    def add(a: int, b: int) -> int:
        return a + b

    @app.task
    async def ask(
        client: Client = Depends(Client),  # noqa: B008
        port: int = Depends(Client(1).port),
        word: str = Depends(Asks("hello")),
        total: int = Depends(functools.partial(add, 1, 2)),
    ) -> list[Any]:
        return [client.base, port, word, total]

    assert await app.call(ask) == [42, 2, "hello", 3]


async def test_start_up_hook_takes_dependencies() -> None:
    """Hooks are called without arguments, and may depend on what jobs depend on."""
    app = Quarterjack()
    seen: list[int] = []

    @app.task(OnStartup())
    def warm_up(value: int = Depends(answer)) -> None:
        seen.append(value)

    async with virtual_time(app):
        assert seen == [42]


# -- replaced ----------------------------------------------------------------------------


async def test_replacement_may_depend_on_what_it_replaces() -> None:
    """A test wraps the real thing, deep inside another dependency as well."""
    app = Quarterjack()

    def more(value: int = Depends(answer)) -> int:
        return value + 1

    @app.task
    async def ask(value: int = Depends(more)) -> int:
        return value

    app.dependency_overrides[answer] = lambda value=Depends(answer): value * 10  # noqa: B008
    assert await app.call(ask) == 421


@pytest.mark.parametrize(
    "double", [AsyncMock(return_value=5), Mock(return_value=5), lambda: 5, functools.partial(int, "5")]
)
async def test_replacement_may_be_a_mock(double: Any) -> None:
    """They take anything, and are given nothing."""
    app = Quarterjack()

    @app.task
    async def ask(value: int = Depends(resource)) -> int:
        return value

    app.dependency_overrides[resource] = double
    assert await app.call(ask) == 5


async def test_replacement_that_cannot_work_fails_the_job_in_words() -> None:
    """A plain task cannot await a coroutine function, given later either."""
    app = Quarterjack()

    @app.task
    def ask(value: int = Depends(answer)) -> int:
        return value

    async with virtual_time(app):
        app.dependency_overrides[answer] = coroutine
        with pytest.raises(JobFailed, match="ask is a plain function"):
            await (await app.submit(ask))
        with pytest.raises(InvalidOption, match=r"write Depends\(coroutine\)"):
            app.dependency_overrides[answer] = coroutine()  # type: ignore[assignment]


# -- left --------------------------------------------------------------------------------


def session(seen: list[str]) -> Callable[[], Iterator[int]]:
    """Return a generator dependency that notes what ends it, and where."""

    def opened() -> Iterator[int]:
        try:
            yield 1
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        else:
            seen.append("commit")
        finally:
            seen.append("loop" if threading.current_thread() is threading.main_thread() else "thread")

    return opened


@pytest.mark.parametrize("end", ["commit", "Boom", "CancelledError"])
async def test_plain_generator_is_left_in_a_thread_by_what_ends_the_body(end: str) -> None:
    """A session that hears of no timeout keeps its transaction open until the collector comes by."""
    app, seen = Quarterjack(), list[str]()

    @app.task(timeout=1)
    async def work(value: int = Depends(session(seen))) -> None:
        if end == "Boom":
            raise Boom
        await asyncio.sleep(5 if end == "CancelledError" else 0)

    async with virtual_time(app):
        states = {"commit": JobState.DONE, "Boom": JobState.FAILED, "CancelledError": JobState.TIMED_OUT}
        await ends_as(await app.submit(work), states[end])
        assert seen == [end, "thread"]


def forgiving(seen: list[str]) -> Iterator[int]:
    try:
        yield 1
    except Boom:
        seen.append("roll back")


async def forgiving_too(seen: list[str]) -> AsyncIterator[int]:
    try:
        yield 1
    except Boom:
        seen.append("roll back")


async def test_generator_that_swallows_makes_no_success() -> None:
    """`except …: roll_back()` without `raise` is an oversight; the job has failed and is tried again."""
    app = Quarterjack()

    @app.task
    async def work(seen: list[str], a: int = Depends(forgiving), b: int = Depends(forgiving_too)) -> None:
        raise Boom

    @app.task
    def plain_work(seen: list[str], a: int = Depends(forgiving)) -> None:
        raise Boom

    task: Any
    for task, generators in ((work, 2), (plain_work, 1)):
        seen: list[str] = []
        with pytest.raises(Boom):
            await app.call(task, seen)
        assert seen == ["roll back"] * generators


async def test_cancellation_waits_for_both_halves_of_a_plain_generator() -> None:
    """A connection that was being opened is closed; one that was being closed is closed to its end."""
    app, said, go = Quarterjack(), list[str](), threading.Event()

    def slow() -> Iterator[int]:
        said.append("opening")
        go.wait(10)
        try:
            yield 1
        finally:
            said.append("closed")

    @app.task
    async def work(value: int = Depends(slow)) -> None:
        said.append("never")

    call = asyncio.ensure_future(app.call(work))
    while "opening" not in said:
        await asyncio.sleep(0.001)
    call.cancel()
    await asyncio.sleep(0.01)
    assert not call.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert said == ["opening", "closed"]


async def test_generators_of_a_plain_function_are_left_in_its_thread() -> None:
    """A blocking session belongs to the thread of the blocking body, also when that raises."""
    app, seen = Quarterjack(), list[str]()

    @app.task
    def work(value: int = Depends(session(seen))) -> None:
        raise Boom

    async with virtual_time(app):
        await ends_as(await app.submit(work), JobState.FAILED)
    assert seen == ["Boom", "thread"]


async def test_timeout_holds_while_a_plain_dependency_works_in_its_thread() -> None:
    """The first plain dependency of a process must not let virtual time run away over the job's timeout."""
    app = Quarterjack()

    @app.task(timeout=1)
    async def slow(value: int = Depends(session([]))) -> None:
        await asyncio.sleep(2)

    async with virtual_time(app):
        with pytest.raises(JobTimedOut):
            await (await app.submit(slow))
