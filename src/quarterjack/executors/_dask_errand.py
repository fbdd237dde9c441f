"""One attempt on its way through Dask, and what Dask's own answers and failures mean for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from distributed import KilledWorker

from quarterjack.errors import BodyDied
from quarterjack.model import ErrorInfo, Outcome, OutcomeKind

from ._dask_message import Message
from ._remote import outcome_of
from .base import AppRef, Call

__all__ = ["Errand", "reader"]

_CANCELLED: Final = (asyncio.CancelledError, concurrent.futures.CancelledError)
"""What Dask raises of a future whose scheduler is gone, by its release."""


class Errand:
    """One attempt on its way; several messages if it was handed in more than once."""

    task: asyncio.Task[None]

    def __init__(self, call: Call, app: AppRef, request: bytes) -> None:
        self.call, self.app = call, app
        self.ref = call.ref
        self.request: Any = request
        self.messages: list[Message] = []
        self.client: Any = None
        self.future: Any = None

    @property
    def is_wanted(self) -> bool:
        """True while anybody waits for it."""
        return any(not message.is_over for message in self.messages)


async def reader(future: Any) -> Callable[[Message], Outcome]:
    """Return what tells each message how it ended, once Dask's future is there."""
    try:
        answer: bytes = await future
    except Exception as error:  # Dask's; `run_body` itself answers with all that there is to say
        return partial(_failure, error)
    return partial(_outcome, answer)


def _outcome(answer: bytes, message: Message) -> Outcome:
    return outcome_of(message.call, answer)


def _failure(error: Exception, message: Message) -> Outcome:
    """Return what Dask's own failure means for an attempt."""
    words = f"{type(error).__name__}: {error}"
    if message.is_begun or isinstance(error, (OSError, *_CANCELLED)):
        return Outcome(OutcomeKind.LOST, reason=f"Dask has lost it: {words}")
    if isinstance(error, KilledWorker):
        died = BodyDied(None, f"the Dask workers that were to run it ended: {words}")
        return Outcome(OutcomeKind.DIED, error=died, reason=str(died))
    cause = "" if error.__cause__ is None else f" ({type(error.__cause__).__name__}: {error.__cause__})"
    why = f"Dask cannot run it; is quarterjack[dask] installed for its scheduler and its workers? {words}{cause}"
    return Outcome(OutcomeKind.REJECTED, reason=why, info=ErrorInfo(type(error).__name__, str(error)))
