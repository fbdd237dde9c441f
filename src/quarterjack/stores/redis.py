"""The Redis store: a Redis or Valkey server that many machines share. Needs ``quarterjack[redis]``.

While its server lives it promises what every store promises; what a failover may
lose is the server's to say (docs/stores/redis.md). The clock is the server's.

Each step that must be atomic is a Lua script (`lua/common.lua` says which keys
there are, `_redis_scripts` how they are run). Jobs on which nothing hangs but
their own row are put, leased, renewed and finished by one script for many. What
hangs together (overlap, unique keys, turns, schedules) is decided in Python, by
the code that all stores share (`_durable`), over what was read, and written if
nothing of that has changed meanwhile (`_redis_rounds`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from secrets import token_hex
from typing import Any, ClassVar, Final, Literal, NamedTuple, Self, TypeVar

from quarterjack.clock import Clock
from quarterjack.errors import Conflict, MissingExtra, StoreError, StoreUnavailable
from quarterjack.model import (
    Fenced,
    Finish,
    JobFilter,
    JobIds,
    JobRecord,
    JobState,
    Schedule,
    WorkerInfo,
)

try:
    from redis.asyncio.connection import ConnectionPool
    from redis.exceptions import ResponseError

    from ._redis_link import Link  # imports hiredis, and nothing else that may be missing
except ImportError as error:
    raise MissingExtra("the Redis store", "redis") from error

from ._durable import DurableStore, Leased
from ._needs import Needs
from ._part import Part
from ._redis_hints import HintLine
from ._redis_leases import RedisLeaseLink, renewed
from ._redis_registry import Registry
from ._redis_rounds import Rounds
from ._redis_rows import paired
from ._redis_scripts import Scripts
from ._redis_server import Address, check_server, checked_prefix, own_options
from ._redis_views import Views
from ._redis_words import claim_words, finish_words, leased, put_words, release_words
from ._rows import Encoding
from ._stamping import stamp
from .base import Acquired, AuditRow, Claim, Hint, JobPage, Renewal, Renewed, StoreStats
from .leases import LeaseLink

__all__ = ["RedisStore"]

T = TypeVar("T")
_LAYOUT: Final = 1
"""Which keys there are, and what they hold; a higher number is a later version's, and behind it, after a space, stands
the oldest one that can live with that (or none but itself can)."""
_COMPLEX: Final = "-"
"""What `finish.lua` says of a job that it leaves to a round."""
_OWN_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {"prefix": str, "timeout": float}


class _Parts(NamedTuple):
    """What an open store asks its server through."""

    scripts: Scripts
    views: Views
    registry: Registry
    rounds: Rounds


class RedisStore(DurableStore):
    """Keeps everything in a Redis or Valkey server (Redis 6.2 or later, any Valkey).

    Args:
        url: ``redis://[user:password@]host:port/db``, ``rediss://`` for TLS, ``valkey://`` or ``unix://``; its
            options are the driver's, such as ``ssl_ca_certs``.
        prefix: What the store's keys begin with; two applications on one server take two.
        timeout: How many seconds a call may take; past it the connection is taken for dead.
        pool: Connections made otherwise, such as ``Sentinel(…).master_for("main").connection_pool``; *url* then
            only names them in errors.

    Raises:
        InvalidOption: If one of them is no such thing.
    """

    name: ClassVar[str] = "redis"
    is_shared: ClassVar[bool] = True
    uses_local_clock: ClassVar[bool] = False

    clock_script: ClassVar[str | None] = None
    """Another reading of the server's clock, for tests: the body of a Lua function that returns microseconds."""

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        prefix: str = "qj",
        timeout: float = 5.0,
        pool: ConnectionPool | None = None,
    ) -> None:
        super().__init__()
        self._root = f"{{{checked_prefix(prefix)}}}:"
        self._timeout_s = timeout
        self._address = Address(url, timeout, pool)
        self.url = self._address.shown
        """How the store is called in errors and views."""
        self._me = token_hex(6)
        self._hints: HintLine | None = None
        self._scripts = self._new_scripts()
        self._is_open = False
        self._parts: _Parts | None = None

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the store that a URL names, such as ``redis://host/0?prefix=shop&timeout=3``.

        Raises:
            InvalidOption: If it names no server, or an option that there is not.
        """
        rest, options = own_options(url, _OWN_OPTIONS)
        return cls(rest, **options)

    def _new_scripts(self) -> Scripts:
        link = Link(self._address.connection, self.url, self._timeout_s)
        return Scripts(link, self._root, self.clock_script)

    # -- life ------------------------------------------------------------------------

    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        """Connect, and see whether jobs can be trusted to the server.

        Raises:
            Conflict: If this object is open; make one store per app.
            StoreError: If the server cannot be reached or used, or its keys are of a newer version.
        """
        if self._is_open:
            raise Conflict("this RedisStore serves a running app already; make one store per app, on the same server")
        await super().open(clock, ids, encoding)
        self._scripts = self._new_scripts()
        self._is_open = True
        try:
            await self._check()
        except BaseException:
            await self.close()
            raise
        rounds = Rounds(self._scripts, self._encoding, self._ids, self._me)
        self._parts = _Parts(self._scripts, Views(self._scripts, self._encoding), Registry(self._scripts), rounds)
        self._hints = HintLine(self._address.connection, f"{self._root}hints", self._me, self._hear, self.url)
        self._hints.start()

    async def _check(self) -> None:
        link = self._scripts.link
        try:
            check_server(await link.call("opening", "INFO"), self.url)
        except ResponseError as error:
            raise link.explain(error, "opening") from error
        layout, _, oldest = (await self._scripts.run("open", (_LAYOUT,))).partition(" ")
        if int(oldest or layout) > _LAYOUT:
            raise StoreError(
                f"{self.url}: the keys {self._root}* are of layout {layout}, and this version of quarterjack knows "
                f"up to {_LAYOUT}; upgrade it, or give the store another prefix"
            )

    async def close(self) -> None:
        """Close the connections; idempotent."""
        hints, self._hints = self._hints, None
        self._is_open, self._parts = False, None
        if hints is not None:
            await hints.stop()
        await self._scripts.link.close()

    async def migrate(self) -> None:
        """Do nothing: there is one layout of keys so far, and `open` looks at it."""

    async def now_ns(self) -> int:
        """Return the server's clock."""
        return int(await self._run("now", ())) * 1_000

    async def _run(self, script: str, words: Sequence[Any]) -> Any:
        return await self._served().scripts.run(script, words)

    def _served(self) -> _Parts:
        if self._parts is None:  # asked for something it would connect anew, and nobody would close that
            raise StoreUnavailable(f"{self.url} is not open")
        return self._parts

    async def _transact(self, needs: Needs, decide: Callable[[Part, int], T]) -> T:
        answer, changes = await self._served().rounds.transact(needs, decide)
        self._told(changes)
        return answer

    # -- hints -----------------------------------------------------------------------

    async def wake(self, hint: Hint) -> None:
        """Send a hint to every listener, in other processes too."""
        self._hear(hint)
        await self._run("tell", (self._me, hint.value, ""))

    def lease_link(self) -> LeaseLink:
        """Return a link with a connection of its own."""
        return RedisLeaseLink(self._new_scripts, self._encoding)

    # -- jobs: one script for many ------------------------------------------------------

    async def jobs_put(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        """Store new jobs, all or none; those with a unique key in a round."""
        if any(job.options.unique is not None for job in jobs):
            return await super().jobs_put(jobs)
        if jobs:
            now_us = int(await self._run("put", (self._me, *put_words(jobs, self._encoding))))
            stamp(jobs, now_us * 1_000)
            self._hear(Hint.JOBS)
        return list(jobs)

    async def _claim(self, claim: Claim) -> Leased:
        return leased(await self._run("claim", claim_words(claim)), self._encoding)

    async def _leased_by(self, owner: str) -> list[Fenced]:
        found = await self._run("held", (owner,))
        return [Fenced(job_id, int(attempt), owner) for job_id, attempt in paired(found).items()]

    async def jobs_release(self, jobs: Iterable[Fenced], *, delay_ns: int = 0, reason: str | None = None) -> None:
        """Give jobs back unrun."""
        fences = list(jobs)
        answers = await self._run("finish", (self._me, *release_words(fences, delay_ns, reason, self._encoding)))
        rest = [fence for fence, answer in zip(fences, answers, strict=True) if answer == _COMPLEX]
        if rest:
            await super().jobs_release(rest, delay_ns=delay_ns, reason=reason)
        self._hear(Hint.JOBS)

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Extend leases."""
        if not renewals:
            return Renewed([], [])
        return await renewed(self._served().scripts, self._encoding, owner, renewals, lease_s)

    async def jobs_finish(self, finishes: Sequence[Finish]) -> list[JobState | None]:
        """Record how attempts ended; what other rows hang on is decided in a round."""
        alone = [finish for finish in finishes if not finish.zombie]
        answers: list[str] = []
        if alone:
            answers = await self._run("finish", (self._me, *finish_words(alone, self._encoding)))
        said = iter(answers)
        states = [_COMPLEX if finish.zombie else next(said) for finish in finishes]
        rest = [finish for finish, state in zip(finishes, states, strict=True) if state == _COMPLEX]
        decided = iter(await super().jobs_finish(rest) if rest else ())
        if "submitted" in answers:
            self._hear(Hint.JOBS)
        return [next(decided) if state == _COMPLEX else _STATES[state] for state in states]

    # -- jobs: views -------------------------------------------------------------------

    async def jobs_get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Return snapshots."""
        return await self._served().views.get(job_ids)

    async def jobs_list(
        self,
        where: JobFilter,
        *,
        limit: int = 100,
        cursor: str | None = None,
        order: Literal["newest", "slowest"] = "newest",
    ) -> JobPage:
        """Return snapshots, newest or slowest first."""
        if order == "newest":
            return await self._served().views.newest(where, limit, cursor)
        return await self._served().views.slowest(where, limit, cursor, await self.now_ns())

    async def jobs_purge(self, older_than: timedelta, limit: int = 10_000, *, keep: int | None = None) -> int:
        """Delete finished jobs that ended longer ago than *older_than*, and those beyond the newest *keep*."""
        return await self._served().views.purge(older_than, limit, keep)

    async def stats(self) -> StoreStats:
        """Return counts for views; the oldest is that of the most urgent jobs, one of each lane."""
        return await self._served().views.stats()

    async def outcomes(self, since_ns: int) -> Mapping[tuple[int, str, JobState], int]:
        """Return how many jobs ended, per minute, task and state; the last 24 hours are kept."""
        return await self._served().views.outcomes(since_ns)

    # -- schedules: views --------------------------------------------------------------

    async def schedules_get(self, schedule_id: str) -> Schedule | None:
        """Return a snapshot, or None."""
        return await self._served().views.schedule(schedule_id)

    async def schedules_list(self) -> list[Schedule]:
        """Return snapshots of all rows, by id."""
        return await self._served().views.schedules()

    async def schedules_due(self, horizon_ns: int, limit: int = 1_000) -> list[Schedule]:
        """Return what is due within the horizon, earliest first."""
        return await self._served().views.due(horizon_ns, limit)

    # -- limits, workers, records ------------------------------------------------------

    async def limit_acquire(
        self, limit: str, holders: Sequence[str], *, maximum: int, ttl_s: float, waiter: str | None = None
    ) -> Acquired:
        """Take slots, as many as are free."""
        return await self._served().registry.acquire(limit, holders, maximum, ttl_s, waiter)

    async def limit_renew(self, limit: str, holders: Sequence[str], ttl_s: float) -> list[str]:
        """Keep slots longer; return those that are gone."""
        return await self._served().registry.renew(limit, holders, ttl_s)

    async def limit_release(self, limit: str, holders: Sequence[str]) -> None:
        """Give slots back."""
        if await self._served().registry.release(limit, holders, self._me):
            self._hear(Hint.LIMITS, (limit,))

    async def limit_take(self, limit: str, n: float, *, rate: float, burst: float) -> float:
        """Take tokens, or return the seconds until they are there."""
        return await self._served().registry.take(limit, n, rate, burst)

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Register or refresh a worker; return the command left for it, once."""
        return await self._served().registry.put_worker(worker)

    async def workers_list(self) -> list[WorkerInfo]:
        """Return the registered workers; who said nothing for a day is forgotten."""
        return await self._served().registry.workers()

    async def workers_remove(self, worker_id: str) -> None:
        """Forget a worker that ended."""
        await self._served().registry.remove_worker(worker_id)

    async def workers_command(self, worker_id: str, command: str) -> bool:
        """Leave a command for a worker."""
        return await self._served().registry.command_worker(worker_id, command)

    async def audit_put(self, rows: Sequence[AuditRow]) -> None:
        """Keep the last 1,000 rows."""
        await self._served().registry.put_audit(rows)

    async def audit_list(self, limit: int = 100) -> list[AuditRow]:
        """Return the newest rows first."""
        return await self._served().registry.audit(limit)


_STATES: Final[dict[str, JobState | None]] = {"": None, **{state.value: state for state in JobState}}
