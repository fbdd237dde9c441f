"""``qj check``: whether an app, its store and its workers are in order, for people, monitors and CI."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import click

from quarterjack import Job, JobState, Quarterjack
from quarterjack._at_work import NOBODY, at_work, is_lost, serving
from quarterjack.errors import QuarterjackError
from quarterjack.model import WorkerInfo
from quarterjack.stores.base import StoreStats

from ._client import NothingThere, Unreachable, ask, asked, store_option
from ._hints import listing
from ._orphans import orphans
from ._output import json_option, show_json
from ._spans import in_words
from ._target import Target
from .jobs import BAD

__all__ = ["Finding", "command", "of_waiting", "of_workers"]

State = Literal["ok", "degraded", "down"]
CODES: Final[dict[State, int]] = {"ok": 0, "degraded": 1, "down": 2}
_MARKS: Final[dict[State, tuple[str, str]]] = {
    "ok": ("ok", "green"),
    "degraded": ("!!", "yellow"),
    "down": ("XX", "red"),
}
LATE_S: Final = 60.0
"""Due work that has waited for so long waits for somebody who does not come."""
SKEW_S: Final = 1.0


class Finding(NamedTuple):
    """One thing that was looked at."""

    state: State
    what: str
    words: str


_NOBODY: Final = Finding("degraded", "workers", NOBODY)
_ORPHANS: Final = 20
"""So many jobs are looked at for the tasks to be named."""
_HANDED: Final = 1_000
"""So many of the jobs that were handed to clusters are looked at."""
_ASKED: Final = 20
"""Of so many of them, the oldest, it is asked whether they wait there; some clusters do not tell when a body begins."""


@click.command("check")
@click.argument("words", nargs=-1, metavar="[APP]")
@store_option
@json_option
def command(words: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Say whether all is in order: tasks, schedules, store, clock, workers, errors.

    \b
    Ends with
      0  all is in order
      1  degraded: work goes on, but somebody should look
      2  down: the app cannot be loaded, or its store does not answer
    """
    target = asked(words, url, least=0).target
    findings = [_tasks(target)] if url is None else []
    if target.app.store.is_shared:
        try:
            findings += ask(target, lambda app: _look(app, target))
        except NothingThere as failure:
            findings += [Finding("down" if target.is_url else "ok", "store", failure.message), _NOBODY]
        except Unreachable as failure:
            findings.append(Finding("down", "store", failure.message))
    else:
        findings.append(Finding("ok", "store", f"{target.app.store.name}: it lives in the process that runs the app"))
    worst = _worst(findings)
    if as_json:
        show_json("check", state=worst, findings=[finding._asdict() for finding in findings])
    else:
        for state, what, told in findings:
            mark, colour = _MARKS[state]
            click.echo(f"{click.style(mark, fg=colour)} {what:<10} {told}")
    raise click.exceptions.Exit(CODES[worst])


def _worst(findings: list[Finding]) -> State:
    worst: State = "ok"
    for finding in findings:
        worst = finding.state if CODES[finding.state] > CODES[worst] else worst
    return worst


def _tasks(target: Target) -> Finding:
    try:
        tasks, schedules = target.app.tasks(), target.app.declared_schedules()
    except QuarterjackError as error:
        return Finding("down", "app", str(error))
    doubts = target.app._queue_doubts()
    if doubts:
        return Finding("degraded", "app", "; ".join(doubts))
    return Finding("ok", "app", f"{target.name}: {_count(len(tasks), 'task')}, {_count(len(schedules), 'schedule')}")


async def _look(app: Quarterjack, target: Target) -> list[Finding]:
    stats = await app.store.stats()
    now = await app.store_now()
    workers, now_ns = await app.workers(), round(now.timestamp() * 1e9)
    skew_s = app.health().skew_s
    clock: State = "ok" if abs(skew_s) < SKEW_S else "degraded"
    return [
        Finding("ok", "store", f"{app.store.name} answers"),
        Finding(
            clock,
            "clock",
            f"this machine is {in_words(abs(skew_s))} {'ahead of' if skew_s > 0 else 'behind'} the store",
        ),
        of_workers(workers, now_ns, target.words),
        of_waiting(stats, workers, now_ns),
        *await _handed(app, stats, now_ns),
        await _schedules(app),
        await _errors(app, stats),
    ]


