"""``qj cancel``, ``retry``, ``pause``, ``resume``, ``trigger`` and ``purge``: what operators do to jobs and schedules.

Each action is kept as an audit row. One job or schedule is taken at its word;
what a filter means is counted first, and asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from quarterjack import FINISHED, Job, JobState, Quarterjack
from quarterjack.model import JobFilter

from ._client import (
    ask,
    asked,
    confirm,
    ended,
    jobs_of,
    schedule_id_of,
    store_option,
    yes_option,
)
from ._hints import is_job_id, may_begin_an_id, typed
from ._output import json_option, show_json, tell_notes
from ._shell import EXIT_FAILED, EXIT_USAGE, Failure
from ._target import Target
from ._times import moment, span_of
from .jobs import BAD, UNFINISHED, as_dict, filter_of, filters, headline, matching, no_such_task

__all__ = ["cancel", "pause", "purge", "resume", "retry", "trigger"]


def _is_app(word: str) -> bool:
    return not is_job_id(word)


jobs_argument = click.argument("words", nargs=-1, metavar="[APP] [JOB]...")
schedule_argument = click.argument("words", nargs=-1, required=True, metavar="[APP] SCHEDULE")


def _split(words: tuple[str, ...], url: str | None, where: dict[str, Any], usual: str) -> tuple[Target, list[str]]:
    """Return the app and the ids of jobs; without ids a filter has to say which are meant, such as ``--state`` *usual*.

    Raises:
        Failure: If neither says so, or both do.
    """
    found = asked(words, url, least=0, is_app=_is_app)
    for word in found.words:
        if not may_begin_an_id(word):
            raise Failure(f"{word!r} is no id of a job", f"qj jobs {found.target.words} lists them", EXIT_USAGE)
    if bool(found.words) == bool(where):
        told = "ids and a filter were given: one of them" if where else "neither a job nor a filter was given"
        raise Failure(told, f"{typed('JOB')}, or {typed('--state', usual, '--task', 'NAME')}", EXIT_USAGE)
    return found.target, found.words


def _of_them(
    possible: frozenset[JobState], chosen: Mapping[str, Any], refusal: str, usual: str, words: tuple[str, ...]
) -> frozenset[JobState]:
    """Return which of the *possible* states are meant.

    Raises:
        Failure: If none is, which is a slip: with the *refusal*, and ``--state`` *usual* to try.
    """
    asked: frozenset[JobState] = chosen.get("state") or possible
    if asked & possible:
        return asked & possible
    raise Failure(refusal, f"{typed(*words)} --state {usual}", EXIT_USAGE)


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
    target, ids = _split(words, url, chosen, "open")
    if ids:
        jobs = ask(target, lambda app: _cancelled(app, ids, target, wait))
        _tell_jobs("cancel", jobs, as_json)
        if any(job.state is not JobState.CANCELLED for job in jobs):
            raise click.exceptions.Exit(EXIT_FAILED)
        return
    chosen["state"] = _of_them(UNFINISHED, chosen, "jobs in that state have ended already", "open", words)
    found = ask(target, lambda app: app.store.jobs_count(filter_of(chosen)))
    confirm(f"{_count(found, 'unfinished job')} will be cancelled", found, is_sure=is_sure)

    async def work(app: Quarterjack) -> int:
        done = await app.cancel(**chosen) if found else 0
        await app.note("cancel", _words(chosen), f"{done} jobs")
        return done

    _tell_count("cancel", ask(target, work), "asked to end", as_json)
    if not found:
        tell_notes(no_such_task(target, where["task"]))


async def _cancelled(app: Quarterjack, ids: list[str], target: Target, wait_s: float) -> list[Job[Any]]:
    jobs = await jobs_of(app, ids, target)
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
    target, ids = _split(words, url, chosen, "failed")
    if ids:
        jobs = ask(target, lambda app: _repeated(app, ids, target))
        _tell_jobs("retry", jobs, as_json)
        return
    is_stated = "state" in chosen
    chosen["state"] = _of_them(
        FINISHED, {"state": BAD, **chosen}, "jobs in that state have not ended yet", "failed", words
    )
    found = ask(target, lambda app: app.store.jobs_count(filter_of(chosen)))
    confirm(f"{_count(found, 'finished job')} will run again", found, is_sure=is_sure)

    async def work(app: Quarterjack) -> int:
        done = await app.retry(**chosen) if found else 0
        await app.note("retry", _words(chosen), f"{done} jobs")
        return done

    _tell_count("retry", ask(target, work), "run again", as_json)
    if not found:
        unstated = [] if is_stated else ["without --state those are meant that failed, timed out or were lost"]
        tell_notes([*no_such_task(target, where["task"]), *unstated])


async def _repeated(app: Quarterjack, ids: list[str], target: Target) -> list[Job[Any]]:
    jobs = await jobs_of(app, ids, target)
    for job in jobs:
        if not job.state.is_finished:
            raise Failure(f"job {job.id} is {job.state.value}, not finished", f"qj show {target.words} {job.id}")
    await app.retry(ids=[job.id for job in jobs])
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
    at = None if until is None else moment(until, "--until").astimezone()

    async def work(app: Quarterjack) -> str:
        schedule_id = await schedule_id_of(app, found.words[0], found.target)
        await app.pause(schedule_id, note=note, until=at)
        await app.note("pause", schedule_id, note or "")
        return schedule_id

    schedule_id = ask(found.target, work)
    click.echo(f"{schedule_id} is paused{'' if at is None else f' until {at.isoformat()}'}")


@click.command("resume")
@schedule_argument
@click.option("--catch-up", is_flag=True, help="Make up for what passed meanwhile, as missed= says.")
@store_option
def resume(words: tuple[str, ...], catch_up: bool, url: str | None) -> None:
    """Let a paused schedule fire again."""
    found = asked(words, url, least=1)

    async def work(app: Quarterjack) -> str:
        schedule_id = await schedule_id_of(app, found.words[0], found.target)
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
        schedule_id = await schedule_id_of(app, found.words[0], found.target)
        job = await app.trigger_now(schedule_id)
        await app.note("trigger", schedule_id, job.id)
        return await ended(app, job) if wait else job

    job = ask(found.target, work)
    _tell_jobs("trigger", [job], as_json)
    if wait and job.state is not JobState.DONE:
        raise click.exceptions.Exit(EXIT_FAILED)


@click.command("purge")
@click.argument("words", nargs=-1, metavar="[APP]")
@click.option("--older", required=True, metavar="SPAN", help="Those that ended longer ago, as 30d.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@yes_option
@store_option
@json_option
def purge(words: tuple[str, ...], older: str, dry_run: bool, is_sure: bool, url: str | None, as_json: bool) -> None:
    """Delete finished jobs that ended some time ago."""
    span_s = span_of(older, "--older", "30d")
    target = asked(words, url, least=0).target
    found = ask(target, lambda app: _older(app, span_s))
    if dry_run:
        _tell_count("purge", found, "would be deleted", as_json)
        return
    confirm(f"{_count(found, 'finished job')} will be deleted", found, is_sure=is_sure)

    async def work(app: Quarterjack) -> int:
        done = await app.purge(span_s)
        await app.note("purge", f"older than {older}", f"{done} jobs")
        return done

    _tell_count("purge", ask(target, work), "deleted", as_json)


async def _older(app: Quarterjack, span_s: float) -> int:
    before_ns = (await app.store_now()).timestamp() * 1e9 - span_s * 1e9
    found = 0
    async for row in app.store.jobs_all(JobFilter(states=FINISHED)):
        found += row.finished_at_ns is not None and row.finished_at_ns < before_ns
    return found


def _words(chosen: dict[str, Any]) -> str:
    """Return a filter in words, for the audit row."""
    told = {**chosen, "state": ",".join(sorted(chosen.get("state", ())))}
    return " ".join(f"{name}={value}" for name, value in told.items() if value)


def _tell_jobs(action: str, jobs: list[Job[Any]], as_json: bool) -> None:
    if as_json:
        show_json(action, jobs=[as_dict(job) for job in jobs])
        return
    for job in jobs:
        click.echo(f"{job.id} ({job.task}) is {headline(job)}")


def _tell_count(action: str, count: int, done: str, as_json: bool) -> None:
    if as_json:
        show_json(action, count=count)
    else:
        click.echo(f"{_count(count, 'job')} {done}")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
