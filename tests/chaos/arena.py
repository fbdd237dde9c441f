"""The arena: a store, a client that submits to it, a crew that serves it, and the verdict at the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

import pytest

from quarterjack import Call
from quarterjack.errors import StoreError, StoreUnavailable
from quarterjack.model import JobFilter, JobRecord
from quarterjack.runtime.service import Role
from tests.chaos.app import PULSE_S, STALLED_S, ChaosApp, Settings
from tests.chaos.crew import Crew, Member, crew
from tests.chaos.ledger import Ledger
from tests.chaos.oracle import EVERYBODY, Evidence, verdict

__all__ = ["MARKS", "Arena", "arena"]

T = TypeVar("T")

MARKS: Final = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process may outlive the test that is killed"),
]

LOOK_S: Final = 0.05
PAGE: Final = 5_000
SETTLED_WITHIN_S: Final = 90.0
SCHEDULES: Final = ("tick", "line", "moved")


@dataclass
class Arena:
    """One store under chaos."""

    chaos: ChaosApp
    crew: Crew
    ledger: Ledger
    submitted: list[str] = field(default_factory=list[str])

    async def submit(self, calls: Iterable[Call[Any]]) -> None:
        """Submit jobs, none of which may be lost once that is answered; where it is not, as in an outage, again."""
        given = list(calls)
        jobs = await self._surely(partial(self.chaos.app.submit_many, given))
        self.submitted += [job.id for job in jobs]

    async def _surely(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask the store until it answers."""
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while True:
                try:
                    return await call()
                except StoreUnavailable:
                    await asyncio.sleep(LOOK_S)

    async def start(self, *roles: Role, **changes: Any) -> list[Member]:
        """Start a process for each role, and wait until all work."""
        members = [self.crew.start(role=role, **changes) for role in roles]
        await self.up()
        return members

    async def up(self) -> None:
        """Wait until the whole crew works."""

        def is_up() -> bool:
            self.crew.revive()
            return len(self.upright) == len(self.crew.members)

        await self.until(is_up)

    async def until(self, happens: Callable[[], bool], within_s: float = SETTLED_WITHIN_S) -> None:
        """Wait for something that other processes do."""
        async with asyncio.timeout(within_s):
            while not happens():
                await asyncio.sleep(LOOK_S)

    async def more(self, task: str, count: int) -> None:
        """Wait until so many more bodies of a task have begun."""
        enough = self.begun(task) + count
        await self.until(lambda: self.begun(task) >= enough)

    def begun(self, task: str) -> int:
        """Return how many bodies of a task have begun."""
        return sum(entry.kind == "begin" and entry.task == task for entry in self.ledger.read())

    def ended(self, task: str) -> int:
        """Return how many bodies of a task have returned."""
        return sum(entry.kind == "end" and entry.task == task for entry in self.ledger.read())

    @property
    def upright(self) -> list[Member]:
        """The members that have started and live."""
        up = {entry.who for entry in self.ledger.read() if entry.kind == "up"}
        return [member for member in self.crew.members if member.who in up and member.is_alive]

    def holds(self, member: Member, task: str) -> bool:
        """Say whether a body of a task runs in a process."""
        mine = [entry for entry in self.ledger.read() if entry.who == member.who and entry.task == task]
        return sum(1 if entry.kind == "begin" else -1 for entry in mine) > 0

    async def feel_pulse(self) -> None:
        """Note when a write took so long that leases may have run out, whoever had them: the machine was that busy."""
        while True:
            began = monotonic()
            with suppress(StoreError):
                await self.chaos.app.store.limit_acquire("pulse", ["arena"], maximum=1, ttl_s=1.0)
            took_s = monotonic() - began
            if took_s > STALLED_S:
                self.ledger.note("stalled", EVERYBODY, attempt=round(took_s * 1_000))
            await asyncio.sleep(PULSE_S)

    def cut_off(self) -> None:
        """Note that nobody can be sure of reaching the store from now on."""
        self.ledger.note("cut off", EVERYBODY)

    def connected(self) -> None:
        """Note that everybody can again."""
        self.ledger.note("connected", EVERYBODY)

    async def settle(self) -> Evidence:
        """Fire no more, let all that is there come to its end, end the crew in order; return what there is to judge."""
        app = self.chaos.app
        await self.up()
        known = {schedule.id for schedule in await self._surely(app.schedules)}
        for schedule_id in known.intersection(SCHEDULES):
            await self._surely(partial(app.pause, schedule_id))
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while await self.left():
                await asyncio.sleep(LOOK_S)
        errors = await asyncio.to_thread(self.crew.drain)
        assert errors == {}, f"ended with an error: {errors}: {self.crew.complaints()}"
        return Evidence(self.ledger.read(), await self.rows(), self.submitted, self.chaos.settings.lease_s)

    async def left(self) -> int:
        """Return how many jobs have not ended; the chain always has one."""
        try:
            states = (await self.chaos.app.store.stats()).states
            if sum(count for state, count in states.items() if not state.is_finished) > 1:
                return 1
            page = await self.chaos.app.store.jobs_list(JobFilter(is_open=True), limit=10)
        except StoreError:
            return 1
        return sum(row.task != "chain" for row in page.jobs)

    async def rows(self) -> list[JobRecord]:
        """Return all rows."""
        rows: list[JobRecord] = []
        cursor = None
        while True:
            page = await self.chaos.app.store.jobs_list(JobFilter(), limit=PAGE, cursor=cursor)
            rows += page.jobs
            cursor = page.cursor
            if cursor is None:
                return rows

    async def judge(self) -> Evidence:
        """Settle, and fail if anything is wrong; return the evidence for more questions."""
        evidence = await self.settle()
        wrong = [*verdict(evidence), *self.crew.complaints()]
        assert wrong == [], "\n".join(wrong[:20])
        return evidence


@asynccontextmanager
async def arena(url: str, folder: Path, *, crew_url: str | None = None, **changes: Any) -> AsyncIterator[Arena]:
    """Yield an arena on a store; its crew may have another way to it, such as one through a proxy."""
    ledger = Ledger(folder / "ledger")
    settings = Settings(url=crew_url or url, ledger=str(ledger.path), who="crew", **changes)
    client = ChaosApp(settings.but(url=url, who="client", role="client"))
    try:
        async with client.app:
            with crew(settings, ledger, folder) as members:
                made = Arena(client, members, ledger)
                pulse = asyncio.create_task(made.feel_pulse())
                try:
                    yield made
                finally:
                    pulse.cancel()
                    await asyncio.wait([pulse])
    finally:
        client.ledger.close()
        ledger.close()
