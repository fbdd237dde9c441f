"""Two stores on one schema that do random things at once, and a ledger that says what must never be.

The ledger knows what a store has answered. A job it has given to a holder is not
given to another one before the first has given it back; of a serial key one job is
held; of a unique key one job is unfinished; an overlap limit is not exceeded."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Final

from quarterjack._durations import NS_PER_S
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import UniqueConflict
from quarterjack.model import (
    Fenced,
    Finish,
    FinishKind,
    JobFilter,
    JobIds,
    JobRecord,
    JobState,
    Origin,
    Overlap,
    Payload,
    RunOptions,
    Schedule,
    Timing,
    Unique,
    lanes_of,
)
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import Claim, Want
from quarterjack.stores.postgres import PostgresStore
from quarterjack.triggers import Every

SERIAL: Final = "line"
LIMITED: Final = "pair"
LIMIT: Final = 2
UNIQUE_KEYS: Final = ("x", "y")
LANES: Final = lanes_of(["a"])


class Violation(AssertionError):
    """What must never be has been."""


class Ledger:
    """What is held by whom, by the answers of the stores."""

    def __init__(self) -> None:
        self.held: dict[str, JobRecord] = {}
        self.finished: Counter[str] = Counter()
        self.put: set[str] = set()

    def claimed(self, job: JobRecord) -> None:
        """A store has given *job* to a holder."""
        if job.id in self.held:
            raise Violation(f"{job.id} is held twice")
        if job.id in self.finished:
            raise Violation(f"{job.id} has ended, and is held again")
        if job.serial and any(other.serial and other.overlap_key == job.overlap_key for other in self.held.values()):
            raise Violation(f"two of the serial key {job.overlap_key} are held")
        self.held[job.id] = job

    def back(self, job: JobRecord) -> None:
        """A holder is about to give *job* back: from now on another one may get it."""
        del self.held[job.id]


class Racer:
    """One of many that do random things over one of the stores."""

    def __init__(self, name: str, store: PostgresStore, ids: JobIds, ledger: Ledger, random: Random) -> None:
        self.name, self.store, self.ids, self.ledger, self.random = name, store, ids, ledger, random

    async def run(self, steps: int) -> None:
        """Take *steps* random steps."""
        for _ in range(steps):
            await self.random.choice(STEPS)(self)

    def job(self, **options: object) -> JobRecord:
        job = JobRecord(self.ids(), "a", (), {}, RunOptions(**options))  # type: ignore[arg-type]  # options by name
        self.ledger.put.add(job.id)
        return job

    async def put(self) -> None:
        await self.store.jobs_put([self.job(priority=self.random.randrange(3)) for _ in range(2)])

    async def put_unique(self) -> None:
        how = self.random.choice(("return", "replace", "raise"))
        key = self.random.choice(UNIQUE_KEYS)
        job = self.job(unique=Unique(key, on_conflict=how))  # type: ignore[arg-type]  # one of the three
        with contextlib.suppress(UniqueConflict):
            (row,) = await self.store.jobs_put([job])
            if row is job:
                return
        self.ledger.put.discard(job.id)

    async def trigger(self) -> None:
        schedule_id = self.random.choice((SERIAL, LIMITED))
        nominal = self.random.randrange(2**40)
        job = self.job()
        await self.store.schedules_trigger(
            schedule_id,
            JobRecord(job.id, "a", (), {}, job.options, None, Origin(schedule_id, 1, nominal, trigger="manual")),
        )

    async def work(self) -> None:
        claim = Claim(self.name, [Want(("default",), LANES, self.random.randint(1, 4))], 30.0)
        jobs = (await self.store.jobs_claim(claim)).jobs
        for job in jobs:
            self.ledger.claimed(job)
        await asyncio.sleep(0)
        for job in jobs:
            await self.end(job)

    async def end(self, job: JobRecord) -> None:
        self.ledger.back(job)
        kind = self.random.choice((FinishKind.DONE, FinishKind.DONE, FinishKind.FAILED, FinishKind.RETRY, None))
        if kind is None:
            await self.store.jobs_release([job.fence])
            return
        if kind is not FinishKind.RETRY:
            self.ledger.finished[job.id] += 1
        (state,) = await self.store.jobs_finish([Finish(*job.fence, kind, 1, 1, 1)])
        if state is None:
            raise Violation(f"{job.id} was refused to its holder")

    async def finish_stale(self) -> None:
        held = list(self.ledger.held.values())
        if held:
            job = self.random.choice(held)
            stale = Fenced(job.id, job.attempt - 1, self.name)
            if (await self.store.jobs_finish([Finish(*stale, FinishKind.DONE, 1)])) != [None]:
                raise Violation(f"{job.id} was ended by somebody who does not hold it")

    async def cancel(self) -> None:
        waiting = [job_id for job_id in self.ledger.put if job_id not in self.ledger.held][:3]
        await self.store.jobs_request_cancel(waiting)

    async def look(self) -> None:
        """Look at the database, whatever else goes on in it."""
        async with self.store._link.connection("looking") as connection:
            name = self.store._settings.quoted_schema
            doubled = await connection.fetch(
                f"SELECT unique_key FROM {name}.job WHERE unique_key IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
            )
            open_ = await connection.fetchval(f"SELECT count(*) FROM {name}.job WHERE overlap_key = $1", LIMITED)
        if doubled:
            raise Violation(f"unique keys of several unfinished jobs: {doubled}")
        if open_ > LIMIT:
            raise Violation(f"{open_} jobs of {LIMITED} are open")


STEPS: Final[list[Callable[[Racer], Awaitable[None]]]] = [
    *(Racer.put, Racer.put_unique, Racer.put_unique, Racer.trigger, Racer.trigger),
    *(Racer.work, Racer.work, Racer.work, Racer.finish_stale, Racer.cancel, Racer.look),
]


@contextlib.asynccontextmanager
async def two_stores(url: str) -> AsyncIterator[list[tuple[PostgresStore, JobIds]]]:
    """Yield two open stores, as two processes have them, with the two schedules of a race."""
    stores = [(PostgresStore.from_url(url), JobIds()) for _ in range(2)]
    for store, ids in stores:
        await store.open(SYSTEM_CLOCK, ids, Encoding())
    try:
        timing = Timing(trigger=Every(seconds=86_400))
        overlaps = {SERIAL: Overlap("queue_all"), LIMITED: Overlap("allow", LIMIT)}
        schedules = [Schedule(name, timing, Payload(task="a", overlap=it)) for name, it in overlaps.items()]
        await stores[0][0].schedules_put(schedules)
        yield stores
    finally:
        for store, _ in stores:
            await store.close()


async def race(stores: list[tuple[PostgresStore, JobIds]], *, racers: int, steps: int, seed: int) -> Ledger:
    """Let *racers* take *steps* each, then run what is left; return the ledger.

    Raises:
        Violation: If what must never be has been.
    """
    ledger = Ledger()
    crowd = [Racer(f"w{n}", *stores[n % len(stores)], ledger, Random(f"{seed} {n}")) for n in range(racers)]
    try:
        async with asyncio.TaskGroup() as group:
            for racer in crowd:
                group.create_task(racer.run(steps))
    except* Violation as violations:
        raise violations.exceptions[0] from None
    await run_the_rest(crowd[0])
    return ledger


async def run_the_rest(racer: Racer) -> None:
    """Claim and end until nothing waits: no job may be stuck."""
    store = racer.store
    while jobs := (await store.jobs_claim(Claim("last", [Want(("default",), LANES, 100)], 30.0))).jobs:
        for job in jobs:
            racer.ledger.claimed(job)
        for job in jobs:
            racer.ledger.back(job)
            racer.ledger.finished[job.id] += 1
        await store.jobs_finish([Finish(*job.fence, FinishKind.DONE, NS_PER_S, 1, 1) for job in jobs])
    left = await store.jobs_list(JobFilter(is_open=True))
    if left.jobs:
        raise Violation(f"these were left: {left.jobs}")
    ended = {job.id for job in (await store.jobs_list(JobFilter(), limit=100_000)).jobs if job.state in JobState}
    if lost := racer.ledger.put - ended:
        raise Violation(f"these are nowhere: {lost}")
