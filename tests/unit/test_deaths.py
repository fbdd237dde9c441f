"""Tasks whose processes die are parked."""

from __future__ import annotations

import logging

import pytest

from quarterjack.errors import BodyDied
from quarterjack.model import Outcome, OutcomeKind
from quarterjack.runtime.deaths import Deaths


def died(code: int | None) -> Outcome:
    return Outcome(OutcomeKind.DIED, error=BodyDied(code, "it died"))


def test_three_deaths_in_a_row_park_a_task_and_say_how_it_died(caplog: pytest.LogCaptureFixture) -> None:
    """Else a crash that comes every time ends one process after the other."""
    told: list[str] = []
    deaths = Deaths(lambda: told.append("parked"))
    with caplog.at_level(logging.ERROR, "quarterjack"):
        for code in (-11, 3, None):
            assert deaths.why("crash") is None
            deaths.note("crash", died(code))
    assert deaths.why("crash") == "its processes died 3 times in a row (SIGSEGV, exit code 3, unknown exit code)"
    assert deaths.why("other") is None
    assert told == ["parked"]
    assert "task crash is parked" in caplog.text


def test_another_end_begins_the_count_anew_and_one_that_says_nothing_does_not() -> None:
    """A machine that was short of memory once must not park a task that works."""
    deaths = Deaths(lambda: None)
    deaths.note("crash", died(1))
    deaths.note("crash", died(1))
    deaths.note("crash", Outcome(OutcomeKind.LOST))
    assert deaths.is_counting
    deaths.note("crash", Outcome(OutcomeKind.RAISED, error=ValueError()))
    assert not deaths.is_counting
    deaths.note("crash", died(1))
    assert deaths.why("crash") is None
