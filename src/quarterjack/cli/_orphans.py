"""Jobs that wait and that no worker can run: their task is gone, or their arguments fit it no more."""

from __future__ import annotations

from typing import Any, Final

from quarterjack import Job, JobState, Quarterjack
from quarterjack.model import JobFilter
from quarterjack.why_waiting import ORPHANED

__all__ = ["orphans"]

_WAITING: Final = frozenset({JobState.SUBMITTED})
_SEARCHED: Final = 100_000
"""So many waiting jobs are searched for tasks that are gone, the newest first."""


async def orphans(app: Quarterjack, limit: int) -> dict[Job[Any], str]:
    """Return such jobs and why each is one, at most *limit*.

    Arguments that fit no more are noted by the worker that gave a job back. A task that
    no worker knows makes nobody look at its jobs at all, so its name is compared with
    those that *app* knows; an app without any tasks, as behind ``--store``, cannot tell.
    """
    marked = await app.jobs(state=JobState.SUBMITTED, text=ORPHANED, limit=limit)
    found = {job: job.reason or ORPHANED for job in marked}
    if (known := app.tasks()) and len(found) < limit:
        for job_id in await _of_unknown_tasks(app, frozenset(known), limit - len(found)):
            job = await app.job(job_id)
            found[job] = f"{ORPHANED}: no task {job.task!r} is known here"
    return found


async def _of_unknown_tasks(app: Quarterjack, known: frozenset[str], limit: int) -> list[str]:
    """Return the ids of jobs that are due and of none of the *known* tasks."""
    now_ns = round((await app.store_now()).timestamp() * 1e9)
    found: list[str] = []
    searched = 0
    async for job in app.store.jobs_all(JobFilter(states=_WAITING)):
        if job.task not in known and job.run_at_ns <= now_ns:
            found.append(job.id)
        searched += 1
        if len(found) >= limit or searched >= _SEARCHED:
            break
    return found
