"""The schema of an SQLite file: what `_schema` lists, applied step by step under the write lock.

Steps only add what the version before can live with, so that its processes go on
working on the same file. A newer schema that asks for more than this version knows is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from quarterjack.errors import StoreError

from ._schema import SchemaStatus, migrations
from ._sqlite_engine import Session

__all__ = ["ENGINE", "current", "status", "upgrade"]

ENGINE: Final = "sqlite"
_OLDEST: Final = (3, 37)  # STRICT tables; RETURNING came with 3.35, UPDATE FROM with 3.33
_KEEPS_OLDEST: Final = 2
"""From this step on there is a column for the oldest version that can live with one."""
_TABLE: Final = "CREATE TABLE IF NOT EXISTS qj_schema (version INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL) STRICT"


def current(session: Session) -> int:
    """Return the number of the newest step that was applied; 0 if there is no schema yet."""
    if session.one("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'qj_schema'") is None:
        return 0
    (version,) = session.one("SELECT coalesce(max(version), 0) FROM qj_schema")
    return int(version)


def status(session: Session | None, url: str) -> SchemaStatus:
    """Say how far the schema is; None stands for a file that is not there."""
    known, found = migrations(ENGINE), 0 if session is None else current(session)
    oldest = 0
    if session is not None and found > known[-1].number:
        (oldest,) = session.one("SELECT max(coalesce(oldest, version)) FROM qj_schema")
    pending = tuple(step.name for step in known if step.number > found)
    return SchemaStatus(url, found, known[-1].number, pending, oldest)


def upgrade(session: Session, url: str) -> SchemaStatus:
    """Apply what is pending; return how it was before.

    Raises:
        StoreError: If the file's schema is newer than this version can live with, or this SQLite is too old.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StoreError(
            f"{url} needs SQLite 3.37 or newer, and this Python has {sqlite3.sqlite_version}: use a newer Python"
        )
    before = status(session, url)
    if before.is_too_new:
        raise StoreError(
            f"{url} has schema {before.current}, which takes a version of quarterjack that knows {before.oldest}, and "
            f"this version knows {before.known}: upgrade quarterjack here too, or name another file"
        )
    if before.pending:
        session.run(_TABLE)
    for step in migrations(ENGINE):
        if step.number > before.current:
            for statement in _statements(step.sql):
                session.run(statement)
            session.run("INSERT INTO qj_schema (version, at_ns) VALUES (?, ?)", (step.number, session.now_ns))
            if step.number >= _KEEPS_OLDEST:
                session.run("UPDATE qj_schema SET oldest = ? WHERE version = ?", (step.oldest, step.number))
    return before


def _statements(sql: str) -> Iterator[str]:
    """Yield the statements of a script one by one: run as a whole it would commit in between."""
    part = ""
    for line in sql.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            yield part
            part = ""
