"""The process that speaks to Ray, as the app sees it: a socket, a leash, and how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from functools import partial
from typing import Any, Final, Protocol

from pydantic_core import from_json

from ._frames import Frame, Frames, number_of, pack
from ._leash import not_for_forks
from ._starting import in_thread, program

__all__ = ["Link", "Owner"]

LAST_WORDS_S: Final = 2.0
"""How long after its socket the process itself may take to end, and the other way round."""
EXIT_S: Final = 10.0
"""How long it may take to leave Ray, and to end a Ray that it has started."""


class Owner(Protocol):
    """Who has the link; called on the loop."""

    def on_ready(self) -> None: ...
    def on_unready(self, why: str, trace: str) -> None: ...
    def on_frame(self, kind: Frame, number: int, data: bytes) -> None: ...
    def on_gone(self, link: Link) -> None: ...


class Link(asyncio.Protocol):
    """One such process, from its start to its end.

    Args:
        owner: Hears what it says.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._leash = -1
        self._timer: asyncio.TimerHandle | None = None
        self._is_unwanted = False
        self._is_cut = asyncio.Event()
        self.is_ready = False
        self.is_over = False
        self.code: int | None = None
        """How it ended; None before that."""

    async def live(self, settings: dict[str, Any]) -> None:
        """Start the process, and return when it has ended.

        Raises:
            OSError: If it cannot be started.
        """
        try:
            await self._open(settings)
            self.code = await in_thread(self._wait)
            with contextlib.suppress(TimeoutError):  # a process that it has started may hold its socket open
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._is_cut.wait()  # behind everything that it has written
        finally:
            self._close()
        self._owner.on_gone(self)

    async def _open(self, settings: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                ours.setblocking(False)
                self._process = await in_thread(partial(self._popen, theirs.fileno()))
                self._transport, _ = await loop.create_connection(lambda: self, sock=ours)
            except BaseException:
                ours.close()
                raise
        if self._is_unwanted:  # it was ended before it had begun
            self._kill()
        self.send(Frame.HELLO, json.dumps(settings).encode())  # the path of the app may be no UTF-8

    def _popen(self, link: int) -> subprocess.Popen[bytes]:
        """Start the process in a session of its own: signals of a terminal are for the app."""
        held, self._leash = os.pipe()
        not_for_forks(self._leash, partial(os.close, self._leash))
        try:
            words = program("_ray_driver", link, held, *sys.argv)
            return subprocess.Popen(words, pass_fds=(link, held), stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
        finally:
            os.close(held)

    def _wait(self) -> int:
        assert self._process is not None  # noqa: S101  # it was started in the line before
        return self._process.wait()

    def _close(self) -> None:
        self.is_over = True
        self.is_ready = False
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        if self._process is not None and self.code is None:
            self._process.kill()
        if self._leash >= 0:
            not_for_forks(self._leash, None)
            os.close(self._leash)

    def send(self, kind: Frame, data: bytes = b"") -> None:
        """Write a frame."""
        if self._transport is not None and not self.is_over:
            self._transport.write(pack(kind, data))

    def end(self) -> None:
        """Have it leave Ray, and end; by force if it takes too long, or has not even connected."""
        self._is_unwanted = True
        if self.is_ready:
            self.send(Frame.EXIT)
            self._kill_in(EXIT_S)
        else:
            self._kill()

    def _kill_in(self, seconds: float) -> None:
        if self._timer is None and not self.is_over:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._kill)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    # -- what it says ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        while (frame := self._frames.take()) is not None:
            self._hear(*frame)

    def _hear(self, kind: Frame, data: bytes) -> None:
        if kind is Frame.READY:
            self.is_ready = True
            self._owner.on_ready()
        elif kind is Frame.UNLOADABLE:
            self._owner.on_unready(*from_json(data))
            self._kill()
        else:
            self._owner.on_frame(kind, *number_of(data))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # whatever it was, nothing more comes
        self._is_cut.set()
        self._kill_in(LAST_WORDS_S)
