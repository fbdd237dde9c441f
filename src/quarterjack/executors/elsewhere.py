"""``current_job()`` where the app does not run: a job as far as its request tells, in a process that has no store.

It knows who it is, reports progress and keeps checkpoints by the process that
waits for it, and is told when it is wanted no more. It cannot submit or await
jobs: that is for bodies beside the app."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context, copy_context
from typing import Any, Protocol

from quarterjack.codec import plain_checkpoint
from quarterjack.context import CURRENT, submitter_of
from quarterjack.model import JobRecord, Origin, RunOptions, SubmittedBy

__all__ = ["Elsewhere", "Told", "meta_of"]


class Told(Protocol):
    """Who hears what a body says, and knows whether it is wanted."""

    def progress(self, done: float, total: float | None, text: str) -> None: ...
    def keep(self, value: Any) -> None: ...
    @property
    def is_unwanted(self) -> bool: ...


def meta_of(record: JobRecord, number: int) -> dict[str, Any]:
    """Return what a body may know of its job, as plain JSON values."""
    return {
        "id": record.id,
        "attempt": number,
        "failures": record.failures,
        "origin": None if record.origin is None else list(record.origin),
        "submitted_by": list(submitter_of(record)),
        "metadata": record.options.metadata,
        "checkpoint": record.checkpoint,
    }


class Elsewhere:
    """The job whose body runs in this process; see `context.RunningAttempt`."""

    resource = None
    passing = None

    def __init__(self, task: str, meta: Mapping[str, Any], told: Told) -> None:
        self._task = task
        self._meta = meta
        self.number: int = meta["attempt"]
        self._told = told
        self._record: JobRecord | None = None

    @property
    def record(self) -> JobRecord:
        """The job, made when its body first asks for it: most never do."""
        if self._record is None:
            self._record = self._made()
        return self._record

    def _made(self) -> JobRecord:
        meta = self._meta
        origin, by = meta["origin"], meta["submitted_by"]
        options = RunOptions(metadata=meta["metadata"])
        place = None if origin is None else Origin(*origin)
        record = JobRecord(meta["id"], self._task, (), {}, options, SubmittedBy(*by), place)
        record.checkpoint = meta["checkpoint"]
        record.failures = meta.get("failures", 0)  # an older app of ours may have sent it
        return record

    def context(self) -> Context:
        """Return a context in which this is the current job."""
        context = copy_context()
        context.run(CURRENT.set, self)
        return context

    @property
    def is_unwanted(self) -> bool:
        """True once the body should end."""
        return self._told.is_unwanted

    def tell(self, done: float, total: float | None, text: str) -> None:
        """The body says how far it is."""
        self._told.progress(done, total, text)

    def keep(self, value: Any) -> None:
        """Keep a value for the next attempt."""
        value = plain_checkpoint(self.record.task, value)
        self.record.checkpoint = value
        self._told.keep(value)

    def wait_begins(self, awaited: Sequence[Any]) -> None:
        """Nothing waits with it here."""

    def wait_ends(self, awaited: Sequence[Any]) -> None:
        """Likewise."""

    def lend_slot(self, records: Sequence[JobRecord], waiter: asyncio.Future[None]) -> None:
        """It holds no slot that others here could use."""

    async def reclaim_slot(self, loan: None, *, at_once: bool) -> None:
        """Likewise."""
