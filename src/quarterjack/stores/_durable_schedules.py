"""What every durable store does alike with schedules. Half of `_durable`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from quarterjack.backfill import Backfill
from quarterjack.declared import Put
from quarterjack.model import JobRecord, Schedule, SubmittedBy
from quarterjack.planner import Plan

from ._durable_base import DurableBase
from ._needs import Needs
from ._part import Part
from ._part_rows import Stamps
from .base import Backfilled, Claim, Fired

__all__ = ["DurableSchedules"]


_LINES_KEPT: Final = 10_000


class DurableSchedules(DurableBase):
    """The calls that are about schedules."""

    def __init__(self) -> None:
        super().__init__()
        self._line_by_id: dict[str, str] = {}
        """The overlap keys of schedules that ask who is open, to be loaded at once the next time: it saves a look."""

    async def schedules_put(self, schedules: Sequence[Schedule]) -> list[Put]:
        """Insert or update by id; a trigger that raises parks its own row.

        Raises:
            InvalidOption: If one of them cannot be written down as plain values; none is put then.
        """
        settled = [self._encoding.settled(schedule) for schedule in schedules]
        ids = frozenset(schedule.id for schedule in schedules)
        return await self._transact(Needs(schedules=ids), lambda part, now: part.put_schedules(settled, now))

    async def schedules_remove(self, schedule_ids: Sequence[str]) -> int:
        """Delete rows; their jobs stay, their backfills are forgotten."""
        needs = Needs(schedules=frozenset(schedule_ids))
        return await self._transact(needs, lambda part, _now: part.remove_schedules(schedule_ids))

    async def schedules_fire(self, plans: Sequence[Plan], claim: Claim | None = None) -> Fired:
        """Make plans true; see the contract."""
        ids = [plan.schedule_id for plan in plans]
        asked: dict[str, str] = {}

        def decide(part: Part, now: int) -> Fired:
            asked.update(part.require_to_fire(ids, claim))
            return part.fire(plans, claim, now)

        lines = frozenset(key for schedule_id in ids if (key := self._line_by_id.get(schedule_id)) is not None)
        fired = await self._transact(Needs(schedules=frozenset(ids), lines=lines), decide)
        for schedule_id in ids:
            self._line_by_id.pop(schedule_id, None)
        if len(self._line_by_id) > _LINES_KEPT:
            self._line_by_id.clear()
        self._line_by_id.update(asked)
        return fired

    async def schedules_pause(self, schedule_id: str, note: str | None, until_ns: int | None) -> Schedule | None:
        """Stop firing; the cursor stands still."""
        needs = Needs(schedules=frozenset({schedule_id}))
        return await self._transact(needs, lambda part, now: part.pause(schedule_id, note, until_ns, now))

    async def schedules_resume(self, schedule_id: str, *, catch_up: bool) -> Schedule | None:
        """Fire again, from now on or from the cursor. A schedule that is not paused stays as it is."""
        needs = Needs(schedules=frozenset({schedule_id}))
        return await self._transact(needs, lambda part, now: part.resume(schedule_id, now, catch_up=catch_up))

    async def schedules_park(self, schedule_id: str, reason: str) -> None:
        """Stop a schedule whose rule is broken, and keep the reason."""
        needs = Needs(schedules=frozenset({schedule_id}))
        await self._transact(needs, lambda part, _now: part.park(schedule_id, reason))

    async def schedules_trigger(self, schedule_id: str, job: JobRecord, overlap: str | None = None) -> JobRecord | None:
        """Insert one extra job of a schedule under its overlap policy, or *overlap*."""

        def decide(part: Part, now: int) -> JobRecord | None:
            stamps.take_back()
            return part.trigger(schedule_id, job, overlap, now)

        with Stamps([job]) as stamps:
            return await self._transact(Needs(schedules=frozenset({schedule_id})), decide)

    async def schedules_backfill(self, plan: Backfill, by: SubmittedBy | None = None) -> Backfilled | None:
        """Insert the jobs of fire times that have passed, those never made yet."""
        wanted = frozenset((plan.schedule_id, plan.generation, nominal) for nominal in plan.nominals)

        def decide(part: Part, now: int) -> Backfilled | None:
            part.require(Needs(jobs=frozenset(part.occurrences.values())))
            return part.backfill(plan, by, now)

        return await self._transact(Needs(schedules=frozenset({plan.schedule_id}), occurrences=wanted), decide)
