"""What an app's schedules will do, found out without running it.

`outlook` plans the declared schedules as if the app started at a given moment;
with a shared store it reads the rows that are there, so that last runs and
pauses are known too. `fires` walks one schedule's future with the very planner
that the scheduler asks. Nothing is written, no hook and no lifespan runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, tzinfo
from itertools import islice
from typing import Any, Final, NamedTuple

from quarterjack import Cron, Quarterjack, ScheduleView, Trigger
from quarterjack.errors import InvalidTrigger, NotPeriodic
from quarterjack.model import Schedule, as_datetime
from quarterjack.planner import parked, plan, resumed, upserted
from quarterjack.stores import Store
from quarterjack.stores._schema import HasSchema
from quarterjack.why import why_next

from ._hints import is_job_id, listing, nearest, typed
from ._importing import NoModule
from ._shell import EXIT_USAGE, Failure
from ._target import Target, configured, load

__all__ = [
    "Fire",
    "Outlook",
    "Rule",
    "absent_at",
    "depends_on_start",
    "find_rule",
    "fires",
    "listed",
    "outlook",
    "rule_dict",
    "rule_named",
    "zone_name",
]

_APART_NS: Final = 1_234_567_891
"""Two starts this far apart tell whether a rule depends on when its app starts."""


class Outlook(NamedTuple):
    """An app's schedules, by id; *is_live* if they are rows of a store that other processes see."""

    rows: list[Schedule]
    is_live: bool

    @property
    def views(self) -> list[ScheduleView]:
        """The schedules as people look at them."""
        return [ScheduleView(row) for row in self.rows]


class Fire(NamedTuple):
    """A fire time to come, and when its job is due: later, if the schedule has jitter."""

    nominal: datetime
    due: datetime


class Rule(NamedTuple):
    """A rule to look at: a schedule of an app (with its *row*), one of its streams, or a bare cron expression."""

    row: Schedule | None
    trigger: Trigger
    text: str


def outlook(app: Quarterjack, at_ns: int) -> Outlook:
    """Return the app's schedules: live ones of a shared store, the others as if it started at *at_ns*."""
    if app.store.is_shared:
        rows = {row.id: _planned(row, at_ns) for row in app.declared_schedules()}  # those no start has put there yet
        rows.update((row.id, row) for row in asyncio.run(_stored(app)))
        return Outlook(sorted(rows.values(), key=lambda row: row.id), True)
    declared = app.declared_schedules()
    return Outlook(sorted((_planned(row, at_ns) for row in declared), key=lambda row: row.id), False)


async def absent_at(store: Store) -> str | None:
    """Return where nothing was ever stored: a look must not make the file or the tables; None if they are there."""
    if not isinstance(store, HasSchema):
        return None
    status = await store.schema_status()
    return None if status.current else status.url


async def _stored(app: Quarterjack) -> list[Schedule]:
    if await absent_at(app.store) is not None:
        return []
    async with app._looking() as store:
        return list(await store.schedules_list())


def _planned(row: Schedule, at_ns: int) -> Schedule:
    try:
        return upserted(None, row, at_ns)
    except Exception as error:  # a trigger of the user's own may raise anything; the app would park it as well
        return parked(row, error)


def depends_on_start(row: Schedule) -> bool:
    """Say whether this schedule's times are counted from the moment its app starts."""
    if row.parked_reason is not None:
        return False
    trigger, at = row.timing.trigger, row.created_at_ns
    if trigger.fires_at_creation:
        return True
    return trigger.resolved(at, row.id) != trigger.resolved(at + _APART_NS, row.id)


def fires(row: Schedule) -> Iterator[Fire]:
    """Walk the fire times to come, as the planner would serve them one by one.

    Raises:
        NotPeriodic: After the first, if the next depends on how that run ends.
    """
    row = row.copy()
    while row.next_nominal_ns is not None and row.next_due_ns is not None and not row.is_passed:
        nominal, due = as_datetime(row.next_nominal_ns), as_datetime(row.next_due_ns)
        if nominal is None or due is None:
            return
        yield Fire(nominal, due)
        if row.trigger.after_finish_ns is not None:
            raise NotPeriodic("what comes after this run depends on how long it takes")
        planned = plan(row, row.next_due_ns)
        if planned is None:
            return
        row.cursor_ns, row.runs = planned.cursor_ns, row.runs + len(planned.nominals)
        row.next_nominal_ns, row.next_due_ns = planned.next_nominal_ns, planned.next_due_ns


def listed(row: Schedule, count: int, now_ns: int) -> tuple[list[Fire], str | None]:
    """Return at most *count* fires to come, and why there are no more, or none before a pause is over."""
    found: list[Fire] = []
    told = row.parked_reason
    try:
        coming = why_next(row, now_ns)
        if coming.kind == "paused":
            told = coming.words
            if row.paused_until_ns is None:
                return [], told
            row = resumed(row, row.paused_until_ns, catch_up=False)
        found.extend(islice(fires(row), count))
    except Exception as error:  # a trigger of the user's own may raise anything
        return found, str(error) if isinstance(error, NotPeriodic) else f"{type(error).__name__}: {error}"
    return found, told


