"""A second account of what becomes of each fire time, kept from the documentation alone.

A `Ledger` follows one schedule through one life of its app: it is told when time
passes, when the clock jumps, when somebody pauses, and works out with lists what
the planner, the policies and the store work out with arithmetic. It knows the
fire times from elsewhere. Every fire time has one fate; a second one is refused
where it is given, and `unaccounted` names those without any."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

__all__ = ["Ledger", "Moment", "Order", "Run", "dues"]

REBASE_ALL_NS: Final = 3 * 3_600 * 10**9
NOTICED_NS: Final = 10**9
JUST_PASSED_NS: Final = 2 * 10**9
GRACE_NS: Final = 30 * 10**9
MOST_COUNTED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Order:
    """A schedule: its fire times, whether it counts elapsed time, its policies."""

    id: str
    nominals: Sequence[int]
    dues: Sequence[int]
    is_elapsed: bool
    missed: str
    overlap: str
    maximum: int | None
    max_catchup: int
    max_lateness_ns: int | None
    max_runs: int | None
    body_ns: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What the wall clock shows, and the time that has really passed."""

    wall: int
    mono: int


@dataclass(slots=True)
class Run:
    """A row that the store must have: ``missed`` ones stand for *count* fire times."""

    generation: int
    nominal: int
    fate: str
    count: int = 0
    ends: int = field(default=0, compare=False)


def dues(schedule_id: str, nominals: Sequence[int], jitter_ns: int, end_ns: int | None) -> list[int]:
    """Return when each fire time is due: spread over *jitter_ns*, in order, and not after the end."""
    found: list[int] = []
    for index, at in enumerate(nominals):
        digest = blake2b(f"{schedule_id}\0{at}".encode(), digest_size=8).digest()
        due = at + int((int.from_bytes(digest, "big") >> 11) / 2.0**53 * jitter_ns)
        if index + 1 < len(nominals):
            due = min(due, nominals[index + 1] - 1)
        elif end_ns is not None:
            due = min(due, end_ns)
        found.append(due)
    return found


