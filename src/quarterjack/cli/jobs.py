"""``qj jobs``, ``qj errors`` and ``qj slowest``: stored jobs, filtered, as a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final, NamedTuple

import click

from quarterjack import FINISHED, Job, JobState, Quarterjack
from quarterjack._durations import parse_duration
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import InvalidOption
from quarterjack.model import JobFilter
from quarterjack.triggers.base import instant_ns

from ._client import asked, look, store_option
from ._hints import nearest
from ._orphans import orphans
from ._output import NOTHING, for_people, iso, json_option, show_json, show_table, tell_notes, zone_option
from ._spans import span
from ._target import Target
from ._times import moment

__all__ = [
    "BAD",
    "OF_COMMANDS",
    "UNFINISHED",
    "as_dict",
    "begun",
    "command",
    "errors",
    "filter_of",
    "filters",
    "headline",
    "matching",
    "no_such_task",
    "since_option",
    "slowest",
    "why",
]

BAD: Final = frozenset({JobState.FAILED, JobState.TIMED_OUT, JobState.LOST})
UNFINISHED: Final = frozenset(JobState) - FINISHED
GROUPS: Final = {
    "open": UNFINISHED,
    "finished": FINISHED,
    "bad": BAD,
}
"""What ``--state`` takes besides the states themselves."""
ENDED: Final = "CommandEnded"
OF_COMMANDS: Final = frozenset({ENDED, "CommandFailed"})
"""Errors of commands, which have output in place of a traceback."""
STYLES: Final = {"job": "bold", "task": "", "state": "", "when": "", "took": "cyan", "attempt": "dim", "reason": ""}


class Bad(NamedTuple):
    """What went wrong: jobs, and what is to be said of those that do not say it themselves, by id."""

    jobs: list[Job[Any]]
    reasons: dict[str, str]


def _states(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> frozenset[JobState] | None:
    found: set[JobState] = set()
    for word in value:
        if word in GROUPS:
            found |= GROUPS[word]
        elif word in {state.value for state in JobState}:
            found.add(JobState(word))
        else:
            known = ", ".join([*GROUPS, *(state.value for state in JobState if state is not JobState.NEW)])
            raise click.BadParameter(f"{word!r} is none; known are {known}", ctx, param)
    return frozenset(found) or None


def since_of(text: str | None) -> datetime | None:
    """Return the moment a text means: a span back from now (``2h``), or ISO 8601 (without an offset: local time).

    Raises:
        Failure: If it is neither.
    """
    if text is None:
        return None
    try:
        return SYSTEM_CLOCK.now() - timedelta(seconds=parse_duration(text))
    except InvalidOption:
        return moment(text, "--since", example="2h")


since_option = click.option("--since", metavar="WHEN", help="Submitted since: a span such as 2h, or an ISO moment.")


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which jobs are meant."""
    for option in (
        since_option,
        click.option("--schedule", metavar="ID", help="Of this schedule."),
        click.option("--queue", metavar="NAME", help="In this queue."),
        click.option("--task", metavar="NAME", help="Of this task."),
        click.option(
            "--state",
            "states",
            multiple=True,
            callback=_states,
            metavar="STATE",
            help="In this state, or: open, finished, bad. May be repeated.",
        ),
    ):
        function = option(function)
    return function


def matching(
    states: Collection[JobState] | None, task: str | None, queue: str | None, schedule: str | None, since: str | None
) -> dict[str, Any]:
    """Return the filter's options as `Quarterjack.jobs` takes them; none of what was not given."""
    given = {"state": states, "task": task, "queue": queue, "schedule": schedule, "since": since_of(since)}
    return {name: value for name, value in given.items() if value is not None}


def filter_of(given: Mapping[str, Any]) -> JobFilter:
    """Return what `matching` has found, as stores take it."""
    since = given.get("since")
    return JobFilter(
        states=given.get("state", frozenset()),
        task=given.get("task"),
        queue=given.get("queue"),
        schedule_id=given.get("schedule"),
        since_ns=None if since is None else instant_ns(since, "since"),
    )


limit_option = click.option(
    "-n", "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many at most."
)
app_argument = click.argument("words", nargs=-1, metavar="[APP]")


@click.command("jobs")
@app_argument
@filters
@click.option("--text", metavar="TEXT", help="With this in id, task or reason.")
@limit_option
@store_option
@zone_option
@json_option
def command(
    words: tuple[str, ...],
    text: str | None,
    limit: int,
    url: str | None,
    zone: tzinfo | None,
    as_json: bool,
    **where: Any,
) -> None:
    """List stored jobs, the newest first.

    \b
        qj jobs shop.py --state open --task emails.send
        qj jobs --store sqlite:///jobs.db --since 2h --state bad
    """
    target = asked(words, url, least=0).target
    found: list[Job[Any]] = look(target, lambda app: app.jobs(**matching(**where), text=text, limit=limit), [])
    show(found, "jobs", zone, as_json)
    if not found:
        tell_notes(no_such_task(target, where["task"]))
    if len(found) == limit and not as_json:
        tell_notes([f"the newest {limit}; there may be more: --limit, or a filter"])


