"""The nursery, as the app sees it: started in a thread, asked over a socket, and started anew if it dies."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

from ._away import UNKILLABLE_S
from ._leash import not_for_forks

__all__ = ["Newborn", "Nursery", "in_thread", "program"]

log = logging.getLogger("quarterjack.executors")

T = TypeVar("T")
CLOSE_S: Final = 2.0
"""How long the process may take to end by itself; one that stands still, or swaps, is killed."""
ENDED: Final = "the process that starts children has ended"
_CODE: Final = "import sys; sys.path[:] = {path!r}; from quarterjack.executors.{module} import main; main()"
_ROOT: Final = str(Path(__file__).parents[2])


class Newborn(Protocol):
    """A child, as its nursery tells of it; on the loop."""

    def on_started(self, pid: int) -> None: ...
    def on_unstarted(self, why: str) -> None: ...
    def on_ended(self, code: int | None) -> None:
        """It has ended; with None nobody knows how: its nursery died."""
        ...


async def in_thread(call: Callable[[], T]) -> T:
    """Return what *call* returns, called in a thread of its own: it may stop for some milliseconds.

    Raises:
        OSError: If the system gives us no thread.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]  # a result, as there is no error
        else:
            done.set_exception(error)

    def run() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = call(), None
        except BaseException as error:  # carried to who waits for it
            outcome = None, error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, *outcome)

    try:
        threading.Thread(target=run, name="qj-start", daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    return await done


def program(module: str, *words: object) -> list[str]:
    """Return the command that calls ``main`` of a module beside this one, in an interpreter set as this one is."""
    path = sys.path if _ROOT in sys.path else [*sys.path, _ROOT]
    flags = cast("list[str]", subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]  # multiprocessing's way, too
    return [sys.executable, *flags, "-c", _CODE.format(path=path, module=module), *map(str, words)]


class Nursery:
    """Starts, signals and buries the children of one executor. Belongs to its loop.

    Args:
        loop: The app's.
        preload: Modules that are imported once, before children are made.
        spawns: Whether each child is a new interpreter.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, preload: Sequence[str], *, spawns: bool) -> None:
        self._loop = loop
        self._preload = list(preload)
        self._spawns = spawns
        self._numbers = itertools.count(1)
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._opening: asyncio.Future[None] | None = None
        self._buffer = b""
        self._unborn: dict[int, Newborn] = {}
        self._children: dict[int, Newborn] = {}
        self._strays: set[int] = set()
        """Children that have outlived the process that started them."""

    async def open(self) -> None:
        """Start the process, unless it runs.

        Raises:
            OSError: If it cannot be started.
        """
        if self._opening is None:
            self._opening = self._loop.create_task(self._open())
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await in_thread(lambda: _popen(theirs))
        except BaseException:
            ours.close()
            self._opening = None
            raise
        ours.setblocking(False)
        self._link = ours
        not_for_forks(ours.fileno(), ours.close)
        self._loop.add_reader(ours, self._listen)
        self._send({"do": "begin", "preload": self._preload, "spawns": self._spawns, "argv": sys.argv})

    def start(self, child: Newborn, link: int, leash: int) -> None:
        """Start a child with these descriptors; its `on_started` follows.

        Raises:
            OSError: If the process has ended since `open`.
        """
        if self._link is None:
            raise OSError(ENDED)
        number = next(self._numbers)
        self._unborn[number] = child
        self._send({"do": "start", "number": number}, (link, leash))

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a child, if it has not ended."""
        if pid in self._children:
            self._send({"do": "signal", "pid": pid, "signal": number})
        elif pid in self._strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left who knows for certain
                os.kill(pid, number)

    def _send(self, order: dict[str, Any], fds: Sequence[int] = ()) -> None:
        if self._link is None:
            return
        try:
            data = json.dumps(order).encode() + b"\n"
            sent = socket.send_fds(self._link, [data], list(fds))
            if sent < len(data):
                raise BlockingIOError("the nursery does not listen")
        except OSError as error:
            log.warning("the process that starts children for bodies is out of reach: %s", error)
            self._lose()

    def _listen(self) -> None:
        data = b""
        if self._link is not None:
            with contextlib.suppress(ConnectionResetError):
                data = self._link.recv(65536)
        if not data:
            log.warning("the process that starts children for bodies has ended; it is started anew when needed")
            self._lose()
            return
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._hear(json.loads(line))

    def _hear(self, news: dict[str, Any]) -> None:
        if "started" in news:
            child = self._unborn.pop(news["started"])
            self._children[news["pid"]] = child
            child.on_started(news["pid"])
        elif "ended" in news:
            self._children.pop(news["ended"]).on_ended(news["code"])
        elif "unstarted" in news:
            self._unborn.pop(news["unstarted"]).on_unstarted(news["why"])
        else:
            log.error("%s cannot be preloaded for bodies in processes:\n%s", news["unloaded"], news["why"])

    def give_up(self) -> None:
        """It does not get on, in a module that it preloads: the next child has another one started."""
        log.error("the process that starts children for bodies does not get on; it is killed")
        self._lose()

    def _lose(self) -> None:
        """It is gone: its children go on, but nobody will tell how they end."""
        self._hang_up()
        process, self._process, self._opening = self._process, None, None
        if process is not None:
            _bury(process)
        self._strays.update(self._children)
        unborn, children = list(self._unborn.values()), list(self._children.values())
        self._unborn.clear()
        self._children.clear()
        for child in unborn:
            child.on_unstarted(ENDED)
        for child in children:
            child.on_ended(None)

    def _hang_up(self) -> None:
        link, self._link, self._buffer = self._link, None, b""
        if link is not None:
            self._loop.remove_reader(link)
            not_for_forks(link.fileno(), None)
            link.close()

    async def close(self) -> None:
        """End the process, and every child that it still has; also one that is about to begin, if this is cancelled."""
        opening = self._opening
        if opening is not None:
            try:
                await asyncio.shield(opening)
            except OSError:
                pass  # there is none
            except asyncio.CancelledError:
                opening.add_done_callback(lambda _: self._lose())
                raise
        self._hang_up()
        process, self._process, self._opening = self._process, None, None
        if process is not None:
            if not self._children:
                process.kill()  # it may still be loading, and has nothing left to do
            await self._ended(process)
        self._unborn.clear()
        self._children.clear()

    def desert(self) -> None:
        """End the process, and every child with it, without a loop: that of the app is closed."""
        link, self._link = self._link, None
        if link is not None:
            not_for_forks(link.fileno(), None)
            link.close()
        if self._process is not None:
            threading.Thread(target=_see_off, args=(self._process,), name="qj-bury", daemon=True).start()

    async def _ended(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for its end, which takes its children with it; if it does not come, end them all."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            await in_thread(lambda: process.wait(CLOSE_S))
            return
        log.warning("the process that starts children for bodies does not end by itself; it is killed")
        for pid in self._children:  # they are its own still: it has buried none
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            await in_thread(lambda: process.wait(UNKILLABLE_S))


def _bury(process: subprocess.Popen[bytes]) -> None:
    """Kill the process; whoever waits for it does so beside the loop."""
    process.kill()
    with contextlib.suppress(RuntimeError):  # no thread for it: the next process that is started buries it
        threading.Thread(target=process.wait, name="qj-bury", daemon=True).start()


def _see_off(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _popen(link: socket.socket) -> subprocess.Popen[bytes]:
    """Start the nursery; SIGINT is held back until it ignores it, so that Ctrl-C prints none of its lines."""
    words = program("_nursery", link.fileno())
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return subprocess.Popen(words, pass_fds=(link.fileno(),), stdin=subprocess.DEVNULL)  # noqa: S603
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
