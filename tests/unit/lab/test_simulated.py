"""A long time made of measured turns."""

from __future__ import annotations

import pytest

from quarterjack.lab.results import Row
from quarterjack.lab.simulated import simulated, turns_of
from tests.unit.lab.kit import MS, S, kept, losing, results, row

HOUR = 3_600.0


def walked(one: Row, seconds: float = HOUR, fires_ns: list[int] | None = None) -> Row:
    (found,) = simulated(results(one), seconds, fires_ns).rows
    return found


@pytest.mark.parametrize("loss_ms", [0.2, 450])
def test_an_hour_loses_what_its_turns_do(loss_ms: float) -> None:
    """The point of the walk: a minute tells what an hour comes to."""
    found = walked(row("sleep-loop", losing(loss_ms, 40))).account
    assert found is not None
    assert found.starts == pytest.approx(HOUR / (1 + loss_ms / 1e3), abs=1)
    assert found.drift_ns == pytest.approx(loss_ms / (1_000 + loss_ms) * HOUR * 1_000 * MS, rel=0.02)


def test_a_grid_is_as_late_as_it_was_and_misses_as_often() -> None:
    """Faults that were measured are in the walk, in the same share."""
    found = walked(row("grid-main", kept()[:30] + kept()[36:])).account
    assert found is not None
    assert found.drift_ns == 0
    assert found.missed == pytest.approx(360, rel=0.2)
    assert {lag // 10_000 for _, lag in found.points} == {20, 21, 22}


def test_our_fire_times_are_those_of_the_scheduler() -> None:
    """Nothing of ours is assumed: a tick that the scheduler did not fire stays missed."""
    fires = [tick * S for tick in range(3_600) if tick != 1_234]
    found = walked(row("ours-loop", kept()), fires_ns=fires).account
    assert found is not None
    assert (found.ticks, found.starts, found.missed) == (3_600, 3_599, 1)


def test_the_walk_repeats_itself_and_says_what_it_is() -> None:
    """The same measurement gives the same day; CPU time grows with the starts, memory stays."""
    before = results(row("sleep-loop", [n * 1_003 + n % 7 for n in range(40)]))
    found = simulated(before, HOUR)
    assert found == simulated(before, HOUR)
    assert found.settings.simulated_s == HOUR
    (one,) = found.rows
    assert one.recorded.cpu_s == pytest.approx(0.5 * len(one.recorded.starts_ns) / 40)
    assert one.recorded.memory_bytes == 20 * 2**20


def test_what_was_never_measured_is_not_walked() -> None:
    """A way that failed has no turns, and one start is no turn either."""
    assert simulated(results(row("sleep-loop", [], error="no")), HOUR).rows == ()
    assert turns_of(row("sleep-loop", [0.0]), S) == []
    assert walked(row("sleep-loop", [0.0])) == row("sleep-loop", [0.0])
