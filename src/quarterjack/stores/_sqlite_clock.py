"""One clock for all processes on a file: whose turn it is to put things right after the wall clock was set.

The file remembers how far the wall clock was ahead of the time since boot. The
first transaction that finds it elsewhere by a second or more, in whichever
process, shifts what counts elapsed time and writes the new distance, in that one
transaction: so it happens once. After a reboot the distance says nothing and is
only written anew."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex
from typing import Final
from weakref import WeakKeyDictionary

from quarterjack import planner
from quarterjack._durations import NS_PER_S
from quarterjack.clock import Clock, SystemClock
from quarterjack.model import Schedule

from ._rows import Encoding
from ._sqlite_engine import Session
from ._sqlite_rows import load_schedules, save_schedules, sql
from .base import Hint

__all__ = ["StepWatch", "shift"]

_STEP_NS: Final = NS_PER_S
"""A wall clock that went this much against elapsed time was set; less is a time server's nudge."""
_NUDGE_NS: Final = NS_PER_S // 10
"""Smaller differences are not worth a write; added up they would come to a step."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")  # Linux
_of_clock: Final[WeakKeyDictionary[Clock, str]] = WeakKeyDictionary()


class StepWatch:
    """Compares the clock with what the file remembers of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._boot = _boot_of(clock)

    def step(self, session: Session) -> int:
        """Return by how much the wall clock was set since the last transaction of any process; 0 if it was not."""
        ahead = session.now_ns - self._clock.boottime_ns()
        row = session.one("SELECT boot, ahead_ns FROM qj_clock")
        step = 0
        if row is not None and row[0] == self._boot:
            step = ahead - row[1]
            if -_NUDGE_NS < step < _NUDGE_NS:
                return 0
        session.run("INSERT OR REPLACE INTO qj_clock (one, boot, ahead_ns) VALUES (1, ?, ?)", (self._boot, ahead))
        return step if abs(step) >= _STEP_NS else 0


def shift(session: Session, encoding: Encoding, step_ns: int) -> None:
    """Move what counts elapsed time with a wall clock that was set by *step_ns*; see `Store.clock_stepped`."""
    now = session.now_ns
    session.run(sql("shift_waiting"), {"step": step_ns, "before": now - step_ns})
    session.run(sql("shift_leases"), (step_ns,))
    session.run("UPDATE qj_slots SET until_ns = until_ns + ?", (step_ns,))
    session.run("UPDATE qj_tokens SET arrival_ns = arrival_ns + ?", (step_ns,))
    if step_ns < 0:
        rows = load_schedules(session, encoding)
        moved = [row for row in (_rebased(row, now, -step_ns) for row in rows) if row is not None]
        save_schedules(session, encoding, moved)
    session.tell(Hint.JOBS)
    session.tell(Hint.SCHEDULES)


def _rebased(row: Schedule, now: int, step_ns: int) -> Schedule | None:
    try:
        return planner.rebased(row, now, step_ns)
    except Exception as error:  # a user's trigger runs here; it parks its own schedule and no other
        return planner.parked(row, error)


def _boot_of(clock: Clock) -> str:
    """Return what two clocks have in common whose time since boot can be compared.

    Where the system does not name its boots, only a step that one process sees while it
    runs is noticed: a clock of its own is a boot of its own, as a virtual one always is.
    """
    if isinstance(clock, SystemClock):
        try:
            return _BOOT_ID.read_text().strip()
        except OSError:
            pass
    return _of_clock.setdefault(clock, token_hex(8))
