"""Random compositions in an app: its jobs are stored, claimed, and only then wait for their flow."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from functools import partial
from typing import Any, cast

from quarterjack import Quarterjack
from quarterjack.testing import VirtualClock

from .compositions import Play
from .ledger import Case, Work

__all__ = ["AppPlay"]

CLAIM_TURNS = 60
"""Turns of the loop in which what a body's end means has reached the store."""


class AppPlay(Play):
    """One plan under way in an app."""

    sees_room = False
    can_step = False  # its jobs are due by the wall clock

    async def _go(self, loop: asyncio.AbstractEventLoop, clock: VirtualClock) -> None:
        self.turns = CLAIM_TURNS
        self.prepare(loop, clock)
        self.ledger.is_stored = True
        self.ledger.deadline_s = self.plan.option("deadline", "seconds") or math.inf
        self.ledger.retry_deadline_s = self.plan.option("retry", "deadline") or math.inf
        self.app = app = Quarterjack(shutdown_grace=5)
        app.clock = clock

        async def work(number: int) -> Any:
            return await self.body(self.ledger.cases[number])

        self.task = app.task(name="work", flow=self.flow)(work)
        async with app:
            self.arrange(clock.monotonic())
            await self.see_it_through()
            await self.end_tasks()
            self.stopped_at = clock.monotonic()
            for case in self.ledger.cases:
                if case.job is not None and not case.is_finished:
                    await case.job.cancel(wait=5)
        await self.look_at_the_end()

    def come(self, work: Work) -> None:
        """Submit a job in a task of its own, or begin a bare pass."""
        if work.passes is not None:
            super().come(work)
            return
        case = self.ledger.come(work, self.models, "manager")
        case.entered_first += work.delay / 1000
        case.entered = math.inf
        self.spawn(self._submit(case))

    async def _submit(self, case: Case) -> None:
        work = case.work
        try:
            options = cast("Any", {"metadata": {"tenant": work.tenant}, **self.options_of(work)})
            case.job = job = await self.app.submit(self.task.options(**options), case.number)
        except Exception as error:  # which of them are right is looked at there
            case.is_over = True
            self.check_refusal(work, error)
            return
        except asyncio.CancelledError:
            case.is_over = True
            raise
        # The store stamped it: if the loop stood still meanwhile, it came after that.
        case.came = ((job._record.submitted_at_ns or 0) - self.clock.now_ns() + self.clock.monotonic_ns()) / 1e9
        if case.run is None and not case.runs:
            self.ledger.enter(case, case.due, max(self.clock.monotonic(), case.due))
        if work.is_watched:
            for on in (job.on_done, job.on_error, job.on_cancel, job.on_timeout):
                on(partial(self.told, case))
        if work.cancel_after is not None:
            self.loop.call_later(work.cancel_after / 1000, self.spawn_cancel, case)

    def spawn_cancel(self, case: Case) -> None:
        """Cancel a job as its submitter may."""
        if not case.is_finished and case.cancelled_at is None:
            case.cancelled_at = self.clock.monotonic()
        self.ledger.last_event = self.clock.monotonic()
        self.spawn(self._cancel_it(case))

    @staticmethod
    async def _cancel_it(case: Case) -> None:
        with suppress(Exception):
            await case.job.cancel(wait=0)
