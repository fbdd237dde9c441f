"""What a decision asks for, what was found, and what it has changed: the words between a `Part` and its engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from quarterjack.model import JobRecord, JobState, Schedule

from ._book_base import Occurrence
from .base import Hint

__all__ = ["Changes", "Loaded", "Missing", "Needs", "Taken", "UniqueKey"]

UniqueKey = tuple[str, str]
"""A task, and the key that one of its jobs has."""


class Needs(NamedTuple):
    """Rows that a decision wants to see, and which nobody else may change until it is committed.

    Attributes:
        jobs: Jobs, by id.
        schedules: Schedules, by id.
        keys: Overlap keys that it changes: wanted are the schedules that are held up
            (`Schedule.held_up_ns`) and have this key.
        lines: Overlap keys whose open jobs are wanted, and the schedules as for *keys*. Open is what is
            unfinished, or a zombie; of backfills only what is held, or a zombie.
        uniques: Unique keys: wanted is who holds each, that job, and the schedules that are held up
            and whose jobs have the key.
        occurrences: Fire times of backfills: wanted are the ids of the jobs made for them.
    """

    jobs: frozenset[str] = frozenset()
    schedules: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    lines: frozenset[str] = frozenset()
    uniques: frozenset[UniqueKey] = frozenset()
    occurrences: frozenset[Occurrence] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        """Return both."""
        return Needs(
            self.jobs | other.jobs,
            self.schedules | other.schedules,
            self.keys | other.keys,
            self.lines | other.lines,
            self.uniques | other.uniques,
            self.occurrences | other.occurrences,
        )

    def without(self, other: Needs) -> Needs:
        """Return what *other* does not ask for."""
        return Needs(
            self.jobs - other.jobs,
            self.schedules - other.schedules,
            self.keys - other.touched,
            self.lines - other.lines,
            self.uniques - other.uniques,
            self.occurrences - other.occurrences,
        )

    @property
    def touched(self) -> frozenset[str]:
        """The overlap keys of both kinds."""
        return self.keys | self.lines


class Taken(NamedTuple):
    """A unique key that a job holds: until an instant, or (None) as long as its scope says."""

    job_id: str
    until_ns: int | None


class Loaded(NamedTuple):
    """The answer to a `Needs`: what was found. More than was asked for does no harm.

    Attributes:
        jobs: Rows by id: those asked for, those of the lines, and the holders of unique keys.
        schedules: Rows by id.
        lines: The ids of the open jobs by overlap key, in the order they were inserted.
        uniques: Who holds which key.
        occurrences: The ids of the jobs that were made.
        held_up: Schedules that are held up: at least those asked for.
    """

    jobs: Mapping[str, JobRecord] = {}
    schedules: Mapping[str, Schedule] = {}
    lines: Mapping[str, Sequence[str]] = {}
    uniques: Mapping[UniqueKey, Taken] = {}
    occurrences: Mapping[Occurrence, str] = {}
    held_up: Sequence[Schedule] = ()


class Missing(Exception):  # a request, not an error
    """A decision came to what was not loaded: load *needs* too, and let it decide anew."""

    def __init__(self, needs: Needs) -> None:
        super().__init__(needs)
        self.needs = needs


class Changes(NamedTuple):
    """What an engine writes in the transaction of the decision, all or nothing.

    Attributes:
        inserted: New jobs, in order; waiting, held already, or SKIPPED and MISSED ones.
        updated: Known jobs of which something has moved (`_rows.JOB_STATE_COLUMNS`).
        schedules: Schedules that are new or changed, by id.
        removed: Schedules to delete, and with each its occurrences.
        uniques: Unique keys that were set, or (None) freed.
        occurrences: Fire times of backfills for which a job was made.
        turns: Overlap keys whose turn may have come free: the first in order of the serial jobs that wait
            for it (those of backfills last) may be claimed, if none of them is held.
        outcomes: How many jobs ended, by the start of the minute, task and state.
        ended: The jobs that ended, for `Hint.ENDED` in other processes.
        hints: Whom to tell after the commit; `Hint.FINISHED` in this process alone. No ids: look at all.
    """

    inserted: Sequence[JobRecord]
    updated: Sequence[JobRecord]
    schedules: Mapping[str, Schedule]
    removed: Sequence[str]
    uniques: Mapping[UniqueKey, Taken | None]
    occurrences: Mapping[Occurrence, str]
    turns: frozenset[str]
    outcomes: Mapping[tuple[int, str, JobState], int]
    ended: Sequence[str]
    hints: Sequence[tuple[Hint, tuple[str, ...]]]

    @property
    def is_empty(self) -> bool:
        """True if nothing is to be written."""
        return not any(self[:8])
