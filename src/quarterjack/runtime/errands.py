"""Errands of a worker: calls of the store that nobody waits for, but its stop.

Jobs that did not begin, or were interrupted by a stop, go back; bodies that
outlived their outcome are told to have ended. A store that does not answer is
asked until it does, or a stop has no patience left: then the leases run out,
which costs a rescue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple, Protocol

from quarterjack.errors import StoreError, StoreUnavailable
from quarterjack.model import Fenced
from quarterjack.stores.base import Renewal, Store

from .outage import Outage

__all__ = ["Errands", "ErrandsHost"]

log = logging.getLogger("quarterjack.worker")

TRIES: Final = 5
"""How often a store is asked that answers that it will not do it."""


class ErrandsHost(Protocol):
    """What is needed of the app around it."""

    @property
    def store(self) -> Store: ...
    @property
    def outage(self) -> Outage: ...
    @property
    def owner(self) -> str: ...
    @property
    def lease_s(self) -> float | None: ...


class _Back(NamedTuple):
    """Jobs that go back together."""

    fences: list[Fenced]
    news: list[Renewal]


class Errands:
    """Runs them for one worker.

    Args:
        host: The app.
        pause: Waits between two tries; not for long once the worker stops.
    """

    def __init__(self, host: ErrandsHost, pause: Callable[[float], Awaitable[None]]) -> None:
        self._host = host
        self._pause = pause
        self.going: set[Fenced] = set()
        """Jobs on their way back: the store does not know of it yet, and their leases are renewed."""
        self._back: dict[tuple[int, str], _Back] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def spawn(self, call: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for but `done`."""
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def done(self) -> None:
        """Wait for all of them."""
        await asyncio.gather(*self._calls, return_exceptions=True)

    def leave(self) -> None:
        """Leave to their leases what was not done in time."""
        for call in self._calls:
            call.cancel()
        if self.going:
            text = "%d jobs could not be given back; another process takes them when their leases have run out"
            log.error(text, len(self.going))

    def give_back(self, fence: Fenced, reason: str, delay_ns: int = 0, *news: Renewal) -> None:
        """Put a job back into the store, with others of this turn in one call; *news* is what its body said last."""
        back = self._back.get((delay_ns, reason))
        if back is None:
            back = self._back[delay_ns, reason] = _Back([], [])
            self.spawn(self._give_back(delay_ns, reason))
        back.fences.append(fence)
        self.going.add(fence)
        back.news.extend(news)

    async def _give_back(self, delay_ns: int, reason: str) -> None:
        host, back = self._host, self._back.pop((delay_ns, reason))

        async def call() -> None:
            if back.news:
                await host.store.jobs_renew(host.owner, back.news, host.lease_s)
            await host.store.jobs_release(back.fences, delay_ns=delay_ns, reason=reason)

        await self._try("giving jobs back", call)
        self.going.difference_update(back.fences)

    def insist(self, doing: str, call: Callable[[], Awaitable[None]]) -> None:
        """Do something that the store must hear of, however often it must be asked."""
        self.spawn(self._try(doing, call))

    def body_ended(self, fences: Sequence[Fenced]) -> None:
        """Free what bodies that outlived their outcome still kept."""

        async def call() -> None:
            await self._host.store.jobs_ended(fences)

        self.insist("telling that bodies ended", call)

    async def _try(self, doing: str, call: Callable[[], Awaitable[None]]) -> None:
        tries = 0
        while tries < TRIES:
            try:
                await call()
            except StoreError as error:
                tries += not isinstance(error, StoreUnavailable)
                await self._pause(self._host.outage.failed(doing, error))
            else:
                break
        self._host.outage.worked(doing)
