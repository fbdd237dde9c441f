"""`Hedge`: a second try beside a slow one; the first result wins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import whole_number
from quarterjack.clock import clock_of

from .base import Wrap
from .waiting import Waiting

__all__ = ["Hedge"]


class Hedge(Wrap):
    """Begins the body once more if it has no result after *after* seconds, and so on up to *max* at once.

    Use it against a service that answers fast but for a few calls, with *after* near
    the time that 95 of 100 calls take: then one call in twenty is made twice. Not
    for bodies that must not run twice, nor against a service that is slow for all,
    which would get more to do: see `CircuitBreaker`.

    The first result is the attempt's; the other bodies are cancelled, and awaited
    before it is returned. A body that fails is no result: the others go on, and the
    next one begins at its time; when none is left running the attempt fails with
    the first error. A cancelled or timed-out attempt cancels all.

    All bodies of an attempt run in the slots that it has: to a `ConcurrencyLimit` they
    are one, to a rate limit one start. O(max) time and space.
    In an app it is for coroutine functions that run in its process; tasks of other kinds are refused.

    Args:
        after: Seconds until the next body begins.
        max: Bodies at once, the first one included; 2 or more.

    Raises:
        InvalidOption: Naming the option, the value and the range.
    """

    def __init__(self, *, after: Seconds, max: int = 2) -> None:  # noqa: A002  # as everywhere for the most there may be
        self.after_s = to_seconds(after, "after of Hedge", exclusive=True)
        self.max = whole_number(max, "max of Hedge", 2, 1_000)

    async def __call__(self, job: Waiting, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Return the first result of its bodies, or raise the first error when all have failed."""
        bodies: list[asyncio.Future[Any]] = []
        running: set[asyncio.Future[Any]] = set()
        try:
            while True:
                if len(bodies) < self.max:
                    bodies.append(asyncio.ensure_future(proceed()))
                    running.add(bodies[-1])
                patience = self.after_s if len(bodies) < self.max else None
                won = await _first_result(running, patience)
                if won is not None:
                    return won.result()
                if not running:
                    return bodies[0].result()  # which raises
        finally:
            await _end(running)

    def __repr__(self) -> str:
        return f"Hedge(after={self.after_s:g}, max={self.max})"


async def _first_result(running: set[asyncio.Future[Any]], patience: float | None) -> asyncio.Future[Any] | None:
    """Wait for a body that returns; None once *patience* is over, or all have failed. The ended leave *running*."""
    monotonic = clock_of(asyncio.get_running_loop()).monotonic
    until = None if patience is None else monotonic() + patience
    while running:
        left = None if until is None else max(0.0, until - monotonic())
        ended, _ = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not ended:
            await asyncio.sleep(0)  # after a standstill of the loop a body that is ready has not gone on yet
            ended = {body for body in running if body.done()}
        if not ended:
            return None
        for body in ended:
            running.discard(body)
            if not body.cancelled() and body.exception() is None:
                return body
    return None


async def _end(running: set[asyncio.Future[Any]]) -> None:
    """Cancel bodies and wait for their end, also if it is cancelled meanwhile."""
    for body in running:
        body.cancel()
    interruption: asyncio.CancelledError | None = None
    while still := [body for body in running if not body.done()]:
        try:
            await asyncio.wait(still)
        except asyncio.CancelledError as error:
            interruption = error
    for body in running:
        if not body.cancelled():
            body.exception()  # looked at: a body that answers its cancellation with an error is no news
    if interruption is not None:
        raise interruption
