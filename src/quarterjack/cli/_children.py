"""Processes of the app that ``qj run`` starts and looks after: their command, their end, and who orders it.

`_reload` has one of them at a time, `_fleet` several. What runs in such a
process stands in `_following`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from quarterjack._exit_codes import how_ended

from ._following import APART_S, LAST_GRACE_S

__all__ = ["Child", "Orders", "command_of", "either", "ended_how", "held_back"]

log = logging.getLogger("quarterjack.run")

_RUN: Final = ("-m", "quarterjack", "run")


def command_of(target: str | None, options: Sequence[str]) -> list[str]:
    """Return the command line of a ``qj run`` by this interpreter, with the -W and -X options it was started with."""
    values = {name: "" if value is True else f"={value}" for name, value in sys._xoptions.items()}
    own = [*(f"-W{one}" for one in sys.warnoptions), *(f"-X{name}{value}" for name, value in values.items())]
    return [sys.executable, *own, *_RUN, *([] if target is None else [target]), *options]


class Orders:
    """The signals that came: the first one drains, the second means now. *given* is set with each."""

    def __init__(self, given: asyncio.Event, log: logging.Logger) -> None:
        self.signals: list[signal.Signals] = []
        self.given, self.hurry = given, asyncio.Event()
        self._log = log

    def take(self, number: signal.Signals) -> None:
        """Take a signal, and tell of it."""
        self.signals.append(number)
        self.given.set()
        if len(self.signals) > 1:
            self._log.warning("%s again: stopping now", number.name)
            self.hurry.set()
        else:
            self._log.warning("%s: draining; once more stops now", number.name)


class Child:
    """One run of the app in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, name: str = "the app") -> None:
        self._process = process
        self._name = name
        self.over = asyncio.create_task(process.wait())

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.returncode

    async def end(self, grace_s: float | None, hurry: asyncio.Event) -> None:
        """Drain it for *grace_s* seconds (None: as long as it takes) or until *hurry*; then end it now, or kill it."""
        self.order(1)
        await either(hurry, self.over, grace_s)
        if not self.over.done():
            await asyncio.sleep(APART_S)
            self.order(2)
            await asyncio.wait({self.over}, timeout=LAST_GRACE_S)
        if not self.over.done():
            log.warning("%s did not end within %g s of being told to: killed", self._name, LAST_GRACE_S)
        await self.kill()

    def order(self, times: int) -> None:
        """Tell it to end: the first of *times* drains, the second means now."""
        del times  # signals count themselves
        with suppress(ProcessLookupError):
            self._process.terminate()

    async def kill(self) -> None:
        """Make sure that it is gone."""
        if not self.over.done():
            with suppress(ProcessLookupError):
                self._process.kill()
        await self.over


async def either(event: asyncio.Event, task: asyncio.Task[Any], timeout_s: float | None = None) -> None:
    """Wait until *event* is set or *task* is done, or for *timeout_s* seconds."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def ended_how(code: int) -> str:
    """Return how a process ended, as the words behind "has ended"; none if it went well."""
    return f" {how_ended(code)}" if code else ""


_holds: Final[dict[signal.Signals, tuple[int, bool]]] = {}
"""For each signal that is held back how many blocks do so, and whether it was before the first of them."""


@contextmanager
def held_back(number: signal.Signals) -> Iterator[None]:
    """Hold a signal back in this thread, and in a process that is started meanwhile.

    Blocks may overlap, as tasks take turns in them: it comes through again when the last one is left.
    """
    if sys.platform == "win32":
        yield
        return
    was_held = number in signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    count, before = _holds.get(number, (0, was_held))
    _holds[number] = count + 1, before
    try:
        yield
    finally:
        count, before = _holds.pop(number)
        if count > 1:
            _holds[number] = count - 1, before
        elif not before:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
