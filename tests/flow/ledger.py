"""What happened while jobs passed a flow, written down by their bodies: an account that no gate keeps.

A `Case` is one job, or one bare pass, as the test submitted it; a `Run` one pass
of it through the gates, from its body's first line to its last. The models in
`tests.flow.models` are told of both and say what a gate may and must do by them alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from quarterjack import JobState
from quarterjack.testing import VirtualClock

__all__ = ["EPS", "Case", "End", "Ledger", "Model", "Run", "Setting", "Work"]

EPS: Final = 1e-6
"""Seconds, or parts of a cost, that floats and clocks of whole nanoseconds may be off."""

End = Literal["returns", "raises", "breaks", "hangs", "clings"]
"""A body returns, raises what is worth a retry, raises what is not, never ends by itself, or lingers when cancelled."""


@dataclass(frozen=True)
class Work:
    """One job as it is to be submitted, and how its body behaves; instants and spans in milliseconds."""

    comes: int
    lasts: int = 0
    end: End = "returns"
    fails: int = 9
    """Attempts that end as *end* says; those after them return."""
    cost: float = 1.0
    tenant: str = "a"
    priority: int | None = None
    timeout: int | None = None
    delay: int = 0
    cancel_after: int | None = None
    passes: int | None = None
    """It is no job but a bare pass: through all gates (-1), or through the one of that number."""
    is_watched: bool = False
    """Somebody asked to be called at its end."""


@dataclass(eq=False)
class Run:
    """One pass of a case: an attempt of its body, all copies of it that a hedge makes."""

    case: Case
    attempt: int
    began: float
    since: float
    """The earliest instant at which it can have been let in: the loop may have stood still before its body began."""
    wall_ns: int
    since_wall_ns: int
    resource: str | None
    stamped: float
    """The earliest instant that its gates may have for its start."""
    is_stepped: bool = False
    """The wall clock was set between the two: what it showed when this was let in is not known."""
    copies: int = 0
    ended: float | None = None
    error: BaseException | None = None
    """What it raised; None if it returned."""
    has_failed: bool | None = None
    """None: it was cancelled, which says nothing of the service."""
    is_unclear: bool = False
    """Whether it was cancelled or ran too long cannot be told from outside."""


@dataclass(eq=False)
class Case:
    """One job, or one bare pass, and what became of it."""

    number: int
    work: Work
    came: float
    models: tuple[Keyed, ...]
    room: object
    entered: float = 0.0
    """When it began to wait for its gates, at the latest."""
    entered_first: float = 0.0
    """And at the earliest: the pause before a retry may be a secret."""
    entry: int = 0
    """Counts entries: of two at one instant the lower was first, if both are submissions."""
    job: Any = None
    is_over: bool = False
    """Of a bare pass: it was left, or turned away."""
    runs: list[Run] = field(default_factory=list[Run])
    run: Run | None = None
    """The one that is inside."""
    cancelled_at: float | None = None
    ends_told: int = 0

    @property
    def is_finished(self) -> bool:
        return self.is_over or (self.job is not None and self.job.state.is_finished)

    @property
    def key(self) -> str:
        return self.work.tenant

    @property
    def due(self) -> float:
        """Since when it counts as waiting."""
        return self.came + (self.work.delay / 1000 if self.work.passes is None else 0.0)

    def waits(self, now: float) -> bool:
        """Say whether it has waited for its gates since before *now*."""
        return self.may_wait(now) and self.entered <= now

    def may_wait(self, now: float) -> bool:
        """Say whether it may have waited for its gates by *now*: after a pause that was drawn, nobody can tell."""
        if self.run is not None or self.is_finished or self.entered_first > now:
            return False
        return self.job is None or self.job.state is not JobState.RUNNING  # else something stands in for it

    def __repr__(self) -> str:
        return f"#{self.number}"


class Setting:
    """A setting that changes at run time."""

    def __init__(self, value: Any) -> None:
        self._values: list[tuple[float, Any]] = [(-math.inf, value)]

    def set(self, at: float, value: Any) -> None:
        """It is *value* from now on."""
        self._values.append((at, value))

    @property
    def now(self) -> Any:
        return self._values[-1][1]

    def during(self, first: float, last: float) -> list[Any]:
        """Return the values it had at some moment from *first* to *last*, both included."""
        ends = [at for at, _ in self._values[1:]] + [math.inf]
        return [value for (at, value), end in zip(self._values, ends, strict=True) if at <= last and end >= first]

    def had_passed(self, since: float, by: float) -> bool:
        """Say whether it, as a span from *since*, was over at some moment up to *by*: a key may be forgotten then."""
        ends = [at for at, _ in self._values[1:]] + [math.inf]
        return any(
            since + value <= min(end, by) + EPS and at <= by
            for (at, value), end in zip(self._values, ends, strict=True)
        )

    def copy(self) -> Setting:
        """Return another one that has changed as this one has."""
        found = Setting(None)
        found._values = list(self._values)
        return found


class Model(Protocol):
    """What one gate, of one key, promises."""

    def begins(self, run: Run) -> str | None:
        """*run* has begun: note it, and return what is wrong about that."""
        ...

    def ends(self, run: Run) -> str | None:
        """*run* is over: note it, and return what is wrong about that."""
        ...

    def opens(self, case: Case, now: float) -> bool | None:
        """Say whether it should have let *case* in by *now*; None if that cannot be told."""
        ...

    def stays_closed(self, case: Case) -> bool:
        """Say whether *case* may wait here for ever."""
        ...

    def is_wrong(self, now: float) -> str | None:
        """Return what is wrong about the gate now, apart from who is inside."""
        ...

    def inherit(self, root: Any) -> None:
        """Take over what was said of all keys before there was this one."""
        ...


class Keyed:
    """The models of one strategy, by key if it goes by that."""

    def __init__(self, name: str, make: Callable[[str], Model], *, by_key: bool, capacity: Callable[[], float]) -> None:
        self.name = name
        self.by_key = by_key
        self.capacity = capacity
        self._make = make
        self._models: dict[str, Model] = {"": make("")}

    def at(self, case: Case) -> Model:
        return self.of(case.key if self.by_key else "")

    def of(self, key: str) -> Model:
        """Return the model of *key*; of a key that comes later it begins with what all keys were told."""
        if key not in self._models:
            model = self._models[key] = self._make(key)
            model.inherit(self._models[""])
        return self._models[key]

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())


class Ledger:
    """All cases of one play, and what was found wrong."""

    def __init__(self, clock: VirtualClock, *, hedges: bool) -> None:
        self.clock = clock
        self.hedges = hedges
        self.cases: list[Case] = []
        self.faults: list[str] = []
        self.stalls: list[tuple[float, float]] = []
        self.steps: list[float] = []
        """When the wall clock was set."""
        self.last_event = 0.0
        self._entries = 0
        self.rank: Callable[[Case], float] = lambda case: case.due
        self.has_order = False
        self.is_fair = False
        self.longest_s = math.inf
        """How long a case may wait."""
        self.deadline_s = math.inf
        """When a job that waits in an app is ended, counted from its submission."""
        self.retry_deadline_s = math.inf
        """Likewise of one that was tried before, counted from when it was due."""
        self.sees_all = True
        """Nobody waits of whom it does not know."""
        self.is_stored = False
        """Jobs come to their flow by a store, those of one instant in its order."""
        self._suspects: list[tuple[Case, Case, float]] = []

    def fault(self, text: str) -> None:
        """Something does not hold."""
        self.faults.append(f"{self.clock.monotonic():.6f}: {text}")

    def since(self, now: float) -> float:
        """Return the earliest instant at which what begins now was let in."""
        for began, ended in reversed(self.stalls):
            if abs(ended - now) < EPS:
                now = began
        return now

    def after_stalls(self, at: float) -> float:
        """Return when what was due at an instant came about: while the loop stood still nothing did."""
        for began, ended in self.stalls:
            if began <= at < ended:
                at = ended
        return at

    def step(self, seconds: float) -> None:
        """Set the wall clock."""
        self.steps.append(self.clock.monotonic())
        self.clock.step_clock(seconds)

    def stall(self, seconds: float) -> None:
        """Let the loop stand still: time goes on inside of one callback."""
        began = self.clock.monotonic()
        self.clock.move_to(self.clock.monotonic_ns() + round(seconds * 1e9))
        self.stalls.append((began, self.clock.monotonic()))
        self.last_event = self.clock.monotonic()

    # -- what cases tell ---------------------------------------------------------------

    def come(self, work: Work, models: tuple[Keyed, ...], room: object) -> Case:
        """Note one that is about to be submitted."""
        now = self.clock.monotonic()
        case = Case(len(self.cases), work, now, models, room)
        self.enter(case, now, now)
        self.cases.append(case)
        return case

    def enter(self, case: Case, first: float, last: float) -> None:
        """*case* waits for its gates from some moment between *first* and *last* on."""
        self._entries += 1
        case.entered_first, case.entered, case.entry = first, last, self._entries
        self.last_event = max(self.last_event, self.clock.monotonic())

    def begin(self, case: Case, attempt: int, resource: str | None = None) -> Run:
        """A body of *case* begins."""
        now, wall_ns = self.clock.monotonic(), self.clock.now_ns()
        run = case.run
        if run is None:
            since = self.since(now)
            run = Run(case, attempt, now, since, wall_ns, wall_ns - round((now - since) * 1e9), resource, now)
            run.is_stepped = any(since - EPS <= at <= now for at in self.steps)
            if self.hedges:
                run.stamped = since
            self._check_begin(case, run)
            case.run = run
            case.runs.append(run)
            for keyed in case.models:
                if (wrong := keyed.at(case).begins(run)) is not None:
                    self.fault(f"{case!r} at {keyed.name}: {wrong}")
        elif not self.hedges:
            self.fault(f"{case!r} began again while it ran")
        run.copies += 1
        self.last_event = now
        return run

    def end(self, run: Run, error: BaseException | None, failed: bool | None, *, unclear: bool = False) -> bool:
        """A body is over; say whether the pass is, as well."""
        now = self.clock.monotonic()
        self.last_event = now
        run.copies -= 1
        if error is None or run.error is None:
            run.error, run.has_failed = error, failed
        run.is_unclear = run.is_unclear or unclear
        if run.copies:
            return False
        run.ended = now
        run.case.run = None
        run.case.entered = math.inf  # until it is known to wait again
        for keyed in run.case.models:
            if (wrong := keyed.at(run.case).ends(run)) is not None:
                self.fault(f"{run.case!r} at {keyed.name}: {wrong}")
        return True

    def _check_begin(self, case: Case, run: Run) -> None:
        if case.is_finished:
            self.fault(f"{case!r} began after its end")
        if run.began < case.entered_first - EPS:
            self.fault(f"{case!r} began before it came")
        if case.room == "manager" and run.since > self.after_stalls(case.entered) + self.longest_s + EPS:
            self.fault(f"{case!r} began {run.began - case.entered} s after it came")
        if self.hedges and self.stalls:
            return  # a copy may begin while another one ends
        if run.attempt != len(case.runs) + 1:
            self.fault(f"{case!r} begins attempt {run.attempt} after {len(case.runs)} runs")
        for other in self.cases:
            if other is not case and self.is_unduly_overtaken(other, case, run):
                self._suspects.append((case, other, run.began))
                if case.job is not None:
                    self.fault(f"{case!r} overtook {other!r}")

    def lane(self, case: Case) -> tuple[object, str]:
        """Return what is the same of cases that pass the same gates in one order."""
        return case.room, case.key if any(keyed.by_key for keyed in case.models) else ""

    def is_unduly_overtaken(self, waiting: Case, case: Case, run: Run) -> bool:
        """Say whether *waiting* stood before *case* all the while, and stands there still."""
        if self.lane(waiting) != self.lane(case) or not waiting.waits(run.since):
            return False
        if waiting.cancelled_at is not None:
            return False  # an app is told of its end a little later
        if run.began >= self.ends_at(waiting) - EPS:
            return False  # likewise: it has left its gates, and the store has not said yet what became of it
        if run.began >= waiting.entered_first + self.longest_s - EPS:
            return False  # it has waited too long, and something may stand in for it
        if self.has_order and case.room == "manager":
            if self.is_fair:
                return False
            return waiting.entered < run.since - EPS and self.rank(waiting) < self.rank(case) - EPS
        both_first = not (self.is_stored or waiting.runs or case.runs or waiting.work.delay or case.work.delay)
        before, after = self.after_stalls(waiting.entered), self.after_stalls(case.entered_first)
        sooner = waiting.entry < case.entry if both_first else before < after - EPS
        return sooner and waiting.entered <= run.since

    def ends_at(self, waiting: Case) -> float:
        """Return when *waiting* is ended by an app, if it has not begun by then."""
        if waiting.job is None:
            return math.inf
        tried_until = waiting.due + self.retry_deadline_s if waiting.runs else math.inf
        return min(waiting.came + self.deadline_s, tried_until)

    # -- between events ------------------------------------------------------------------

    def check(self, now: float, slack: float) -> None:
        """Nothing has happened for *slack* seconds: who waits must have a reason that has held for as long."""
        before = now - slack
        self._clear_suspects()
        if self.last_event >= before:
            return
        for keyed in {id(keyed): keyed for case in self.cases for keyed in case.models}.values():
            for model in keyed:
                if (wrong := model.is_wrong(before)) is not None:
                    self.fault(f"{keyed.name}: {wrong}")
        for case in self.cases:
            if case.run is not None and case.is_finished:
                self.fault(f"{case!r} is over, and its body runs on")
        if not self.sees_all or (self.hedges and self.stalls):
            return  # when an attempt was over is not known to the moment
        if any(case.may_wait(before) and not case.waits(before) for case in self.cases):
            return  # nor who stands before whom
        waiting = [case for case in self.cases if case.waits(before)]
        for case in self.heads(waiting):
            if any(self.may_be_before(other, case) for other in waiting):
                continue
            if self.should_have_begun(case, waiting, before):
                self.fault(f"{case!r} waits although its gates are open")

    def _clear_suspects(self) -> None:
        """Of two tasks that were let in at one instant the second may run first: they are their callers' tasks."""
        for case, other, at in self._suspects:
            has_begun = any(run.since - EPS <= at <= run.began + EPS for run in other.runs)
            if case.job is None and not has_begun and not other.is_over:
                self.fault(f"{case!r} overtook {other!r}")
        self._suspects.clear()

    def heads(self, waiting: Sequence[Case]) -> list[Case]:
        """Return the first of each lane."""
        firsts: dict[tuple[object, str], Case] = {}
        for case in sorted(waiting, key=self.place):
            firsts.setdefault(self.lane(case), case)
        return list(firsts.values())

    def may_be_before(self, other: Case, case: Case) -> bool:
        """Say whether *other* may be the first of its lane as well as *case*."""
        if other is case or self.lane(other) != self.lane(case):
            return False
        # By a timer one comes when that rings, and after a standstill all ring at once, in any order.
        is_timed = any(one.runs or one.work.delay for one in (case, other))
        return (is_timed or self.is_stored) and other.entered_first <= self.after_stalls(case.entered) + EPS

    def place(self, case: Case) -> tuple[float, float, int]:
        """Return where it stands in its lane."""
        if self.has_order and case.room == "manager":
            return self.rank(case), case.entered, case.entry
        return case.entered, case.entered_first, case.entry

    def should_have_begun(self, case: Case, waiting: Sequence[Case], before: float) -> bool:
        """Say whether all gates of *case* are open and nobody stands before it at one of them."""
        if not all(keyed.at(case).opens(case, before) for keyed in case.models):
            return False
        if self.is_fair:  # which of several keys is next is not looked at here
            return len(waiting) == 1
        for other in waiting:
            if other is case or self.lane(other) == self.lane(case):
                continue
            shared = [
                keyed for keyed in other.models if keyed in case.models and not (keyed.by_key and other.key != case.key)
            ]
            may_be_before = self.rank(other) <= self.rank(case) + EPS
            if may_be_before and any(keyed.at(other).opens(other, before) is not True for keyed in shared):
                return False
        return True

    def left_waiting(self) -> list[Case]:
        """Return who waits for ever, with nobody to blame."""
        now = self.clock.monotonic()
        waiting = [case for case in self.cases if case.waits(now)]
        held = [case for case in waiting if any(keyed.at(case).stays_closed(case) for keyed in case.models)]
        return [case for case in waiting if not held and case not in held]
