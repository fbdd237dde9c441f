"""Three real strategies at a time, under whatever comes: what each of them promises holds for all of it.

How much is played is a setting: ``QJ_EXAMPLES=100000`` plays so many plans in the long run (marked slow)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings

from quarterjack import (
    AdaptiveLimit,
    CircuitBreaker,
    ConcurrencyLimit,
    Delay,
    Fallback,
    FixedWindow,
    Hedge,
    Priority,
    Retry,
    SlidingWindow,
    TimeWindow,
    TokenBucket,
    Waiting,
    WeightedRoundRobin,
)
from quarterjack._manager_jobs import ManagerJobs
from quarterjack.flow.batch import Basket
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.outcome import Ended, EndKind
from quarterjack.runtime import engine
from quarterjack.runtime.batching import Batcher
from quarterjack.runtime.engine import Engine
from quarterjack.runtime.managed_items import ItemSeat

from .compositions import Plan, Play, planned, plans, played
from .compositions_of_apps import AppPlay
from .compositions_of_batches import batch_of
from .parts import GATES, OTHERS

EXAMPLES: Final = int(os.environ.get("QJ_EXAMPLES", "800"))
NOT_FOR_APPS: Final = ("dedupe",)
"""Whose jobs have unique= instead."""
NOT_FOR_BATCHES: Final = ("dedupe", "hedge")
"""A body that counts its calls says nothing about those that a hedge makes, nor items about flights of several."""
APP_OTHERS: Final = [kind for kind in OTHERS if kind not in NOT_FOR_APPS]
BATCH_OTHERS: Final = [kind for kind in OTHERS if kind not in NOT_FOR_BATCHES]
SLOW_TO_DRAW: Final = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Breakers tell of each move, and these move thousands of times."""
    caplog.set_level("CRITICAL", "quarterjack")


@settings(max_examples=60, suppress_health_check=SLOW_TO_DRAW)
@given(plans())
def test_three_strategies_keep_what_each_promises(plan: Plan) -> None:
    """Limits, order, ends and leftovers, held against an account that the bodies keep."""
    assert played(plan) == []


@pytest.mark.parametrize("kind", [*GATES, *OTHERS])
def test_each_strategy_keeps_its_promises_among_others(kind: str) -> None:
    """None is left to chance: plans of each kind, the same each time."""
    for seed in range(12):
        plan = planned(Random(f"{kind} {seed}").choice, kind)
        assert played(plan) == [], plan


@pytest.mark.parametrize("kind", [*GATES, *OTHERS])
def test_each_strategy_keeps_its_promises_on_uvloop(kind: str) -> None:
    """Another loop runs tasks and callbacks in turns of its own."""
    for seed in range(4):
        plan = planned(Random(f"uvloop {kind} {seed}").choice, kind)
        assert played(plan, on_uvloop=True) == [], plan


@pytest.mark.parametrize("kind", [None, *GATES, *APP_OTHERS])
def test_each_strategy_keeps_its_promises_in_an_app(kind: str | None) -> None:
    """The same strategies, the same account; between a submission and its flow there is a store."""
    for seed in range(8):
        plan = planned(Random(f"app {kind} {seed}").choice, kind, without=NOT_FOR_APPS)
        assert played(plan, AppPlay) == [], plan


@pytest.mark.parametrize("kind", [None, *GATES, *BATCH_OTHERS])
def test_each_strategy_keeps_its_promises_before_batches(kind: str | None) -> None:
    """A batch is one job to its gates; each of its items ends once, as it was told."""
    for seed in range(8):
        pick = Random(f"batch {kind} {seed}").choice
        plan = planned(pick, kind, without=NOT_FOR_BATCHES)
        assert played(plan, batch_of(pick)) == [], plan


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("way", ["manager", "app", "batches", "uvloop"])
def test_compositions_in_the_long_run(way: str) -> None:
    """As many plans as there is time for."""
    without = {"app": NOT_FOR_APPS, "batches": NOT_FOR_BATCHES}.get(way, ())
    for seed in range(EXAMPLES):
        pick = Random(f"{way} {seed}").choice
        plan = planned(pick, without=without)
        kind = {"app": AppPlay, "batches": batch_of(pick)}.get(way, Play)
        assert played(plan, kind, on_uvloop=way == "uvloop") == [], plan


# ---------------------------------------------------------------- broken ones are found out


def eta_of_one_more(self: Any, job: Waiting, now: float) -> float:
    return now if self.used <= self.max_concurrent else float("inf")


def give_but_not_after_an_error(self: Any, job: Waiting, now: float, ended: Ended) -> None:
    if ended.kind is not EndKind.RAISED:
        self._free(job)


def give_without_a_pause_after_an_error(self: Any, job: Waiting, now: float, ended: Ended) -> None:
    self._is_taken = False
    if ended.kind is not EndKind.RAISED:
        self._finish_at = now


