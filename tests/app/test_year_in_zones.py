"""A year in four zones in which everything happens to the clock: each fire time is accounted for exactly once.

The clock is set, the machine sleeps, schedules are paused and the app starts
anew, at random. `tests/app/ledger.py` keeps a second account of every schedule,
and the store's rows must be the ones it names: no more, no fewer, no others.

One seed runs by default. ``QJ_FUZZ_MINUTES=10`` goes on with random ones for so
many minutes; ``QJ_FUZZ_SEED`` repeats such a run."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import count
from random import Random
from time import monotonic
from typing import Any, Final, get_args

import pytest

from quarterjack import JobState, MemoryStore, Overlap, Quarterjack, Task
from quarterjack.model import JobRecord
from quarterjack.policies.missed import MissedMode
from quarterjack.policies.overlap import OverlapMode
from quarterjack.testing import World, virtual_time
from tests.app.ledger import Ledger, Moment, Order, dues
from tests.app.zone_rules import STEP, Rule, rules_of
from tests.oracles.walk import DAY, HOUR, MINUTE, SECOND, Walk

YEARS: Final = {
    "Europe/Rome": 2026,
    "Australia/Lord_Howe": 2026,
    "Pacific/Apia": 2011,
    "Africa/Casablanca": 2026,
}
SHORT: Final = SECOND // 10
ACTIONS: Final = ("forward", "back", "far back", "nudge", "suspend", "pause", "resume", "pause until", "restart")
MISSED: Final = get_args(MissedMode)
OVERLAPS: Final = get_args(OverlapMode)


@lru_cache(maxsize=1)
def rules(zone: str) -> list[Rule]:
    """Return the zone's rules with their fire times in the year and some days around it."""
    start = instant(datetime(YEARS[zone], 1, 1, tzinfo=UTC))
    return rules_of(Walk(zone, start - 10 * DAY, start + 400 * DAY, STEP))


