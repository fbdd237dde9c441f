"""Waiting until jobs are settled, on the loops of the apps they came from: one future for many of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ._crossing import across_loops
from .context import CURRENT
from .model import JobRecord, JobState

if TYPE_CHECKING:
    from .job import CallbackKind, Job

__all__ = ["JobClient", "all_settled", "has_failure", "settled_everywhere"]

_DONE = JobState.DONE


class JobClient(Protocol):
    """What a handle asks of the app it came from."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    def is_settled(self, record: JobRecord) -> bool:
        """Say whether the job is finished and its callbacks have run."""
        ...

    def watch(self, records: Iterable[JobRecord], notify: Callable[[JobRecord], None]) -> int:
        """Call *notify* once for each job that is not settled yet, when it is; return how many those are."""
        ...

    def unwatch(self, records: Iterable[JobRecord], notify: Callable[[JobRecord], None]) -> None: ...
    def add_callback(self, record: JobRecord, kind: CallbackKind, fn: Callable[[Job[Any]], object]) -> None: ...
    async def cancel_job(self, record: JobRecord, wait_s: float) -> bool: ...
    async def fetch(self, record: JobRecord) -> JobRecord: ...


class _Countdown:
    """Resolves one future when many jobs are settled: a future per job would cost more than the jobs."""

    __slots__ = ("_future", "_stop_early", "left")

    def __init__(self, future: asyncio.Future[None], *, stop_early: bool) -> None:
        self._future = future
        self._stop_early = stop_early
        self.left = 0

    def one_settled(self, record: JobRecord) -> None:
        """Count down. A method, for a call of the object itself would cost twice as much."""
        self.left = left = self.left - 1
        if left and ((record.state is _DONE and record.error is None) or not self._stop_early):
            return
        if not self._future.done():
            self._future.set_result(None)


def _is_good(record: JobRecord) -> bool:
    return record.state is _DONE and record.error is None


def has_failure(records: Iterable[JobRecord]) -> bool:
    """Say whether one of them has ended and not well."""
    return any(record.state.is_finished and not _is_good(record) for record in records)


async def all_settled(client: JobClient, records: list[JobRecord], stop_early: bool) -> None:
    """Wait for jobs of one app, on its loop; *stop_early* ends it with the first that ends and not well."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    countdown = _Countdown(future, stop_early=stop_early)
    notify = countdown.one_settled
    countdown.left = waited = client.watch(records, notify)
    if not waited or (stop_early and has_failure(records)):
        if countdown.left:
            client.unwatch(records, notify)
        return
    attempt = CURRENT.get()
    if attempt is not None:
        attempt.wait_begins(records)
    loan = None if attempt is None else attempt.lend_slot(records, future)
    was_interrupted = True
    try:
        await future
        was_interrupted = False
    finally:
        if countdown.left:
            client.unwatch(records, notify)
        if attempt is not None:
            attempt.wait_ends(records)
            await attempt.reclaim_slot(loan, at_once=was_interrupted)


async def settled_everywhere(by_client: Mapping[JobClient, list[JobRecord]], stop_early: bool) -> None:
    """Wait for the jobs of each app on its own loop."""
    if len(by_client) == 1:
        for client, records in by_client.items():
            await across_loops(client.loop, all_settled, client, records, stop_early)
        return

    async def one(client: JobClient, records: list[JobRecord]) -> list[JobRecord]:
        await across_loops(client.loop, all_settled, client, records, stop_early)
        return records

    tasks = [asyncio.ensure_future(one(client, records)) for client, records in by_client.items()]
    try:
        for done in asyncio.as_completed(tasks):
            if has_failure(await done) and stop_early:
                return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
