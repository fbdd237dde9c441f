"""What is written wrongly is refused where it is written, in words that name it, what there is, and what was meant."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from quarterjack import (
    AdaptiveLimit,
    Batch,
    Between,
    CircuitBreaker,
    CircuitOpen,
    ConcurrencyLimit,
    Deadline,
    Ended,
    EndKind,
    Fallback,
    Flow,
    FlowRefused,
    Gate,
    Group,
    Hedge,
    InvalidOption,
    InvalidTrigger,
    Order,
    Pressure,
    Priority,
    Quarterjack,
    QueueFull,
    Resource,
    Retry,
    RetryBudget,
    SlidingWindow,
    TaskManager,
    Timeout,
    TimeWindow,
    Waiting,
    Weekdays,
    WeightedRoundRobin,
    current_job,
)
from quarterjack.testing import virtual_loop

APP: Any = Quarterjack()
WINDOW: Any = SlidingWindow(1, per=1)
EVERYTHING: Any = {
    one.__name__: one
    for one in (
        *(AdaptiveLimit, Batch, CircuitBreaker, ConcurrencyLimit, Deadline, Fallback, Flow, Hedge, Pressure),
        *(Priority, Resource, RetryBudget, SlidingWindow, TaskManager, Timeout),
    )
}


async def many(rows: list[int]) -> list[int]:
    return rows


@pytest.mark.parametrize(
    ("call", "said"),
    [
        *((lambda one=one: one(nonsense=1), f"{name} has no option 'nonsense'; ") for name, one in EVERYTHING.items()),
        (lambda: EVERYTHING["ConcurrencyLimit"](max_concurent=5), r"'max_concurent'; did you mean 'max_concurrent'\?"),
        (lambda: EVERYTHING["ConcurrencyLimit"](limit=5), "it takes max_concurrent, by, reentrant, name"),
        (lambda: EVERYTHING["SlidingWindow"](30), "SlidingWindow needs per; it takes max_requests, per, smooth"),
        (lambda: EVERYTHING["Timeout"](1, seconds=1), "Timeout got seconds twice"),
        (
            lambda: EVERYTHING["TaskManager"](max_concurrent=5),
            r"'max_concurrent'; write TaskManager\(ConcurrencyLimit\(5\)\)",
        ),
        (
            lambda: EVERYTHING["CircuitBreaker"](scope="fleet"),
            "'scope'; it holds in one process: ConcurrencyLimit, Slid",
        ),
        (lambda: EVERYTHING["Flow"](max_que=3), "'max_que'; did you mean 'max_queue'"),
        (lambda: APP.batch(100), r"Quarterjack.batch takes its options by name, got 1 by position; it takes max_size"),
        (lambda: APP.batch(many), "it takes max_size, max_wait, max_bytes, on_error"),
        (lambda: APP.batch(size=10), "has no option 'size'; did you mean 'max_size'"),
        (lambda: APP.batch(priority=1), "Quarterjack.batch needs max_size"),
        (lambda: Group("g").batch(), "Group.batch needs max_size"),  # type: ignore[call-arg]  # the case
        (lambda: APP.queue("q", WINDOW), "Quarterjack.queue takes name by position, all else by name, got 2"),
        (lambda: TaskManager().batch(many), "TaskManager.batch needs max_size"),  # type: ignore[call-arg]  # the case
        (lambda: WINDOW.penalise(30), "SlidingWindow.penalise takes its options by name, got 1 by position"),
        (lambda: WINDOW.penalise(30, tenant="a"), "takes its options by name, got 1"),
        (lambda: WINDOW.penalise(until="Wed"), "until must be a datetime with a zone, got 'Wed'; for_= takes seconds"),
    ],
)
def test_a_call_that_does_not_fit_says_what_would(call: Callable[[], Any], said: str) -> None:
    """Not a TypeError about an ``__init__`` of a class that nobody has heard of."""
    with pytest.raises(InvalidOption, match=said) as caught:
        call()
    assert not isinstance(caught.value, InvalidTrigger)


def test_a_mistake_inside_is_not_taken_for_one_of_the_call() -> None:
    """Whose own code raises a TypeError is to see that."""

    class Mine(ConcurrencyLimit):
        def __init__(self) -> None:
            super().__init__(2)
            len(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the case

    with pytest.raises(TypeError, match="has no len"):
        Mine()
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        Mine(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # the user's own class is left alone


@pytest.mark.parametrize(
    "kinds",
    [OSError, (OSError, FlowRefused), [OSError, FlowRefused], {OSError, FlowRefused}],
    ids=["type", "tuple", "list", "set"],
)
def test_exception_types_are_one_or_several_wherever_they_are_asked_for(kinds: Any) -> None:
    """A list here and a tuple there are nothing to remember."""
    retry, fallback = Retry(on=kinds, give_up_on=kinds), Fallback(1, on=kinds)
    stored: Any = retry.on
    assert set(fallback.on) == set(stored) == ({OSError} if kinds is OSError else {OSError, FlowRefused})
    for counting in (CircuitBreaker(counts=kinds), AdaptiveLimit(counts=kinds)):
        assert counting._judge(Ended(EndKind.RAISED, OSError())) is True
        assert counting._judge(Ended(EndKind.RAISED, KeyError())) is False


def test_what_is_no_exception_type_is_refused_by_each() -> None:
    """Among several, too."""
    wrong: Any
    for wrong in ([OSError, 5], (), "OSError", int):
        with pytest.raises(InvalidOption, match="must be exception types"):
            CircuitBreaker(counts=wrong)
    for wrong in ([OSError, 5], "OSError", int, 5):
        with pytest.raises(InvalidOption, match="on of Fallback must be exception types"):
            Fallback(1, on=wrong)
        with pytest.raises(InvalidOption, match="on must be exception types"):
            Retry(on=wrong)


@pytest.mark.parametrize(
    "strategy", [Timeout(3), Deadline(3), Retry(on=OSError), Fallback(1), Hedge(after=1), Priority()]
)
def test_any_strategy_alone_is_a_flow_of_one(strategy: Any) -> None:
    """A TaskManager takes it, so tasks, groups and queues do."""
    app: Any = Quarterjack(flow=strategy)
    app.queue("q", flow=strategy)
    app.task(flow=strategy)(many)
    with pytest.raises(InvalidOption, match=r"flow must be a Flow .*\(put them into one: Flow\(…, …\)\)"):
        app.task(flow=[strategy, ConcurrencyLimit(1)])


def test_windows_that_are_written_as_rules_are_told_how() -> None:
    """Both are a guess that the names of triggers invite."""
    with pytest.raises(InvalidTrigger, match=r"a TimeWindow takes both as a list, \[Weekdays\(.*, Between\("):
        _ = Weekdays("mon-fri") & Between("09:00", "17:00")
    with pytest.raises(InvalidOption, match=r"got a text; write Cron\('0 2 \* \* \*'\)"):
        TimeWindow("0 2 * * *")  # type: ignore[arg-type]  # the case
    with pytest.raises(InvalidOption, match=r"got a text; write Between\('09:00', '17:00'\)"):
        TimeWindow("09:00-17:00")  # type: ignore[arg-type]  # the case


def test_where_an_adaptive_limit_begins_follows_its_bounds() -> None:
    """The bug: AdaptiveLimit(max=5) was refused for an initial=10 that nobody gave."""
    assert [AdaptiveLimit(max=5).limit, AdaptiveLimit(min=20).limit, AdaptiveLimit().limit] == [5, 20, 10]
    with pytest.raises(InvalidOption, match="initial must be a whole number from 1 to 5, got 10"):
        AdaptiveLimit(10, max=5)


@pytest.mark.parametrize("named", ["7", "7.5", 7])
def test_a_header_with_seconds_is_a_pause_as_it_is(named: Any) -> None:
    """Most who have a Retry-After have it as text; the bug: the job died of it."""
    retry = Retry(on=OSError, retry_after=lambda _: named)
    assert retry.pause_s(1, Random(0), OSError()) == float(named)
    with pytest.raises(InvalidOption, match="what retry_after returned must be"):
        Retry(on=OSError, retry_after=lambda _: "Wed, 21 Oct").pause_s(1, Random(0), OSError())  # type: ignore[arg-type, return-value]


# -- gates and orders of one's own ----------------------------------------------------------


class Answers(Gate):
    def __init__(self, answer: Any) -> None:
        super().__init__(name="mine")
        self.answer = answer

    def eta(self, job: Waiting, now: float) -> float:
        return self.answer(now)  # type: ignore[no-any-return]


async def coroutine(now: float) -> float:
    return now


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda now: None, "eta of mine returned None; it must be an instant in monotonic seconds"),
        (lambda now: False, "eta of mine returned False"),
        (lambda now: True, "eta of mine returned True"),
        (str, "eta of mine returned '"),
        (coroutine, "eta of mine returned <coroutine object"),
        (lambda now: math.nan, "eta of mine returned nan; it must be an instant"),
    ],
)
async def test_an_eta_that_is_no_instant_is_named(answer: Any, said: str) -> None:
    """The bugs: False let everybody in, None failed the job with a riddle about '<='."""
    gate = Answers(answer)
    async with TaskManager(gate) as manager:
        job = manager.submit(asyncio.sleep, 0)
        with pytest.raises(InvalidOption, match=said):
            await job
    if answer is not coroutine and "nan" not in said:
        with pytest.raises(InvalidOption, match=said):
            async with gate:
                pytest.fail("it was let in")


async def test_numbers_of_all_sorts_are_instants() -> None:
    """An int, and what another library calls a number."""

    class Number:
        def __float__(self) -> float:
            return 0.0

    for answer in (int, lambda now: Number(), lambda now: 0):
        async with TaskManager(Answers(answer)) as manager:
            assert await manager.submit(asyncio.sleep, 0, "in") == "in"


async def test_a_rank_that_is_no_instant_is_named() -> None:
    """A tuple seems natural to who knows sort keys."""

    class Mine(Order):
        def rank(self, job: Waiting, now: float) -> float:
            return (1, 2)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # the case

    async with TaskManager(Mine(), ConcurrencyLimit(1)) as manager:
        with pytest.raises(InvalidOption, match=r"rank of Mine returned \(1, 2\); it must be an instant"):
            manager.submit(asyncio.sleep, 0)


async def test_a_key_function_that_raises_names_its_gate() -> None:
    """Out of submit came an IndexError of nobody's."""
    async with TaskManager(ConcurrencyLimit(1, by=lambda job: job.args[1], name="hosts")) as manager:
        with pytest.raises(
            InvalidOption, match="hosts: its by= raised IndexError: tuple index out of range; it gets the job"
        ):
            manager.submit(asyncio.sleep, 0)