def instant(at: datetime) -> int:
    """Return nanoseconds since the epoch."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000


@dataclass(frozen=True, slots=True)
class Standing:
    """A schedule as it is put and as the ledger reads it."""

    rule: Rule
    order: Order
    policies: dict[str, Any]


def drawn(rule: Rule, number: int, rng: Random, start: int) -> Standing:
    """Draw policies for *rule*; in turn every mode has every kind of rule."""
    missed = MISSED[number % len(MISSED)]
    overlap = OVERLAPS[number // 2 % len(OVERLAPS)]
    if missed == "all" and overlap == "skip":
        overlap = "allow"
    maximum = rng.choice([None, 1, 2]) if overlap in {"allow", "queue_all"} else None
    catchup = rng.choice([3, 100])
    lateness = rng.choice([None, None, 30 * MINUTE, 9 * HOUR])
    runs = rng.choice([None, None, None, None, 20, 200])
    jitter = rng.choice([0, 0, 7 * MINUTE, rule.most_jitter])
    low = start + 20 * DAY + 10 * MINUTE if rng.random() < 0.2 else None
    high = start + 300 * DAY if rng.random() < 0.2 else None
    body = rng.choice([SHORT, 11 * MINUTE, 3 * HOUR, 30 * HOUR]) + 37_000_000
    inside = [at for at in rule.nominals if (low is None or at >= low) and (high is None or at <= high)]
    order = Order(
        rule.name, inside, dues(rule.name, inside, jitter, high), rule.is_elapsed, missed, overlap, maximum, catchup,
        lateness, runs, body,
    )  # fmt: skip
    policies = {
        "missed": missed,
        "overlap": Overlap(overlap, maximum),
        "max_catchup": catchup,
        "max_lateness": None if lateness is None else lateness / SECOND,
        "max_runs": runs,
        "jitter": jitter / SECOND,
        "start": None if low is None else datetime.fromtimestamp(low / SECOND, UTC),
        "end": None if high is None else datetime.fromtimestamp(high / SECOND, UTC),
    }
    return Standing(rule, order, policies)


class Year:
    """Drives an app through a year of accidents, and keeps the ledgers beside it."""

    def __init__(self, zone: str, seed: str) -> None:
        self.rng = Random(f"{zone} {seed}")
        self.zone = zone
        self.start = instant(datetime(YEARS[zone], 1, 1, tzinfo=UTC))
        numbers = count(self.rng.randrange(24))
        self.standing = [drawn(rule, next(numbers), self.rng, self.start) for rule in rules(zone)]
        self.store = MemoryStore(keep_finished=10**9)
        self.ledgers: dict[str, Ledger] = {}
        self.fates: Counter[str] = Counter()
        self.journal: list[str] = []

    async def live(self) -> None:
        """Live through the year, in several lives of the app."""
        start = datetime.fromtimestamp(self.start / SECOND, UTC) + timedelta(seconds=0.5)
        async with virtual_time(start=start, tz=self.zone) as world:
            self.world = world
            while self.now.wall < self.start + 365 * DAY:
                await self._one_life(world)

    @property
    def now(self) -> Moment:
        """The clocks."""
        return Moment(self.world.clock.now_ns(), self.world.clock.monotonic_ns())

    async def _one_life(self, world: World) -> None:
        app = Quarterjack(self.store, clock=world.clock, concurrency=10_000)

        @app.task
        async def body(seconds: float) -> None:
            await asyncio.sleep(seconds)

        known = set(self.store._jobs)
        async with app:
            self._note("start")
            await self._begin(app, body)
            while self.now.wall < self.start + 365 * DAY:
                action = self.rng.choice(ACTIONS)
                await self._pass(self.rng.choice([20 * MINUTE, 5 * HOUR, 4 * DAY, 16 * DAY]))
                if action == "restart":
                    break
                await self._do(app, action)
            self._note("stop")
            for ledger in self.ledgers.values():
                ledger.stops(self.now)
        rows = [row for row in self.store._jobs.values() if row.id not in known]
        for standing in self.standing:
            self._compare(
                standing.order.id, [row for row in rows if row.origin and row.origin.schedule_id == standing.order.id]
            )

    async def _begin(self, app: Quarterjack, body: Task[[float], None]) -> None:
        for standing in self.standing:
            seconds = standing.order.body_ns / SECOND
            await app.schedule(body.bind(seconds), standing.rule.trigger, id=standing.order.id, **standing.policies)
            self.ledgers[standing.order.id] = Ledger(standing.order, self.now)

    async def _pass(self, most: int) -> None:
        before = self.now
        await self.world.run_for(self.rng.randrange(1, most // SECOND))
        for ledger in self.ledgers.values():
            ledger.passes(before, self.now)

    async def _do(self, app: Quarterjack, action: str) -> None:
        rng, world = self.rng, self.world
        one = rng.choice(self.standing).order.id
        ledger = self.ledgers[one]
        if action in {"pause", "pause until"}:
            until = self.now.wall + rng.randrange(2 * DAY // SECOND) * SECOND if action == "pause until" else None
            self._note(f"{action} {one}")
            await app.pause(one, until=None if until is None else as_datetime(until))
            ledger.pause(until)
        elif action == "resume":
            catch_up = rng.random() < 0.5
            for each, paused in self.ledgers.items():
                self._note(f"resume {each} {catch_up}")
                await app.resume(each, catch_up=catch_up)
                paused.resume(self.now, catch_up=catch_up)
        elif action == "suspend":
            await self._jump(rng.choice([HOUR, 3 * DAY]), is_step=False)
        else:
            low, high = {"forward": (2 * SECOND, 2 * DAY), "back": (2 * SECOND, 3 * HOUR - SECOND)}.get(action, (0, 0))
            far = rng.choice([3 * HOUR, rng.randrange(3 * HOUR, 30 * HOUR, SECOND)])
            seconds = {"far back": -far, "nudge": rng.choice([-SECOND, SECOND]) * 4 // 10}.get(
                action, rng.randrange(low, high, SECOND) if high else 0
            )
            await self._jump(-seconds if action == "back" else seconds, is_step=True)
        await world.settle()

    async def _jump(self, delta: int, *, is_step: bool) -> None:
        self._note(f"{'step' if is_step else 'suspend'} {delta / SECOND:+g} s")
        if is_step:
            await self.world.step_clock(delta / SECOND)
        else:
            await self.world.suspend(self.rng.randrange(1, delta // SECOND))
        for ledger in self.ledgers.values():
            ledger.jumps(delta, self.now, is_step=is_step)

    def _note(self, what: str) -> None:
        self.journal.append(f"{as_datetime(self.now.wall).isoformat()} {what}")

    # -- the account -------------------------------------------------------------------

    def _compare(self, schedule_id: str, rows: list[JobRecord]) -> None:
        ledger = self.ledgers[schedule_id]
        expected = Counter((run.generation, run.nominal, run.fate, run.count) for run in ledger.rows)
        found = Counter(account(row) for row in rows)
        assert found == expected, self._told(ledger, found, expected)
        assert ledger.unaccounted() == [], self._told(ledger, found, expected)
        for row in rows:
            assert row.state is JobState.DONE or row.reason, f"{row}: no reason"
        self.fates.update(ledger.fates.values())
        self.fates.update(f"row {run.fate}" for run in ledger.rows)
        self.fates["again"] += ledger.generation - 1

    def _told(self, ledger: Ledger, found: Counter[Any], expected: Counter[Any]) -> str:
        lines = [f"{self.zone}: {replace(ledger.order, nominals=[], dues=[])}", *self.journal[-400:]]
        for title, rows in (("unexpected", found - expected), ("not there", expected - found)):
            lines += [f"{title}: {as_datetime(row[1]).isoformat()} {row}" for row in sorted(rows)[:10]]
        return "\n".join(lines)


def account(row: JobRecord) -> tuple[int, int, str, int]:
    """Return a row as the ledger writes it."""
    assert row.origin is not None
    is_missed = row.state is JobState.MISSED
    return row.origin.generation, row.origin.nominal_ns, row.state.value, row.origin.missed_count if is_missed else 0


def as_datetime(at: int) -> datetime:
    """Return an instant as Python shows it."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at // 1_000)


async def lived(zone: str, seed: str) -> Year:
    """Return a year that was lived through and whose accounts agree."""
    year = Year(zone, seed)
    await year.live()
    return year


@pytest.mark.slow
@pytest.mark.parametrize("zone", YEARS)
async def test_each_fire_time_of_a_year_of_accidents_is_accounted_for_once(zone: str) -> None:
    """Ran, missed, skipped, paused: a fire time that is none of these, or two, is one that somebody will look for."""
    year = await lived(zone, "1")
    seen = {fate for fate, times in year.fates.items() if times}
    assert seen >= {"ran", "missed", "skipped", "paused", "again"}, "the year was too quiet to show anything"


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif("QJ_FUZZ_MINUTES" not in os.environ, reason="for more years, set QJ_FUZZ_MINUTES")
async def test_years_of_accidents_without_end() -> None:
    """What one year does not show, a hundred do."""
    deadline = monotonic() + float(os.environ["QJ_FUZZ_MINUTES"]) * 60
    seed = os.environ.get("QJ_FUZZ_SEED") or secrets.token_hex(4)
    for number in count():
        for zone in YEARS:
            try:
                await lived(zone, f"{seed} {number}")
            except AssertionError as error:
                raise AssertionError(f"QJ_FUZZ_SEED={seed}, year {number}: {error}") from error
        if monotonic() > deadline:
            return
