"""An event loop of its own in a thread of its own, for what must not wait for the app's loop.

Urgent bodies, or bodies of a kind that sometimes stand in a loop's way, get a
loop that nobody else can hold up; it goes on while the app's loop stands still.
A `LoopThread` is made anywhere, usually at module level, and named by a task's
``executor=``. Its thread runs while at least one app uses it; several apps, on
several loops, may share it.

Inside works the same `LoopExecutor` as on the app's loop, so a coroutine is
interrupted, timed out and given its grace there, by that loop. Plain functions
run there directly and hold up *that* loop. What is done on the app's side is
only a backstop, for bodies that their own loop cannot reach."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Callable
from typing import ClassVar, Final

from quarterjack._numbers import whole_number
from quarterjack.errors import ExecutorClosed, ExecutorFull
from quarterjack.model import Outcome, OutcomeKind

from ._away import Away, Desk
from .base import Call, Capabilities, Executor, Home, Report
from .loop import LoopExecutor

__all__ = ["LoopThread"]

log = logging.getLogger("quarterjack.executors")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

SLACK_S: Final = 0.05
"""How much later than the body's own loop the app's loop acts."""
WIND_DOWN_S: Final = 0.5
"""How long tasks that bodies left behind may take to end when the thread stops."""
JOIN_S: Final = 1.0
"""How long the thread may take to end, once nothing runs there."""


class LoopThread(Executor):
    """Runs up to *slots* bodies at once on an event loop in a thread of its own.

    Args:
        name: The thread is called ``qj-<name>``.
        slots: How many bodies at once, for all apps together.
        loop_factory: Makes the loop, such as ``uvloop.new_event_loop``; None is asyncio's default.

    Raises:
        InvalidOption: If *slots* is no whole number from 1.
    """

    capabilities: ClassVar[Capabilities] = LoopExecutor.capabilities

    def __init__(self, name: str, *, slots: int = 100, loop_factory: LoopFactory | None = None) -> None:
        self.name = name
        self.slots = whole_number(slots, "slots", 1)
        self._loop_factory = loop_factory or asyncio.new_event_loop
        self._lock = threading.Lock()  # apps on different threads start, stop and submit
        self._users: dict[asyncio.AbstractEventLoop, _User] = {}
        self._engine: _Engine | None = None
        self._pokes: list[tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = []

    async def start(self, home: Home) -> None:
        """Count one more app; the first one starts the thread."""
        loop = asyncio.get_running_loop()
        with self._lock:
            for other in [known for known in self._users if known.is_closed()]:
                del self._users[other]  # an app that never stopped
            if self._engine is None:
                engine = _Engine(f"qj-{self.name}", self._loop_factory())
                engine.start()
                self._engine = engine
            user = self._users.get(loop)
            if user is None:
                user = self._users[loop] = _User(Desk(loop, home.clock, self._on_over))
            user.count += 1

    @property
    def free(self) -> int:
        """Slots that no body of any app holds."""
        return self.slots + self.lent - sum(len(user.desk.out) for user in tuple(self._users.values()))

    def on_free(self, poke: Callable[[], None]) -> Callable[[], None]:
        """Have *poke* called on the running loop when a body of any app is over, or lends its slot."""
        entry = (asyncio.get_running_loop(), poke)
        with self._lock:
            self._pokes.append(entry)

        def end() -> None:
            with self._lock:
                self._pokes = [other for other in self._pokes if other is not entry]

        return end

    def lend(self, n: int) -> None:
        """Count *n* more slots as lent, from any app's loop: the job that is waited for may be another app's."""
        with self._lock:
            self.lent += n
        if n > 0:
            self._on_over()

    def _on_over(self) -> None:
        """A body is over or lends its slot, on its app's loop: the other apps may have waited for it."""
        pokes = self._pokes
        if len(pokes) < 2:
            return
        for loop, poke in tuple(pokes):
            with contextlib.suppress(RuntimeError):  # the loop of an app that never stopped
                loop.call_soon_threadsafe(poke)

    def submit(self, call: Call, report: Report) -> Away:
        """Hand the call to the thread's loop; from the loop of an app that started this executor.

        Raises:
            ExecutorFull: If all slots are taken.
            ExecutorClosed: If this loop's app has not started it, or has stopped it.
        """
        user = self._users.get(asyncio.get_running_loop())
        engine = self._engine
        if user is None or engine is None:
            raise ExecutorClosed(f"the loop thread {self.name!r} is not started by an app on this loop, or was stopped")
        with self._lock:
            if self.free <= 0:
                raise ExecutorFull(f"all {self.slots} slots of the loop thread {self.name!r} are taken")
            running = _Remote(engine, user.desk, call, report)
        engine.loop.call_soon_threadsafe(running.begin)
        return running

    async def stop(self, grace_s: float) -> None:
        """Count one app less; the last one of a loop cancels its bodies, the last of all ends the thread.

        Waits up to *grace_s* seconds for bodies that were told to stop. A thread that
        stands in a plain function is left behind, with a line in the log.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            user = self._users.get(loop)
            if user is None:
                return
            user.count -= 1
        desk = user.desk
        if user.count == 0:
            for away in desk.out.copy():
                away.cancel("shutdown")
        asked = {away for away in desk.out if away.is_asked}
        try:
            await desk.wait_for(asked, grace_s)
        finally:
            for away in asked & desk.out:
                away.abandon()
                log.warning("job %s still runs in the loop thread %r", away.call.ref, self.name)
            engine = self._leave(loop, user)
        if engine is not None:
            await engine.wait(desk)

    def _leave(self, loop: asyncio.AbstractEventLoop, user: _User) -> _Engine | None:
        """Forget a loop without apps; stop and return the thread if it was the last one."""
        with self._lock:
            if user.count == 0 and self._users.get(loop) is user:
                del self._users[loop]
            if self._users:
                return None
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop(user.desk)
        return engine


class _User:
    """The apps of one loop."""

    __slots__ = ("count", "desk")

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.count = 0


class _Engine(threading.Thread):
    """One run of the thread: from the first start to the last stop."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name=name, daemon=True)
        self.loop = loop
        # Slots are counted on the apps' side, where a body is over a little later than here.
        self.bodies = LoopExecutor(sys.maxsize)
        self.bodies.bind(loop)
        self._last: Desk | None = None
        self._ended = asyncio.Event()

    def run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            loop.run_until_complete(self._wind_down())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            if self._last is not None:
                self._last.post(asyncio.Event.set, self._ended)

    async def _wind_down(self) -> None:
        """End what bodies left behind, as ``asyncio.run`` would, but without waiting for ever."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=WIND_DOWN_S)

    def stop(self, desk: Desk) -> None:
        """End the loop; a thread that a plain function holds up ends when that does."""
        self._last = desk
        self.loop.call_soon_threadsafe(self.loop.stop)

    async def wait(self, desk: Desk) -> None:
        """Wait for the end of the thread, within reason."""
        with desk.clock.hold():
            try:
                async with asyncio.timeout(WIND_DOWN_S + JOIN_S):
                    await self._ended.wait()
            except TimeoutError:
                log.warning("the thread %s does not end and is left behind", self.name)
                return
        self.join(JOIN_S)


class _Remote(Away):
    """One body on the thread's loop, of which this is also the report."""

    __slots__ = ("_engine", "_inner")

    def __init__(self, engine: _Engine, desk: Desk, call: Call, report: Report) -> None:
        super().__init__(desk, call, report)
        self._engine = engine
        self._inner: Callable[[str], None] | None = None

    # -- on the thread's loop; `began`, `finished` and `ended` are called there too -------

    def begin(self) -> None:
        """Start the body, unless it was withdrawn meanwhile."""
        if not self.may_begin():
            return
        try:
            self._inner = self._engine.bodies.submit(self.call, self).cancel
        except Exception as error:  # a loop's own task factory runs here
            self.finished(Outcome(OutcomeKind.REJECTED, error=error, reason=str(error)))

    def accepted(self) -> None:
        """Never called: bodies there begin at once."""

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Never called: bodies say it to their job."""

    def keep(self, value: object) -> None:
        """Never called, likewise."""

    def _cancel_there(self, reason: str) -> None:
        if self._inner is not None:
            self._inner(reason)

    # -- on the app's loop -------------------------------------------------------------

    def interrupt(self, reason: str) -> None:
        """Have the body's loop cancel it, and report it if that loop does not get to it."""
        try:
            self._engine.loop.call_soon_threadsafe(self._cancel_there, reason)
        except RuntimeError:  # its loop is closed: the body is gone, and nobody will say so
            self.give_up()
            return
        self.arm(self.call.cancel_grace_s + SLACK_S, self.give_up)

    def time_left_s(self, since_mono_ns: int) -> float | None:
        """Return when to step in: the body's own loop minds the time, and comes first."""
        left_s = super().time_left_s(since_mono_ns)
        return None if left_s is None else left_s + SLACK_S
