"""Retries: whether there is another attempt, how long until then, and what the body may say about it."""

from __future__ import annotations

import math
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import Discard, InvalidOption, Retry, RetryLater, Snooze
from quarterjack.model import FinishKind, Outcome, OutcomeKind
from quarterjack.policies.backoff import NO_RETRY, full_jitter
from quarterjack.runtime.verdict import Verdict, judge
from tests.unit.rules import S

LONGEST_S = 200 * 366 * 86_400.0
pauses = st.floats(0, LONGEST_S)
EXACT = Retry(on=Exception, attempts=4, base=10, cap=60, jitter="none")


# -- how long -----------------------------------------------------------------------------


def test_base_above_the_cap_is_refused() -> None:
    """Every pause would be the cap's, which whoever wrote such a base did not mean; a low cap alone takes it along."""
    with pytest.raises(InvalidOption, match=r"base=600 is above cap=300, the longest pause: lower it or raise cap="):
        Retry(on=OSError, base=600)
    with pytest.raises(InvalidOption, match="base=10 is above cap=5"):
        Retry(on=OSError, base=10, cap=5)
    assert Retry(on=OSError, cap=0.5) == Retry(on=OSError, base=0.5, cap=0.5)
    assert Retry(on=OSError, base=5, cap=5).pause_s(3, Random(0)) <= 5


def test_pauses_double_up_to_the_cap() -> None:
    """A failing server gets rest, twice as long each time, and is not forgotten either."""
    assert [EXACT.pause_s(failures, Random(0)) for failures in range(1, 7)] == [10, 20, 40, 60, 60, 60]


@given(base_s=pauses, cap_s=pauses, start=st.integers(1, 10**6))
def test_pauses_never_shrink_nor_pass_the_cap(base_s: float, cap_s: float, start: int) -> None:
    """Whatever the two numbers are, the pause is a number between 0 and the cap."""
    base_s, cap_s = sorted((base_s, cap_s))
    policy = Retry(on=Exception, attempts=2, base=base_s, cap=cap_s, jitter="none")
    found = [policy.pause_s(failures, Random(0)) for failures in range(start, start + 5)]
    assert all(0 <= pause <= cap_s for pause in found)
    assert all(earlier <= later for earlier, later in pairwise(found))


@given(base_s=pauses, cap_s=pauses, failures=st.integers(1, 10**6), seed=st.integers())
def test_full_jitter_stays_under_the_exact_pause(base_s: float, cap_s: float, failures: int, seed: int) -> None:
    """The draw lies between no pause at all and the pause without jitter."""
    base_s, cap_s = sorted((base_s, cap_s))
    jittered = Retry(on=Exception, attempts=2, base=base_s, cap=cap_s).pause_s(failures, Random(seed))
    exact = Retry(on=Exception, attempts=2, base=base_s, cap=cap_s, jitter="none").pause_s(failures, Random(seed))
    assert 0 <= jittered <= exact


def test_full_jitter_uses_the_whole_range_evenly() -> None:
    """A thousand clients that failed together must not come back together."""
    rng = Random(20_260_301)
    draws = [full_jitter(10.0, rng) for _ in range(2_000)]
    tenths = [sum(k <= draw < k + 1 for draw in draws) for k in range(10)]
    assert all(120 < tenth < 280 for tenth in tenths), tenths  # six standard deviations around 200


def test_jitter_can_be_replayed_from_its_seed() -> None:
    """A decision is a function of its arguments, the randomness included."""
    policy = Retry(on=Exception, attempts=9, base=10)
    assert [policy.pause_s(n, Random(7)) for n in range(1, 9)] == [policy.pause_s(n, Random(7)) for n in range(1, 9)]
    assert policy.pause_s(3, Random(7)) != policy.pause_s(3, Random(8))


@pytest.mark.parametrize("failures", [1_000, 1_001, 1_024, 1_025, 10**6, 10**30])
@pytest.mark.parametrize("base_s", [1e-9, 1.0, LONGEST_S])
def test_huge_numbers_of_failures_reach_the_cap(failures: int, base_s: float) -> None:
    """2**1024 is no float: the job that failed so often must not fail its worker too."""
    policy = Retry(on=Exception, attempts=10**6, base=base_s, cap=LONGEST_S, jitter="none")
    assert policy.pause_s(failures, Random(0)) == LONGEST_S
    assert math.isfinite(Retry(on=Exception, attempts=10**6, base=base_s, cap=LONGEST_S).pause_s(failures, Random(0)))


@pytest.mark.parametrize("failures", [1, 2, 10**6])
def test_without_a_base_there_is_no_pause(failures: int) -> None:
    """``base=0`` means at once, always."""
    assert Retry(on=Exception, attempts=2, base=0, jitter="none").pause_s(failures, Random(0)) == 0
    assert Retry(on=Exception, attempts=2, base=0).pause_s(failures, Random(0)) == 0


