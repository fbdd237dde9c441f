"""What an executor does beside its calls: tasks that nobody awaits one by one, and that end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any

__all__ = ["Chores"]


class Chores:
    """Such tasks, in the context in which this was made: the job that happens to ask must not leak its variables."""

    def __init__(self) -> None:
        self._context = copy_context()
        self.tasks: set[asyncio.Task[None]] = set()

    def do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the running loop's other work."""
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def end(self) -> None:
        """Cancel what is left, and wait for its end."""
        left = tuple(self.tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
