"""Keeps the leases of what runs here, on stores that other processes share.

In a thread with a loop and a connection of its own, so that users' code which
blocks the app's loop cannot let leases run out. A third of a lease apart all
are renewed in batches; once a second, what bodies have said since (that they
wait elsewhere, that they began, progress, checkpoints) is passed on. The answers
say which jobs are lost (their bodies are cancelled, and the fence drops their
outcomes) and which somebody wants to end. With each full round the worker's own
row is refreshed, and an operator's command for it obeyed; that it takes nothing
more, or has parked a task, is told within a second.

A hung process must not hold its jobs for ever: what runs on the app's loop is
renewed no more once that has not turned for `LOOP_DEAD_AFTER_S`, and no job is
once it is `OVERDUE_S` past its timeout. A store that does not answer is asked
again, with growing pauses; whatever else goes wrong ends the app, and is told.

On a virtual clock all this happens on the app's loop: a thread would see no
time pass."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from quarterjack._durations import NS_PER_S
from quarterjack.clock import Clock, SystemClock
from quarterjack.errors import StoreError, StoreUnavailable
from quarterjack.executors import LoopExecutor
from quarterjack.model import Fenced, WorkerInfo
from quarterjack.stores.base import Renewal, Renewed, Store
from quarterjack.stores.leases import LeaseLink

from .batch_executor import BatchExecutor
from .outage import Outage

if TYPE_CHECKING:
    from .run import Attempt
    from .silence import Silence
    from .worker import Worker

__all__ = ["LOOP_DEAD_AFTER_S", "Renewer", "RenewerHost"]

T = TypeVar("T")

log = logging.getLogger("quarterjack.renewal")

LOOP_DEAD_AFTER_S: Final = 60.0
"""A loop that has not turned for so long counts as hung; its jobs are left to other workers."""
OVERDUE_S: Final = 60.0
"""A job so much past its timeout is out of everybody's control here."""
NEWS_S: Final = 1.0
"""What bodies say is passed on so often."""
TOLD_AFTER_S: Final = 0.5
"""A body that runs shorter is not told to have begun, nor to wait elsewhere: its end comes soon enough."""
SHARE: Final = 3
"""Leases are renewed so many times before they run out."""
LONGEST_S: Final = 10.0
"""However long leases are, a worker gives a sign of life so often."""
LONGEST_PAUSE_S: Final = 2.0
"""A store that is back is noticed so soon: others leave us `silence.CALM_S` before they take what has run out."""
LAST_S: Final = 1.0
"""A call that is under way at the end may still take so long."""
_LEAST_PAUSE_S: Final = 0.001
"""The difference of two readings may be less than any clock can show: no time would pass in such a pause."""
BATCH: Final = 500
"""Jobs renewed in one call."""


