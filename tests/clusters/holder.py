"""A worker whose jobs go to Celery, as a program that a test can stop and kill."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from quarterjack import Quarterjack
from quarterjack.executors import Executor
from quarterjack.testing import _contract_bodies

LEASE_S = 2


def application(url: str, executor: Executor | str, **options: Any) -> tuple[Quarterjack, Any, Any]:
    """Return an app on the store at *url*, a task that Celery's workers know as well, and one that blocks the loop."""
    app = Quarterjack(url, lease=LEASE_S, **options)

    @app.task
    async def block(seconds: float) -> None:
        time.sleep(seconds)

    return app, app.task(executor=executor)(_contract_bodies.hold.__wrapped__), block


def main(url: str) -> None:
    """Serve until somebody ends it."""
    from quarterjack.executors.celery import CeleryExecutor  # noqa: PLC0415  # an extra
    from tests.clusters.celery_app import celery  # noqa: PLC0415  # likewise

    app, _, _ = application(url, CeleryExecutor(celery))
    asyncio.run(app.serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
