"""Schedules as rows: a rule that no other process could find is refused, an unknown one parks here alone."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest

from quarterjack import (
    Every,
    InvalidTrigger,
)
from quarterjack.stores._rows import (
    Encoding,
)
from quarterjack.stores._stored_schedules import UnknownTrigger
from tests.stores.rows_kit import (
    OWN,
    schedule,
)
from tests.stores.things import EveryOther, Lossy, Nameless


def test_a_trigger_that_is_no_json_is_refused_when_it_is_put() -> None:
    """A schedule that would be gone after the restart must not be taken."""
    with pytest.raises(
        InvalidTrigger, match=r"schedule 's' cannot be stored: Nameless: thing cannot be written as JSON"
    ):
        Encoding(OWN.get).settled(schedule(Nameless(thing=object())))
    with pytest.raises(InvalidTrigger, match=r"schedule 's' cannot be stored: .*would come back from the store as"):
        Encoding(OWN.get).settled(schedule(Lossy(thing=datetime(2026, 1, 1, tzinfo=UTC))))


def test_a_trigger_of_a_function_is_refused_when_it_is_put() -> None:
    """No other process could find its class."""

    class Inside(EveryOther):
        pass

    with pytest.raises(InvalidTrigger, match=r"Inside is defined inside a function.*top of a module"):
        Encoding(OWN.get).settled(schedule(Every(hours=1) | Inside(first=datetime(2026, 1, 1, tzinfo=UTC))))


def test_arguments_of_a_schedule_come_back_plain() -> None:
    """What is put is compared with what is stored: a tuple that JSON makes a list must not look like a change."""
    encoding = Encoding(OWN.get)
    put = encoding.settled(schedule(None, (1, 2), task="send"))
    assert put.payload.args == ([1, 2],)
    found = encoding.schedule(encoding.schedule_row(put))
    assert (found.timing, found.payload) == (put.timing, put.payload)
    assert encoding.settled(schedule(None, (1, 2), task="send")).payload == put.payload


def test_a_custom_trigger_is_found_by_a_process_that_has_not_imported_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that reads a schedule before any of its code has run must import the rule, not park it."""
    made = schedule(Every(hours=1) | EveryOther(first=datetime(2026, 1, 1, tzinfo=UTC)))
    row = Encoding(OWN.get).schedule_row(made)
    forget(monkeypatch, "EveryOther")
    monkeypatch.delitem(sys.modules, "tests.stores.things")
    found = Encoding(OWN.get).schedule(row)
    assert found.parked_reason is None
    assert found.timing.trigger.to_dict() == made.timing.trigger.to_dict()


def forget(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Make this process forget a kind of rule."""
    from quarterjack.triggers import _rule  # noqa: PLC0415  # the registry that is to forget

    monkeypatch.delitem(_rule._RULES, kind)


def test_policies_of_a_later_version_are_kept() -> None:
    """An older process that pauses a schedule must not strip what a newer one said of it."""
    encoding = Encoding(OWN.get)
    row = encoding.schedule_row(schedule(None, 1, max_runs=3))
    newer = tuple('{"max_runs":3,"mood":["good"]}' if value == '{"max_runs":3}' else value for value in row)
    assert newer != row
    found = encoding.schedule(newer)
    assert found.payload.max_runs == 3
    assert encoding.schedule_row(found) == newer


def test_a_trigger_that_is_gone_parks_its_schedule_here_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a rolling deploy the newer process goes on firing what the older one cannot even read."""
    made = schedule(EveryOther(first=datetime(2026, 1, 1, tzinfo=UTC)), 1)
    made.next_nominal_ns = made.next_due_ns = 5
    row = Encoding(OWN.get).schedule_row(made)
    with monkeypatch.context() as patch:
        forget(patch, "EveryOther")
        patch.setitem(sys.modules, "tests.stores.things", None)
        older = Encoding(OWN.get)
        found = older.schedule(row)
        assert isinstance(found.trigger, UnknownTrigger)
        assert found.wake_ns is None
        assert found.parked_reason is not None
        assert "cannot be rebuilt here" in found.parked_reason
        assert "EveryOther" in found.parked_reason or "things" in found.parked_reason
        assert older.schedule_row(found) == row
        found.paused_at_ns, found.runs = 7, 3  # an operator pauses it there
        moved = older.schedule_row(found.copy())
    back = Encoding(OWN.get).schedule(moved)
    assert (back.trigger, back.parked_reason, back.next_due_ns) == (made.trigger, None, 5)
    assert (back.paused_at_ns, back.runs) == (7, 3)
    assert back.payload == made.payload
