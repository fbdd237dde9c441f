"""Messages that are nowhere any more: a queue was emptied, or a worker died that had taken them and not begun.

The broker is trusted for long: one asks only for what has waited a minute, and
then after twice as long each time. A message is missing if its queue is empty and no
worker has it, as those say that answer. It is sent again, as it was: should it turn
up after all, the fence lets only one of the two begin."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from ._celery_message import Message

__all__ = ["Search"]

log = logging.getLogger("quarterjack.celery")

LOOK_S: Final = 30.0
PATIENCE: Final = 2
"""Looks before a message is asked for."""
ASKED_MOST: Final = 10
"""How many are asked for at once: workers answer with the whole messages that they have."""


class Search:
    """Looks for the messages of one executor that wait.

    Args:
        messages: Returns those that are watched.
        missing: Returns which of these are nowhere.
        send: Sends one again.
    """

    def __init__(
        self,
        messages: Callable[[], list[Message]],
        missing: Callable[[list[str]], Awaitable[set[str]]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._messages, self._missing, self._send = messages, missing, send
        self._looks: dict[Message, tuple[int, int]] = {}
        """How many more until it is asked for, below 0 while that cannot be done, and how many there were to be."""

    async def run(self) -> None:
        """Look from time to time, for good."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception as error:  # of kombu's transports, or of redis-py
                log.debug("what waits in Celery could not be looked for: %s", error)

    async def look(self) -> None:
        """Ask for what has waited for long, and send again what is missing."""
        due = self._due()
        if not due:
            return
        missing = await self._missing([message.ref for message in due])
        for message in due:
            _, of = self._looks[message]
            is_missing = message.ref in missing and message.is_waiting
            is_done = not is_missing or await self._is_sent(message)
            self._looks[message] = (2 * of, 2 * of) if is_done else (1, of)

    def _due(self) -> list[Message]:
        """Count a look; return what has waited for long, the longest first."""
        before, self._looks = self._looks, {}
        for message in self._messages():
            if message.is_waiting:
                left, of = before.get(message, (PATIENCE, PATIENCE))
                self._looks[message] = left - 1, of
        due = [message for message, (left, _) in self._looks.items() if left <= 0]
        return sorted(due, key=self._looks.__getitem__)[:ASKED_MOST]

    async def _is_sent(self, message: Message) -> bool:
        """Send a message again; False if that failed, and the next look is to ask for it once more."""
        nowhere = f"job {message.ref}: its message is neither in Celery's queue nor with a worker"
        try:
            await self._send(message)
        except Exception as error:  # of kombu's transports, or of redis-py
            log.warning("%s, and could not be sent again yet: %s", nowhere, error)
            return False
        log.warning("%s, and was sent again", nowhere)
        return True
