"""The store's time by this machine's counters, and how an outage is told and waited out."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack.runtime.outage import LONGEST_PAUSE_S, Outage
from quarterjack.runtime.store_time import StoreTime
from quarterjack.testing._clock import VirtualClock

MS = 10**6


class Remote:
    """A store whose clock is *ahead_ns* of ours, at the end of a line with these delays."""

    uses_local_clock = False

    def __init__(self, clock: VirtualClock, ahead_ns: int) -> None:
        self.clock, self.ahead_ns = clock, ahead_ns
        self.delays: list[tuple[int, int]] = []

    async def now_ns(self) -> int:
        there, back = self.delays.pop(0)
        self.clock.move_to(self.clock.monotonic_ns() + there)
        now = self.clock.now_ns() + self.ahead_ns
        self.clock.move_to(self.clock.monotonic_ns() + back)
        return now


def looked(ahead_ns: int, *delays: tuple[int, int]) -> tuple[StoreTime, Remote, VirtualClock]:
    clock = VirtualClock()
    store = Remote(clock, ahead_ns)
    store.delays = list(delays)
    made: Any = StoreTime
    return made(store, clock), store, clock


delay = st.integers(0, 50 * MS)


@given(ahead=st.integers(-(10**10), 10**10), delays=st.lists(st.tuples(delay, delay), min_size=1, max_size=8))
async def test_the_error_is_at_most_half_of_the_best_round_trip(ahead: int, delays: list[tuple[int, int]]) -> None:
    """However lopsided a line is, the store read its clock somewhere between question and answer."""
    time, store, clock = looked(ahead, *delays)
    for _ in delays:
        await time.look()
    best = min(there + back for there, back in delays)
    assert abs(time.now_ns() - (clock.now_ns() + store.ahead_ns)) <= best // 2 + 10**5


async def test_a_slow_look_does_not_spoil_a_good_one() -> None:
    """One packet that was held up must not move every tick."""
    time, _, clock = looked(0, (MS, MS), (400 * MS, 0))
    await time.look()
    await time.look()
    assert abs(time.now_ns() - clock.now_ns()) <= 2 * MS


async def test_a_store_whose_clock_was_set_is_believed() -> None:
    """It decides what is due, right or wrong."""
    time, store, clock = looked(0, (MS, MS), (MS, 2 * MS))
    await time.look()
    store.ahead_ns = 60 * 10**9
    await time.look()
    assert abs(time.now_ns() - clock.now_ns() - store.ahead_ns) <= 2 * MS


async def test_a_local_clock_that_is_set_moves_no_due_time() -> None:
    """Elapsed time counts: what is due in a minute is due in a minute, whatever the wall shows here."""
    time, _, clock = looked(0, (MS, MS))
    await time.look()
    due = time.now_ns() + 60 * 10**9
    clock.step_clock(-3600)
    assert abs(time.local_ns(due) - clock.now_ns() - 60 * 10**9) <= 2 * MS
    time.was_early(5 * MS)
    assert abs(time.local_ns(due) - clock.now_ns() - 60 * 10**9 - 5 * MS) <= 2 * MS


def test_an_outage_is_told_once_at_each_end(caplog: pytest.LogCaptureFixture) -> None:
    """A log is for people: one line when it begins, one when it is over, with how long it was."""
    caplog.set_level(logging.INFO, "quarterjack")
    now = [100.0]
    outage = Outage(lambda: now[0])
    outage.worked("claiming")
    for _ in range(20):
        assert 0 < outage.failed("claiming", OSError("refused")) <= LONGEST_PAUSE_S * 1.5
        assert 0 < outage.failed("recording", OSError("refused")) <= LONGEST_PAUSE_S * 1.5
    now[0] += 42
    assert outage.lasts_s == 42
    outage.worked("claiming")
    assert outage.since is not None, "recording still fails"
    outage.worked("recording")
    outage.worked("recording")
    assert outage.lasts_s == 0.0
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "refused" in said[0]
    assert said[1] == "the store works again, after 42.0 s"


def test_pauses_of_an_outage_grow_and_differ() -> None:
    """A thousand workers must not come back in the same moment."""
    outages = [Outage(lambda: 0.0) for _ in range(20)]
    first = [one.failed("x", OSError()) for one in outages]
    for _ in range(8):
        for one in outages:
            one.failed("x", OSError())
    last = [one.failed("x", OSError()) for one in outages]
    assert len(set(first)) == len(set(last)) == 20
    assert max(first) < 0.4
    assert min(last) > 2
