"""Storing many jobs: in lots, each whole or not at all, once their flows have room for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain
from typing import Final, Protocol

from quarterjack.model import JobRecord
from quarterjack.stores.base import Store

from .flows import Flows, refuses

__all__ = ["ManyHost", "put_many"]

LOT: Final = 500
"""Jobs per store call."""


class ManyHost(Protocol):
    """What is asked of the app around."""

    @property
    def store(self) -> Store: ...
    def check_open(self, what: str) -> None: ...
    def is_watched(self, record: JobRecord) -> bool: ...
    def on_submitted(self, record: JobRecord) -> None: ...


async def put_many(host: ManyHost, flows: Flows | None, records: Sequence[JobRecord]) -> list[JobRecord]:
    """Store jobs; return, for each, the row that stands for it.

    What *flows* refuse they refuse before the first is stored. Where one makes who submits wait
    for room, or drops the oldest, the jobs come one by one, as from many callers.

    Raises:
        InvalidOption: If a gate can never let one of them through.
        QueueFull: If a flow that refuses what is too much has no room for all of them.
        NotRunning: If the app stops before all are stored.
    """
    if flows is None:
        return await _in_lots(host, None, records)
    for record in records:
        flows.check(record)
    bounds = {record.id: flows.bounds_of(record) for record in records}
    await flows.reserve(bounds)
    try:
        if all(map(refuses, chain.from_iterable(bounds.values()))):
            return await _in_lots(host, flows, records)
        rows: list[JobRecord] = []
        for number, record in enumerate(records):
            await flows.enter(record.id, [flow for flow in bounds[record.id] if not refuses(flow)])
            rows += await _put(host, flows, (record,), len(records) - number)
        return rows
    finally:
        flows.settle(bounds)


async def _in_lots(host: ManyHost, flows: Flows | None, records: Sequence[JobRecord]) -> list[JobRecord]:
    rows: list[JobRecord] = []
    for start in range(0, len(records), LOT):
        rows += await _put(host, flows, records[start : start + LOT], len(records) - start)
        await asyncio.sleep(0)
    return rows


async def _put(host: ManyHost, flows: Flows | None, lot: Sequence[JobRecord], left: int) -> list[JobRecord]:
    host.check_open("1 job was not submitted" if left == 1 else f"{left} jobs were not submitted")
    rows = await host.store.jobs_put(lot)
    for record, row in zip(lot, rows, strict=True):
        is_own = row is record
        if flows is not None:
            (flows.stored if is_own else flows.left)(record.id)
        if is_own and host.is_watched(record):
            host.on_submitted(record)
    return rows
