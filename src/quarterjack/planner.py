"""Schedules: when the next run is, what is due now, what an upsert changes.

Pure functions over `model.Schedule` and an instant. The scheduler reads the
clock, asks `plan` about every due schedule and hands the plans to the store,
which makes them true in one transaction or refuses them; the stores ask
`upserted`, `resumed` and `rearmed` inside theirs. A decision can be replayed
from its arguments. What a trigger raises passes through: the caller parks the
schedule."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, NamedTuple

from ._fast import new_tuple
from .declared import Verdict, adopt, judged
from .errors import NotPeriodic
from .model import Origin, Schedule, as_datetime
from .policies.jitter import due_ns
from .policies.missed import MISSED_CAP, Due, Periodic, fold_missed, missed_by
from .triggers import Once

__all__ = [
    "Plan",
    "bounded_rule",
    "counted",
    "is_newest",
    "last_plan",
    "never_fires",
    "parked",
    "plan",
    "rearmed",
    "rebased",
    "resumed",
    "unserved",
    "upserted",
    "upserted_parked",
]

_REBASE_ALL_NS: Final = 3 * 3_600 * 1_000_000_000
"""A clock set back this far was wrong before, so every rule starts anew from it."""

_JUST_PASSED_NS: Final = 2 * 1_000_000_000
"""``Once(now)`` has always passed by the time it is put, by up to a second where *now* was cut to whole ones."""


class Plan(NamedTuple):
    """What becomes of one schedule's due fire times; valid while cursor and generation are unchanged."""

    schedule_id: str
    generation: int
    old_cursor_ns: int
    cursor_ns: int
    nominals: tuple[int, ...]
    missed: int
    next_nominal_ns: int | None
    next_due_ns: int | None
    not_before_ns: int
    """The store refuses the plan while its own clock is before this."""


class _Bounded:
    """A trigger inside ``start`` and ``end`` (both inclusive, on fire times)."""

    __slots__ = ("_end", "_start", "_trigger")

    def __init__(self, trigger: Periodic, start: int | None, end: int | None) -> None:
        self._trigger = trigger
        self._start = start
        self._end = end

    def next_ns(self, after: int, /) -> int | None:
        if self._start is not None and after < self._start:
            after = self._start - 1
        found = self._trigger.next_ns(after)
        return None if found is None or (self._end is not None and found > self._end) else found

    def prev_ns(self, before: int, /) -> int | None:
        if self._end is not None and before > self._end:
            before = self._end
        found = self._trigger.prev_ns(before)
        return None if found is None or (self._start is not None and found < self._start) else found

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        if self._start is not None and after < self._start:
            after = self._start - 1
        if self._end is not None and until > self._end:
            until = self._end
        return self._trigger.count_ns(after, until, cap) if until > after else 0


def bounded_rule(schedule: Schedule) -> Periodic:
    """Return the schedule's rule inside its ``start`` and ``end``."""
    timing = schedule.timing
    if timing.start_ns is None and timing.end_ns is None:
        return schedule.trigger
    return _Bounded(schedule.trigger, timing.start_ns, timing.end_ns)


def _due(schedule: Schedule, rule: Periodic, nominal: int | None) -> int | None:
    jitter = schedule.timing.jitter_ns
    if nominal is None or not jitter:
        return nominal
    below = rule.next_ns(nominal)
    if below is None and schedule.timing.end_ns is not None:
        below = schedule.timing.end_ns + 1
    return due_ns(schedule.id, nominal, jitter, below=below)


