"""Options that are numbers: what is taken, and what is said of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from quarterjack import ConcurrencyLimit, InvalidOption, Retry, TokenBucket
from quarterjack._numbers import number, whole_number


@pytest.mark.parametrize(("value", "low", "high"), [(1, 1, 1), (0, 0, 5), (2**63 - 1, 1, None), (-3, -5, 0)])
def test_whole_number_in_its_range_is_taken(value: int, low: int, high: int | None) -> None:
    """The ends belong to it."""
    assert (whole_number(value, "n", low) if high is None else whole_number(value, "n", low, high)) == value


@pytest.mark.parametrize("value", [True, 1.0, "1", None, math.nan, Decimal(1)])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    """A bool is an int to Python; to whoever reads a configuration it is a mistake."""
    with pytest.raises(InvalidOption) as caught:
        whole_number(value, "n", 0, 5)
    assert str(caught.value) == f"n must be a whole number from 0 to 5, got {value!r}"


@pytest.mark.parametrize(
    ("value", "exclusive", "told"),
    [
        (0, True, "cost must be a number above 0 and at most 2, got 0"),
        (2.5, True, "cost must be a number above 0 and at most 2, got 2.5"),
        (-0.1, False, "cost must be a number from 0 to 2, got -0.1"),
        (math.nan, False, "cost must be a number from 0 to 2, got nan"),
        (True, False, "cost must be a number from 0 to 2, got True"),
        ("1", False, "cost must be a number from 0 to 2, got '1'"),
    ],
)
def test_number_beyond_its_range_is_told_the_range(value: Any, exclusive: bool, told: str) -> None:
    """The field, the value, what is allowed."""
    with pytest.raises(InvalidOption) as caught:
        number(value, "cost", 0, 2, exclusive=exclusive)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    "make",
    [
        ConcurrencyLimit,
        lambda giant: TokenBucket(giant, 1),
        lambda giant: TokenBucket(1, giant),
        lambda giant: Retry(on=OSError, attempts=giant),
    ],
)
@pytest.mark.parametrize("digits", [400, 5000])
def test_number_that_no_float_holds_and_python_will_not_print_is_told_by_its_size(
    make: Callable[[int], object], digits: int
) -> None:
    """One of 400 digits failed as a limit was asked; one of 5000 could not even be told."""
    with pytest.raises(InvalidOption, match=f"got a number of about {digits:,} digits"):
        make(10**digits)


@pytest.mark.parametrize("endless", [math.inf, -math.inf])
def test_endless_number_is_refused(endless: float) -> None:
    """A bucket of an endless rate would have no time to count."""
    with pytest.raises(InvalidOption, match=r"rate must be a number above 0, got -?inf"):
        TokenBucket(endless, 1)


def test_a_whole_number_that_is_too_large_is_told_how_large_it_may_be() -> None:
    """It is a whole number from 1: that alone would leave whoever wrote it with nothing to mend."""
    with pytest.raises(InvalidOption, match=rf"slots must be a whole number from 1 to {2**63 - 1}, got {10**30}"):
        whole_number(10**30, "slots", 1)
    with pytest.raises(InvalidOption, match="slots must be a whole number from 1, got 0"):
        whole_number(0, "slots", 1)
