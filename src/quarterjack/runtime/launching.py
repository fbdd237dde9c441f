"""Handing an attempt to its executor, what becomes of it if that does not take it, and letting go of it again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from quarterjack.errors import ExecutorClosed, ExecutorFull, InvalidArguments
from quarterjack.executors import Handle, Report
from quarterjack.model import Outcome, OutcomeKind

from .run import NO_CONTEXT, Attempt

if TYPE_CHECKING:
    from .worker import Worker

__all__ = ["CANCELLED", "LEASE_LOST", "launch", "leave_behind", "leave_to_next", "let_go", "outlives"]

log = logging.getLogger("quarterjack.worker")

CANCELLED: Final = "cancelled"
"""Why a job ends that was to end for no reason given."""
LEASE_LOST: Final = "its lease was lost"
REFUSED_DELAY_NS: Final = 1_000_000_000
"""A job whose executor is closed, or in trouble, is given back for so long; another process may have a better one."""


def launch(worker: Worker, attempt: Attempt, report: Report) -> bool:
    """Hand an attempt to its executor; False if that has no room, and its job is given back."""
    record, executor = attempt.record, attempt.executor
    try:
        handle = _taken_up(attempt, report) or executor.submit(attempt, report)
    except ExecutorFull as error:  # another app was quicker; once it has a free slot again, that is told
        is_odd = executor.free > 0  # such as a pool that can start no thread: we would claim the job again at once
        if is_odd:
            log.warning("executor %s has free slots and refused job %s: %s", executor.name, record.id, error)
        worker.give_back(attempt, str(error), REFUSED_DELAY_NS if is_odd else 0)
        return False
    except ExecutorClosed as error:
        worker.give_back(attempt, str(error), REFUSED_DELAY_NS)
        return False
    except InvalidArguments as error:  # they cannot travel to another process
        report.finished(Outcome(OutcomeKind.REJECTED, error=error, reason=str(error)))
    except Exception as error:  # a third party's executor runs here
        log.exception("executor %s refused job %s", executor.name, record.id)
        report.finished(Outcome(OutcomeKind.REJECTED, error=error, reason=str(error)))
    else:
        if attempt.context is not NO_CONTEXT:  # else begun eagerly, and done with its first step
            attempt.handle = handle
            if record.cancel_requested:  # in its first step, when there was no handle yet
                handle.cancel(record.reason or CANCELLED)
    return True


def _taken_up(attempt: Attempt, report: Report) -> Handle | None:
    """Return the body of the attempt before, if that goes on without the worker that began it."""
    executor, number = attempt.executor, attempt.number
    if number < 2 or not executor.capabilities.survives_worker_restart:
        return None
    return executor.reattach(f"{attempt.job_id}.{number - 1}", attempt, report)


def leave_behind(attempt: Attempt) -> bool:
    """The worker stops: let a body go on that outlives it; False if it cannot."""
    executor, handle = attempt.executor, attempt.handle
    if handle is None or attempt.running_at_ns is None or not executor.capabilities.survives_worker_restart:
        return False
    executor.leave(handle)
    return True


def outlives(attempt: Attempt) -> bool:
    """Say whether a body is in hands where the worker that has its job now finds it."""
    is_there = attempt.running_at_ns is not None or attempt.record.started_at_ns is not None
    return is_there and attempt.handle is not None and attempt.executor.capabilities.survives_worker_restart


async def let_go(worker: Worker, attempts: Sequence[Attempt]) -> None:
    """The leases of these have moved on: leave their bodies to the next attempts, end those of jobs that are over.

    Raises:
        StoreError: If the store does not answer.
    """
    rows = await worker.rows_of(attempts)
    for attempt, row in zip(attempts, rows, strict=True):
        if worker.held_by_id.get(attempt.job_id) is not attempt or attempt.handle is None:
            continue  # it has ended meanwhile
        if row is None or row.state.is_finished:
            log.warning("job %s (%s) was ended elsewhere; its body is cancelled", attempt.job_id, attempt.task)
            attempt.handle.cancel(LEASE_LOST)
        else:
            leave_to_next(worker, attempt)


def leave_to_next(worker: Worker, attempt: Attempt) -> None:
    """Leave a body to the next attempt at its job, which takes it up."""
    if attempt.handle is not None:
        log.warning("the lease of job %s (%s) was lost; its body is left to who has it", attempt.job_id, attempt.task)
        attempt.executor.leave(attempt.handle)
        report = worker.entry_of(attempt) or attempt
        report.finished(Outcome(OutcomeKind.LOST, reason=LEASE_LOST))
