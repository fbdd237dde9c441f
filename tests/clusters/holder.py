"""An app whose one job goes to Celery, as a program that a test can kill."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from quarterjack import Quarterjack
from quarterjack.executors import Executor
from quarterjack.testing import _contract_bodies


def application(url: str, executor: Executor) -> tuple[Quarterjack, Any]:
    """Return an app on the store at *url*, and its task: one that Celery's workers know as well."""
    app = Quarterjack(url, lease=2)
    return app, app.task(executor=executor)(_contract_bodies.hold.__wrapped__)


async def main(url: str, folder: str) -> None:
    """Submit the job, and wait to be killed."""
    from quarterjack.executors.celery import CeleryExecutor  # noqa: PLC0415  # an extra
    from tests.clusters.celery_app import celery  # noqa: PLC0415  # likewise

    app, hold = application(url, CeleryExecutor(celery))
    async with app:
        await app.submit(hold, f"{folder}/a", f"{folder}/go")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
