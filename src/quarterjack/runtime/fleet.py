"""Limits of a fleet: fills the purses of a process's gates from the store they share.

Gates answer at once and never wait for the store (`quarterjack.flow._purse`). Here
is who does: for each limit with something to do a *steward*, a task that asks the
store, puts what it got into the purse, and wakes the gate. It ends with its work:
where nobody waits and nothing is held, nothing runs and nothing is polled.

A call that fails is made again after pauses that grow to two seconds. A store that
does not answer for half a second has *cut off* its purses: gates do what their
``on_store_error`` says until a call works again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from itertools import count
from random import Random
from typing import Any, Final, Self

from quarterjack.clock import Clock, clock_of
from quarterjack.flow._fleet import FleetForm, fleet_forms
from quarterjack.flow._purse import Purse
from quarterjack.flow.base import Gate
from quarterjack.model import JobIds
from quarterjack.stores import Encoding
from quarterjack.stores.base import Hint, Store

from .steward import Steward
from .stewards import steward_of
from .store_time import StoreTime

__all__ = ["LEASE_S", "Fleet"]

LEASE_S: Final = 30.0
"""How long a slot is kept for a process that says nothing, where nobody says otherwise."""
CLOSE_S: Final = 0.5
"""So long the end waits to give back what is held; else it runs out by itself."""


class Fleet:
    """The limits of one process on one store. Belongs to the running loop, as the store does.

    Args:
        store: Where the limits are; it is open.
        clock: The loop's.
        time: What the store's clock shows.
        process: A name of this process that no other has.
        lease_s: How long slots last unless they are renewed.
    """

    def __init__(self, store: Store, clock: Clock, time: StoreTime, *, process: str, lease_s: float = LEASE_S) -> None:
        self.store = store
        self.clock = clock
        self.time = time
        self.process = process
        self.lease_s = lease_s
        self.rng = Random()  # noqa: S311  # spreads attempts, guards nothing
        self._loop = asyncio.get_running_loop()
        self._numbers = count(1)
        self._gates: list[FleetForm[Any]] = []
        self._stewards: dict[Purse, Steward[Any]] = {}
        self._is_over = False
        self._unlisten = store.listen(self._on_hint)

    def bind(self, gates: Iterable[Gate]) -> None:
        """Serve those of *gates* that hold for a fleet.

        Raises:
            UsageError: If one holds in another store; none is served then.
        """
        for gate in fleet_forms(gates):
            try:
                gate.bind(self)
            except BaseException:
                self._unbind()
                raise
            self._gates.append(gate)

    def _unbind(self) -> None:
        gates, self._gates = self._gates, []
        for gate in gates:
            gate.unbind()

    def fill(self, purse: Purse) -> None:
        """See `Filler`."""
        steward = self._stewards.get(purse)
        if steward is None:
            if self._is_over:
                return
            steward = self._stewards[purse] = steward_of(self, purse)
            purse.is_tended = True
        steward.poke()

    def names(self, n: int) -> list[str]:
        """Return *n* names for slots that never were: a name is its slot's fence."""
        return [f"{self.process}.{next(self._numbers):x}" for _ in range(n)]

    def _on_hint(self, hint: Hint, limits: Sequence[str]) -> None:
        if hint is Hint.LIMITS:
            for purse, steward in tuple(self._stewards.items()):
                if not limits or purse.limit in limits:
                    steward.look_now()

    async def close(self) -> None:
        """Give back what is held, and leave the gates without a store; idempotent."""
        if self._is_over:
            return
        self._is_over = True
        stewards, self._stewards = list(self._stewards.values()), {}
        try:
            self._unlisten()
            tasks = [task for steward in stewards for task in steward.cancel()]
            with suppress(TimeoutError):  # what is not given back runs out
                async with asyncio.timeout(CLOSE_S):
                    await asyncio.gather(*tasks, return_exceptions=True)
                    held = [steward for steward in stewards if not steward.purse.is_cut_off]
                    await asyncio.gather(*(steward.give_back_all() for steward in held), return_exceptions=True)
        finally:  # also where the end is cancelled: no gate stays tied to a store that is closed
            for steward in stewards:
                steward.purse.forget()
                steward.purse.is_tended = steward.purse.is_cut_off = False
            self._unbind()

    @classmethod
    @asynccontextmanager
    async def opened(cls, store: Store, gates: Iterable[Gate], lease_s: float = LEASE_S) -> AsyncIterator[Self]:
        """Open *store* for these gates alone, and close it with the block, whatever cancels come meanwhile.

        Raises:
            StoreError: If it does not open.
            UsageError: As `bind`.
        """
        clock, ids = clock_of(asyncio.get_running_loop()), JobIds()
        await store.open(clock, ids, Encoding())
        fleet: Self | None = None
        try:
            time = StoreTime(store, clock)
            await time.open()
            fleet = cls(store, clock, time, process=ids.process, lease_s=lease_s)
            fleet.bind(gates)
            yield fleet
        finally:
            await _to_its_end(_close(store, fleet))

    def ended(self, purse: Purse) -> None:
        """Nothing is left to do for *purse*."""
        self._stewards.pop(purse, None)
        purse.is_tended = False

    def create_task(self, steward: Steward[Any]) -> asyncio.Task[None]:
        """Run a steward."""
        return self._loop.create_task(steward.run(), name=f"fleet {steward.purse.limit}", context=Context())


async def _close(store: Store, fleet: Fleet | None) -> None:
    try:
        if fleet is not None:
            await fleet.close()
    finally:
        await store.close()


async def _to_its_end(closing: Coroutine[Any, Any, None]) -> None:
    """Await *closing*, however often the caller is cancelled meanwhile: it hears of that afterwards."""
    task = asyncio.create_task(closing)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    try:
        task.result()
    finally:
        if cancelled is not None:
            raise cancelled
