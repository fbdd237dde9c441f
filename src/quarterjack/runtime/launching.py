"""Handing an attempt to its executor, and what becomes of it if that does not take it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from quarterjack.errors import ExecutorClosed, ExecutorFull, InvalidArguments
from quarterjack.executors import Handle, Report
from quarterjack.model import Outcome, OutcomeKind

from .run import NO_CONTEXT, Attempt

if TYPE_CHECKING:
    from .worker import Worker

__all__ = ["launch", "leave_behind"]

log = logging.getLogger("quarterjack.worker")

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
                handle.cancel("cancelled")
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
