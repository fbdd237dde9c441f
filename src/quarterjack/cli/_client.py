"""Asking the store of an app that runs elsewhere: as a client of it, which neither fires nor runs.

Which store is meant: that of an app (``module:app``, or what pyproject.toml
names), or the one of ``--store URL``, for which no code is needed."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from quarterjack.errors import JobError, JobGone, StoreError, UnknownSchedule, UsageError

from ._hints import listing, may_begin_an_id, nearest, typed
from ._output import tell_notes
from ._planning import absent_at
from ._shell import EXIT_USAGE, Failure
from ._target import Target, configured, load

if TYPE_CHECKING:
    from quarterjack import Job, Quarterjack

__all__ = [
    "URL_MENDED",
    "Asked",
    "NothingThere",
    "Unreachable",
    "ask",
    "asked",
    "confirm",
    "ended",
    "job_of",
    "jobs_of",
    "look",
    "schedule_id_of",
    "store_option",
    "tell_if_unserved",
    "yes_option",
]

T = TypeVar("T")

_LOOKED_AT: Final = 1_000
"""So many jobs are looked at for one whose id was meant."""
_SILENT_S: Final = 1.0
"""What has not begun by then has a reason worth telling."""
_LATER_S: Final = 6.0
"""After so much longer what was about to go to a cluster is there, or something is wrong."""
URL_MENDED: Final = "the same with the URL mended, or without --store: qj check APP"
"""What to try of a ``--store`` that cannot be read: never another store."""
_NO_OTHER: Final = "give it a store that several processes share, such as Quarterjack('sqlite:///jobs.db')"

store_option = click.option(
    "--store", "url", metavar="URL", help="Ask this store, as sqlite:///jobs.db; no app is needed."
)
yes_option = click.option("--yes", "-y", "is_sure", is_flag=True, help="Do it without asking.")


class Asked(NamedTuple):
    """What the words of a command line mean: an app, and what of it."""

    target: Target
    words: list[str]


def asked(
    words: Sequence[str],
    url: str | None,
    *,
    least: int,
    is_app: Callable[[str], bool] | None = None,
    listed_by: str = "",
) -> Asked:
    """Return the app and the rest of the words.

    Args:
        words: What was typed: an app, perhaps, and at least *least* words about it.
        url: What ``--store`` says; then no word names an app.
        least: How many words are needed beside the app.
        is_app: Whether the first of more words than needed names the app; with None it does if one is more.
        listed_by: The command that lists what the other words may be.

    Raises:
        Failure: If a word is missing, or there is no such app.
    """
    rest = list(words)
    if len(rest) < least:
        usage = click.get_current_context().get_usage().removeprefix("Usage: ")
        raise Failure("a word is missing", usage, EXIT_USAGE)
    if url is not None:
        return Asked(_of_url(url), rest)
    if len(rest) > least and (is_app is None or is_app(rest[0])):
        return Asked(load(rest[0]), rest[1:])
    if least and is_app is not None and is_app(rest[0]) and configured() is None:
        hint = f"{listed_by} {shlex.quote(rest[0])}" if listed_by else typed(rest[0], "…")
        raise Failure(f"{rest[0]} is an app; what of it is meant is missing", hint, EXIT_USAGE)
    return Asked(load(None), rest)


def _of_url(url: str) -> Target:
    from quarterjack import Quarterjack  # noqa: PLC0415  # 100 ms that asking for help does not need

    try:
        return Target(Quarterjack(url), f"--store {url}", is_url=True)
    except UsageError as error:
        raise Failure(str(error), URL_MENDED, EXIT_USAGE) from None


class Unreachable(Failure):
    """The store does not answer."""


class NothingThere(Failure):
    """Nothing was ever stored there: the file, or the tables, do not exist."""


def ask(target: Target, work: Callable[[Quarterjack], Awaitable[T]], *, may_begin: bool = False) -> T:
    """Return what *work* answers, beside the app's store.

    Args:
        target: The app.
        work: What to ask, of the app as a client.
        may_begin: Whether the store is made where there is none yet. Looking makes nothing.

    Raises:
        Unreachable: If the store does not answer.
        NothingThere: If there is none yet.
        Failure: If the store lives in another process, or there is no such job or schedule.
    """
    app = target.app
    if not app.store.is_shared:
        raise Failure(f"the jobs of {target.name} live in the process that runs it ({app.store.name} store)", _NO_OTHER)

    async def there() -> T:
        if not may_begin and (absent := await absent_at(app.store)) is not None:
            raise NothingThere(f"nothing was ever stored in {absent}", _how_to_begin(target))
        async with app.as_client():
            return await work(app)

    try:
        return asyncio.run(there())
    except StoreError as error:
        words = click.get_current_context().params.get("words", ())
        again = f"{typed(*words)}{' --store URL' if target.is_url else ''}"
        raise Unreachable(str(error), f"{again}, once it is mended; qj check {target.words} tells more") from None


def _how_to_begin(target: Target) -> str:
    return "the same with the URL of an app that has run" if target.is_url else f"qj run {target.words}"


def look(target: Target, work: Callable[[Quarterjack], Awaitable[T]], empty: T) -> T:
    """Return what *work* answers; *empty*, with a word about it, of an app that has stored nothing yet.

    Raises:
        Failure: As `ask`; of a store named by its URL also if nothing is there: the URL may be misspelt.
    """
    try:
        return ask(target, work)
    except NothingThere as failure:
        if target.is_url:
            raise
        tell_notes([f"{failure.message}: {failure.hint} starts a process"])
        return empty


# -- what is meant of it -------------------------------------------------------------


async def job_of(app: Quarterjack, job_id: str, target: Target) -> Job[Any]:
    """Return a job; it may be named by the beginning of its id, if that is unique.

    Raises:
        Failure: If there is none, or there are several.
    """
    try:
        return await app.job(job_id)
    except JobGone:
        pass
    begun = []
    if may_begin_an_id(job_id):
        found = await app.jobs(text=job_id, limit=_LOOKED_AT)
        begun = [job for job in found if job.id.startswith(job_id)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        told = f"{len(begun)} jobs begin with {job_id}: {listing([job.id for job in begun])}"
        raise Failure(told, f"qj show {target.words} {begun[0].id}")
    near = nearest(job_id, [job.id for job in await app.jobs(limit=_LOOKED_AT)])
    hint = f"qj show {target.words} {near}" if near else f"qj jobs {target.words}"
    raise Failure(f"no job {job_id}: it was purged, or never was", hint)


async def jobs_of(app: Quarterjack, job_ids: Sequence[str], target: Target) -> list[Job[Any]]:
    """Return the jobs of these ids, in order."""
    return [await job_of(app, job_id, target) for job_id in job_ids]


async def schedule_id_of(app: Quarterjack, schedule_id: str, target: Target) -> str:
    """Return the id of a schedule in the store, given its id or what stands behind its last dot.

    Raises:
        Failure: If there is none.
    """
    known = [view.id for view in await app.schedules()]
    if schedule_id in known:
        return schedule_id
    near = nearest(schedule_id, known)
    if near is not None and near.rpartition(".")[2] == schedule_id:
        return near
    if schedule_id in (declared := [row.id for row in app.declared_schedules()]):
        told = f"the schedule {schedule_id!r} is not in the store yet: it comes there when the app first runs"
        raise Failure(told, f"qj run {target.words}") from UnknownSchedule(schedule_id)
    near = near or nearest(schedule_id, declared)
    if schedule_id in app.tasks():
        told = f"{schedule_id!r} is a task without a schedule of that id; a job of it is run by submit"
        raise Failure(told, f"qj submit {target.words} {schedule_id}", EXIT_USAGE) from UnknownSchedule(schedule_id)
    raise Failure(
        f"no schedule {schedule_id!r} in the store{'' if known else ', which has none'}",
        f"{typed()} {target.words} {near}" if near else f"qj ls {target.words}",
        EXIT_USAGE,
    ) from UnknownSchedule(schedule_id)


async def ended(app: Quarterjack, job: Job[Any]) -> Job[Any]:
    """Wait for the end of a job, however it ends; say why it has not begun, and later if that has changed."""
    end = asyncio.ensure_future(_end(job))
    told = ""
    for seconds in (_SILENT_S, _LATER_S):
        done, _ = await asyncio.wait({end}, timeout=seconds)
        why = None if done else await app.why_waiting(job)
        if why is None or why.kind in {"running", "finished"}:
            break
        if why.kind != told:
            tell_notes([f"{job.id} waits: {why.words}"])
            told = why.kind
    await end
    return await job.refresh()


async def tell_if_unserved(app: Quarterjack, job: Job[Any]) -> None:
    """Say that nobody at work would take a job, if that is so: its queue may be misspelt."""
    why = await app.why_waiting(job)
    if why.kind in {"unserved", "task_parked"}:
        tell_notes([f"{job.id} waits: {why.words}"])


async def _end(job: Job[Any]) -> None:
    try:
        await job
    except JobError:  # its state tells
        pass


def confirm(what: str, count: int, *, is_sure: bool) -> None:
    """Ask before many are changed; a pipe cannot answer, and has to say --yes.

    Raises:
        Failure: If it is a pipe.
        click.Abort: If the answer is no.
    """
    if is_sure or not count:
        return
    if not sys.stdin.isatty():
        raise Failure(f"{what}: nobody is there to say whether it is meant", "the same with --yes", EXIT_USAGE)
    click.confirm(f"{what}. Go on?", abort=True, err=True)
