"""`TokenBucket`: what must hold of it, and variants of it for which that does not hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import InvalidOption, TaskManager, TokenBucket, Waiting
from quarterjack.flow.outcome import Ended
from quarterjack.flow.permit import Pass
from quarterjack.testing import virtual_loop
from tests.flow.loads import Load, Played, breaks, is_in_order, loads, played

MORE: Final = settings(max_examples=40)
CRUMB: Final = 1e-5


def is_within(came: Played, rate: float, burst: float) -> bool:
    """Say whether any stretch of W seconds holds ``burst + rate * W`` at most."""
    for n, first in enumerate(came.starts):
        total = 0.0
        for one in came.starts[n:]:
            total += one.cost
            if total > burst + rate * (one.at - first.at) + CRUMB:
                return False
    return True


def loses_nothing(came: Played, rate: float, burst: float) -> bool:
    """Say whether each start is as early as the tokens, those before it and its own coming allow."""
    tokens, at = burst, 0.0
    for one in came.starts:
        earliest = max(one.came, at)
        tokens = min(burst, tokens + (earliest - at) * rate)
        due = earliest + max(0.0, one.cost - tokens) / rate
        if one.at > due + CRUMB:
            return False
        tokens, at = tokens + (one.at - earliest) * rate - one.cost, one.at
    return True


def holds(cls: type[TokenBucket], load: Load, rate: float, burst: float) -> bool:
    """Say whether a bucket of this class keeps its promises under *load*."""
    gate = cls(rate, burst)
    came = played([gate], load)
    kept = is_within(came, rate, burst) and is_in_order(came.starts) and came.is_whole and not gate._reserved
    return kept and (not load.is_undisturbed or loses_nothing(came, rate, burst))


@MORE
@given(load=loads(max_cost=3), rate=st.sampled_from([2, 3, 7.5]), burst=st.sampled_from([3, 4.5]))
def test_no_stretch_holds_more_than_the_burst_and_its_tokens(load: Load, rate: float, burst: float) -> None:
    """The limit, first come first served, through cancels, failures, timeouts and stalls; all jobs end."""
    assert holds(TokenBucket, load, rate, burst)


@MORE
@given(load=loads(max_cost=3, with_stalls=False), rate=st.sampled_from([2, 3, 7.5]))
def test_no_token_is_lost(load: Load, rate: float) -> None:
    """Each job starts at the first instant that the tokens allow."""
    assert holds(TokenBucket, load, rate, 3)


class StampsAtAdmission(TokenBucket):
    """Counts a start when it is granted."""

    def take(self, job: Waiting, now: float) -> None:
        self._count(job, now)

    def started(self, job: Waiting, now: float) -> None: ...

    def give(self, job: Waiting, now: float, ended: Ended) -> None: ...


class CountsJobsNotCost(TokenBucket):
    """Takes one token, whatever a job costs."""

    def _count(self, job: Waiting, now: float) -> None:
        super()._count(Pass(), now)


class ForgetsReservations(TokenBucket):
    """Lets all in before the first has begun."""

    def take(self, job: Waiting, now: float) -> None: ...

    def started(self, job: Waiting, now: float) -> None:
        self._count(job, now)

    def give(self, job: Waiting, now: float, ended: Ended) -> None: ...


class GainsNothingWhileFull(TokenBucket):
    """Counts the pause after a start as if the bucket were empty."""

    def _count(self, job: Waiting, now: float) -> None:
        self._full_at_ns = round(now * 1e9) + round(self.burst * self._token_ns)


@pytest.mark.parametrize("broken", [StampsAtAdmission, CountsJobsNotCost, ForgetsReservations, GainsNothingWhileFull])
def test_broken_bucket_is_found(broken: type[TokenBucket]) -> None:
    """A property that no mistake violates says nothing."""
    found = breaks(lambda load: holds(broken, load, 3, 3), loads(max_cost=3))
    assert found is not None
    assert holds(TokenBucket, found, 3, 3)


# ---------------------------------------------------------------- by example


async def test_a_burst_and_then_the_rate() -> None:
    """A full bucket goes at once, the rest as the tokens come."""
    limit = TokenBucket(2, burst=3)
    told: list[float] = []
    with virtual_loop() as clock:
        began = clock.monotonic()
        for _ in range(6):
            async with limit:
                told.append(round(clock.monotonic() - began, 4))
    assert told == [0, 0, 0, 0.5, 1, 1.5]


async def test_a_year_of_thirds_of_a_second_is_not_a_nanosecond_too_fast() -> None:
    """A rate that is no whole number of nanoseconds is rounded down, once, and nothing adds up."""
    bucket = TokenBucket(3, burst=1)
    job = Pass()
    at = 0
    for _ in range(1000):
        assert bucket.eta(job, at / 1e9) <= at / 1e9
        assert bucket.eta(job, (at - 2) / 1e9) > (at - 2) / 1e9 or at == 0
        bucket.take(job, at / 1e9)
        bucket.started(job, at / 1e9)
        at += 333_333_334


def test_a_slow_bucket_is_not_a_nanosecond_too_fast() -> None:
    """What is granted to fractions of a cost must not shorten the time of a whole token."""
    bucket, job = TokenBucket(2, burst=3, per=60), Pass()
    for _ in range(3):
        assert bucket.eta(job, 100.0) <= 100.0
        bucket.take(job, 100.0)
        bucket.started(job, 100.0)
    assert bucket.eta(job, 100.0) == 130.0


async def test_update_keeps_what_is_missing() -> None:
    """Ten times the rate: what was to come in ten seconds comes in one."""
    limit = TokenBucket(0.1, burst=1)
    with virtual_loop() as clock:
        began = clock.monotonic()
        async with limit:
            pass
        waiting = asyncio.create_task(limit.__aenter__())
        await asyncio.sleep(5)
        assert limit.stats() == {"rate": 0.1, "burst": 1, "tokens": pytest.approx(0.5)}
        limit.update(rate=1)
        await waiting
        assert clock.monotonic() - began == pytest.approx(5.5)
        limit.penalise(for_=3)
        limit.update(burst=5)
        async with limit:
            assert clock.monotonic() - began == pytest.approx(8.5)


async def test_cost_above_the_burst_raises_at_submit() -> None:
    """A job that can never start is an error of whoever submits it."""

    async def call() -> None: ...

    async with TaskManager(TokenBucket(100, burst=3)) as manager:
        with pytest.raises(InvalidOption, match="cost=4 is above burst=3"):
            manager.options(cost=4).submit(call)


async def test_keys_have_buckets_of_their_own() -> None:
    """And a full one is forgotten."""
    limit = TokenBucket(1, burst=1, by="tenant")
    with virtual_loop() as clock:
        began = clock.monotonic()
        async with limit.permit(tenant="a"), limit.permit(tenant="b"):
            assert clock.monotonic() == began
        for n in range(50):
            await asyncio.sleep(2)
            async with limit.permit(tenant=n):
                pass
        assert len(limit.keys()) < 5


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: TokenBucket(0, 1), "rate must be a number above 0, got 0"),
        (lambda: TokenBucket(-1, 1), "rate must be a number above 0, got -1"),
        (lambda: TokenBucket(1e-300, 1), "less than a token in 200 years"),
        (lambda: TokenBucket(1, 0.5), "burst must be a number from 1, got 0.5"),
        (lambda: TokenBucket(1, 1, per=0), "per must be more than 0"),
        (lambda: TokenBucket(1, 1).update(rate=0), "rate must be a number above 0, got 0"),
        (lambda: TokenBucket(1, 1).update(per=2), "TokenBucket.update takes rate, burst, got 'per'"),
    ],
)
def test_bad_settings_are_refused(build: Callable[[], Any], said: str) -> None:
    """The field, the value and the range, where the mistake is made."""
    with pytest.raises(InvalidOption, match=said):
        build()
