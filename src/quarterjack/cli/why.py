"""``qj why``: why a schedule runs or does not, and what became of an instant."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, tzinfo
from typing import Final

import click

from quarterjack import Quarterjack, Stream, Why
from quarterjack._at_work import why_nobody
from quarterjack._why_words import told_at
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.model import JobFilter, JobRecord, Schedule
from quarterjack.why import why_at, why_next, why_not_fired

from ._hints import typed
from ._output import iso, json_option, show_json, tell_notes, zone_option
from ._planning import Rule, absent_at, find_rule, zone_name
from ._shell import EXIT_USAGE, Failure, wrapped
from ._times import moment

__all__ = ["command"]

RULE_ALONE: Final = (
    "this is what the rule says; pauses and runs are known to the process that runs the app: `await app.why(…)` there"
)
_ALL: Final = 10**9


@click.command("why")
@click.argument("words", nargs=-1, required=True, metavar="[APP] SCHEDULE | CRON")
@click.option("--at", "asked", metavar="ISO", help="What became of this moment, as 2027-03-28T02:30.")
@zone_option
@json_option
def command(words: tuple[str, ...], asked: str | None, zone: tzinfo | None, as_json: bool) -> None:
    """Say whether and when a schedule runs next, and why; with --at what became of that moment.

    A moment without an offset is one on the clock of the rule's zone, or of
    --tz. A cron line is read in --tz:

    \b
        qj why module:app reports.midnight
        qj why module:app reports.midnight --at 2027-03-28T02:30
        qj why "30 2 * * mon-fri" --tz Europe/Rome --at 2027-03-27T02:30
    """
    now_ns = SYSTEM_CLOCK.now_ns()
    rule, target = find_rule(words, now_ns, zone_name(zone))
    if rule is None:
        name = target.name if target is not None else words[0]
        raise Failure(f"{name} is an app; name a schedule of it, or a cron line", f"qj ls {name}", EXIT_USAGE)
    at = None if asked is None else moment(asked, "--at", zone or rule.trigger.zone, "2027-03-28T02:30")
    app = None if target is None else target.app
    answer = _answer(rule, app, at, now_ns)
    is_live = app is not None and app.store.is_shared
    if as_json:
        show_json("why", text=rule.text, is_live=is_live, **_as_dict(answer, zone))
        return
    click.echo(wrapped(answer.words, indent=2, stream=sys.stdout))
    if rule.row is not None and not is_live:
        tell_notes([RULE_ALONE])


def _answer(rule: Rule, app: Quarterjack | None, at: datetime | None, now_ns: int) -> Why:
    row = rule.row
    if isinstance(rule.trigger, Stream):
        told = f"{rule.text} is a stream, no schedule: {rule.trigger.explain()}"
        raise Failure(told, f"qj explain {' '.join(click.get_current_context().params['words'])}", EXIT_USAGE)
    if row is None or app is None:
        if at is None:
            raise Failure(
                "of a cron line, --at says which moment is meant",
                f"{typed(rule.text)} --at 2027-03-28T02:30",
                EXIT_USAGE,
            )
        words = f"{told_at(at)} is a fire time of it: {rule.trigger.explain()}"
        return why_not_fired(rule.trigger, at) or Why(kind="to_come", words=words, at=at)
    if not app.store.is_shared:
        return why_next(row, now_ns) if at is None else why_at(row, at, now_ns, None)
    jobs, nobody = asyncio.run(_stored(app, row, is_open=at is None))
    return why_next(row, now_ns, jobs, nobody) if at is None else why_at(row, at, now_ns, jobs, nobody)


async def _stored(app: Quarterjack, row: Schedule, *, is_open: bool) -> tuple[list[JobRecord], str | None]:
    """Return the schedule's jobs, or the open ones of its overlap key, oldest first; and why nobody runs it, if so."""
    where = JobFilter(is_open=True) if is_open else JobFilter(schedule_id=row.id)
    if await absent_at(app.store) is not None:
        return [], None
    async with app._looking() as store:
        page = await store.jobs_list(where, limit=_ALL)
        nobody = why_nobody(row, await store.workers_list(), await store.now_ns())
    return [job for job in reversed(page.jobs) if not is_open or job.overlap_key == row.overlap_key], nobody


def _as_dict(answer: Why, zone: tzinfo | None) -> dict[str, str | None]:
    def told(at: datetime | None) -> str | None:
        return iso(at if at is None or zone is None else at.astimezone(zone))

    return {
        "kind": answer.kind,
        "words": answer.words,
        "at": told(answer.at),
        "before": told(answer.before),
        "after": told(answer.after),
        "until": told(answer.until),
        "job": answer.job,
        "reason": answer.reason,
    }