# -- keys, metadata, words --------------------------------------------------------------------


async def test_metadata_is_where_a_key_is_found_first() -> None:
    """As in an app; what key= adds is beside it, and wins."""
    limit = ConcurrencyLimit(1, by="tenant")
    seen: list[Any] = []

    async def look() -> None:
        seen.append((limit.keys(), current_job().metadata))

    async with TaskManager(limit) as manager:
        await manager.options(metadata={"tenant": "a"}).submit(look)
        await manager.options(key={"tenant": "b"}, metadata={"tenant": "x", "n": 1}).submit(look)
        assert seen == [(["a"], {"tenant": "a"}), (["b"], {"tenant": "x", "n": 1})]
        with pytest.raises(InvalidOption, match=r"metadata must be a mapping such as .*, got 'tenant'"):
            manager.options(metadata="tenant")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the case


async def test_who_has_no_key_is_told_how_to_give_one() -> None:
    """Each way to pass a gate has its own."""
    limit = ConcurrencyLimit(1, by="tenant")
    with pytest.raises(InvalidOption, match=r"give it one: permit\(tenant=…\)"):
        async with limit:
            pass
    app = Quarterjack()
    task = app.task(many)
    with pytest.raises(
        InvalidOption, match=r'has no option \'key\': what a gate with by="tenant" goes by is found in metadata='
    ):
        task.options(key={"tenant": "a"})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # the case