def of_workers(workers: Sequence[WorkerInfo], now_ns: int, app: str) -> Finding:
    """Judge the processes of the registry; *app* is how commands name theirs."""
    alive = at_work(workers, now_ns)
    if not alive:
        return _NOBODY
    does = {"scheduler": any(one.fires for one in alive), "worker": any(one.runs_jobs for one in alive)}
    if missing := [role for role, is_there in does.items() if not is_there]:
        return Finding("degraded", "workers", f"none of {len(alive)} is a {' or a '.join(missing)}")
    doubts: list[str] = []
    if drained := [one.id for one in alive if one.halt == "drained"]:
        those = "all of them" if len(drained) == len(alive) > 1 else listing(drained)
        doubts.append(f"{those} drained: qj workers {app} resume {drained[0]}")
    for task in sorted({task for one in alive for task in one.parked}):
        places = listing([one.id for one in alive if task in one.parked])
        doubts.append(f"{task} is parked at {places}, as its processes kept dying: mend it, and restart those workers")
    if lost := [one.id for one in workers if is_lost(one, now_ns)]:
        doubts.append(f"no sign of life from {listing(lost)}; if it is dead: qj workers {app} forget {lost[0]}")
    told = "; ".join([f"{len(alive)} at work", *doubts])
    return Finding("degraded" if doubts else "ok", "workers", told)


def of_waiting(stats: StoreStats, workers: Sequence[WorkerInfo], now_ns: int) -> Finding:
    """Judge what waits: whether somebody takes it, and in time."""
    told = _count(sum(stats.waiting.values()), "job")
    alive = at_work(workers, now_ns)
    untaken = sorted(queue for queue, n in stats.waiting.items() if n and not serving(workers, queue, now_ns))
    if untaken and alive:
        known = {queue for one in alive if one.runs_jobs for queue in one.queues}
        missing = [f": qj run --queue {shlex.quote(queue)}" for queue in untaken if queue not in known]
        words = f"{told}; nobody at work takes those in queue {listing(untaken)}{''.join(missing[:1])}"
        return Finding("degraded", "waiting", words)
    oldest = stats.oldest_due_ns
    late_s = 0.0 if oldest is None else max(0.0, (now_ns - oldest) / 1e9)
    if late_s > LATE_S:
        return Finding("degraded", "waiting", f"{told}, one of them due {in_words(-late_s)}")
    return Finding("ok", "waiting", told)


async def _handed(app: Quarterjack, stats: StoreStats, now_ns: int) -> list[Finding]:
    """Judge what was handed to a cluster: whether anybody there begins it, and in time."""
    if not stats.states.get(JobState.STARTED):
        return []
    jobs = await app.jobs(state=JobState.STARTED, limit=_HANDED)
    words = f"{_count(stats.states[JobState.STARTED], 'job')} handed over, and not known to have begun"
    late = {job: (job.timestamps.started_at, job.id) for job in jobs if _has_waited(job, now_ns)}
    for job in sorted(late, key=late.__getitem__)[:_ASKED]:
        why = await app.why_waiting(job)
        if why.kind == "handed":
            return [Finding("degraded", "handed", f"{words}; of {job.task} ({job.id}): {why.words}")]
    return [Finding("ok", "handed", words)]


def _has_waited(job: Job[Any], now_ns: int) -> bool:
    at = job.timestamps.started_at
    return at is not None and now_ns - at.timestamp() * 1e9 > LATE_S * 1e9


async def _schedules(app: Quarterjack) -> Finding:
    views = await app.schedules()
    parked = [view.id for view in views if view.parked_reason is not None]
    paused = [view.id for view in views if view.is_paused]
    if parked:
        return Finding("degraded", "schedules", f"{', '.join(parked)} cannot fire: qj why says why")
    if not views and (declared := len(app.declared_schedules())):
        return Finding("ok", "schedules", f"none in the store yet; the first start puts the app's {declared} there")
    told = f", {len(paused)} paused" if paused else ""
    return Finding("ok", "schedules", f"{len(views)}{told}")


async def _errors(app: Quarterjack, stats: StoreStats) -> Finding:
    unfit = sorted({job.task for job in await orphans(app, _ORPHANS)})
    bad = sum(stats.states.get(state, 0) for state in BAD)
    if unfit:
        return Finding("degraded", "errors", f"no worker can run {', '.join(unfit)}: qj errors")
    return Finding("ok", "errors", f"{_count(bad, 'job')} failed, timed out or lost in the history" if bad else "none")


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
