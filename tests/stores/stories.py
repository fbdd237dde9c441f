"""Stories told to several stores at once: whatever is asked, in whatever order, all must answer alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from random import Random
from typing import Any, Final

from quarterjack._durations import NS_PER_S
from quarterjack.backfill import Backfill
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
    RunOptions,
    Schedule,
    Unique,
    lanes_of,
)
from quarterjack.planner import plan
from quarterjack.stores.base import Claim, Hint, Renewal, Want
from quarterjack.testing.store_contract import Bench
from quarterjack.triggers import Every, Forever, Trigger

Step = tuple[str, int]

LOST: Final = "the answer was lost"
NAMES: Final = ("one", "two", "three")
JOB_FIELDS: Final = tuple(name for name in JobRecord.__slots__ if name not in {"args", "kwargs"})
SCHEDULE_FIELDS: Final = Schedule.__slots__
OVERLAPS: Final = (
    Overlap("skip"),
    Overlap("queue_one"),
    Overlap("queue_latest"),
    Overlap("queue_all"),
    Overlap("queue_all", 2),
    Overlap("cancel_previous"),
    Overlap("allow"),
    Overlap("allow", 2),
)
UNIQUES: Final = (
    None,
    None,
    Unique("k"),
    Unique("k", scope="queued"),
    Unique("k", on_conflict="replace"),
    Unique("k", on_conflict="raise"),
)
KINDS: Final = (*FinishKind,)
ACTS: Final = (
    *("put", "put", "claim", "claim", "claim", "finish", "finish", "finish", "fire", "fire", "fire", "time", "time"),
    *("outlive", "ended", "release", "renew", "cancel", "retry", "declare", "remove", "pause", "resume", "park"),
    *("trigger", "backfill", "purge"),
)


class CountedIds(JobIds):
    """Ids that a test can set back, and none of which is part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __call__(self) -> str:
        self.n += 1
        return f"j{self.n:06d}"


