"""Why a schedule runs or does not: answers in words, and as facts; `why_waiting` says why a job waits.

Pure functions over rows and an instant. Who asks brings what is known: the
rows of a store, or only what the code declares (then what became of a fire
time is not known, and the answer says so)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from ._why_words import local, span, state_of, told_at
from .model import JobRecord, JobState, Schedule
from .planner import is_newest, resumed
from .policies.missed import MISSED_CAP
from .policies.overlap import SERIAL_MODES, Action, admit, has_room
from .triggers import Trigger, _words
from .triggers._mismatch import fires_at, is_skipped_by_clock, mismatch
from .triggers.base import from_ns, instant_ns

__all__ = ["Why", "WhyKind", "why_at", "why_blocked", "why_next", "why_not_fired", "why_open"]

WhyKind = Literal[
    # will it run next
    "due",
    "late",
    "blocked",
    "chained",
    "paused",
    "parked",
    "ended",
    "unserved",
    # what became of an instant
    "ran",
    "open",
    "skipped",
    "missed",
    "before",
    "to_come",
    "unknown",
    "no_fire_time",
    # why a job waits
    "finished",
    "running",
    "held",
    "handed",
    "not_due",
    "retry",
    "orphaned",
    "serial",
    "flow",
    "no_slot",
    "task_parked",
    "next",
]
"""What an answer comes down to.

