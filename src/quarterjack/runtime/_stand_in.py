"""What stands in for a manager's job that failed for good, where its flow has something; `fallback` is an app's."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from quarterjack.flow.stages import Fallback
from quarterjack.model import JobState

from .managed import ManagedRun
from .verdict import describe

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["falls_back"]


def falls_back(engine: Engine, run: ManagedRun, fallback: Fallback) -> bool:
    """Have *fallback* stand in for *run*; False if it has nothing for this error."""
    error = None if run.error is None else run.error.exception
    if run.cancel_requested or error is None or not isinstance(error, fallback.on):
        return False
    run.error, run.reason = None, f"its fallback stood in for {describe(error).type_name}"
    if not callable(fallback.value):
        run.result = fallback.value
        engine.settle(run, JobState.DONE, engine.monotonic())
        return True
    run.state = JobState.RUNNING
    run.worker = worker = engine.loop.create_task(fallback.value_for(error), context=run.context)
    worker.add_done_callback(partial(_fell_back, engine, run))
    return True


def _fell_back(engine: Engine, run: ManagedRun, worker: asyncio.Task[Any]) -> None:
    if run.state.is_finished:  # it was left behind
        return
    now = engine.monotonic()
    if worker.cancelled():
        if run.is_late:
            engine.end_late(run)
        else:
            engine.settle(run, JobState.CANCELLED, now)
        return
    error = worker.exception()
    if error is None:
        run.result = worker.result()
        engine.settle(run, JobState.DONE, now)
    else:  # the user's function ran here, and what it raised ends the job
        run.error, run.reason = describe(error), f"its fallback raised {describe(error).type_name}"
        engine.settle(run, JobState.FAILED, now)
