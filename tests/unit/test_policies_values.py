"""Policies by their values: what a bound in the right place says, and a number that may never change."""

from __future__ import annotations

from typing import Any

import pytest

from quarterjack import InvalidOption, Retry
from quarterjack.policies.jitter import due_ns, spread
from quarterjack.policies.overlap import OverlapMode, has_room

HOUR = 3_600 * 10**9


def test_spread_is_the_same_in_every_version() -> None:
    """A replica of the next version must compute the same due times as its neighbours of this one."""
    assert [spread("report", hour * HOUR) for hour in (0, 1, 490_000)] == [
        0.8745471760965748,
        0.7180513955555331,
        0.6643681865531293,
    ]


def test_jitter_puts_a_run_off_by_its_share() -> None:
    """A bound that is far away takes nothing from the spread."""
    late = int(spread("report", HOUR) * 600e9)
    assert late > 0
    assert due_ns("report", HOUR, 600 * 10**9, below=2 * HOUR) == HOUR + late
    assert due_ns("report", HOUR, 600 * 10**9, below=None) == HOUR + late


def test_jitter_ends_a_nanosecond_before_the_next_fire_time() -> None:
    """Up to the last instant that keeps the order, and no farther."""
    late = int(spread("report", HOUR) * 600e9)
    assert due_ns("report", HOUR, 600 * 10**9, below=HOUR + late + 1) == HOUR + late
    assert due_ns("report", HOUR, 600 * 10**9, below=HOUR + late) == HOUR + late - 1
    assert due_ns("report", HOUR, 600 * 10**9, below=HOUR + 1) == HOUR


@pytest.mark.parametrize(
    ("mode", "maximum", "running", "waiting", "is_free"),
    [
        ("skip", None, 0, 0, True),
        ("skip", None, 1, 0, False),
        ("queue_one", None, 1, 0, True),
        ("queue_one", None, 0, 1, False),
        ("queue_latest", None, 1, 0, True),
        ("queue_latest", None, 1, 1, False),
        ("queue_all", 2, 1, 1, True),
        ("queue_all", 2, 1, 2, False),
        ("cancel_previous", None, 1, 0, False),
        ("allow", 2, 1, 0, True),
        ("allow", 2, 1, 1, False),
    ],
)
def test_there_is_room_where_a_run_takes_nobodys_place(
    mode: OverlapMode, maximum: int | None, running: int, waiting: int, is_free: bool
) -> None:
    """A chain whose run was left out goes on when it would disturb no other."""
    assert has_room(mode, maximum, running=running, waiting=waiting) is is_free


def test_misspelt_field_of_a_retry_policy_names_the_right_one() -> None:
    """A wrong name would show only when the first job fails."""
    policy: Any = Retry
    with pytest.raises(InvalidOption, match="did you mean 'attempts'"):
        policy(on=OSError, atempts=3)
    with pytest.raises(InvalidOption, match="it takes on, attempts, deadline, base, cap, mult"):
        policy(on=OSError, quickly=True)