def test_a_timedelta_is_taken_and_kept_in_seconds() -> None:
    """The bug: it passed the check, and its first failure was a TypeError in the worker."""
    policy: Any = Retry
    made = policy(on=Exception, attempts=3, base=timedelta(minutes=1), cap=timedelta(minutes=3), jitter="none")
    assert [made.pause_s(n, Random(0)) for n in (1, 2, 3)] == [60, 120, 180]
    assert made == Retry(on=Exception, attempts=3, base=60, cap=180, jitter="none")


# -- whether ------------------------------------------------------------------------------


@pytest.mark.parametrize(("attempts", "allowed"), [(1, 0), (2, 1), (5, 4)])
def test_attempts_count_the_first(attempts: int, allowed: int) -> None:
    """`retry=3` is three attempts in all, so two after the first failure."""
    policy = Retry(on=Exception, attempts=attempts)
    assert [policy.allows(n, ValueError()) for n in range(1, 8)] == [n <= allowed for n in range(1, 8)]
    assert not NO_RETRY.allows(1, ValueError())


@pytest.mark.parametrize(
    ("error", "allowed"), [(OSError(), True), (TimeoutError(), True), (ValueError(), False), (None, True)]
)
def test_only_the_named_errors_are_worth_another_attempt(error: BaseException | None, allowed: bool) -> None:
    """Subclasses count as named; an error of another process that is not at hand is given the benefit."""
    assert Retry(attempts=5, on=(OSError,)).allows(1, error) is allowed


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": True},
        {"attempts": 1.5},
        {"attempts": 10**6 + 1},
        {"base": -1},
        {"base": math.nan},
        {"base": math.inf},
        {"base": "10"},
        {"cap": -0.001},
        {"cap": math.nan},
        {"cap": timedelta(days=400 * 366)},
        {"jitter": "some"},
        {"on": "OSError"},
        {"on": int},
        {"on": ("OSError",)},
        {"on": (int,)},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused_when_it_is_made(options: dict[str, Any]) -> None:
    """And not on the day of the first failure; the message names the field."""
    given: dict[str, Any] = {"on": Exception, **options}
    with pytest.raises(InvalidOption, match="retry" if "attempts" in options else next(iter(options))):
        Retry(**given)


# -- what the body says about it --------------------------------------------------------------


def judged(error: BaseException, *, failures: int = 0, retry: Retry = EXACT, cancelled: bool = False) -> Verdict:
    outcome = Outcome(OutcomeKind.RAISED, error=error)
    return judge(outcome, failures=failures, retry=retry, cancel_requested=cancelled, rng=Random(0))


@pytest.mark.parametrize("after", [90, 90.0, timedelta(seconds=90)])
def test_a_hint_of_the_server_replaces_the_pause(after: float | timedelta) -> None:
    """``Retry-After: 90`` is obeyed as it is: not jittered, not capped, not doubled."""
    for failures in range(3):
        verdict = judged(RetryLater(after=after, reason="busy"), failures=failures)
        assert (verdict.kind, verdict.delay_ns, verdict.reason) == (FinishKind.RETRY, 90 * S, "busy")


def test_a_hint_without_a_time_keeps_to_the_policy() -> None:
    """A mere "later" is an ordinary failure, and waits as long as one."""
    assert [judged(RetryLater(), failures=n).delay_ns for n in range(3)] == [10 * S, 20 * S, 40 * S]


@pytest.mark.parametrize("on", [(OSError,), (Exception,)])
def test_a_hint_is_a_wish_whatever_errors_are_named(on: tuple[type[BaseException], ...]) -> None:
    """Who asks for another attempt need not be listed among the errors worth one."""
    retry = Retry(attempts=2, jitter="none", on=on)
    assert judged(RetryLater(after=1), retry=retry).kind is FinishKind.RETRY


def test_a_hint_makes_no_attempt_beyond_the_last() -> None:
    """A server that always says "later" does not keep a job for ever."""
    assert judged(RetryLater(after=1), failures=3).kind is FinishKind.FAILED
    assert judged(RetryLater(after=1), retry=NO_RETRY).kind is FinishKind.FAILED


def test_a_cancelled_job_is_not_tried_again() -> None:
    """Neither by its policy nor by its own wish."""
    assert judged(RetryLater(after=1), cancelled=True).kind is FinishKind.FAILED
    assert judged(OSError(), cancelled=True).kind is FinishKind.FAILED
    assert judged(OSError()).kind is FinishKind.RETRY


@pytest.mark.parametrize("after", [-1, math.nan, math.inf, timedelta(seconds=-1)])
def test_an_impossible_hint_is_the_bodys_failure(after: float | timedelta) -> None:
    """It must not raise where the outcome is judged, or the job would have none."""
    for signal in (RetryLater(after=after), Snooze(after)):
        verdict = judged(signal)
        assert verdict.kind is FinishKind.FAILED
        assert "InvalidOption" in (verdict.error.type_name if verdict.error else "")


def test_snooze_and_discard_count_on_no_policy() -> None:
    """One comes again without having failed, the other never, however many attempts are left."""
    assert judged(Snooze(5), failures=99)[:2] == (FinishKind.SNOOZE, 5 * S)
    assert judged(Discard("gone"))[:2] == (FinishKind.FAILED, 0)
