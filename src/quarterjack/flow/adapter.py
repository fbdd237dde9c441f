"""`StrategyAdapter`: a strategy that is asked "who is next, and when do I ask again?" as part of a flow.

    came ─▶ add_task ─▶ get_next_task ─▶ (the flow's other gates) ─▶ begins ─▶ get_sleep_interval ─▶ pause ─┐
                              ▲─────────────────────────────────────────────────────────────────────────────┘

Such a strategy keeps the queue itself, so here it is two things at once: an
`Order`, for it chooses, and a `Gate`, for whom it has not chosen may not start.
One task asks it, while somebody waits or an end is to be told, and is gone
otherwise."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from contextvars import Context
from typing import Any, Final, Protocol

from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import shown
from quarterjack._signatures import check_plain
from quarterjack.clock import Clock
from quarterjack.errors import InvalidOption, UsageError

from .base import Gate, Order
from .outcome import Ended
from .waiting import Waiting

__all__ = ["PullStrategy", "StrategyAdapter"]

log = logging.getLogger("quarterjack.flow")

_METHODS: Final = ("add_task", "get_next_task", "get_sleep_interval")


class PullStrategy(Protocol):
    """A strategy of three methods; ``async def on_task_done(self)`` may be a fourth."""

    def add_task(self, task: Any, /) -> None:
        """Keep *task* until it is its turn."""

    def get_next_task(self) -> Any:
        """Return one of those that were added, which may start now, or None."""

    async def get_sleep_interval(self) -> float | None:
        """Return for how many seconds not to ask again; None names no time."""


class StrategyAdapter(Gate, Order):
    """Has jobs start in the order and with the pauses that a strategy of three methods says.

    Use it to bring along a strategy that was written for a manager that pulls: its
    ``add_task`` gets the job (a `Waiting`, with ``metadata``), and whom its
    ``get_next_task`` returns starts, once the flow's other gates let it. A new
    strategy is better off as a `Gate` or an `Order`, which are asked when something
    happens and never need to be asked in vain.

    It is asked when a job came, when one has ended (after ``on_task_done``), and when
    the time that it named is over:

    - A pause after a job was handed out is kept in full, counted from when its body began.
    - After None the time is the latest to ask again; a job that comes or ends is asked about at once.
    - None and no time named: asked again when a job comes or ends. If none runs that could
      end, *poll_interval* is all that is left, so let a strategy that goes by time name it.

    While nobody waits it is not asked at all. Its coroutines are awaited one after the
    other. A job that was cancelled while it waited is passed over when its turn comes,
    and counts as done. What one of the methods raises fails a job: ``add_task`` the
    one it got, the others the one that waits longest; ``on_task_done`` is logged.
    It goes into a flow, not before an ``async with``. O(log n) time per job besides
    what the strategy takes, O(n) space.

    Args:
        strategy: An object with ``add_task``, ``get_next_task``, ``get_sleep_interval``.
        poll_interval: Seconds, above 0; see above.
        name: What it is called in `why_waiting` and `stats`; the strategy's class by default.

    Raises:
        InvalidOption: If the strategy has not these methods.
    """

    def __init__(self, strategy: PullStrategy, *, poll_interval: Seconds = 0.01, name: str | None = None) -> None:
        missing = [method for method in _METHODS if not callable(getattr(strategy, method, None))]
        if missing or isinstance(strategy, type):
            why = "is a class; make an object of it" if isinstance(strategy, type) else f"has no {', '.join(missing)}"
            raise InvalidOption(f"strategy must have {', '.join(_METHODS)}; {shown(strategy)} {why}")
        for method in ("add_task", "get_next_task"):  # the others are awaited
            check_plain(getattr(strategy, method), f"{method} of {type(strategy).__name__}")
        super().__init__(name=type(strategy).__name__ if name is None else name)
        self.strategy: Final = strategy
        self._on_task_done: Final = getattr(strategy, "on_task_done", None)
        self._poll_s: Final = to_seconds(poll_interval, "poll_interval", exclusive=True)
        self._waiting: dict[Waiting, None] = {}
        """Those the strategy has, longest first."""
        self._gone: set[Waiting] = set()
        """Those it has that wait no more."""
        self._turn: Waiting | None = None
        """Handed out, and its body has not begun."""
        self._failed: dict[Waiting, Exception] = {}
        """About to end with that."""
        self._pauses_until = -math.inf
        self._running = 0
        self._ends = 0
        """Of which it is to be told."""
        self._news = asyncio.Event()
        self._asker: asyncio.Task[None] | None = None

    # -- as an order -------------------------------------------------------------------

    def rank(self, job: Waiting, now: float) -> float:
        return job.enqueued_at if job is self._turn or job in self._failed else math.inf

    def came(self, job: Waiting, now: float) -> None:
        self._waiting[job] = None
        try:
            self.strategy.add_task(job)
        except Exception as error:  # a user's strategy runs here; it fails this job alone
            self._fail(job, error)
        self._tell_asker()

    def chosen(self, job: Waiting, now: float) -> None:
        self._waiting.pop(job, None)

    def left(self, job: Waiting, now: float) -> None:
        self._failed.pop(job, None)
        if job is self._turn:
            self._waiting.pop(job, None)
            self._over(job)
        elif job in self._waiting:
            del self._waiting[job]
            self._gone.add(job)
            self._news.set()

    # -- as a gate ---------------------------------------------------------------------

    def eta(self, job: Waiting, now: float) -> float:
        if job in self._failed:
            raise self._failed[job]
        if job not in self._waiting:
            raise UsageError(f"{self!r} chooses among the jobs of a flow; `async with` cannot pass it, nor a router")
        return now if job is self._turn else math.inf

    def take(self, job: Waiting, now: float) -> None:
        self._running += 1

    def started(self, job: Waiting, now: float) -> None:
        self._turn = None
        self._news.set()

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        self._running -= 1
        self._waiting.pop(job, None)  # another gate raised in take
        self._over(job)

    def forget(self) -> None:
        if self._turn is not None and self._turn in self._waiting:
            del self._waiting[self._turn]
            self._ends += 1
        self._ends += self._running
        self._gone.update(self._waiting)
        self._waiting, self._failed = {}, {}
        self._turn, self._running, self._pauses_until = None, 0, -math.inf
        self._news, self._asker = asyncio.Event(), None

    def _anew(self, clock: Clock) -> StrategyAdapter:
        return StrategyAdapter(copy.deepcopy(self.strategy), poll_interval=self._poll_s, name=self.name)

    def stats(self) -> dict[str, Any]:
        """Return how many wait and how many run."""
        return {"waiting": len(self._waiting), "running": self._running}

    # -- asking ------------------------------------------------------------------------

    def _over(self, job: Waiting) -> None:
        """*job* was handed out, and has ended or will never begin."""
        if job is self._turn:
            self._turn = None
        self._ends += 1
        self._tell_asker()

    def _tell_asker(self) -> None:
        self._news.set()
        dispatcher = self._dispatcher
        if dispatcher is not None and (self._asker is None or self._asker.done()):
            name = f"asks {self.label}"
            self._asker = dispatcher.loop.create_task(self._ask(), name=name, context=Context())

    def _now(self) -> float:
        dispatcher = self._dispatcher
        return -math.inf if dispatcher is None else dispatcher.monotonic()

    async def _ask(self) -> None:
        """Ask while there is something to ask or to tell."""
        while self._waiting or self._ends:
            self._news.clear()
            await self._tell_ends()
            if not self._waiting:
                continue
            if self._now() < self._pauses_until:
                await self._wait_until(self._pauses_until)
                continue
            try:
                await self._ask_once()
            except Exception as error:  # a user's strategy runs here; it fails one job, and the next is asked about
                self._fail_oldest(error)
                await asyncio.sleep(0)

    async def _ask_once(self) -> None:
        """Let the next one in and keep the pause after it; or find that nobody is next, and wait."""
        job = await self._next()
        if job is not None:
            await self._let_in(job)
        said = await self.strategy.get_sleep_interval()
        pause_s = None if said is None else to_seconds(said, "what get_sleep_interval returns")
        if job is not None:
            self._pauses_until = self._now() + (pause_s or 0.0)
        elif self._waiting:
            longest_s = pause_s or (math.inf if self._running else self._poll_s)
            await self._wait_until(self._now() + longest_s)

    async def _next(self) -> Waiting | None:
        while (job := self.strategy.get_next_task()) is not None:
            if not isinstance(job, Waiting) or (job not in self._waiting and job not in self._gone):
                raise UsageError(f"get_next_task of {self!r} returned {job!r}, which it does not have")
            if job in self._waiting:
                return job
            self._gone.discard(job)
            self._ends += 1
            await self._tell_ends()
        return None

    async def _let_in(self, job: Waiting) -> None:
        """It is its turn: wait until its body has begun, or never will."""
        self._turn = job
        job._lane.room.rerank(job)
        while self._turn is job:
            self._news.clear()
            await self._news.wait()

    async def _wait_until(self, at: float) -> None:
        """Wait until then, or until a job comes, leaves or ends."""
        dispatcher = self._dispatcher
        alarm = None if dispatcher is None or at == math.inf else dispatcher.call_at(at, self._news.set)
        try:
            await self._news.wait()
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _tell_ends(self) -> None:
        while self._ends:
            self._ends -= 1
            if self._on_task_done is None:
                continue
            try:
                await self._on_task_done()
            except Exception:  # a user's strategy runs here; the job is over all the same
                log.exception("%r raised in on_task_done", self)

    def _fail_oldest(self, error: Exception) -> None:
        job = next(iter(self._waiting), None)
        if job is None:
            log.error("%r raised, and nobody waits whom that concerns", self, exc_info=error)
        else:
            self._fail(job, error)

    def _fail(self, job: Waiting, error: Exception) -> None:
        """Let *job* be asked for next, to be turned away."""
        del self._waiting[job]
        self._gone.add(job)
        self._failed[job] = error
        job._lane.room.rerank(job)
