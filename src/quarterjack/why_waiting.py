"""Why a job waits: its time, its turn, its place, its flow, or that nobody is there who would run it.

Pure functions over rows and an instant. Who asks brings what it knows: a process
that runs the job itself knows its gates and slots, any other the registry of
those at work, and whether the task has a flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from ._at_work import is_lost, serving, unserved
from ._why_words import span, state_of, told_at
from .model import JobRecord, JobState, WorkerInfo
from .triggers.base import from_ns
from .why import Why

__all__ = ["ORPHANED", "Cluster", "Held", "Others", "Place", "why_waiting"]

ORPHANED: Final = "ORPHANED"
"""How the reason of a job begins that a worker gave back because its arguments did not fit the task it knows."""
_READ_NS: Final = 10_000_000
"""No two readings of clocks for one question are further apart than some milliseconds."""
_AT_ONCE_S: Final = 5.0
"""A hand-over to a cluster that takes longer does not go as it should."""


class Held(NamedTuple):
    """What holds a leased job up in its flow."""

    gate: str
    for_s: float
    """Infinite where the gate does not know."""
    words: str = ""
    """What it waits for then."""


class Others(NamedTuple):
    """What a process knows of jobs that others run."""

    workers: Sequence[WorkerInfo] = ()
    """The registry."""
    gates: tuple[str, ...] | None = ()
    """What the job's flow is made of; None if its task is not known here."""


class Cluster(NamedTuple):
    """A cluster in whose queue a job waits, or is to wait, for somebody to begin it."""

    name: str
    tells_start: bool = True
    """One hears when a body begins there."""
    trouble: str | None = None
    """Why nothing can be handed over now, where that is known."""


class Place(NamedTuple):
    """What a process knows of the place where a job would run."""

    knows_task: bool
    """False if it knows tasks, and this one is not among them."""
    executor: str = ""
    slots: int = 0
    free: int = 0
    """Slots that this job may have now; some are kept for schedules."""
    held: Held | None = None
    """The gate that holds it up, if it waits in its flow here."""
    ahead: int = 0
    """Jobs that wait in its flow here, if it is not among them."""
    others: Others | None = None
    """What is asked where the job is not this process's to run; None if it is."""
    parked: str | None = None
    """Why its task is begun here no more, if its bodies kept killing their processes."""
    cluster: Cluster | None = None
    """Where its body is to run, if that is a cluster, as far as the task is known here."""
    deaf: int = 0
    """Slots whose bodies were told to stop, and go on."""


def why_waiting(job: JobRecord, now_ns: int, place: Place, holder: JobRecord | None = None) -> Why:
    """Return why a job has not begun.

    Args:
        job: The job.
        now_ns: The moment of the question.
        place: What this process knows.
        holder: The job whose turn it is, where jobs of an overlap key run one at a time.
    """
    if job.state.is_finished:
        return Why(
            kind="finished",
            words=f"it is {state_of(job)}" + (f": {job.reason}" if job.reason else ""),
            reason=job.reason,
        )
    if job.state is JobState.RUNNING:
        return Why(kind="running", words=_running(job, now_ns, place.others))
    if job.state is JobState.SCHEDULED and place.held is not None:
        return _in_flow(place.held, now_ns)
    if job.state is not JobState.SUBMITTED:
        return _held(job, now_ns, place)
    if job.run_at_ns > now_ns:
        return _not_due(job, now_ns)
    return _due_but_waiting(job, now_ns, place, holder)


def _in_flow(held: Held, now_ns: int) -> Why:
    if math.isinf(held.for_s):
        return Why(kind="flow", words=f"it waits in its flow: {held.gate} {held.words}")
    at = from_ns(_rounded(now_ns + round(held.for_s * 1e9), held.for_s))
    words = f"it waits in its flow: {held.gate} lets it start {told_at(at)}, in {span(held.for_s)}"
    return Why(kind="flow", words=words, at=at)


def _rounded(at_ns: int, for_s: float) -> int:
    """Return an instant without what reading two clocks one after the other adds to it."""
    return at_ns if for_s < 1.0 else round(at_ns / _READ_NS) * _READ_NS


def _not_due(job: JobRecord, now_ns: int) -> Why:
    at = from_ns(job.run_at_ns)
    when = f"{told_at(at)}, in {span((job.run_at_ns - now_ns) / 1e9)}"
    if job.reason is not None and job.reason.startswith(ORPHANED):
        words = f"{job.reason}; it waits for a worker whose version they fit, and is offered again {when}"
        return Why(kind="orphaned", words=words, at=at, reason=job.reason)
    if job.attempt and job.reason:
        failed = f"attempt {job.attempt} ended with {job.reason}"
        return Why(kind="retry", words=f"{failed}; the next one is {when}", at=at, reason=job.reason)
    if job.attempt:
        return Why(kind="retry", words=f"attempt {job.attempt} put it off; the next one is {when}", at=at)
    return Why(kind="not_due", words=f"its time has not come: it is due {when}", at=at, reason=job.reason)


