"""What a body gets of a stored job: its arguments and its checkpoint, if this version of the app can read them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from quarterjack._payload import Unreadable
from quarterjack.errors import Orphaned
from quarterjack.model import Outcome, OutcomeKind
from quarterjack.why_waiting import ORPHANED

if TYPE_CHECKING:
    from quarterjack.task import TaskDefinition

    from .run import Attempt
    from .worker import Worker

__all__ = ["Decoder", "DecoderHost", "Orphans"]

log = logging.getLogger("quarterjack.worker")


AGAIN_S: Final = 5.0
AGAIN_MOST_S: Final = 60.0
"""How soon, at first and at last, a job is offered again that a worker of another version may be able to run."""
OFFERS_KEPT: Final = 1_000
OFFERS_ALONE: Final = 3
"""How often it is offered where there are no other workers: only what its executor reaches could change meanwhile."""


class DecoderHost(Protocol):
    """What is needed of the app around it."""

    def decode_call(
        self, definition: TaskDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]: ...


class Orphans:
    """Jobs that one worker, or where their executor runs bodies, has no version of the app for: they go back.

    Args:
        worker: The worker.
        has_others: Other workers may have another version: each job is left to them for a while.
    """

    def __init__(self, worker: Worker, *, has_others: bool) -> None:
        self._worker = worker
        self._has_others = has_others
        self._told: set[str] = set()
        self._offers: dict[str, int] = {}

    def send_back(self, attempt: Attempt, why: str) -> None:
        """Give a job back, to be offered again; told once for each task, as another version may well run its jobs."""
        record = attempt.record
        if record.task not in self._told:
            self._told.add(record.task)
            log.warning("job %s waits for a worker that can run it: %s", record.id, Orphaned(record.task, why))
        again_s = self._again_in_s(attempt.job_id)
        if self._has_others:
            self._worker.claimer.avoid(record.lane, again_s)
        self._worker.give_back(attempt, f"{ORPHANED}: {why}", round(again_s * 1e9))

    def given_up(self, attempt: Attempt, why: str) -> Outcome | None:
        """Return the end of a job that was offered often enough, as nobody else could run it; None if it goes back."""
        if self._has_others or self._offers.get(attempt.job_id, 0) < OFFERS_ALONE - 1:
            return None
        del self._offers[attempt.job_id]
        error = Orphaned(
            attempt.record.task, f"{why}; it was offered {OFFERS_ALONE} times, and no other worker could run it"
        )
        return Outcome(OutcomeKind.REJECTED, error=error, reason=str(error))

    def _again_in_s(self, job_id: str) -> float:
        """Return when a job is offered again: later each time."""
        offers = self._offers[job_id] = self._offers.pop(job_id, 0) + 1
        if len(self._offers) > OFFERS_KEPT:
            del self._offers[next(iter(self._offers))]
        return min(AGAIN_S * 2.0 ** (offers - 1), AGAIN_MOST_S)


class Decoder:
    """Decodes what the jobs of one worker take."""

    def __init__(self, host: DecoderHost, orphans: Orphans) -> None:
        self._host = host
        self._orphans = orphans

    def fits(self, attempt: Attempt) -> bool:
        """Give an attempt its arguments; False if it cannot be run here, and its job went back."""
        record = attempt.record
        try:
            args, kwargs = self._host.decode_call(attempt.definition, record.args, record.kwargs)
            attempt.args, attempt.kwargs = record.args, record.kwargs = args, kwargs  # gates and callbacks see them too
            if isinstance(record.checkpoint, Unreadable):  # begun without it, the body would do its work twice
                raise Orphaned(record.task, f"its checkpoint cannot be read: {record.checkpoint.reason}")
        except Orphaned as error:
            self._orphans.send_back(attempt, error.why)
            return False
        return True