def due_too_soon(self: Any) -> float:
    last: float = self._finish_at if self.after == "finish" else self._pace.at
    return last + 0.8 * float(self.seconds)


def take_and_count(self: Any, job: Waiting, now: float) -> None:
    self._count(job, now)


def nothing(self: Any, *args: Any) -> None:
    pass


def count_nothing_of_a_cost(self: Any, job: Waiting, now: float) -> None:
    self._starts.append((now, 1.0))
    self._counted += 1.0


def allow_one_more(self: Retry, failures: int, error: BaseException | None) -> bool:
    return failures <= self.attempts and isinstance(error, Exception)


def rank_by_level(self: Priority, job: Waiting, now: float) -> float:
    return float(-job.enqueued_at)


def set_without_a_bound(self: Any, limit: float) -> None:
    self._limit = limit + 3


def let_all_through(self: Any, job: Waiting, now: float) -> float:
    return now


def choose_the_last(self: Any, job: Waiting, now: float) -> Any:
    return list(self._targets.values())[-1]


async def stand_in_for_nothing(self: Any, error: BaseException) -> Any:
    raise error


async def leave_the_others(running: Any) -> None:
    pass


def stay(self: Any, group: Any, seat: Any) -> bool:
    seat.group = None
    return True


async def call_twice(self: Any, items: list[Any]) -> Any:
    fn = self._run.fn.fn
    return (await asyncio.gather(fn(items), fn(items)))[0]


def give_in_silence(self: Any, job: Waiting, ended: Ended, now: float | None = None) -> None:
    for gate in job._lane.givers:
        gate.give(job, self.monotonic(), ended)
    job._phase = job._phase.OVER
    job._lane.inside -= 1


BROKEN: Final[dict[str, tuple[str, list[tuple[Any, str, Callable[..., Any]]]]]] = {
    "a limit of one more": ("concurrency", [(ConcurrencyLimit, "eta", eta_of_one_more)]),
    "a limit that leaks": ("concurrency", [(ConcurrencyLimit, "give", give_but_not_after_an_error)]),
    "a delay that errors end": ("finish", [(Delay, "give", give_without_a_pause_after_an_error)]),
    "a delay cut short": ("start", [(Delay, "_due", due_too_soon)]),
    "a fixed window that keeps who never began": ("fixed", [(FixedWindow, "give", nothing)]),
    "a window stamped at the admission": (
        "sliding",
        [
            (SlidingWindow, "take", take_and_count),
            (SlidingWindow, "started", nothing),
            (SlidingWindow, "give", nothing),
        ],
    ),
    "a window blind for costs": ("sliding", [(SlidingWindow, "_count", count_nothing_of_a_cost)]),
    "a bucket without a bottom": ("tokens", [(TokenBucket, "_count", nothing)]),
    "one attempt more": ("retry", [(Retry, "allows", allow_one_more)]),
    "the last comes first": ("priority", [(Priority, "rank", rank_by_level)]),
    "a limit beyond its bounds": ("adaptive", [(AdaptiveLimit, "_set", set_without_a_bound)]),
    "a breaker that lets all through": ("breaker", [(CircuitBreaker, "eta", let_all_through)]),
    "always the same resource": ("turns", [(WeightedRoundRobin, "_choose", choose_the_last)]),
    "a window in time that never closes": ("times", [(TimeWindow, "eta", let_all_through)]),
    "no timeout": ("timeout", [(Engine, "_time_out", nothing)]),
    "no deadline": ("deadline", [(Engine, "_too_late", nothing)]),
    "no fallback": ("fallback", [(Fallback, "value_for", stand_in_for_nothing), (engine, "falls_back", nothing)]),
    "a hedge that leaves its bodies": ("hedge", [(Hedge, "_end", leave_the_others)]),
    "a flight of several": ("dedupe", [(ManagerJobs, "there_already", nothing)]),
    "a batch that keeps who has left": ("batch", [(Batcher, "leave", stay)]),
    "a batch that is called twice": ("batch", [(ItemSeat, "body", call_twice)]),
    "a batch that nobody sends": ("batch", [(Basket, "_arm", nothing)]),
    "nobody is told": ("concurrency", [(Dispatcher, "give", give_in_silence)]),
}


@pytest.mark.leaks("tasks")
@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that nothing fails proves nothing."""
    kind, patches = BROKEN[name]
    for owner, method, broken in patches:
        if owner is Hedge:
            monkeypatch.setattr("quarterjack.flow.hedge._end", broken)
        else:
            monkeypatch.setattr(owner, method, broken)
    assert any(is_found(kind, seed) for seed in range(300))


def is_found(kind: str, seed: int) -> bool:
    """Play one plan of that kind; say whether something was wrong."""
    pick = Random(f"{kind} {seed}").choice
    if kind == "batch":
        return bool(played(planned(pick, without=NOT_FOR_BATCHES), batch_of(pick)))
    return bool(played(planned(pick, kind)))
