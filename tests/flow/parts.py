"""The real strategies as parts of a random composition: each with the settings it is drawn with and its model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from quarterjack import (
    AdaptiveLimit,
    Between,
    CircuitBreaker,
    ConcurrencyLimit,
    Cron,
    Deadline,
    Dedupe,
    Delay,
    Fallback,
    FixedWindow,
    Gate,
    Hedge,
    Priority,
    Resource,
    Retry,
    SlidingWindow,
    Timeout,
    TimeWindow,
    TokenBucket,
    WeightedRoundRobin,
)
from quarterjack.flow.flow import Strategy

from .ledger import Keyed, Ledger, Model, Setting
from .models import (
    AtMost,
    Breaker,
    Grid,
    Held,
    LastFinish,
    Learning,
    OpenTimes,
    State,
    Tokens,
    Turns,
    Window,
    WindowFrom,
    WindowLog,
    window_name,
)

__all__ = ["GATES", "OTHERS", "Built", "Part", "Pick", "build", "composed", "part"]


@dataclass(frozen=True)
class Part:
    """One strategy of a composition, as drawn."""

    kind: str
    options: tuple[tuple[str, Any], ...] = ()
    by: str | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        return dict(self.options)

    def __repr__(self) -> str:
        by = "" if self.by is None else f", by={self.by!r}"
        return f"part({self.kind!r}, {', '.join(f'{name}={value!r}' for name, value in self.options)}{by})"


def part(kind: str, by: str | None = None, **options: Any) -> Part:
    """Return a part; as its repr says it."""
    return Part(kind, tuple(options.items()), by)


@dataclass
class Built:
    """A strategy, what it promises, and how it is changed while it is in use."""

    strategy: Strategy
    keyed: Keyed | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    changes: tuple[dict[str, Any], ...] = ()
    before_change: Callable[[Any], None] = lambda model: None

    def update(self, pick: int, now: float) -> None:
        """Change one of its settings, where it has such."""
        if not self.changes or not isinstance(self.strategy, Gate):
            return
        change = self.changes[pick % len(self.changes)]
        for model in self.keyed or ():
            self.before_change(model)
        self.strategy.update(**change)
        for name, value in change.items():
            if isinstance(value, dict):
                for one, weight in value.items():
                    self.settings[one].set(now, weight)
            else:
                self.settings[name].set(now, value)

    def penalise(self, pick: int, now: float) -> None:
        """Let nobody start for a while, if it is a gate that counts starts."""
        strategy: Any = self.strategy
        if hasattr(strategy, "penalise"):
            seconds = 0.05 * (pick % 8)
            strategy.penalise(for_=seconds)
            for model in self.keyed or ():
                if isinstance(model, Held):
                    model.penalise(now, now + seconds)

    def by_hand(self, method: str) -> None:
        """Isolate or reset it, if it is a breaker."""
        strategy: Any = self.strategy
        if not isinstance(strategy, CircuitBreaker):
            return
        models = [model for model in self.keyed or () if isinstance(model, Breaker)]
        for model in models:
            model.by_hand = True
        getattr(strategy, method)()
        for model in [model for model in self.keyed or () if isinstance(model, Breaker)]:
            if method == "isolate" and model.state.now != "isolated":  # a key that the breaker has forgotten
                model.moved(model.state.now, "isolated")
            if method == "reset" and model.state.now != "closed":
                model.moved(model.state.now, "closed")
            model.by_hand = False
            if method == "reset":
                model.reset()


# -- how each is built -----------------------------------------------------------------


class _Builder:
    """Builds the parts of one play."""

    def __init__(self, ledger: Ledger, *, are_shares_exact: bool) -> None:
        self.ledger = ledger
        self.are_shares_exact = are_shares_exact
        self.now = ledger.clock.monotonic

    def wall_of(self, mono: float) -> int:
        clock = self.ledger.clock
        return clock.now_ns() - clock.monotonic_ns() + round(mono * 1e9)

    def keyed(self, part: Part, make: Callable[[str], Model], capacity: Callable[[], float] | None = None) -> Keyed:
        return Keyed(part.kind, make, by_key=part.by is not None, capacity=capacity or (lambda: float("inf")))

    def concurrency(self, part: Part) -> Built:
        limit = Setting(part.chosen["max_concurrent"])
        keyed = self.keyed(part, lambda key: AtMost(limit), lambda: limit.now)
        gate = ConcurrencyLimit(limit.now, by=part.by)
        changes = tuple({"max_concurrent": n} for n in (1, 2, 3))
        return Built(gate, keyed, {"max_concurrent": limit}, changes)

    def finish(self, part: Part) -> Built:
        seconds = Setting(part.chosen["seconds"])
        keyed = self.keyed(part, lambda key: LastFinish(seconds))
        changes = ({"seconds": 0.02}, {"seconds": 0.3})
        return Built(Delay(seconds.now, by=part.by), keyed, {"seconds": seconds}, changes)

    def start(self, part: Part) -> Built:
        seconds, slack = Setting(part.chosen["seconds"]), part.chosen["slack"]

        def slack_now() -> float:
            return min(0.005, 0.25 * seconds.now) if slack is None else float(slack)

        keyed = self.keyed(part, lambda key: Grid(lambda: seconds.now, slack_now))
        gate = Delay(seconds.now, "start", slack=slack, by=part.by)
        changes = ({"seconds": 0.02}, {"seconds": 0.3})
        return Built(gate, keyed, {"seconds": seconds}, changes, lambda model: model.changed())

    def fixed(self, part: Part) -> Built:
        most, per, anchor = Setting(part.chosen["max_requests"]), part.chosen["per"], part.chosen["anchor"]

        def make(key: str) -> Model:
            if anchor == "first":
                return WindowFrom(most, per)
            return Window(most, lambda wall_ns: window_name(anchor, per, wall_ns), self.wall_of, self.ledger.steps)

        gate = FixedWindow(most.now, per, anchor=anchor, by=part.by)
        changes = tuple({"max_requests": n} for n in (1, 3))
        return Built(gate, self.keyed(part, make, lambda: most.now), {"max_requests": most}, changes)

    def sliding(self, part: Part) -> Built:
        most, per = Setting(part.chosen["max_requests"]), Setting(part.chosen["per"])

        def make(key: str) -> Model:
            log = WindowLog(most, per)
            return log.smooth() if part.chosen["smooth"] else log

        gate = SlidingWindow(most.now, per.now, smooth=part.chosen["smooth"], by=part.by)
        changes = ({"max_requests": 1}, {"max_requests": 3}, {"per": 0.2}, {"per": 1.0})
        settings = {"max_requests": most, "per": per}
        keyed = self.keyed(part, make, lambda: most.now)
        return Built(gate, keyed, settings, changes, lambda model: model.shorten(self.now()))

    def tokens(self, part: Part) -> Built:
        rate, burst = Setting(part.chosen["rate"]), Setting(part.chosen["burst"])
        gate = TokenBucket(rate.now, burst.now, by=part.by)
        changes = ({"rate": 3}, {"rate": 20}, {"burst": 1}, {"burst": 4})
        keyed = self.keyed(part, lambda key: Tokens(rate, burst), lambda: burst.now)
        return Built(gate, keyed, {"rate": rate, "burst": burst}, changes, lambda model: model.look(self.now()))

    def adaptive(self, part: Part) -> Built:
        low, high = Setting(1), Setting(part.chosen["max"])
        gate = AdaptiveLimit(by=part.by, **part.chosen)

        def make(key: str) -> Model:
            return Learning(low, high, lambda: self._limit_of(gate, key if part.by else None), self.now)

        changes = ({"max": 2}, {"max": 6})
        return Built(gate, self.keyed(part, make, lambda: high.now), {"max": high}, changes)

    @staticmethod
    def _limit_of(gate: AdaptiveLimit, key: str | None) -> int:
        one: Any = gate if key is None else (gate._by_key or {}).get(key, gate)
        limit: int = one.limit
        return limit

    def breaker(self, part: Part) -> Built:
        options = {**_BREAKER, **part.chosen}
        gate: CircuitBreaker
        keyed = self.keyed(part, lambda key: self.breaker_model(options))

        def on_change(one: CircuitBreaker, before: State, after: State) -> None:
            known = gate.keys()
            keys = [""] if one is gate else [key for key in known if gate.at(key) is one]
            for model in [keyed.of(str(key)) for key in keys]:
                self._moved(part, model, before, after)

        gate = CircuitBreaker(by=part.by, on_change=on_change, **_as_given(options, self.now))
        return Built(gate, keyed)

    def breaker_model(self, options: dict[str, Any]) -> Breaker:
        return Breaker(options, self.now, self.ledger.since, is_vague=self.ledger.hedges)

    def _moved(self, part: Part, model: Any, before: State, after: State) -> None:
        self.ledger.last_event = self.now()
        if (wrong := model.moved(before, after)) is not None:
            self.ledger.fault(f"{part.kind}: {wrong}")

    def turns(self, part: Part) -> Built:
        chosen = part.chosen
        weights = {name: Setting(weight) for name, weight in chosen["weights"]}
        limit, has_breaker = chosen["limit"], chosen["has_breaker"]
        options = {**_BREAKER, "on_open": "hold", "open_for": 0.3}
        router: WeightedRoundRobin[Any]

        def make(key: str) -> Model:
            inner: dict[str, list[AtMost | Breaker]] = {name: [] for name in weights}
            for those in inner.values():
                if has_breaker:
                    those.append(self.breaker_model(options))
                if limit:
                    those.append(AtMost(Setting(limit)))
            return Turns(weights, inner, are_exact=self.are_shares_exact and not limit and not has_breaker)

        keyed = self.keyed(part, make, lambda: limit or float("inf"))

        def on_change(one: CircuitBreaker, before: State, after: State) -> None:
            for key in ["", *router.keys()]:
                found: Any = router if key == "" else router.at(key)
                for resource in found.resources:
                    if resource.breaker is one:
                        model: Any = keyed.of(str(key))
                        self._moved(part, model.parts[resource.name][0], before, after)

        router = WeightedRoundRobin(
            *(
                Resource(
                    name,
                    name,
                    setting.now,
                    CircuitBreaker(on_change=on_change, **_as_given(options, self.now)) if has_breaker else None,
                    ConcurrencyLimit(limit) if limit else None,
                )
                for name, setting in weights.items()
            ),
            on_down=chosen["on_down"],
            by=part.by,
        )
        first = next(iter(weights))
        changes = tuple({"weights": {first: weight}} for weight in (0, 1, 3))
        return Built(router, keyed, weights, changes, lambda model: model.forget_picks())

    def times(self, part: Part) -> Built:
        window, is_open = WINDOWS[part.chosen["window"]]
        margin = part.chosen["margin"]
        gate = TimeWindow(window, lasts=1, margin=margin)
        return Built(gate, self.keyed(part, lambda key: OpenTimes(is_open, self.wall_of, margin)))

    def priority(self, part: Part) -> Built:
        order = Priority(**part.chosen)
        self.ledger.has_order, self.ledger.is_fair = True, part.chosen["fair_by"] is not None

        def rank(case: Any) -> float:
            if case.room != "manager":
                return float(case.due)
            level = 2 if case.work.priority is None else case.work.priority
            return float(case.due + min(level, order.levels - 1) * order.aging_s)

        self.ledger.rank = rank
        return Built(order)

    def retry(self, part: Part) -> Built:
        return Built(Retry(on=OSError, **part.chosen))

    def timeout(self, part: Part) -> Built:
        return Built(Timeout(part.chosen["seconds"]))

    def deadline(self, part: Part) -> Built:
        return Built(Deadline(part.chosen["seconds"]))

    def fallback(self, part: Part) -> Built:
        return Built(Fallback(STAND_INS[part.chosen["value"]], on=(OSError,)))

    def hedge(self, part: Part) -> Built:
        return Built(Hedge(**part.chosen))

    def dedupe(self, part: Part) -> Built:
        return Built(Dedupe(by="tenant"))


def build(ledger: Ledger, drawn: tuple[Part, ...], *, are_shares_exact: bool) -> list[Built]:
    """Return the strategies of a composition, with their models.

    Shares are no exact ones where a job may be let in that never begins: that was a turn, too.
    """
    builder = _Builder(ledger, are_shares_exact=are_shares_exact)
    return [getattr(builder, one.kind)(one) for one in drawn]


# -- what they are built of ------------------------------------------------------------

_BREAKER: Final[dict[str, Any]] = {
    "failure_ratio": 0.5,
    "min_calls": 2,
    "window": 60.0,
    "window_calls": 4,
    "open_for": 0.3,
    "max_open_for": 1.0,
    "jitter": 0.0,
    "probes": 1,
    "probe_timeout": 60.0,
    "slow_call": None,
    "health_check": None,
}


def _as_given(options: dict[str, Any], now: Callable[[], float]) -> dict[str, Any]:
    check = options["health_check"]
    return {**options, "health_check": None if check is None else _check(check, now)}


def _check(kind: str, now: Callable[[], float]) -> Callable[[], Any]:
    asked: list[float] = []

    async def check() -> bool:
        asked.append(now())
        if kind == "raises" and len(asked) < 3:
            raise OSError("down")
        if kind == "hangs" and len(asked) < 2:
            await asyncio.sleep(3600)
        await asyncio.sleep(0.01)
        return kind != "says no" or len(asked) > 2

    return check


def _later(error: BaseException) -> str:
    return f"after {type(error).__name__}"


async def _much_later(error: BaseException) -> str:
    await asyncio.sleep(0.02)
    return _later(error)


def _fails(error: BaseException) -> str:
    raise KeyError("no stand-in")


STAND_INS: Final[Mapping[str, Any]] = {"value": 41, "later": _later, "much later": _much_later, "fails": _fails}


def _between_nine_and_ten(wall_ns: int) -> bool:
    return datetime.fromtimestamp(wall_ns // 1_000_000_000, UTC).hour == 9


def _even_second(wall_ns: int) -> bool:
    return wall_ns // 1_000_000_000 % 2 == 0


WINDOWS: Final[Mapping[str, tuple[Any, Callable[[int], bool]]]] = {
    "nine to ten": (Between("09:00", "10:00"), _between_nine_and_ten),
    "even seconds": (Cron("*/2 * * * * *"), _even_second),
}


# -- how they are drawn ----------------------------------------------------------------

Choices = Mapping[str, Sequence[Any]]

GATES: Final[Mapping[str, Choices]] = {
    "concurrency": {"max_concurrent": [1, 2, 3]},
    "finish": {"seconds": [0.05, 0.2]},
    "start": {"seconds": [0.05, 0.2], "slack": [None, 0]},
    "fixed": {"max_requests": [1, 2, 3], "per": [0.5, 1, 1, "day"], "anchor": ["epoch", "first", "Europe/Rome"]},
    "sliding": {"max_requests": [1, 2, 3], "per": [0.3, 1.0], "smooth": [False, True]},
    "tokens": {"rate": [4, 10], "burst": [1, 3]},
    "adaptive": {"initial": [1, 2], "max": [2, 4], "target_latency": [None, 0.05], "window": [0.2]},
    "breaker": {
        "min_calls": [1, 2],
        "window_calls": [4, 4, None],
        "slow_call": [None, None, 0.3],
        "probes": [1, 2],
        "probe_timeout": [None, 0.2],
        "on_open": ["fail", "hold"],
        "health_check": [None, None, "says no", "raises", "hangs"],
    },
    "turns": {
        "weights": [(("x", 2), ("y", 1)), (("x", 1), ("y", 1), ("z", 1)), (("x", 1), ("y", 0))],
        "limit": [None, 1, 2],
        "has_breaker": [False, True],
        "on_down": ["fail", "hold"],
    },
    "times": {"window": list(WINDOWS), "margin": [0, 0.05]},
}
OTHERS: Final[Mapping[str, Choices]] = {
    "priority": {"levels": [1, 3], "aging": [0.05, 0.2, 5], "fair_by": [None, None, "tenant"]},
    "retry": {
        "attempts": [2, 3],
        "base": [0.0, 0.05],
        "cap": [0.1],
        "jitter": ["none", "none", "full", "decorrelated"],
        "deadline": [None, None, 0.3],
    },
    "timeout": {"seconds": [0.15]},
    "deadline": {"seconds": [0.5, 2]},
    "fallback": {"value": list(STAND_INS)},
    "hedge": {"after": [0.02, 0.1], "max": [2, 3]},
    "dedupe": {},
}
"""Those of which a flow takes one."""
_ONE_OF_EACH: Final = {*OTHERS, "turns"}
"""A job has one resource."""

Pick = Callable[[Sequence[Any]], Any]
"""Chooses one of several."""


def composed(pick: Pick, holding: str | None = None, size: int = 3, without: Sequence[str] = ()) -> tuple[Part, ...]:
    """Return a composition of *size* strategies, one of the kind *holding*, if that is named, and none of others."""
    kinds = [] if holding is None else [holding]
    among = [kind for kind in [*GATES, *GATES, *OTHERS] if kind not in without]
    while len(kinds) < size:
        kind = pick(among)
        if kind not in kinds or kind not in _ONE_OF_EACH:
            kinds.insert(pick(range(len(kinds) + 1)), kind)
    return tuple(_picked(pick, kind) for kind in kinds)


def _picked(pick: Pick, kind: str) -> Part:
    choices = GATES.get(kind) or OTHERS[kind]
    options = {name: pick(values) for name, values in choices.items()}
    if options.get("per") == "day" and options["anchor"] == "first":
        options["anchor"] = "epoch"
    by = pick([None, "tenant"]) if kind in GATES and kind != "times" else None
    return Part(kind, tuple(options.items()), by)
