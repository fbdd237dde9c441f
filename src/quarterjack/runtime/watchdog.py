"""The watchdog: says which line holds up the event loop, while it does.

Once per threshold, but at most seven times a second, a thread looks whether the
loop sleeps. If it does not, the thread posts a beat to it; if that is not taken
up within the threshold, the loop stands still. The watchdog then looks at the
stack of the loop's thread, finds the user's line, and logs it with the task and
what to do about it; again each time the block has doubled. When the loop is
back, the whole block is counted and reported there.

So a block that outlasts the threshold and the pause between two looks is always
seen while it lasts, and its seconds are short of the truth by at most that
pause; where a job's body stands there that began in that pause, they count from its
beginning. Code that holds the interpreter itself (a long C call) keeps this thread
from looking too: it is noticed by waking late, and reported afterwards.
Blocking is a matter of real time, so the machine's clock is asked even under
virtual time."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from contextvars import Context
from types import FrameType
from typing import Any, Final, NamedTuple, Protocol, Self

from quarterjack._durations import NS_PER_S
from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.context import CURRENT
from quarterjack.events import EventStream, LoopBlocked

from ._stacks import Sleeping, Stack
from .run import Attempt

__all__ = ["Blocked", "Owner", "Watchdog", "WatchedService"]

log = logging.getLogger("quarterjack.watchdog")

SHORTEST_PERIOD_S: Final = 0.15
"""Waking a thread to look costs 60 to 95 µs of CPU on a small virtual machine: seven a second are 0.07 %
of one processor. The loop is not woken for it: that would cost as much again."""
LONGEST_PERIOD_S: Final = 1.0
"""With a high threshold, how much too late a block may be noticed."""
JOIN_S: Final = 1.0
SHOWN_MOST: Final = 1_000
"""Places that are remembered; code that is made anew for each block has no end of them."""

ADVICE: Final = "use executor='process' for it if it computes, executor='thread' if it waits, or await where it waits"


class Blocked(NamedTuple):
    """A block of the loop that is over, or one look at it."""

    seconds: float
    where: str
    """``file:line in function`` of the innermost frame that is neither ours nor the standard library's."""
    task: str | None
    """The quarterjack task whose body stands there, if one does."""
    job_id: str | None
    stack: str


class Owner(NamedTuple):
    """Whose body an asyncio task is."""

    task: str
    job_id: str
    began_ns: int | None = None
    """When its body began, on the machine's monotonic clock; None where that is not known."""


