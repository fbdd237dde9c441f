"""A cluster that is away: told once when that is seen, and once when it is over, whatever fails meanwhile."""

from __future__ import annotations

import logging

from quarterjack._why_words import told_at
from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.triggers.base import from_ns

__all__ = ["Outage"]


class Outage:
    """Tells once that something is away, and once that it is back.

    Args:
        what: What that is, in words.
        longest_s: No longer than that is waited before it is tried again.
        log: Where it is told; all but the first failure of an outage on level DEBUG.
        clock: Says since when it lasts.
    """

    def __init__(self, what: str, longest_s: float, log: logging.Logger, clock: Clock = SYSTEM_CLOCK) -> None:
        self._what, self._longest_s, self._log, self._clock = what, longest_s, log, clock
        self._since_ns: int | None = None
        self._why = ""

    @property
    def words(self) -> str | None:
        """What is away, since when, and what was said last of it; None if nothing is."""
        if self._since_ns is None:
            return None
        since = from_ns(self._since_ns).replace(microsecond=0)
        return f"{self._what} may be away, since {told_at(since)}: {self._why}"

    def failed(self, doing: str, error: Exception | str) -> None:
        """Something could not be done; it will be tried again."""
        self._why = str(error) or type(error).__name__
        level = logging.WARNING if self._since_ns is None else logging.DEBUG
        text = "%s may be away: %s, tried again until it works, at least every %g s: %s"
        self._log.log(level, text, self._what, doing, self._longest_s, self._why)
        if self._since_ns is None:
            self._since_ns = self._clock.now_ns()

    def worked(self) -> None:
        """It could be done."""
        if self._since_ns is not None:
            self._since_ns = None
            self._log.warning("%s can be reached again", self._what)
