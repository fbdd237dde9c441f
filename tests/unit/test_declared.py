"""Whose declaration of a schedule counts, and who fires it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from quarterjack import Cron, Every, Filter, LoopThread, Overlap, Retry, RetryBudget, Trigger, Unique, planner
from quarterjack.declared import Verdict, code_hash_of, declared_form, judged, why_not_fired
from quarterjack.model import Payload, RunOptions, Schedule, Timing
from tests.unit.rules import HOUR, NOON

TIMING = Timing(trigger=Every(hours=1))
PAYLOAD = Payload(task="a")


def code(trigger: Trigger | None = None, version: str | None = None, **payload: Any) -> Schedule:
    """Return what code declares, with its hash."""
    timing = TIMING if trigger is None else Timing(trigger=trigger)
    row = Schedule("s", timing, Payload(task="a", **payload), in_code=True, version=version)
    row.code_hash = code_hash_of(row)
    return row


def put(*declared: Schedule) -> tuple[Schedule, Verdict]:
    """Put one after the other; return the row and what became of the last one."""
    row: Schedule | None = None
    verdict = Verdict.NEW
    for one in declared:
        verdict = judged(row, one)
        row = planner.upserted(row, one, NOON)
    assert row is not None
    return row, verdict


A, B, C = Every(hours=1), Every(hours=2), Every(hours=3)

COLOURS = frozenset({"red", "green", "blue", "white"})


class Paint(BaseModel):
    """An argument: a model, with values that have no order, or are no text."""

    colours: frozenset[str] = COLOURS
    recipe: bytes = b"\xff"


class Named(Filter):
    """A filter with values that have no order."""

    names: frozenset[str] = frozenset()

    def allows(self, at: datetime) -> bool:
        return f"{at:%a}" in self.names


# -- the hash -----------------------------------------------------------------------------------


def changed(half: Any, field: str, value: Any) -> Any:
    """Return one half of a declaration with another value in a field."""
    return replace(half, **{field: value})


OTHERS: list[tuple[str, Timing, Payload]] = [
    ("trigger", replace(TIMING, trigger=Cron("H 3 * * *")), PAYLOAD),
    ("names", replace(TIMING, trigger=A & Named(names=COLOURS)), PAYLOAD),
    *(
        (field, changed(TIMING, field, value), PAYLOAD)
        for field, value in {"jitter_ns": 5, "start_ns": 1, "end_ns": 9}.items()
    ),
    *(
        (field, TIMING, changed(PAYLOAD, field, value))
        for field, value in {
            "task": "b",
            "args": (1,),
            "kwargs": {"k": [timedelta(1), datetime(2026, 1, 1), b"\xff", COLOURS], "m": Paint()},
            "overlap": Overlap("allow", 3),
            "overlap_key": "k",
            "missed": "skip",
            "max_lateness_ns": 1,
            "max_catchup": 2,
            "max_runs": 3,
            "pause_on_failure": 4,
        }.items()
    ),
    *(
        (f"options {field}", TIMING, changed(PAYLOAD, "options", changed(RunOptions(), field, value)))
        for field, value in {
            "queue": "q",
            "priority": 1,
            "timeout_s": 2.5,
            "retry": Retry(attempts=3, on=(OSError,)),
            "executor": "thread",
            "unique": Unique("k", scope=timedelta(hours=1)),
            "start_deadline_s": 5.0,
            "metadata": {"a": object},
            "submitted_by": "me",
        }.items()
    ),
]


def hash_of(timing: Timing, payload: Payload) -> str:
    return code_hash_of(Schedule("s", timing, payload))


def test_hash_tells_every_difference_and_no_two_alike() -> None:
    """A field that is left out of it would be changed in silence."""
    hashes = {what: hash_of(timing, payload) for what, timing, payload in OTHERS}
    assert len({*hashes.values(), hash_of(TIMING, PAYLOAD)}) == len(OTHERS) + 1
    assert {field.name for field in (*fields(Timing), *fields(Payload))} - hashes.keys() == {"options"}


def test_hash_of_equal_declarations_is_equal_in_every_process() -> None:
    """Processes agree by it; Python's own hashes differ from one to the next."""
    made = "[code_hash_of(Schedule('s', t, p)) for _, t, p in OTHERS if p.options.metadata is None]"
    program = f"from tests.unit.test_declared import *; print(json.dumps({made}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert json.loads(ran.stdout) == [hash_of(t, p) for _, t, p in OTHERS if p.options.metadata is None]


def test_what_stands_at_its_default_is_not_in_the_form() -> None:
    """So an option that a later quarterjack knows changes no hash, and a fleet may be upgraded in turns."""
    assert declared_form(Schedule("s", TIMING, PAYLOAD)) == {
        "timing": {"trigger": {"type": "Every", "hours": 1.0}},
        "payload": {"task": "a"},
    }


class Picky(Filter):
    """A filter with a live object in it."""

    by: Any

    def allows(self, at: datetime) -> bool:
        return bool(self.by(at))


def test_live_objects_have_a_hash_as_well() -> None:
    """The memory store takes them, and a start must not fail for their sake."""
    urgent = LoopThread("urgent")
    row = code(Every(hours=1) & Picky(by=datetime.weekday), options=RunOptions(executor=urgent))
    assert code_hash_of(row) == row.code_hash
    assert declared_form(row)["payload"]["options"] == {"executor": "urgent"}