class Watchdog:
    """Watches one loop from a thread of its own, between `start` and `stop`.

    Args:
        loop: The loop to watch.
        threshold_s: How long the loop may stand still, in seconds.
        report: Called on the loop with each block, when it is over.
        whose: Says whose body an asyncio task is; called in the watchdog's thread.
        clock: For tests.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threshold_s: float,
        report: Callable[[Blocked], None],
        whose: Callable[[asyncio.Task[Any] | None], Owner | None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._loop = loop
        self.threshold_s = threshold_s
        self._period_s = min(max(threshold_s, SHORTEST_PERIOD_S), LONGEST_PERIOD_S)
        self._period_ns = round(self._period_s * NS_PER_S)
        self._threshold_ns = round(threshold_s * NS_PER_S)
        self._report = report
        self._whose = whose
        self._clock = clock
        self._context = Context()
        self._loop_thread = 0
        self._is_over = False
        self._end = threading.Lock()  # held until the end: waiting for it is cheaper than for an Event
        self._end.acquire()
        self._sleeping = Sleeping()
        self._lock = threading.Lock()
        self._beat_ns: int | None = None
        """When the beat was posted that the loop has not taken up yet."""
        self._slept_ns = 0
        """When the loop was last seen to sleep, or took up a beat."""
        self._shown: set[str] = set()
        """Places whose stack is in the log."""
        self._seen: Blocked | None = None
        """The last look at the block that lasts."""
        self._thread = threading.Thread(target=self._watch, name="qj-watchdog", daemon=True)
        self.blocks = 0
        """Blocks that are over."""
        self.blocked_s = 0.0
        """How long they lasted together, in seconds."""

    @classmethod
    def start_for(cls, service: WatchedService, threshold_s: float) -> Self:
        """Watch the loop of a running app, and tell its events."""

        def report(blocked: Blocked) -> None:
            if service.events.has_listeners:
                service.events.send(LoopBlocked(at_ns=service.clock.now_ns(), **blocked._asdict()))

        def whose(task: asyncio.Task[Any] | None) -> Owner | None:
            owner = _owner(task, service.worker)
            return owner if service.clock is SYSTEM_CLOCK or owner is None else owner._replace(began_ns=None)

        watchdog = cls(service.loop, threshold_s, report, whose)
        watchdog.start()
        return watchdog

    def start(self) -> None:
        """Begin to watch; on the loop's own thread."""
        self._loop_thread = threading.get_ident()
        self._loop.call_soon(self._on_first_turn, context=self._context)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; idempotent, from any thread, also after the loop was closed."""
        with self._lock:
            if not self._is_over:
                self._is_over = True
                self._end.release()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    # -- on the loop -------------------------------------------------------------------

    def _on_first_turn(self) -> None:
        self._sleeping.learn(sys._getframe(1))  # who called us is the loop

    def _on_beat(self) -> None:
        """The loop turns: a beat that waited too long was a block."""
        with self._lock:
            posted_ns, self._beat_ns = self._beat_ns, None
            seen, self._seen = self._seen, None
            now_ns = self._slept_ns = self._clock.monotonic_ns()
        if posted_ns is None or self._is_over:
            return
        seconds = (now_ns - posted_ns) / NS_PER_S
        if seconds < self.threshold_s:
            return
        self.blocks += 1
        self.blocked_s += seconds
        if seen is None:
            seen = Blocked(seconds, "", None, None, "")
            log.warning(
                "the event loop stood still for %.3f s and turned before anybody could look where: "
                "code that holds the interpreter itself, or a process that was stopped",
                seconds,
            )
        else:
            log.info("the event loop turns again after %.3f s at %s", seconds, seen.where)
        self._report(seen._replace(seconds=seconds))

    # -- in the watchdog's thread --------------------------------------------------------

    def _watch(self) -> None:
        due_ns = self._clock.monotonic_ns() + self._period_ns
        while not self._end.acquire(timeout=self._period_s):
            now_ns = self._clock.monotonic_ns()
            is_late = now_ns - due_ns >= self._threshold_ns  # nobody could run: neither could the loop
            if is_late or not self._sleeping.is_so(self._frame()):
                if not self._post(due_ns if is_late else now_ns):
                    return
                self._follow()
            else:
                self._slept_ns = now_ns
            due_ns = self._clock.monotonic_ns() + self._period_ns

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._loop_thread)  # documented for this purpose

    def _post(self, since_ns: int) -> bool:
        """Send a beat; False if the loop is closed."""
        self._beat_ns = since_ns
        try:
            self._loop.call_soon_threadsafe(self._on_beat, context=self._context)
        except RuntimeError:
            return False
        return True

    def _follow(self) -> None:
        """Stay with a beat until it is taken up, or the end."""
        look_at_ns = self._threshold_ns
        while (posted_ns := self._beat_ns) is not None and not self._is_over:
            if not self._loop.is_running():  # a loop that nobody runs is not blocked
                self._beat_ns = None
                return
            lasts_ns = self._clock.monotonic_ns() - posted_ns
            if lasts_ns >= look_at_ns:
                self._look(posted_ns)
                look_at_ns = 2 * lasts_ns
            if self._end.acquire(timeout=min(look_at_ns - lasts_ns, self._period_ns) / NS_PER_S):
                self._end.release()
                return

    def _look(self, posted_ns: int) -> None:
        """Log where the loop stands, unless it turned meanwhile."""
        frame = self._frame()
        if frame is None or self._sleeping.is_so(frame):
            return
        stack = Stack(frame)
        del frame
        owner = self._whose(_current_task(self._loop))
        with self._lock:
            if self._beat_ns != posted_ns:  # what we saw may be another moment's
                return
            task, job_id, began_ns = owner or (None, None, None)
            since_ns = posted_ns
            if began_ns is not None and self._slept_ns <= began_ns < posted_ns:
                self._beat_ns = since_ns = began_ns
            seconds = (self._clock.monotonic_ns() - since_ns) / NS_PER_S
            self._seen = seen = Blocked(seconds, stack.where(), task, job_id, stack.text())
        self._tell(seen)

    def _tell(self, seen: Blocked) -> None:
        """Log a look; its stack once for each place, for it is looked at again and again, and runs again."""
        is_new = seen.where not in self._shown
        if len(self._shown) < SHOWN_MOST:
            self._shown.add(seen.where)
        log.warning(
            "the event loop has stood still for %.3f s at %s, in %s; %s%s",
            seen.seconds,
            seen.where,
            f"task {seen.task}, job {seen.job_id}" if seen.task else "code that is no job's",
            ADVICE,
            f"\n{seen.stack}" if is_new else "",
            extra={"task": seen.task, "job": seen.job_id},
        )


# -- whose body it is ------------------------------------------------------------------


class WatchedService(Protocol):
    """What `Watchdog.start_for` needs of a running app."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def events(self) -> EventStream: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def worker(self) -> _HasAttempts | None: ...


class _HasAttempts(Protocol):
    def attempts(self) -> list[Attempt]: ...


def _owner(task: asyncio.Task[Any] | None, worker: _HasAttempts | None) -> Owner | None:
    """Find the job an asyncio task works for: by its context (Python 3.12), else by its name."""
    if task is None:
        return None
    if sys.version_info >= (3, 12):
        current = task.get_context().get(CURRENT)
        if current is not None:
            return Owner(current.record.task, current.record.id, _began(current))
    name = task.get_name()
    for attempt in worker.attempts() if worker is not None else ():
        if attempt.job_id == name:  # executors name a body's task so
            return Owner(attempt.record.task, attempt.job_id, _began(attempt))
    return None


def _began(attempt: object) -> int | None:
    return attempt.began_mono_ns if isinstance(attempt, Attempt) else None


def _current_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task(loop)
    except RuntimeError:  # no task is known for that loop
        return None
