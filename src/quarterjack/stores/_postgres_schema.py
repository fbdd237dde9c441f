"""The schema of a PostgreSQL store: how far it is, and bringing it up to date under a lock."""

from __future__ import annotations

from typing import Final

from quarterjack.errors import StoreError

from ._postgres_errors import DRIVER_ERRORS, explained
from ._postgres_pool import Connection, connect
from ._postgres_url import Settings
from ._schema import Migration, SchemaStatus, migrations

__all__ = ["ensure", "known", "script", "status", "upgrade"]

LOCK_KEY: Final = 0x51_4A_5F_44_42
"""Under which those wait for each other who upgrade any schema of a database."""

_KEEPS_OLDEST: Final = 3
"""From this migration on there is a column for the oldest version that can live with one."""
# Not to_regclass: what that has found absent it remembers, also when somebody else has made it meanwhile
_HAS_TABLE: Final = """
    SELECT count(*) = 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = 'migration'
"""


def known(settings: Settings) -> list[Migration]:
    """Return the migrations that this version knows, with the schema's name in them."""
    return [step._replace(sql=step.sql.replace("{schema}", settings.quoted_schema)) for step in migrations("postgres")]


def script(settings: Settings, after: int) -> str:
    """Return all migrations behind number *after* as one script, which keeps the record as `upgrade` does."""
    steps = [step for step in known(settings) if step.number > after]
    start = "" if after else f"CREATE SCHEMA IF NOT EXISTS {settings.quoted_schema};\n\n"
    return start + "\n".join(f"BEGIN;\n{step.sql}\n{_recorded(settings, step)};\nCOMMIT;\n" for step in steps)


def _recorded(settings: Settings, step: Migration) -> str:
    values = {"number": str(step.number), "name": f"'{step.name}'"}
    if step.number >= _KEEPS_OLDEST:
        values["oldest"] = str(step.oldest)
    table = f"{settings.quoted_schema}.migration ({', '.join(values)})"
    return f"INSERT INTO {table} VALUES ({', '.join(values.values())})"  # noqa: S608  # names of ours


async def status(settings: Settings) -> SchemaStatus:
    """Say how far the schema is.

    Raises:
        StoreError: If the server cannot be asked.
    """
    connection = await connect(settings)
    try:
        return await _status(connection, settings)
    except DRIVER_ERRORS as error:
        raise explained(error, settings, "looking at its schema") from error
    finally:
        await connection.close()


async def _status(connection: Connection, settings: Settings) -> SchemaStatus:
    table = f"{settings.quoted_schema}.migration"
    there = await connection.fetchval(_HAS_TABLE, settings.schema)
    current = await connection.fetchval(f"SELECT coalesce(max(number), 0) FROM {table}") if there else 0  # noqa: S608
    steps = known(settings)
    pending = tuple(f"{step.number:04} {step.name}" for step in steps if step.number > current)
    oldest = 0
    if current > steps[-1].number:
        oldest = await connection.fetchval(f"SELECT max(coalesce(oldest, number)) FROM {table}")  # noqa: S608
    return SchemaStatus(settings.shown, current, steps[-1].number, pending, oldest)


async def upgrade(settings: Settings) -> SchemaStatus:
    """Apply what is pending, each migration in a transaction of its own; return how it was before.

    Whoever comes second waits for the first. Cancelling it leaves the schema at the
    last migration that was complete.

    Raises:
        StoreError: If the schema is newer than this version can live with, or the server refuses a step.
    """
    connection = await connect(settings)
    try:
        before = refuse_newer(await _status(connection, settings))
        for step in known(settings) if before.pending else ():
            await _apply(connection, settings, step)
    except DRIVER_ERRORS as error:
        raise explained(error, settings, "upgrading its schema") from error
    else:
        return before
    finally:
        await connection.close()


async def _apply(connection: Connection, settings: Settings, step: Migration) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = 0")  # an index on a large table takes its time
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK_KEY})", timeout=3_600)
        if (await _status(connection, settings)).current >= step.number:  # somebody else was first
            return
        if step.number == 1:
            await _make_schema(connection, settings)
        await connection.execute(step.sql, timeout=3_600)
        await connection.execute(_recorded(settings, step))


async def _make_schema(connection: Connection, settings: Settings) -> None:
    """Make the schema, unless somebody who may has made it for us."""
    there = await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", settings.schema)
    if not there:
        await connection.execute(f"CREATE SCHEMA {settings.quoted_schema}")


def refuse_newer(found: SchemaStatus) -> SchemaStatus:
    """Return *found*, unless it is newer than what this version knows and can live with.

    Raises:
        StoreError: If it is.
    """
    if found.is_too_new:
        raise StoreError(
            f"{found.url}: its schema is at {found.current}, which takes a version of quarterjack that knows "
            f"{found.oldest}, and this version knows {found.known}; upgrade quarterjack here, too"
        )
    return found


async def ensure(settings: Settings) -> None:
    """See to it that the schema is one we can work with.

    Raises:
        StoreError: If it is not, and may not be upgraded (``migrate=off``) or cannot be.
    """
    found = refuse_newer(await status(settings))
    if not found.pending:
        return
    if not settings.migrates:
        state = "has no tables of quarterjack yet" if found.current == 0 else f"is at {found.current}"
        raise StoreError(
            f"{found.url}: its schema {settings.schema!r} {state}, and this version needs {found.known}; "
            f"run `qj db upgrade --store '{found.url}'` (migrate=off in the URL forbids to do it here)"
        )
    await upgrade(settings)
