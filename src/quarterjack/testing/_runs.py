"""Fire times as tests compare them: a list of short ISO strings that can explain a difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import SequenceMatcher
from typing import Final

__all__ = ["Runs", "iso"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN: Final = 40
"""Lines of a difference; a year of hourly runs must not fill the screen."""


def iso(ns: int, zone: tzinfo) -> str:
    """Return an instant in *zone* as ISO 8601, without seconds and fractions that are zero."""
    at = (_EPOCH + timedelta(microseconds=ns // 1_000)).astimezone(zone)
    if at.microsecond:
        return at.isoformat(timespec="microseconds" if at.microsecond % 1_000 else "milliseconds")
    return at.isoformat(timespec="seconds" if at.second else "minutes")


class Runs(list[str]):
    """Fire times, as ISO strings; equal to any list of the same strings."""

    def are_same_instants(self, expected: Sequence[str]) -> bool:
        """Return whether *expected* names the same instants, whatever their zones."""
        try:
            return [datetime.fromisoformat(one) for one in self] == [datetime.fromisoformat(one) for one in expected]
        except (TypeError, ValueError):  # no instants at all
            return False

    def difference(self, expected: Sequence[str]) -> list[str]:
        """Return, line by line, where these runs and *expected* part; empty if they are equal.

        ``-`` is missing, ``+`` is too much; a line with neither tells how many are equal.
        """
        lines: list[str] = []
        matcher = SequenceMatcher(None, list(expected), list(self), autojunk=False)
        for tag, i, j, k, end in matcher.get_opcodes():
            if tag == "equal":
                lines.append(f"  {j - i} equal, {expected[i]} to {expected[j - 1]}")
                continue
            lines += [f"- {one}" for one in expected[i:j]]
            lines += [f"+ {one}" for one in self[k:end]]
        if self == list(expected):
            return []
        twice = [one for one, n in Counter(self).items() if n > 1 and n > list(expected).count(one)]
        lines += [f"  more than once: {one}" for one in twice]
        return lines if len(lines) <= _SHOWN else [*lines[:_SHOWN], f"  … and {len(lines) - _SHOWN} lines more"]
