"""The end of ``qj run``: what was told to end and does not is left behind.

`asyncio.run` cancels what is left of a program and waits for it, for ever if a
coroutine swallows its cancellation. Whoever pressed Ctrl-C twice was promised
otherwise: `run` gives the rest a second and tells who is still there, and
`leave` ends the process over their heads."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import quarterjack

__all__ = ["leave", "run"]

log = logging.getLogger("quarterjack.run")

REST_GRACE_S: Final = 1.0
"""How long what is left may take once it is cancelled; bodies of jobs have had their time by then."""
_OURS: Final = str(Path(quarterjack.__file__).parent)


def run(main: Coroutine[Any, Any, None], left: list[str], is_forced: Callable[[], bool]) -> None:
    """Run *main* as `asyncio.run` does, but wait for what it leaves behind no longer than a second.

    Args:
        main: What is run; it is waited for as long as it takes, also if it is cancelled.
        left: Takes the words for what does not end, which is in the log by then. If
            there is any, the loop stays open and the process can only end by `leave`.
        is_forced: Asked after *main* whether the threads of ``asyncio.to_thread``
            are no longer waited for either.
    """
    runner = asyncio.Runner()
    loop = runner.get_loop()
    main_task = loop.create_task(main)
    try:
        runner.run(_awaited(main_task))
    finally:
        left += loop.run_until_complete(_rest(main_task, is_forced))
        for one in left:
            log.error("%s was told to end and does not: the process ends without it", one)
        if not left:
            runner.close()


async def _awaited(task: asyncio.Task[None]) -> None:
    await task


async def _rest(main: asyncio.Task[None], is_forced: Callable[[], bool]) -> list[str]:
    """Cancel all tasks, wait, and put those that go on into words."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if not main.done():  # KeyboardInterrupt left the loop past it: it has an app to shut down
        await asyncio.wait({main})
    if rest:
        await asyncio.wait(rest, timeout=REST_GRACE_S)
    found = [_words(task) for task in rest if not task.done()]
    if not found and is_forced():
        threads = asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor())
        await asyncio.wait({threads}, timeout=REST_GRACE_S)
        found += [] if threads.done() else ["a thread of asyncio.to_thread"]
    return found


def _words(task: asyncio.Task[Any]) -> str:
    """Return a task's name, which is the job's id, its function, and the line on which it waits."""
    frames = [frame for frame in _frames(task.get_coro()) if not frame.f_code.co_filename.startswith(_OURS)]
    if not frames:
        return task.get_name()
    file = os.path.relpath(frames[0].f_code.co_filename)
    return f"{task.get_name()} ({frames[0].f_code.co_qualname}, {file}:{frames[0].f_lineno})"


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Walk from a coroutine to what it waits for, and on."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def leave(code: int) -> NoReturn:
    """End the process now, with what was written so far written in full; no ``atexit`` function is called."""
    with suppress(Exception):  # a handler of theirs may raise anything, and this is the end all the same
        logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a pipe that nobody reads, or closed
            stream.flush()
    os._exit(code)
