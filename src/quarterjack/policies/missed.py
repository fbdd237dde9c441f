"""Missed runs: what becomes of fire times that have already passed.

Pure functions: no clock, no store, no logging. The scheduler passes in the
moment it read, so every decision can be replayed from its arguments.

The fire times in ``(after, now]`` are *overdue*. One overdue fire time is only
late, and it runs. Several at once mean that nobody was there to serve them, and
the mode says which of them run:

    fire times     | n1   n2   n3   now
    latest (default)           n3             n1 n2 are missed
    earliest         n1                       n2 n3 are missed
    all              n1   n2   n3             the newest ``max_catchup`` of them
    skip                                      all three are missed

What is older than the schedule's ``max_lateness`` is missed before the mode is
asked: ``earliest`` is then the first that is not too old.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, Protocol

__all__ = ["MISSED_CAP", "Due", "MissedMode", "Periodic", "fold_missed", "missed_by"]

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
    oldest_ns: int | None = None,
    max_catchup: int = 100,
    first_ns: int | None = None,
) -> Due:
    """Return which fire times in ``(after_ns, now_ns]`` run now and how many are missed.

    Args:
        trigger: The rule.
        after_ns: The cursor: everything up to it is accounted for.
        now_ns: The moment the scheduler read.
        mode: See the module's head.
        oldest_ns: A fire time before this instant is too old to run, whatever the mode.
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
        if oldest_ns is not None and first < oldest_ns:
            return Due((), 1, first, second)
        return Due((first,), 0, first, second)
    latest = trigger.prev_ns(now_ns)
    if latest is None or latest < first:  # a custom trigger whose prev disagrees with its next
        latest = first
    nominals = _chosen(trigger, first, latest, mode, first if oldest_ns is None else oldest_ns, max_catchup)
    total = trigger.count_ns(after_ns, latest, MISSED_CAP + len(nominals))
    # a count of the user's own may disagree as well, and fewer than none are never missed
    return Due(nominals, max(0, total - len(nominals)), latest, trigger.next_ns(latest))


def _chosen(
    trigger: Periodic, first: int, latest: int, mode: MissedMode, oldest: int, max_catchup: int
) -> tuple[int, ...]:
    """Return which of the overdue fire times from *first* to *latest* run; none before *oldest* does."""
    if latest < oldest or mode == "skip":
        return ()
    if mode == "latest":
        return (latest,)
    if mode == "all":
        return _newest(trigger, max(first, oldest), latest, max_catchup)
    earliest = first if first >= oldest else trigger.next_ns(oldest - 1)
    return () if earliest is None or earliest > latest else (earliest,)


def _newest(trigger: Periodic, oldest: int, latest: int, most: int) -> tuple[int, ...]:
    """Return the newest *most* fire times from *oldest* to *latest*, oldest first, in O(most)."""
    found: list[int] = []
    at: int | None = latest
    while at is not None and at >= oldest and len(found) < most:
        found.append(at)
        at = trigger.prev_ns(at - 1)
    return tuple(reversed(found))


def missed_by(mode: MissedMode, *, ran: int, missed: int, max_lateness_ns: int | None, max_catchup: int) -> str:
    """Return the policy that left out *missed* fire times while *ran* others run, as it is written: for people."""
    by_mode = f"missed={mode!r}"
    by_lateness = None if max_lateness_ns is None else f"max_lateness={max_lateness_ns / 1e9:g}"
    if mode == "all":  # lateness leaves the old ones out, and the bound the oldest of what is left
        return by_lateness if by_lateness is not None and ran < max_catchup else f"max_catchup={max_catchup}"
    # A single late one runs in every mode, and each mode but ``skip`` runs one of several.
    is_too_late = not ran and (missed == 1 or mode != "skip")
    return by_lateness if by_lateness is not None and is_too_late else by_mode
