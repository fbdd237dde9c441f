"""What each gate promises, reckoned from starts and ends alone: slow, simple, and nothing of the gates' own.

Each model keeps all that happened and asks two questions of it: was this start
allowed, and should that job have begun by now?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from .ledger import EPS, Case, Run, Setting

__all__ = [
    "AtMost",
    "Breaker",
    "Grid",
    "LastFinish",
    "Learning",
    "OpenTimes",
    "Tokens",
    "Turns",
    "Window",
    "WindowFrom",
    "WindowLog",
    "window_name",
]

NS: Final = 1_000_000_000


class Plain:
    """A gate that allows everything: what the others begin with."""

    def begins(self, run: Run) -> str | None:
        return None

    def ends(self, run: Run) -> str | None:
        return None

    def opens(self, case: Case, now: float) -> bool | None:
        return True

    def stays_closed(self, case: Case) -> bool:
        return False

    def is_wrong(self, now: float) -> str | None:
        return None

    def inherit(self, root: Any) -> None:
        """Take over what was said of all keys."""


class AtMost(Plain):
    """So much cost at once."""

    def __init__(self, limit: Setting) -> None:
        self.limit = limit
        self.inside: list[Run] = []

    @property
    def used(self) -> float:
        return sum(run.case.work.cost for run in self.inside)

    def begins(self, run: Run) -> str | None:
        self.inside.append(run)
        most = max(self.limit.during(run.since, run.began))
        return f"{self.used} inside of {most}" if self.used > most + EPS else None

    def ends(self, run: Run) -> str | None:
        self.inside.remove(run)
        return None

    def opens(self, case: Case, now: float) -> bool | None:
        return bool(self.used + case.work.cost <= self.limit.now + EPS)


class Learning(AtMost):
    """A limit that moves: what it is at the moment the gate says, that nothing exceeds it is seen here."""

    def __init__(self, low: Setting, high: Setting, read: Callable[[], int], now: Callable[[], float]) -> None:
        super().__init__(Setting(read()))
        self.low, self.high, self._read, self._now = low, high, read, now

    def look(self) -> None:
        limit = self._read()
        if limit != self.limit.now:
            self.limit.set(self._now(), limit)

    def begins(self, run: Run) -> str | None:
        self.look()
        wrong = super().begins(run)
        if wrong is not None and len(self.inside) == 1 and self.used <= max(self.high.during(run.since, run.began)):
            return None  # alone, although it is heavier than the limit of the moment
        return wrong

    def ends(self, run: Run) -> str | None:
        self.look()
        return super().ends(run)

    def opens(self, case: Case, now: float) -> bool | None:
        self.look()
        return not self.inside or super().opens(case, now)

    def is_wrong(self, now: float) -> str | None:
        self.look()
        if not self.low.now <= self.limit.now <= self.high.now:
            return f"its limit is {self.limit.now}, not from {self.low.now} to {self.high.now}"
        return None


class LastFinish(Plain):
    """One at a time, and a pause after each."""

    def __init__(self, seconds: Setting) -> None:
        self.seconds = seconds
        self.inside = 0
        self.last = -math.inf

    def begins(self, run: Run) -> str | None:
        self.inside += 1
        if self.inside > 1:
            return "another one is inside"
        if self.last == -math.inf or self.seconds.had_passed(self.last, run.began):
            return None
        return f"{run.began - self.last} s after the last end"

    def ends(self, run: Run) -> str | None:
        self.inside -= 1
        self.last = run.ended or 0.0
        return None

    def opens(self, case: Case, now: float) -> bool | None:
        return bool(not self.inside and self.last + self.seconds.now <= now)


class Grid(Plain):
    """Starts keep a distance: any k + 1 of them take k distances less the slack, and nobody waits beyond the grid.

    *distance* is of a cost of 1; without *by_cost* all cost as much.
    """

    def __init__(self, distance: Callable[[], float], slack: Callable[[], float], *, by_cost: bool = False) -> None:
        self._distance, self._slack, self._by_cost = distance, slack, by_cost
        self.starts: list[tuple[float, float]] = []
        self.at = -math.inf
        self.weight = 1.0

    def changed(self) -> None:
        """Another distance from here on: what was before bounds nothing any more."""
        self.starts.clear()

    def _cost(self, case: Case) -> float:
        return case.work.cost if self._by_cost else 1.0

    def begins(self, run: Run) -> str | None:
        due = self.at + self.weight * self._distance()
        slack, wrong, weight = self._slack(), None, 0.0
        for at, cost in reversed(self.starts):
            weight += cost
            if run.began - at < weight * self._distance() - slack - EPS:
                wrong = f"{run.began - at} s after a start {weight:g} distances before"
        self.starts.append((run.stamped, self._cost(run.case)))
        self.at = max(due, run.began - slack) if run.case.due <= due + EPS else run.began
        self.weight = self._cost(run.case)
        return wrong

    def opens(self, case: Case, now: float) -> bool | None:
        return self.at + self.weight * self._distance() <= now


class Held(Plain):
    """Nobody starts before an instant, by a penalty."""

    def __init__(self) -> None:
        self.penalty = Setting(-math.inf)

    def penalise(self, now: float, until: float) -> None:
        self.penalty.set(now, max(self.penalty.now, until))

    def inherit(self, root: Any) -> None:
        self.penalty = root.penalty.copy()

    def is_held(self, run: Run) -> bool:
        return bool(min(self.penalty.during(run.since, run.began)) > run.began + EPS)


class WindowLog(Held):
    """So much cost in each stretch of so many seconds, wherever it begins."""

    def __init__(self, most: Setting, per: Setting) -> None:
        super().__init__()
        self.most, self.per = most, per
        self.starts: list[tuple[float, float]] = []
        self.left: list[tuple[float, float]] = []
        """Those that had left the window when it was made longer: they may count again, and need not."""
        self.pace: Grid | None = None

    def smooth(self) -> WindowLog:
        self.pace = Grid(lambda: self.per.now / self.most.now, lambda: 0.1 * self.per.now, by_cost=True)
        return self

    def shorten(self, now: float) -> None:
        """The setting changes: what has left the window has left it."""
        self.left += [start for start in self.starts if start[0] <= now - self.per.now]
        self.starts = [start for start in self.starts if start[0] > now - self.per.now]
        if self.pace is not None:
            self.pace.changed()

    def counted(self, now: float, per: float) -> float:
        return sum(cost for at, cost in self.starts if at > now - per + EPS)

    def begins(self, run: Run) -> str | None:
        used = self.counted(run.began, min(self.per.during(run.since, run.began)))
        self.starts.append((run.stamped, run.case.work.cost))
        wrong = None if self.pace is None else self.pace.begins(run)
        if used + run.case.work.cost > max(self.most.during(run.since, run.began)) + EPS:
            return f"{used} had started within {self.per.now} s"
        return "it is penalised" if self.is_held(run) else wrong

    def opens(self, case: Case, now: float) -> bool | None:
        if self.pace is not None and not self.pace.opens(case, now):
            return False
        used = sum(cost for at, cost in [*self.left, *self.starts] if at > now - self.per.now)
        return bool(used + case.work.cost <= self.most.now + EPS and self.penalty.now <= now)


class Window(Held):
    """So much cost in each window; *window_of* names the one of a wall-clock instant."""

    def __init__(
        self,
        most: Setting,
        window_of: Callable[[int], object],
        wall_of: Callable[[float], int],
        steps: Sequence[float],
    ) -> None:
        super().__init__()
        self._steps = steps
        self.most, self._window_of, self._wall_of = most, window_of, wall_of
        self.is_unclear = False
        self.used: dict[object, float] = {}

    def begins(self, run: Run) -> str | None:
        windows = {self._window_of(ns) for ns in (run.wall_ns, run.since_wall_ns)} if run.stamped < run.began else None
        window = self._window_of(run.wall_ns)
        used = self.used[window] = self.used.get(window, 0.0) + run.case.work.cost
        if run.is_stepped or (windows is not None and len(windows) > 1):  # in which of them it counts is not known
            self.used[window], self.is_unclear = 0.0, True
            return None
        if used > max(self.most.during(run.since, run.began)) + EPS and not self._steps:  # of old windows few are known
            return f"{used} started in one window"
        return "it is penalised" if self.is_held(run) else None

    def opens(self, case: Case, now: float) -> bool | None:
        if self.is_unclear:
            return None
        used = self.used.get(self._window_of(self._wall_of(now)), 0.0)
        return bool(used + case.work.cost <= self.most.now + EPS and self.penalty.now <= now)


class WindowFrom(Held):
    """So much cost in each window, which begins with the first start after the last one."""

    def __init__(self, most: Setting, per: float) -> None:
        super().__init__()
        self.most, self.per = most, per
        self.began = -math.inf
        self.used = 0.0

    def begins(self, run: Run) -> str | None:
        if run.began >= self.began + self.per - EPS:
            self.began, self.used = run.stamped, 0.0
        self.used += run.case.work.cost
        if self.used > max(self.most.during(run.since, run.began)) + EPS:
            return f"{self.used} started in one window"
        return "it is penalised" if self.is_held(run) else None

    def opens(self, case: Case, now: float) -> bool | None:
        used = self.used if now < self.began + self.per else 0.0
        return bool(used + case.work.cost <= self.most.now + EPS and self.penalty.now <= now)


class Tokens(Held):
    """A bucket: what is missing in it comes back at a rate."""

    def __init__(self, rate: Setting, burst: Setting) -> None:
        super().__init__()
        self.rate, self.burst = rate, burst
        self.missing, self.looked = 0.0, -math.inf

    def look(self, now: float) -> None:
        """Let what has come back by *now* be there."""
        if now > self.looked:
            self.missing = max(0.0, self.missing - (now - self.looked) * self.rate.now)
            self.looked = now

    def begins(self, run: Run) -> str | None:
        self.look(run.stamped)
        self.missing += run.case.work.cost
        if self.missing > max(self.burst.during(run.since, run.began)) + EPS + self._by_stamp(run):
            return f"{self.missing} tokens are missing of {self.burst.now}"
        return "it is penalised" if self.is_held(run) else None

    def _by_stamp(self, run: Run) -> float:
        return float((run.began - run.stamped) * self.rate.now)

    def opens(self, case: Case, now: float) -> bool | None:
        missing = max(0.0, self.missing - (now - self.looked) * self.rate.now)
        return bool(missing + case.work.cost <= self.burst.now - EPS and self.penalty.now <= now)


class OpenTimes(Plain):
    """Certain times only."""

    def __init__(self, is_open: Callable[[int], bool], wall_of: Callable[[float], int], margin: float) -> None:
        self._is_open, self._wall_of, self._margin = is_open, wall_of, margin

    def begins(self, run: Run) -> str | None:
        late = run.began - run.since
        if run.is_stepped:
            return None
        if late < self._margin or late < EPS:
            return None if self._is_open(run.wall_ns) else "it is closed"
        step = max(1_000_000, (run.wall_ns - run.since_wall_ns) // 50)
        looks = [*range(run.since_wall_ns, run.wall_ns, step), run.wall_ns]
        return None if any(map(self._is_open, looks)) else "it was closed all the while"

    def opens(self, case: Case, now: float) -> bool | None:
        end = self._wall_of(now) + round(self._margin * NS)
        return all(map(self._is_open, range(self._wall_of(now), end + 1, 1_000_000)))


State = Literal["closed", "open", "half_open", "isolated"]


class Breaker(Plain):
    """A breaker: it says when it moves, and is held to what was seen of the calls."""

    def __init__(
        self, options: dict[str, Any], now: Callable[[], float], since: Callable[[float], float], *, is_vague: bool
    ) -> None:
        self.options = options
        self._since = since
        self._is_vague = is_vague
        """Several bodies run in one pass: how and when that ended cannot be told from outside."""
        self.probes = Setting(options["probes"])
        self.state: Setting = Setting("closed")
        self._now = now
        self.by_hand = False
        self._begin_epoch()
        self.openings = 0
        self.until = -math.inf
        self.must_open: float | None = None

    def _begin_epoch(self) -> None:
        self.calls: list[tuple[float, bool]] = []
        self.inside: list[Run] = []
        self.worked = 0
        self.let_in: set[Run] = set()
        self.is_blurred = self._is_vague

    # -- what it says ------------------------------------------------------------------

    def moved(self, before: State, after: State) -> str | None:
        """It has moved; return what is wrong about that."""
        now = self._now()
        wrong = None if self.by_hand or self.is_blurred else self._is_unjust(before, after, now)
        if before != self.state.now and not self.by_hand:
            wrong = f"it was {self.state.now}, and says it was {before}"
        self.state.set(now, after)
        self.must_open = None
        if after == "open":
            self.openings += 1
            self.until = now + self.open_s()
        elif after == "closed":
            self.openings = 0
        self._begin_epoch()
        return wrong

    def inherit(self, root: Any) -> None:
        self.by_hand = root.by_hand
        self.state = root.state.copy()

    def open_s(self) -> float:
        first: float = self.options["open_for"]
        longest: float = self.options["max_open_for"] or 10 * first
        return min(longest, first * 2.0 ** (self.openings - 1))

    def reset(self) -> None:
        """By hand it forgets although it stays as it was."""
        self.openings = 0
        self.must_open = None
        self.state.set(self._now(), self.state.now)
        self._begin_epoch()

    def _is_unjust(self, before: State, after: State, now: float) -> str | None:
        limit: float | None = self.options["probe_timeout"]
        late = limit is not None and any(run.since + limit <= now + EPS for run in self.inside)
        late = late or (limit is not None and self._since(now) + limit <= now + EPS)  # let in, and not begun yet
        match before, after:
            case "closed", "open":
                return None if self._is_down(now) else f"it opened after {self.calls}"
            case "open", "half_open":
                return None if now >= self.until - EPS else f"it is half open {self.until - now} s too early"
            case "half_open", "closed":
                return None if self.worked >= self.probes.now else f"it closed after {self.worked} probes"
            case "half_open", "open":
                return None if late or any(failed for _, failed in self.calls) else "it opened without a failed probe"
            case "open", "open":
                return None
            case _:
                return f"it went from {before} to {after}"

    def _is_down(self, now: float) -> bool:
        size: int | None = self.options["window_calls"]
        calls = self.calls[-size:] if size else [call for call in self.calls if call[0] > now - self.options["window"]]
        failures = sum(failed for _, failed in calls)
        return bool(len(calls) >= self.options["min_calls"] and failures >= self.options["failure_ratio"] * len(calls))

    # -- what it lets in ---------------------------------------------------------------

    def begins(self, run: Run) -> str | None:
        states = self.state.during(run.since, run.began)
        if not {"closed", "half_open"} & set(states):
            return f"it is {self.state.now}"
        if len(states) > 1 and not (states[-2:] == ["open", "half_open"] and len(states) == 2):
            self.is_blurred = True  # when exactly it was let in is not known, nor what its end will mean
            return None
        self.let_in.add(run)
        self.inside.append(run)
        if self.state.now == "half_open" and not self.is_blurred:
            most = max(self.probes.during(run.since, run.began))
            if len(self.inside) + self.worked > most:
                return f"{len(self.inside)} probes are inside, {self.worked} have worked, of {most}"
        return None

    def ends(self, run: Run) -> str | None:
        if run not in self.let_in:
            return None
        self.inside.remove(run)
        self.let_in.discard(run)
        if run.is_unclear:
            self.is_blurred = True
        failed = run.has_failed
        slow: float | None = self.options["slow_call"]
        if failed is False and slow is not None:
            took = (run.ended or 0.0) - run.began
            if run.stamped < run.began or abs(took - slow) < EPS:
                self.is_blurred = True
            failed = took >= slow
        if failed is not None:
            self.calls.append((run.ended or 0.0, failed))
            if self.state.now == "half_open":
                self.worked += not failed
                if failed or self.worked >= self.probes.now:
                    self.must_open = run.ended
            elif failed and self.state.now == "closed" and self.options["window_calls"] and self._is_down(0.0):
                self.must_open = run.ended
        return None

    def opens(self, case: Case, now: float) -> bool | None:
        if self.is_blurred:
            return None
        state = self.state.now
        if state == "half_open":
            return bool(len(self.inside) + self.worked < self.probes.now)
        if state == "open":
            return None if self.options["health_check"] else self.until <= now
        return bool(state == "closed")

    def stays_closed(self, case: Case) -> bool:
        state: State = self.state.now
        return state == "isolated" or (state == "open" and self.options["health_check"] is not None)

    def is_wrong(self, now: float) -> str | None:
        if self.must_open is not None and not self.is_blurred and self.must_open < now:
            return f"it should have moved at {self.must_open}, and is {self.state.now}"
        return None


class Turns(Plain):
    """Several resources by weight, each with a limit and a breaker perhaps."""

    def __init__(
        self, weights: dict[str, Setting], parts: dict[str, list[AtMost | Breaker]], *, are_exact: bool
    ) -> None:
        self.weights, self.parts = weights, parts
        self._are_exact = are_exact
        self.picks: list[str] = []

    def forget_picks(self) -> None:
        """The weights change, or a pick was not seen here: shares are counted anew."""
        self.picks.clear()

    def begins(self, run: Run) -> str | None:
        name = run.resource or ""
        if name not in self.weights:
            return f"it was given {run.resource!r}"
        wrong = None if max(self.weights[name].during(run.since, run.began)) > 0 else f"{name} has no weight"
        for part in self.parts[name]:
            wrong = part.begins(run) or wrong
        self.picks.append(name)
        return wrong or (self._wrong_shares() if self._are_exact else None)

    def _wrong_shares(self) -> str | None:
        weights = {name: setting.now for name, setting in self.weights.items()}
        total = int(sum(weights.values()))
        if total and len(self.picks) >= total:
            last = self.picks[-total:]
            if any(last.count(name) != weight for name, weight in weights.items()):
                return f"{last} are no shares by {weights}"
        return None

    def ends(self, run: Run) -> str | None:
        for part in self.parts[run.resource or ""]:
            part.ends(run)
        return None

    def opens(self, case: Case, now: float) -> bool | None:
        found: list[bool | None] = []
        for name, weight in self.weights.items():
            parts = [part.opens(case, now) for part in self.parts[name]]
            found.append(False if weight.now <= 0 or False in parts else None if None in parts else True)
        return True if True in found else None if None in found else False

    def stays_closed(self, case: Case) -> bool:
        return all(
            weight.now <= 0 or any(part.stays_closed(case) for part in self.parts[name])
            for name, weight in self.weights.items()
        )

    def is_wrong(self, now: float) -> str | None:
        wrongs = (part.is_wrong(now) for parts in self.parts.values() for part in parts)
        return next((wrong for wrong in wrongs if wrong is not None), None)


def window_name(anchor: str, per: float | str, wall_ns: int) -> object:
    """Return what tells the window of a wall-clock instant from others."""
    zone = UTC if anchor == "epoch" else ZoneInfo(anchor)
    if per == "day":
        return datetime.fromtimestamp(wall_ns // NS, zone).date()
    per_ns = round(float(per) * NS)
    if anchor == "epoch":
        return wall_ns // per_ns
    local = datetime.fromtimestamp(wall_ns // NS, zone)
    of_day = (local.hour * 3600 + local.minute * 60 + local.second) * NS + wall_ns % NS
    return local.date(), of_day // per_ns
