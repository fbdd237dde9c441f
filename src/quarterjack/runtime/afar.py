"""Jobs that run elsewhere, and whose end somebody here waits for.

A row of a shared store is a copy in each process. Whoever waits here holds a
copy of his own, and it is brought up to date when the end is known: from the
worker of this process, from a hint, or from looking, once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from quarterjack.clock import Clock
from quarterjack.errors import StoreError
from quarterjack.model import JobRecord
from quarterjack.stores.base import Store

from .claiming import POLL_S
from .outage import Outage

if TYPE_CHECKING:
    from .handles import Handles

__all__ = ["Afar", "AfarHost", "refresh"]

log = logging.getLogger("quarterjack")

FIRST_LOOK_S: Final = 0.02
"""The first look comes so soon: a quick job that runs here has ended by then, and is not asked for at all."""
REMEMBERED: Final = 10_000
"""Ends told of by others that nobody had waited for yet: who asks later is answered without a pause."""
BATCH: Final = 500
"""Jobs looked at in one call."""
SHARE: Final = 9.0
"""A look that took long is followed by a pause so many times as long: who waits for a hundred thousand jobs
reads their rows in a tenth of the time at most, and hears of most ends from the worker here or by hints."""
DOING: Final = "looking how jobs ended"
FACTS: Final = (
    *("state", "reason", "attempt", "failures", "first_due_ns", "rescues", "owner", "lease_until_ns", "run_at_ns"),
    *("submitted_at_ns", "scheduled_at_ns", "started_at_ns", "running_at_ns", "finished_at_ns"),
    *("result", "error", "progress", "checkpoint", "cancel_requested", "zombie"),
)
"""What may be different in a newer copy of a row."""


class AfarHost(Protocol):
    """What is needed of the app around it."""

    @property
    def store(self) -> Store: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def handles(self) -> Handles: ...
    @property
    def outage(self) -> Outage: ...
    def is_held_here(self, job_id: str) -> bool: ...
    def known(self, record: JobRecord) -> JobRecord: ...
    def fatal(self, error: BaseException) -> None: ...


class Afar:
    """Looks after the jobs that are waited for. Belongs to the app's loop."""

    def __init__(self, host: AfarHost) -> None:
        self._host = host
        self._copies: dict[str, list[JobRecord]] = {}
        self._new: set[str] = set()
        self._over: dict[str, None] = {}
        """Jobs that others say have ended, the newest last."""
        self._rng = Random()  # noqa: S311  # spreads the looks, guards nothing
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def watch(self, record: JobRecord) -> None:
        """Bring *record* up to date when its job has ended, and have its waiters told."""
        copies = self._copies.setdefault(record.id, [])
        if not any(copy is record for copy in copies):
            copies.append(record)
        self._hurry(record.id)

    def _hurry(self, job_id: str) -> None:
        self._new.add(job_id)
        self._look.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="quarterjack-afar")

    def unwatch(self, job_id: str) -> None:
        """Nobody waits for it any more."""
        self._copies.pop(job_id, None)

    def ended(self, record: JobRecord) -> None:
        """The end of a job is known here: let every copy of its row say so."""
        for copy in self._copies.pop(record.id, ()):
            if copy is not record:
                refresh(copy, record)

    def hint(self, job_ids: Sequence[str]) -> None:
        """These jobs may have ended (none named: any may have)."""
        self._over.update(dict.fromkeys(job_ids))
        while len(self._over) > REMEMBERED:
            del self._over[next(iter(self._over))]
        for job_id in job_ids or tuple(self._copies):
            if job_id in self._copies:
                self._hurry(job_id)

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._looks()
        except Exception as error:  # nothing of ours should raise here; a third party's store may, and waiters hang
            self._host.fatal(error)
        finally:
            self._task = None
            self._host.outage.worked(DOING)

    async def _looks(self) -> None:
        pause_s = self._pause_s()
        while self._copies:
            await asyncio.sleep(pause_s)
            self._look.clear()
            began = self._host.clock.monotonic()
            chosen, self._new = list(self._new) or list(self._copies), set()
            try:
                for start in range(0, len(chosen), BATCH):
                    await self._look_at([one for one in chosen[start : start + BATCH] if one in self._copies])
            except StoreError as error:
                pause_s = self._host.outage.failed(DOING, error)
                continue
            self._host.outage.worked(DOING)
            took_s = self._host.clock.monotonic() - began
            pause_s = self._pause_s() if await self._is_hurried(SHARE * took_s) else 0.0

    def _pause_s(self) -> float:
        """Return how long a look at what is new may wait: not at all for what is known to be over."""
        return 0.0 if any(job_id in self._over for job_id in self._new) else FIRST_LOOK_S

    async def _is_hurried(self, least_s: float) -> bool:
        """Wait for the next look, at least *least_s*; say whether something came up before its time."""
        try:
            async with asyncio.timeout(max(least_s, POLL_S * self._rng.uniform(0.8, 1.2))):
                await self._look.wait()
        except TimeoutError:
            return False
        return True

    async def _look_at(self, job_ids: Sequence[str]) -> None:
        host = self._host
        asked = [job_id for job_id in job_ids if not host.is_held_here(job_id)]  # else our own worker will tell
        if not asked:
            return
        for job_id, row in zip(asked, await host.store.jobs_get(asked), strict=True):
            if job_id not in self._copies or host.is_held_here(job_id):
                continue
            if row is None:
                host.handles.gone(self._copies[job_id][0])
            elif row.state.is_finished:
                host.handles.settle_afar(host.known(row))
            else:
                for copy in self._copies[job_id]:
                    refresh(copy, row)


def refresh(record: JobRecord, newer: JobRecord) -> None:
    """Bring a copy of a row up to date."""
    for name in FACTS:
        setattr(record, name, getattr(newer, name))
