"""``qj cancel``, ``retry``, ``pause``, ``resume``, ``trigger`` and ``purge``: what operators do to jobs and schedules.

Each action is kept as an audit row. One job or schedule is taken at its word;
what a filter means is counted first, and asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from quarterjack import FINISHED, Job, JobState, Quarterjack
from quarterjack._durations import parse_duration
from quarterjack.errors import InvalidOption, JobError

from ._client import ask, asked, confirm, is_job_id, jobs_of, schedule_id_of, store_option, yes_option
from ._hints import typed
from ._output import json_option, show_json
from ._shell import EXIT_FAILED, EXIT_USAGE, Failure
from .jobs import as_dict, filters, matching

__all__ = ["cancel", "pause", "purge", "resume", "retry", "trigger"]

MOST = 100_000
"""Jobs that one command cancels."""


def _is_app(word: str) -> bool:
    return not is_job_id(word)


jobs_argument = click.argument("words", nargs=-1, metavar="[APP] [JOB]...")
schedule_argument = click.argument("words", nargs=-1, required=True, metavar="[APP] SCHEDULE")


def _split(words: tuple[str, ...], url: str | None, where: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return the app and the ids of jobs; without ids a filter has to say which are meant.

    Raises:
        Failure: If neither says so, or both do.
    """
    found = asked(words, url, least=0, is_app=_is_app)
    for word in found.words:
        if not is_job_id(word):
            raise Failure(f"{word!r} is no id of a job", "qj jobs lists them", EXIT_USAGE)
    if bool(found.words) == bool(where):
        told = "ids and a filter were given: one of them" if where else "neither a job nor a filter was given"
        raise Failure(told, f"{typed('JOB')}, or {typed('--state', 'open', '--task', 'NAME')}", EXIT_USAGE)
    return found.target, found.words


@click.command("cancel")
@jobs_argument
@filters
@yes_option
@click.option(
    "--wait", type=click.FloatRange(0, 3600), default=10.0, show_default=True, help="Seconds to wait for ends."
)
@store_option
@json_option
def cancel(words: tuple[str, ...], is_sure: bool, wait: float, url: str | None, as_json: bool, **where: Any) -> None:
    """Cancel jobs: those of these ids, or all that a filter means.

    A job that waits is cancelled at once; one that runs is asked to end, by the
    worker that has it. Ends with 1 if a job named by its id was not cancelled.
    """
    chosen = matching(**where)
    target, ids = _split(words, url, chosen)
    if ids:
        jobs = ask(target, lambda app: _cancelled(app, ids, wait))
        _tell_jobs("cancel", jobs, as_json)
        if any(job.state is not JobState.CANCELLED for job in jobs):
            raise click.exceptions.Exit(EXIT_FAILED)
        return
    chosen["state"] = (chosen.get("state") or frozenset(JobState)) - FINISHED

    async def count(app: Quarterjack) -> int:
        return len(await app.jobs(**chosen, limit=MOST)) if chosen["state"] else 0

    found = ask(target, count)
    confirm(f"{found} unfinished jobs will be cancelled", found, is_sure=is_sure)

    async def work(app: Quarterjack) -> int:
        done = await app.cancel(**chosen) if found else 0
        await app.note("cancel", _words(chosen), f"{done} jobs")
        return done

    _tell_count("cancel", ask(target, work), "asked to end", as_json)


async def _cancelled(app: Quarterjack, ids: list[str], wait_s: float) -> list[Job[Any]]:
    jobs = await jobs_of(app, ids)
    for job in jobs:
        await job.cancel(wait=wait_s)
        await app.note("cancel", job.id)
    return [await job.refresh() for job in jobs]


@click.command("retry")
@jobs_argument
@filters
@yes_option
@store_option
@json_option
def retry(words: tuple[str, ...], is_sure: bool, url: str | None, as_json: bool, **where: Any) -> None:
    """Run finished jobs again from the start: those of these ids, or all that a filter means.

    Without --state a filter means those that failed, timed out or were lost.
    """
    chosen = matching(**where)
    target, ids = _split(words, url, chosen)
    if ids:
        jobs = ask(target, lambda app: _repeated(app, ids))
        _tell_jobs("retry", jobs, as_json)
        return
    chosen.setdefault("state", frozenset({JobState.FAILED, JobState.TIMED_OUT, JobState.LOST}))
    found = ask(target, lambda app: app.jobs(**chosen, limit=MOST))
    confirm(f"{len(found)} finished jobs will run again", len(found), is_sure=is_sure)

    async def work(app: Quarterjack) -> int:
        done = await app.retry(**chosen) if found else 0
        await app.note("retry", _words(chosen), f"{done} jobs")
        return done

    _tell_count("retry", ask(target, work), "run again", as_json)


async def _repeated(app: Quarterjack, ids: list[str]) -> list[Job[Any]]:
    jobs = await jobs_of(app, ids)
    for job in jobs:
        if not job.state.is_finished:
            raise Failure(f"job {job.id} is {job.state.value}, not finished", f"qj show {job.id}")
    await app.retry(ids=ids)
    for job in jobs:
        await app.note("retry", job.id)
    return [await job.refresh() for job in jobs]


