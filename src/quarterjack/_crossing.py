"""From one event loop to another, and from threads that have none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .errors import WrongLoop

__all__ = ["across_loops", "from_thread"]

T = TypeVar("T")


async def across_loops(loop: asyncio.AbstractEventLoop, ask: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Await ``ask(*args)`` on *loop*, wherever the caller runs."""
    if asyncio.get_running_loop() is loop:
        return await ask(*args)
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ask(*args), loop))


def from_thread(
    loop: asyncio.AbstractEventLoop, refusal: str, ask: Callable[..., Coroutine[Any, Any, T]], *args: Any
) -> T:
    """Run ``ask(*args)`` on *loop* and block until it ends.

    Raises:
        WrongLoop: With *refusal*, on that loop's own thread: it would wait for itself.
    """
    try:
        running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is loop:
        raise WrongLoop(refusal)
    asked = ask(*args)
    try:
        answer = asyncio.run_coroutine_threadsafe(asked, loop)
    except BaseException:  # the loop is closed
        asked.close()
        raise
    return answer.result()