Of what comes next: ``due``; ``late`` (due already); ``blocked`` (a job that is still open stands in its way);
``chained`` (it waits for its own job to end); ``paused``; ``parked`` (its trigger raised); ``ended``; ``unserved``
(no process fires it, or runs its jobs). Of an instant: ``ran``; ``open`` (its job is not finished); ``skipped``;
``missed``; ``paused``; ``before`` (the schedule existed); ``to_come``; ``unknown`` (a fire time of which nothing is
kept); ``no_fire_time``. Of a job: ``finished``, ``running``, ``held`` (by a worker), ``handed`` (to a cluster, where
nobody has begun it), ``not_due``, ``retry``, ``orphaned`` (nobody knows its task, or its arguments do not fit),
``unserved``, ``serial`` (its overlap key is another's), ``flow`` (a gate holds it up, or jobs before it fill its flow),
``no_slot``, ``task_parked`` (its bodies' processes kept dying), ``next`` (it is about to begin)."""

_LATE_NS: Final = 1_000_000_000
"""A start is called late from a second on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """An answer: *words* for people, the rest for programs.

    Attributes:
        kind: What it comes down to; `WhyKind` lists them.
        words: A sentence or two.
        at: The next fire time; the instant that was asked about; when a job is due.
        before: The nearest fire time before an instant that is none.
        after: The nearest one after it.
        until: When a pause ends by itself.
        job: The id of the job concerned: that of the fire time, or the one in the way.
        reason: What was noted: with a pause, a skipped or missed run, a parked trigger, a failed attempt.
    """

    kind: WhyKind
    words: str
    at: datetime | None = None
    before: datetime | None = None
    after: datetime | None = None
    until: datetime | None = None
    job: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return self.words


# -- will it run next ------------------------------------------------------------------------


def why_next(row: Schedule, now_ns: int, open_jobs: Sequence[JobRecord] = (), nobody: str | None = None) -> Why:
    """Return whether and when a schedule runs next, and why; else what keeps it.

    Args:
        row: The schedule.
        now_ns: The moment of the question.
        open_jobs: Open jobs of its overlap key, oldest first: unfinished ones, and bodies that outlived their timeout.
        nobody: Why no process fires it, or runs its jobs, if that is so.
    """
    row = _as_of(row, now_ns)
    if row.parked_reason is not None:
        return Why(
            kind="parked",
            words=f"it fires no more: {row.parked_reason}; it goes on when its trigger or its task is changed",
            reason=row.parked_reason,
        )
    if row.paused_at_ns is not None:
        return _paused(row)
    if row.next_nominal_ns is None:
        return _no_next(row, now_ns, open_jobs)
    at, due_ns = local(row.trigger, row.next_nominal_ns), row.next_due_ns or row.next_nominal_ns
    if nobody is not None:
        next_one = f"its run of {told_at(at)} is due" if due_ns <= now_ns else f"its next fire time is {told_at(at)}"
        return Why(kind="unserved", words=f"{next_one}, but {nobody}", at=at, reason=nobody)
    if due_ns <= now_ns:
        late = span((now_ns - due_ns) / 1e9)
        return Why(kind="late", words=f"its run of {told_at(at)} is {late} late and comes at once", at=at)
    jitter = (
        f", {span((due_ns - row.next_nominal_ns) / 1e9)} later by its jitter" if due_ns > row.next_nominal_ns else ""
    )
    when = f"{told_at(at)}{jitter}, in {span((due_ns - now_ns) / 1e9)}"
    return _blocked(row, at, when, open_jobs) or Why(
        kind="due", words=f"its next run is on {when}: {row.trigger.explain()}", at=at
    )


def _as_of(row: Schedule, now_ns: int) -> Schedule:
    """Return the row as it is once the scheduler has seen that a pause is over."""
    until = row.paused_until_ns
    is_over = row.paused_at_ns is not None and until is not None and until <= now_ns and row.parked_reason is None
    return resumed(row, now_ns, catch_up=False) if is_over else row


def _paused(row: Schedule) -> Why:
    until = None if row.paused_until_ns is None else local(row.trigger, row.paused_until_ns)
    note = f" ({row.pause_note})" if row.pause_note else ""
    ends = "until it is resumed" if until is None else f"until {told_at(until)}"
    since = "" if not row.paused_at_ns else f" since {told_at(local(row.trigger, row.paused_at_ns))}"
    return Why(kind="paused", words=f"it is paused{since}{note}, {ends}", until=until, reason=row.pause_note)


def _no_next(row: Schedule, now_ns: int, open_jobs: Sequence[JobRecord]) -> Why:
    most, end = row.payload.max_runs, row.timing.end_ns
    if most is not None and row.runs >= most:
        return Why(
            kind="ended", words=f"it runs no more: it has had its {most} run{'s' * (most != 1)} (max_runs={most})"
        )
    chained = _chained(row, now_ns, open_jobs)
    if chained is not None:
        return chained
    if end is not None:
        ended = local(row.trigger, end)
        return Why(
            kind="ended", words=f"it runs no more: no fire time is left before its end, {told_at(ended)}", at=ended
        )
    return Why(kind="ended", words=f"it runs no more: its rule has no further fire time ({row.trigger.explain()})")


def _chained(row: Schedule, now_ns: int, open_jobs: Sequence[JobRecord]) -> Why | None:
    """Return what a schedule that runs again after its job's end waits for; None if it is none, or is over."""
    pause, end, unique = row.trigger.after_finish_ns, row.timing.end_ns, row.payload.options.unique
    own = next((job for job in open_jobs if job.origin is not None and is_newest(row, job.origin)), None)
    if pause is None:
        return None
    if own is not None:
        words = f"it runs again when job {own.id} has ended, which is {state_of(own)}: {row.trigger.explain()}"
        return Why(kind="chained", words=words, job=own.id)
    if end is not None and now_ns + pause > end:
        return None
    rivals = [job for job in open_jobs if not job.is_backfill]
    waiting = sum(job.state is JobState.SUBMITTED for job in rivals)
    policy = row.payload.overlap
    if not has_room(policy.mode, policy.maximum, running=len(rivals) - waiting, waiting=waiting):
        what, job_id = f"there is room beside job {rivals[0].id}, which is {state_of(rivals[0])}", rivals[0].id
    elif unique is not None:
        what, job_id = f"the job that holds its unique key {unique.key!r} has ended", None
    else:
        return None
    return Why(kind="blocked", words=f"its last run was left out, and it runs again when {what}", job=job_id)


def _blocked(row: Schedule, at: datetime, when: str, open_jobs: Sequence[JobRecord]) -> Why | None:
    """Return what an open job does to the next run, if it does anything."""
    policy = row.payload.overlap
    rivals = [job for job in open_jobs if not job.is_backfill]
    waiting = sum(job.state is JobState.SUBMITTED for job in rivals)
    verdict = admit(policy.mode, policy.maximum, running=len(rivals) - waiting, waiting=waiting)
    if verdict.action is Action.RUN and policy.mode in SERIAL_MODES and not verdict.cancel_open:
        rivals += [job for job in open_jobs if job.is_backfill and job.serial and job.state.is_held]
    if not rivals or (verdict.action is Action.RUN and policy.mode not in SERIAL_MODES):
        return None
    job = rivals[0]
    if verdict.action is Action.SKIP:
        then = "is left out"
    elif verdict.cancel_open and not job.zombie:
        then = "cancels it"
    else:
        then = "waits for its end"
    blocker = f"job {job.id} is {state_of(job)}, and if it is so then, the run {then} (overlap={policy.mode!r})"
    words = f"its next run is on {when}; {blocker}"
    return Why(kind="blocked", words=words, at=at, job=job.id)


# -- what became of an instant ------------------------------------------------------------------


def why_not_fired(trigger: Trigger, at: datetime) -> Why | None:
    """Return why *at* is no fire time of a rule, with the nearest ones; None if it is one."""
    ns = instant_ns(at, "at")
    if is_skipped_by_clock(at):
        reason, ns = _skipped_by_clock(trigger, at, ns)
        said = reason
    elif fires_at(trigger, ns):
        return None
    else:
        reason = mismatch(trigger, ns)
        said = f"{told_at(local(trigger, ns, at.tzinfo))} is no fire time of it" + (f": {reason}" if reason else "")
    before, after = trigger.prev_ns(ns), trigger.next_ns(ns)
    near = [
        f"the one {word} is {told_at(local(trigger, one, at.tzinfo))}"
        for word, one in (("before", before), ("after", after))
        if one is not None
    ]
    return Why(
        kind="no_fire_time",
        words="; ".join([said, *near]),
        at=at,
        before=None if before is None else local(trigger, before, at.tzinfo),
        after=None if after is None else local(trigger, after, at.tzinfo),
        reason=reason or None,
    )


def _skipped_by_clock(trigger: Trigger, at: datetime, ns: int) -> tuple[str, int]:
    """Return what to say of a local time that does not exist, and the last instant before the clocks went over it."""
    day = timedelta(days=1)
    for change in trigger.clock_changes(after=from_ns(ns) - day, until=from_ns(ns) + day):
        if change.at.tzinfo == at.tzinfo and at.time() in change.skipped:
            return change.words, instant_ns(change.at) - 1
    zone = "" if at.tzinfo is None else f" in {_words.zone(str(at.tzinfo))}"
    face = f"{at:%H:%M} on {_words.dates([at.date()])}"
    return f"{face} does not exist{zone}: the clocks go forward over it", ns


def why_at(
    row: Schedule, at: datetime, now_ns: int, jobs: Sequence[JobRecord] | None, nobody: str | None = None
) -> Why:
    """Return whether *at* was a fire time of a schedule, and what became of it.

    Args:
        row: The schedule.
        at: The instant; a local time that its zone's clock skipped is told as such.
        now_ns: The moment of the question.
        jobs: The schedule's jobs that are kept; None if they are not known here.
        nobody: Why no process fires it, or runs its jobs, if that is so.
    """
    ns, row = instant_ns(at, "at"), _as_of(row, now_ns)
    found = _of_nominal(ns, jobs or ())
    if found is not None:
        return _became(row, found)
    if not row.trigger.is_periodic:
        return _in_chain(row, at, now_ns, is_known=jobs is not None)
    if row.immediate_ns != ns or is_skipped_by_clock(at):
        no = why_not_fired(row.trigger, at) or _out_of_bounds(row, ns)
        if no is not None:
            return no
    coming = why_next(row, now_ns, nobody=nobody)
    return _unserved_fire(row, local(row.trigger, ns, at.tzinfo), ns, now_ns, jobs, coming)


def _unserved_fire(
    row: Schedule, at: datetime, ns: int, now_ns: int, jobs: Sequence[JobRecord] | None, coming: Why
) -> Why:
    """Return what became of a fire time that no job names."""
    head = f"{told_at(at)} is a fire time of it"
    if ns > now_ns:
        kept = coming.kind in {"parked", "ended", "unserved"} or (
            row.paused_at_ns is not None and ns < (row.paused_until_ns or ns + 1)
        )
        return Why(kind="to_come", words=f"{head}, still to come" + (f"; but {_kept(coming)}" if kept else ""), at=at)
    missed = _missed_with(row, ns, jobs or ())
    if missed is not None:
        return Why(
            kind="missed", words=f"{head}; it was missed: {missed.reason}", at=at, job=missed.id, reason=missed.reason
        )
    if jobs is None:
        return Why(kind="unknown", words=f"{head}; what became of it is known where the app runs, not here", at=at)
    if ns <= row.created_at_ns:
        created = local(row.trigger, row.created_at_ns, at.tzinfo)
        return Why(kind="before", words=f"{head}, but the schedule was created later, {told_at(created)}", at=at)
    if row.paused_at_ns is not None and ns >= row.paused_at_ns:
        return Why(kind="paused", words=f"{head}, but {_paused(row).words}", at=at, reason=row.pause_note)
    if ns > row.cursor_ns:
        return _unaccounted(head, at, coming)
    since = "its job was deleted since, it was in a pause that is over, or a change of the schedule came after it"
    words = f"{head}; nothing of it is kept: {since}"
    return Why(kind="unknown", words=words, at=at)


def _unaccounted(head: str, at: datetime, coming: Why) -> Why:
    """Return what to say of a fire time that has passed, and that the schedule has not accounted for."""
    if coming.kind == "due":  # its jitter goes on
        return Why(kind="to_come", words=f"{head}, still to come: {coming.words}", at=at)
    link = "; " if coming.kind == "late" else ", but "
    return Why(kind=coming.kind, words=f"{head}{link}{_kept(coming)}", at=at, reason=coming.reason)


def _kept(coming: Why) -> str:
    """Return what keeps a fire time from being served, without naming the next one."""
    return coming.reason or coming.words if coming.kind == "unserved" else coming.words


def _of_nominal(ns: int, jobs: Sequence[JobRecord]) -> JobRecord | None:
    """Return the job of a fire time: the scheduled one, else one that was backfilled; MISSED rows stand for several."""
    found = [job for job in jobs if job.origin is not None and job.origin.nominal_ns == ns]
    found = [job for job in found if job.state is not JobState.MISSED or job.attempt]
    scheduled = [job for job in found if job.origin is not None and job.origin.trigger == "schedule"]
    return max(scheduled or found, key=lambda job: job.submitted_at_ns or 0, default=None)


def _became(row: Schedule, job: JobRecord) -> Why:
    nominal = 0 if job.origin is None else job.origin.nominal_ns
    at = local(row.trigger, nominal)
    head, reason = told_at(at), job.reason
    because = f": {reason}" if reason else ""
    if job.state in {JobState.SKIPPED, JobState.MISSED}:
        verb = "left out" if job.state is JobState.SKIPPED else "missed"
        kind: WhyKind = "skipped" if job.state is JobState.SKIPPED else "missed"
        return Why(kind=kind, words=f"the run of {head} was {verb}{because}", at=at, job=job.id, reason=reason)
    late = 0 if job.running_at_ns is None else job.running_at_ns - job.run_at_ns
    lag = f", {span(late / 1e9)} late" if late >= _LATE_NS else ""
    if job.state.is_finished:
        words = f"it ran for {head}{lag}, as job {job.id}, which is {state_of(job)}{because}"
        if job.running_at_ns is None:
            words = f"job {job.id} for {head} is {state_of(job)}, before its body began{because}"
        return Why(kind="ran", words=words, at=at, job=job.id, reason=reason)
    return Why(
        kind="open", words=f"job {job.id} for {head} is {state_of(job)}{lag}{because}", at=at, job=job.id, reason=reason
    )


def why_open(found: Why, cause: Why) -> Why:
    """Return the answer *found* about a job that is not finished, with what holds it up if its body has not begun."""
    if found.kind != "open" or found.at is None or cause.kind not in _HOLDS_UP:
        return found
    return replace(found, words=f"job {found.job} for {told_at(found.at)} waits: {cause.words}", reason=cause.reason)


def why_blocked(found: Why, cause: Why) -> Why:
    """Return the answer *found* about a run in whose way a job stands, with what holds that one up, if it waits."""
    if found.kind != "blocked" or cause.kind not in _HOLDS_UP:
        return found
    return replace(found, words=f"{found.words}; job {found.job} waits: {cause.words}", reason=cause.reason)


_HOLDS_UP: Final = frozenset[WhyKind](
    {"handed", "not_due", "retry", "orphaned", "serial", "unserved", "flow", "no_slot", "task_parked"}
)


def _missed_with(row: Schedule, ns: int, jobs: Sequence[JobRecord]) -> JobRecord | None:
    """Return the MISSED row that stands for a fire time: the next one at or after it, if its count goes back so far."""
    later = [
        job for job in jobs if job.origin is not None and job.origin.nominal_ns >= ns and job.state is JobState.MISSED
    ]
    found = min(later, key=lambda job: job.origin.nominal_ns if job.origin is not None else 0, default=None)
    if found is None or found.origin is None:
        return None
    ran = sum(job.origin is not None and ns <= job.origin.nominal_ns <= found.origin.nominal_ns for job in jobs) - 1
    most = found.origin.missed_count + ran
    is_capped = found.origin.missed_count >= MISSED_CAP
    return found if is_capped or row.trigger.count_ns(ns - 1, found.origin.nominal_ns, most + 1) <= most else None


def _in_chain(row: Schedule, at: datetime, now_ns: int, *, is_known: bool) -> Why:
    ns = instant_ns(at)
    when, rule = told_at(local(row.trigger, ns, at.tzinfo)), row.trigger.explain()
    if ns > now_ns:
        return Why(kind="unknown", words=f"whether it runs on {when} depends on how its runs end: {rule}", at=at)
    if not is_known:
        words = f"whether it ran for {when} is known where the app runs, not here: {rule}"
        return Why(kind="unknown", words=words, at=at)
    words = f"no run of it was for {when}: {rule}"
    return Why(kind="no_fire_time", words=words, at=at)


def _out_of_bounds(row: Schedule, ns: int) -> Why | None:
    start, end = row.timing.start_ns, row.timing.end_ns
    at = local(row.trigger, ns)
    if start is not None and ns < start:
        said = f"its start is {told_at(local(row.trigger, start))}"
    elif end is not None and ns > end:
        said = f"its end is {told_at(local(row.trigger, end))}"
    else:
        return None
    return Why(kind="no_fire_time", words=f"{told_at(at)} matches its rule, but {said}", at=at, reason=said)
