"""``qj check``: whether an app, its store and its workers are in order, for people, monitors and CI."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import click

from quarterjack import Quarterjack
from quarterjack._at_work import is_lost
from quarterjack.errors import QuarterjackError
from quarterjack.stores.base import StoreStats

from ._client import NothingThere, Unreachable, ask, asked, store_option
from ._orphans import orphans
from ._output import json_option, show_json
from ._spans import in_words
from ._target import Target
from .jobs import BAD

__all__ = ["command"]

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


_NOBODY: Final = Finding("degraded", "workers", "nobody is at work: qj run starts a process")
_ORPHANS: Final = 20
"""So many jobs are looked at for the tasks to be named."""


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
            findings += ask(target, _look)
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


async def _look(app: Quarterjack) -> list[Finding]:
    stats = await app.store.stats()
    now = await app.store_now()
    skew_s = app.health().skew_s
    clock: State = "ok" if abs(skew_s) < SKEW_S else "degraded"
    return [
        Finding("ok", "store", f"{app.store.name} answers"),
        Finding(
            clock,
            "clock",
            f"this machine is {in_words(abs(skew_s))} {'ahead of' if skew_s > 0 else 'behind'} the store",
        ),
        await _workers(app, round(now.timestamp() * 1e9)),
        _waiting(stats, now.timestamp()),
        await _schedules(app),
        await _errors(app, stats),
    ]


async def _workers(app: Quarterjack, now_ns: int) -> Finding:
    found = await app.workers()
    lost = [one.id for one in found if is_lost(one, now_ns)]
    alive = [one for one in found if one.id not in lost]
    if not alive:
        return _NOBODY
    does = {"scheduler": any(one.fires for one in alive), "worker": any(one.runs_jobs for one in alive)}
    missing = [role for role, is_there in does.items() if not is_there]
    if missing:
        return Finding("degraded", "workers", f"none of {len(alive)} is a {' or a '.join(missing)}")
    if lost:
        return Finding("degraded", "workers", f"{len(alive)} at work; no sign of life from {', '.join(lost)}")
    return Finding("ok", "workers", f"{len(alive)} at work")


def _waiting(stats: StoreStats, now: float) -> Finding:
    count = sum(stats.waiting.values())
    oldest = stats.oldest_due_ns
    late_s = 0.0 if oldest is None else max(0.0, now - oldest / 1e9)
    if late_s > LATE_S:
        return Finding("degraded", "waiting", f"{_count(count, 'job')}, one of them due {in_words(-late_s)}")
    return Finding("ok", "waiting", f"{_count(count, 'job')}")


async def _schedules(app: Quarterjack) -> Finding:
    views = await app.schedules()
    parked = [view.id for view in views if view.parked_reason is not None]
    paused = [view.id for view in views if view.is_paused]
    if parked:
        return Finding("degraded", "schedules", f"{', '.join(parked)} cannot fire: qj why says why")
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
