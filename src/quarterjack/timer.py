"""The precise timer: callbacks at wall-clock instants, on one alarm.

A loop has one `Timer` per clock, shared by all who wait (`Timer.shared`), so
that any number of them costs one heap and one kernel timer. It promises:

- never early: a callback runs on the loop, and only while ``now >= due``;
- in order: by due time, and first come first served within one instant;
- a callback that raises is reported to the loop's exception handler and
  harms nobody else;
- a wall clock that was set and a machine that slept (by more than a second)
  are told to the `on_jump` subscribers before any due callback is looked at.
  This is noticed when the alarm rings (a kernel timer rings at once when the
  clock is set, and every alarm each 30 seconds) and when the first one waits
  after nobody did: a timer that nobody waits on never wakes the process.

How late a fire time may be, and what becomes of it, is `quarterjack.policies`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from heapq import heapify, heappop, heappush
from typing import ClassVar, Final
from weakref import WeakValueDictionary

from ._durations import NS_PER_S
from .clock import Clock, ClockJump
from .errors import UsageError

__all__ = ["ClockJump", "Timer", "TimerHandle"]

_JUMP_NS: Final = NS_PER_S
"""Clocks that drift apart by more than this between two looks have jumped; slewing stays far below."""
_READ_NS: Final = NS_PER_S // 10
"""Three clocks read further apart than this (the process was stopped in between) say nothing: read again."""
_SPARSE_NS: Final = 5_000_000
"""Only a wait longer than this is worth spinning at its end, so that spinning stays below 4 % of a processor."""
_COMPACT_ABOVE: Final = 64
"""Fewer cancelled entries than this are left to be popped."""


class TimerHandle:
    """A callback that waits for its instant."""

    __slots__ = ("_callback", "_prepare", "_timer", "due_ns")

    def __init__(
        self, timer: Timer, due_ns: int, callback: Callable[[], None], prepare: Callable[[], None] | None
    ) -> None:
        self._timer = timer
        self._callback: Callable[[], None] | None = callback
        self._prepare = prepare
        self.due_ns: Final = due_ns

    @property
    def is_pending(self) -> bool:
        """It has neither run nor been cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Never run the callback; nothing happens if it has run or was cancelled."""
        if self._callback is not None:
            self._callback = None
            self._timer._forget(self)  # one class in two halves

    def __repr__(self) -> str:
        return f"<TimerHandle due_ns={self.due_ns}{'' if self.is_pending else ' done'}>"


class Timer:
    """Runs callbacks at wall-clock instants. Get one from `shared`; it belongs to that loop's thread."""

    # By the loop's id (a timer keeps its loop, so the id stays its own) and the clock. A timer lives
    # by its takers and by its loop, which watches the alarm: when a loop is closed without a release,
    # nothing holds the timer, and its descriptor goes with it.
    _by_place: ClassVar[WeakValueDictionary[tuple[int, Clock], Timer]] = WeakValueDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._takers = 0
        self._closed = False
        self._heap: list[tuple[int, int, TimerHandle]] = []
        self._pushed = 0
        self._dead = 0
        self._waking = False
        self._listeners: tuple[Callable[[ClockJump], None], ...] = ()
        self._jumps: deque[ClockJump] = deque()
        self._seen = self._read_clocks()
        self._alarm = clock.open_alarm(loop, self._wake)

    @classmethod
    def shared(cls, clock: Clock) -> Timer:
        """Return the running loop's timer for *clock*; `release` it when done.

        Raises:
            RuntimeError: If no loop is running.
        """
        loop = asyncio.get_running_loop()
        timer = cls._by_place.get((id(loop), clock))
        if timer is None:
            cls._sweep()
            timer = cls(loop, clock)
            cls._by_place[id(loop), clock] = timer
        timer._takers += 1
        return timer

    @classmethod
    def _sweep(cls) -> None:
        """Close what loops left behind that were closed without a release."""
        for timer in tuple(cls._by_place.values()):
            if timer._loop.is_closed():  # one class
                timer._close()

    def release(self) -> None:
        """Give the timer back, once per `shared`. The last one closes it: what still waits is dropped."""
        self._takers -= 1
        if self._takers <= 0:
            self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._by_place.pop((id(self._loop), self._clock), None)
        self._alarm.close()
        for _, _, handle in self._heap:
            handle._callback = None  # one class in two halves
        self._heap.clear()
        self._jumps.clear()
        self._listeners = ()

    # -- waiting --------------------------------------------------------------------

    def call_at(
        self, due_ns: int, callback: Callable[[], None], prepare: Callable[[], None] | None = None
    ) -> TimerHandle:
        """Call *callback* on the loop once the wall clock has reached *due_ns*; never from within this call.

        It runs in an empty context. An instant that has passed is served in the loop's next turn.
        *prepare* may be called a moment before, at most once and perhaps never: for
        work that need not wait for the instant.

        Raises:
            UsageError: If the timer was released by all its takers.
        """
        if self._closed:
            raise UsageError("this timer is closed: call Timer.shared() again on the running loop")
        handle = TimerHandle(self, due_ns, callback, prepare)
        self._pushed += 1
        heap = self._heap
        heappush(heap, (due_ns, self._pushed, handle))
        if heap[0][2] is handle and not self._waking:
            if len(heap) == 1:
                self._look_after_idling()
            self._set_alarm(due_ns)
        return handle

    async def sleep_until(self, due_ns: int) -> None:
        """Return once the wall clock has reached *due_ns*; cancelling it leaves nothing behind.

        Raises:
            UsageError: If the timer was released by all its takers before.
        """
        future = self._loop.create_future()
        handle = self.call_at(due_ns, partial(_resolve, future))
        self._takers += 1  # who sleeps keeps the timer open
        try:
            await future
        finally:
            handle.cancel()
            self.release()

    def on_jump(self, callback: Callable[[ClockJump], None]) -> Callable[[], None]:
        """Call *callback* on the loop with each jump of the clocks; returns the function that ends it."""
        entry = partial(callback)  # equal callbacks must not end each other
        self._listeners = (*self._listeners, entry)

        def end() -> None:
            self._listeners = tuple(known for known in self._listeners if known is not entry)

        return end

    # -- the heap -------------------------------------------------------------------

    # Invariant: outside of `_wake`, the first entry is alive, and the alarm is set to it.
    # A dead head would keep waking us for nothing, and make virtual time jump to nowhere.

    def _arm(self) -> None:
        heap = self._heap
        while heap and not heap[0][2].is_pending:
            heappop(heap)
            self._dead -= 1
        if heap:
            self._set_alarm(heap[0][0])
        else:
            self._alarm.set(None)

    def _forget(self, handle: TimerHandle) -> None:
        """Account for an entry that was cancelled: it stays in the heap until popped or outnumbered."""
        self._dead += 1
        heap = self._heap
        if self._dead > _COMPACT_ABOVE and self._dead * 2 > len(heap):
            heap[:] = [entry for entry in heap if entry[2].is_pending]
            heapify(heap)
            self._dead = 0
        elif heap[0][2] is not handle:
            return
        if not self._waking:
            self._arm()

    def _wake(self) -> None:
        """Look at the clocks, tell of jumps, run what is due, and set the alarm anew."""
        if self._closed:  # the ring was under way
            return
        self._waking = True
        try:
            self._look_at_clocks()
            while self._jumps:
                self._tell(self._jumps.popleft())
            self._approach()
            self._run_due()
        finally:  # also when a callback raised KeyboardInterrupt: the others stay in the heap
            self._waking = False
            if not self._closed:
                self._arm()

    def _set_alarm(self, due_ns: int) -> None:
        """Have the alarm ring for *due_ns*: a little early after a long wait, for `_approach`."""
        lead = self._clock.lead_ns
        self._alarm.set(due_ns - lead if lead and due_ns - self._clock.now_ns() > _SPARSE_NS else due_ns)

    def _approach(self) -> None:
        """Woken just before an instant: make ready, and spin the rest away."""
        lead, now_ns = self._clock.lead_ns, self._clock.now_ns
        if not lead or not self._heap:
            return
        due_ns, _, handle = self._heap[0]
        if not 0 < due_ns - now_ns() <= lead:
            return
        if (prepare := handle._prepare) is not None:
            handle._prepare = None
            self._call(prepare, "timer preparation")
        while 0 < due_ns - now_ns() <= lead:  # and no longer, should the clock be set back meanwhile
            pass

    def _run_due(self) -> None:
        # Callbacks added meanwhile wait for the next turn, or one that adds itself anew would never end.
        # The clock is read for each: a callback may take long, or set a virtual clock back.
        heap, last, now_ns = self._heap, self._pushed, self._clock.now_ns
        while heap and heap[0][1] <= last and heap[0][0] <= now_ns():
            handle = heappop(heap)[2]
            callback = handle._callback  # one class in two halves
            if callback is None:
                self._dead -= 1
                continue
            handle._callback = None
            self._call(callback, "timer callback")

    def _call(self, callback: Callable[[], None], what: str) -> None:
        try:
            callback()
        except Exception as error:  # not our code, and the others' callbacks must run all the same
            self._loop.call_exception_handler(
                {"message": f"exception in {what} {callback!r}", "exception": error},
            )

    # -- jumps ----------------------------------------------------------------------

    def _read_clocks(self) -> tuple[int, int, int]:
        clock = self._clock
        while True:
            before = clock.monotonic_ns()
            wall, boot, mono = clock.now_ns(), clock.boottime_ns(), clock.monotonic_ns()
            if mono - before < _READ_NS:
                return wall, boot, mono

    def _look_at_clocks(self) -> None:
        """Compare how far the clocks went since the last look."""
        seen, self._seen = self._seen, self._read_clocks()
        wall, boot, mono = (new - old for new, old in zip(self._seen, seen, strict=True))
        if abs(boot - mono) > _JUMP_NS:
            self._jumps.append(ClockJump(kind="suspend", delta_ns=boot - mono, at_ns=self._seen[0]))
        if abs(wall - boot) > _JUMP_NS:
            self._jumps.append(ClockJump(kind="step", delta_ns=wall - boot, at_ns=self._seen[0]))

    def _look_after_idling(self) -> None:
        self._look_at_clocks()
        if self._jumps:  # told from the loop, not from within somebody's call_at
            self._loop.call_soon(self._wake, context=Context())

    def _tell(self, jump: ClockJump) -> None:
        for listener in self._listeners:
            self._call(partial(listener, jump), "clock jump listener")


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
