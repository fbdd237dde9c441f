"""A book of the few rows that one call of a durable store concerns.

    part = Part(ids)
    part.load(needs, loaded)             # what the call is known to want
    answer = part.run(decide, now_ns)    # or `Missing`: load that too, and run it again
    write(part.changes())                # in the same transaction

What was asked for and not found is known to be absent; asking for anything else
raises `Missing`. A run that raises leaves the part as it was loaded, whatever had
been changed by then, so a decision is made as often as it takes, and names the
jobs it inserts alike each time. What has changed is told by identity: rows are
changed by assignment alone, and to look costs a fraction of writing them down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from quarterjack._durations import NS_PER_S
from quarterjack.lifecycle import Move
from quarterjack.model import NO_OPTIONS, Finish, FinishKind, JobRecord, JobState, Schedule

from ._book import Book
from ._book_base import Occurrence
from ._firing import asks_who_is_open, may_take_turn, unended
from ._needs import Changes, Loaded, Missing, Needs, Taken, UniqueKey
from ._part_rows import JOB, SCHEDULE, Facts, Known, Lines, Names, Uniques
from .base import Claim, Hint

__all__ = ["Part", "worked_out"]

T = TypeVar("T")

_MINUTE_NS: Final = 60 * NS_PER_S


class Part(Book):
    """A book that holds what was loaded.

    Args:
        ids: Names the jobs that schedules make.
    """

    keys: Lines
    unique: Uniques

    def __init__(self, ids: Callable[[], str]) -> None:  # `run` makes the rest, anew each time
        self._names = Names(ids)
        self.needs = Needs()
        """All that was loaded so far: what an optimistic engine verifies when it commits."""
        self._found_jobs: dict[str, JobRecord] = {}
        self._found_schedules: dict[str, Schedule] = {}
        self._found_lines: dict[str, list[JobRecord]] = {}
        self._found_uniques: dict[UniqueKey, tuple[JobRecord, int | None]] = {}
        self._found_occurrences: dict[Occurrence, str] = {}
        self._held_up: dict[str, Schedule] = {}
        self._jobs_before: dict[str, Facts] = {}
        self._schedules_before: dict[str, Facts] = {}

    def fresh(self) -> Part:
        """Return a part with nothing loaded, for another try at the same call: its jobs have the same ids."""
        part = Part(self._names)
        self._names.begin()
        return part

    # -- loading ---------------------------------------------------------------------

    def load(self, needs: Needs, loaded: Loaded) -> None:
        """Take up what was found of *needs*; the rows are the part's own from now on, and the first of each counts."""
        for job_id, job in loaded.jobs.items():
            if job_id not in self._found_jobs:
                self._found_jobs[job_id] = job
                self._jobs_before[job_id] = JOB.facts(job)
        for row in (*loaded.schedules.values(), *loaded.held_up):
            if row.id not in self._found_schedules:
                self._found_schedules[row.id] = row
                self._schedules_before[row.id] = SCHEDULE.facts(row)
        for row in loaded.held_up:
            self._held_up.setdefault(row.id, self._found_schedules[row.id])
        for key, ids in loaded.lines.items():
            self._found_lines.setdefault(key, [self._found_jobs[job_id] for job_id in ids])
        for unique, taken in loaded.uniques.items():
            self._found_uniques.setdefault(unique, (self._holder(unique, taken), taken.until_ns))
        self._found_occurrences.update(loaded.occurrences)
        self.needs |= needs

    def _holder(self, unique: UniqueKey, taken: Taken) -> JobRecord:
        """Return the row of who holds a key; where it was purged, one that says no more than its id."""
        job = self._found_jobs.get(taken.job_id)
        if job is None:
            job = JobRecord(taken.job_id, unique[0], (), {}, NO_OPTIONS)
            job.state, job.reason = JobState.DONE, "its row was purged"
        return job

    def _begin(self) -> None:
        """Be what was loaded, and nothing else."""
        needs = self.needs
        super().__init__(
            self._names,
            Known(self._found_jobs, needs.jobs, "jobs"),
            Known(self._found_schedules, needs.schedules, "schedules"),
            Lines(Known(self._found_lines, needs.lines, "lines")),
            Uniques(Known(self._found_uniques, needs.uniques, "uniques")),
            Known(self._found_occurrences, needs.occurrences, "occurrences"),
        )
        self._names.begin()
        self._removed: list[str] = []
        self._outcomes: dict[tuple[int, str, JobState], int] = {}
        self._ended: list[str] = []
        self._hints: dict[Hint, dict[str, None] | None] = {}
        for row in sorted(self._held_up.values(), key=_since):
            if self._concerns(row):
                self.chains.held_up[row.id] = None

    def _concerns(self, row: Schedule) -> bool:
        unique = row.payload.options.unique
        is_by_key = unique is not None and (row.payload.task, unique.key) in self.needs.uniques
        return is_by_key or row.overlap_key in self.needs.touched

    # -- deciding --------------------------------------------------------------------

    def run(self, decide: Callable[[Part, int], T], now: int) -> T:
        """Return what *decide* answers; its changes stand in `changes`.

        Raises:
            Missing: If it came to what was not loaded. Nothing has changed then, nor with any other error.
        """
        self._begin()
        try:
            return decide(self, now)
        except BaseException:
            self._take_back()
            raise

    def _take_back(self) -> None:
        for job_id, facts in self._jobs_before.items():
            JOB.restore(self._found_jobs[job_id], facts)
        for schedule_id, facts in self._schedules_before.items():
            SCHEDULE.restore(self._found_schedules[schedule_id], facts)
        self._begin()

    def require(self, needs: Needs) -> None:
        """Ask for all of *needs* at once, where one after the other would each cost a round.

        Raises:
            Missing: If some of it was not loaded.
        """
        missing = needs.without(self.needs)
        missing = missing._replace(jobs=missing.jobs - self.jobs.keys())
        if any(missing):
            raise Missing(missing)

    def require_around(self, job_ids: Iterable[str]) -> None:
        """Ask for these jobs, and for what their ends or returns may concern: their keys and schedules."""
        ids = frozenset(job_ids)
        self.require(Needs(jobs=ids))
        found = [job for job_id in ids if (job := self.jobs.get(job_id)) is not None]
        self.require(
            Needs(
                schedules=frozenset(job.origin.schedule_id for job in found if job.origin is not None),
                keys=frozenset(job.overlap_key for job in found if job.overlap_key is not None),
                uniques=frozenset((job.task, u.key) for job in found if (u := job.options.unique) is not None),
            )
        )

    def require_to_fire(self, schedule_ids: Iterable[str], claim: Claim | None) -> dict[str, str]:
        """Ask for these schedules, and for what their fire times are decided by: open jobs and unique keys.

        Return the overlap keys of those that ask who is open each time, by id.
        """
        ids = frozenset(schedule_ids)
        self.require(Needs(schedules=ids))
        rows = [row for key in ids if (row := self.schedules.get(key)) is not None]
        turns = {row.id: unended(row) for row in rows if may_take_turn(row, claim)}
        lines = {row.id: row.overlap_key for row in rows if asks_who_is_open(row.payload.overlap)}
        self.require(
            Needs(
                jobs=frozenset(job_id for job_id in turns.values() if job_id is not None),
                lines=frozenset(
                    (*lines.values(), *(row.overlap_key for row in rows if turns.get(row.id, "") is None)),
                ),
                uniques=frozenset(
                    (row.payload.task, unique.key) for row in rows if (unique := row.payload.options.unique) is not None
                ),
            )
        )
        return lines

    def finish(self, finishes: Sequence[Finish], now: int) -> list[JobState | None]:
        """Record how attempts ended. That their bodies had begun is news here, where no renewal has told it yet."""
        for finish in finishes:
            job = self.jobs.get(finish.job_id)
            if finish.kind is FinishKind.DONE and job is not None and job.state.is_held and job.fence == finish[:3]:
                job.state = JobState.RUNNING
        return super().finish(finishes, now)

    def free_key(self, job: JobRecord, now: int) -> None:
        self._touch(job)
        super().free_key(job, now)

    def back(self, job: JobRecord, how: Move, now: int, delay_ns: int, reason: str | None) -> None:
        if job.serial:
            self._touch(job)
        super().back(job, how, now, delay_ns, reason)

    def _touch(self, job: JobRecord) -> None:
        if job.overlap_key is not None:
            self.require(Needs(keys=frozenset({job.overlap_key})))

    # -- what the book leaves to its store -------------------------------------------

    def tell(self, hint: Hint, ids: Iterable[str] = ()) -> None:
        known = self._hints.setdefault(hint, {})
        ids = tuple(ids)
        if known is None or not ids:
            self._hints[hint] = None
        else:
            known.update(dict.fromkeys(ids))

    def give_turn(self, job: JobRecord) -> None:
        del job  # the engine finds out whose turn it is

    def extend(self, job: JobRecord, until: int) -> None:
        job.lease_until_ns = until

    def left_waiting(self, job: JobRecord) -> None:
        del job

    def record(self, job: JobRecord, now: int) -> None:
        key = (now // _MINUTE_NS * _MINUTE_NS, job.task, job.state)
        self._outcomes[key] = self._outcomes.get(key, 0) + 1
        self._ended.append(job.id)

    def forget_occurrences(self, schedule_id: str) -> None:
        self._removed.append(schedule_id)

    # -- what has changed ------------------------------------------------------------

    def changes(self) -> Changes:
        """Return what the last run has changed."""
        before = self._jobs_before
        jobs, schedules = self.jobs.values(), self.schedules.values()
        inserted = [job for job in jobs if job.id not in before]
        updated = [job for job in jobs if job.id in before and JOB.has_moved(job, before[job.id])]
        rows = {row.id: row for row in schedules if self._is_changed(row)}
        removed = [schedule_id for schedule_id in self._removed if schedule_id not in self.schedules]
        hints = [(hint, () if ids is None else tuple(ids)) for hint, ids in self._hints.items()]
        made = {at: job_id for at, job_id in self.occurrences.items() if at not in self._found_occurrences}
        return Changes(
            inserted,
            updated,
            rows,
            removed,
            self._changed_uniques(),
            made,
            frozenset(self.keys.turns),
            self._outcomes,
            self._ended,
            hints,
        )

    def _is_changed(self, row: Schedule) -> bool:
        before = self._schedules_before.get(row.id)
        return before is None or SCHEDULE.has_moved(row, before)

    def _changed_uniques(self) -> dict[UniqueKey, Taken | None]:
        before, now = self._found_uniques, self.unique.entries
        changed: dict[UniqueKey, Taken | None] = {
            key: Taken(entry[0].id, entry[1]) for key, entry in now.items() if before.get(key) != entry
        }
        changed.update((key, None) for key in before if key not in now)
        return changed


def _since(row: Schedule) -> int:
    return row.held_up_ns or 0


def worked_out(
    part: Part, needs: Needs, load: Callable[[Needs], Loaded], decide: Callable[[Part, int], T], now: int
) -> T:
    """Return what *decide* answers, after as many rounds of loading as it takes, for an engine whose calls block."""
    part.load(needs, load(needs))
    while True:
        try:
            return part.run(decide, now)
        except Missing as missing:
            part.load(missing.needs, load(missing.needs))
