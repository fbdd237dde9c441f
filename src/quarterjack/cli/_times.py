"""Moments and spans as people type them: read, or refused with what to write."""

from __future__ import annotations

import re
from datetime import datetime, tzinfo
from typing import Final

import click

from quarterjack._durations import parse_duration
from quarterjack.errors import InvalidOption

from ._hints import typed
from ._shell import EXIT_USAGE, Failure

__all__ = ["moment", "span_of"]

_NUMBER: Final = re.compile(r"\d+(\.\d+)?")
YEARS: Final = range(1900, 9901)
"""Near the ends of the calendar there is no room to look ahead, nor for another zone's date."""


def moment(text: str, option: str, zone: tzinfo | None = None, example: str = "2027-03-28T00:00") -> datetime:
    """Return an ISO moment; without an offset it is one on the clock of *zone*, else of the machine's.

    On a zone's clock a time that it skips stays as it was written, so that it is seen as such.

    Raises:
        Failure: If it is none.
    """
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            at = at.replace(tzinfo=zone) if zone is not None else at.astimezone()
        if at.year in YEARS:
            return at
        what = f"lies outside of the years {YEARS[0]} to {YEARS[-1]}"
    except (ValueError, OverflowError):  # the latter in the first and last days of the calendar
        what = "is no ISO moment"
    raise Failure(f"{option} {text!r} {what}", _again(option, example), EXIT_USAGE)


def span_of(text: str, option: str, example: str, *, is_bare: bool = False) -> float:
    """Return seconds for a span such as ``1h30m``; if it may be *is_bare*, for a number of seconds, too.

    Raises:
        Failure: If it is none; *example* is what to write.
    """
    try:
        return parse_duration(f"{text}s" if is_bare and _NUMBER.fullmatch(text) else text, option)
    except InvalidOption as error:
        raise Failure(str(error), _again(option, example), EXIT_USAGE) from None


def _again(option: str, example: str) -> str:
    """Return the command that was typed, with an option as it is written."""
    params = click.get_current_context().params
    words = params.get("words") or filter(None, [params.get("target")])
    return f"{typed(*words)} {option} {example}"
