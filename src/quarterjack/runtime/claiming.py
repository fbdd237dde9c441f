"""The claimer: asks the store for as many jobs as there are free slots.

One small task, asleep when there is nothing to do. Fairness: a tenth of the
slots is kept for scheduled ticks, which come already leased from
``schedules_fire``, so a flood of submitted jobs never fills the last slot
before a tick; and the loop turns after each batch."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final

from quarterjack._durations import NS_PER_S
from quarterjack.errors import StoreError
from quarterjack.executors import Executor
from quarterjack.stores.base import Claim, Renewal, Want

from .unanswered import Unanswered
from .worker_host import Lanes, WorkerHost

if TYPE_CHECKING:
    from quarterjack.timer import TimerHandle

    from .silence import Silence
    from .worker import Worker

__all__ = ["POLL_S", "Claimer"]

log = logging.getLogger("quarterjack.worker")

TICK_SHARE: Final = 10
"""One slot in this many is kept for scheduled ticks (none where there is only one, or no schedule sends its runs)."""
CLAIM_MOST: Final = 32
"""Jobs claimed in one turn of the loop where a claim is a function call; see `FLOOD` in ``_app_jobs``."""
FETCH_MOST: Final = 500
"""Jobs claimed in one call of a store that is elsewhere."""
AVOID_EARLY_S: Final = 0.25
AVOID_S: Final = 2.0
"""A job that does not fit here is left to others from shortly before it is offered again until all have looked."""
UNANSWERED: Final = "its claim was not answered"
NOBODY: Final = Renewal("-", 0)
"""Of no job: renewed where none is held, to hear whether the store is back."""
SLACK_NS: Final = 100_000
"""An alarm for the store's time is left as it is unless it is off by more: each reading of two clocks differs."""
POLL_S: Final = 1.0
"""On a shared store hints may be lost; looking again this often (jittered) is what counts."""
POLL_SHARE: Final = (0.7, 0.95)
"""A look at what may be claimed comes after this part of it: within a second of a lease's end somebody has its job."""


