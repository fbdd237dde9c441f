"""Hypothesis strategies: triggers and instants to try things with. Needs hypothesis.

@given(trigger=triggers(), at=instants())
def test_next_is_later(trigger, at):
    following = trigger.next(at)
    assert following is None or following > at
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from quarterjack.errors import MissingExtra
from quarterjack.triggers import Aligned, At, Cron, Every, Trigger

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise MissingExtra("drawing triggers", "testing") from error

__all__ = ["ZONES", "aligned", "cron", "every", "instants", "times_of_day", "triggers"]

ZONES: Final = ("UTC", "Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia")
"""Zones that between them have summer time, none, half an hour of it, and a day that was left out."""

_zones = st.sampled_from(ZONES)


def instants(first: int = 1990, last: int = 2037) -> st.SearchStrategy[datetime]:
    """Aware datetimes in UTC, from the year *first* to the year *last*."""
    return st.datetimes(datetime(first, 1, 1), datetime(last, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  # bounds are naive by contract


def every() -> st.SearchStrategy[Trigger]:
    """Periods from a millisecond to weeks."""
    milliseconds = st.integers(1, 10**6).map(lambda n: Every(milliseconds=n))
    return milliseconds | st.integers(1, 3 * 10**6).map(lambda n: Every(seconds=n))


def aligned() -> st.SearchStrategy[Trigger]:
    """Clock tops of up to a day."""

    def build(minutes: int, tz: str) -> Trigger:
        return Aligned(minutes=minutes, tz=tz)

    return st.builds(build, st.integers(1, 1440), _zones)


def times_of_day() -> st.SearchStrategy[Trigger]:
    """Named times of day."""

    def build(hour: int, minute: int, tz: str) -> Trigger:
        return At(f"{hour:02}:{minute:02}", tz=tz)

    return st.builds(build, st.integers(0, 23), st.integers(0, 59), _zones)


def cron() -> st.SearchStrategy[Trigger]:
    """Cron expressions of five fields that fire at least once a year."""

    def field(low: int, high: int) -> st.SearchStrategy[str]:
        number = st.integers(low, high).map(str)
        return st.just("*") | number | st.integers(1, high - low).map(lambda n: f"*/{n}")

    # A weekday that is no step: together with a day of the month, */4 could leave a whole year out.
    weekday = st.just("*") | st.integers(0, 6).map(str)
    fields = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), weekday)

    def build(parts: tuple[str, ...], tz: str) -> Trigger:
        return Cron(" ".join(parts), tz=tz)

    return st.builds(build, fields, _zones)


def triggers() -> st.SearchStrategy[Trigger]:
    """Any periodic trigger, and unions of two."""

    def union(one: Trigger, other: Trigger) -> Trigger:
        return one | other

    simple = every() | aligned() | times_of_day() | cron()
    return simple | st.builds(union, simple, simple)
