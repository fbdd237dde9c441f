"""The ways that are quarterjack's: one schedule on the grid, the body on the loop, in a thread, in a process.

What runs is what a user would write; `ways._ours` registers it and imports this module
only in the process that runs it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from quarterjack import Every, Quarterjack
from quarterjack._durations import NS_PER_S
from quarterjack.task import Task

from .process_app import app as process_app
from .process_app import body as process_body
from .process_app import warm_up
from .ways._asyncio import run_on_loop
from .ways._case import Case

__all__ = ["on_celery", "on_loop", "on_process", "on_thread"]


def on_loop(case: Case) -> None:
    """Run a coroutine on the loop."""
    app = Quarterjack()

    @app.task
    async def body() -> None:
        await case.run_body_async()

    _run(case, app, body)


def on_thread(case: Case) -> None:
    """Run a plain function, which goes to a thread."""
    app = Quarterjack()

    @app.task
    def body() -> None:
        case.run_body()

    _run(case, app, body)


def on_process(case: Case) -> None:
    """Run a plain function in a process of the app's pool, one of which is there before the first tick."""
    _run(case, process_app, process_body, warm_up)


def on_celery(case: Case) -> None:
    """Run a plain function in a Celery worker, which has the app before the first tick."""
    from .celery_app import app, body, warm_up  # noqa: PLC0415  # needs the extra, and a broker's address

    _run(case, app, body, warm_up)


def _run(case: Case, app: Quarterjack, body: Task[[], None], before: Task[[], None] | None = None) -> None:
    async def serve() -> None:
        async with app:
            if before is not None:
                await (await app.submit(before))
            case.go()
            start = datetime.fromtimestamp(case.origin_ns / NS_PER_S, UTC)
            phase = case.origin_ns % case.period_ns / NS_PER_S
            every = Every(milliseconds=case.period_ns // 1_000_000, phase=phase)
            # As other grids do: a body that is still at work when the next tick comes keeps it from nothing, and
            # ticks that pass while the loop is blocked run late. So a tick without a start was lost.
            await app.schedule(body.bind(), every, start=start, overlap="allow", missed="all")
            await asyncio.Event().wait()

    run_on_loop(serve, case)
