"""Random compositions whose jobs are items of batches: a batch passes the gates, its items end one by one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

from quarterjack import JobState, current_job

from .compositions import Plan, Play
from .ledger import Case, Run, Work
from .parts import Pick

__all__ = ["BatchPlay", "batch_of"]

MAX_SIZES: Final = (1, 2, 3, 5)
MAX_WAITS_S: Final = (0.0, 0.04)
ON_ERROR: Final[tuple[Literal["fail_all", "bisect", "singles"], ...]] = ("fail_all", "bisect", "singles")


@dataclass(eq=False)
class Item:
    """One item, and the calls of the body that it was in."""

    number: int
    work: Work
    came: float
    job: Any = None
    cancelled_at: float | None = None
    calls: int = 0
    inside: int = 0
    was_returned: bool = False
    ends_told: int = 0

    def __repr__(self) -> str:
        return f"item {self.number}"


class BatchPlay(Play):
    """One plan under way, its jobs in batches."""

    sees_room = False

    def __init__(self, plan: Plan, max_size: int, max_wait_s: float, on_error: Any) -> None:
        super().__init__(plan)
        self.max_size, self.max_wait_s, self.on_error = max_size, max_wait_s, on_error
        self.items: list[Item] = []
        self._number = 0
        self.batched: Any = None

    def arrange(self, began: float) -> None:
        self.ledger.sees_all = False
        super().arrange(began)

    def come(self, work: Work) -> None:
        """Submit an item, or begin a bare pass."""
        if work.passes is not None:
            super().come(work)
            return
        if self.batched is None:
            self.batched = self.manager.batch(
                self.call, max_size=self.max_size, max_wait=self.max_wait_s, on_error=self.on_error
            )
        self._number += 1
        item = Item(self._number, work, self.clock.monotonic())
        if self.plan.overflow == "block":
            self.spawn(self._submit_item_wait(item))
            return
        try:
            submitter = self.manager.options(key={"tenant": work.tenant}, **self.options_of(work))
            item.job = submitter.submit(self.batched, item)
        except Exception as error:  # which of them are right is looked at there
            self.check_refusal(work, error)
        else:
            self._item_has_come(item)

    async def _submit_item_wait(self, item: Item) -> None:
        work = item.work
        try:
            submitter = self.manager.options(key={"tenant": work.tenant}, **self.options_of(work))
            item.job = await submitter.submit_wait(self.batched, item)
        except Exception as error:  # likewise
            self.check_refusal(work, error)
        else:
            self._item_has_come(item)

    def _item_has_come(self, item: Item) -> None:
        work = item.work
        self.items.append(item)
        for on in (item.job.on_done, item.job.on_error, item.job.on_cancel, item.job.on_timeout):
            on(partial(self.told_of, item))
        if work.cancel_after is not None:
            self.loop.call_later(work.cancel_after / 1000, self._cancel_item, item)

    @staticmethod
    def told_of(item: Item, job: Any) -> None:
        """An item has ended."""
        item.ends_told += 1

    def _cancel_item(self, item: Item) -> None:
        if not item.job.state.is_finished and item.cancelled_at is None:
            item.cancelled_at = self.clock.monotonic()
        self.ledger.last_event = self.clock.monotonic()
        self.manager._jobs.running().cancel(item.job._record)

    # -- the body ----------------------------------------------------------------------

    async def call(self, items: list[Item]) -> list[Any]:
        """Be the body: note who came, and do to each as it wants."""
        case, run = self._begin(items)
        error: BaseException | None = None
        try:
            await self._behave_as_all(items)
        except BaseException as caught:
            error = caught
            raise
        else:
            for item in items:  # one that ran out of time has left, and may come again
                item.was_returned = item.was_returned or item.job.state is JobState.RUNNING
            return [KeyError(item.number) if item.work.end == "breaks" else f"done {item.number}" for item in items]
        finally:
            for item in items:
                item.inside -= 1
            is_interrupted = isinstance(error, asyncio.CancelledError)
            case.is_over = True
            self.ledger.end(run, error, None if is_interrupted else error is not None, unclear=is_interrupted)

    def _begin(self, items: list[Item]) -> tuple[Case, Run]:
        fault, now = self.ledger.fault, self.clock.monotonic()
        if not 1 <= len(items) <= self.max_size or len({item.work.tenant for item in items}) != 1:
            fault(f"a batch of {items}, at most {self.max_size}, of {[item.work.tenant for item in items]}")
        for item in items:
            item.calls += 1
            item.inside += 1
            # Who ran out of time has left that call, which goes on for the others; its next attempt is in another one.
            if item.inside > 1 and self.timeout_of(item.work) is None:
                fault(f"{item} is in two calls at once")
            if item.cancelled_at is not None and item.cancelled_at < self.ledger.since(now):
                fault(f"{item} was cancelled and reached the body")
            if item.was_returned:
                fault(f"{item} had its result, and is there again")
        cost = max(item.work.cost for item in items)
        case = self.ledger.come(replace(items[0].work, cost=cost, delay=0), self.models, "batches")
        case.came = case.entered_first = min(item.came + item.work.delay / 1000 for item in items)
        resource: Any = current_job().resource
        return case, self.ledger.begin(case, 1, None if resource is None else resource.name)

    async def _behave_as_all(self, items: list[Item]) -> None:
        first = items[0].calls
        ends = {item.work.end for item in items if item.work.fails >= first}
        lasts = max(item.work.lasts for item in items) / 1000
        if "hangs" in ends and self.plan.kinds & {"timeout", "deadline"}:
            lasts = 3600.0
        try:
            await asyncio.sleep(lasts)
        except asyncio.CancelledError:
            if "clings" in ends:
                await asyncio.sleep(0.03)
            raise
        if "raises" in ends:
            raise OSError(items[0].number)

    # -- the end -----------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        return super().is_over and all(item.job.state.is_finished for item in self.items)

    async def see_it_through(self) -> None:
        await super().see_it_through()
        may_hold = self.plan.kinds & {"breaker", "turns"}  # for good
        if not may_hold and not self.is_stopped and not self.is_over:
            self.ledger.fault("items wait for ever")

    async def look_at_the_end(self) -> None:
        await super().look_at_the_end()
        for item in self.items:
            state = item.job.state
            if not state.is_finished or item.ends_told != 1:
                self.ledger.fault(f"{item} is {state.value} after {item.ends_told} ends")
            if state is JobState.DONE and item.job.result() not in self._results_of(item):
                self.ledger.fault(f"{item} has the result {item.job.result()!r}")
            if state is JobState.DONE and not item.was_returned and "fallback" not in self.plan.kinds:
                self.ledger.fault(f"{item} is done and had no result")

    def _results_of(self, item: Item) -> set[Any]:
        stand_ins = {41, "after OSError", "after TimeoutError"} if "fallback" in self.plan.kinds else set[Any]()
        refusals = {"after WaitedTooLong", "after QueueFull"} if stand_ins else set[Any]()
        return {f"done {item.number}", *stand_ins, *refusals}


def batch_of(pick: Pick) -> Any:
    """Return what plays a plan in batches, as *pick* chooses."""
    max_size, max_wait_s, on_error = pick(MAX_SIZES), pick(MAX_WAITS_S), pick(ON_ERROR)
    return lambda plan: BatchPlay(plan, max_size, max_wait_s, on_error)
