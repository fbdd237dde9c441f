"""What a process says of schedules that it shares with other code: in the log, and to the event stream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from quarterjack.events import EventStream, ScheduleConflict
from quarterjack.model import Schedule

__all__ = ["tell_conflict", "tell_unfired"]

log = logging.getLogger("quarterjack")

NAMED_MOST: Final = 5
"""Schedules named in one log line; the others are counted."""
_CONFLICT: Final = (
    "the code here and another declare it differently and put it in turns, and the last one that starts wins; if two "
    "versions of the application run at once, give each its number, Quarterjack(version=…), and the newer one counts; "
    "if they are two applications, give one of the schedules another id="
)


def tell_conflict(row: Schedule, now_ns: int, events: EventStream) -> None:
    """Tell that *row* was put back to what it was before another code put it."""
    log.warning("schedule %s: %s", row.id, _CONFLICT, extra={"schedule": row.id})
    if events.has_listeners:
        events.send(ScheduleConflict(at_ns=now_ns, schedule_id=row.id, task=row.payload.task, reason=_CONFLICT))


def tell_unfired(rows: Sequence[Schedule], why_not: Callable[[Schedule], str | None]) -> None:
    """Log which schedules of the store this process does not fire; they are kept, for the code that knows them."""
    reasons = [f"{row.id} ({why})" for row in rows if (why := why_not(row)) is not None]
    if reasons:
        more = len(reasons) - NAMED_MOST
        log.warning(
            "schedules of the store that this process does not fire: %s%s; "
            "app.unschedule(id) removes what is not wanted any more",
            ", ".join(reasons[:NAMED_MOST]),
            f" and {more} more" if more > 0 else "",
        )
