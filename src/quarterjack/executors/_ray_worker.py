"""Inside a Ray cluster: the function that runs one body there, and the actor that carries what bodies say.

Ray's soft cancel is a flag, at which Python looks between two steps of the main
thread: a body that sleeps, or waits for a lock or a socket, does not see it. So
a thread here hears of that flag, by the descriptor that Python tells of it
(`signal.set_wakeup_fd`), and wakes the main thread with a signal that does
nothing else. What then raises in the body goes through the gate of all our
processes, so it hits neither what comes before the body nor what reports it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import FrameType
from typing import Any, Final

from quarterjack.clock import SYSTEM_CLOCK

from ._frames import Frame
from ._gate import Gate
from ._loading import load_bodies
from ._remote import Answer, Bodies, Request, take_or_answer
from ._stage import Said, Stage
from .base import AppRef

__all__ = ["Board", "Letter", "run_body"]

Letter = tuple[int, int, bytes]
"""What a body says: its number, a frame's kind, and its data."""
_WAKE: Final = signal.SIGUSR1 if hasattr(signal, "SIGUSR1") else signal.SIGINT


class Board:
    """The actor: bodies put letters there, and the process that waits for them takes them."""

    def __init__(self) -> None:
        self._letters: list[Letter] = []
        self._has_some = asyncio.Event()

    async def tell(self, letter: Letter) -> None:
        """Put a letter there."""
        self._letters.append(letter)
        self._has_some.set()

    async def news(self) -> list[Letter]:
        """Wait for letters, and take them."""
        await self._has_some.wait()
        self._has_some.clear()
        letters, self._letters = self._letters, []
        return letters


def run_body(app: Sequence[Any], data: bytes, number: int, board: Any) -> tuple[list[Letter], bytes]:
    """Run the body that a request names.

    Args:
        app: An `AppRef`'s fields.
        data: The request, as `request_of` wrote it.
        number: What the body is called on the board.
        board: The actor's handle.

    Returns:
        The last of each that it said, for those letters may be late, and its answer.
    """
    request, place, words = Request.read(data), _place(), _Words(number, board)
    with place.taken():
        said = Said(place.gate, words.tell)
        answer = _answer(place, AppRef(*app), request, said, words)
        said.close()
    return words.last(), answer


def _answer(place: _Place, app: AppRef, request: Request, said: Said, words: _Words) -> bytes:
    if request.deadline_ns is not None and SYSTEM_CLOCK.now_ns() > request.deadline_ns:
        return Answer.missed("Ray had room for it after its start deadline")
    body = take_or_answer(partial(_bodies_of, app), request, said, "Ray worker")
    if isinstance(body, bytes):
        return body
    words.tell(Frame.STARTED, b"")
    return place.stage.answer(body)


@cache
def _bodies_of(app: AppRef) -> Bodies:
    return load_bodies(app)


class _Words:
    """What one body says, on its way to the board."""

    def __init__(self, number: int, board: Any) -> None:
        self._number = number
        self._board = board
        self._last: dict[Frame, bytes] = {}

    def tell(self, kind: Frame, data: bytes) -> None:
        """Send it; wait for nothing."""
        self._last[kind] = data
        try:
            self._board.tell.remote((self._number, int(kind), data))
        except Exception as error:  # Ray's: the last words go with the answer, too
            raise OSError(str(error)) from error

    def last(self) -> list[Letter]:
        """Return the last of each kind."""
        return [(self._number, int(kind), data) for kind, data in self._last.items()]


class _Place:
    """This process, where one body runs at a time; made in its main thread."""

    def __init__(self) -> None:
        self.gate = Gate(lambda: self._is_cancelled)
        self.stage = Stage(self.gate)
        self._is_cancelled = False
        told, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        main = threading.get_ident()
        threading.Thread(target=_wake, args=(told, main), name="qj-wake", daemon=True).start()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have Ray's cancels go through the gate; what came before this block is not for its body."""
        self._is_cancelled = False
        self.gate.reset()
        signal.signal(_WAKE, _nothing)  # for good: the last one may come after the block
        fd = signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        theirs = signal.signal(signal.SIGINT, self._on_cancel)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, theirs)
            signal.set_wakeup_fd(fd)

    def _on_cancel(self, _: int, __: FrameType | None) -> None:
        self._is_cancelled = True
        self.gate.ring()


@cache
def _place() -> _Place:
    return _Place()


def _wake(told: int, main: int) -> None:
    """Wake the main thread whenever the flag of SIGINT was set, whatever it waits for."""
    while numbers := os.read(told, 64):
        if signal.SIGINT in numbers:
            signal.pthread_kill(main, _WAKE)


def _nothing(*_: object) -> None:
    """Do nothing."""
