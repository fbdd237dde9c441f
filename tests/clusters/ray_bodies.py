"""An app as a user has one, whose bodies Ray's workers run; as a program, one that a test can kill."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from quarterjack import Quarterjack, current_job
from quarterjack.executors.ray import RayExecutor

app = Quarterjack(shutdown_grace=1)


def note(file: str, text: str) -> None:
    """Write a line."""
    with Path(file).open("a", encoding="utf-8") as notes:
        notes.write(text + "\n")


@app.task(cancel_grace=60)
def nap(file: str) -> None:
    """Sleep where only a signal is heard."""
    note(file, f"began {os.getpid()}")
    try:
        time.sleep(600)
    except BaseException:
        note(file, "interrupted")
        raise


@app.task(cancel_grace=60)
async def nap_later(file: str) -> None:
    """Sleep in a loop that nobody wakes."""
    note(file, f"began {os.getpid()}")
    try:
        await asyncio.sleep(600)
    except BaseException:
        note(file, "interrupted")
        raise


@app.task
def vanish() -> None:
    """End the process."""
    os._exit(3)


@app.task
def leave() -> None:
    """Raise what ends a program."""
    raise SystemExit(4)


@app.task
def echo(text: str) -> str:
    """Return what came."""
    return text


@app.task(retry=2)
def twice() -> object:
    """Fail once, and find what was kept."""
    me = current_job()
    if me.attempt == 1:
        me.checkpoint({"page": 7})
        raise LookupError("once")
    return me.last_checkpoint


async def main(address: str, file: str) -> None:
    """Submit a body, and wait to be killed."""
    async with app:
        await app.submit(nap.options(executor=RayExecutor(address)), file)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
