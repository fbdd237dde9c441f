"""The children of one process pool: how many there are, which gets the next call, and who follows one that goes.

There is a child for each call, and one idle in advance, up to the number of
slots. One that cannot be started, does not load the app, or dies as soon as it
has, is followed by the next after a pause; after three rounds of that what waits
has died. An app that children could load before may be in the middle of being
deployed: then those that have it go on, and what no child is there for goes back.

It lives from the first call that needs it, or the start of an app with a task
for it, to the stop of its executor."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, NamedTuple

from quarterjack._durations import NS_PER_S
from quarterjack.errors import BodyDied
from quarterjack.model import ErrorInfo, Outcome, OutcomeKind

from ._away import Desk
from ._chores import Chores
from ._files import Files, sweep
from ._starting import Nursery, in_thread
from ._worker_process import Running, WorkerProcess, words_of
from .base import AppRef

__all__ = ["Crew", "Rules"]

log = logging.getLogger("quarterjack.executors")

AGAIN_S: Final = 1.0
"""How long after a child that was of no use the next one is started."""
SHORT_NS: Final = NS_PER_S
"""One that dies so soon after it was ready will do so again."""
ROUNDS_MOST: Final = 3
"""After so many rounds in a row in which none got ready, what waits for a child has died."""
EXIT_S: Final = 2.0
"""How long an idle child may take to end."""


class Rules(NamedTuple):
    """How many children there are, and which have served their time."""

    slots: int
    max_jobs: int | None
    max_rss_kib: int | None
    load_s: float


class Crew:
    """The children, and the calls that wait for one. Belongs to its desk's loop.

    Args:
        name: What their executor is called in logs.
        rules: How many there are.
        desk: The app's.
        app: How they find it.
        nursery: Starts them.
        chores: What is done beside all calls.
    """

    def __init__(self, name: str, rules: Rules, desk: Desk, app: AppRef, nursery: Nursery, chores: Chores) -> None:
        self._name = name
        self._rules = rules
        self._desk = desk
        self._nursery = nursery
        self._chores = chores
        self._settings = {"app": list(app), "memory": rules.max_rss_kib is not None}
        self._files = Files()
        self._numbers = itertools.count(1)
        self._children: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._queue: deque[Running] = deque()
        self._pause: asyncio.TimerHandle | None = None
        self._trial = 0
        self._failures = 0
        """Rounds in a row in which a child was of no use, and none got ready."""
        self._is_told = self._has_loaded = self._is_over = False
        self.spawn(_swept())
        self._fill()

    @property
    def pids(self) -> frozenset[int]:
        """The processes of its children."""
        return frozenset(child.pid for child in self._children if child.pid is not None)

    # -- calls ---------------------------------------------------------------------------------

    def take(self, running: Running) -> None:
        """Hand the call to an idle child, or have it wait for one."""
        self._queue.append(running)
        self._pump()

    def again(self, running: Running) -> None:
        """A child has died that had not begun the body it was given: another one gets it."""
        self._queue.appendleft(running)
        self._pump()

    def forget(self, running: Running) -> None:
        """A call that waited was withdrawn."""
        if running in self._queue:
            self._queue.remove(running)

    def _pump(self) -> None:
        """Hand waiting calls to idle children, and see that there are enough of these."""
        while self._queue and self._idle:
            running = self._queue.popleft()
            if not (running.has_turn or running.may_begin()):
                continue
            running.has_turn = True
            if running.is_late:
                running.on_over(Outcome(OutcomeKind.MISSED, reason="no process was ready before its start deadline"))
            else:
                self._give(self._idle.pop(), running)
        if not self._idle:  # else there is one in advance
            self._fill()

    def _give(self, child: WorkerProcess, running: Running) -> None:
        child.run(running)
        if self._rules.max_jobs is not None and child.jobs >= self._rules.max_jobs:
            child.retire()  # its replacement starts now, while it works

    def _refuse(self, outcome: Outcome) -> None:
        waiting, self._queue = self._queue, deque()
        for running in waiting:
            if running.has_turn or running.may_begin():
                running.on_over(outcome)

    # -- starting children -----------------------------------------------------------------------

    def _fill(self) -> None:
        """Start children: one for each call that waits, and one idle in advance, up to the number of slots."""
        if self._pause is not None or self._is_over:
            return
        staying = self._staying()
        busy = sum(child.running is not None for child in staying)
        wanted = min(self._rules.slots, busy + len(self._queue) + 1)
        for _ in range(wanted - len(staying)):
            child = WorkerProcess(self, self._nursery, self._files.of(next(self._numbers)), self._trial)
            self._children.add(child)
            self.spawn(self._start(child))

    def _staying(self) -> list[WorkerProcess]:
        return [child for child in self._children if not child.is_retiring and not child.is_outgrown]

    async def _start(self, child: WorkerProcess) -> None:
        try:
            await self._nursery.open()
            await child.open(self._settings, self._rules.load_s)
        except Exception as error:  # whatever it is, what waits is told
            child.on_unstarted(str(error))

    def spawn(self, call: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for."""
        self._chores.do(call)

    def _start_later(self) -> None:
        if self._pause is None:
            self._pause = self._desk.loop.call_later(AGAIN_S, self._try_again)

    def _try_again(self) -> None:
        self._pause = None
        self._pump()

    # -- what children tell ------------------------------------------------------------------------

    def on_ready(self, child: WorkerProcess) -> None:
        """A child has loaded the app."""
        self._is_told, self._has_loaded, self._failures = False, True, 0
        child.ready_at_ns = self._desk.clock.monotonic_ns()
        if child.is_retiring:
            return
        outgrown = next((one for one in self._children if one.is_outgrown and not one.is_retiring), None)
        if outgrown is not None:
            if outgrown in self._idle:
                self._idle.remove(outgrown)
            outgrown.retire()
        self._idle.append(child)
        self._pump()

    def on_idle(self, child: WorkerProcess) -> None:
        """A child's body is over."""
        if self._rules.max_rss_kib is not None and child.memory_kib > self._rules.max_rss_kib:
            child.is_outgrown = True
            self._fill()
        if not child.is_retiring:
            self._idle.append(child)
        if not self._is_over:
            self._pump()

    def on_unloadable(self, child: WorkerProcess, why: str, trace: str) -> None:
        """A child cannot load the app: what no other child is there for cannot run."""
        child.is_retiring = True
        if not self._is_told:
            self._is_told = True
            log.error("the executor %r cannot load the app in a process of its own: %s", self._name, trace.rstrip())
        is_last_try = self._is_last_try(child)
        text = f"the app cannot be loaded in another process: {why}"
        if not self._has_loaded:
            self._refuse(Outcome(OutcomeKind.REJECTED, reason=text, info=ErrorInfo("Unloadable", text, trace)))
        elif is_last_try:
            self._refuse(Outcome(OutcomeKind.ORPHANED, reason=text))

    def on_gone(self, child: WorkerProcess) -> None:
        """A child has ended."""
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        if self._is_over or child.is_retiring:
            return
        if child.is_ready:
            self._on_lost(child)
            self._fill()
        else:
            self._on_stillborn(child)

    def _on_lost(self, child: WorkerProcess) -> None:
        """One has died that was ready; if it ran a body, that tells."""
        if child.is_killed or (child.running is not None and child.running.is_begun):
            return
        log.warning("an idle process of the executor %r has ended: %s", self._name, words_of(child.code))
        if self._desk.clock.monotonic_ns() - child.ready_at_ns < SHORT_NS:
            self._start_later()

    def _on_stillborn(self, child: WorkerProcess) -> None:
        words = child.why_not or words_of(child.code)
        if child.trial == self._trial:
            log.warning("a process of the executor %r ended before it was ready: %s", self._name, words)
        if self._is_last_try(child):
            error = BodyDied(child.code, f"{words}, while it loaded the app")
            self._refuse(Outcome(OutcomeKind.DIED, error=error, reason=str(error)))

    def _is_last_try(self, child: WorkerProcess) -> bool:
        """Count a child that was of no use, and have the next one started later; True if nothing is to wait for it.

        Those that were started together count once. While a child is ready what waits has somebody to wait for.
        """
        if child.trial != self._trial:
            return False
        self._trial += 1
        self._failures += 1
        if self._failures < ROUNDS_MOST or any(one.is_ready for one in self._staying()):
            self._start_later()
            return False
        self._failures = 0  # the next call tries anew
        return True

    # -- the end -----------------------------------------------------------------------------------

    def halt(self) -> None:
        """Start no more children."""
        self._is_over = True
        if self._pause is not None:
            self._pause.cancel()

    async def end(self) -> None:
        """Let idle children end; kill those that do not, or are still beginning."""
        begun = [child for child in self._children if child.pid is not None]
        for child in begun:
            child.retire()
            if not child.is_ready:
                child.kill()
        for _ in range(2):
            with suppress(TimeoutError):
                async with asyncio.timeout(EXIT_S):
                    for child in begun:
                        await child.over.wait()
                return
            for child in self._children:
                child.kill()

    async def close(self) -> None:
        """Let go of everything, also if it is cancelled meanwhile."""
        async with AsyncExitStack() as steps:  # last one first
            steps.callback(self._files.close)
            steps.callback(self._drop)
            steps.push_async_callback(self._chores.end)
            await self._nursery.close()

    def desert(self) -> None:
        """Let go of everything without a loop: that of the app is closed, and nobody had stopped this."""
        self._nursery.desert()
        for child in self._children:
            child.desert()
        self._files.close()

    def _drop(self) -> None:
        for child in tuple(self._children):
            child.drop()


async def _swept() -> None:
    with suppress(OSError):
        await in_thread(sweep)
