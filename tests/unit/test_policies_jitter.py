"""Jitter: a spread of starts that stays in its bounds, keeps the order, and is the same on every replica."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack.policies import jitter
from quarterjack.policies.jitter import due_ns, spread
from tests.unit.rules import HOUR, NOON, YEAR, S

ids = st.text(max_size=40)
nominals = st.integers(0, 2**63)


@given(schedule_id=ids, nominal=nominals, jitter_ns=st.integers(0, 200 * YEAR), gap=st.none() | st.integers(1, YEAR))
def test_a_run_is_due_within_its_jitter_and_before_the_next(
    schedule_id: str, nominal: int, jitter_ns: int, gap: int | None
) -> None:
    """Never early, never later than asked for, never at or past the next fire time."""
    due = due_ns(schedule_id, nominal, jitter_ns, below=None if gap is None else nominal + gap)
    assert nominal <= due <= nominal + jitter_ns
    assert gap is None or due < nominal + gap


@given(
    schedule_id=ids,
    steps=st.lists(st.integers(1, 100), min_size=2, max_size=50),
    jitter_ns=st.integers(0, 1_000),
)
def test_order_of_fire_times_is_kept(schedule_id: str, steps: list[int], jitter_ns: int) -> None:
    """However wide the jitter, no run overtakes the one before it, and no two fall together."""
    at, fire_times = NOON, [NOON]
    for step in steps:
        at += step
        fire_times.append(at)
    dues = [due_ns(schedule_id, n, jitter_ns, below=below) for n, below in pairwise(fire_times)]
    assert all(earlier < later for earlier, later in pairwise(dues))


@pytest.mark.parametrize("value", [0, 1, 2**64 - 1, 2**64 - 2**9, 2**63])
def test_spread_stays_below_one_for_every_digest(value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: the 1024 highest of 2**64 digests rounded up to 1.0, and such a run came one jitter late."""

    class Digest:
        def digest(self) -> bytes:
            return value.to_bytes(8, "big")

    monkeypatch.setattr(jitter, "blake2b", lambda *_args, **_options: Digest())
    assert 0 <= spread("s", NOON) < 1
    assert due_ns("s", NOON, 10, below=None) < NOON + 10


def test_no_jitter_is_the_fire_time() -> None:
    """The usual case is left alone, whatever follows."""
    assert due_ns("s", NOON, 0, below=None) == due_ns("s", NOON, 0, below=NOON + 1) == NOON


def test_schedules_of_one_rule_are_spread_evenly() -> None:
    """What jitter is for: a thousand schedules at midnight must not start in one heap."""
    dues = [due_ns(f"schedule-{n}", NOON, 10 * S, below=None) - NOON for n in range(2_000)]
    tenths = [sum(k * S <= due < (k + 1) * S for due in dues) for k in range(10)]
    assert sum(tenths) == 2_000
    assert all(120 < tenth < 280 for tenth in tenths), tenths  # six standard deviations around 200


def test_fire_times_of_one_schedule_are_spread_evenly() -> None:
    """A schedule is not the one that is always late."""
    dues = [due_ns("s", NOON + n * 60 * S, 10 * S, below=None) - NOON - n * 60 * S for n in range(2_000)]
    tenths = [sum(k * S <= due < (k + 1) * S for due in dues) for k in range(10)]
    assert all(120 < tenth < 280 for tenth in tenths), tenths


@given(one=st.tuples(ids, nominals), other=st.tuples(ids, nominals))
def test_only_schedule_and_fire_time_decide(one: tuple[str, int], other: tuple[str, int]) -> None:
    """Two occurrences have spreads of their own: id and fire time do not run into each other."""
    assert (spread(*one) == spread(*other)) is (one == other)
    assert spread("job", 11) != spread("job1", 1)


def test_another_process_computes_the_same() -> None:
    """A replica, or this program after a restart, must not start the same occurrence at another moment."""
    program = f"from quarterjack.policies.jitter import due_ns; print(due_ns('nightly', {NOON}, {HOUR}, below=None))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) == due_ns("nightly", NOON, HOUR, below=None)
