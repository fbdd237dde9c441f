"""Decisions over a few rows of a Redis store, each in an optimistic round.

One script reads what the decision asks for, all at one moment, with revisions. The
decision is made here, by the code that all stores share (`_part`). One script then
sees whether any of what was read has changed, what was absent included, and writes
all or nothing. Who finds something changed begins again, after a moment that
differs from caller to caller. What asks for more than was read is read again as a
whole: a decision never sees rows of two moments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from random import Random
from typing import Any, Final, NamedTuple, TypeVar, cast

from quarterjack.errors import StoreUnavailable
from quarterjack.model import JobRecord, Schedule

from ._needs import Changes, Loaded, Missing, Needs, Taken
from ._part import Part
from ._redis_hints import SEPARATOR
from ._redis_link import Word
from ._redis_rows import fields, job_row, paired, schedule_row, split_fields
from ._redis_scripts import Scripts
from ._redis_words import is_plain
from ._rows import JOB_STATE_COLUMNS, SCHEDULE_COLUMNS, Encoding
from .base import Hint

__all__ = ["Rounds"]

T = TypeVar("T")
_TRIES: Final = 100
_LONGEST_PAUSE_S: Final = 0.05


class _Read(NamedTuple):
    """What `load.lua` found: the moment, the rows, and how `commit.lua` tells whether they have changed."""

    now_ns: int
    loaded: Loaded
    seen: list[Word]


class Rounds:
    """Makes decisions over what a server keeps.

    Args:
        scripts: The way to the server.
        encoding: Reads and writes rows.
        ids: Names the jobs that schedules make.
        me: Who sends the hints.
    """

    def __init__(self, scripts: Scripts, encoding: Encoding, ids: Callable[[], str], me: str) -> None:
        self._scripts = scripts
        self._encoding = encoding
        self._ids = ids
        self._me = me
        self._rng = Random()  # noqa: S311  # spreads those who met, guards nothing

    async def transact(self, needs: Needs, decide: Callable[[Part, int], T]) -> tuple[T, Changes]:
        """Return what *decide* answers, once its changes are written.

        Raises:
            StoreUnavailable: If others changed the same rows each time.
        """
        part = Part(self._ids)
        for tried in range(_TRIES):
            part, read, answer = await self._decide(part, needs, decide)
            changes = part.changes()
            if changes.is_empty or await self._commit(read, changes):
                return answer, changes
            needs, part = part.needs, part.fresh()
            await asyncio.sleep(self._rng.uniform(0, min(_LONGEST_PAUSE_S, 0.000_5 * 2 ** min(tried, 10))))
        raise StoreUnavailable(
            f"{self._scripts.link.where}: others changed the same rows {_TRIES} times while this call decided over them"
        )

    async def _decide(self, part: Part, needs: Needs, decide: Callable[[Part, int], T]) -> tuple[Part, _Read, T]:
        while True:
            read = await self._read(needs)
            part.load(needs, read.loaded)
            try:
                return part, read, part.run(decide, read.now_ns)
            except Missing as missing:
                needs |= missing.needs
                part = part.fresh()

    # -- reading ---------------------------------------------------------------------

    async def _read(self, needs: Needs) -> _Read:
        keys, lines, uniques = list(needs.keys), list(needs.lines), list(needs.uniques)
        occurrences = list(needs.occurrences)
        made_names = [(schedule_id, _fire_time(rest)) for schedule_id, *rest in occurrences]
        words: list[Word] = []
        for some in (needs.jobs, needs.schedules, keys, lines, chain(*uniques), chain(*made_names)):
            _append(words, some)
        now, job_rows, schedule_rows, held, opened, holders, made = await self._scripts.run("load", words)
        jobs = {row[0]: self._encoding.record(job_row(*row)) for row in job_rows}
        schedules = {row[0]: self._encoding.schedule(schedule_row(row[1])) for row in schedule_rows}
        held_ids = dict.fromkeys(
            cast("Iterator[str]", chain(*held, *(ids for _, ids in opened), *(ids for _, _, ids in holders)))
        )
        loaded = Loaded(
            jobs,
            schedules,
            {key: ids for key, (ids, _) in zip(lines, opened, strict=True)},
            {
                unique: Taken(holder, int(until) if until else None)
                for unique, (holder, until, _) in zip(uniques, holders, strict=True)
                if holder
            },
            {at: job_id for at, job_id in zip(occurrences, made, strict=True) if job_id},
            [schedules[schedule_id] for schedule_id in held_ids],
        )
        seen = _Seen()
        seen.rows("job", needs.jobs, job_rows)
        seen.rows("schedule", needs.schedules, schedule_rows)
        for key, ids in zip(keys, held, strict=True):
            seen.add("held", key, SEPARATOR.join(ids))
        for key, (open_ids, ids) in zip(lines, opened, strict=True):
            seen.add("key", key, SEPARATOR.join(open_ids))
            seen.add("held", key, SEPARATOR.join(ids))
        for unique, (holder, until, ids) in zip(uniques, holders, strict=True):
            seen.add("unique", _two(*unique), f"{holder}{SEPARATOR}{until}")
            seen.add("barred", _two(*unique), SEPARATOR.join(ids))
        for names, job_id in zip(made_names, made, strict=True):
            seen.add("made", _two(*names), job_id)
        return _Read(int(now) * 1_000, loaded, seen.words)

    # -- writing ---------------------------------------------------------------------

    async def _commit(self, read: _Read, changes: Changes) -> bool:
        moves_on = int(bool(changes.updated) and not changes.inserted)
        words: list[Word] = [self._me, moves_on, len(read.seen) // 3, *read.seen]
        words.append(len(changes.inserted) + len(changes.updated))
        for job in changes.inserted:
            words += self._inserted(job)
        for job in changes.updated:
            words += self._updated(job)
        self._write_schedules(words, changes)
        words.append(len(changes.uniques))
        for unique, taken in changes.uniques.items():
            words += (_two(*unique), *_taken(taken))
        words.append(len(changes.occurrences))
        for (schedule_id, *rest), job_id in changes.occurrences.items():
            words += (schedule_id, _fire_time(rest), job_id)
        hints = [(hint.value, ids) for hint, ids in changes.hints if hint is not Hint.FINISHED]
        if changes.ended:
            hints.append((Hint.ENDED.value, tuple(changes.ended)))
        words.append(len(hints))
        for hint, ids in hints:
            words += (hint, SEPARATOR.join(ids))
        return bool(await self._scripts.run("commit", words))

    def _inserted(self, job: JobRecord) -> Iterator[Word]:
        hot, data = split_fields(self._encoding.job_row(job))
        hot[0].extend(_roles(job))
        yield job.id
        yield from _hash(*hot)
        yield from _hash(*data)

    def _updated(self, job: JobRecord) -> Iterator[Word]:
        hot, data = split_fields(self._encoding.job_state(job), JOB_STATE_COLUMNS)
        hot[0].extend(_roles(job))
        yield job.id
        yield from _hash(*hot)
        yield from _hash(*data)

    def _write_schedules(self, words: list[Word], changes: Changes) -> None:
        gone = [schedule_id for schedule_id in changes.removed if schedule_id not in changes.schedules]
        words.append(len(gone) + len(changes.schedules) + len(changes.removed) - len(gone))
        for schedule_id in changes.removed:
            words += (schedule_id, 1, 0, 0)
        for row in changes.schedules.values():
            there, absent = fields(SCHEDULE_COLUMNS, self._encoding.schedule_row(row))
            barred_by = _barred_by(row)
            if barred_by is None:
                absent.append("barred_by")
            else:
                there += ("barred_by", barred_by)
            words += (row.id, 0, *_hash(there, absent))


class _Seen:
    """What was read, as `commit.lua` compares it."""

    def __init__(self) -> None:
        self.words: list[Word] = []

    def add(self, kind: str, name: str, was: str) -> None:
        """Note one thing."""
        self.words += (kind, name, was)

    def rows(self, kind: str, asked: Iterable[str], found: Sequence[Sequence[Any]]) -> None:
        """Note the revisions of rows, and which of those asked for there are not."""
        revisions: Mapping[str, str] = {row[0]: paired(row[1])["rev"] for row in found}
        for name, revision in revisions.items():
            self.add(kind, name, revision)
        for name in asked:
            if name not in revisions:
                self.add(kind, name, "")


def _two(first: str, second: str) -> str:
    """Return a name of two parts, as `common.lua` has it."""
    return f"{len(first.encode())}:{first}{second}"


def _fire_time(rest: Sequence[int]) -> str:
    """Return the name of an occurrence within its schedule: generation and fire time."""
    return f"{rest[0]}:{rest[1]}"


def _append(words: list[Word], more: Iterable[Word]) -> None:
    before = len(words)
    words.append(0)
    words += more
    words[before] = len(words) - before - 1


def _hash(there: Sequence[Word], absent: Sequence[str]) -> Iterator[Word]:
    yield len(there)
    yield from there
    yield len(absent)
    yield from absent


def _roles(job: JobRecord) -> Iterator[Word]:
    """Yield the fields that follow from a job's row, and that scripts decide by."""
    if is_plain(job):
        yield from ("plain", 1)
    if job.serial and job.overlap_key is not None:
        yield from ("turns", 1)
    if job.is_backfill:
        yield from ("late", 1)


def _taken(taken: Taken | None) -> tuple[str, Word]:
    if taken is None:
        return "", ""
    return taken.job_id, "" if taken.until_ns is None else taken.until_ns


def _barred_by(row: Schedule) -> str | None:
    unique = row.payload.options.unique
    return None if unique is None else _two(row.payload.task, unique.key)
