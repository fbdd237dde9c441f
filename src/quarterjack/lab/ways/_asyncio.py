"""Loops on asyncio: the naive one, and the one that keeps deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ._case import Case
from ._catalog import way

__all__ = ["asyncio_deadline", "asyncio_sleep", "run_on_loop"]


def run_on_loop(main: Callable[[], Coroutine[Any, Any, None]], case: Case) -> None:
    """Run *main* on the loop that the case names."""
    if case.loop == "uvloop":
        import uvloop  # noqa: PLC0415  # an extra

        uvloop.run(main())
    else:
        asyncio.run(main())


@way("asyncio-sleep", "asyncio.sleep(T)", "interval", "a coroutine that runs the body, then sleeps for a whole period")
def asyncio_sleep(case: Case) -> None:
    """Run, await, run."""

    async def repeat() -> None:
        case.go()
        await asyncio.sleep(case.until_origin_s())
        while True:
            await case.run_body_async()
            await asyncio.sleep(case.period_s)

    run_on_loop(repeat, case)


@way(
    "asyncio-deadline", "asyncio, deadlines", "grid", "loop.call_at for each tick of a grid; bodies are tasks beside it"
)
def asyncio_deadline(case: Case) -> None:
    """Wait for absolute deadlines of the loop; a body of its own task holds up no tick."""

    async def repeat() -> None:
        case.go()
        loop, bodies = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        due = case.monotonic_origin(loop.time())
        while True:
            turn: asyncio.Future[None] = loop.create_future()
            loop.call_at(due, turn.set_result, None)
            await turn
            body = loop.create_task(case.run_body_async())
            bodies.add(body)
            body.add_done_callback(bodies.discard)
            due += case.period_s

    run_on_loop(repeat, case)
