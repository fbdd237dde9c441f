"""What the tests of the decisions share: rules to decide about, rows to plan, and a walker that counts its steps."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from datetime import datetime
from typing import Any, Final

from pydantic import PrivateAttr

from quarterjack import planner
from quarterjack.model import Payload, Schedule, Timing
from quarterjack.planner import Plan
from quarterjack.triggers import Trigger
from quarterjack.triggers.base import NativeTrigger

S: Final = 1_000_000_000
HOUR: Final = 3_600 * S
DAY: Final = 24 * HOUR
YEAR: Final = 365 * DAY
NOON: Final = 20_500 * DAY + 12 * HOUR
"""An ordinary instant, on the grid of every period that divides half a day."""


class Listed(NativeTrigger):
    """Fires at the instants of a list, in order and without doubles: what a plan says is checked against the list."""

    instants: tuple[int, ...]

    def next_ns(self, after: int, /) -> int | None:
        at = bisect_right(self.instants, after)
        return self.instants[at] if at < len(self.instants) else None

    def prev_ns(self, before: int, /) -> int | None:
        at = bisect_right(self.instants, before)
        return self.instants[at - 1] if at else None

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        return min(cap, len(self.between(after, until)))

    def between(self, after: int, until: int) -> list[int]:
        """Return the fire times in ``(after, until]``."""
        return list(self.instants[bisect_right(self.instants, after) : bisect_right(self.instants, until)])


class Custom(Trigger):
    """The same by ``next`` alone, as users write their rules."""

    instants: tuple[datetime, ...]

    def next(self, after: datetime) -> datetime | None:
        at = bisect_left(self.instants, after)
        at += at < len(self.instants) and self.instants[at] == after
        return self.instants[at] if at < len(self.instants) else None


class Counted(NativeTrigger):
    """Another rule, and how often it was asked."""

    rule: Trigger
    _asked: Counter[str] = PrivateAttr(default_factory=Counter)

    @property
    def asked(self) -> Counter[str]:
        """How often, by question."""
        return self._asked

    def next_ns(self, after: int, /) -> int | None:
        self._asked["next"] += 1
        return self.rule.next_ns(after)

    def prev_ns(self, before: int, /) -> int | None:
        self._asked["prev"] += 1
        return self.rule.prev_ns(before)

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        self._asked["count"] += 1
        return self.rule.count_ns(after, until, cap)


def declared(
    trigger: Trigger,
    *,
    id: str = "s",  # noqa: A002  # the field's name
    jitter_ns: int = 0,
    start_ns: int | None = None,
    end_ns: int | None = None,
    **payload: Any,
) -> Schedule:
    """Return a schedule as code declares it."""
    timing = Timing(trigger=trigger, jitter_ns=jitter_ns, start_ns=start_ns, end_ns=end_ns)
    return Schedule(id, timing, Payload(task="t", **payload))


def created(trigger: Trigger, at_ns: int = NOON, **options: Any) -> Schedule:
    """Return the row of a schedule that was created at *at_ns*."""
    return planner.upserted(None, declared(trigger, **options), at_ns)


def planned(row: Schedule, now_ns: int) -> Plan:
    """Return the plan for a row that has something due."""
    plan = planner.plan(row, now_ns)
    assert plan is not None, f"nothing is due: next {row.next_nominal_ns}, now {now_ns}"
    return plan


def fired(row: Schedule, plan: Plan, *, admitted: int | None = None) -> Schedule:
    """Return the row after a store made *plan* true; *admitted* of its runs were not skipped (all of them)."""
    assert (plan.schedule_id, plan.generation, plan.old_cursor_ns) == (row.id, row.generation, row.cursor_ns)
    row = row.copy()
    row.cursor_ns = plan.cursor_ns
    row.next_nominal_ns, row.next_due_ns = plan.next_nominal_ns, plan.next_due_ns
    row.runs += len(plan.nominals) if admitted is None else admitted
    return planner.counted(row)
