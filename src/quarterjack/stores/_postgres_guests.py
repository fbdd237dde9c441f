"""Inside a user's own PostgreSQL transaction: jobs that are there if it commits, and effects that happen once.

The connection is the user's, of asyncpg, psycopg or SQLAlchemy; ours is one
SELECT of a function with texts and numbers for arguments, which all of them can do.
Nothing here begins, commits or rolls back."""

from __future__ import annotations

from base64 import b64encode
from datetime import timedelta
from importlib import import_module
from typing import Any, Final

from pydantic_core import from_json, to_json

from quarterjack.errors import LeaseLost, UniqueConflict, UsageError
from quarterjack.model import Fenced, JobRecord

from ._rows import JOB_COLUMNS, Encoding
from ._stamping import stamp

__all__ = ["complete_in", "put_in"]

_PLACEHOLDERS: Final = {"asyncpg": "${}", "psycopg": "%s", "sqlalchemy": ":p{}"}
_NAMES: Final = tuple(column.name for column in JOB_COLUMNS)
_MICROSECOND: Final = timedelta(microseconds=1)


async def _ask(connection: Any, function: str, *arguments: Any) -> Any:
    """Return what a function of ours answers over a connection of the user's.

    Raises:
        UsageError: If it is no connection of a driver we know.
    """
    driver = type(connection).__module__.partition(".")[0]
    form = _PLACEHOLDERS.get(driver)
    if form is None or not hasattr(connection, "execute"):
        raise UsageError(
            "this takes the connection of your transaction: asyncpg's, psycopg's AsyncConnection, or SQLAlchemy's "
            f"AsyncConnection or AsyncSession on PostgreSQL; got {connection!r}"
        )
    places = ", ".join(form.format(n) for n in range(1, len(arguments) + 1))
    sql = f"SELECT {function}({places})"
    if driver == "asyncpg":
        return await connection.fetchval(sql, *arguments)
    if driver == "psycopg":
        cursor = await connection.execute(sql, arguments)
        row = await cursor.fetchone()
    else:
        text = import_module("sqlalchemy").text(sql)
        row = (await connection.execute(text, {f"p{n}": value for n, value in enumerate(arguments, 1)})).fetchone()
    return row[0]


async def put_in(connection: Any, schema: str, encoding: Encoding, job: JobRecord) -> str:
    """Put *job* in the transaction of *connection*; return its id, or that of the job that has its unique key.

    Raises:
        UniqueConflict: If the key is taken and the job asked for that.
        UsageError: If its key is to replace another job: that needs a transaction of the store's own.
    """
    unique = job.options.unique
    if unique is not None and unique.on_conflict == "replace":
        raise UsageError(
            f"job {job.task}: on_conflict='replace' may end another job, which your transaction cannot take back; "
            "use 'return' or 'raise', or submit it after the commit"
        )
    row = dict(zip(_NAMES, encoding.job_row(job), strict=True))
    call = row["call"]
    if isinstance(call, bytes):
        row["call"] = b64encode(call).decode()
    row |= {"result": None, "error": None, "progress": None, "checkpoint": None}
    row |= {"run_at_ns": job.options.run_at_ns, "delay_ns": job.options.delay_ns}
    if unique is not None and isinstance(unique.scope, timedelta):
        row["unique_ns"] = unique.scope // _MICROSECOND * 1_000
    answer: dict[str, Any] = from_json(await _ask(connection, f"{schema}.put_job", to_json(row).decode()))
    job_id: str = answer["id"]
    if job_id == job.id:
        stamp((job,), answer["at"])
    elif unique is not None and unique.on_conflict == "raise":
        raise UniqueConflict(unique.key, job_id)
    return job_id


async def complete_in(connection: Any, schema: str, encoding: Encoding, fence: Fenced, result: Any) -> None:
    """Make the job that *fence* holds done with *result*, if and when the transaction of *connection* commits.

    Raises:
        LeaseLost: If the lease has moved on; roll back.
        UsageError: If the result cannot be kept.
    """
    data, problem = encoding.payloads.result(result)
    if problem is not None:
        raise UsageError(problem.message)
    text = None if data is None else b64encode(data).decode()
    if not await _ask(connection, f"{schema}.complete_job", *fence, text):
        raise LeaseLost(fence.job_id, None)
