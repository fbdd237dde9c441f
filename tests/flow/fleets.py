"""Several processes in one loop: each has a dispatcher, a gate, and a line to one store that all share.

A line takes time for each call, may be cut, and may keep hints back. So what a
gate promises for a whole fleet is played on virtual time, over the loads that
gates of one process are played with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from quarterjack import ConcurrencyLimit, FixedWindow, Gate, SlidingWindow, TaskManager, TokenBucket
from quarterjack.errors import StoreUnavailable
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.stores.base import Acquired, Hint
from quarterjack.stores.memory import MemoryStore
from quarterjack.testing import virtual_loop
from tests.flow.loads import PATIENCE_S, START, Load, Played, Start, Work, stall

__all__ = ["FORMS", "Line", "Place", "entered", "played_by"]

FORMS: Final[dict[str, Callable[..., Gate]]] = {
    "ConcurrencyLimit": lambda **how: ConcurrencyLimit(2, scope="fleet", **how),
    "SlidingWindow": lambda **how: SlidingWindow(2, 10, scope="fleet", **how),
    "FixedWindow": lambda **how: FixedWindow(2, 10, scope="fleet", **how),
    "TokenBucket": lambda **how: TokenBucket(0.2, 2, scope="fleet", **how),
}


@dataclass
class Place:
    """What the lines of a fleet lead to."""

    limits: Any = field(default_factory=lambda: MemoryStore()._limits)
    lines: list[Line] = field(default_factory=list["Line"])

    def slots(self, limit: str) -> dict[str, int]:
        """Return the rows of a limit, by holder."""
        found: dict[str, int] = self.limits._slots.get(limit, {})
        return found

    def slots_of(self, kind: str, now_ns: int) -> dict[str, list[str]]:
        """Return who holds rows that count, by limit, of all limits whose name begins with *kind*."""
        every: dict[str, dict[str, int]] = self.limits._slots
        return {
            limit: [holder for holder, until in rows.items() if until > now_ns]
            for limit, rows in every.items()
            if limit.startswith(kind)
        }


class Line(MemoryStore):
    """A process's store: its own but for the limits, which are at *place*."""

    never_suspends = False

    def __init__(self, place: Place, delay_s: float = 0.0, *, tells: bool = True) -> None:
        super().__init__()
        self._limits = place.limits
        self._place = place
        self.delay_s = delay_s
        self.is_cut = False
        self.calls: list[str] = []
        self._tells = tells
        place.lines.append(self)

    def _tell(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        if hint is not Hint.LIMITS:
            super()._tell(hint, ids)
        elif self._tells:
            for line in self._place.lines:
                MemoryStore._tell(line, hint, ids)

    async def _travel(self, call: str) -> None:
        self.calls.append(call)
        await asyncio.sleep(self.delay_s / 2)
        if self.is_cut:
            raise StoreUnavailable("the line is cut")

    async def limit_acquire(
        self, limit: str, holders: Sequence[str], *, maximum: int, ttl_s: float, waiter: str | None = None
    ) -> Acquired:
        await self._travel("acquire")
        answer = await super().limit_acquire(limit, holders, maximum=maximum, ttl_s=ttl_s, waiter=waiter)
        await asyncio.sleep(self.delay_s / 2)
        return answer

    async def limit_renew(self, limit: str, holders: Sequence[str], ttl_s: float) -> list[str]:
        await self._travel("renew")
        return await super().limit_renew(limit, holders, ttl_s)

    async def limit_release(self, limit: str, holders: Sequence[str]) -> None:
        await self._travel("release")
        await super().limit_release(limit, holders)

    async def limit_take(self, limit: str, n: float, *, rate: float, burst: float) -> float:
        await self._travel("take")
        answer = await super().limit_take(limit, n, rate=rate, burst=burst)
        await asyncio.sleep(self.delay_s / 2)
        return answer


async def entered(stack: AsyncExitStack, gate: Gate, line: Line) -> TaskManager:
    """Enter a manager that has a dispatcher of its own, as in another process."""
    Dispatcher._by_loop.pop(id(asyncio.get_running_loop()), None)
    return await stack.enter_async_context(TaskManager(gate, store=line))


def played_by(
    make: Callable[[], Gate], load: Load, *, delays_s: Sequence[float] = (0.0, 0.003), place: Place | None = None
) -> Played:
    """Run *load* through as many processes as there are delays, job by job in turn; starts in their order in time."""
    return asyncio.run(_play(make, load, delays_s, place or Place()))


async def _play(make: Callable[[], Gate], load: Load, delays_s: Sequence[float], place: Place) -> Played:
    found = Played()
    loop = asyncio.get_running_loop()
    with virtual_loop(start=START) as clock:
        began = clock.monotonic()
        async with AsyncExitStack() as stack:
            managers = [await entered(stack, make(), Line(place, delay)) for delay in delays_s]

            async def body(one: Start, work: Work) -> None:
                one.at, one.wall_ns = clock.monotonic(), clock.now_ns()
                found.starts.append(one)
                try:
                    await asyncio.sleep(3600 if work.end == "hangs" else work.lasts / 1000)
                    if work.end == "raises":
                        raise OSError(work.comes)
                finally:
                    one.ended = clock.monotonic()

            def come(work: Work) -> None:
                one = Start(len(found.jobs), work.cost, clock.monotonic(), 0.0, 0)
                timeout: dict[str, Any] = {"timeout": (work.lasts + 1) / 1000} if work.end == "hangs" else {}
                manager = managers[one.number % len(managers)]
                job = manager.options(cost=work.cost, **timeout).submit(body, one, work)
                found.jobs.append(job)
                if work.end == "cancelled":
                    loop.call_later(work.cancel_after / 1000, partial(_cancel, manager, job))

            for work in load.works:
                loop.call_at(began + work.comes / 1000, partial(come, work))
            for at, ms, _ in load.stalls:
                loop.call_at(began + at / 1000, partial(stall, clock, ms / 1000))
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.sleep(max(work.comes for work in load.works) / 1000 + 0.001)
                    for manager in managers:
                        await manager.idle()
                    found.is_whole = True
            for manager in managers:
                await manager.stop(drain=found.is_whole)
    found.starts.sort(key=lambda one: one.at)
    return found


def _cancel(manager: TaskManager, job: Any) -> None:
    manager._jobs.running().cancel(job._record)  # here and now: between its admission and its body, perhaps
