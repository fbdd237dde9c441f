"""Where an SQLite store lives, from its URL, and whether that is a place where SQLite can keep its promises."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from quarterjack.errors import InvalidOption

__all__ = ["checked_path", "number", "options_of", "path_of", "synchronous_of", "warn_of_network"]

log = logging.getLogger("quarterjack")

_OPTIONS: Final = ("synchronous", "timeout", "poll")
_SYNCHRONOUS: Final = ("full", "normal", "off", "extra")
_MOUNTS: Final = Path("/proc/self/mountinfo")  # Linux
_NETWORK: Final = frozenset({
    "9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs",
})  # fmt: skip


def path_of(url: str) -> str:
    """Return the file that a URL names: ``sqlite:///jobs.db`` is relative, ``sqlite:////var/jobs.db`` absolute.

    Raises:
        InvalidOption: If it names none.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/"):
        raise InvalidOption(
            f"{url!r} does not name a file: write three slashes before a relative path (sqlite:///jobs.db) and "
            "four before an absolute one (sqlite:////var/lib/app/jobs.db)"
        )
    return checked_path(path[1:], url)


def checked_path(path: str, named: str) -> str:
    """Return *path* if it is one of a file that other processes could open too."""
    if not path or path == ":memory:":
        raise InvalidOption(
            f"{named!r} names no file: give one (sqlite:///jobs.db), or leave the store out to keep all in memory"
        )
    return path


def options_of(url: str) -> Mapping[str, Any]:
    """Return the options behind the question mark, as `SQLiteStore` takes them.

    Raises:
        InvalidOption: If there is no such option.
    """
    found: dict[str, Any] = {}
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name not in _OPTIONS:
            close = get_close_matches(name, _OPTIONS, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(_OPTIONS)}"
            raise InvalidOption(f"an SQLite store has no option {name!r}{meant}")
        found[name] = value if name == "synchronous" else number(value, name)
    return found


def number(value: Any, name: str) -> float:
    """Return an option that is a number of seconds."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise InvalidOption(f"{name} of an SQLite store is a number of seconds above 0, got {value!r}")
    return seconds


def synchronous_of(value: str) -> str:
    """Return how thoroughly commits are written, as SQLite calls it."""
    if value.lower() not in _SYNCHRONOUS:
        raise InvalidOption(f"synchronous of an SQLite store is one of {', '.join(_SYNCHRONOUS)}, got {value!r}")
    return value.upper()


def warn_of_network(path: Path, url: str, mounts: Path = _MOUNTS) -> None:
    """Log a warning if the file lies on a network file system, as far as the system tells."""
    kind = _file_system_of(path.absolute(), mounts)
    if kind in _NETWORK:
        log.warning(
            "%s lies on a network file system (%s): its locks do not keep several machines apart, and jobs may be lost "
            "or run twice; keep it on a local disk, or use PostgreSQL",
            url,
            kind,
        )


def _file_system_of(path: Path, mounts: Path) -> str | None:
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found: tuple[int, str | None] = (-1, None)
    for line in lines:  # "36 35 98:0 / /mount/point options - type source options"
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        if path.is_relative_to(point):
            found = max(found, (len(point.parts), after.split()[0]), key=lambda one: one[0])
    return found[1]
