"""Missed runs: what becomes of fire times that have already passed.

Pure functions: no clock, no store, no logging. The scheduler passes in the
moment it read, so every decision can be replayed from its arguments.

The fire times in ``(after, now]`` are *overdue*. One overdue fire time is only
late, and it runs (unless it is older than ``max_lateness``). Several at once
mean that nobody was there to serve them, and the mode says which of them run:

    fire times     | n1   n2   n3   now
    latest (default)           n3             n1 n2 are missed
    earliest         n1                       n2 n3 are missed
    all              n1   n2   n3             the newest ``max_catchup`` of them
    skip                                      all three are missed
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, Protocol

__all__ = ["MISSED_CAP", "Due", "MissedMode", "Periodic", "fold_missed"]

MissedMode = Literal["latest", "earliest", "all", "skip"]

MISSED_CAP: Final = 1_000
"""Counting missed fire times stops here; a row that reads 1000 means "1000 or more"."""


class Periodic(Protocol):
    """What is asked of a trigger, in integer nanoseconds since the epoch."""

    def next_ns(self, after: int, /) -> int | None: ...
    def prev_ns(self, before: int, /) -> int | None: ...
    def count_ns(self, after: int, until: int, cap: int, /) -> int: ...


class Due(NamedTuple):
    """The verdict over the fire times in ``(after, now]``.

    Attributes:
        nominals: Fire times to run now, oldest first.
        missed: How many were left out, at most `MISSED_CAP`.
        cursor: The newest fire time accounted for: run or missed. Equal to
            *after* when nothing was due.
        following: The first fire time after *cursor*, or None at the end.
    """

    nominals: tuple[int, ...]
    missed: int
    cursor: int
    following: int | None


def fold_missed(
    trigger: Periodic,
    after_ns: int,
    now_ns: int,
    *,
    mode: MissedMode = "latest",
    max_lateness_ns: int | None = None,
    max_catchup: int = 100,
    first_ns: int | None = None,
) -> Due:
    """Return which fire times in ``(after_ns, now_ns]`` run now and how many are missed.

    Args:
        trigger: The rule.
        after_ns: The cursor: everything up to it is accounted for.
        now_ns: The moment the scheduler read.
        mode: See the module's head.
        max_lateness_ns: A fire time older than this is missed whatever the mode.
        max_catchup: With ``all``, how many run at most (the newest).
        first_ns: ``trigger.next_ns(after_ns)`` where the caller knows it already.

    One late fire time costs one ``next_ns``; a long outage costs one
    ``prev_ns`` and one ``count_ns``, however long it was.
    """
    first = trigger.next_ns(after_ns) if first_ns is None else first_ns
    if first is None or first > now_ns:
        return Due((), 0, after_ns, first)
    second = trigger.next_ns(first)
    if second is None or second > now_ns:
        if max_lateness_ns is not None and now_ns - first > max_lateness_ns:
            return Due((), 1, first, second)
        return Due((first,), 0, first, second)
    return _fold_several(trigger, after_ns, now_ns, first, mode, max_lateness_ns, max_catchup)


def _fold_several(
    trigger: Periodic,
    after: int,
    now: int,
    first: int,
    mode: MissedMode,
    max_lateness: int | None,
    max_catchup: int,
) -> Due:
    latest = trigger.prev_ns(now)
    if latest is None or latest < first:  # a custom trigger whose prev disagrees with its next
        latest = first
    oldest_allowed = first if max_lateness is None else now - max_lateness
    if mode == "latest":
        nominals: tuple[int, ...] = (latest,)
    elif mode == "earliest":
        nominals = (first,)
    elif mode == "all":
        nominals = _newest(trigger, after, latest, max_catchup)
    else:
        nominals = ()
    nominals = tuple(n for n in nominals if n >= oldest_allowed)
    total = trigger.count_ns(after, latest, MISSED_CAP + len(nominals))
    return Due(nominals, total - len(nominals), latest, trigger.next_ns(latest))


def _newest(trigger: Periodic, after: int, latest: int, most: int) -> tuple[int, ...]:
    """Return the newest *most* fire times in ``(after, latest]``, oldest first, in O(most)."""
    found: list[int] = []
    at: int | None = latest
    while at is not None and at > after and len(found) < most:
        found.append(at)
        at = trigger.prev_ns(at - 1)
    return tuple(reversed(found))
