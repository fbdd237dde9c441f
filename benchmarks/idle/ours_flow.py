"""quarterjack's flows with nothing to do: a thousand keys seen, jobs done, timeouts and deadlines not met."""

from __future__ import annotations

from measure import Wakes, answer, options, run
from quarterjack import ConcurrencyLimit, Deadline, Flow, SlidingWindow, TaskManager, Timeout, gather

args = options(schedules=1_000, seconds=65.0)


async def of_tenant(tenant: int) -> None: ...


async def main() -> None:
    wakes = Wakes()
    gates = ConcurrencyLimit(10, by="tenant"), SlidingWindow(100, per=1.0, by="tenant")
    async with TaskManager(Flow(*gates, Timeout(10), Deadline(20))) as manager:
        await gather([manager.submit(of_tenant, number) for number in range(args.schedules)])
        answer(args, await wakes.during(args.seconds), "two gates for each of a thousand keys, timeout, deadline")


run(main, args)