class RenewerHost(Protocol):
    """What the renewer needs of the app around it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def store(self) -> Store: ...
    @property
    def worker(self) -> Worker | None: ...
    @property
    def owner(self) -> str: ...
    @property
    def lease_s(self) -> float | None: ...
    @property
    def silence(self) -> Silence | None: ...
    def info(self) -> WorkerInfo: ...
    def obey(self, command: str) -> None: ...
    def fatal(self, error: BaseException) -> None: ...


class Renewer:
    """Renews the leases of one process, and its row, until it is stopped."""

    def __init__(self, host: RenewerHost) -> None:
        self._host = host
        self._lease_s = host.lease_s or 30.0
        self._link: LeaseLink = host.store.lease_link()
        self.outage = Outage(host.clock.monotonic, "the connection that renews leases")
        self._rng = Random()  # noqa: S311  # spreads the rounds, guards nothing
        self._turned_ns = host.clock.monotonic_ns()
        self._is_loop_dead = False
        self._overdue: set[Attempt] = set()
        self._heard: str | None = None
        """The command that was obeyed, of which the store does not know yet that it was heard."""
        self._told = host.info()
        """This process as the registry shows it."""
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._is_over = False
        self._limit: asyncio.Timeout | None = None
        """How long the call under way may take."""

    # -- life, on the app's loop ---------------------------------------------------------

    def start(self) -> None:
        """Begin to renew."""
        loop = self._host.loop
        self._ended = loop.create_future()
        if isinstance(self._host.clock, SystemClock):
            self._thread = threading.Thread(target=self._in_thread, name="quarterjack-leases", daemon=True)
            self._thread.start()
            return
        self._task = loop.create_task(self._guarded(), name="quarterjack-leases")
        self._task.add_done_callback(lambda _: self._on_end())

    async def stop(self) -> None:
        """Renew no more."""
        self._is_over = True
        if self._ended is None:
            return
        if self._end is not None:
            with suppress(RuntimeError):  # its loop is closed: it is at its end
                self._end()
        await self._ended
        if self._thread is not None:
            self._thread.join()

    def _on_end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _pulse(self) -> None:
        """The app's loop turns."""
        self._turned_ns = self._host.clock.monotonic_ns()

    # -- life, in the thread ----------------------------------------------------------------

    def _in_thread(self) -> None:
        try:
            asyncio.run(self._guarded())
        finally:
            self._tell(self._on_end)

    async def _guarded(self) -> None:
        """Renew until the end. Should anything of ours raise, the app ends: leases must not run out in silence."""
        over = asyncio.Event()
        loop = asyncio.get_running_loop()

        def end() -> None:
            over.set()
            if self._limit is not None and not self._limit.expired():
                self._limit.reschedule(loop.time() + LAST_S)

        self._end = lambda: loop.call_soon_threadsafe(end)
        try:
            await self._rounds(over)
        except asyncio.CancelledError:
            self._tell(self._host.fatal, RuntimeError("somebody cancelled the renewal of leases"))
        except Exception as error:  # nothing of ours should raise here; a third party's store may
            self._tell(self._host.fatal, error)
        finally:
            with suppress(StoreError):  # it is let go of in any case
                await self._within(self._link.close())

    def _tell(self, call: Callable[..., object], *args: object) -> None:
        """Have something done on the app's loop."""
        with suppress(RuntimeError):  # it is closed: nobody is left to be told
            self._host.loop.call_soon_threadsafe(call, *args)

    async def _rounds(self, over: asyncio.Event) -> None:
        monotonic = self._host.clock.monotonic
        full_at = monotonic() + self._spread(self._between_s)
        while not self._is_over:
            pause_s = min(NEWS_S * self._rng.uniform(0.8, 1.0), max(_LEAST_PAUSE_S, full_at - monotonic()))
            if await _is_set_within(over, pause_s):
                return
            is_full = monotonic() >= full_at
            try:
                await self._within(self._link.open())
                await self.renew(is_full=is_full)
            except StoreError as error:
                pause_s = self.outage.failed("renewing leases", error)
                full_at = 0.0  # all of them, as soon as it works
                if await _is_set_within(over, min(pause_s, self._between_s, self._spread(LONGEST_PAUSE_S))):
                    return
                continue
            self.outage.worked("renewing leases")
            if is_full:
                full_at = monotonic() + self._spread(self._between_s)

    @property
    def _between_s(self) -> float:
        return min(self._lease_s / SHARE, LONGEST_S)

    def _spread(self, seconds: float) -> float:
        return seconds * self._rng.uniform(0.85, 1.0)

    # -- a round -----------------------------------------------------------------------------

    async def renew(self, *, is_full: bool = True) -> None:
        """Renew everything once, or only what has news.

        Raises:
            StoreError: If the store does not answer before the next round is due; the rest is not renewed then.
        """
        self._tell(self._pulse)
        host, worker, asked_ns = self._host, self._host.worker, self._host.clock.monotonic_ns()
        if worker is not None:
            self._look_at_loop(asked_ns)
            held = [attempt for attempt in worker.held() if self._is_alive(attempt, asked_ns)]
            chosen = held if is_full else [attempt for attempt in held if _has_news(attempt, asked_ns)]
            for start in range(0, len(chosen), BATCH):
                await self._renew(chosen[start : start + BATCH])
            if is_full:
                await self._renew_going(worker.on_their_way())
        if is_full or _has_changed(host.info(), self._told):
            await self._register()
        if is_full and host.silence is not None:
            host.silence.renewed(asked_ns)

    async def _register(self) -> None:
        """Refresh this process's row, and have it do what an operator asks."""
        told = self._host.info()
        command = await self._within(self._link.workers_put(told._replace(command=self._heard)))
        self._told, self._heard = told, command
        if command is not None:
            self._tell(self._host.obey, command)

    async def _renew(self, attempts: Sequence[Attempt]) -> None:
        renewals = [attempt.renewal() for attempt in attempts]
        answer = await self._within(self._link.jobs_renew(self._host.owner, renewals, self._host.lease_s))
        for attempt, renewal in zip(attempts, renewals, strict=True):
            attempt.sent = renewal
        if answer.lost or answer.cancelled:
            self._tell(self._answered, answer, {attempt.job_id: attempt for attempt in attempts})

    async def _renew_going(self, fences: Sequence[Fenced]) -> None:
        """Keep jobs that were given back while the store does not know of it: nobody is to rescue them."""
        own = [Renewal(fence.job_id, fence.attempt) for fence in fences]
        for start in range(0, len(own), BATCH):  # not with the others: we may hold newer attempts of the same jobs
            batch = own[start : start + BATCH]
            await self._within(self._link.jobs_renew(self._host.owner, batch, self._host.lease_s))

    async def _within(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call of the link, as long as there is between two rounds: others wait behind it."""
        try:
            async with asyncio.timeout(LAST_S if self._is_over else self._between_s) as self._limit:
                return await call
        except TimeoutError:
            raise StoreUnavailable(f"no answer within {self._between_s:.3g} s") from None
        finally:
            self._limit = None

    def _answered(self, answer: Renewed, asked: Mapping[str, Attempt]) -> None:
        worker = self._host.worker
        if worker is not None:
            worker.cancel_local(answer.cancelled)
            worker.lose([asked[job_id] for job_id in answer.lost])

    # -- who is not renewed --------------------------------------------------------------------

    def _look_at_loop(self, now_ns: int) -> None:
        still_s = (now_ns - self._turned_ns) / NS_PER_S
        is_dead = still_s > LOOP_DEAD_AFTER_S
        if is_dead and not self._is_loop_dead:
            text = "the event loop has not turned for %.0f s: the leases of its jobs are renewed no more"
            log.error(text, still_s)
        elif self._is_loop_dead and not is_dead:
            log.warning("the event loop turns again: the leases of its jobs are renewed")
        self._is_loop_dead = is_dead

    def _is_alive(self, attempt: Attempt, now_ns: int) -> bool:
        if self._is_loop_dead and isinstance(attempt.executor, LoopExecutor | BatchExecutor):
            return False
        began_ns, timeout_s = attempt.began_mono_ns, attempt.timeout_s
        if began_ns is None or timeout_s is None or now_ns - began_ns <= (timeout_s + OVERDUE_S) * NS_PER_S:
            return True
        if attempt not in self._overdue:
            self._overdue = _only(self._overdue, self._host.worker) | {attempt}
            text = "job %s (%s) is %g s past its timeout and does not end: its lease is renewed no more"
            log.error(text, attempt.job_id, attempt.record.task, OVERDUE_S)
        return False


def _only(attempts: Iterable[Attempt], worker: Worker | None) -> set[Attempt]:
    """Return those of *attempts* that are still held."""
    return set(attempts).intersection(() if worker is None else worker.held())


def _has_changed(now: WorkerInfo, told: WorkerInfo) -> bool:
    """Say whether others should know before the next full round."""
    return (now.halt, now.parked) != (told.halt, told.parked)


def _has_news(attempt: Attempt, now_ns: int) -> bool:
    if attempt.has_words:
        return True
    sent = attempt.sent
    since_ns = attempt.began_mono_ns
    if since_ns is not None:
        is_told = sent is not None and sent.running_at_ns is not None
    else:
        since_ns = attempt.accepted_mono_ns
        is_told = sent is not None and sent.started_at_ns is not None
    return since_ns is not None and not is_told and now_ns - since_ns > TOLD_AFTER_S * NS_PER_S


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
