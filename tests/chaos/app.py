"""The app of the chaos tests, as a file that real processes run: ``qj run tests.chaos.app:app``.

Who it is and where it works stands in the environment. Each body notes in the
ledger that it began and ended, and returns which attempt it was, in which process."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from quarterjack import AsyncTask, ConcurrencyLimit, Every, FixedDelay, Quarterjack, current_job
from quarterjack.clock import Alarm, SystemClock
from quarterjack.runtime.service import Role
from tests.chaos.ledger import Ledger

__all__ = ["CHAIN_S", "LIMIT", "LINE_S", "MOVED_S", "PULSE_S", "STALLED_S", "TICK_S", "ChaosApp", "Settings"]

VARIABLE: Final = "QJ_CHAOS"
TICK_S: Final = 0.25
LINE_S: Final = 0.5
CHAIN_S: Final = 0.3
LIMIT: Final = 3
"""Bodies of "limited" at once, in all processes."""
MOVED_S: Final = {"1.0": 0.5, "2.0": 0.2}
PULSE_S: Final = 0.05
STALLED_S: Final = 0.5
PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a process is told."""

    url: str
    ledger: str
    who: str
    role: Role = "both"
    lease_s: float = 2.0
    version: str = "1.0"
    skew_s: float = 0.0
    has_schedules: bool = True
    has_moved: bool = False
    """Whether there is a schedule that each version declares differently."""

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self))}

    def but(self, **changes: Any) -> Settings:
        return replace(self, **changes)


class WrongClock(SystemClock):
    """A machine's clock that is off."""

    def __init__(self, skew_s: float) -> None:
        super().__init__(timerfd=False)
        self._skew_ns = round(skew_s * 1e9)
        self.now_ns = lambda: time.time_ns() + self._skew_ns

    def open_alarm(self, loop: asyncio.AbstractEventLoop, on_wake: Any) -> Alarm:
        return _WrongAlarm(super().open_alarm(loop, on_wake), self._skew_ns)


class _WrongAlarm:
    def __init__(self, inner: Alarm, skew_ns: int) -> None:
        self._inner, self._skew_ns = inner, skew_ns

    def set(self, due_ns: int | None, /) -> None:
        self._inner.set(None if due_ns is None else due_ns - self._skew_ns)

    def close(self) -> None:
        self._inner.close()


class ChaosApp:
    """The app and its tasks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ledger = Ledger(Path(settings.ledger))
        self.app = Quarterjack(
            settings.url,
            role=settings.role,
            lease=settings.lease_s,
            version=settings.version,
            shutdown_grace=10,
            keep_finished=1_000_000,
            clock=WrongClock(settings.skew_s) if settings.skew_s else None,
            max_rescues=1_000,  # what is tried here is that none is lost, however often its worker dies
        )
        self.short = self.app.task(name="short")(self._short)
        self.long: AsyncTask[[float], Any] = self.app.task(name="long")(self._long)
        self.threaded = self.app.task(name="threaded")(self._threaded)
        at_most = ConcurrencyLimit(LIMIT, scope="fleet", name="limited", batch=1)
        self.limited = self.app.task(name="limited", flow=at_most)(self._limited)
        if settings.has_schedules:
            self.app.task(Every(seconds=TICK_S), name="tick", overlap="allow", missed="all")(self._tick)
            self.app.task(Every(seconds=LINE_S), name="line", overlap="queue_all", missed="all")(self._line)
            self.app.task(FixedDelay(seconds=CHAIN_S), name="chain")(self._chain)
        if settings.has_moved:
            self.app.task(Every(seconds=MOVED_S[settings.version]), name="moved", overlap="allow", missed="all")(
                self._tick
            )
        if settings.version != "1.0":
            self.app.task(name="newcomer")(self._short)

    # -- bodies ------------------------------------------------------------------------

    @contextmanager
    def _noted(self) -> Iterator[list[Any]]:
        job, who = current_job(), self.settings.who
        attempt = (job.id, job.attempt, job.task)
        self.ledger.note("begin", who, *attempt)
        try:
            yield [job.attempt, who]
        except BaseException:
            self.ledger.note("broken off", who, *attempt)
            raise
        self.ledger.note("end", who, *attempt)

    async def _short(self, n: int) -> list[Any]:
        with self._noted() as told:
            await asyncio.sleep(0.001 * (n % 3))
            return told

    async def _long(self, seconds: float) -> list[Any]:
        with self._noted() as told:
            await asyncio.sleep(seconds)
            return told

    async def _limited(self, seconds: float) -> list[Any]:
        return await self._long(seconds)

    def _threaded(self, seconds: float) -> list[Any]:
        with self._noted() as told:
            time.sleep(seconds)
            return told

    async def _tick(self) -> list[Any]:
        return await self._long(0.02)

    async def _line(self) -> list[Any]:
        return await self._long(0.1)

    async def _chain(self) -> list[Any]:
        return await self._long(0.1)


# -- as a process ------------------------------------------------------------------------


def end_with_parent() -> None:
    """Have the system end this process when the test does, also while it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def watch(chaos: ChaosApp) -> None:
    """Note when the app has started; and when this process had no turn for long, for its leases may have run out then.

    The latter is noted once it is over, with the milliseconds it lasted in the place of the attempt.
    """
    last, is_up = time.monotonic(), False
    while True:
        time.sleep(PULSE_S)
        if chaos.app.is_serving and not is_up:
            is_up = True
            chaos.ledger.note("up", chaos.settings.who)
        now = time.monotonic()
        if now - last > STALLED_S:
            chaos.ledger.note("stalled", chaos.settings.who, attempt=round((now - last) * 1_000))
        last = now


if VARIABLE in os.environ:
    end_with_parent()
    chaos = ChaosApp(Settings(**json.loads(os.environ[VARIABLE])))
    app = chaos.app
    threading.Thread(target=watch, args=(chaos,), daemon=True).start()
