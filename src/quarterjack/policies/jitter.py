"""Jitter: a random-looking, repeatable spread of start times.

Two replicas, or one process before and after a restart, must compute the same
due time for the same fire time, so jitter is a hash of (schedule, fire time)
and not a draw from a generator."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

__all__ = ["due_ns", "spread"]

_BITS: Final = 53
"""What a float holds exactly; of 64 bits the highest values would round up to 1.0."""


def spread(schedule_id: str, nominal_ns: int) -> float:
    """Return a number in [0, 1) that depends on nothing but the arguments."""
    digest = blake2b(f"{schedule_id}\0{nominal_ns}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> (64 - _BITS)) / 2.0**_BITS


def due_ns(schedule_id: str, nominal_ns: int, jitter_ns: int, *, below: int | None) -> int:
    """Return when the run of *nominal_ns* is due: at it, or up to *jitter_ns* later.

    *below* is the next fire time (or the schedule's end plus one); the result
    stays under it, so jitter never reorders or doubles runs.
    """
    if not jitter_ns:
        return nominal_ns
    due = nominal_ns + int(spread(schedule_id, nominal_ns) * jitter_ns)
    return due if below is None else max(nominal_ns, min(due, below - 1))
