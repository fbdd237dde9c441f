"""Groups, dependencies, wrappers, and a body called without a queue."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest

from quarterjack import (
    CurrentJob,
    Depends,
    Every,
    Group,
    InvalidArguments,
    InvalidOption,
    JobState,
    NoCurrentJob,
    Quarterjack,
    ResultUnavailable,
    current_job,
)
from quarterjack.testing import virtual_time
from tests.app.kit import START, Boom


async def test_groups_nest_and_the_nearest_default_wins() -> None:
    """A package of tasks sets what suits it; a task may know better."""
    inner, outer = Group("inner", timeout=20, priority=1), Group("outer", timeout=10, retry=3, overlap="allow")

    @inner.task(Every(minutes=1))
    async def a() -> None: ...

    @inner.task(timeout=30)
    async def b() -> None: ...

    outer.include_group(inner)
    app = Quarterjack(timeout=5, queue="slow")
    app.include_group(outer)

    @app.task
    async def c() -> None: ...

    async with virtual_time(app) as world:
        assert (a.name, b.name, c.name) == ("outer.inner.a", "outer.inner.b", "c")
        facts = [(t.run_options.timeout_s, t.run_options.retry.attempts, t.run_options.queue) for t in (a, b, c)]
        assert facts == [(20, 3, "slow"), (30, 3, "slow"), (5, 1, "slow")]
        row = await app.store.schedules_get("outer.inner.a")
        assert row is not None
        assert row.payload.overlap.mode == "allow"
        await world.run_for("2m")
        assert len(world.runs("outer.inner.a")) == 2


def test_group_cannot_hold_itself() -> None:
    """A circle of groups would have no names."""
    one, two = Group("one"), Group("two")
    one.include_group(two)
    for wrong in (one, two):
        with pytest.raises(InvalidOption):
            two.include_group(one if wrong is two else two)


async def test_group_without_a_name_adds_none() -> None:
    """A group may be there for its defaults alone."""
    group = Group(timeout=3)

    @group.task
    async def plain() -> None: ...

    app = Quarterjack()
    app.include_group(group)
    async with virtual_time(app):
        assert (plain.name, plain.run_options.timeout_s) == ("plain", 3)


def one() -> int:
    return 1


async def in_the_type(name: str, a: Annotated[int, Depends(one)]) -> str:
    return f"{name}{a}"


# -- dependencies -------------------------------------------------------------------


async def test_dependencies_of_all_kinds_fill_parameters() -> None:
    """Plain, asynchronous, yielding, nested, as default and in the type."""
    app = Quarterjack()
    said: list[str] = []

    def plain() -> int:
        return 1

    async def asynchronous(one: int = Depends(plain)) -> int:
        return one + 1

    def yielding() -> Iterator[int]:
        said.append("in")
        yield 3
        said.append("out")

    async def both() -> AsyncIterator[int]:
        said.append("async in")
        yield 4
        said.append("async out")

    @app.task
    async def body(
        name: str,
        a: int = Depends(plain),
        b: int = Depends(asynchronous),
        c: int = Depends(yielding),
        d: int = Depends(both),
    ) -> str:
        said.append("body")
        return f"{name}{a}{b}{c}{d}"

    annotated: Any = app.task(in_the_type)
    async with virtual_time(app):
        assert await (await app.submit(body, "x")) == "x1234"
        assert await (await app.submit(annotated, "x")) == "x1"
        assert await app.call(body, "y") == "y1234"
    assert said[:5] == ["in", "async in", "body", "async out", "out"]


async def test_dependency_is_called_once_per_job() -> None:
    """Two parameters that share a connection share it."""
    app = Quarterjack()
    calls: list[int] = []

    def connection() -> int:
        calls.append(1)
        return len(calls)

    def user(c: int = Depends(connection)) -> int:
        return c

    @app.task
    async def body(a: int = Depends(user), b: int = Depends(connection)) -> list[int]:
        return [a, b]

    async with virtual_time(app):
        assert [await (await app.submit(body)) for _ in range(2)] == [[1, 1], [2, 2]]


async def test_overrides_take_a_dependencys_place_and_give_it_back() -> None:
    """Tests put their own connection in, before or while the app runs."""
    app = Quarterjack()

    def answer() -> int:
        return 42

    @app.task
    async def body(value: int = Depends(answer)) -> int:
        return value

    app.dependency_overrides[answer] = lambda: 43
    async with virtual_time(app):
        assert await (await app.submit(body)) == 43
        app.dependency_overrides[answer] = lambda: 44
        assert await app.call(body) == 44
        del app.dependency_overrides[answer]
        assert await (await app.submit(body)) == 42


async def test_dependency_of_a_plain_function_runs_in_its_thread() -> None:
    """A blocking connection belongs where the blocking body is."""
    app = Quarterjack()

    def where() -> str:
        return threading.current_thread().name

    @app.task
    def body(dependency: str = Depends(where)) -> list[str]:
        return [dependency, threading.current_thread().name]

    async with virtual_time(app):
        both = await (await app.submit(body))
        assert both[0] == both[1] != threading.current_thread().name


async def test_callable_instances_and_partials_are_tasks() -> None:
    """A task may carry its own state."""
    app = Quarterjack()

    class Greeter:
        def __init__(self, word: str) -> None:
            self.word = word

        async def __call__(self, name: str) -> str:
            return f"{self.word}, {name}"

    async def add(a: int, b: int) -> int:
        return a + b

    greet = app.task(name="greet")(Greeter("hello"))
    plus = app.task(name="plus")(functools.partial(add, 2))
    async with virtual_time(app):
        assert await (await app.submit(greet, "you")) == "hello, you"
        shown: object = await (await app.submit(greet, "it"))  # as in print(…): checkers infer from the outside in
        assert shown == "hello, it"
        assert await (await app.submit(plus, 3)) == 5


# -- around -------------------------------------------------------------------------


async def test_arounds_wrap_in_order_and_see_the_job() -> None:
    """The first registered is outermost, as with any stack of wrappers."""
    app = Quarterjack()
    said: list[str] = []
    for name in ("outer", "inner"):

        async def wrap(job: CurrentJob, proceed: Any, name: str = name) -> Any:
            said.append(f"{name} {job.task} {job.attempt}")
            result = await proceed()
            said.append(f"{name} done")
            return result + 1

        app.around(wrap)

    @app.task
    async def body() -> int:
        said.append("body")
        return 40

    @app.task
    def threaded() -> int:
        said.append("threaded")
        return 40

    async with virtual_time(app):
        assert await (await app.submit(body)) == 42
        assert said == ["outer body 1", "inner body 1", "body", "inner done", "outer done"]
        assert await (await app.submit(threaded)) == 42
        assert await app.call(body) == await app.call(threaded) == 42


async def test_around_may_replace_or_swallow() -> None:
    """What it returns or raises is the body's outcome."""
    app = Quarterjack()

    @app.around
    async def shield(job: CurrentJob, proceed: Any) -> Any:
        try:
            return await proceed()
        except Boom:
            return "shielded"

    @app.task
    async def bad() -> str:
        raise Boom

    async with virtual_time(app):
        assert await (await app.submit(bad)) == "shielded"


