"""What goes wrong with PostgreSQL, in words that say what to do next.

The driver's errors become `StoreError`, and `StoreUnavailable` where trying again
may help. The address is told without its password."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from quarterjack.errors import Conflict, StoreError, StoreUnavailable

from ._postgres_url import Settings

__all__ = ["DRIVER_ERRORS", "explained", "is_transient", "leaves_sound"]

DRIVER_ERRORS: Final = (
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(OSError, asyncio.TimeoutError, EOFError),
)
"""What a call of the driver raises."""

_TRANSIENT: Final = frozenset({"40001", "40P01"})
"""Serialization failure, deadlock: somebody else was first, and the same transaction may well succeed now."""
_GUARDS: Final = frozenset({"job_serial", "job_occurrence"})
"""Indexes that let one of two through that were at the same thing; the other one finds it done when it looks again."""

_NO_SCHEMA: Final = "its schema {schema!r} is not what this version needs; run `qj db upgrade --store '{url}'`"
_NO_PERMISSION: Final = (
    "the user may not do that; as the owner, GRANT USAGE ON SCHEMA {name} and ALL ON ALL TABLES, SEQUENCES and "
    "FUNCTIONS IN SCHEMA {name} to the user (who makes the schema needs CREATE ON DATABASE)"
)
_KNOWN: Final[dict[str, tuple[type[StoreError], str]]] = {
    "28P01": (StoreError, "the server refuses the password; put user and password into the URL, or set PGPASSWORD"),
    "28000": (
        StoreError,
        "the server refuses this user from here; look at its pg_hba.conf, and at sslmode= in the URL",
    ),
    "3D000": (StoreError, "there is no such database; make it with `createdb`, or mend the name in the URL"),
    "3F000": (StoreError, _NO_SCHEMA),
    "42P01": (StoreError, _NO_SCHEMA),
    "42703": (StoreError, _NO_SCHEMA),
    "42883": (StoreError, _NO_SCHEMA),
    "42501": (StoreError, _NO_PERMISSION),
    "25006": (StoreUnavailable, "it is a read-only replica; a store needs the primary's address"),
    "25P03": (StoreUnavailable, "this process stood still in the middle of a transaction; it is undone"),
    "53300": (StoreUnavailable, "it has no connection left; lower pool= in the URL, or put PgBouncer in front of it"),
    "53100": (StoreUnavailable, "its disk is full"),
    "57014": (StoreUnavailable, "it took longer than {timeout:g} s; set timeout= in the URL if it may"),
    "57P01": (StoreUnavailable, "it is shutting down"),
    "57P02": (StoreUnavailable, "it has crashed"),
    "57P03": (StoreUnavailable, "it is starting up, or shutting down"),
    "26000": (StoreError, "the connection is shared by a pooler such as PgBouncer; add pgbouncer=true to the URL"),
    "42P05": (StoreError, "the connection is shared by a pooler such as PgBouncer; add pgbouncer=true to the URL"),
    "08P01": (StoreError, "the two do not understand each other; behind PgBouncer add pgbouncer=true to the URL"),
}
"""What to do, by PostgreSQL's error code."""


def leaves_sound(error: BaseException) -> bool:
    """Say whether a connection is ready for the next statement after *error*.

    It is where the server has refused a statement; not where the server, or the line to it, is going away.
    """
    return isinstance(error, asyncpg.PostgresError) and not (error.sqlstate or "08").startswith(
        ("08", "25P03", "57P", "58", "XX")
    )


def explained(error: BaseException, settings: Settings, doing: str) -> StoreError:
    """Return what to raise in place of *error*, which came while *doing* something with the server."""
    words = str(error) or type(error).__name__
    code = getattr(error, "sqlstate", None) or ""
    make, advice = _KNOWN.get(code, (None, ""))
    if make is not None:
        advice = advice.format(
            schema=settings.schema, name=settings.quoted_schema, url=settings.shown, timeout=settings.timeout_s
        )
        return make(f"{settings.shown}: {advice} (while {doing}: {words})")
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"{settings.shown}: no answer within {settings.timeout_s:g} s while {doing}")
    if code == "23505":
        return Conflict(f"{settings.shown}: somebody else has written it first (while {doing}: {words})")
    is_closed = isinstance(error, asyncpg.InterfaceError) and "clos" in words  # what else it says is about arguments
    if is_closed or isinstance(error, (OSError, EOFError, asyncpg.InternalClientError)) or code.startswith("08"):
        return StoreUnavailable(
            f"{settings.shown}: no connection while {doing}: {words}; is the server running, and is this its address?"
        )
    return StoreError(f"{settings.shown}: {type(error).__name__} while {doing}: {words}")


def is_transient(error: BaseException) -> bool:
    """Say whether the same transaction may succeed if it is tried again at once."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):  # the schema was upgraded meanwhile
        return True
    return getattr(error, "sqlstate", None) in _TRANSIENT or getattr(error, "constraint_name", None) in _GUARDS
