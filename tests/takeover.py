"""How soon the job of a worker that is killed is another one's: by the times that stand in the store.

The promise is a second after the end of its lease. The time of this process and of the
bodies plays no part; but the other worker needs a processor to look, so a busy machine
gets more than one try."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from quarterjack import Job, Quarterjack
from quarterjack.model import JobRecord
from tests.real_time import until_true

__all__ = ["is_taken_over_in_time"]

TRIES: Final = 3


async def is_taken_over_in_time(
    client: Quarterjack,
    jobs: Sequence[Job[Any]],
    holder: subprocess.Popen[bytes],
    other: subprocess.Popen[bytes],
    another: Callable[[], subprocess.Popen[bytes]],
) -> bool:
    """Kill the worker that holds *jobs*; say whether *other* claims them within a second of their leases' end.

    Args:
        client: An app on their store.
        jobs: Which the worker has.
        holder: That worker, a process.
        other: A worker that may take them.
        another: Starts one more, for the next try.
    """
    for _ in range(TRIES):
        if await _seconds_late(client, jobs, holder) <= 1.0:
            return True
        holder, other = other, another()
        await until_true(partial(_is_there, client, other.pid))
    return False


async def _seconds_late(client: Quarterjack, jobs: Sequence[Job[Any]], holder: subprocess.Popen[bytes]) -> float:
    attempts = [row.attempt for row in await _rows(client, jobs)]
    holder.kill()
    holder.wait()
    held = await _rows(client, jobs)  # nobody renews them any more

    async def are_claimed() -> bool:
        return all(row.attempt > attempt for row, attempt in zip(await _rows(client, jobs), attempts, strict=True))

    await until_true(are_claimed)
    if [row.attempt for row in held] != attempts:  # so slow a machine that the lease was over before it was read
        return math.inf
    claimed_ns = [row.scheduled_at_ns or 0 for row in await _rows(client, jobs)]
    ended_ns = [row.lease_until_ns or 0 for row in held]
    return max(claimed - ended for claimed, ended in zip(claimed_ns, ended_ns, strict=True)) / 1e9


async def _rows(client: Quarterjack, jobs: Sequence[Job[Any]]) -> list[JobRecord]:
    rows = await client._running().store.jobs_get([job.id for job in jobs])
    return [row for row in rows if row is not None]


async def _is_there(client: Quarterjack, pid: int) -> bool:
    return any(worker.pid == pid for worker in await client._running().store.workers_list())