class Ledger:
    """One schedule in one life of its app."""

    def __init__(self, order: Order, now: Moment) -> None:
        self.order = order
        self.cursor = now.wall
        self.generation = 1
        self.rows: list[Run] = []
        self.fates: dict[tuple[int, int], str] = {}
        self._spans: list[tuple[int, int]] = []
        self._begun = now.wall
        self._runs = 0
        self._is_paused = False
        self._until: int | None = None
        self._running: list[Run] = []
        self._waiting: deque[Run] = deque()
        passed = self._between(0, now.wall)
        if passed and passed[-1] == order.nominals[-1]:
            self._is_put_too_late(passed[-1], now)

    def _is_put_too_late(self, last: int, now: Moment) -> None:
        """It was over before it was put: its last fire time runs if it has only just passed, else it is on record."""
        if now.wall - last <= JUST_PASSED_NS:
            self.cursor = last - 1
            self.look(now)
        else:
            self.rows.append(Run(1, last, "missed", 1))

    # -- what happens ----------------------------------------------------------------

    def passes(self, start: Moment, end: Moment) -> None:
        """Time goes on quietly from *start* to *end*."""
        until = self._until
        if self._is_paused and until is not None and until <= end.wall:
            self.resume(Moment(max(until, start.wall), start.mono + max(until, start.wall) - start.wall))
        if self._is_paused:
            return
        for index in range(bisect_right(self.order.nominals, self.cursor), len(self.order.nominals)):
            due = self.order.dues[index]
            if due > end.wall or self._is_over:
                break
            self.look(Moment(due, start.mono + due - start.wall))

    def jumps(self, delta_ns: int, now: Moment, *, is_step: bool) -> None:
        """The clock was set, or the machine slept, and shows *now*."""
        if is_step and delta_ns < -NOTICED_NS:
            self._rebase(-delta_ns, now.wall)
        if self._is_paused and self._until is not None and self._until <= now.wall:
            self.resume(now)
        self.look(now)

    def pause(self, until: int | None) -> None:
        """Somebody paused it."""
        self._is_paused, self._until = True, until

    def resume(self, now: Moment, *, catch_up: bool = False) -> None:
        """Its pause ended: now, or before the fire time at the instant that was set."""
        if not self._is_paused:
            return
        until = self._until
        last = now.wall if until is None or until > now.wall else until - 1
        self._is_paused, self._until = False, None
        if not catch_up and not self._is_over:
            self._leave(self._between(self.cursor, last), "paused")
            self.cursor = max(self.cursor, last)
        self.look(now)

    def stops(self, now: Moment) -> None:
        """The app ends: what waits is cancelled, and what runs has a grace."""
        self._settle(now.mono)
        for run in self._waiting:
            run.fate = "cancelled"
        for run in self._running:
            run.fate = "done" if run.ends <= now.mono + GRACE_NS else "cancelled"
        left = "after its last run" if self._is_over else "paused" if self._is_paused else "not due before the stop"
        self._leave(self._between(self.cursor, now.wall), left)
        self._spans.append((self._begun, max(self.cursor, now.wall)))

    def unaccounted(self) -> list[tuple[int, int]]:
        """Return the fire times of each generation that became nothing."""
        return [
            (generation, at)
            for generation, (begun, end) in enumerate(self._spans, start=1)
            for at in self._between(begun, end)
            if (generation, at) not in self.fates
        ]

    # -- fire times --------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        return self.order.max_runs is not None and self._runs >= self.order.max_runs

    def _between(self, after: int, until: int) -> Sequence[int]:
        nominals = self.order.nominals
        return nominals[bisect_right(nominals, after) : bisect_right(nominals, until)]

    def _leave(self, nominals: Sequence[int], fate: str) -> None:
        for at in nominals:
            self._give(at, fate)

    def _give(self, nominal: int, fate: str) -> None:
        key = self.generation, nominal
        assert key not in self.fates, f"{self.order.id}: {key} is {self.fates[key]} and {fate}"
        self.fates[key] = fate

    def _rebase(self, step_ns: int, now: int) -> None:
        if self.cursor <= now or not (self.order.is_elapsed or step_ns >= REBASE_ALL_NS):
            return
        self._spans.append((self._begun, self.cursor))
        self.generation += 1
        self.cursor = self._begun = now

    def look(self, now: Moment) -> None:
        """Serve what is overdue at *now*, by the policy for what nobody served."""
        while not self._is_paused and not self._is_over:
            order = self.order
            first = bisect_right(order.nominals, self.cursor)
            last = bisect_right(order.dues, now.wall)
            overdue = order.nominals[first:last]
            if not overdue:
                return
            oldest = None if order.max_lateness_ns is None else now.wall - order.max_lateness_ns
            fresh = [
                at for at, due in zip(overdue, order.dues[first:last], strict=True) if oldest is None or due >= oldest
            ]
            chosen = fresh if len(overdue) == 1 else self._chosen(fresh)
            missed = len(overdue) - len(chosen)
            if order.max_runs is not None and len(chosen) > order.max_runs - self._runs:
                chosen = chosen[: order.max_runs - self._runs]
                overdue = [at for at in overdue if at <= chosen[-1]]
            self._serve(overdue, chosen, missed, now)

    def _chosen(self, fresh: list[int]) -> list[int]:
        return {
            "latest": fresh[-1:],
            "earliest": fresh[:1],
            "all": fresh[-self.order.max_catchup :],
            "skip": [],
        }[self.order.missed]

    def _serve(self, overdue: Sequence[int], chosen: list[int], missed: int, now: Moment) -> None:
        self._leave([at for at in overdue if at not in chosen], "missed")
        self.cursor = overdue[-1]
        if missed:
            self.rows.append(Run(self.generation, self.cursor, "missed", min(missed, MOST_COUNTED)))
        for at in chosen:
            self._fire(at, now.mono)

    # -- runs beside each other -----------------------------------------------------------

    def _fire(self, nominal: int, mono: int) -> None:
        self._settle(mono)
        run = Run(self.generation, nominal, "open")
        self.rows.append(run)
        if not self._admit(run, mono):
            run.fate = "skipped"
        self._give(nominal, "skipped" if run.fate == "skipped" else "ran")
        self._runs += run.fate != "skipped"

    def _admit(self, run: Run, mono: int) -> bool:
        mode, most = self.order.overlap, self.order.maximum
        waiting, opened = len(self._waiting), len(self._waiting) + len(self._running)
        if opened == 0 or (mode == "allow" and (most is None or opened < most)):
            self._begin(run, mono)
            return True
        if mode in {"skip", "allow"} or (mode == "queue_one" and waiting) or (mode == "queue_all" and waiting == most):
            return False
        if mode == "queue_latest":
            self._drop("skipped")
        if mode == "cancel_previous":
            self._drop("cancelled")
            for other in self._running:
                other.fate = "cancelled"
            self._running.clear()
            self._begin(run, mono)
            return True
        self._waiting.append(run)
        return True

    def _begin(self, run: Run, mono: int) -> None:
        run.ends = mono + self.order.body_ns
        self._running.append(run)

    def _drop(self, fate: str) -> None:
        for run in self._waiting:
            run.fate = fate
        self._waiting.clear()

    def _settle(self, mono: int) -> None:
        """End what has ended by *mono*, and let those that waited begin."""
        while ended := [run for run in self._running if run.ends <= mono]:
            for run in ended:
                self._running.remove(run)
                run.fate = "done"
                if self._waiting:
                    self._begin(self._waiting.popleft(), run.ends)
