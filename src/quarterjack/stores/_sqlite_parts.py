"""Decisions of the book all stores share, within an SQLite transaction: what they load, and what they write.

The write lock is held from the beginning, so what a decision has seen is what it
changes: nothing has to be verified at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from quarterjack.model import JobRecord, Schedule

from ._book_base import Occurrence
from ._needs import Changes, Loaded, Needs, Taken, UniqueKey
from ._part import Part, worked_out
from ._rows import Encoding
from ._sqlite_engine import Session
from ._sqlite_jobs import settle_lines
from ._sqlite_rows import insert_jobs, load_jobs, load_schedules, put_schedules, save_job_states, sql
from .base import Hint

__all__ = ["decided", "load", "write"]

T = TypeVar("T")


def decided(
    session: Session, encoding: Encoding, ids: Callable[[], str], needs: Needs, decide: Callable[[Part, int], T]
) -> T:
    """Let *decide* decide on what it needs, and write what that changes."""
    part = Part(ids)
    answer = worked_out(part, needs, lambda wanted: load(session, encoding, wanted), decide, session.now_ns)
    write(session, encoding, part.changes())
    return answer


# -- loading -------------------------------------------------------------------------------


def load(session: Session, encoding: Encoding, needs: Needs) -> Loaded:
    """Return what there is of *needs*."""
    uniques = _uniques(session, needs.uniques)
    lines = _lines(session, needs.lines)
    job_ids = {*needs.jobs, *(taken.job_id for taken in uniques.values()), *(i for ids in lines.values() for i in ids)}
    jobs = {job.id: job for job in load_jobs(session, encoding, job_ids)} if job_ids else {}
    return Loaded(
        jobs,
        _schedules(session, encoding, needs.schedules),
        lines,
        uniques,
        _occurrences(session, needs.occurrences),
        _held_up(session, encoding, needs),
    )


def _lines(session: Session, keys: Collection[str]) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {key: [] for key in keys}
    if keys:
        for key, job_id in session.run(sql("lines"), (json.dumps([*keys]),)):
            lines[key].append(job_id)
    return lines


def _schedules(session: Session, encoding: Encoding, schedule_ids: Collection[str]) -> Mapping[str, Schedule]:
    if not schedule_ids:
        return {}
    rows = load_schedules(session, encoding, "id IN (SELECT value FROM json_each(?))", (json.dumps([*schedule_ids]),))
    return {row.id: row for row in rows}


def _held_up(session: Session, encoding: Encoding, needs: Needs) -> Sequence[Schedule]:
    keys, tasks = needs.touched, {task for task, _ in needs.uniques}
    found: list[Schedule] = []
    is_one_of = "IN (SELECT value FROM json_each(?))"
    if keys:
        where = f"held_up_ns IS NOT NULL AND overlap_key {is_one_of}"
        found += load_schedules(session, encoding, where, (json.dumps([*keys]),))
    if tasks:
        where = f"held_up_ns IS NOT NULL AND task {is_one_of}"
        found += load_schedules(session, encoding, where, (json.dumps([*tasks]),))
    return found


def _uniques(session: Session, wanted: Iterable[UniqueKey]) -> dict[UniqueKey, Taken]:
    found: dict[UniqueKey, Taken] = {}
    for unique in wanted:
        row = session.one(sql("unique_holder"), unique)
        if row is not None:
            found[unique] = Taken(*row)
    return found


def _occurrences(session: Session, wanted: Iterable[Occurrence]) -> dict[Occurrence, str]:
    nominals: dict[tuple[str, int], list[int]] = {}
    for schedule_id, generation, nominal in wanted:
        nominals.setdefault((schedule_id, generation), []).append(nominal)
    found: dict[Occurrence, str] = {}
    for of, times in nominals.items():
        for nominal, job_id in session.run(sql("occurrences"), (*of, json.dumps(times))):
            found[(*of, nominal)] = job_id
    return found


# -- writing -------------------------------------------------------------------------------


def write(session: Session, encoding: Encoding, changes: Changes) -> None:
    """Write all of *changes*, and see whose turn it is."""
    if changes.inserted:
        insert_jobs(session, encoding, changes.inserted)
    if changes.updated:
        save_job_states(session, encoding, changes.updated)
    settle_lines(session, {*changes.turns, *_lines_of(changes.inserted), *_lines_of(changes.updated)})
    if changes.schedules:
        put_schedules(session, encoding, changes.schedules.values())
    for schedule_id in changes.removed:
        session.run("DELETE FROM qj_schedules WHERE id = ?", (schedule_id,))
        session.run("DELETE FROM qj_occurrences WHERE schedule_id = ?", (schedule_id,))
    _write_uniques(session, changes.uniques)
    if changes.occurrences:
        rows = [(*at, job_id) for at, job_id in changes.occurrences.items()]
        session.connection.executemany(sql("occurred"), rows)
    if changes.outcomes:
        counts = [(minute, task, state.value, n) for (minute, task, state), n in changes.outcomes.items()]
        session.connection.executemany(sql("count_outcome"), counts)
    if changes.ended:
        session.tell_others(Hint.ENDED, changes.ended)
    for hint, ids in changes.hints:
        session.tell(hint, ids)


def _lines_of(jobs: Iterable[JobRecord]) -> set[str]:
    return {job.overlap_key for job in jobs if job.serial and job.overlap_key is not None}


def _write_uniques(session: Session, uniques: Mapping[UniqueKey, Taken | None]) -> None:
    for (task, key), taken in uniques.items():
        if taken is None:
            session.run("DELETE FROM qj_unique WHERE task = ? AND key = ?", (task, key))
        else:
            session.run(sql("take_unique"), (task, key, *taken))
