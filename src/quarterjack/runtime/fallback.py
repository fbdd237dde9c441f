"""What stands in for a job that failed for good, where its flow has something."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from quarterjack.errors import DeadlineExceeded
from quarterjack.flow.stages import Fallback
from quarterjack.model import Finish, FinishKind, Outcome

from ._ends import log_failure
from .entrance import Entry
from .run import Attempt
from .verdict import Verdict, describe

__all__ = ["FallbackHost", "falls_back"]


class FallbackHost(Protocol):
    """What is asked of the worker."""

    def spawn(self, call: Coroutine[Any, Any, None]) -> None: ...
    def record(self, attempt: Attempt, finish: Finish) -> None: ...
    def on_done(self, attempt: Attempt, result: Any, reason: str, *, is_final: bool) -> None: ...


def falls_back(host: FallbackHost, entry: Entry, outcome: Outcome, verdict: Verdict) -> bool:
    """Have the flow's fallback stand in for a job that ends with *verdict*; False if it has none for this error."""
    fallback, error = entry.entrance.flow.fallback, None if verdict.error is None else verdict.error.exception
    if fallback is None or error is None or not isinstance(error, fallback.on):
        return False
    if not outcome.stopped or entry.run.record.cancel_requested:
        return False  # nothing stands in for a body that is still at work, or for what nobody wants any more
    is_late = verdict.kind is FinishKind.TIMED_OUT and isinstance(error, DeadlineExceeded)
    if is_late or entry.entrance.left_s(entry.run) == 0:
        return False  # nobody waits for it any more
    host.spawn(_fall_back(host, entry, fallback, error))
    return True


async def _fall_back(host: FallbackHost, entry: Entry, fallback: Fallback, error: BaseException) -> None:
    run, entrance = entry.run, entry.entrance
    limit = asyncio.timeout(entrance.left_s(run))
    try:
        async with limit:
            result = await fallback.value_for(error)
    except Exception as failure:  # the user's function runs here, and what it raises ends the job
        if limit.expired() and isinstance(failure, TimeoutError):
            _fail(host, run, entrance.late())
        else:
            words = describe(failure)
            reason = f"its fallback raised {words.type_name}"
            _fail(host, run, Verdict(FinishKind.FAILED, 0, words, reason))
        return
    if run.running_at_ns is None:  # it was turned away: this is all that runs of it
        run.began()
    host.on_done(run, result, f"its fallback stood in for {describe(error).type_name}", is_final=True)


def _fail(host: FallbackHost, run: Attempt, verdict: Verdict) -> None:
    log_failure(run.record, run.number, None if verdict.error is None else verdict.error.exception, verdict)
    host.record(run, run.finish(verdict.kind, error=verdict.error, reason=verdict.reason))
