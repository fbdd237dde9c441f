"""Priority inheritance: who waits for a job lends it its own urgency.

Two rules, both of which only ever lift. A job that another one's body submits
is as urgent as that one, unless it was given a priority of its own. A job that
a more urgent one's body awaits is lifted to it, and so is what that one awaits
in its turn. Without them an urgent job waits behind everything that its own
helper waits behind (priority inversion).

**Source:** L. Sha, R. Rajkumar, J. P. Lehoczky, "Priority Inheritance Protocols:
An Approach to Real-Time Synchronization", IEEE Transactions on Computers 39 (9), 1990."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .waiting import Phase, Waiting

__all__ = ["DEFAULT_PRIORITY", "inherit", "lift", "wait_begins", "wait_ends"]

DEFAULT_PRIORITY: Final = 2
"""What a job has that was given none."""


def inherit(child: Waiting, priority: int) -> None:
    """*child* was submitted by a body of that *priority*."""
    if child.priority == DEFAULT_PRIORITY and priority < child.urgency:
        child.lifted_to = priority


def wait_begins(waiter: Waiting, awaited: Iterable[Any]) -> None:
    """The body of *waiter* waits for these jobs from now on."""
    waiter.awaits = (*waiter.awaits, awaited)
    urgency = waiter.urgency
    for job in awaited:
        if isinstance(job, Waiting):
            lift(job, urgency)


def wait_ends(waiter: Waiting, awaited: Iterable[Any]) -> None:
    """The body of *waiter* goes on. Whom it lifted keeps that: a second waiter need not lift it anew."""
    waiter.awaits = tuple(known for known in waiter.awaits if known is not awaited)


def lift(job: Waiting, priority: int) -> None:
    """Let *job*, and all that it waits for, be as urgent as *priority*; never less than they are."""
    found = [job]
    while found:
        job = found.pop()
        if job.urgency <= priority:  # so are those it waits for: they were lifted with it, or when it began to wait
            continue
        job.lifted_to = priority
        if job._phase is Phase.WAITING:
            job._lane.room.rerank(job)
        if job.stands_in is not None:
            found.append(job.stands_in)
        found += [one for awaited in job.awaits for one in awaited if isinstance(one, Waiting)]
