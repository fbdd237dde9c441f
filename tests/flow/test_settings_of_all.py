"""Every setting of every strategy, given every kind of nonsense: what is wrong is refused in words, and nothing else.

Which settings there are is read from the signatures, so that a new one is tried as well."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from functools import partial
from typing import Any, Final

import pytest

from quarterjack import (
    AdaptiveLimit,
    Batch,
    Between,
    CircuitBreaker,
    ConcurrencyLimit,
    Deadline,
    Dedupe,
    Delay,
    Fallback,
    FixedWindow,
    Flow,
    Hedge,
    InvalidOption,
    InvalidTrigger,
    Order,
    Pressure,
    Priority,
    QuarterjackError,
    Resource,
    Retry,
    RetryBudget,
    SlidingWindow,
    StrategyAdapter,
    TaskManager,
    Timeout,
    TimeWindow,
    TokenBucket,
    WeightedRoundRobin,
)

GIANT: Final = 10**5000
"""Python refuses to print it."""


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("not today")


NONSENSE: Final[dict[str, Any]] = {
    "None": None,
    "list": [],
    "dict": {},
    "nan": math.nan,
    "inf": math.inf,
    "text": "x",
    "no text": "",
    "true": True,
    "zero": 0,
    "negative": -1,
    "giant": GIANT,
    "negative giant": -GIANT,
    "giant in a list": [GIANT],
    "giant fraction": Fraction(GIANT, 3),
    "huge": 1e308,
    "tiny": 5e-324,
    "no time": timedelta(0),
    "all time": timedelta.max,
    "complex": 1 + 2j,
    "bytes": b"x",
    "unprintable": Unprintable(),
}

NONE, SHARE, AMOUNT, SPAN, WORD = {"None"}, {"tiny"}, {"zero", "tiny"}, {"zero", "tiny", "no time"}, {"text"}
MEANT: Final[dict[str, set[str]]] = {
    setting: meant
    for meant, settings in (
        (NONE, "batch on_store_error window_seconds slack initial target_latency pressure window_calls slow_call"),
        (NONE, "max_open_for probe_timeout health_check on_change max_lag breaker limit max_bytes max_queue max_wait"),
        (NONE, "tz store deadline on_result retry_after budget"),
        (NONE | WORD, "by fair_by name"),
        (NONE | SHARE, "max_cpu max_memory max_stall"),
        (NONE | {"dict"}, "weights"),
        (SHARE, "backoff failure_ratio"),
        (AMOUNT, "jitter weight ratio per_second"),
        (SPAN, "margin slow_start grace"),
        ({"true"}, "smooth"),
        ({"dict"}, "health"),
        ({"list"}, "give_up_on"),
        ({*NONSENSE}, "value"),
    )
    for setting in settings.split()
}
"""What of the nonsense a setting takes, for it is none there; one that is not named takes nothing of it."""
MEANT_BY: Final[dict[str, dict[str, set[str]]]] = {
    "a fleet's ConcurrencyLimit": {"name": {"text"}},
    "Delay after starts": {"slack": NONE | SPAN},
    "FixedWindow by window_seconds": {"per": NONE, "window_seconds": set()},
    "Batch": {"max_wait": SPAN},
    "Resource": {"name": {"text"}},
    "Dedupe": {"by": {"text"}},
    "Fallback": {"on": {"list"}},
    "Retry": {"on": {"list"}, "base": NONE | SPAN, "cap": SPAN, "jitter": set()},
}
MEANT_LATER: Final[dict[tuple[str, str], set[str]]] = {
    ("Delay", "slack"): set(),
    ("Delay after starts", "slack"): SPAN,
    ("WeightedRoundRobin", "weights"): {"dict"},
}


class Pull:
    def add_task(self, task: Any, /) -> None: ...

    def get_next_task(self) -> Any: ...

    async def get_sleep_interval(self) -> float:
        return 1.0


ONE: Final[dict[str, Any]] = {"max_requests": 1, "per": 1}
MADE: Final[dict[str, Callable[..., Any]]] = {
    "ConcurrencyLimit": partial(ConcurrencyLimit, max_concurrent=1),
    "a fleet's ConcurrencyLimit": partial(ConcurrencyLimit, max_concurrent=1, scope="fleet", name="api"),
    "Delay": partial(Delay, seconds=1),
    "Delay after starts": partial(Delay, seconds=1, after="start"),
    "FixedWindow": partial(FixedWindow, **ONE),
    "FixedWindow from the first": partial(FixedWindow, **ONE, anchor="first"),
    "FixedWindow of a zone": partial(FixedWindow, **ONE, anchor="Europe/Rome"),
    "FixedWindow by window_seconds": partial(FixedWindow, max_requests=1, window_seconds=1),
    "SlidingWindow": partial(SlidingWindow, **ONE),
    "TokenBucket": partial(TokenBucket, rate=1, burst=1),
    "AdaptiveLimit": AdaptiveLimit,
    "CircuitBreaker": CircuitBreaker,
    "TimeWindow": partial(TimeWindow, window=Between("09:00", "17:00")),
    "WeightedRoundRobin": partial(WeightedRoundRobin),
    "StrategyAdapter": partial(StrategyAdapter, strategy=Pull()),
    "Priority": partial(Priority, fair_by="tenant"),
    "Hedge": partial(Hedge, after=1),
    "Retry": partial(Retry, on=OSError),
    "RetryBudget": RetryBudget,
    "Timeout": partial(Timeout, seconds=1),
    "Deadline": partial(Deadline, seconds=1),
    "Fallback": partial(Fallback, value=1),
    "Dedupe": partial(Dedupe, by="url"),
    "Batch": partial(Batch, max_size=2),
    "Pressure": Pressure,
    "Resource": partial(Resource, name="a"),
    "Flow": Flow,
    "a bounded Flow": partial(Flow, max_queue=1),
    "TaskManager": TaskManager,
}
FIRST: Final[dict[str, Callable[[], tuple[Any, ...]]]] = {
    "WeightedRoundRobin": lambda: (Resource("a"),),
    "TaskManager": lambda: (ConcurrencyLimit(1, scope="fleet", name="api"),),
}
"""What they need by position."""


def made(what: str, **settings: Any) -> Any:
    return MADE[what](*FIRST.get(what, tuple)(), **settings)


def settings_of(what: str) -> list[str]:
    make = MADE[what]
    init = inspect.signature((make.func if isinstance(make, partial) else make).__init__).parameters.values()
    return [
        one.name for one in init if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.name != "self"
    ]


def changes_of(what: str) -> list[str]:
    """Return what its `update` says that it takes."""
    one = made(what)
    try:
        one.update(nonsense=1)
    except InvalidOption as error:
        found = re.search(r"update takes (.*), got 'nonsense'", str(error))
        return found[1].split(", ") if found else []
    raise AssertionError(f"{one!r} takes anything")


def taken(call: Callable[[Any], object], setting: str) -> set[str]:
    """Return which nonsense *call* takes; the rest is refused by an error of ours that can be read and names it."""
    found: set[str] = set()
    for what, value in NONSENSE.items():
        try:
            call(value)
        except QuarterjackError as error:
            if not isinstance(error, InvalidOption) or not (setting in str(error) or "no time zone" in str(error)):
                pytest.fail(f"{setting}={what}: {error!r}")
        else:
            found.add(what)
    return found


@pytest.mark.parametrize(("what", "setting"), [(what, setting) for what in MADE for setting in settings_of(what)])
def test_no_setting_takes_nonsense(what: str, setting: str) -> None:
    """The bugs: None opened a breaker for a millisecond, a list for a word was a TypeError."""
    meant = MEANT_BY.get(what, {}).get(setting, MEANT.get(setting, set()))
    assert taken(lambda value: made(what, **{setting: value}), setting) == meant


CHANGEABLE: Final = [what for what in MADE if hasattr(made(what), "update") and changes_of(what)]


@pytest.mark.parametrize(("what", "setting"), [(what, setting) for what in CHANGEABLE for setting in changes_of(what)])
def test_no_setting_becomes_nonsense_later(what: str, setting: str) -> None:
    """The bug: AdaptiveLimit.update(window=None) was taken, and each job after it failed and kept its slot."""
    meant = MEANT_LATER.get((what, setting), MEANT.get(setting, set()))
    assert taken(lambda value: made(what).update(**{setting: value}), setting) == meant


@pytest.mark.parametrize("option", ["for_", "until"])
def test_no_penalty_is_nonsense(option: str) -> None:
    """The bug: for_=[] was taken for no time at all."""
    gate = SlidingWindow(1, per=1)
    pause: Any = gate.penalise
    meant = {"for_": SPAN, "until": set[str]()}[option]
    assert taken(lambda value: pause(**{option: value}), option) == meant


@pytest.mark.parametrize("value", NONSENSE.values(), ids=list(NONSENSE))
def test_nonsense_is_no_strategy(value: Any) -> None:
    """By position, where strategies stand."""
    for holder in (Flow, TaskManager, WeightedRoundRobin):
        with pytest.raises(InvalidOption, match="got "):
            holder(value)


def test_a_duration_that_would_be_none_is_refused() -> None:
    """The bugs: below a nanosecond a window divided by zero when it was used, or let everything through."""
    for make in (partial(FixedWindow, 1), partial(SlidingWindow, 1), partial(TokenBucket, 1, 1)):
        with pytest.raises(InvalidOption, match="per must be at least a nanosecond above 0, got 1e-300"):
            make(per=1e-300)
    assert SlidingWindow(1, per=1e-9).per == 1e-9


def test_a_zone_that_is_none_is_told_as_the_anchor() -> None:
    """The bug: it spoke of a Cron or of Aligned, which nobody had written."""
    said = 'anchor must be "epoch", "first" or a zone: no time zone is called \'Europe/Roma\'; did you mean Europe/Rome'
    pers: tuple[Any, ...] = ("day", 900)
    for per in pers:
        with pytest.raises(InvalidTrigger, match=said):
            FixedWindow(1, per=per, anchor="Europe/Roma")


async def test_an_order_that_answers_nan_is_told_by_its_class() -> None:
    """As one that answers a tuple is: an address in memory tells nobody anything."""

    class Mine(Order):
        def rank(self, job: Any, now: float) -> float:
            return math.nan

    async with TaskManager(Mine(), ConcurrencyLimit(1)) as manager:
        with pytest.raises(InvalidOption, match="rank of Mine returned nan"):
            manager.submit(none)


async def none() -> None: ...
