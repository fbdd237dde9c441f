"""`fleet`: limits of all processes on one store, where there is no app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ._durations import Seconds, to_seconds
from .errors import InvalidOption
from .flow._fleet import fleet_forms
from .flow.base import Gate
from .flow.flow import Flow
from .runtime.fleet import LEASE_S, Fleet
from .stores import Store, store_from

__all__ = ["fleet"]


@asynccontextmanager
async def fleet(store: Store | str, /, *gates: Gate | Flow, lease: Seconds = LEASE_S) -> AsyncIterator[None]:
    """Let *gates* hold for all processes on *store*, as long as the block is open.

        limit = ConcurrencyLimit(4, scope="fleet", name="api")

        async with fleet("redis://localhost", limit):
            async with limit:
                ...

    An app's gates hold in its own store, and a `TaskManager` takes ``store=``: neither needs this.

    Args:
        store: Its URL, or a `Store` that nobody has opened.
        gates: Those with ``scope="fleet"``, or flows that have some.
        lease: Seconds after which the slots of a process that died are free, at least 2.

    Raises:
        InvalidOption: If none of them has ``scope="fleet"``, or *store* names no store.
        UsageError: If one of them holds in another store already.
        StoreError: If the store does not open.
    """
    found = [one for gate in gates for one in (gate.gates if isinstance(gate, Flow) else (gate,))]
    if not fleet_forms(found):
        raise InvalidOption(f'fleet takes gates with scope="fleet", got {found!r}')
    async with Fleet.opened(store_from(store), found, to_seconds(lease, "lease", minimum=2.0)):
        yield
