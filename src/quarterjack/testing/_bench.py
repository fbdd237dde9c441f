"""`Bench`: a store on a clock that a test moves, and short ways to ask it."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from quarterjack import planner
from quarterjack._durations import NS_PER_S
from quarterjack.model import (
    Fenced,
    Finish,
    FinishKind,
    JobIds,
    JobRecord,
    JobState,
    Payload,
    RunOptions,
    Schedule,
    Timing,
    lanes_of,
)
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import Claim, Claimed, Store, Want
from quarterjack.triggers import Every

from ._clock import VirtualClock

__all__ = ["TASKS", "Bench"]

TASKS: Final = frozenset({"a", "b"})
"""What workers of a bench know."""


class Bench:
    """A store on a clock of its own, and short ways to ask it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = VirtualClock("2026-03-02T09:00Z")
        self.ids = JobIds()
        self.encoding = Encoding()

    async def open(self) -> None:
        """Open the store on this clock."""
        await self.store.open(self.clock, self.ids, self.encoding)

    async def advance(self, seconds: float) -> None:
        """Let time pass, for the store too."""
        self.clock.move_to(self.clock.monotonic_ns() + round(seconds * NS_PER_S))

    def job(self, task: str = "a", **options: Any) -> JobRecord:
        """Return a new job."""
        return JobRecord(self.ids(), task, (), {}, RunOptions(**options))

    async def put(self, task: str = "a", **options: Any) -> JobRecord:
        """Store one job."""
        (row,) = await self.store.jobs_put([self.job(task, **options)])
        return row

    async def claim(
        self,
        slots: int = 10,
        *,
        owner: str = "w1",
        lease_s: float | None = 30.0,
        tasks: frozenset[str] = TASKS,
        queues: tuple[str, ...] = ("default",),
    ) -> list[JobRecord]:
        """Lease up to *slots* jobs."""
        return (await self.claimed(slots, owner=owner, lease_s=lease_s, tasks=tasks, queues=queues)).jobs

    async def claimed(
        self,
        slots: int = 10,
        *,
        owner: str = "w1",
        lease_s: float | None = 30.0,
        tasks: frozenset[str] = TASKS,
        queues: tuple[str, ...] = ("default",),
    ) -> Claimed:
        """As `claim`, with when to look again."""
        return await self.store.jobs_claim(Claim(owner, [Want(queues, lanes_of(tasks), slots)], lease_s))

    async def began(self, *fences: Fenced) -> None:
        """Begin bodies, as their worker does: where rows are live objects it writes that into them."""
        for row, fence in zip(await self.store.jobs_get([f.job_id for f in fences]), fences, strict=True):
            if self.store.keeps_objects and row is not None and row.state.is_held and row.fence == fence:
                row.state = JobState.RUNNING

    async def finish(self, fence: Fenced, kind: FinishKind = FinishKind.DONE, **facts: Any) -> bool:
        """Record the outcome of a body that ran; say whether it was taken."""
        if kind is not FinishKind.MISSED:
            await self.began(fence)
        (state,) = await self.store.jobs_finish([Finish(*fence, kind, await self.store.now_ns(), **facts)])
        return state is not None

    async def get(self, job_id: str) -> JobRecord:
        """Return a snapshot of one row."""
        (row,) = await self.store.jobs_get([job_id])
        assert row is not None
        return row.copy()

    async def states(self, jobs: Sequence[JobRecord]) -> list[str]:
        """Return the states of rows, as words."""
        return [
            row.state.value if row is not None else "gone" for row in await self.store.jobs_get([j.id for j in jobs])
        ]

    async def schedule(self, schedule_id: str = "s", *, every_s: float = 60.0, **payload: Any) -> Schedule:
        """Put a schedule of task ``a``."""
        trigger = payload.pop("trigger", None) or Every(seconds=every_s)
        schedule = Schedule(schedule_id, Timing(trigger=trigger), Payload(task="a", **payload))
        (put,) = await self.store.schedules_put([schedule])
        return put.row

    async def plan(self, schedule_id: str = "s") -> planner.Plan:
        """Return what is due of a schedule."""
        row = await self.store.schedules_get(schedule_id)
        assert row is not None
        plan = planner.plan(row, await self.store.now_ns())
        assert plan is not None, "nothing is due"
        return plan
