"""Why a flow sorts its strategies: the same work under the order of a `Flow`, and under others.

Each experiment runs twice: once as a flow, once with the strategies nested by
hand in an order that looks as good. Time is virtual, so that an outage of ten
seconds takes none and every number comes out the same each time.

    python examples/flow_composition.py
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from quarterjack import CircuitBreaker, ConcurrencyLimit, Flow, Retry, TaskManager, Timeout
from quarterjack.testing import virtual_loop

# -- a retry and a limit: a hundred jobs, ten at once, each works at its second try -------------

RETRY_SOON = Retry(on=OSError, attempts=2, base=1.0, jitter="none")


async def works_at_second_try(tries: dict[int, int], n: int) -> None:
    """Take 0.1 s; raise the first time."""
    await asyncio.sleep(0.1)
    tries[n] = tries.get(n, 0) + 1
    if tries[n] == 1:
        raise OSError("try again")


async def by_hand(attempts: int, body: Callable[[], Awaitable[Any]]) -> Any:
    """Retry as a body would do it itself: with pauses of 1, 2, 4 s inside of whatever gates surround it."""
    for attempt in range(1, attempts):
        try:
            return await body()
        except OSError:
            await asyncio.sleep(2 ** (attempt - 1))
    return await body()


async def seconds_of_limit(*, retry_inside: bool) -> float:
    """Return how long the hundred jobs take."""
    tries: dict[int, int] = {}
    with virtual_loop() as clock:
        began = clock.monotonic()
        limit = ConcurrencyLimit(10)
        async with TaskManager(limit) if retry_inside else TaskManager(RETRY_SOON, limit) as manager:
            for n in range(100):
                if retry_inside:
                    manager.submit(by_hand, 2, partial(works_at_second_try, tries, n))
                else:
                    manager.submit(works_at_second_try, tries, n)
        return clock.monotonic() - began


# -- a retry and a breaker: a hundred jobs a second against a service that is down for 10 s ------


@dataclass
class DeadService:
    """Counts who calls; each call takes 48 ms to fail."""

    calls: int = 0

    async def call(self) -> None:
        """Fail."""
        self.calls += 1
        await asyncio.sleep(0.048)
        raise ConnectionError("connection refused")


async def calls_in_outage(*, breaker: bool, retry_inside: bool) -> int:
    """Return how often the dead service is called."""
    service = DeadService()
    gates = [CircuitBreaker(min_calls=5, open_for=30)] if breaker else []
    retry = [] if retry_inside else [Retry(on=OSError, attempts=3, base=1.0, jitter="none")]
    with virtual_loop():
        async with TaskManager(*gates, *retry) as manager:
            for _ in range(1000):
                if retry_inside:
                    manager.submit(by_hand, 3, service.call)
                else:
                    manager.submit(service.call)
                await asyncio.sleep(0.01)
    return service.calls


# -- a timeout and a limit: a hundred jobs of 0.1 s, ten at once, a timeout of 0.45 s --------------


async def timed_out_of_limit(*, around_the_wait: bool) -> int:
    """Return how many of the jobs run out of time."""
    limit = ConcurrencyLimit(10)

    async def impatient() -> None:
        async with asyncio.timeout(0.45), limit:
            await asyncio.sleep(0.1)

    with virtual_loop():
        async with TaskManager() if around_the_wait else TaskManager(limit, Timeout(0.45)) as manager:
            jobs = [
                manager.submit(impatient) if around_the_wait else manager.submit(asyncio.sleep, 0.1) for _ in range(100)
            ]
    return sum(job.state != "done" for job in jobs)


# -- two limits: ten slow jobs of one tenant, then a quick one of each of ten others ----------------


async def wait_of_others(*, one_after_the_other: bool) -> float:
    """Return when the last of the other tenants' jobs is done."""
    shared, per_tenant = ConcurrencyLimit(10), ConcurrencyLimit(1, by="tenant")
    ends: list[float] = []

    async def work(tenant: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if tenant != "acme":
            ends.append(clock.monotonic() - began)

    async def nested(tenant: str, seconds: float) -> None:
        async with shared, per_tenant.permit(tenant=tenant):
            await work(tenant, seconds)

    with virtual_loop() as clock:
        began = clock.monotonic()
        async with TaskManager() if one_after_the_other else TaskManager(shared, per_tenant) as manager:
            for tenant, seconds in [("acme", 1.0)] * 10 + [(f"other {n}", 0.1) for n in range(10)]:
                manager.submit(nested if one_after_the_other else work, tenant, seconds)
    return max(ends)


async def main() -> None:
    """Measure, and show how a flow sorts what it is given in any order."""
    print("retry and limit: a hundred jobs, ten at once, each fails once and pauses for 1 s")
    print(f"  the retry inside the limit        {await seconds_of_limit(retry_inside=True):6.1f} s")
    print(f"  Flow(Retry, ConcurrencyLimit)     {await seconds_of_limit(retry_inside=False):6.1f} s")
    print("retry and breaker: a thousand jobs of three tries, in an outage of 10 s")
    print(f"  a retry alone                     {await calls_in_outage(breaker=False, retry_inside=False):6,} calls")
    print(f"  the retry inside the breaker      {await calls_in_outage(breaker=True, retry_inside=True):6,} calls")
    print(f"  Flow(Retry, CircuitBreaker)       {await calls_in_outage(breaker=True, retry_inside=False):6,} calls")
    print("timeout and limit: a hundred jobs of 0.1 s, ten at once, a timeout of 0.45 s")
    print(f"  the timeout around the wait       {await timed_out_of_limit(around_the_wait=True):6} out of time")
    print(f"  Flow(ConcurrencyLimit, Timeout)   {await timed_out_of_limit(around_the_wait=False):6} out of time")
    print("two limits: ten at once, and one per tenant; one tenant comes with ten slow jobs")
    print(f"  one after the other               {await wait_of_others(one_after_the_other=True):6.1f} s for the others")
    print(
        f"  Flow(shared, per_tenant)          {await wait_of_others(one_after_the_other=False):6.1f} s for the others"
    )
    print(Flow(Timeout(5), ConcurrencyLimit(10), CircuitBreaker(), Retry(on=OSError)))


if __name__ == "__main__":
    logging.getLogger("quarterjack").setLevel(logging.CRITICAL)  # a thousand jobs fail on purpose
    asyncio.run(main())
