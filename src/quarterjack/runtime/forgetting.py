"""Forgetting a process that is known to be dead: its jobs are free at once, and no view mourns it.

So are schedules and serial keys that waited for a body which had outlived its outcome.
Without it, its leases run out by themselves and its row is struck off in an hour.
Nothing new is allowed to anybody here: its leases are renewed in its name, for no
time at all, and whoever finds a lease that ran out takes the job back as ever
(which counts as a rescue). Should the process live after all, the fence decides
about its jobs, as after any lost lease, and its next sign of life registers it anew."""

from __future__ import annotations

from typing import Final

from quarterjack.model import FINISHED, JobFilter, JobState
from quarterjack.stores.base import Hint, Renewal, Store

__all__ = ["forget"]

_HELD: Final = frozenset(state for state in JobState if state.is_held)
_AT_ONCE: Final = 500


async def forget(store: Store, worker_id: str) -> int | None:
    """Forget a process; return how many jobs it held, None if none of this id is registered.

    Each call of it may be repeated: the row goes last.

    Raises:
        StoreError: If the store does not answer.
    """
    if all(one.id != worker_id for one in await store.workers_list()):
        return None
    held = await _held_by(worker_id, store, JobFilter(states=_HELD))
    outlived = await _held_by(worker_id, store, JobFilter(states=FINISHED, is_open=True))
    leases = [*held, *outlived]
    for start in range(0, len(leases), _AT_ONCE):
        await store.jobs_renew(worker_id, leases[start : start + _AT_ONCE], 0.0)
    await store.workers_remove(worker_id)
    if leases:
        await store.wake(Hint.JOBS)
    return len(held)


async def _held_by(worker_id: str, store: Store, where: JobFilter) -> list[Renewal]:
    return [Renewal(job.id, job.attempt) async for job in store.jobs_all(where) if job.owner == worker_id]
