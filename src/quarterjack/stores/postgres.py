"""The PostgreSQL store: many machines, one database, one job per tick.

What it promises is what `quarterjack.stores.base` asks for. Committed jobs survive
whatever the database survives; the server's clock is the only one. It needs
PostgreSQL 13 or newer and asyncpg (``pip install "quarterjack[postgres]"``).

Its parts: `_postgres_jobs` (the common case, in sets), `_postgres_transact` (all
that takes a decision), `_postgres_views`, `_postgres_registry`, `_postgres_hints`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from quarterjack.clock import Clock
from quarterjack.errors import Conflict, MissingExtra
from quarterjack.model import Fenced, JobIds, JobRecord

try:
    from . import _postgres_schema as schema  # imports the driver
except ModuleNotFoundError as error:
    raise MissingExtra("the PostgreSQL store", "postgres") from error

from ._needs import Changes, Needs
from ._part import Part
from ._postgres_guests import complete_in, put_in
from ._postgres_hints import Hints
from ._postgres_jobs import PostgresJobs
from ._postgres_lease import PostgresLeaseLink
from ._postgres_link import Link
from ._postgres_pool import Connection
from ._postgres_registry import PostgresRegistry
from ._postgres_transact import InTheWay, Transaction
from ._postgres_url import Settings, parse
from ._postgres_views import PostgresViews
from ._rows import Encoding
from ._schema import SchemaStatus
from .base import Hint
from .leases import LeaseLink

__all__ = ["PostgresStore"]

T = TypeVar("T")


class PostgresStore(PostgresJobs, PostgresViews, PostgresRegistry):
    """Keeps everything in a schema of a PostgreSQL database.

    Args:
        settings: Where it is; `from_url` reads them from a URL.
    """

    name: ClassVar[str] = "postgres"
    is_shared: ClassVar[bool] = True
    uses_local_clock: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._link = Link(settings)
        self._hints = Hints(settings, self._ids.process, self._hear)

    @classmethod
    def from_url(cls, url: str) -> PostgresStore:
        """Return the store that *url* names; nothing is connected yet.

        Raises:
            InvalidOption: If the URL, or one of its options, makes no sense.
        """
        return cls(parse(url))

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return self._settings.shown

    # -- life ------------------------------------------------------------------------

    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        """Connect; make or upgrade the schema, unless the URL says ``migrate=off``.

        Raises:
            Conflict: If this object is open; make one store per app.
            StoreError: If there is no server, it refuses us, or its schema is not one we can work with.
        """
        if self._link.is_open:
            raise Conflict(
                "this PostgresStore serves a running app already; make one store per app, on the same schema"
            )
        await super().open(clock, ids, encoding)
        await schema.ensure(self._settings)
        await self._link.open()
        self._hints = Hints(self._settings, ids.process, self._hear)
        self._hints.start()

    async def close(self) -> None:
        """Let go of every connection."""
        await self._hints.close()
        await self._link.close()

    async def migrate(self) -> None:
        """Bring the schema up to this version, under a lock."""
        await schema.upgrade(self._settings)

    async def schema_status(self) -> SchemaStatus:
        """Say how far the schema is, and change nothing."""
        return await schema.status(self._settings)

    async def schema_upgrade(self) -> SchemaStatus:
        """Apply what is pending; return how it was before."""
        return await schema.upgrade(self._settings)

    def schema_sql(self, after: int = 0) -> str:
        """Return the statements of all migrations behind number *after*."""
        return schema.script(self._settings, after)

    def lease_link(self) -> LeaseLink:
        """Return a link with a connection of its own."""
        return PostgresLeaseLink(self._settings, self._link.sql, self._encoding)

    # -- inside a user's transaction --------------------------------------------------

    async def put_in(self, connection: Any, job: JobRecord) -> str:
        """Put a job over a connection of the user's; return its id, or that of who has its unique key."""
        return await put_in(connection, self._settings.quoted_schema, self._encoding, job)

    async def complete_in(self, connection: Any, fence: Fenced, result: Any) -> None:
        """Make a job done over a connection of the user's, if and when that commits."""
        await complete_in(connection, self._settings.quoted_schema, self._encoding, fence, result)

    # -- hints -----------------------------------------------------------------------

    async def wake(self, hint: Hint) -> None:
        """Send a hint to every listener, in other processes too."""
        self._hear(hint)
        self._hints.send(hint)

    def _told(self, changes: Changes) -> None:
        super()._told(changes)
        for hint, ids in changes.hints:
            self._hints.send(hint, ids)
        if changes.ended:
            self._hints.send(Hint.ENDED, changes.ended)

    # -- decisions -------------------------------------------------------------------

    async def _transact(self, needs: Needs, decide: Callable[[Part, int], T]) -> T:
        part = Part(self._ids)
        wanted = needs

        async def work(connection: Connection) -> tuple[T, Changes]:
            nonlocal part
            part = part.fresh()
            return await Transaction[T](connection, self._link.sql, self._encoding, part).run(wanted, decide)

        while True:
            try:
                answer, changes = await self._link.transaction(work, "writing a decision")
            except InTheWay as others:
                wanted |= others.needs
            else:
                self._told(changes)
                return answer
