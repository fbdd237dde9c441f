"""A pool of processes whose children load a script of the test's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.executors import AppRef, Handle, Home, ProcessExecutor
from quarterjack.executors import _crew as crews
from quarterjack.executors._worker_process import Running
from quarterjack.testing._executor_bench import ExecutorBench, Track, until

BODIES = "from quarterjack.testing._contract_bodies import app\n"


class Pool:
    """An executor whose children load a script of the test's."""

    def __init__(self, folder: Path, script: str, slots: int = 1, **options: Any) -> None:
        self.executor = ProcessExecutor(slots, **options)
        self.bench = ExecutorBench(lambda _: self.executor, "plain", folder)
        self.script = folder / "script.py"
        self.script.write_text(script, encoding="utf-8")

    @asynccontextmanager
    async def started(self) -> AsyncGenerator[Pool, None]:
        await self.executor.start(self.home)
        await self.executor.warm()
        try:
            yield self
        finally:
            await self.executor.stop(0)

    @property
    def home(self) -> Home:
        return Home(SYSTEM_CLOCK, lambda: AppRef(None, str(self.script), "app"))

    def begin(self, task: str, *args: Any) -> Track:
        return self.bench.begin(self.executor, task, *args)[1]

    @property
    def crew(self) -> crews.Crew:
        assert self.executor._crew is not None
        return self.executor._crew

    @property
    def nursery_pid(self) -> int:
        process = self.crew._nursery._process
        assert process is not None
        return process.pid

    @staticmethod
    def pid_of(handle: Handle) -> int:
        """Return the process that runs a body."""
        assert isinstance(handle, Running)
        assert handle.child is not None
        assert handle.child.pid is not None
        return handle.child.pid

    async def ready(self, count: int = 1) -> None:
        """Wait until so many children are idle."""
        await until(lambda: len(self.crew._idle) == count)