async def test_room_that_blocks_is_not_advised_to_block() -> None:
    """It does; what is missing is the await."""
    async with TaskManager(Flow(ConcurrencyLimit(1), max_queue=1, overflow="block")) as manager:
        jobs = [manager.submit(asyncio.sleep, 0) for _ in range(2)]
        with pytest.raises(QueueFull, match=r"wait for room: with `await manager.submit_wait\(…\)`"):
            manager.submit(asyncio.sleep, 0)
        await asyncio.gather(*(job.wait() for job in jobs))


async def test_a_closed_gate_says_what_it_waits_for() -> None:
    """The bug: a breaker that held its jobs was called full."""

    async def never() -> bool:
        await asyncio.sleep(3600)
        return True

    with virtual_loop():
        gate = CircuitBreaker(name="api", min_calls=1, open_for=1, jitter=0, on_open="hold", health_check=never)
        async with TaskManager(gate) as manager:
            manager.submit(fails)
            await asyncio.sleep(0.1)
            held = manager.submit(asyncio.sleep, 0)
            await asyncio.sleep(0.1)
            assert manager.why_waiting(held) == "api is open, and waits for its health check"
            gate.isolate()
            assert manager.why_waiting(held) == "api is isolated, and lets nobody through until it is reset"
            gate.reset()
            await held
        router = WeightedRoundRobin(Resource("a", weight=0), on_down="hold", name="mirrors")
        async with TaskManager(router) as manager:
            held = manager.submit(asyncio.sleep, 0)
            await asyncio.sleep(0)
            assert manager.why_waiting(held) == "mirrors has no resource that is up"
            await manager.stop(drain=False)