# -- current_job --------------------------------------------------------------------


async def test_current_job_tells_who_one_is_and_by_whom() -> None:
    """A body logs with its own facts, and knows who asked for it."""
    app = Quarterjack()
    told: dict[str, Any] = {}

    @app.task
    async def child() -> None:
        told["child"] = current_job().submitted_by

    @app.task
    async def parent() -> str:
        told["parent"] = current_job().submitted_by
        current_job().progress(1, 3, "calling")
        await (await app.submit(child))
        return current_job().id

    @app.task(Every(minutes=1))
    async def tick() -> None:
        told["tick"] = current_job()

    async with virtual_time(app, start=START) as world:
        job = await app.submit(parent.options(submitted_by="a person", metadata={"k": 1}))
        assert await job == job.id
        assert (told["parent"].text, told["parent"].parent) == ("a person", None)
        assert told["child"].parent == job.id
        assert job.progress == (1, 3, "calling")
        assert job.metadata == {"k": 1}
        await world.run_for("1m")
        assert told["tick"].submitted_by.schedule == "tick"
        assert told["tick"].nominal.isoformat() == "2026-03-02T09:01:00+00:00"


async def test_current_job_outside_a_body_is_an_error() -> None:
    """A helper that needs a job should say so, not get a None."""
    with pytest.raises(NoCurrentJob):
        current_job()
    app = Quarterjack()

    @app.task
    async def body() -> None: ...

    await body()
    async with virtual_time(app):
        await app.call(body)
        with pytest.raises(NoCurrentJob):
            current_job()