class Claimer:
    """Claims jobs for one worker."""

    def __init__(self, worker: Worker, host: WorkerHost, queues: Sequence[str]) -> None:
        self._worker = worker
        self._host = host
        self._store = host.store
        self.queues = list(queues)
        self.wake = asyncio.Event()
        """Set when there may be something to claim, or room for it."""
        self.is_open = True
        """False once it was told to stop: then nothing is claimed any more."""
        self.by_executor: list[Lanes] = []
        self._lanes: list[Lanes] = []
        """As `by_executor`, with those of tasks that have a flow."""
        self.tick_lanes: frozenset[str] = frozenset()
        """Those of the runs of schedules."""
        self._ticking: frozenset[Executor] = frozenset()
        """Where a share of the slots is kept for ticks."""
        self._most = CLAIM_MOST if host.store.keeps_objects else FETCH_MOST
        self._slack_ns = 0 if host.store.uses_local_clock else SLACK_NS
        self._rng = Random()  # noqa: S311  # spreads the looks, guards nothing
        self._due: TimerHandle | None = None
        self._poll: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._asked_ns: int | None = None
        self.unanswered = Unanswered()
        self._avoided: Counter[str] = Counter()
        self._windows: dict[object, asyncio.TimerHandle] = {}
        self._is_over = False

    @property
    def unanswered_s(self) -> float:
        """For how many seconds the store has not answered the claim under way; 0.0 if there is none."""
        asked_ns = self._asked_ns
        return 0.0 if asked_ns is None else (self._host.clock.monotonic_ns() - asked_ns) / NS_PER_S

    def free_for_ticks(self, wanted: int) -> Claim | None:
        """Return a claim over every free slot, for jobs that fire now; None if there is none.

        Ask for it in a block of `unanswered`, in the same turn of the loop.
        """
        if not self.is_open or self._worker.recorder.is_full or self.unanswered.is_settling:
            return None
        flows = self._worker.flows
        queues = tuple(self.queues if flows is None else flows.plain(self.queues))
        wants = [
            Want(queues, lanes, min(free, wanted))
            for executor, lanes, _ in self.by_executor
            if (free := executor.free) > 0
        ]
        if flows is not None:
            wants += flows.wants(self.queues, most=wanted, for_ticks=True)
        return Claim(self._host.owner, wants, self._host.lease_s) if wants else None

    def regroup(self, lanes: list[Lanes], plain: list[Lanes]) -> None:
        """Learn which lanes go to which executor; *plain* ones are of tasks without a flow."""
        self._lanes, self.by_executor = lanes, plain
        self._look_where_ticks_run()

    def keep_for_ticks(self, lanes: frozenset[str]) -> None:
        """Keep a share of the slots for ticks from now on where these *lanes* of theirs go."""
        if lanes is not self.tick_lanes:
            self.tick_lanes = lanes
            self._look_where_ticks_run()

    def _look_where_ticks_run(self) -> None:
        before = self._ticking
        self._ticking = frozenset(one.executor for one in self._lanes if not one.ticks.isdisjoint(self.tick_lanes))
        if before - self._ticking:
            self._worker.poke()

    def kept_of(self, executor: Executor) -> int:
        """Return how many of an executor's slots are kept for ticks now."""
        slots = executor.slots
        return max(1, slots // TICK_SHARE) if slots > 1 and executor in self._ticking else 0

    def _wants(self) -> list[Want]:
        """Return what there is room for, leaving a share of each executor to ticks."""
        if self._worker.recorder.is_full:  # looked at again when outcomes are recorded
            return []
        flows = self._worker.flows
        queues = tuple(self.queues if flows is None else flows.plain(self.queues))
        wants: list[Want] = [] if flows is None else flows.wants(self.queues, most=self._most)
        for executor, all_lanes, ticks in self.by_executor:
            lanes = all_lanes - self._avoided.keys() if self._avoided else all_lanes
            free = executor.free
            if flows is not None:
                free -= flows.reserved(executor)
            kept = self.kept_of(executor)
            if free > kept:
                wants.append(Want(queues, lanes, min(free - kept, self._most)))
            if kept and free > 0:  # ticks that found every slot taken are not to wait behind a flood
                wants.append(Want(queues, ticks, min(free, kept)))
        if len(self.queues) > 1:
            self.queues.append(self.queues.pop(0))  # the next claim begins with the next queue
        return wants

    def avoid(self, lane: str, after_s: float) -> None:
        """Leave *lane* to other workers for a while, *after_s* seconds from now: a job that does not fit comes back."""
        loop = asyncio.get_running_loop()
        for at_s, step in ((after_s - AVOID_EARLY_S, 1), (after_s + AVOID_S, -1)):
            token = object()
            self._windows[token] = loop.call_later(at_s, self._step, token, lane, step)

    def _step(self, token: object, lane: str, step: int) -> None:
        del self._windows[token]
        self._avoided[lane] += step
        if not self._avoided[lane]:
            del self._avoided[lane]
            self._worker.poke()

    async def run(self) -> None:
        """Claim whenever there is room, until `end`."""
        while not self._is_over:
            self.wake.clear()
            if self._worker.flows is not None and self._worker.flows.look_at_slots():
                # What waits for a slot goes first; only once it went is it known how many slots are left.
                asyncio.get_running_loop().call_soon(self.wake.set)
            if self._pause is None:
                wants = self._wants() if self.is_open else []
                if (wants or self.unanswered.is_owed) and await self._claim(wants):
                    await asyncio.sleep(0)  # let the bodies, the timer and everybody else have their turn
                    continue
            await self.wake.wait()
        self._disarm()

    async def _claim(self, wants: list[Want]) -> bool:
        self._asked_ns = asked_ns = self._host.clock.monotonic_ns()
        try:
            if self.unanswered.is_owed:
                await self.settle()
            if not wants:
                return False
            if self._host.silence is not None and not await self._is_calm(self._host.silence):
                return False
            with self.unanswered:
                claimed = await self._store.jobs_claim(Claim(self._host.owner, wants, self._host.lease_s))
        except StoreError as error:
            self._wait(self._host.outage.failed("claiming jobs", error))
            return False
        finally:
            self._asked_ns = None
        if self._host.silence is not None:
            self._host.silence.answered()
        self._host.outage.worked("claiming jobs")
        self._arm(claimed.next_run_at_ns)
        self._worker.begin(claimed.jobs, asked_ns)
        return bool(claimed.jobs)

    async def _is_calm(self, silence: Silence) -> bool:
        """Renew what is held here before a claim that could rescue it from this very process.

        After an outage leases have run out of bodies that run, and of jobs whose outcome waits to be recorded, here
        and elsewhere; False while the others have theirs renewed. Who else claims first takes them all the same:
        then the fence decides.
        """
        if silence.is_long:
            asked_ns, owner, lease_s = self._host.clock.monotonic_ns(), self._host.owner, self._host.lease_s
            own = [Renewal(fence.job_id, fence.attempt) for fence in self._worker.fences()] or [NOBODY]
            for start in range(0, len(own), FETCH_MOST):
                await self._store.jobs_renew(owner, own[start : start + FETCH_MOST], lease_s)
            silence.renewed(asked_ns)
        calm_s = silence.calm_s
        if calm_s:
            self._wait(calm_s)
        return not calm_s

    async def settle(self) -> None:
        """Give back what was leased by a call whose answer was lost.

        Raises:
            StoreError: If the store does not answer.
        """
        with self.unanswered.settling():
            known = self._worker.fences()
            ids = await self._store.jobs_release_unknown(self._host.owner, known, reason=UNANSWERED)
        if ids:
            log.warning("%d jobs were leased to this process by a call that was not answered; they go back", len(ids))

    def _wait(self, pause_s: float) -> None:
        """Claim nothing for a while."""
        self._pause = asyncio.get_running_loop().call_later(pause_s, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._worker.poke()

    def _arm(self, next_run_at_ns: int | None) -> None:
        if self._store.is_shared:
            if self._poll is not None:
                self._poll.cancel()
            pause_s = POLL_S * self._rng.uniform(*POLL_SHARE)
            self._poll = asyncio.get_running_loop().call_later(pause_s, self._worker.poke)
        due_ns = None if next_run_at_ns is None else self._host.time.local_ns(next_run_at_ns)
        if self._due is not None:
            if due_ns is not None and abs(self._due.due_ns - due_ns) <= self._slack_ns:
                return
            self._due.cancel()
            self._due = None
        if due_ns is not None:
            self._due = self._host.timer.call_at(due_ns, self._on_due)

    def _on_due(self) -> None:
        self._due = None
        self._worker.poke()

    def end(self) -> None:
        """Claim no more; a call that is under way comes to its end, and what it brings is given back."""
        self.is_open, self._is_over = False, True
        self.wake.set()

    def _disarm(self) -> None:
        for timer in (self._due, self._poll, self._pause, *self._windows.values()):
            if timer is not None:
                timer.cancel()
        self._due = self._poll = self._pause = None
