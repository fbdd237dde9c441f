"""What the parts of a schedule's timing say together, refused where it can mean nothing.

Pure functions without a clock, asked where a schedule is declared. What depends
on the day (an end that has passed) is no error here: a program must start on the
day after its last run as well. See `planner.never_fires`."""

from __future__ import annotations

from ._durations import NS_PER_S
from .errors import InvalidOption
from .model import Timing
from .triggers import Aligned, Every, Trigger
from .triggers.base import from_ns

__all__ = ["check_timing"]


def check_timing(timing: Timing, where: str) -> None:
    """Refuse bounds in the wrong order or with nothing between them, and jitter beyond the period.

    Raises:
        InvalidOption: Naming *where*, the policy, its value and what to do.
    """
    _check_bounds(timing, where)
    _check_jitter(timing, where)


def _check_bounds(timing: Timing, where: str) -> None:
    start, end, trigger = timing.start_ns, timing.end_ns, timing.trigger
    if start is None or end is None:
        return
    bounds = f"start={from_ns(start).isoformat()}", f"end={from_ns(end).isoformat()}"
    if start > end:
        raise InvalidOption(f"{where}: {bounds[0]} lies after {bounds[1]}; swap them")
    if not trigger.is_periodic or trigger.needs_resolution or trigger.fires_at_creation:
        return
    try:
        first = trigger.next_ns(start - 1)
    except Exception:  # a user's trigger runs here; it is parked with what it raised when its schedule is put
        return
    if first is None or first > end:
        after = "it has none after its start" if first is None else f"the next is {from_ns(first).isoformat()}"
        raise InvalidOption(
            f"{where}: {trigger!r} has no fire time from {bounds[0]} to {bounds[1]}; {after}, so move a bound"
        )


def _check_jitter(timing: Timing, where: str) -> None:
    """Refuse a spread over more than the period: it would heap the runs up just before the next fire time."""
    period = _period_ns(timing.trigger)
    if period is not None and timing.jitter_ns > period:
        raise InvalidOption(
            f"{where}: jitter={timing.jitter_ns / NS_PER_S:g} is longer than the period of {timing.trigger!r}, "
            f"and no run is put off beyond the next; give at most {period / NS_PER_S:g}"
        )


def _period_ns(trigger: Trigger) -> int | None:
    """Return the period of a rule that has one; the distances of others differ, and jitter keeps to each."""
    return trigger.period_ns if isinstance(trigger, Every | Aligned) else None
