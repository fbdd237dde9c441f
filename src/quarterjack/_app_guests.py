"""The app inside a user's own database transaction: jobs that are there if it commits, effects that happen once."""

from __future__ import annotations

from typing import Any, ParamSpec, Protocol, TypeVar, overload, runtime_checkable

from ._app_jobs import AppJobs
from .context import CURRENT
from .errors import NoCurrentJob, UsageError
from .job import Job
from .model import NO_OPTIONS, Fenced, JobRecord, JobState
from .runtime.run import Attempt
from .stores import Store
from .task import Call, Task

__all__ = ["AppGuests"]

P = ParamSpec("P")
T = TypeVar("T")


@runtime_checkable
class Hosts(Protocol):
    """A store that can work inside a transaction of a user's."""

    async def put_in(self, connection: Any, job: JobRecord) -> str: ...
    async def complete_in(self, connection: Any, fence: Fenced, result: Any) -> None: ...


class AppGuests(AppJobs):
    """Submitting and completing in a transaction that is somebody else's."""

    @overload
    async def submit_in(self, connection: Any, call: Call[T], /) -> Job[T]: ...
    @overload
    async def submit_in(self, connection: Any, task: Task[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Job[T]: ...
    async def submit_in(self, connection: Any, task: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Store one job in your own PostgreSQL transaction: it is there if and when that commits.

        *connection* is asyncpg's, psycopg's ``AsyncConnection``, or SQLAlchemy's
        ``AsyncConnection`` or ``AsyncSession``, to the database of the app's store. Await the
        handle after the commit, not before. Workers find the job within a second;
        ``await app.wake()`` after the commit has them look at once. A ``unique`` key is
        locked until your transaction ends. ``on_submit`` callbacks are not called, as
        nobody here learns of the commit; nor do bounds of its flow count it.

        Raises:
            NotRunning: If the app is not running.
            UsageError: If the store is no PostgreSQL store, or the connection none of these.
            UniqueConflict: If its key is taken, and it asked for that.
            InvalidArguments: If the arguments do not fit the task.
        """
        service = self._running()
        store = _host(service.store, "submit_in")
        record = self._record(service, task, args, kwargs)
        job_id = await store.put_in(connection, record)
        if job_id == record.id:
            return Job(record, service)
        (row,) = await service.store.jobs_get([job_id])
        return Job(row or _unseen(job_id, record), service, True)

    async def complete_in(self, connection: Any, result: Any = None) -> None:
        """Commit what this job's body did and that it is done in one transaction, so that it happens exactly once.

        Call it last in a transaction of your own, inside the body; *result* is the job's.
        If the transaction commits the job is done, whatever becomes of this process; if
        it rolls back nothing happened, and the job is tried again as any other.

        Raises:
            NoCurrentJob: Outside a body.
            LeaseLost: If another worker has the job by now: let the error roll your transaction back.
            UsageError: If the store is no PostgreSQL store, the connection is none of
                `submit_in`'s, or the result cannot be written as JSON.
        """
        store = _host(self._running().store, "complete_in")
        attempt = CURRENT.get()
        if attempt is None:
            raise NoCurrentJob
        if isinstance(attempt, Attempt):
            attempt.completes = True
        await store.complete_in(connection, attempt.record.fence._replace(attempt=attempt.number), result)


def _host(store: Store, what: str) -> Hosts:
    if isinstance(store, Hosts):
        return store
    raise UsageError(
        f"{what} needs a PostgreSQL store, whose rows your transaction can write; this app's is {store.name}"
    )


def _unseen(job_id: str, like: JobRecord) -> JobRecord:
    """Return a row for a job that another transaction, not committed yet, has put."""
    row = JobRecord(job_id, like.task, (), {}, NO_OPTIONS)
    row.state = JobState.SUBMITTED
    return row