# -- whose declaration counts -------------------------------------------------------------------


def test_same_code_again_changes_nothing() -> None:
    """A restart is no change."""
    row, verdict = put(code(A), code(A))
    assert (verdict, row.generation, row.revision) == (Verdict.SAME, 1, 1)


def test_older_version_never_overwrites_a_newer_one_in_any_order_of_starts() -> None:
    """A worker of the old release that is restarted in the middle of a deploy."""
    for version in ("1.9", None):
        row, verdict = put(code(A, version), code(B, "1.10"), code(A, version))
        assert (verdict, row.timing.trigger, row.version, row.generation) == (Verdict.OLDER, B, "1.10", 2)


def test_newer_version_takes_over_whatever_was_before() -> None:
    """Also what the version before the last one said: that is a change that was taken back."""
    row, verdict = put(code(A, "1"), code(B, "2"), code(A, "3"))
    assert (verdict, row.timing.trigger, row.version) == (Verdict.CHANGED, A, "3")


def test_old_version_that_says_the_same_does_not_lower_the_version() -> None:
    """Else the next old one could overwrite it."""
    row, verdict = put(code(A, "2"), code(A, "1"), code(B, "1.5"))
    assert (verdict, row.version, row.timing.trigger) == (Verdict.OLDER, "2", A)
    assert put(code(A, "1"), code(A, "2"))[0].version == "2"


@pytest.mark.parametrize("version", [None, "1.0"])
def test_without_an_order_the_last_starter_wins_and_turns_are_told(version: str | None) -> None:
    """A-B-A: two codes that disagree and restart by turns."""
    codes = [code(trigger, version) for trigger in (A, B, A, B)]
    told = [put(*codes[: n + 1]) for n in range(4)]
    assert [verdict for _, verdict in told] == [
        Verdict.NEW, Verdict.CHANGED, Verdict.ALTERNATED, Verdict.ALTERNATED,
    ]  # fmt: skip
    assert [row.timing.trigger for row, _ in told] == [A, B, A, B]
    assert put(code(A), code(B), code(C), code(A))[1] is Verdict.CHANGED, "what was long ago is no turn"


def test_operators_change_stays_until_the_code_says_something_else() -> None:
    """A restart must not take back in silence what somebody set at run time."""
    by_hand = Schedule("s", Timing(trigger=C), PAYLOAD, in_code=True, version="1")
    row, verdict = put(code(A, "1"), by_hand, code(A, "1"))
    assert (verdict, row.timing.trigger, row.generation) == (Verdict.SAME, C, 2)
    assert why_not_fired(row, {"a"}, {"s": code(A).code_hash or ""}) is None
    row, verdict = put(code(A, "1"), by_hand, code(B, "1"))
    assert (verdict, row.timing.trigger) == (Verdict.CHANGED, B)


def test_schedule_made_at_run_time_is_taken_over_by_code_that_declares_its_id() -> None:
    """And the other way round: who names the id means it."""
    by_hand = Schedule("s", Timing(trigger=C), PAYLOAD, version="9")
    row, verdict = put(by_hand, code(A, "1"))
    assert (verdict, row.in_code, row.timing.trigger, row.version) == (Verdict.CHANGED, True, A, "1")
    row, _ = put(code(A, "9"), by_hand)
    assert (row.in_code, row.code_hash, row.timing.trigger) == (False, None, C)
    assert put(by_hand, by_hand)[1] is Verdict.SAME


# -- who fires it -------------------------------------------------------------------------------


def test_declared_schedule_is_fired_by_code_that_declares_just_that() -> None:
    """And by nobody else, who says why."""
    row, _ = put(code(A, "2.0"))
    mine, other = {"s": row.code_hash or ""}, {"s": "another"}
    assert why_not_fired(row, {"a"}, mine) is None
    assert why_not_fired(row, {"b"}, mine) == "no task 'a' is known here"
    assert why_not_fired(row, {"a"}, other) == "it was declared otherwise by version 2.0 than by the code here"
    gone = why_not_fired(row, set(), {})
    assert gone == "it was declared in code by version 2.0, and the code here does not declare it"


def test_schedule_made_at_run_time_is_fired_by_all_who_know_its_task() -> None:
    """It belongs to no code."""
    row, _ = put(Schedule("s", TIMING, PAYLOAD))
    assert why_not_fired(row, {"a"}, {}) is None
    assert why_not_fired(row, {"b"}, {}) == "no task 'a' is known here"


def test_generation_goes_on_where_code_and_operator_meet() -> None:
    """Fire times before the change are accounted for, whoever made it."""
    by_hand = Schedule("s", Timing(trigger=C), PAYLOAD, in_code=True)
    row, _ = put(code(A), by_hand, code(B))
    assert (row.generation, row.cursor_ns, row.next_nominal_ns) == (3, NOON, NOON + 2 * HOUR)


def test_function_among_the_options_is_told_by_its_name() -> None:
    """Its repr is another one in each process, and the schedule would change with each start."""

    def policy() -> Retry:
        return Retry(on=lambda error: "busy" in str(error), budget=RetryBudget())

    one, other = (changed(PAYLOAD, "options", changed(RunOptions(), "retry", policy())) for _ in range(2))
    assert hash_of(TIMING, one) == hash_of(TIMING, other)
