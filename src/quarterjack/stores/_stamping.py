"""What a store sets in a new job on which nothing hangs but its own row: the same in SQL, in scripts and here."""

from __future__ import annotations

from collections.abc import Iterable

from quarterjack.model import JobRecord, JobState

from .base import AGING_NS

__all__ = ["stamp", "stamps_of"]


def stamps_of(job: JobRecord, now: int) -> tuple[int, int, int, bool]:
    """Return when a new job was submitted, its ``run_at`` and its ``order_at``, and whether a delay made them."""
    options = job.options
    if options.run_at_ns is None:
        run_at, delay_born = now + options.delay_ns, options.delay_ns > 0
    else:
        run_at, delay_born = options.run_at_ns, False
    return now, run_at, run_at + job.priority * AGING_NS, delay_born


def stamp(jobs: Iterable[JobRecord], now: int) -> None:
    """Note in the caller's records what was stored of them at *now*."""
    for job in jobs:
        job.submitted_at_ns, job.run_at_ns, job.order_at_ns, job.delay_born = stamps_of(job, now)
        job.state = JobState.SUBMITTED
