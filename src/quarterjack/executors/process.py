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

import os
import sys
from collections.abc import Sequence
from typing import ClassVar, Final, Literal

from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import whole_number
from quarterjack.errors import ExecutorClosed, ExecutorFull, InvalidOption, UsageError

from ._chores import Chores
from ._crew import Crew, Rules
from ._desk_executor import DeskExecutor
from ._remote import request_of
from ._starting import Nursery
from ._worker_process import Running
from .base import Call, Capabilities, Home, Report

__all__ = ["PROCESSES", "ProcessExecutor"]

StartMethod = Literal["forkserver", "spawn"]
PROCESSES: Final = "QUARTERJACK_PROCESSES"
"""The environment variable by which ``qj run --workers`` says how many processes share this machine."""


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
        load_timeout: How long a child may take until it has loaded the app; one that takes longer is killed, and
            after three of them what waits has died. Seconds, or a timedelta.
        name: What the executor is called in logs.

    Raises:
        InvalidOption: If a value is out of its range.
    """

    is_remote: ClassVar[bool] = True
    _meant: ClassVar = {"slots": "how many children there are is workers="}
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
        load_timeout: Seconds = 60.0,
        name: str = "process",
    ) -> None:
        for field, value in (("workers", workers), ("max_jobs", max_jobs), ("max_rss", max_rss)):
            if value is not None:
                whole_number(value, field, 1)
        if isinstance(preload, str):
            raise InvalidOption(f"preload must be a list of modules such as ['numpy'], got {preload!r}")
        if start_method not in {None, "forkserver", "spawn"}:
            raise InvalidOption(f"start_method must be 'forkserver' or 'spawn', got {start_method!r}")
        self.slots = workers or _default_workers()
        self.name = name
        load_s = to_seconds(load_timeout, "load_timeout", exclusive=True)
        self._rules = Rules(self.slots, max_jobs, None if max_rss is None else max_rss // 1024, load_s)
        self._preload = tuple(preload)
        self._spawns = start_method == "spawn" or (start_method is None and not sys.platform.startswith("linux"))
        self._home: Home | None = None
        self._crew: Crew | None = None
        self._chores = Chores()

    # -- life ----------------------------------------------------------------------------------

    async def start(self, home: Home) -> None:
        """Bind to the running loop; processes begin when they are needed.

        Raises:
            UsageError: If this system is no POSIX one, or another app uses the executor.
        """
        if sys.platform == "win32":
            raise UsageError(f"the executor {self.name!r} needs a POSIX system; use executor='thread' on this one")
        self._desk = self._new_desk(home)
        if self._crew is not None:  # of an app that ended without stopping it
            self._crew.desert()
        self._home, self._crew, self._chores = home, None, Chores()

    async def warm(self) -> None:
        """Start the first child: a task names this executor.

        Raises:
            UsageError: If no other process could find the app.
        """
        self._open()

    def _open(self) -> Crew:
        desk, home = self._desk, self._home
        if desk is None or home is None:
            raise ExecutorClosed(f"the executor {self.name!r} is not started, or was stopped")
        if self._crew is None:
            app = home.find_app()
            nursery = Nursery(desk.loop, self._preload, spawns=self._spawns)
            self._crew = Crew(self.name, self._rules, desk, app, nursery, self._chores)
        return self._crew

    @property
    def pids(self) -> frozenset[int]:
        """The processes of its children."""
        return frozenset() if self._crew is None else self._crew.pids

    def submit(self, call: Call, report: Report) -> Running:
        """Hand the call to an idle child, or have it wait for one that begins.

        Raises:
            ExecutorFull: If all slots are taken, or the system has no room for a pool of processes.
            ExecutorClosed: If it is not started, or was stopped.
            InvalidArguments: If the arguments cannot travel.
            UsageError: If no other process could find the app.
        """
        desk = self._desk_with_room()
        try:
            crew = self._open()
        except OSError as error:  # its folder: no space, no descriptors; later there may be
            raise ExecutorFull(f"the executor {self.name!r} cannot begin: {error}") from error
        running = Running(crew, desk, call, report, request_of(call))
        crew.take(running)
        return running

    async def stop(self, grace_s: float) -> None:
        """Interrupt every body, kill what is left after *grace_s* seconds, and end every child."""
        desk, self._desk = self._desk, None
        crew, self._crew = self._crew, None
        if desk is None or crew is None:
            return
        crew.halt()
        try:
            await self._end_all(desk, grace_s, crew.end)
        finally:
            await crew.close()
