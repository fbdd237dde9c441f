"""Where a PostgreSQL store lives and how to talk to it, from its URL.

    postgresql://user:password@host:5432/database?schema=quarterjack&pool=8&timeout=10

Options of ours are *schema*, *pool* (connections at most), *timeout* (seconds each
call may take), *pgbouncer* and *poll* (both switches), and *migrate* (off: an old
schema is refused, not upgraded). All others are the driver's, such as *sslmode*."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from quarterjack.errors import InvalidOption

from ._addresses import check_address
from ._urls import refuse_misspelt, without_password

__all__ = ["DEFAULT_SCHEMA", "SERVER_SETTINGS", "Settings", "parse"]

DEFAULT_SCHEMA: Final = "quarterjack"
MAX_NAME_BYTES: Final = 63
"""PostgreSQL cuts longer names off without a word."""

SERVER_SETTINGS: Final = {
    "application_name": "quarterjack",
    "plan_cache_mode": "force_generic_plan",
    # The hot table is small and turns over all the time, so what was counted of it is wrong most of the time:
    # a plan must not depend on that. Every statement of ours has an index to go by.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
"""What each connection of ours is set to, where it is ours alone."""

_TRUE: Final = frozenset({"true", "yes", "on", "1", ""})
_FALSE: Final = frozenset({"false", "no", "off", "0"})


class Settings(NamedTuple):
    """What a URL says.

    Attributes:
        dsn: The URL for the driver, without our options.
        shown: The URL without its password.
        schema: The schema of our tables.
        pool: How many connections the store's pool opens at most.
        timeout_s: The deadline of each call, and of each attempt to connect.
        pgbouncer: Transactions may come over another server connection each: nothing is prepared, nobody listens.
        listens: Hints of other processes come by LISTEN; else all is found by polling.
        migrates: An older schema is upgraded when the store is opened.
    """

    dsn: str
    shown: str
    schema: str = DEFAULT_SCHEMA
    pool: int = 8
    timeout_s: float = 10.0
    pgbouncer: bool = False
    listens: bool = True
    migrates: bool = True

    @property
    def quoted_schema(self) -> str:
        """The schema's name as it stands in SQL."""
        return '"' + self.schema.replace('"', '""') + '"'

    @property
    def channel(self) -> str:
        """The name under which hints are sent."""
        return f"quarterjack:{self.schema}"[:MAX_NAME_BYTES]


def parse(url: str) -> Settings:
    """Return what *url* says.

    Raises:
        InvalidOption: If it is no URL of a PostgreSQL database, or an option has a value that makes no sense.
    """
    check_address(url)
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise InvalidOption(f"the URL of a PostgreSQL store begins with postgresql://, got {parts.scheme}://")
    ours: dict[str, Any] = {}
    others: list[tuple[str, str]] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _OPTIONS:
            field, read = _OPTIONS[name]
            ours[field] = read(name, value)
        else:
            refuse_misspelt(name, _OPTIONS, without_password(url))
            others.append((name, value))
    if ours.get("pgbouncer"):
        ours["listens"] = False
    dsn = urlunsplit(parts._replace(query=urlencode(others)))
    return Settings(dsn, without_password(url), **ours)


def _switch(name: str, value: str) -> bool:
    word = value.lower()
    if word not in _TRUE | _FALSE:
        raise InvalidOption(f"{name}= in the URL of the store must be on or off, got {value!r}")
    return word in _TRUE


def _off_switch(name: str, value: str) -> bool:
    return not _switch(name, value)


def _pool(name: str, value: str) -> int:
    if not value.isdigit() or not 2 <= int(value) <= 1_000:
        raise InvalidOption(f"{name}= in the URL of the store must be a whole number from 2 to 1000, got {value!r}")
    return int(value)


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3_600:
        raise InvalidOption(f"{name}= in the URL of the store must be seconds from 0.1 to 3600, got {value!r}")
    return seconds


def _schema(name: str, value: str) -> str:
    if not re.fullmatch(r"[^\W\d][\w$-]*", value) or len(value.encode()) > MAX_NAME_BYTES or value.startswith("pg_"):
        raise InvalidOption(
            f"{name}= in the URL of the store must be a name of letters, digits, _, $ and -, at most {MAX_NAME_BYTES} "
            f"bytes, which begins with a letter or _ and not with pg_, got {value!r}"
        )
    return value


_OPTIONS: Final[dict[str, tuple[str, Callable[[str, str], Any]]]] = {
    "schema": ("schema", _schema),
    "pool": ("pool", _pool),
    "timeout": ("timeout_s", _seconds),
    "pgbouncer": ("pgbouncer", _switch),
    "poll": ("listens", _off_switch),
    "migrate": ("migrates", _switch),
}