def plan(schedule: Schedule, now_ns: int) -> Plan | None:
    """Return what is to be done for *schedule* at *now_ns*, or None if nothing is due."""
    nominal, due = schedule.next_nominal_ns, schedule.next_due_ns
    if due is None or nominal is None or due > now_ns or schedule.paused_at_ns is not None:
        return None
    if schedule.is_plain:  # nothing but a rule, and one late fire time always runs: most turns of most schedules
        following = schedule.trigger.next_ns(nominal)
        if following is None or following > now_ns:
            cursor, generation = schedule.cursor_ns, schedule.generation
            plain: Plan = new_tuple(
                Plan, (schedule.id, generation, cursor, nominal, (nominal,), 0, following, following, due)
            )
            return plain
    if schedule.is_passed:
        cursor, generation = schedule.cursor_ns, schedule.generation
        return Plan(schedule.id, generation, cursor, cursor + 1, (), 1, None, None, due)
    rule = bounded_rule(schedule)
    if nominal == schedule.immediate_ns or schedule.trigger.after_finish_ns is not None:
        nominals: tuple[int, ...] = (nominal,)
        missed, cursor = 0, nominal
        following = None if schedule.trigger.after_finish_ns is not None else rule.next_ns(nominal)
    else:
        nominals, missed, cursor, following = _overdue(schedule, rule, nominal, now_ns)
    left = _runs_left(schedule)
    if left is not None and len(nominals) >= left:
        # The cursor stops at the last run: should the store skip one of them, `counted` goes on from there.
        cursor = cursor if len(nominals) == left else nominals[left - 1]
        nominals, following = nominals[:left], None
    next_due = _due(schedule, rule, following)
    return Plan(
        schedule.id, schedule.generation, schedule.cursor_ns, cursor, nominals, missed, following, next_due, due
    )


def last_plan(schedule: Schedule) -> Plan | None:
    """Return the plan for a schedule that is due and whose rule raises when it is asked what follows.

    The run that is due was named before and takes place; after it the schedule is parked.
    """
    nominal, due = schedule.next_nominal_ns, schedule.next_due_ns
    if nominal is None or due is None or _runs_left(schedule) == 0:
        return None
    cursor, generation = schedule.cursor_ns, schedule.generation
    return Plan(schedule.id, generation, cursor, nominal, (nominal,), 0, None, None, due)


def unserved(schedule: Schedule, plan: Plan) -> tuple[int, str]:
    """Return the fire time and the reason of the MISSED row for what *plan* leaves out of *schedule*.

    The schedule is the row as it was planned; what a plan leaves out is one row.
    """
    nominal = schedule.next_nominal_ns
    if nominal is not None and schedule.is_passed:
        return nominal, f"{_passed(nominal, schedule.cursor_ns)}; no other follows"
    payload, missed = schedule.payload, plan.missed
    why = missed_by(
        payload.missed,
        ran=len(plan.nominals),
        missed=missed,
        max_lateness_ns=payload.max_lateness_ns,
        max_catchup=payload.max_catchup,
    )
    count = f"{missed}+" if missed >= MISSED_CAP else str(missed)
    return plan.cursor_ns, f"{count} fire time{'' if missed == 1 else 's'} passed unserved ({why})"


def never_fires(row: Schedule) -> str | None:
    """Return why a row that was just put will never run, in words; None if it will, or has run."""
    if row.parked_reason is not None:
        return None
    nominal = row.next_nominal_ns
    if nominal is not None:
        return _passed(nominal, row.cursor_ns) if row.is_passed else None
    is_untouched = not row.runs and row.last_nominal_ns is None and row.cursor_ns <= row.created_at_ns
    return "it has no fire time to come" if is_untouched else None


