"""An app whose jobs go to Dask: its tests import it, its bodies' processes do, and one that is killed runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from quarterjack import Quarterjack, RetryLater, current_job
from quarterjack.testing import _contract_bodies

__all__ = ["app", "crash", "hold", "huge", "odd", "wait_for_ever"]

app = Quarterjack(os.environ.get("QJ_TEST_DASK_STORE", "memory"), lease=2)
hold = app.task(_contract_bodies.hold.__wrapped__)


@app.task
def odd() -> object:
    """Return what is no JSON."""
    return object()


@app.task(retry=2)
def huge(number: int) -> int:
    """Say a number and keep it; return it in the second attempt."""
    me = current_job()
    me.progress(number, number)
    if me.last_checkpoint is None:
        me.checkpoint(number)
        raise RetryLater(after=0)
    return int(me.last_checkpoint)


@app.task
def crash(file: str) -> None:
    """Note that it ran, and end the process."""
    with Path(file).open("a", encoding="utf-8") as notes:
        notes.write("ran\n")
    os._exit(3)


async def wait_for_ever(address: str, folder: str) -> None:
    """Submit a job, and wait to be killed."""
    from quarterjack.executors.dask import DaskExecutor  # noqa: PLC0415  # an extra

    async with app:
        await app.submit(hold.options(executor=DaskExecutor(address)), f"{folder}/a", f"{folder}/go")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(wait_for_ever(*sys.argv[1:]))
