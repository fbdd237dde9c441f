"""``qj show``: everything about one job."""

from __future__ import annotations

import shlex
from datetime import datetime, tzinfo
from typing import Any, Final

import click

from quarterjack import Command, Job, JobState, Quarterjack, Why
from quarterjack.model import ErrorInfo

from ._client import ask, asked, job_of, store_option
from ._hints import is_job_id
from ._output import for_people, iso, json_option, show_json, zone_option
from ._spans import span
from .jobs import OF_COMMANDS, as_dict, begun, headline, why

__all__ = ["command"]

STAMPS: Final = ("submitted_at", "run_at", "scheduled_at", "started_at", "running_at", "finished_at")
_LABELS: Final = {
    "submitted_at": "submitted",
    "run_at": "due",
    "scheduled_at": "leased",
    "started_at": "handed over",
    "running_at": "running",
    "finished_at": "finished",
}


@click.command("show")
@click.argument("words", nargs=-1, required=True, metavar="[APP] JOB")
@store_option
@zone_option
@json_option
def command(words: tuple[str, ...], url: str | None, zone: tzinfo | None, as_json: bool) -> None:
    """Show one job: its moments, arguments, progress, result or error, and why it waits."""
    found = asked(words, url, least=1, is_app=lambda word: not is_job_id(word), listed_by="qj jobs")

    async def work(app: Quarterjack) -> tuple[Job[Any], Why | None]:
        job = await job_of(app, found.words[0], found.target)
        return job, None if job.state.is_finished else await app.why_waiting(job)

    job, waits = ask(found.target, work)
    if as_json:
        show_json("job", **detailed(job), waits=None if waits is None else waits.words)
        return
    for label, text in lines(job, waits, zone):
        first, *rest = text.splitlines() or [""]
        click.echo(f"{click.style(f'{label:<12}', dim=True)} {first}")
        for line in rest:
            click.echo(f"{'':12} {line}")


def detailed(job: Job[Any]) -> dict[str, Any]:
    """Return a job as ``--json`` shows it alone."""
    by, progress, error = job.submitted_by, job.progress, job.error
    return {
        **as_dict(job),
        "scheduled_at": iso(job.timestamps.scheduled_at),
        "started_at": iso(job.timestamps.started_at),
        "args": list(job.args),
        "kwargs": job.kwargs,
        "metadata": job.metadata,
        "submitted_by": {"process": by.process, "schedule": by.schedule, "parent": by.parent, "text": by.text},
        "progress": None
        if progress is None
        else {"done": progress.done, "total": progress.total, "text": progress.text},
        "checkpoint": job._record.checkpoint,
        "result": _result(job),
        "traceback": None if error is None else error.traceback_text,
    }


def _result(job: Job[Any]) -> Any:
    record = job._record  # the result of a job that has none is told by its error, not raised
    return record.result


def lines(job: Job[Any], waits: Why | None, zone: tzinfo | None) -> list[tuple[str, str]]:
    """Return what people read of a job: labels and texts."""
    found = [("job", job.id), ("task", job.task), ("state", headline(job))]
    if waits is not None and waits.words:
        found.append(("runs" if waits.kind == "running" else "waits", waits.words))
    found += [("call", _call(job)), ("queue", f"{job.queue}, priority {job.priority}")]
    if job.schedule is not None:
        nominal = "" if job.nominal is None else f", for {_moment(job.nominal, zone)}"
        found.append(("schedule", f"{job.schedule}{nominal}"))
    found += _stamps(job, zone)
    found.append(("attempts", _attempts(job)))
    if job.progress is not None:
        of = "" if job.progress.total is None else f" of {job.progress.total:g}"
        found.append(("progress", f"{job.progress.done:g}{of} {job.progress.text}".rstrip()))
    if job._record.checkpoint is not None:
        found.append(("checkpoint", repr(job._record.checkpoint)))
    if job.metadata is not None:
        found.append(("metadata", repr(job.metadata)))
    by = job.submitted_by
    found.append(("asked by", ", ".join(f"{name} {value}" for name, value in by._asdict().items() if value)))
    if job.state is JobState.DONE:
        found += _told_of(_result(job)) if job.error is None else [("result", f"not kept: {job.error.message}")]
    elif job.error is not None:
        found += _told_of_error(job, job.error)
    return found


def _told_of_error(job: Job[Any], error: ErrorInfo) -> list[tuple[str, str]]:
    """Return an error: its traceback, which ends with its words; of a command its words, and what it wrote."""
    text = error.traceback_text.rstrip()
    if error.type_name not in OF_COMMANDS:
        return [("error", text or error.words)]
    return [("error", why(job)), *([("output", text)] if text else [])]


def _told_of(result: Any) -> list[tuple[str, str]]:
    """Return a result; that of a command in its parts."""
    if not isinstance(result, Command):
        return [("result", repr(result))]
    words = result.words if isinstance(result.words, str) else shlex.join(result.words)
    return [
        ("command", words),
        ("exit code", str(result.code)),
        ("output", f"{result.size} bytes" + (f"\n{result.output.rstrip()}" if result.output else "")),
    ]


def _call(job: Job[Any]) -> str:
    words = [*map(repr, job.args), *(f"{name}={value!r}" for name, value in job.kwargs.items())]
    return f"{job.task}({', '.join(words)})"


def _attempts(job: Job[Any]) -> str:
    """Return how often the body began, and how that went."""
    more = [f"{count} {what}" for count, what in ((job.failures, "failed"), (job.rescues, "rescued")) if count]
    return ", ".join([str(begun(job)), *more])


def _stamps(job: Job[Any], zone: tzinfo | None) -> list[tuple[str, str]]:
    """Return the moments of a job, each with how long after the one before it came."""
    found: list[tuple[str, str]] = []
    before: datetime | None = None
    moments = [(name, at) for name in STAMPS if (at := getattr(job.timestamps, name)) is not None]
    for name, at in sorted(moments, key=lambda one: one[1]):
        later = "" if before is None or at <= before else f"  (+{span((at - before).total_seconds())})"
        found.append((_LABELS[name], f"{_moment(at, zone)}{later}"))
        before = at
    return found


def _moment(at: datetime, zone: tzinfo | None) -> str:
    return for_people(at.astimezone(zone))