async def fails() -> str:
    raise OSError("down")


async def test_a_fallback_on_what_a_flow_refuses_stands_in_for_an_open_breaker() -> None:
    """And one on the service's own errors does not: the breaker's word is not the service's."""
    with virtual_loop():
        for on, expected in (((OSError, FlowRefused), "cached"), (OSError, CircuitOpen)):
            breaker = CircuitBreaker(min_calls=1)
            async with TaskManager(Fallback("cached", on=on), breaker) as manager:
                assert await manager.submit(fails) == "cached"
                assert breaker.state == "open"
                job = manager.submit(fails)
                if expected == "cached":
                    assert await job == expected
                else:
                    with pytest.raises(CircuitOpen):
                        await job


# -- batches ------------------------------------------------------------------------------------


def test_a_batch_that_asks_for_more_than_its_items_is_refused_where_it_is_written() -> None:
    """The bug: it was taken, asked each caller for a table, and never got one."""
    app = Quarterjack()

    async def insert(rows: list[int], table: str) -> list[int]:
        return rows

    with pytest.raises(InvalidOption, match=r"@batch: insert.* asks for table beside its items"):
        app.batch(max_size=3)(insert)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # the case


async def test_what_a_batch_has_a_default_for_is_not_asked_of_its_items() -> None:
    """It would never reach the body, so who passes it is told."""
    app = Quarterjack()

    @app.batch(max_size=3)
    async def insert(rows: list[int], table: str = "t") -> list[str]:
        return [f"{table}{row}" for row in rows]

    async with app:
        assert await (await app.submit(insert, 1)) == "t1"
        with pytest.raises(InvalidOption, match="too many positional arguments"):
            await app.submit(insert, 1, "other")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # the case
