"""Which attempts are out on Celery, who waits for them, and what is kept there of those that are over.

What Celery keeps of an attempt goes when nobody needs it any more: at once where it
failed (the next attempt is to run), and where it returned when the app's store has
that (until then another process may have to take the outcome up)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from quarterjack.model import OutcomeKind

from ._celery_fence import job_of
from ._celery_message import Message
from ._celery_results import Results
from ._chores import Chores

__all__ = ["Ledger"]

LAST_S: Final = 1.0
"""What is to be removed at the end may take so long."""


class Ledger:
    """The attempts of one executor; on its app's loop.

    Args:
        celery: The user's app.
        is_fenced: They are bodies of ours, which ask before they begin.
    """

    def __init__(self, celery: Any, *, is_fenced: bool) -> None:
        self.results = Results(celery, self._on_state, self._on_pulse)
        self._is_fenced = is_fenced
        self._out: dict[str, list[Message]] = {}
        self._kept: dict[str, str] = {}
        """Under which name a body ran that returned, by the attempt that the app's store is to have it for."""
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._chores = Chores()

    def start(self) -> None:
        """Begin to listen."""
        self.results.start()

    async def close(self) -> None:
        """Listen no more; what the app's store does not have yet is left there. To be called again if `settled` was."""
        if self._closing:
            await asyncio.wait(self._closing.values(), timeout=LAST_S)
        await self._chores.end()
        await self.results.close()

    # -- who waits for what --------------------------------------------------------------

    def messages(self) -> list[Message]:
        """Return what is watched."""
        return [message for same in self._out.values() for message in same]

    async def watch(self, message: Message) -> None:
        """Tell *message* what is heard of its body."""
        if message in message.desk.out:
            same = self._out.setdefault(message.ref, [])
            if message not in same:
                same.append(message)
            await self.results.watch(message.ref)

    async def take_up(self, message: Message, before: str) -> bool:
        """Let *message* stand for the body of an earlier attempt; False if none goes on, and it is wanted itself."""
        closing = self._closing.get(job_of(before))
        if closing is not None:
            await asyncio.wait({closing})
        running = await self.results.take_up(before, message.ref)
        if running is None:
            return False
        message.ref = running
        await self.watch(message)
        return True

    def part(self, message: Message, end: OutcomeKind) -> None:
        """Watch *message* no more: its body ended so, or it is LOST to us."""
        same = self._out.get(message.ref, [])
        if message not in same:
            return
        same.remove(message)
        is_kept = self._is_fenced and end is OutcomeKind.DONE
        if is_kept:
            self._kept[message.call.ref] = message.ref
        if same:
            return
        del self._out[message.ref]
        self._chores.do(self.results.forget(message.ref))
        if is_kept:
            self._chores.do(self.results.keep(message.ref))
        elif end is not OutcomeKind.LOST:
            self._close_attempt(message.ref, is_sent=message.is_sent)

    def settled(self, ref: str, *, is_stored: bool) -> None:
        """The app's store has the outcome of *ref*, or refused it: then another attempt takes it up."""
        kept = self._kept.pop(ref, None)
        if kept is not None and is_stored:
            self._close_attempt(kept)

    def _close_attempt(self, ref: str, *, is_sent: bool = True) -> None:
        job = job_of(ref)

        async def close() -> None:
            try:
                await self.results.close_attempt(ref, is_fenced=self._is_fenced, is_sent=is_sent)
            finally:
                if self._closing.get(job) is asyncio.current_task():
                    del self._closing[job]

        self._closing[job] = self._chores.do(close())

    # -- what is heard -------------------------------------------------------------------

    def _on_state(self, ref: str, meta: Mapping[str, Any]) -> None:
        for message in list(self._out.get(ref, ())):
            message.on_state(meta["status"], meta.get("result"), meta.get("traceback") or "")

    def _on_pulse(self, ref: str, is_alive: bool, is_wanted: bool, has_begun: bool) -> None:
        if self._is_fenced:
            for message in list(self._out.get(ref, ())):
                message.on_pulse(is_alive, is_wanted, has_begun)
