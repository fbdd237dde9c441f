"""quarterjack: one schedule on the grid, the body on the loop, in a thread, in a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ._asyncio import run_on_loop
from ._case import NS_PER_S, Case
from ._catalog import way

__all__ = ["on_loop", "on_thread"]


@way("ours-loop", "quarterjack, loop", "grid", "a coroutine with Every(seconds=T), memory store", is_ours=True)
def on_loop(case: Case) -> None:
    """Run a coroutine on the loop."""
    _serve(case, case.run_body_async)


@way("ours-thread", "quarterjack, thread", "grid", "a plain function with Every(seconds=T), in a thread", is_ours=True)
def on_thread(case: Case) -> None:
    """Run a plain function, which goes to a thread."""
    _serve(case, case.run_body)


def _serve(case: Case, run_body: Callable[[], Any], **options: Any) -> None:
    from quarterjack import Every, Quarterjack  # noqa: PLC0415  # the other ways know nothing of it

    app = Quarterjack()
    task = app.task(name="body", **options)(_bare(run_body))

    async def main() -> None:
        async with app:
            case.go()
            start = datetime.fromtimestamp(case.origin_ns / NS_PER_S, UTC)
            phase = case.origin_ns % case.period_ns / NS_PER_S
            await app.schedule(task.bind(), Every(milliseconds=case.period_ns // 1_000_000, phase=phase), start=start)
            await asyncio.Event().wait()

    run_on_loop(main, case)


def _bare(run_body: Callable[[], Any]) -> Callable[[], Any]:
    """Return the body as a function without arguments, for arguments of a task are what its jobs carry."""
    if not asyncio.iscoroutinefunction(run_body):
        return lambda: run_body()  # noqa: PLW0108  # its signature is the point

    async def body() -> None:
        await run_body()

    return body
