"""Functions that are called plainly: a coroutine function in their place is refused where it is written."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from quarterjack import (
    AdaptiveLimit,
    CircuitBreaker,
    ConcurrencyLimit,
    Dedupe,
    Gate,
    InvalidOption,
    Order,
    Priority,
    Retry,
    SlidingWindow,
    StrategyAdapter,
    Stream,
    TaskManager,
    Wrap,
)
from quarterjack.events import EventStream


async def awaited(*_: Any) -> Any: ...


def generating(*_: Any) -> Any:
    yield


class Called:
    async def __call__(self, *_: Any) -> Any: ...

    async def method(self, *_: Any) -> Any: ...


class Pulls:
    """A strategy to adapt; its methods are given."""

    def __init__(self, **methods: Any) -> None:
        self.add_task = self.get_next_task = self.get_sleep_interval = print
        vars(self).update(methods)


async def orders() -> Any:
    yield 1


def given(fn: Any) -> Any:
    """Return *fn*, of any type: type checkers would refuse what is to be refused here."""
    return fn


WHERE: dict[str, Callable[[Any], Any]] = {
    "by": lambda fn: ConcurrencyLimit(1, by=fn),
    "by of a rate": lambda fn: SlidingWindow(1, per=60, by=fn),
    "by of Dedupe": Dedupe,
    "fair_by": lambda fn: Priority(fair_by=fn),
    "counts": lambda fn: CircuitBreaker(counts=fn),
    "counts of AdaptiveLimit": lambda fn: AdaptiveLimit(counts=fn),
    "on_change": lambda fn: CircuitBreaker(on_change=fn),
    "pressure": lambda fn: AdaptiveLimit(pressure=fn),
    "on": lambda fn: Retry(on=fn),
    "give_up_on": lambda fn: Retry(on=OSError, give_up_on=fn),
    "on_result": lambda fn: Retry(on=OSError, on_result=fn),
    "retry_after": lambda fn: Retry(on=OSError, retry_after=fn),
    "key": lambda fn: Stream(orders, key=fn),
    "value": lambda fn: Stream(orders, value=fn),
    "add_task": lambda fn: StrategyAdapter(given(Pulls(add_task=fn))),
    "get_next_task": lambda fn: StrategyAdapter(given(Pulls(get_next_task=fn))),
    "listener": lambda fn: EventStream().listen(fn),
}


@pytest.mark.parametrize("where", WHERE)
def test_a_coroutine_function_is_refused_where_a_plain_one_is_called(where: str) -> None:
    """The bug: each job had a key of its own, every answer was true, and the strategy did nothing, in silence."""
    field = where.split(maxsplit=1)[0]
    with pytest.raises(InvalidOption, match=f"{field}( of Pulls)? must be a plain function.*awaited is a coroutine f"):
        WHERE[where](awaited)


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (functools.partial(awaited, 1), "awaited is a coroutine function: write def"),
        (Called(), "Called is a coroutine function"),
        (Called().method, "method is a coroutine function"),
        (functools.partial(Called()), "Called is a coroutine function"),
        (generating, "generating is a generator function: let it return its answer"),
        (orders, "orders is an async generator function"),
    ],
    ids=["partial", "object", "method", "partial of an object", "generator", "asynchronous generator"],
)
def test_it_is_seen_however_it_was_made(fn: Any, said: str) -> None:
    """A partial, a bound method and an object that can be called are functions as good as any."""
    with pytest.raises(InvalidOption, match=said):
        ConcurrencyLimit(1, by=fn)


async def test_a_key_that_would_have_to_be_awaited_fails_its_job() -> None:
    """Only the call of a plain function tells that it calls a coroutine function; then it is told, at once."""
    async with TaskManager(ConcurrencyLimit(1, by=given(lambda job: awaited(job.task)))) as manager:
        with pytest.raises(InvalidOption, match="its by= returned a coroutine, and is not awaited; let it return"):
            await manager.submit(asyncio.sleep, 0)


@pytest.mark.parametrize("where", WHERE)
def test_plain_functions_are_taken_however_they_were_made(where: str) -> None:
    """A check that turns away what works would be worse than none."""

    class Plain:
        def __call__(self, *_: Any) -> Any: ...

    fns: list[Any] = [lambda *_: None, functools.partial(print, 1), Plain(), [].append]
    for fn in fns:
        WHERE[where](fn)


@pytest.mark.parametrize("method", ["eta", "take", "started", "give", "check"])
def test_a_gate_whose_methods_would_have_to_be_awaited_is_refused_as_a_class(method: str) -> None:
    """Its `take` would never have been run: it would be open to everybody."""
    with pytest.raises(InvalidOption, match=f"Mine.{method} must be a plain function"):
        type("Mine", (Gate,), {method: awaited})


@pytest.mark.parametrize("method", ["rank", "came", "chosen", "left", "check"])
def test_an_order_whose_methods_would_have_to_be_awaited_is_refused_as_a_class(method: str) -> None:
    """A job's rank cannot be waited for: it is asked in the step in which the job comes."""
    with pytest.raises(InvalidOption, match=f"Mine.{method} must be a plain function"):
        type("Mine", (Order,), {method: awaited})


def test_other_methods_of_a_strategy_may_be_awaited() -> None:
    """A gate may refresh itself by a coroutine of its own, and a wrap is one."""

    class Mine(ConcurrencyLimit):
        async def refresh(self) -> None: ...

    class Around(Wrap):
        async def __call__(self, job: Any, proceed: Any) -> Any: ...

    assert Mine(1).stats()["used"] == 0
    assert callable(Around())
