"""Bodies in threads: the default for plain functions, so that they never stand in the loop's way.

A bounded pool of its own rather than ``concurrent.futures``: threads are
daemons, so that a body which never ends cannot keep the interpreter from
ending; they begin when first needed and are reused last in, first out; a slot
is counted until its body has *really* ended; and a call costs no future.

A thread cannot be stopped. A plain function that is cancelled or takes too
long is therefore reported at once, with ``stopped=False``, and goes on as a
*zombie* in its slot; it can look at ``current_job().cancel_requested`` and
leave by itself. A coroutine function given to this executor runs in an event
loop of its own there and is interrupted like any coroutine; only while a plain
function called by it holds up that loop, it is reported as a thread is.

Each body runs in the context of its call, never in its thread's."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, ClassVar, Final

from quarterjack._numbers import whole_number
from quarterjack.errors import ExecutorFull
from quarterjack.model import Outcome, OutcomeKind

from ._away import Away, Desk
from ._desk_executor import DeskExecutor
from .base import Call, Capabilities, Home, Report

__all__ = ["ThreadExecutor", "default_slots"]

log = logging.getLogger("quarterjack.executors")

MOST_BY_DEFAULT: Final = 32
SPARE: Final = 4
"""Threads beyond one per processor, as bodies in threads mostly wait."""
HEARING_S: Final = 0.1
"""A loop that has not taken up a cancel after this long stands in a plain function."""
JOIN_S: Final = 1.0
"""Idle threads end within a fraction of a millisecond; more than this would be a broken machine."""


def default_slots() -> int:
    """Return how many bodies that mostly wait run at once: one per processor and four more, at most 32."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_BY_DEFAULT, cpus + SPARE)