def _passed(nominal_ns: int, since_ns: int) -> str:
    at, late = as_datetime(nominal_ns), timedelta(seconds=(since_ns - nominal_ns) // 1_000_000_000)
    when = "" if at is None else f" ({at.isoformat(timespec='seconds')})"
    return f"its last fire time{when} was {late} before the schedule was put"


def _overdue(schedule: Schedule, rule: Periodic, nominal: int, now_ns: int) -> Due:
    payload = schedule.payload
    return fold_missed(
        rule,
        schedule.cursor_ns,
        _newest_due(schedule, rule, now_ns) if schedule.timing.jitter_ns else now_ns,
        mode=payload.missed,
        oldest_ns=_oldest_allowed(schedule, rule, now_ns),
        max_catchup=payload.max_catchup,
        first_ns=nominal,
    )


def _newest_due(schedule: Schedule, rule: Periodic, now_ns: int) -> int:
    """Return the end of what is overdue: a fire time whose jitter has not run out yet is not."""
    newest = rule.prev_ns(now_ns)
    due = _due(schedule, rule, newest)
    return now_ns if newest is None or due is None or due <= now_ns else newest - 1


def _oldest_allowed(schedule: Schedule, rule: Periodic, now_ns: int) -> int | None:
    """Return the start of what ``max_lateness`` lets run: lateness counts from when a run was due, jitter included."""
    most = schedule.payload.max_lateness_ns
    if most is None:
        return None
    oldest = now_ns - most
    before = rule.prev_ns(oldest - 1) if schedule.timing.jitter_ns else None
    due = _due(schedule, rule, before)  # of all fire times before, only the last can be due later: order is kept
    return oldest if before is None or due is None or due < oldest else before


def _runs_left(schedule: Schedule) -> int | None:
    most = schedule.payload.max_runs
    return None if most is None else max(0, most - schedule.runs)


def upserted(old: Schedule | None, declared: Schedule, now_ns: int) -> Schedule:
    """Return the row that *declared* becomes beside the stored row *old* (which stays untouched).

    A new row accounts for everything up to its creation. A changed *timing* is
    a new generation that counts from *now_ns*: what was accounted for stays so,
    and nothing before is made up for (but see `_seek_named`). A changed
    *payload* is a new revision that fires on as before. An equal declaration changes nothing,
    so a restart with the same code leaves the row as it was; nor does one of an
    older version of the code (`declared.judged`). A parked row, put again, goes on from *now_ns*:
    its rule may have been mended, and raises here if it was not.
    """
    if old is None:
        row = declared.copy()
        row.created_at_ns = now_ns
        _seek_passed(_begin_generation(row, now_ns))
        row.is_plain = _is_plain(row)
        return row
    verdict = judged(old, declared)
    if verdict is Verdict.OLDER:
        return old
    row = old.copy()
    adopt(row, declared)
    was_parked = row.parked_reason is not None
    if verdict is Verdict.SAME:  # also where an operator has changed it since: that stays until the code changes
        return _unparked(row, now_ns) if was_parked else row
    is_new_payload = row.payload != declared.payload
    if is_new_payload:
        row.revision += 1
        row.payload = declared.payload
    if row.timing != declared.timing:  # the old rule is asked no more: it may be the broken one that parked the row
        row.timing = declared.timing
        row.generation += 1
        row.parked_reason = None
        _seek_named(_begin_generation(row, now_ns), old)
    elif was_parked:
        return _unparked(row, now_ns)
    elif is_new_payload and _runs_left(row) == 0:
        row.next_nominal_ns = row.next_due_ns = None
    elif is_new_payload and row.next_nominal_ns is None and row.trigger.after_finish_ns is None:
        _seek(row, max(row.cursor_ns, now_ns))
    row.is_plain = _is_plain(row)
    return row


def _unparked(row: Schedule, now_ns: int) -> Schedule:
    """Let a parked row go on by its rule; a chain's next run is its store's to arm (`rearmed`)."""
    row.parked_reason = None
    if row.last_nominal_ns is None:
        _seek_passed(_begin_generation(row, now_ns))
    elif row.trigger.after_finish_ns is None and _runs_left(row) != 0:
        _seek(row, max(row.cursor_ns, now_ns))
    row.is_plain = _is_plain(row)
    return row


def upserted_parked(old: Schedule | None, declared: Schedule, now_ns: int, error: Exception) -> Schedule:
    """Return the row that *declared* becomes where `upserted` raised *error*: changed and parked, its history kept."""
    if old is None:
        row = declared.copy()
        row.created_at_ns = row.cursor_ns = now_ns
        return parked(row, error)
    row = old.copy()
    is_same = judged(old, declared) is Verdict.SAME
    adopt(row, declared)
    if is_same:
        return parked(row, error)
    row.generation += row.timing != declared.timing
    row.revision += row.payload != declared.payload
    row.timing, row.payload = declared.timing, declared.payload
    return parked(row, error)


def _is_plain(row: Schedule) -> bool:
    """Say whether its next run depends on its rule alone."""
    timing, payload = row.timing, row.payload
    bounds = (timing.start_ns, timing.end_ns, payload.max_runs, payload.max_lateness_ns, row.immediate_ns)
    is_simple = not timing.jitter_ns and row.trigger.after_finish_ns is None and not row.is_passed
    return is_simple and all(bound is None for bound in bounds)


def _begin_generation(row: Schedule, now_ns: int) -> Schedule:
    """Let the first run after what is accounted for be next: from *now_ns*, or from a cursor that is ahead of it."""
    before, row.cursor_ns = row.cursor_ns, max(row.cursor_ns, now_ns)
    row.trigger = row.timing.trigger.resolved(row.cursor_ns, row.id)
    row.immediate_ns = None
    pause = row.trigger.after_finish_ns
    if row.timing.trigger.fires_at_creation:
        return _seek_at_once(row, max(before + 1, now_ns))
    return _seek(row, row.cursor_ns) if pause is None else _seek_at_once(row, row.cursor_ns, pause)


def _seek_passed(row: Schedule) -> Schedule:
    """Let the last fire time of a rule that was over before it was put be next: to run if it is just past, else missed.

    Nobody makes a schedule in order that it never runs, so it is not passed over
    in silence: `Schedule.is_passed` until its MISSED row is there.
    """
    newest = _passed_ns(row)
    if newest is None:
        return row
    if row.cursor_ns - newest <= _JUST_PASSED_NS:
        return _seek(row, newest - 1)
    row.next_nominal_ns = row.next_due_ns = newest
    return row


def _passed_ns(row: Schedule) -> int | None:
    """Return the last fire time of a rule that is over; None if it goes on, or there is none."""
    if row.next_nominal_ns is not None or row.immediate_ns is not None or _runs_left(row) == 0:
        return None
    try:
        return bounded_rule(row).prev_ns(row.cursor_ns)
    except NotPeriodic:  # a trigger of the user's that only knows its next
        return None


def _seek_named(row: Schedule, old: Schedule) -> Schedule:
    """Let a passed instant be next that *row* now names and *old* did not, as if it were put anew.

    Of a changed schedule nothing is made up for: who moves its end into the past
    wants it over. ``Once(now)`` alone asks for that very run, and has always
    passed by now. It does not get it twice: not where the old rule had served it.
    """
    rule = row.timing.trigger
    newest = _passed_ns(row) if isinstance(rule, Once) and rule != old.timing.trigger else None
    served = old.last_nominal_ns
    if newest is not None and served is not None and newest <= min(served, old.cursor_ns):
        is_recent = row.cursor_ns - newest <= _JUST_PASSED_NS  # one of the last runs may have been for it
        return row if is_recent or newest == served else _seek_passed(row)
    return _seek_passed(row) if newest is not None else row


def _seek_at_once(row: Schedule, cursor_ns: int, pause_ns: int = 0) -> Schedule:
    """Let the run at creation be next: *pause_ns* after *cursor_ns*, or where the schedule starts.

    The cursor stands just before it: it is not accounted for yet, and firing it
    moves the cursor, without which its plan would stay valid and fire again.
    """
    start, end = row.timing.start_ns, row.timing.end_ns
    at = cursor_ns + pause_ns if start is None else max(cursor_ns + pause_ns, start)
    row.immediate_ns = at
    row.cursor_ns = min(cursor_ns, at - 1)
    is_over = _runs_left(row) == 0 or (end is not None and at > end)
    row.next_nominal_ns = row.next_due_ns = None if is_over else at
    return row


def _seek(row: Schedule, cursor_ns: int) -> Schedule:
    """Set the cursor, and with it the next fire time."""
    rule = bounded_rule(row)
    row.cursor_ns = cursor_ns
    following = None if _runs_left(row) == 0 else rule.next_ns(cursor_ns)
    row.next_nominal_ns = following
    row.next_due_ns = _due(row, rule, following)
    return row


def resumed(schedule: Schedule, now_ns: int, *, catch_up: bool) -> Schedule:
    """Return the row of a resumed schedule; without *catch_up* what passed meanwhile is no run of it.

    A pause that was to end by itself ended then, however late that is seen: the
    fire time at that very instant is no part of it, and later ones go by ``missed``.
    """
    until = schedule.paused_until_ns
    is_ended = until is not None and until <= now_ns
    begin_ns = until if until is not None and is_ended else now_ns
    row = schedule.copy()
    row.paused_at_ns = row.paused_until_ns = row.pause_note = None
    row.failures_in_a_row = 0
    if catch_up or row.next_nominal_ns is None or row.is_passed:
        return row
    if row.next_nominal_ns == row.immediate_ns and row.timing.trigger.fires_at_creation:
        return _seek_at_once(row, max(row.cursor_ns + 1, begin_ns))
    if row.trigger.after_finish_ns is not None:
        at, end = max(begin_ns, row.next_nominal_ns), row.timing.end_ns
        row.next_nominal_ns = row.next_due_ns = None if end is not None and at > end else at
        return row
    return _seek(row, max(row.cursor_ns, begin_ns - is_ended))


def is_newest(schedule: Schedule, origin: Origin) -> bool:
    """Say whether *origin* is the schedule's newest occurrence.

    Only the end of that one makes the next run: what an operator runs beside it,
    an older run that is repeated, or one of a schedule that had the same id before,
    would each begin a second chain.
    """
    return (
        origin.schedule_id == schedule.id
        and origin.nominal_ns == schedule.last_nominal_ns
        and origin.generation == schedule.generation
        and origin.trigger == "schedule"
    )


def rearmed(schedule: Schedule, finished_ns: int) -> int | None:
    """Return the next fire time of a schedule that runs again after its job's end, or None.

    *finished_ns* is when the body of its newest occurrence had really ended, or
    when a run that was left out has its turn.
    """
    pause = schedule.trigger.after_finish_ns
    end = schedule.timing.end_ns
    if pause is None or _runs_left(schedule) == 0 or schedule.parked_reason is not None:
        return None
    due = finished_ns + pause
    if due == schedule.cursor_ns:  # a run that took no time, on a coarse clock: no two share a fire time
        due += 1
    return None if end is not None and due > end else due


def counted(schedule: Schedule) -> Schedule:
    """Return the row after its runs were counted: with ``max_runs`` left over, it goes on."""
    if schedule.next_nominal_ns is not None or not _runs_left(schedule):
        return schedule
    if schedule.trigger.after_finish_ns is not None:
        return schedule
    return _seek(schedule.copy(), schedule.cursor_ns)


def parked(schedule: Schedule, error: Exception) -> Schedule:
    """Return the row of a schedule whose trigger raised *error*: it fires no more until it is changed."""
    row = schedule.copy()
    row.next_nominal_ns = row.next_due_ns = None
    try:
        words = f"{type(error).__name__}: {error}"
    except Exception:  # a user's __str__ runs here, and its schedule must be parked all the same
        words = type(error).__name__
    row.parked_reason = f"its trigger raised {words}"
    return row


def rebased(schedule: Schedule, now_ns: int, step_ns: int) -> Schedule | None:
    """Return the row after the wall clock was set back by *step_ns* (positive), or None to leave it.

    A rule that counts elapsed time goes on at once on its grid, as a new
    generation, because its users expect the next run one period from now; a grid
    that stands on the schedule's creation is set up anew from *now_ns*. A rule
    that names times of day waits until the clock passes its cursor again, so that
    no time of day runs twice; from three hours on all rules start anew. A run at
    creation that is still to come is no time of day, and comes now.
    """
    if schedule.trigger.after_finish_ns is not None:
        return _moved_back(schedule, now_ns, step_ns)
    if schedule.cursor_ns <= now_ns or schedule.parked_reason is not None:
        return None
    is_at_once = schedule.next_nominal_ns is not None and schedule.next_nominal_ns == schedule.immediate_ns
    if not is_at_once and step_ns < _REBASE_ALL_NS and not schedule.trigger.is_elapsed_like:
        return None
    row = schedule.copy()
    row.generation += 1
    row.trigger = row.timing.trigger.resolved(now_ns, row.id)
    if is_at_once:
        return _seek_at_once(row, now_ns)
    row.immediate_ns = None
    return _seek(row, now_ns)


def _moved_back(schedule: Schedule, now_ns: int, step_ns: int) -> Schedule | None:
    if schedule.next_nominal_ns is None:
        return None
    row = schedule.copy()
    row.next_nominal_ns = row.next_due_ns = max(now_ns, schedule.next_nominal_ns - step_ns)
    return row
