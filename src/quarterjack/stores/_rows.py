"""Jobs and schedules as flat rows, for every durable store; `_columns` is the table of what stands where.

`Encoding` turns a `JobRecord` or a `Schedule` into a tuple of plain values, in
the order of `JOB_COLUMNS` and `SCHEDULE_COLUMNS`, and back. Each table has two
parts: what is said once, when the row is inserted, and then its *state*, which
moves; to write a move, an engine encodes the state alone (`job_state`,
`schedule_state`). Nothing here asks a clock or a database.

Instants are integer nanoseconds. Users' data (arguments, results, the words of
errors, progress, checkpoints) is bytes: JSON, through the app's codec if it has
one (`_payloads`). Options are what differs from the task's own
(`_stored_options`), triggers are JSON (`_stored_schedules`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from pydantic_core import PydanticSerializationError, from_json, to_json

from quarterjack._payload import MAX_ARGUMENT_BYTES, PayloadCodec
from quarterjack.errors import InvalidOption
from quarterjack.model import JobRecord, JobState, Origin, RunOptions, Schedule, SubmittedBy

from ._columns import (
    JOB_COLUMNS,
    JOB_STATE_COLUMNS,
    NEW_JOB_COLUMNS,
    SCHEDULE_COLUMNS,
    SCHEDULE_STATE_COLUMNS,
    Column,
    ColumnKind,
    ColumnValue,
    Row,
)
from ._payloads import Payloads, cleaned
from ._stored_options import OptionsStore, stored_unique, unique_of
from ._stored_schedules import ScheduleParts, UnknownTrigger, parked_here

__all__ = [
    "JOB_COLUMNS",
    "JOB_STATE_COLUMNS",
    "NEW_JOB_COLUMNS",
    "SCHEDULE_COLUMNS",
    "SCHEDULE_STATE_COLUMNS",
    "Column",
    "ColumnKind",
    "ColumnValue",
    "Encoding",
    "Row",
]

_STATES: Final = {state.value: state for state in JobState}


def _state_of(text: str) -> JobState:
    """Return a state by its name: of one that a later version wrote, something that is none of those known here."""
    known = _STATES.get(text)
    if known is None:  # neither waiting, nor held, nor finished, and written back as it was
        known = _STATES[text] = str.__new__(JobState, text)
        known._name_ = known._value_ = text
        known.is_finished = known.is_held = False
    return known


class Encoding:
    """Turns jobs and schedules into rows and back.

    Args:
        options_of: Finds a task's own options by its name; None where the task is not known.
        codec: What payloads pass on their way.
        max_argument_bytes: How many bytes of JSON the arguments of one job may take.
    """

    __slots__ = ("_options", "_parts", "payloads")

    def __init__(
        self,
        options_of: Callable[[str], RunOptions | None] = lambda task: None,  # noqa: ARG005  # a parameter's name
        codec: PayloadCodec | None = None,
        *,
        max_argument_bytes: int = MAX_ARGUMENT_BYTES,
    ) -> None:
        self.payloads = Payloads(codec, max_argument_bytes)
        """For engines that write single columns: ``result``, ``error``, ``reason``, ``progress``, and ``packed``."""
        self._options = OptionsStore(options_of)
        self._parts = ScheduleParts(self._options, self.payloads)

    # -- jobs ----------------------------------------------------------------------------

    def new_job(self, job: JobRecord) -> tuple[ColumnValue, ...]:
        """Return a new job on which nothing hangs but its own row, in the order of `NEW_JOB_COLUMNS`.

        Raises:
            InvalidArguments: If its arguments are no JSON, or too large.
            InvalidOption: If one of its options cannot be written down.
            StoreError: If the codec raises.
        """
        task, options, by = job.task, job.options, job.submitted_by
        return (
            job.id,
            task,
            job.lane,
            job.queue,
            job.priority,
            options.max_rescues,
            self.payloads.call(task, job.args, job.kwargs),
            self._options.text(task, options),
            None if by is None else _submitter(task, by),
            job.parent,
        )

    def job_row(self, job: JobRecord) -> tuple[ColumnValue, ...]:
        """Return a job as a row, in the order of `JOB_COLUMNS`.

        Raises:
            InvalidArguments: If its arguments are no JSON, or too large.
            InvalidOption: If one of its options cannot be written down.
            StoreError: If the codec raises.
        """
        options, origin, by = job.options, job.origin, job.submitted_by
        return (
            job.id,
            job.task,
            job.lane,
            job.queue,
            job.priority,
            options.max_rescues,
            self.payloads.call(job.task, job.args, job.kwargs),
            self._options.text(job.task, options),
            *(_NO_UNIQUE if options.unique is None else stored_unique(options.unique)),
            None if by is None else _submitter(job.task, by),
            job.parent,
            *(_NO_ORIGIN if origin is None else origin),
            job.submitted_at_ns,
            *self.job_state(job),
        )

    def job_state(self, job: JobRecord) -> tuple[ColumnValue, ...]:
        """Return what moves in a job's row, in the order of `JOB_STATE_COLUMNS`.

        Raises:
            StoreError: If the codec raises.
        """
        payloads = self.payloads
        result, error, reason = payloads.outcome(job.result, job.error, job.reason)
        return (
            job.state.value,
            reason,
            job.attempt,
            job.failures,
            job.rescues,
            job.owner,
            job.lease_until_ns,
            job.run_at_ns,
            job.order_at_ns,
            job.delay_born,
            job.first_due_ns,
            job.scheduled_at_ns,
            job.started_at_ns,
            job.running_at_ns,
            job.finished_at_ns,
            job.cancel_requested,
            job.zombie,
            job.overlap_key,
            job.serial,
            result,
            error,
            None if job.progress is None else payloads.progress(job.progress),
            None if job.checkpoint is None else payloads.packed(job.checkpoint),
        )

    def record(self, row: Row) -> JobRecord:
        """Return the job that a row in the order of `JOB_COLUMNS` stands for.

        It never fails for its contents: what cannot be read stands in it as an `Unreadable`,
        and is written back as it was.
        """
        (
            job_id, task, lane, queue, priority, max_rescues,
            call, options_text, unique_key, unique_scope, unique_conflict, by, parent,
            origin_schedule, origin_generation, origin_nominal_ns, origin_missed, origin_trigger,
            submitted_at_ns, state, reason, attempt, failures, rescues, owner, lease_until_ns,
            run_at_ns, order_at_ns, delay_born, first_due_ns,
            scheduled_at_ns, started_at_ns, running_at_ns, finished_at_ns,
            cancel_requested, zombie, overlap_key, serial,
            result, error, progress, checkpoint,
        ) = row  # fmt: skip
        payloads = self.payloads
        args, kwargs = payloads.call_of(call)
        unique = unique_of(unique_key, unique_scope, unique_conflict) if unique_key else None
        job = JobRecord(
            job_id,
            task,
            args,
            kwargs,
            self._options.options(task, options_text, queue, priority, max_rescues, unique),
            None if by is None else _submitter_of(by),
            None
            if origin_schedule is None
            else Origin(origin_schedule, origin_generation, origin_nominal_ns, origin_missed, origin_trigger),
        )
        job.lane = lane
        job.parent = parent
        job.submitted_at_ns = submitted_at_ns
        job.state = _STATES.get(state) or _state_of(state)
        job.reason = None if reason is None else payloads.reason_of(reason)
        job.attempt = attempt
        job.failures = failures
        job.rescues = rescues
        job.owner = owner
        job.lease_until_ns = lease_until_ns
        job.run_at_ns = run_at_ns
        job.order_at_ns = order_at_ns
        job.delay_born = bool(delay_born)
        job.first_due_ns = first_due_ns
        job.scheduled_at_ns = scheduled_at_ns
        job.started_at_ns = started_at_ns
        job.running_at_ns = running_at_ns
        job.finished_at_ns = finished_at_ns
        job.cancel_requested = bool(cancel_requested)
        job.zombie = bool(zombie)
        job.overlap_key = overlap_key
        job.serial = bool(serial)
        if result is not None:
            job.result = payloads.unpacked(result)
        if error is not None:
            job.error = payloads.error_of(error)
        if progress is not None:
            job.progress = payloads.progress_of(progress)
        if checkpoint is not None:
            job.checkpoint = payloads.unpacked(checkpoint)
        return job

    # -- schedules -----------------------------------------------------------------------

    def settled(self, schedule: Schedule) -> Schedule:
        """Return *schedule* as it comes back from a row: what ``schedules_put`` goes on with, and compares.

        Raises:
            InvalidTrigger: If its trigger cannot be written as JSON, or would come back as another one.
            InvalidArguments: If its arguments are no JSON, or too large.
            InvalidOption: If one of its options cannot be written down.
        """
        return self._parts.settled(schedule)

    def schedule_row(self, schedule: Schedule) -> tuple[ColumnValue, ...]:
        """Return a schedule as a row, in the order of `SCHEDULE_COLUMNS`; raises as `settled` does."""
        payload, call = self._parts.payload(schedule.payload)
        return (
            schedule.id,
            schedule.payload.task,
            schedule.overlap_key,
            self._parts.timing(schedule.timing),
            payload,
            call,
            schedule.in_code,
            schedule.version,
            schedule.code_hash,
            schedule.code_before,
            *self.schedule_state(schedule),
        )

    def schedule_state(self, schedule: Schedule) -> tuple[ColumnValue, ...]:
        """Return what moves in a schedule's row, in the order of `SCHEDULE_STATE_COLUMNS`."""
        note, trigger = schedule.pause_note, schedule.trigger
        parked, nominal, due = schedule.parked_reason, schedule.next_nominal_ns, schedule.next_due_ns
        if isinstance(trigger, UnknownTrigger) and parked == trigger.reason:  # parked here, and nowhere else
            parked, nominal, due = trigger.was
        return (
            self._parts.resolved(schedule),
            schedule.generation,
            schedule.revision,
            schedule.created_at_ns,
            schedule.cursor_ns,
            schedule.immediate_ns,
            schedule.is_plain,
            nominal,
            due,
            due if schedule.paused_at_ns is None else schedule.paused_until_ns,
            schedule.runs,
            schedule.paused_at_ns,
            schedule.paused_until_ns,
            None if note is None else cleaned(note),
            None if parked is None else cleaned(parked),
            schedule.last_nominal_ns,
            schedule.newest_job_id,
            schedule.held_up_ns,
            schedule.last_job_id,
            None if schedule.last_state is None else schedule.last_state.value,
            schedule.last_finished_ns,
            schedule.failures_in_a_row,
        )

    def schedule(self, row: Row) -> Schedule:
        """Return the schedule that a row in the order of `SCHEDULE_COLUMNS` stands for.

        One whose trigger cannot be rebuilt here comes back parked, with the reason; its
        row stays as it is, for processes that know the trigger.
        """
        values = iter(row)

        def take() -> Any:
            return next(values)

        schedule_id, task, _, timing, payload, call = take(), take(), take(), take(), take(), take()
        found = Schedule(schedule_id, self._parts.timing_of(timing), self._parts.payload_of(task, payload, call))
        found.in_code, found.version, found.code_hash, found.code_before = bool(take()), take(), take(), take()
        resolved = take()
        if resolved is not None:
            found.trigger = self._parts.rule_of(resolved)
        found.generation, found.revision, found.created_at_ns, found.cursor_ns = take(), take(), take(), take()
        found.immediate_ns, found.is_plain = take(), bool(take())
        found.next_nominal_ns, found.next_due_ns, _, found.runs = take(), take(), take(), take()
        found.paused_at_ns, found.paused_until_ns = take(), take()
        found.pause_note, found.parked_reason = take(), take()
        found.last_nominal_ns, found.newest_job_id, found.held_up_ns = take(), take(), take()
        found.last_job_id, last_state = take(), take()
        found.last_state = None if last_state is None else _state_of(last_state)
        found.last_finished_ns, found.failures_in_a_row = take(), take()
        parked_here(found)
        return found


_NO_UNIQUE: Final = (None, None, None)
_NO_ORIGIN: Final = (None, None, None, None, None)


def _submitter(task: str, by: SubmittedBy) -> str:
    try:
        return to_json(by).decode()
    except PydanticSerializationError as error:
        raise InvalidOption(f"submitted_by= of a job of {task} cannot be written as JSON: {error}") from None


def _submitter_of(text: str) -> SubmittedBy | None:
    """Return what `_submitter` wrote, as much of it as is known here; None if it cannot be read."""
    try:
        found: Any = from_json(text)
    except ValueError:
        return None
    known = cast("Sequence[Any]", found)[:_ASKERS] if isinstance(found, list) else ()
    is_whole = all(
        isinstance(one, str) if n == 0 else one is None or isinstance(one, str) for n, one in enumerate(known)
    )
    return SubmittedBy(*known) if known and is_whole else None


_ASKERS: Final = len(SubmittedBy._fields)
