"""Where a body runs in a process that works for an app: the main thread, one body at a time, behind a gate.

A plain function runs as it is, a coroutine function on one loop that lasts as
long as the process. What interrupts it comes through `_gate`, and meets the
body alone; what it says of itself on its way goes through `Said`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final

from pydantic_core import to_json

from quarterjack.clock import SYSTEM_CLOCK

from ._frames import Frame
from ._gate import Gate, Interrupted
from ._remote import Answer, Body, in_figures

__all__ = ["Said", "Stage"]

BETWEEN_S: Final = 0.1
"""Progress is told so often at most; the last word counts."""
INTERRUPTED: Final = "the body was interrupted"


class Stage:
    """Runs bodies, one after the other, in the main thread.

    Args:
        gate: What interrupts them.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._runner: asyncio.Runner | None = None

    def close(self) -> None:
        """Close the loop of coroutines."""
        if self._runner is not None:
            self._runner.close()

    def answer(self, body: Body, *, pickles: bool = False) -> bytes:
        """Run a body to its end; return the answer, never raise."""
        try:
            result = self._result_of(body)
        except Interrupted:
            return Answer.cancelled(INTERRUPTED)
        except BaseException as error:  # the user's code ran there, and whatever it raised is its job's outcome
            return Answer.raised(error, pickles=pickles)
        return Answer.returned(result, body.request.max_result_bytes)

    def _result_of(self, body: Body) -> Any:
        if not body.is_coroutine:
            return self._gate.run(lambda: body.context.run(body.fn, *body.args, **body.kwargs))
        if self._runner is None:
            self._runner = asyncio.Runner()
        outcome = self._runner.run(self._caught(body), context=body.context)
        if isinstance(outcome, _Raised):
            raise outcome.error
        return outcome

    async def _caught(self, body: Body) -> Any:
        """Await a body; what it raises is carried past asyncio, which lets SystemExit end the loop."""
        try:
            return await self._gate.run_async(lambda: body.fn(*body.args, **body.kwargs))
        except BaseException as error:  # raised again where the runner is left
            return _Raised(error)


class _Raised:
    """What a coroutine raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Said:
    """What one body says, until it is over; not more often than anybody wants to hear it.

    Args:
        gate: Holds interruptions off while something is told.
        tell: Takes a frame's kind and its data; an `OSError` says that nobody listens any more.
    """

    def __init__(self, gate: Gate, tell: Callable[[Frame, bytes], object]) -> None:
        self._gate = gate
        self._tell_it = tell
        self._lock = threading.Lock()
        self._news: tuple[float, float | None, str] | None = None
        self._told_at = 0.0
        self._has_news: threading.Condition | None = None  # made with the teller: most bodies say little
        self._is_over = False

    @property
    def is_unwanted(self) -> bool:
        """True once the body should end."""
        return self._gate.is_unwanted

    def keep(self, value: Any) -> None:
        """Tell the value for the next attempt."""
        with self._gate, self._lock:
            if not self._is_over:
                self._tell_it(Frame.KEEP, to_json(value))

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Tell it now, or soon."""
        news = in_figures(done, total, text)
        with self._gate, self._lock:  # an interruption must not leave it locked
            if self._is_over:  # a thread that the body left behind: the process works for another job by now
                return
            self._news = news
            now = SYSTEM_CLOCK.monotonic()
            if now - self._told_at >= BETWEEN_S:
                self._told_at = now
                self._tell()
            elif self._has_news is None:
                self._has_news = threading.Condition(self._lock)
                teller = threading.Thread(
                    target=self._tell_later, args=(self._has_news,), name="qj-progress", daemon=True
                )
                teller.start()
            else:
                self._has_news.notify()

    def close(self) -> None:
        """The body is over: tell what is left, and nothing more."""
        with self._lock:
            self._tell()
            self._is_over = True
            if self._has_news is not None:
                self._has_news.notify()

    def _tell(self) -> None:
        if self._news is not None:
            news, self._news = self._news, None
            self._tell_it(Frame.PROGRESS, to_json(news))

    def _tell_later(self, has_news: threading.Condition) -> None:
        pause = threading.Event()
        with contextlib.suppress(OSError):  # nobody listens any more
            while True:
                pause.wait(BETWEEN_S)
                with self._lock:
                    self._told_at = SYSTEM_CLOCK.monotonic()
                    self._tell()
                    while self._news is None:
                        if self._is_over:
                            return
                        has_news.wait()