def find_rule(words: tuple[str, ...], at_ns: int, zone: str) -> tuple[Rule | None, Target | None]:
    """Return the rule that the command's words name, and its app; no rule if they name an app alone.

    One word is a cron expression if it holds a space or begins with ``@``; an
    id, if the configured app has such a schedule; else an app. Two words are an
    app and a schedule's id.

    Raises:
        Failure: If they name nothing.
    """
    if len(words) > 2:
        raise _too_many(words, zone)
    if len(words) == 1 and (" " in words[0].strip() or words[0].startswith("@")):
        return _expression(words[0], at_ns, zone), None
    if len(words) == 2:
        target = load(words[0])
        return rule_named(target, words[1], at_ns), target
    word = words[0] if words else None
    if word is not None and ":" not in word and not word.endswith(".py") and configured() is not None:
        target = load(None)
        known = [*(row.id for row in outlook(target.app, at_ns).rows), *(s.id for s in target.app.declared_streams())]
        if word in known:
            return rule_named(target, word, at_ns), target
        return None, _app_named(word, target, known)
    return None, _app_named(word, None, [])


def _too_many(words: tuple[str, ...], zone: str) -> Failure:
    """Say what to write for words that the shell has torn apart, or what may be written at all."""
    line = " ".join(words)
    try:
        Cron(line, tz=zone)
    except InvalidTrigger:
        if not line.startswith(("*", *"0123456789")):
            return Failure(f"too many words: {' '.join(words[2:])}", f"{typed()} --help", EXIT_USAGE)
        line = "*/5 9-17 * * mon-fri"  # an asterisk without quotes is a list of files by now
    return Failure("a cron line is one word: put it in quotes", f'{typed()} "{line}"', EXIT_USAGE)


def _app_named(word: str | None, target: Target | None, known: list[str]) -> Target:
    """Return the app; where there is none of this name, *word* may have been meant as a schedule of *target*."""
    try:
        return load(word)
    except NoModule as failure:
        if failure.is_guess or word is None or ":" in word:
            raise
        if target is None:
            raise Failure(failure.message, f"{typed('module:app', word)}, if it is a schedule", EXIT_USAGE) from None
        near = nearest(word, known)
        hint = typed(near) if near else f"qj ls {target.name}"
        raise Failure(f"{target.name} has no schedule {word!r}, nor is it a module here", hint, EXIT_USAGE) from None


def rule_named(target: Target, schedule_id: str, at_ns: int) -> Rule:
    """Return a schedule or a stream of the app as a rule.

    Raises:
        Failure: If the app has none of this id.
    """
    streams = target.app.declared_streams()
    for stream in streams:
        if stream.id == schedule_id:
            return Rule(None, stream.trigger, stream.id)
    rows = outlook(target.app, at_ns).rows
    for row in rows:
        if row.id == schedule_id:
            return Rule(row, row.trigger, row.id)
    known = [*(row.id for row in rows), *(stream.id for stream in streams)]
    near = nearest(schedule_id, known)
    hint = typed(target.name, near) if near else f"qj ls {target.name}"
    if is_job_id(schedule_id):
        hint = f"qj show {target.words} {schedule_id}"
    told = f"{target.name} has no schedule {schedule_id!r}; it has {listing(known) or 'none at all'}"
    raise Failure(told, hint, EXIT_USAGE)


def _expression(text: str, at_ns: int, zone: str) -> Rule:
    hint = f'{typed()} "*/5 9-17 * * mon-fri"'
    try:
        cron = Cron(text, tz=zone)
        if not cron.needs_resolution:
            cron.next_ns(at_ns)
    except InvalidTrigger as error:
        raise Failure(_as_typed(error), hint, EXIT_USAGE) from None
    if cron.needs_resolution:
        message = f"{text!r} holds H, and what it stands for follows from a schedule's id: name the schedule"
        raise Failure(message, f"{typed()} module:app SCHEDULE", EXIT_USAGE)
    return Rule(None, cron, text)


def _as_typed(error: InvalidTrigger) -> str:
    """Return what is wrong with a cron line to one who typed it: without the Python around it."""
    return str(error).removeprefix("Cron ").partition("; write for example Cron(")[0]


def rule_dict(trigger: Trigger) -> dict[str, Any] | None:
    """Return the rule as JSON has it; None if a field of a trigger of the user's own cannot be written so."""
    try:
        return trigger.to_dict()
    except InvalidTrigger:
        return None


def zone_name(zone: tzinfo | None) -> str:
    """Return how a trigger is told of a zone; UTC without one."""
    return str(getattr(zone, "key", "local")) if zone is not None else "UTC"
