"""The schema of a database: numbered migrations, and the named queries, both in files.

Migrations stand in ``sql/<engine>/NNNN_what.sql``. A number is given once and its
file never changes again. Each either *expands* (what the version before can live
with, while a deploy is under way, and after it was taken back) or *contracts* (takes
away what no version in use needs). Which it is says its first line: ``-- oldest: 4`` if
versions that know no more than number 4 can live with it; without that line only those
can that know the step. It is stored with the step, for versions that know nothing of it:
a store brings its schema up to the newest one it knows, under a lock, and refuses one
that is newer and asks for more than it knows.

Queries stand in ``sql/<engine>/queries.sql``, each below a line ``-- name: what``; a line ``-- ---…`` is a headline."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple, Protocol, runtime_checkable

__all__ = ["HasSchema", "Migration", "SchemaStatus", "migrations", "queries"]

_HEADLINE: Final = re.compile(r"^-- ---.*$", re.MULTILINE)
_OLDEST: Final = re.compile(r"^-- oldest: *(\d+)")
_NAME: Final = re.compile(r"^-- name: *(\w+)[^\n]*\n", re.MULTILINE)


class Migration(NamedTuple):
    """One step of a schema: its number, its file's name without the number, its statements, and who can live with it.

    A version can whose newest step is *oldest* or a later one.
    """

    number: int
    name: str
    sql: str
    oldest: int


class SchemaStatus(NamedTuple):
    """How far the schema of a store is.

    Attributes:
        url: Where it is, without a password.
        current: The newest migration applied; 0 where there is no schema yet.
        known: The newest one that this version of quarterjack knows.
        pending: The names of those it would apply, in order.
        oldest: The migration that a version must know to work with a schema that is newer than it; 0 where
            it is not.
    """

    url: str
    current: int
    known: int
    pending: tuple[str, ...]
    oldest: int = 0

    @property
    def is_too_new(self) -> bool:
        """True if this version cannot work with it."""
        return self.oldest > self.known


@runtime_checkable
class HasSchema(Protocol):
    """A store whose schema can be looked at and brought up to date, as ``qj db`` does; it need not be open."""

    async def schema_status(self) -> SchemaStatus:
        """Say how far the schema is, and change nothing."""
        ...

    async def schema_upgrade(self) -> SchemaStatus:
        """Apply what is pending, under a lock; return how it was before."""
        ...

    def schema_sql(self, after: int = 0) -> str:
        """Return the statements of all migrations behind number *after*, to be looked at or run by hand."""
        ...


@cache
def migrations(engine: str) -> tuple[Migration, ...]:
    """Return the migrations of an engine, oldest first."""
    found: list[Migration] = []
    for file in files("quarterjack.stores").joinpath("sql", engine).iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        if number.isdigit():
            text = file.read_text(encoding="utf-8")
            oldest = _OLDEST.match(text)
            found.append(Migration(int(number), name, text, int(oldest[1] if oldest else number)))
    return tuple(sorted(found))


@cache
def queries(engine: str) -> dict[str, str]:
    """Return the queries of an engine by their names."""
    text = files("quarterjack.stores").joinpath("sql", engine, "queries.sql").read_text(encoding="utf-8")
    _, *parts = _NAME.split(text)
    return {name: _HEADLINE.sub("", part).strip() for name, part in zip(parts[::2], parts[1::2], strict=True)}