@click.command("errors")
@app_argument
@since_option
@limit_option
@store_option
@zone_option
@json_option
def errors(
    words: tuple[str, ...], since: str | None, limit: int, url: str | None, zone: tzinfo | None, as_json: bool
) -> None:
    """List what went wrong: jobs that failed, timed out or were lost, and those no worker can run."""
    target = asked(words, url, least=0).target

    async def work(app: Quarterjack) -> Bad:
        waiting = await orphans(app, limit)
        failed = await app.jobs(**matching(BAD, None, None, None, since), limit=limit)
        return Bad([*waiting, *failed][:limit], {job.id: reason for job, reason in waiting.items()})

    found, reasons = look(target, work, Bad([], {}))
    show(found, "errors", zone, as_json, reasons)
    if not found and not as_json:
        tell_notes(["nothing went wrong"])


@click.command("slowest")
@app_argument
@limit_option
@store_option
@zone_option
@json_option
def slowest(words: tuple[str, ...], limit: int, url: str | None, zone: tzinfo | None, as_json: bool) -> None:
    """List the jobs whose bodies ran, or have been running, longest."""
    target = asked(words, url, least=0).target
    found: list[Job[Any]] = look(target, lambda app: app.slowest(limit), [])
    show(found, "slowest", zone, as_json)


def no_such_task(target: Target, task: str | None) -> list[str]:
    """Return a word about a task that the app does not know, where no job of it was found."""
    if task is None or target.is_url or task in (known := target.app.tasks()):
        return []
    near = nearest(task, known)
    return [f"{target.name} has no task {task!r}" + (f": did you mean {near!r}?" if near else "")]


def show(
    found: list[Job[Any]], schema: str, zone: tzinfo | None, as_json: bool, reasons: Mapping[str, str] = NOTHING
) -> None:
    """Print jobs as they were asked for; *reasons*, by id, count before what the jobs say themselves."""
    if as_json:
        told = [{**as_dict(job), **({"reason": reasons[job.id]} if job.id in reasons else {})} for job in found]
        show_json(schema, jobs=told)
        return
    if not found:
        return
    why_of = {job.id: reasons.get(job.id) or why(job) for job in found}
    people = [_row(job, zone, why_of[job.id]) for job in found]
    plain = [
        [
            job.id,
            job.task,
            job.state.value,
            iso(_when(job)) or "",
            _seconds(job.duration),
            str(begun(job)),
            why_of[job.id],
        ]
        for job in found
    ]
    show_table(STYLES, people, plain, beneath={"reason": "task", "attempt": "state", "took": "when"})


def _row(job: Job[Any], zone: tzinfo | None, reason: str) -> list[str]:
    when = _when(job)
    return [
        job.id,
        job.task,
        job.state.value,
        "" if when is None else for_people(when.replace(microsecond=0).astimezone(zone)),
        "" if job.duration is None else span(job.duration),
        f"attempt {begun(job)}" if begun(job) > 1 else "",
        _short(reason),
    ]


def _when(job: Job[Any]) -> datetime | None:
    """Return the moment a job's state is about: when it is due, when it began, or when it ended."""
    stamps = job.timestamps
    if job.state is JobState.SUBMITTED:
        return stamps.run_at
    return stamps.finished_at or stamps.running_at or stamps.scheduled_at or stamps.submitted_at


def headline(job: Job[Any]) -> str:
    """Return a job's state, and its reason where that adds to it."""
    state = job.state.value
    return f"{state}: {job.reason}" if job.reason and job.reason != state else state


def begun(job: Job[Any]) -> int:
    """Return how often the body began: the store counts a job that is only leased already."""
    return job.attempt - (job.state in {JobState.SCHEDULED, JobState.STARTED})


def why(job: Job[Any]) -> str:
    """Return what a job has to say of its state, in one line."""
    if job.error is not None and job.error.type_name == ENDED and job.reason:
        return job.reason  # why it was ended says more than that it was
    if job.error is not None and job.state is not JobState.DONE:
        return job.error.words.partition("\n")[0]
    return job.reason or ""


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _seconds(duration: float | None) -> str:
    return "" if duration is None else f"{duration:.6f}"


def as_dict(job: Job[Any]) -> dict[str, Any]:
    """Return a job as ``--json`` shows it in a list."""
    stamps = job.timestamps
    return {
        "id": job.id,
        "task": job.task,
        "state": job.state.value,
        "queue": job.queue,
        "priority": job.priority,
        "schedule": job.schedule,
        "nominal": iso(job.nominal),
        "attempt": job.attempt,
        "failures": job.failures,
        "rescues": job.rescues,
        "submitted_at": iso(stamps.submitted_at),
        "run_at": iso(stamps.run_at),
        "running_at": iso(stamps.running_at),
        "finished_at": iso(stamps.finished_at),
        "duration_s": job.duration,
        "lag_s": job.lag,
        "reason": job.reason,
        "error": None if job.error is None else job.error.words,
    }
