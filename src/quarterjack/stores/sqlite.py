"""The SQLite store: one file on one machine, for one process or several.

What is answered is on the disk: committed jobs survive ``kill -9``, and with
``synchronous="full"`` (the default) power loss too. The clock is this machine's,
so virtual time works, and delays survive it being set. Other processes on the
same file are heard of within *poll* seconds.

The work is done by `_sqlite_engine`: a thread that writes, many calls to a commit,
and one that reads for views. What a call decides is written once for all durable
stores (`_durable`), what it loads and writes for that is in `_sqlite_parts`; here are
life, hints, and the calls that only SQL is needed for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, Literal, Self, TypeVar

from quarterjack._durations import NS_PER_S
from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.errors import Conflict, StoreUnavailable
from quarterjack.model import Fenced, Finish, JobFilter, JobIds, JobRecord, JobState, Schedule, WorkerInfo

from . import _sqlite_jobs as fast
from . import _sqlite_limits as limits
from . import _sqlite_parts as parts
from . import _sqlite_registry as registry
from . import _sqlite_schema as schema
from . import _sqlite_views as views
from ._durable import DurableStore, Leased, ending, taking_back
from ._needs import Needs
from ._part import Part
from ._rows import Encoding
from ._schema import SchemaStatus, migrations
from ._sqlite_engine import Reader, Session, Settings, Writer
from ._sqlite_keeper import Keeper
from ._sqlite_rows import DUE, load_jobs, load_schedules
from ._sqlite_url import checked_path, number, options_of, path_of, synchronous_of, warn_of_network
from ._stamping import stamp
from .base import Acquired, AuditRow, Claim, Claimed, Hint, JobPage, Renewal, Renewed, StoreStats
from .leases import LeaseLink

__all__ = ["SQLiteStore"]

T = TypeVar("T")
_MINUTE_NS: Final = 60 * NS_PER_S
_RESCUE_ROUNDS: Final = 10
"""What is left then comes with the next claim."""
_PURGED_AT_ONCE: Final = 500
"""Rows deleted in one transaction: others wait for it."""


class SQLiteStore(DurableStore):
    """Keeps everything in one file.

    Args:
        path: The file; it is made if there is none, its folder is not.
        synchronous: ``"full"`` waits for the disk at each commit; ``"normal"`` may lose the last moments
            to a power failure, but not to a crash of the process; ``"off"`` may lose the file to one.
        timeout: How many seconds a call may take, its wait for other processes included.
        poll: How many seconds it may take to hear of another process's commit.

    Raises:
        InvalidOption: If one of them is out of its range.
    """

    name: ClassVar[str] = "sqlite"
    is_shared: ClassVar[bool] = True
    uses_local_clock: ClassVar[bool] = True

    def __init__(
        self, path: str | Path, *, synchronous: str = "full", timeout: float = 30.0, poll: float = 0.05
    ) -> None:
        checked = checked_path(str(path), str(path))
        self.path = Path(checked).expanduser()
        self.url = f"sqlite:///{self.path}"
        """How the store is called in errors and views."""
        self._settings = Settings(
            self.path.absolute(),  # wherever the process goes from here
            self.url,
            synchronous_of(synchronous),
            number(timeout, "timeout"),
            number(poll, "poll"),
        )
        super().__init__()
        self._keeper = Keeper(self.url, self._clock, self._encoding, self._hear)
        self._writer: Writer | None = None
        self._reader: Reader | None = None

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the store that a URL names, such as ``sqlite:///jobs.db?synchronous=normal``.

        Raises:
            InvalidOption: If it names no file, or an option that there is not.
        """
        return cls(path_of(url), **options_of(url))

    # -- life ------------------------------------------------------------------------

    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        """Open the file, and bring its schema up to date.

        Raises:
            Conflict: If this object is open; make one store per app.
            UsageError: If there is no encoding.
            StoreError: If the file cannot be used, or its schema is newer than this version.
        """
        if self._writer is not None:
            raise Conflict("this SQLiteStore serves a running app already; make one store per app, on the same file")
        await super().open(clock, ids, encoding)
        warn_of_network(self.path, self.url)
        self._keeper = Keeper(self.url, clock, self._encoding, self._hear)
        self._writer, self._reader = Writer(self._settings, clock, self._keeper), Reader(self._settings, clock)
        try:
            await self._writer.call(self._keeper.begin)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Do what was asked before, and close the file; idempotent."""
        writer, reader, self._writer, self._reader = self._writer, self._reader, None, None
        try:
            if reader is not None:
                await reader.stop()
        finally:
            if writer is not None:
                await writer.stop()

    async def migrate(self) -> None:
        """Bring the schema up to this version, as `open` does."""
        if self._writer is not None:
            await self._write(lambda session: schema.upgrade(session, self.url))

    async def schema_status(self) -> SchemaStatus:
        """Say how far the schema is, and change nothing; a file that is not there is not made."""
        if not self._settings.path.exists():
            return schema.status(None, self.url)
        return await self._with_file(lambda session: schema.status(session, self.url))

    async def schema_upgrade(self) -> SchemaStatus:
        """Apply what is pending; return how it was before."""
        return await self._with_file(lambda session: schema.upgrade(session, self.url))

    def schema_sql(self, after: int = 0) -> str:
        """Return the statements of all migrations behind number *after*."""
        return "\n".join(step.sql for step in migrations(schema.ENGINE) if step.number > after)

    async def _with_file(self, work: Callable[[Session], T]) -> T:
        if self._writer is not None:
            return await self._write(work)
        keeper = Keeper(self.url, SYSTEM_CLOCK, self._encoding, self._hear)
        writer = Writer(self._settings, SYSTEM_CLOCK, keeper)
        try:
            return await writer.call(work)
        finally:
            await writer.stop()

    async def now_ns(self) -> int:
        """Return the app's wall clock."""
        return self._clock.now_ns()

    def clock_stepped(self, delta_ns: int) -> None:
        """Have the next transaction put things right, now; it sees for itself by how much the clock was set."""
        del delta_ns
        if self._writer is not None:
            self._writer.post(_look_again)

    async def _write(self, work: Callable[[Session], T], *, is_relaxed: bool = False) -> T:
        if self._writer is None:
            raise StoreUnavailable(f"{self.url} is not open")
        return await self._writer.call(work, is_relaxed=is_relaxed)

    async def _read(self, work: Callable[[Session], T]) -> T:
        if self._reader is None:
            raise StoreUnavailable(f"{self.url} is not open")
        return await self._reader.call(work)

    # -- hints -----------------------------------------------------------------------

    async def wake(self, hint: Hint) -> None:
        """Send a hint to every listener, in other processes too."""
        await self._write(lambda session: self._keeper.wake(session, hint))

    def lease_link(self) -> LeaseLink:
        """Return a link over the store's own thread, which users' code cannot block."""
        return _Link(self)

    # -- jobs: in, held, out ---------------------------------------------------------

    async def _transact(self, needs: Needs, decide: Callable[[Part, int], T]) -> T:
        """Let *decide* decide in a transaction; see `DurableStore`."""
        return await self._write(lambda session: self._decided(session, needs, decide))

    def _decided(self, session: Session, needs: Needs, decide: Callable[[Part, int], T]) -> T:
        return parts.decided(session, self._encoding, self._ids, needs, decide)

    async def jobs_put(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        """Store new jobs; see the contract."""
        if any(job.options.unique is not None or job.state is not JobState.NEW for job in jobs):
            return await super().jobs_put(jobs)
        rows = [*map(self._encoding.new_job, jobs)]

        def work(session: Session) -> int:
            fast.put(session, jobs, rows)
            session.tell(Hint.JOBS)
            return session.now_ns

        now = await self._write(work)
        stamp(jobs, now)
        return list(jobs)

    async def _claim(self, claim: Claim) -> Leased:
        """Take back what ran out, lease waiting jobs, and let schedules go on, all in one transaction.

        A claim does not wait for the disk: when power fails, the claimer is gone as well. It does
        where more is said than that: a job is lost, or must not be begun twice.
        """
        try:
            rows, next_run_at = await self._write(partial(self._lease, claim, is_relaxed=True), is_relaxed=True)
        except _WaitForDisk:
            rows, next_run_at = await self._write(partial(self._lease, claim, is_relaxed=False))
        return Leased(Claimed([self._encoding.record(row) for row in rows], next_run_at), has_held_up=False)

    async def _leased_by(self, owner: str) -> list[Fenced]:
        """Ask the writer: a claim that was given up may stand in its line still."""
        return await self._write(lambda session: fast.leased_by(session, owner), is_relaxed=True)

    def _lease(self, claim: Claim, session: Session, *, is_relaxed: bool) -> tuple[list[fast.Row], int | None]:
        fast.promote(session)
        expired = fast.expired(session)
        if expired and is_relaxed:
            raise _WaitForDisk
        self._take_back(session, expired)
        rows = fast.claim(session, claim)
        if is_relaxed and fast.has_only_one_try(rows):
            raise _WaitForDisk
        self._free(session, rows)
        return rows, fast.next_run_at(session, claim.wants)

    def _take_back(self, session: Session, expired: list[str]) -> None:
        """Take back jobs whose lease ran out: their worker is gone."""
        for _ in range(_RESCUE_ROUNDS):
            if not expired:
                return
            self._decided(session, *taking_back(expired))
            expired = fast.expired(session)

    def _free(self, session: Session, rows: Sequence[fast.Row]) -> None:
        """Let the schedules go on that waited for these jobs to begin."""
        keys, uniques = fast.keys_of(rows)
        if (keys or uniques) and fast.are_waited_for(session, keys, uniques):
            self._decided(session, Needs(keys=keys, uniques=uniques), lambda part, now: part.free_chains(now))

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Extend leases; see the contract."""
        is_relaxed = all(renewal.checkpoint is None for renewal in renewals)
        return await self._write(
            lambda session: fast.renew(session, owner, renewals, lease_s, self._encoding), is_relaxed=is_relaxed
        )

    async def jobs_finish(self, finishes: Sequence[Finish]) -> list[JobState | None]:
        """Record how attempts ended; see the contract."""
        ends = [fast.ended(finish, self._encoding) for finish in finishes]
        return await self._write(lambda session: self._finish(session, finishes, ends))

    def _finish(
        self, session: Session, finishes: Sequence[Finish], ends: Sequence[fast.Ended | None]
    ) -> list[JobState | None]:
        """Write the ends of plain jobs, and let the book decide about the others that are held."""
        plain: dict[str, fast.Ended] = {}
        for end in ends:
            if end is not None:
                plain.setdefault(end.job_id, end)  # the first one counts
        done, held = fast.finish(session, list(plain.values()))
        answers: list[JobState | None] = [None] * len(finishes)
        left: list[int] = []
        for index, end in enumerate(ends):
            if end is not None and end.job_id in done and plain[end.job_id] is end:
                answers[index] = JobState(end.state)
            elif end is None or end.job_id in held:
                left.append(index)
        if left:
            decided = self._decided(session, *ending([finishes[i] for i in left]))
            for index, state in zip(left, decided, strict=True):
                answers[index] = state
        return answers

    async def _finished(self, where: JobFilter) -> list[str]:
        return await self._read(lambda session: views.finished_ids(session, where))

    # -- jobs: views -----------------------------------------------------------------

    async def jobs_get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Return the rows; None where there is none."""
        rows = await self._read(lambda session: load_jobs(session, self._encoding, job_ids))
        by_id = {job.id: job for job in rows}
        return [by_id.get(job_id) for job_id in job_ids]

    async def jobs_list(
        self,
        where: JobFilter,
        *,
        limit: int = 100,
        cursor: str | None = None,
        order: Literal["newest", "slowest"] = "newest",
    ) -> JobPage:
        """Return rows, newest or slowest first, a page at a time."""
        view = views.newest if order == "newest" else views.slowest
        rows, following = await self._read(lambda session: view(session, where, limit, cursor))
        return JobPage([self._encoding.record(row) for row in rows], following)

    async def jobs_count(self, where: JobFilter) -> int:
        """Return how many rows are meant."""
        return await self._read(lambda session: views.number(session, where))

    async def jobs_purge(self, older_than: timedelta, limit: int = 10_000, *, keep: int | None = None) -> int:
        """Delete old finished jobs, some at a time, so that others get their turn in between."""
        age_ns, gone = older_than // timedelta(microseconds=1) * 1_000, 0
        surplus = views.NOWHERE if keep is None else await self._read(lambda session: views.beyond(session, keep))
        while gone < limit:
            most = min(_PURGED_AT_ONCE, limit - gone)
            work = partial(views.purge, older_than_ns=age_ns, limit=most, surplus=surplus)
            deleted = await self._write(work, is_relaxed=True)
            gone += deleted
            if deleted < most:
                break
        return gone

    async def stats(self) -> StoreStats:
        """Return counts for views."""
        return await self._read(views.stats)

    async def outcomes(self, since_ns: int) -> Mapping[tuple[int, str, JobState], int]:
        """Return how many jobs ended, per minute, task and state; the last 24 hours are kept."""
        return await self._read(lambda session: views.outcomes(session, since_ns, _MINUTE_NS))

    # -- schedules: views ------------------------------------------------------------

    async def schedules_get(self, schedule_id: str) -> Schedule | None:
        """Return the row, or None."""
        rows = await self._read(lambda session: load_schedules(session, self._encoding, "id = ?", (schedule_id,)))
        return rows[0] if rows else None

    async def schedules_list(self) -> list[Schedule]:
        """Return all rows, by id."""
        return await self._read(lambda session: load_schedules(session, self._encoding))

    async def schedules_due(self, horizon_ns: int, limit: int = 1_000) -> list[Schedule]:
        """Return what is due or falls due within the horizon, earliest first."""
        until = self._clock.now_ns() + horizon_ns
        rows = await self._read(lambda session: load_schedules(session, self._encoding, DUE, (until, limit)))
        return [row for row in rows if row.wake_ns is not None]  # one that is parked here alone has none

    # -- limits, workers, records ----------------------------------------------------

    async def limit_acquire(
        self, limit: str, holders: Sequence[str], *, maximum: int, ttl_s: float, waiter: str | None = None
    ) -> Acquired:
        """Take slots, as many as are free."""
        return await self._write(
            lambda session: limits.acquire(session, limit, holders, maximum, ttl_s, waiter), is_relaxed=True
        )

    async def limit_renew(self, limit: str, holders: Sequence[str], ttl_s: float) -> list[str]:
        """Keep slots longer; return those that are gone."""
        return await self._write(lambda session: limits.renew(session, limit, holders, ttl_s), is_relaxed=True)

    async def limit_release(self, limit: str, holders: Sequence[str]) -> None:
        """Give slots back."""
        await self._write(lambda session: limits.release(session, limit, holders), is_relaxed=True)

    async def limit_take(self, limit: str, n: float, *, rate: float, burst: float) -> float:
        """Take tokens, or say when they are there."""
        return await self._write(lambda session: limits.take(session, limit, n, rate, burst), is_relaxed=True)

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Register or refresh a worker; return the command that was left for it, once."""
        return await self._write(lambda session: registry.put_worker(session, worker), is_relaxed=True)

    async def workers_list(self) -> list[WorkerInfo]:
        """Return the registered workers, the oldest first."""
        return await self._read(registry.list_workers)

    async def workers_remove(self, worker_id: str) -> None:
        """Forget a worker that ended."""
        await self._write(lambda session: registry.remove_worker(session, worker_id), is_relaxed=True)

    async def workers_command(self, worker_id: str, command: str) -> bool:
        """Leave a command for a worker."""
        return await self._write(lambda session: registry.command(session, worker_id, command))

    async def audit_put(self, rows: Sequence[AuditRow]) -> None:
        """Keep rows, the newest ten thousand."""
        await self._write(lambda session: registry.audit_put(session, rows))

    async def audit_list(self, limit: int = 100) -> list[AuditRow]:
        """Return the newest rows first."""
        return await self._read(lambda session: registry.audit_list(session, limit))


class _WaitForDisk(Exception):  # a turn of the call, not an error
    """The call has come to something that a power failure must not undo: do it again, and wait for the disk."""


def _look_again(session: Session) -> None:
    session.tell(Hint.JOBS)
    session.tell(Hint.SCHEDULES)


class _Link(LeaseLink):
    """Calls of another thread's loop: the store's writer answers any loop."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store

    async def open(self) -> None:
        """Do nothing: the store's own thread is there."""

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Renew in the store's thread."""
        return await self._store.jobs_renew(owner, renewals, lease_s)

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Refresh the row in the store's thread."""
        return await self._store.workers_put(worker)

    async def close(self) -> None:
        """Do nothing: the thread is the store's."""