def _due_but_waiting(job: JobRecord, now_ns: int, place: Place, holder: JobRecord | None) -> Why:
    nobody = None if place.others is None else unserved(place.others.workers, job.queue, now_ns, job.task)
    if job.reason is not None and job.reason.startswith(ORPHANED):
        words = (
            f"{job.reason}; {nobody.words if nobody is not None else 'it waits for a worker whose version they fit'}"
        )
        return Why(kind="orphaned", words=words, reason=job.reason)
    if not place.knows_task:
        return Why(kind="orphaned", words=f"no task {job.task!r} is known here: it runs where one is")
    if nobody is not None:
        return Why(kind="task_parked" if nobody.is_parked else "unserved", words=nobody.words)
    if holder is not None and holder is not job:
        turn = f"it is the turn of job {holder.id}, which is {state_of(holder)}"
        words = f"jobs of {job.overlap_key!r} run one at a time, and {turn}"
        return Why(kind="serial", words=words, job=holder.id)
    if place.others is not None:
        return _taken_elsewhere(job, now_ns, place.others)
    if place.parked is not None:
        words = f"its task is parked in this process, as {place.parked}: restart it once that is mended"
        return Why(kind="task_parked", words=words)
    if place.ahead > 0:
        words = f"{place.ahead} job{' waits' if place.ahead == 1 else 's wait'} in its flow already: they go first"
        return Why(kind="flow", words=words)
    if place.free <= 0:
        return Why(kind="no_slot", words=_no_slot(place))
    return Why(kind="next", words="nothing keeps it: it is about to begin")


def _no_slot(place: Place) -> str:
    if place.slots == 1:
        deaf = " by a body that was told to stop and still runs" if place.deaf else ""
        return f"the one slot of executor {place.executor!r} is taken{deaf}"
    deaf = f"; {place.deaf} of them by bodies that were told to stop and still run" if place.deaf else ""
    return f"all {place.slots} slots of executor {place.executor!r} are taken or kept for schedules{deaf}"


# -- where others run it --------------------------------------------------------------------------


def _running(job: JobRecord, now_ns: int, others: Others | None) -> str:
    """Return where a job runs, and how sure that is."""
    if others is None:
        return "it waits no more: it is running"
    holder = next((one for one in others.workers if one.id == job.owner), None)
    if holder is None:
        return f"worker {job.owner} ran it and is gone; it is taken up anew when its lease has run out"
    ago = span((now_ns - holder.seen_at_ns) / 1e9)
    return f"it runs at worker {holder.id} ({holder.host}, process {holder.pid}), last seen {ago} ago"


def _held(job: JobRecord, now_ns: int, place: Place) -> Why:
    """Return how a leased job stands that does not wait in a flow here."""
    others = place.others
    if others is not None:
        holder = next((one for one in others.workers if one.id == job.owner), None)
        if holder is None or is_lost(holder, now_ns):
            gone = "is gone" if holder is None else f"was last seen {span((now_ns - holder.seen_at_ns) / 1e9)} ago"
            words = f"worker {job.owner} had it and {gone}; it is taken up anew when its lease has run out"
            return Why(kind="held", words=words, reason=job.reason)
    if job.state is JobState.STARTED:
        return _handed(job, now_ns, place.cluster)
    next_, late = _next_there(job, now_ns, place.cluster)
    if others is not None and others.gates is None:
        then = f"{next_}, or waits there in its flow"
    elif others is not None and others.gates:
        then = f"waiting there in its flow ({', '.join(others.gates)}), or {next_}"
    else:
        then = late or next_
    return Why(kind="held", words=f"worker {job.owner} has it: it is {then}", reason=job.reason)


def _handed(job: JobRecord, now_ns: int, cluster: Cluster | None) -> Why:
    """Return to whom a job was handed over, and since when nobody there has begun it."""
    ago = "" if job.started_at_ns is None else f" {span(max(0, now_ns - job.started_at_ns) / 1e9)} ago"
    head = f"worker {job.owner} handed it to {'its executor' if cluster is None else cluster.name}{ago}"
    if cluster is not None and not cluster.tells_start:
        return Why(kind="held", words=f"{head}, which does not tell when it begins", reason=job.reason)
    return Why(kind="handed", words=f"{head}; nobody there has begun it yet", reason=job.reason)


def _next_there(job: JobRecord, now_ns: int, cluster: Cluster | None) -> tuple[str, str]:
    """Return what comes next of a leased job that nothing holds up, and what is wrong if that has not come by now."""
    if cluster is None:
        return "about to begin", ""
    to_come = f"about to be handed to {cluster.name}"
    if cluster.trouble is not None:
        return to_come, f"to be handed to {cluster.name}: {cluster.trouble}"
    waits_s = 0.0 if job.scheduled_at_ns is None else (now_ns - job.scheduled_at_ns) / 1e9
    if waits_s < _AT_ONCE_S:
        return to_come, ""
    return to_come, f"to be handed to {cluster.name}, since {span(waits_s)}: what that process logs says what is wrong"


def _taken_elsewhere(job: JobRecord, now_ns: int, others: Others) -> Why:
    """Return that a job is due and somebody serves its queue: why it was not taken is known there alone."""
    found = [one.id for one in serving(others.workers, job.queue, now_ns, job.task)]
    who = f"worker {found[0]} serves" if len(found) == 1 else f"{len(found)} workers serve"
    flow = f" and its flow ({', '.join(others.gates)}) has room" if others.gates else ""
    verb = "takes" if len(found) == 1 else "take"
    return Why(kind="next", words=f"{who} its queue {job.queue!r} and {verb} it as soon as a slot is free{flow}")
