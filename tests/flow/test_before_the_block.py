"""Jobs of a manager that is not entered yet, and of one that never will be."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest

from quarterjack import Dedupe, Flow, Job, JobCancelled, JobState, TaskManager


async def body(n: int = 0) -> int:
    """Run, if somebody lets it."""
    return n


@pytest.mark.parametrize("by", ["cancel", "stop"])
async def test_a_coroutine_object_that_will_not_run_is_closed(by: str) -> None:
    """Python would complain that nobody awaited it, and the job be open for ever."""
    manager = TaskManager()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        submit: Any = manager.submit  # a coroutine object is taken, and not advertised
        job: Job[int] = submit(body())
        if by == "cancel":
            assert await job.cancel()
            assert await job.cancel()
        else:
            await manager.stop()
        with pytest.raises(JobCancelled):
            await job
        assert (job.state, job.reason is None) == (JobState.CANCELLED, False)
        del manager
        gc.collect()


async def test_what_is_cancelled_before_the_block_never_begins_in_it() -> None:
    """The others do, and what it was the one run of is free again."""
    manager = TaskManager(Flow(Dedupe("n")))
    first, other = manager.submit(body, 1), manager.submit(body, 2)
    assert await first.cancel()
    again = manager.submit(body, 1)
    assert not again.is_duplicate
    async with manager:
        assert (await again, await other) == (1, 2)
    assert first.state is JobState.CANCELLED
