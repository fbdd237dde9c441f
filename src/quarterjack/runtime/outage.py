"""An outage of the store: told once when it begins and once when it is over, and waited out with growing pauses.

Several loops call the store, and each goes on trying. The outage begins with
the first call that fails and is over when every kind of call that failed has
worked again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from typing import Final

__all__ = ["Outage"]

log = logging.getLogger("quarterjack")

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0
"""A store that is back is noticed within so long, and half as much again by the jitter."""


class Outage:
    """Whether the store answers, for all who call it over one connection. From one thread.

    Args:
        monotonic: The app's clock.
        whose: What does not answer, in words.
    """

    def __init__(self, monotonic: Callable[[], float], whose: str = "the store") -> None:
        self._monotonic = monotonic
        self._whose = whose
        self._failures: dict[str, int] = {}
        self._rng = Random()  # noqa: S311  # spreads retries, guards nothing
        self.since: float | None = None
        """When it began, in monotonic seconds; None while all is well."""

    def failed(self, doing: str, error: Exception) -> float:
        """A call failed while *doing* something; return how many seconds to wait before the next try."""
        if self.since is None:
            self.since = self._monotonic()
            text = "%s failed while %s: %s; it is tried again until it works, at least every %g s"
            log.error(text, self._whose, doing, str(error) or type(error).__name__, LONGEST_PAUSE_S * 1.5)
        tries = self._failures[doing] = self._failures.get(doing, 0) + 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10))
        return pause_s * self._rng.uniform(0.5, 1.5)

    def worked(self, doing: str) -> None:
        """A call that may have failed before has worked, or is not to be made any more."""
        if not self._failures or self._failures.pop(doing, None) is None or self._failures or self.since is None:
            return
        lasted_s, self.since = self._monotonic() - self.since, None
        log.warning("%s works again, after %.1f s", self._whose, lasted_s)

    @property
    def lasts_s(self) -> float:
        """How long it has lasted; 0.0 if there is none. From any thread."""
        since = self.since
        return 0.0 if since is None else self._monotonic() - since
