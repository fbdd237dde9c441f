"""What rows name by its path: a trigger, exceptions, functions at the top of a module."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar

from quarterjack import Trigger


class Broken(Exception):
    """An exception of a user's."""


class EveryOther(Trigger):
    """A rule of a user's own: every other day at the hour of its first one."""

    example: ClassVar[str] = "EveryOther(first=…)"

    first: datetime

    def next(self, after: datetime) -> datetime | None:
        """Return the first fire time after *after*."""
        days = (after - self.first) // timedelta(days=2) + 1
        return self.first + max(days, 0) * timedelta(days=2)


class Nameless(Trigger):
    """A rule with a field that is no JSON."""

    thing: Any

    def next(self, after: datetime) -> datetime | None:
        """Return nothing."""
        return None


class Lossy(Trigger):
    """A rule whose field comes back from JSON as something else."""

    thing: Any

    def next(self, after: datetime) -> datetime | None:
        """Return nothing."""
        return None


def is_worth_it(error: Exception) -> bool:
    """Say whether *error* is worth another attempt."""
    return "again" in str(error)


def is_poor(result: Any) -> bool:
    """Say whether *result* is worth another attempt."""
    return not result