# -- call ---------------------------------------------------------------------------


async def test_call_runs_the_body_without_a_job_and_without_a_running_app() -> None:
    """A unit test wants the body with what it depends on, and its own error."""
    app = Quarterjack()

    @app.task(retry=5, timeout=1)
    async def body(n: int, plus: int = Depends(lambda: 1)) -> int:
        if n < 0:
            raise Boom
        return n + plus + current_job().attempt

    assert await app.call(body, 1) == 3
    assert await app.call(body.bind(2)) == 4
    with pytest.raises(Boom):
        await app.call(body, -1)
    with pytest.raises(InvalidArguments):
        await app.call(body)  # type: ignore[call-overload]
    async with virtual_time(app) as world:
        assert await app.call(body, 1) == 3
        assert world.jobs() == []


async def test_call_is_as_strict_as_the_app() -> None:
    """What a store would refuse is refused here."""
    app = Quarterjack()

    @app.task
    async def odd() -> object:
        return object()

    assert await app.call(odd)
    async with virtual_time(app):
        with pytest.raises(ResultUnavailable):
            await app.call(odd)


# -- drain --------------------------------------------------------------------------


async def test_drain_returns_when_nothing_due_is_left() -> None:
    """Jobs that submit jobs are waited for; what is due later is not."""
    app = Quarterjack(concurrency=2)

    @app.task
    async def tree(depth: int) -> None:
        await asyncio.sleep(1)
        if depth:
            await app.submit_many([tree.bind(depth - 1), tree.bind(depth - 1)])

    async with virtual_time(app) as world:
        later = await app.submit(tree.options(delay=3600), 0)
        await app.submit(tree, 3)
        await app.drain()
        assert world.outcomes().count("done") == 15
        assert later.state is JobState.SUBMITTED
        await app.drain()
        await world.drain()


async def test_drain_in_real_time_sees_the_end() -> None:
    """Scripts submit, drain and go."""
    app = Quarterjack()

    @app.task
    def threaded(n: int) -> int:
        return n

    async with app:
        jobs = await app.submit_many(threaded.bind(n) for n in range(20))
        await app.drain()
        assert {job.state for job in jobs} == {JobState.DONE}


def service() -> str:
    return "the user's"


async def asks_by_a_common_name(it: Annotated[str, Depends(service)]) -> str:
    return it


async def test_dependency_may_be_named_as_a_variable_of_ours() -> None:
    """Annotations that are texts mean the user's names, not those of whoever starts the app."""
    app = Quarterjack()
    task: Any = app.task(asks_by_a_common_name)
    async with app:
        assert await (await app.submit(task)) == "the user's"


async def test_plain_dependency_takes_no_virtual_time() -> None:
    """It may run in a thread: the clock must not jump over the body meanwhile."""
    app = Quarterjack()

    @app.task(Every(seconds=1))
    async def tick(value: int = Depends(one)) -> None: ...

    @app.task(Every(seconds=1))
    async def other() -> None: ...

    async with virtual_time(app) as world:
        await world.run_for(200)
        assert world.outcomes(tick) == ["done"] * 200
        assert {job.duration for job in world.jobs(tick)} == {0.0}