class Teller:
    """Tells one story to one store, and keeps every answer."""

    def __init__(self, b: Bench) -> None:
        self.b = b
        self.b.ids = self.ids = CountedIds()
        self.fences: list[Fenced] = []
        self.heard: set[tuple[Hint, str]] = set()
        self.made: dict[str, list[int]] = {}
        """The fire times of backfills."""

    async def call(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Make one call."""
        return await ask()

    def hear(self, hint: Hint, ids: Any) -> None:
        if hint is not Hint.JOBS:  # the memory store tells it once until somebody claims
            self.heard |= {(hint, one) for one in ids}

    async def act(self, what: str, n: int) -> object:
        """Do one thing, and return what can be compared of the answer."""
        await self.b.advance(0.001_003)  # no two things at one instant: among equals each store may choose
        return await getattr(self, "act_" + what)(n, NAMES[n % 3])

    async def act_put(self, n: int, name: str) -> object:
        unique, delay = UNIQUES[n % 6], (0, 0, 0, 7)[n // 6 % 4]
        options: dict[str, Any] = {"unique": unique, "delay_ns": delay * NS_PER_S, "max_rescues": n // 120 % 3}
        jobs = [self.b.job("ab"[n % 2], priority=(n // 24 + more) % 5, **options) for more in range(1 + n // 360 % 3)]
        try:
            rows = await self.call(lambda: self.b.store.jobs_put(jobs))
        except UniqueConflict as error:
            return str(error), [seen(job) for job in jobs]
        return [row.id for row in rows], [row is job for row, job in zip(rows, jobs, strict=True)]

    async def act_claim(self, n: int, name: str) -> object:
        tasks = frozenset(("a", "b", "ab")[n % 3])
        claim = Claim(f"w{n % 2}", [Want(("default",), lanes_of(tasks), 1 + n % 4)], (None, 5.0, 30.0)[n // 6 % 3])
        claimed = await self.call(lambda: self.b.store.jobs_claim(claim))
        self.fences += [row.fence for row in claimed.jobs]
        wants_all = len(tasks) == 2  # of those that others want a store may tell, or not
        return [seen(row) for row in claimed.jobs], claimed.next_run_at_ns if wants_all else None

    def fence(self, n: int) -> Fenced:
        return self.fences[-1 - n % min(len(self.fences), 4)] if self.fences else Fenced("none", 1, "w")

    async def act_finish(self, n: int, name: str, *, zombie: bool = False) -> object:
        fence, kind, now = self.fence(n // 8), KINDS[n % 7], self.b.clock.now_ns()
        if kind is FinishKind.MISSED:  # a body that ran came in time
            kind = FinishKind.DONE
        zombie = zombie and kind not in {FinishKind.RETRY, FinishKind.SNOOZE}
        end = Finish(*fence, kind, now, now, now, reason="why", delay_ns=n % 2 * 3 * NS_PER_S, zombie=zombie)
        return await self.call(lambda: self.b.store.jobs_finish([end]))

    async def act_outlive(self, n: int, name: str) -> object:
        return await self.act_finish(n, name, zombie=True)

    async def act_ended(self, n: int, name: str) -> object:
        fences = self.fences[-3:]
        return await self.call(lambda: self.b.store.jobs_ended(fences))

    async def act_release(self, n: int, name: str) -> object:
        fence = self.fence(n // 2)
        return await self.call(lambda: self.b.store.jobs_release([fence], delay_ns=n % 2 * NS_PER_S, reason="stop"))

    async def act_renew(self, n: int, name: str) -> object:
        fence = self.fence(n // 2)
        renewal = Renewal(fence.job_id, fence.attempt, running_at_ns=(None, 5)[n % 2], checkpoint=n)
        return await self.call(lambda: self.b.store.jobs_renew(fence.owner, [renewal], 10.0))

    def any_job(self, n: int) -> str:
        return f"j{1 + n % max(1, self.ids.n):06d}"

    async def act_cancel(self, n: int, name: str) -> object:
        ids = [self.any_job(n)]
        return await self.call(lambda: self.b.store.jobs_request_cancel(ids, "asked"))

    async def act_retry(self, n: int, name: str) -> object:
        where = JobFilter(text=self.any_job(n))
        meant = (await self.b.store.jobs_list(where)).jobs
        if len(meant) > 1:  # others say its name as their reason; run again at once, they would be equals
            where = where._replace(states=frozenset({meant[0].state}), since_ns=meant[0].submitted_at_ns)
        return await self.call(lambda: self.b.store.jobs_retry(where))

    async def act_declare(self, n: int, name: str) -> object:
        facts: dict[str, Any] = {
            "trigger": rules(n % 3)[n // 3 % 4],
            "overlap": OVERLAPS[n // 12 % 8],
            "overlap_key": (None, "shared")[n // 96 % 2],
            "max_runs": (None, None, 3)[n // 192 % 3],
            "pause_on_failure": (None, 1)[n // 576 % 2],
            "options": RunOptions(unique=UNIQUES[n // 1152 % 6]),
        }
        return seen_schedule(await self.call(lambda: self.b.schedule(name, **facts)))

    async def act_remove(self, n: int, name: str) -> object:
        self.made.pop(name, None)
        return await self.call(lambda: self.b.store.schedules_remove([name, "none"]))

    async def act_pause(self, n: int, name: str) -> object:
        row = await self.call(lambda: self.b.store.schedules_pause(name, "note", None))
        return None if row is None else seen_schedule(row)

    async def act_resume(self, n: int, name: str) -> object:
        row = await self.call(lambda: self.b.store.schedules_resume(name, catch_up=n % 2 == 0))
        return None if row is None else seen_schedule(row)

    async def act_park(self, n: int, name: str) -> object:
        return await self.call(lambda: self.b.store.schedules_park(name, "broken"))

    async def act_fire(self, n: int, name: str) -> object:
        await self.b.advance((0, 5, 50)[n % 3])
        now = self.b.clock.now_ns()
        due = sorted(await self.b.store.schedules_due(0), key=lambda row: row.id)
        plans = [found for row in due if (found := plan(row, now)) is not None]
        claim = Claim("w0", [Want(("default",), lanes_of({"a"}), 2)], 30.0) if n % 2 else None
        fired = await self.call(lambda: self.b.store.schedules_fire(plans, claim))
        self.fences += [row.fence for row in fired.jobs]
        rows = [None if row is None else seen_schedule(row) for row in fired.schedules]
        cancelled = sorted(row.id for row in fired.cancelled)
        return rows, [seen(row) for row in fired.rows], [row.id for row in fired.jobs], cancelled, fired.wait_ns

    async def act_trigger(self, n: int, name: str) -> object:
        origin = Origin(name, 1, n, trigger="manual")
        options = RunOptions(unique=UNIQUES[n // 24 % 6])
        job = JobRecord(self.ids(), "a", (), {}, options, None, origin)
        row = await self.call(lambda: self.b.store.schedules_trigger(name, job, (None, "allow", "skip")[n % 3]))
        return None if row is None else seen(row), row is job

    async def act_backfill(self, n: int, name: str) -> object:
        made = self.made.setdefault(name, [])
        times = sorted({1 + n // 16 % 9, *made})  # one new one at most: those of one call are equals
        wanted = Backfill(name, 1 + n // 8 % 2, tuple(times), "queue_all" if n % 2 else "allow")
        done = await self.call(lambda: self.b.store.schedules_backfill(wanted))
        if done is not None:
            made[:] = times
        return None if done is None else ([seen(row) for row in done.rows], done.new, done.gone)

    async def act_purge(self, n: int, name: str) -> object:
        await self.b.store.jobs_purge(_seconds(n % 60))
        return None

    async def act_time(self, n: int, name: str) -> object:
        await self.b.advance(n % 40)
        return None

    async def everything(self) -> tuple[Any, ...]:
        """Return all there is to see, but hints: they are told alike by those that tell them at once."""
        store = self.b.store
        jobs = (await store.jobs_list(JobFilter(), limit=10_000)).jobs
        schedules = [seen_schedule(row) for row in await store.schedules_list()]
        jobs.sort(key=lambda job: job.id)
        return [seen(job) for job in jobs], schedules, dict(await store.outcomes(0)), (await store.stats()).waiting


def rules(n: int) -> tuple[Trigger, ...]:
    """Return the rules of a schedule: no two share a fire time."""
    return Every(seconds=60 + n * 0.017), Every(seconds=45 + n * 0.013), Forever(), Forever(pause=20)


def _seconds(n: int) -> Any:
    return timedelta(seconds=n)


def seen(job: JobRecord) -> dict[str, Any]:
    """Return what a row says; of how it waits only while it does."""
    found = {name: getattr(job, name) for name in JOB_FIELDS}
    return found if job.state is JobState.SUBMITTED else {**found, "order_at_ns": 0, "delay_born": False}


def seen_schedule(row: Schedule) -> dict[str, Any]:
    return {name: getattr(row, name) for name in SCHEDULE_FIELDS}


async def told_alike(story: Iterable[Step], *tellers: Teller) -> None:
    """Tell each step to all, and compare what they answer and what they show then."""
    for teller in tellers:
        await teller.b.open()
        teller.b.store.listen(teller.hear)
    for number, (what, n) in enumerate([*(("declare", n * 37) for n in range(3)), *story]):
        answers = [await teller.act(what, n) for teller in tellers]
        views = [await teller.everything() for teller in tellers]
        for answer, view in zip(answers[1:], views[1:], strict=True):
            words = f"step {number}, {what} {n}: {answers[0]} became {answer}; {differences(views[0], view)}"
            assert answer in (answers[0], LOST), words
            assert view == views[0], words


def differences(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> list[object]:
    """Return what two stores show otherwise."""
    rows = [(mine, other) for part in (0, 1) for mine, other in zip(ours[part], theirs[part], strict=False)]
    told: list[object] = [
        (mine["id"], {name: (mine[name], other[name]) for name in mine if mine[name] != other[name]})
        for mine, other in rows
        if mine != other
    ]
    return told + [(mine, other) for mine, other in zip(ours[2:], theirs[2:], strict=True) if mine != other]


def story(seed: int, length: int = 60) -> list[Step]:
    """Return a story, the same one for a seed."""
    chance = Random(seed)
    return [(chance.choice(ACTS), chance.randrange(2**16)) for _ in range(length)]
