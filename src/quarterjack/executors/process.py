"""Bodies in processes of our own: for work that keeps a processor busy, and for libraries that may crash.

A child runs one body at a time. Whatever that does, nobody else is hurt: a
crash, ``os._exit``, a kill from outside or ``SystemExit`` ends one attempt, and
is told as what it was within milliseconds. A body that is cancelled or takes
too long is interrupted where it stands, and killed with its process if that
does not help within its grace. When the app ends, however that happens, its
children end with it.

Task names and JSON travel there and back, never functions or pickled results:
the child loads the app as it is written in its file, and does not start it.
Children are forked from a small process that has only loaded what is needed
(`_nursery`), one idle one in advance, up to *workers*.

POSIX only: the signals and descriptors that all this stands on are its."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Coroutine, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from quarterjack.errors import BodyDied, ExecutorClosed, InvalidOption, UsageError
from quarterjack.model import ErrorInfo, Outcome, OutcomeKind

from ._away import Desk, DeskExecutor
from ._frames import LARGE
from ._remote import request_of
from ._starting import Nursery
from ._worker_process import Running, WorkerProcess, settings_for, words_of
from .base import AppRef, Call, Capabilities, Home, Report

__all__ = ["PROCESSES", "ProcessExecutor"]

log = logging.getLogger("quarterjack.executors")

StartMethod = Literal["forkserver", "spawn"]
PROCESSES: Final = "QUARTERJACK_PROCESSES"
"""The environment variable by which ``qj run --workers`` says how many processes share this machine."""
AGAIN_S: Final = 1.0
"""How long after a child could not be started the next one is."""
STARTS_MOST: Final = 3
"""After so many starts in a row that failed, what waits for a child has died."""
EXIT_S: Final = 2.0
"""How long an idle child may take to end."""


def _default_workers() -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sharing = os.environ.get(PROCESSES, "")
    return max(1, cpus // int(sharing)) if sharing.isdecimal() and int(sharing) else cpus


class ProcessExecutor(DeskExecutor):
    """Runs up to *workers* bodies at once, each in a process of its own.

    Args:
        workers: How many; None is one per processor, divided among the processes of ``qj run --workers``.
        max_jobs: A child is replaced after so many bodies; 1 gives every body a fresh process.
        max_rss: A child is replaced once it holds more bytes of memory than this after a body.
        preload: Modules that are imported once, before children are forked: less memory, quicker starts. They
            must not start threads when they are imported.
        start_method: ``"forkserver"`` forks children from a small process; ``"spawn"`` starts each as a new
            interpreter, which takes longer and preloads nothing. None is what suits the system.
        name: What the executor is called in logs.

    Raises:
        InvalidOption: If a value is out of its range.
    """

    is_remote: ClassVar[bool] = True
    capabilities: ClassVar[Capabilities] = Capabilities(
        can_cancel_queued=True,
        can_interrupt=True,
        can_kill=True,
        can_report_start=True,
        can_report_progress=True,
        survives_worker_restart=False,
        submit_is_idempotent=False,
        runs_coroutines=True,
    )

    def __init__(
        self,
        workers: int | None = None,
        *,
        max_jobs: int | None = None,
        max_rss: int | None = None,
        preload: Sequence[str] = (),
        start_method: StartMethod | None = None,
        name: str = "process",
    ) -> None:
        for field, value in (("workers", workers), ("max_jobs", max_jobs), ("max_rss", max_rss)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidOption(f"{field} must be a whole number from 1, got {value!r}")
        if isinstance(preload, str):
            raise InvalidOption(f"preload must be a list of modules such as ['numpy'], got {preload!r}")
        if start_method not in {None, "forkserver", "spawn"}:
            raise InvalidOption(f"start_method must be 'forkserver' or 'spawn', got {start_method!r}")
        self.slots = workers or _default_workers()
        self.name = name
        self._max_jobs = max_jobs
        self._max_rss_kib = None if max_rss is None else max_rss // 1024
        self._preload = tuple(preload)
        self._spawns = start_method == "spawn" or (start_method is None and not sys.platform.startswith("linux"))
        self._home: Home | None = None
        self._nursery: Nursery | None = None
        self._settings: dict[str, Any] = {}
        self._folder: Path | None = None
        self._children: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._queue: deque[Running] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = copy_context()
        self._again: asyncio.TimerHandle | None = None
        self._is_told = False
        self._failed_starts = 0

    # -- life ----------------------------------------------------------------------------------

    async def start(self, home: Home) -> None:
        """Bind to the running loop; processes begin when they are needed.

        Raises:
            UsageError: If this system is no POSIX one.
        """
        if sys.platform == "win32":
            raise UsageError(f"the executor {self.name!r} needs a POSIX system; use executor='thread' on this one")
        self._desk = Desk(asyncio.get_running_loop(), home.clock)
        self._home, self._context, self._is_told, self._failed_starts = home, copy_context(), False, 0

    async def warm(self) -> None:
        """Start the first child: a task names this executor.

        Raises:
            UsageError: If no other process could find the app.
        """
        self._open()

    def _open(self) -> Nursery:
        desk, home = self._desk, self._home
        if desk is None or home is None:
            raise ExecutorClosed(f"the executor {self.name!r} is not started, or was stopped")
        if self._nursery is None:
            app: AppRef = home.find_app()
            self._folder = Path(tempfile.mkdtemp(prefix="quarterjack-"))
            self._settings = settings_for(app, self._folder, tells_memory=self._max_rss_kib is not None)
            self._nursery = Nursery(desk.loop, self._preload, spawns=self._spawns)
            self._fill()
        return self._nursery

    @property
    def pids(self) -> frozenset[int]:
        """The processes of its children."""
        return frozenset(child.pid for child in self._children if child.pid is not None)

    def submit(self, call: Call, report: Report) -> Running:
        """Hand the call to an idle child, or have it wait for one that begins.

        Raises:
            ExecutorFull: If all slots are taken.
            ExecutorClosed: If it is not started, or was stopped.
            InvalidArguments: If the arguments cannot travel.
            UsageError: If no other process could find the app.
        """
        desk = self._desk_with_room()
        self._open()
        running = Running(self, desk, call, report, request_of(call))
        self._queue.append(running)
        self._pump()
        return running

    async def stop(self, grace_s: float) -> None:
        """Interrupt every body, kill what is left after *grace_s* seconds, and end every child."""
        desk, self._desk = self._desk, None
        nursery, self._nursery = self._nursery, None
        if desk is None:
            return
        if self._again is not None:
            self._again.cancel()
            self._again = None  # or the next start would wait for it for ever
        out = [away for away in desk.out if isinstance(away, Running)]
        for running in out:
            running.cancel("shutdown")
        try:
            await desk.wait_for(out, grace_s)
            for running in out:
                if running in desk.out:
                    running.kill()
            await self._end_children()
        finally:
            for running in out:
                if running in desk.out:
                    running.abandon()
            if nursery is not None:
                await nursery.close()
            await self._end_tasks()
            for child in tuple(self._children):
                child.drop()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    async def _end_children(self) -> None:
        """Let idle children end; kill those that do not, or are still beginning."""
        begun = [child for child in self._children if child.pid is not None]
        for child in begun:
            child.retire()
            if not child.is_ready:
                child.kill()
        for _ in range(2):
            try:
                async with asyncio.timeout(EXIT_S):
                    for child in begun:
                        await child.over.wait()
            except TimeoutError:
                for child in self._children:
                    child.kill()

    async def _end_tasks(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- children ------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Hand waiting calls to idle children, and see that there are enough of these."""
        while self._queue and self._idle:
            running = self._queue.popleft()
            if running.has_turn or running.may_begin():
                running.has_turn = True
                self._give(self._idle.pop(), running)
        self._fill()

    def _give(self, child: WorkerProcess, running: Running) -> None:
        if len(running.request) > LARGE and self._folder is not None:
            self.spawn(child.run_large(running, self._folder))
        else:
            child.run(running)
        if self._max_jobs is not None and child.jobs >= self._max_jobs:
            child.retire()  # its replacement starts now, while it works

    def _fill(self) -> None:
        """Start children: one for each call that waits, and one idle in advance, up to the number of slots."""
        if self._nursery is None or self._again is not None:
            return
        staying = [child for child in self._children if not child.is_retiring and not child.is_outgrown]
        busy = sum(child.running is not None for child in staying)
        wanted = min(self.slots, busy + len(self._queue) + 1)
        for _ in range(wanted - len(staying)):
            child = WorkerProcess(self, self._nursery)
            self._children.add(child)
            self.spawn(self._start(child, self._nursery))

    async def _start(self, child: WorkerProcess, nursery: Nursery) -> None:
        try:
            await nursery.open()
            await child.open(self._settings)
        except OSError as error:
            child.on_unstarted(str(error))

    def spawn(self, call: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for, in the context the executor was started in."""
        task = asyncio.get_running_loop().create_task(call, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what children tell ----------------------------------------------------------------------

    def on_ready(self, child: WorkerProcess) -> None:
        """A child has loaded the app."""
        self._is_told, self._failed_starts = False, 0
        if child.is_retiring:
            return
        outgrown = next((one for one in self._children if one.is_outgrown and not one.is_retiring), None)
        if outgrown is not None:
            if outgrown in self._idle:
                self._idle.remove(outgrown)
            outgrown.retire()
        self._idle.append(child)
        self._pump()

    def on_unloadable(self, child: WorkerProcess, why: str, trace: str) -> None:
        """A child cannot load the app: what waits cannot run."""
        child.is_retiring = True
        if not self._is_told:
            self._is_told = True
            log.error("the executor %r cannot load the app in a process of its own: %s", self.name, trace.rstrip())
        text = f"the app cannot be loaded in another process: {why}"
        self._refuse(Outcome(OutcomeKind.REJECTED, reason=text, info=ErrorInfo("Unloadable", text, trace)))

    def _refuse(self, outcome: Outcome) -> None:
        waiting, self._queue = self._queue, deque()
        for running in waiting:
            if running.has_turn or running.may_begin():
                running.on_over(outcome)

    def on_idle(self, child: WorkerProcess) -> None:
        """A child's body is over."""
        if self._max_rss_kib is not None and child.memory_kib > self._max_rss_kib:
            child.is_outgrown = True
        if not child.is_retiring:
            self._idle.append(child)
        if self._desk is not None:
            self._pump()

    def on_gone(self, child: WorkerProcess) -> None:
        """A child has ended."""
        self._children.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        if self._desk is None or child.is_retiring or self._nursery is None:
            return
        if child.is_ready:
            self._fill()
            return
        words = child.why_not or words_of(child.code)
        log.warning("a process of the executor %r ended before it was ready: %s", self.name, words)
        self._failed_starts += 1
        if self._failed_starts < STARTS_MOST:
            self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._try_again)
            return
        self._failed_starts = 0  # the next call tries anew
        error = BodyDied(child.code, f"{words}, while it loaded the app")
        self._refuse(Outcome(OutcomeKind.DIED, error=error, reason=str(error)))

    def _try_again(self) -> None:
        self._again = None
        self._pump()

    def again(self, running: Running) -> None:
        """A child has died that had not begun the body it was given: another one gets it."""
        self._queue.appendleft(running)
        self._pump()

    def forget(self, running: Running) -> None:
        """A call that waited was withdrawn."""
        if running in self._queue:
            self._queue.remove(running)
