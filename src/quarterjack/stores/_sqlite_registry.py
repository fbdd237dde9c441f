"""Who works on the file, what an operator asked of them, who did what; and word between processes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from quarterjack.model import WorkerInfo

from ._sqlite_engine import Session, Told
from .base import AuditRow, Hint

__all__ = [
    "audit_list",
    "audit_put",
    "command",
    "for_others",
    "heard",
    "list_workers",
    "newest",
    "publish",
    "put_worker",
    "remove_worker",
]

_AUDIT_KEPT: Final = 10_000
_HINTS_KEPT: Final = 1_000
"""A process that has missed more is told to look at everything."""
_WORKER: Final = (
    "id, host, pid, role, queues, started_at_ns, seen_at_ns, version, running, zombies, command, halt, parked"
)
_ALL: Final = (Hint.SCHEDULES, Hint.CANCELS, Hint.ENDED, Hint.PAUSED, Hint.LIMITS)


def put_worker(session: Session, worker: WorkerInfo) -> str | None:
    """Register or refresh a worker; return the command that was left for it, until it has heard."""
    row = session.one("SELECT command FROM qj_workers WHERE id = ?", (worker.id,))
    command: str | None = None if row is None or row[0] == worker.command else row[0]
    told = worker._replace(command=command)
    facts = (*told[:4], json.dumps(told.queues), *told[5:-1], json.dumps(told.parked))
    places = ", ".join("?" * len(facts))
    session.run(f"INSERT OR REPLACE INTO qj_workers ({_WORKER}) VALUES ({places})", facts)  # noqa: S608  # names of ours
    return command


def list_workers(session: Session) -> list[WorkerInfo]:
    """Return the registered workers, the oldest first."""
    rows = session.run(f"SELECT {_WORKER} FROM qj_workers ORDER BY started_at_ns, id")  # noqa: S608  # names of ours
    return [
        WorkerInfo._make((*row[:4], tuple(json.loads(row[4])), *row[5:-1], tuple(json.loads(row[-1])))) for row in rows
    ]


def remove_worker(session: Session, worker_id: str) -> None:
    """Forget a worker that ended."""
    session.run("DELETE FROM qj_workers WHERE id = ?", (worker_id,))


def command(session: Session, worker_id: str, word: str) -> bool:
    """Leave a command for a worker; False if there is none of this id."""
    return session.run("UPDATE qj_workers SET command = ? WHERE id = ?", (word, worker_id)).rowcount == 1


def audit_put(session: Session, rows: Sequence[AuditRow]) -> None:
    """Keep rows; the oldest go when there are too many."""
    session.connection.executemany(
        "INSERT INTO qj_audit (at_ns, who, action, subject, note) VALUES (?, ?, ?, ?, ?)", rows
    )
    session.run("DELETE FROM qj_audit WHERE n <= (SELECT max(n) FROM qj_audit) - ?", (_AUDIT_KEPT,))


def audit_list(session: Session, limit: int) -> list[AuditRow]:
    """Return the newest rows first."""
    rows = session.run("SELECT at_ns, who, action, subject, note FROM qj_audit ORDER BY n DESC LIMIT ?", (limit,))
    return [AuditRow(*row) for row in rows]


# -- word between processes ------------------------------------------------------------


def newest(session: Session) -> int:
    """Return the number of the newest hint."""
    (n,) = session.one("SELECT coalesce(max(n), 0) FROM qj_hints")
    return int(n)


def publish(session: Session, hints: Iterable[Told], process: str) -> None:
    """Leave *hints* for the other processes, in the transaction that they are about."""
    rows = [(process, hint.value, json.dumps(list(ids))) for hint, ids in hints]
    session.connection.executemany("INSERT INTO qj_hints (process, hint, ids) VALUES (?, ?, ?)", rows)
    session.run("DELETE FROM qj_hints WHERE n <= (SELECT max(n) FROM qj_hints) - ?", (_HINTS_KEPT,))


def for_others(session: Session) -> list[Told]:
    """Return what other processes are to hear of a transaction, each kind of hint once.

    That there may be jobs is not among it, as any commit of another process says as much; nor what the
    store ended, which stands there as ENDED already.
    """
    found: dict[Hint, list[str] | None] = {}
    for hint, ids in (*session.hints, *session.others):
        if hint is Hint.JOBS or hint is Hint.FINISHED:
            continue
        known = found.setdefault(hint, [])
        if not ids:
            found[hint] = None
        elif known is not None:
            known += ids
    return [(hint, ids or ()) for hint, ids in found.items()]


def heard(connection: sqlite3.Connection, after: int, process: str) -> tuple[int, list[Told]]:
    """Return the number of the newest hint, and what other processes have left since number *after*."""
    rows = connection.execute("SELECT n, process, hint, ids FROM qj_hints WHERE n > ? ORDER BY n", (after,)).fetchall()
    if not rows:
        return after, []
    newest = rows[-1][0]
    if rows[0][0] > after + 1:
        return newest, [(hint, ()) for hint in _ALL]
    return newest, [(Hint(hint), json.loads(ids)) for _, whose, hint, ids in rows if whose != process]