@click.command("pause")
@schedule_argument
@click.option("--note", metavar="TEXT", help="Why, for whoever looks.")
@click.option("--until", metavar="ISO", help="Go on by itself then, as 2027-03-28T02:30+01:00.")
@store_option
def pause(words: tuple[str, ...], note: str | None, until: str | None, url: str | None) -> None:
    """Stop a schedule from firing; its jobs that exist go on."""
    found = asked(words, url, least=1)
    at = None if until is None else _moment(until)

    async def work(app: Quarterjack) -> str:
        schedule_id = await schedule_id_of(app, found.words[0])
        await app.pause(schedule_id, note=note, until=at)
        await app.note("pause", schedule_id, note or "")
        return schedule_id

    schedule_id = ask(found.target, work)
    click.echo(f"{schedule_id} is paused{'' if at is None else f' until {at.isoformat()}'}")


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise Failure(f"--until {text!r} is no ISO moment", "--until 2027-03-28T02:30+01:00", EXIT_USAGE) from None


@click.command("resume")
@schedule_argument
@click.option("--catch-up", is_flag=True, help="Make up for what passed meanwhile, as missed= says.")
@store_option
def resume(words: tuple[str, ...], catch_up: bool, url: str | None) -> None:
    """Let a paused schedule fire again."""
    found = asked(words, url, least=1)

    async def work(app: Quarterjack) -> str:
        schedule_id = await schedule_id_of(app, found.words[0])
        await app.resume(schedule_id, catch_up=catch_up)
        await app.note("resume", schedule_id)
        return schedule_id

    click.echo(f"{ask(found.target, work)} goes on")


@click.command("trigger")
@schedule_argument
@click.option("--wait", is_flag=True, help="Wait for its end; ends with 1 if it fails.")
@store_option
@json_option
def trigger(words: tuple[str, ...], wait: bool, url: str | None, as_json: bool) -> None:
    """Run a schedule once now, beside its fire times."""
    found = asked(words, url, least=1)

    async def work(app: Quarterjack) -> Job[Any]:
        schedule_id = await schedule_id_of(app, found.words[0])
        job = await app.trigger_now(schedule_id)
        await app.note("trigger", schedule_id, job.id)
        return await ended(job) if wait else job

    job = ask(found.target, work)
    _tell_jobs("trigger", [job], as_json)
    if wait and job.state is not JobState.DONE:
        raise click.exceptions.Exit(EXIT_FAILED)


async def ended(job: Job[Any]) -> Job[Any]:
    """Wait for the end of a job, however it ends."""
    try:
        await job
    except JobError:  # its state tells
        pass
    return await job.refresh()


@click.command("purge")
@click.argument("words", nargs=-1, metavar="[APP]")
@click.option("--older", required=True, metavar="SPAN", help="Those that ended longer ago, as 30d.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@yes_option
@store_option
@json_option
def purge(words: tuple[str, ...], older: str, dry_run: bool, is_sure: bool, url: str | None, as_json: bool) -> None:
    """Delete finished jobs that ended some time ago."""
    try:
        span = parse_duration(older, "--older")
    except InvalidOption as error:
        raise Failure(str(error), typed("--older", "30d"), EXIT_USAGE) from None
    target = asked(words, url, least=0).target
    found = ask(target, lambda app: _older(app, span))
    if dry_run:
        _tell_count("purge", found, "would be deleted", as_json)
        return
    confirm(f"{found} finished jobs will be deleted", found, is_sure=is_sure)

    async def work(app: Quarterjack) -> int:
        done = await app.purge(span)
        await app.note("purge", f"older than {older}", f"{done} jobs")
        return done

    _tell_count("purge", ask(target, work), "deleted", as_json)


async def _older(app: Quarterjack, span_s: float) -> int:
    now = app.clock.now()
    jobs = await app.jobs(state=FINISHED, limit=1_000_000)
    ends = [job.timestamps.finished_at for job in jobs]
    return sum((now - at).total_seconds() > span_s for at in ends if at is not None)


def _words(chosen: dict[str, Any]) -> str:
    """Return a filter in words, for the audit row."""
    told = {**chosen, "state": ",".join(sorted(chosen.get("state", ())))}
    return " ".join(f"{name}={value}" for name, value in told.items() if value)


def _tell_jobs(action: str, jobs: list[Job[Any]], as_json: bool) -> None:
    if as_json:
        show_json(action, jobs=[as_dict(job) for job in jobs])
        return
    for job in jobs:
        reason = f": {job.reason}" if job.reason else ""
        click.echo(f"{job.id} ({job.task}) is {job.state.value}{reason}")


def _tell_count(action: str, count: int, done: str, as_json: bool) -> None:
    if as_json:
        show_json(action, count=count)
    else:
        click.echo(f"{count} {'job' if count == 1 else 'jobs'} {done}")