class ThreadExecutor(DeskExecutor):
    """Runs up to *slots* bodies at once in threads named ``qj-<name>-<n>``.

    Args:
        slots: How many; None is one per processor and four more, at most 32.
        name: What the threads are named by, and the executor in logs.

    Raises:
        InvalidOption: If *slots* is no whole number from 1.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        can_cancel_queued=True,
        can_interrupt=False,
        can_kill=False,
        can_report_start=True,
        can_report_progress=True,
        survives_worker_restart=False,
        submit_is_idempotent=False,
        runs_coroutines=True,
    )

    def __init__(self, slots: int | None = None, name: str = "thread") -> None:
        self.slots = default_slots() if slots is None else whole_number(slots, "slots", 1)
        self.name = name
        self._idle: list[_Thread] = []
        self._busy: set[_Thread] = set()
        self._numbers: Iterator[int] = itertools.count(1)

    async def start(self, home: Home) -> None:
        """Bind to the running loop; threads begin when they are needed.

        Raises:
            UsageError: If another app uses it.
        """
        before, self._desk = self._desk, self._new_desk(home)
        if before is not None:  # its app never stopped, and its loop is closed
            self._dismiss({*self._idle, *self._busy})

    @property
    def free(self) -> int:
        """Slots that no body holds; bodies that outlived their outcome hold theirs."""
        return self.slots + self.lent - len(self._busy)

    @property
    def zombies(self) -> int:
        """Bodies that outlived their outcome."""
        return 0 if self._desk is None else sum(away.is_zombie for away in self._desk.out)

    def submit(self, call: Call, report: Report) -> Away:
        """Hand the call to an idle thread, or to a new one."""
        desk = self._desk_with_room()
        thread = self._idle.pop() if self._idle else self._new_thread(desk)
        self._busy.add(thread)
        running = _Running(desk, call, report, thread)
        thread.inbox.put(running)
        return running

    def _new_thread(self, desk: Desk) -> _Thread:
        thread = _Thread(f"qj-{self.name}-{next(self._numbers)}", self, desk)
        try:
            thread.start()
        except RuntimeError as error:  # the system gives us no more threads; some may end
            raise ExecutorFull(f"no thread could be started: {error}") from error
        return thread

    def rest(self, thread: _Thread) -> None:
        """Take a thread back whose call is over; on the loop."""
        if thread in self._busy:
            self._busy.discard(thread)
            self._idle.append(thread)

    async def stop(self, grace_s: float) -> None:
        """Withdraw what has not begun, and wait up to *grace_s* seconds for what has.

        Bodies that still run then are left behind in their threads, each with a line
        in the log. They do not keep the interpreter from ending.
        """
        desk, self._desk = self._desk, None
        if desk is None:
            return
        for running in _running(desk):
            running.wind_up()
        try:
            await desk.wait_for(desk.out.copy(), grace_s)
        finally:
            self._let_go(desk)

    def _let_go(self, desk: Desk) -> None:
        left = _running(desk)
        for running in left:
            running.abandon()
            log.warning("job %s still runs in %s, which is left behind", running.call.ref, running.thread.name)
        self._dismiss({running.thread for running in left})

    def _dismiss(self, left: set[_Thread]) -> None:
        threads = [*self._idle, *self._busy]
        self._idle, self._busy, self._numbers = [], set(), itertools.count(1)
        for thread in threads:
            thread.inbox.put(None)  # one that still works finds it when its body has ended
        for thread in threads:
            if thread not in left:
                thread.join(JOIN_S)


class _Thread(threading.Thread):
    """A thread of the pool: takes calls from its inbox until there is None in it."""

    def __init__(self, name: str, executor: ThreadExecutor, desk: Desk) -> None:
        super().__init__(name=name, daemon=True)
        self.executor = executor
        self._desk = desk
        self.inbox: SimpleQueue[_Running | None] = SimpleQueue()

    def run(self) -> None:
        while (running := self.inbox.get()) is not None:
            outcome = running.run()
            if outcome is not None:
                # First the thread, then the outcome: who hears of the outcome may submit into this slot.
                self._desk.post(self.executor.rest, self)
                running.finished(outcome)
            del running, outcome  # an idle thread must not keep somebody's result alive


class _Running(Away):
    """One body at work in a thread."""

    __slots__ = ("_is_heard", "_loop", "_task", "thread")

    def __init__(self, desk: Desk, call: Call, report: Report, thread: _Thread) -> None:
        super().__init__(desk, call, report)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_heard = False
        self.thread = thread

    # -- in the thread -----------------------------------------------------------------

    def run(self) -> Outcome | None:
        """Run the body and return how it ended; None if it was withdrawn."""
        if not self.may_begin():
            return None
        self.began()
        call = self.call
        try:
            if call.is_coroutine:
                with asyncio.Runner() as runner:
                    return runner.run(self._drive(), context=call.context)
            return Outcome(OutcomeKind.DONE, call.context.run(call.fn, *call.args, **call.kwargs))
        except BaseException as error:  # the user's code ran here, and whatever it raised is its job's outcome
            return _outcome_of(error)

    async def _drive(self) -> Outcome:
        """Run a coroutine function in this thread's own loop."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        # Who asks sets `_asked` before it looks for a task, we the other way round: one of us sees the other.
        if self.is_asked:
            return Outcome(OutcomeKind.CANCELLED)
        try:
            return Outcome(OutcomeKind.DONE, await self.call.fn(*self.call.args, **self.call.kwargs))
        except BaseException as error:  # the user's code ran here; SystemExit must not pass through asyncio
            return _outcome_of(error)

    def _hear(self, reason: str) -> None:
        self._is_heard = True
        if self._task is not None:
            self._task.cancel(reason)

    # -- on the app's loop -------------------------------------------------------------

    def withdraw(self, reason: str) -> None:
        """End a call that waits in its thread's inbox, where the next one may stand behind it."""
        self.thread.executor.rest(self.thread)
        super().withdraw(reason)

    def interrupt(self, reason: str) -> None:
        """Cancel a coroutine where it stands; a plain function cannot be stopped."""
        if not self.call.is_coroutine:
            self.give_up()
            return
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._hear, reason)
            except RuntimeError:  # its loop is closed already: the outcome is on its way
                self._is_heard = True
        self.arm(min(HEARING_S, self.call.cancel_grace_s), self._still_there)

    def _still_there(self) -> None:
        rest_s = self.call.cancel_grace_s - HEARING_S
        if not self._is_heard or rest_s <= 0:
            self.give_up()
        else:
            self.arm(rest_s, self.give_up)

    def wind_up(self) -> None:
        """The executor stops: withdraw or interrupt the call where that can be; plain functions may end."""
        if self.call.is_coroutine:
            self.cancel("shutdown")
        elif self.may_begin():
            self.withdraw("shutdown")


def _outcome_of(error: BaseException) -> Outcome:
    if isinstance(error, asyncio.CancelledError):
        return Outcome(OutcomeKind.CANCELLED, error=error, reason="the body raised CancelledError")
    return Outcome(OutcomeKind.RAISED, error=error)


def _running(desk: Desk) -> list[_Running]:
    return [away for away in desk.out if isinstance(away, _Running)]
