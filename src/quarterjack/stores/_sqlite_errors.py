"""What SQLite says when it cannot, in words that say what to do next.

Every `sqlite3.Error` leaves the store as a `StoreError`. What may pass by itself
(another process holds the file, the disk is full) is a `StoreUnavailable`: the
runtime tries again. What does not (a file that is no database) is told once."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from quarterjack.errors import StoreError, StoreUnavailable

__all__ = ["in_words", "is_busy", "not_opened"]

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_ANSWERS: Final[Mapping[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_BUSY: (
        StoreUnavailable,
        (
            "another program holds its write lock for too long: end what keeps a transaction open on it "
            "(a shell, a backup that copies the file), or give it longer with ?timeout=60"
        ),
    ),
    sqlite3.SQLITE_FULL: (
        StoreUnavailable,
        "the disk is full: make room; nothing was stored, and it goes on by itself when there is some",
    ),
    sqlite3.SQLITE_READONLY: (
        StoreError,
        (
            "it may not be written: give this user the right to write the file and its folder "
            "(SQLite keeps the files …-wal and …-shm beside it)"
        ),
    ),
    sqlite3.SQLITE_NOTADB: (
        StoreError,
        "it is not an SQLite database: name another file, or move this one away if it may go",
    ),
    sqlite3.SQLITE_CORRUPT: (
        StoreError,
        (
            "it is damaged: stop what uses it, keep a copy, and restore a backup or save what can be read "
            'with: sqlite3 FILE ".recover" | sqlite3 NEW'
        ),
    ),
    sqlite3.SQLITE_IOERR: (
        StoreUnavailable,
        (
            "the system could not read or write it: look at the disk (dmesg), and keep the file on a local one; "
            "network file systems do not lock as SQLite needs it"
        ),
    ),
    sqlite3.SQLITE_INTERRUPT: (
        StoreUnavailable,
        (
            "the call took longer than its deadline and was ended; nothing of it was stored: ask for less at once, "
            "or give it longer with ?timeout=60"
        ),
    ),
}
_CANNOT_OPEN: Final = "it cannot be opened: see that the file may be read and written by this user"


def _code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code; None where Python itself raised."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Say whether somebody else holds the lock, so that trying again will do."""
    return _code(error) in _BUSY


def in_words(error: sqlite3.Error, url: str, tried: str) -> StoreError:
    """Return what is raised in the place of *error*."""
    code = _code(error)
    kind, answer = _ANSWERS.get(code if code is not None else -1, (StoreError, ""))
    if code == sqlite3.SQLITE_CANTOPEN:
        kind, answer = StoreUnavailable, _CANNOT_OPEN
    text = f"{tried} on {url}: {error}"
    return kind(f"{text}; {answer}" if answer else text)


def not_opened(error: sqlite3.Error, path: Path, url: str) -> StoreError:
    """Return why the file could not be opened, by what is to be seen from outside."""
    folder = path.parent
    try:
        return _by_its_place(path, folder, url) or in_words(error, url, "cannot open the store")
    except PermissionError:
        return StoreError(
            f"cannot open {url}: this user may not look into {folder}; give it the right, or name another"
        )


def _by_its_place(path: Path, folder: Path, url: str) -> StoreError | None:
    if not folder.exists():
        return StoreError(f"cannot open {url}: the folder {folder} does not exist; make it with: mkdir -p {folder}")
    if not folder.is_dir():
        return StoreError(f"cannot open {url}: {folder} is not a folder; name another file")
    if path.is_dir():
        return StoreError(f"cannot open {url}: {path} is a folder; name a file in it, such as {path / 'jobs.db'}")
    return None
