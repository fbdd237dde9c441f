"""One attempt on its way through Dask, and what Dask's own answers and failures mean for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any, Final

from distributed import KilledWorker

from quarterjack.errors import BodyDied
from quarterjack.model import ErrorInfo, Outcome, OutcomeKind

from ._dask_fence import key_of
from ._dask_message import Message
from .base import AppRef, Call

__all__ = ["Errand"]

_OUT_OF_REACH: Final = (OSError, asyncio.CancelledError, concurrent.futures.CancelledError)
"""What Dask raises of a future whose scheduler is gone, by its release."""


class Errand:
    """One attempt on its way; several messages if it was handed in more than once."""

    task: asyncio.Task[None]

    def __init__(self, call: Call, app: AppRef, request: bytes) -> None:
        self.call, self.app = call, app
        self.ref = call.ref
        self.key = key_of(call.task, call.ref)
        self.request = request
        self.messages: list[Message] = []
        self.client: Any = None
        self.future: Any = None
        self._held: list[Any] = []
        self.is_ending = False
        """It is carried no further: who comes now needs another one."""

    @property
    def is_wanted(self) -> bool:
        """True while anybody waits for it."""
        return any(not message.is_over for message in self.messages)

    def hold(self, future: Any) -> Any:
        """Have Dask keep what a future of its stands for, until `release`."""
        self._held.append(future)
        return future

    def release(self) -> None:
        """Let Dask forget it: now, not when Python collects what refers to the futures, which may be never."""
        held, self._held, self.future = self._held, [], None
        for future in held:
            future.release()

    def tell(self, read: Callable[[Call], Outcome]) -> None:
        """It is over, and each message reads how."""
        for message in self.messages.copy():
            message.on_over(read(message.call))

    def tell_failure(self, error: Exception) -> None:
        """Dask itself has failed."""
        for message in self.messages.copy():
            message.on_over(_failure(error, message))


def _failure(error: Exception, message: Message) -> Outcome:
    """Return what Dask's own failure means for an attempt."""
    words = f"{type(error).__name__}: {error}"
    if message.is_begun or isinstance(error, _OUT_OF_REACH):
        return Outcome(OutcomeKind.LOST, reason=f"Dask has lost it: {words}")
    if isinstance(error, KilledWorker):
        died = BodyDied(None, f"the Dask workers that were to run it ended: {words}")
        return Outcome(OutcomeKind.DIED, error=died, reason=str(died))
    cause = "" if error.__cause__ is None else f" ({type(error.__cause__).__name__}: {error.__cause__})"
    why = f"Dask cannot run it; is quarterjack[dask] installed for its scheduler and its workers? {words}{cause}"
    return Outcome(OutcomeKind.REJECTED, reason=why, info=ErrorInfo(type(error).__name__, str(error)))
