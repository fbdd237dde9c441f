"""Asking the store of an app that runs elsewhere: as a client of it, which neither fires nor runs.

Which store is meant: that of an app (``module:app``, or what pyproject.toml
names), or the one of ``--store URL``, for which no code is needed."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from quarterjack.errors import JobGone, StoreError, UnknownSchedule

from ._hints import nearest, typed
from ._shell import EXIT_USAGE, Failure
from ._target import Target, configured, load

if TYPE_CHECKING:
    from quarterjack import Job, Quarterjack

__all__ = ["Asked", "ask", "asked", "confirm", "job_of", "jobs_of", "schedule_id_of", "store_option", "yes_option"]

T = TypeVar("T")

_JOB: Final = re.compile(r"[0-9a-z]{8}-[0-9a-f]+")
_NO_OTHER: Final = "give it a store that several processes share, such as Quarterjack('sqlite:///jobs.db')"

store_option = click.option(
    "--store", "url", metavar="URL", help="Ask this store, as sqlite:///jobs.db; no app is needed."
)
yes_option = click.option("--yes", "-y", "is_sure", is_flag=True, help="Do it without asking.")


class Asked(NamedTuple):
    """What the words of a command line mean: an app, and what of it."""

    target: Target
    words: list[str]


def asked(words: Sequence[str], url: str | None, *, least: int, is_app: Callable[[str], bool] | None = None) -> Asked:
    """Return the app and the rest of the words.

    Args:
        words: What was typed: an app, perhaps, and at least *least* words about it.
        url: What ``--store`` says; then no word names an app.
        least: How many words are needed beside the app.
        is_app: Whether the first of more words than needed names the app; with None it does if one is more.

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
        raise Failure(f"{rest[0]} is an app; what of it is meant is missing", typed(rest[0], "…"), EXIT_USAGE)
    return Asked(load(None), rest)


def _of_url(url: str) -> Target:
    from quarterjack import Quarterjack  # noqa: PLC0415  # 100 ms that asking for help does not need

    return Target(Quarterjack(url), f"--store {url}")


def ask(target: Target, work: Callable[[Quarterjack], Awaitable[T]]) -> T:
    """Return what *work* answers, beside the app's store.

    Raises:
        Failure: If the store lives in another process, or cannot be reached, or there is no such job or schedule.
    """
    app = target.app
    if not app.store.is_shared:
        raise Failure(f"the jobs of {target.name} live in the process that runs it ({app.store.name} store)", _NO_OTHER)

    async def there() -> T:
        async with app.as_client():
            return await work(app)

    try:
        return asyncio.run(there())
    except StoreError as error:
        raise Failure(str(error), f"{typed()} once it is mended; qj check tells more") from None


# -- what is meant of it -------------------------------------------------------------


def is_job_id(word: str) -> bool:
    """Say whether a word has the form of a job's id."""
    return _JOB.fullmatch(word) is not None


async def job_of(app: Quarterjack, job_id: str) -> Job[Any]:
    """Return a job; it may be named by the beginning of its id's counter part, if that is unique.

    Raises:
        Failure: If there is none.
    """
    try:
        return await app.job(job_id)
    except JobGone:
        near = nearest(job_id, [job.id for job in await app.jobs(limit=1_000)])
        told = f"no job {job_id}: it was purged, or never was"
        raise Failure(told, f"qj show {near}" if near else "qj jobs") from None


async def jobs_of(app: Quarterjack, job_ids: Sequence[str]) -> list[Job[Any]]:
    """Return the jobs of these ids, in order."""
    return [await job_of(app, job_id) for job_id in job_ids]


async def schedule_id_of(app: Quarterjack, schedule_id: str) -> str:
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
    raise Failure(
        f"no schedule {schedule_id!r} in the store{'' if known else ', which has none'}",
        typed(near) if near else "qj ls",
    ) from UnknownSchedule(schedule_id)


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
