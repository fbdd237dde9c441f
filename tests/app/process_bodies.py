"""The app of the tests about processes: its bodies are found by their module in every child."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextvars import copy_context
from pathlib import Path
from typing import Any

from pydantic import BaseModel, field_validator

from quarterjack import ProcessExecutor, Quarterjack, Retry, current_job

pool = ProcessExecutor(2, name="pool")
fresh = ProcessExecutor(1, max_jobs=1, name="fresh")
small = ProcessExecutor(1, max_rss=1, name="small")
app = Quarterjack(executor=pool, shutdown_grace=2)
other = Quarterjack(shutdown_grace=2)


class Odd(Exception):
    """Cannot be rebuilt from its args."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} is not {right}")


def note(file: str, text: object) -> None:
    with Path(file).open("a", encoding="utf-8") as notes:
        notes.write(f"{text}\n")


@app.task
def pid() -> int:
    return os.getpid()


@other.task(executor=fresh)
def fresh_pid() -> int:
    return os.getpid()


@other.task(executor=small)
def small_pid() -> int:
    return os.getpid()


@app.task
async def pid_later() -> int:
    await asyncio.sleep(0)
    return os.getpid()


@app.task
def echo(text: str) -> str:
    return text


@app.task
def half_a_pair(raises: bool) -> str:
    """Say what no JSON holds, as the name of a file may be."""
    current_job().progress(1, 1, "half \udcff")
    if raises:
        raise ValueError("half \udcff")
    return "done"


@app.task
def leaves_a_thread(file: str) -> int:
    """Return, while a thread goes on to speak as this job."""
    me = current_job()

    def speak() -> None:
        while not Path(file).exists():
            time.sleep(0.01)
        me.progress(99, 100, "of the first")
        me.checkpoint("of the first")
        note(file + "-spoke", "yes")

    threading.Thread(target=copy_context().run, args=(speak,), daemon=True).start()
    return os.getpid()


@app.task
def hears_it(file: str) -> int:
    """Let the thread of the one before speak, and say nothing."""
    note(file, "go")
    while not Path(file + "-spoke").exists():
        time.sleep(0.01)
    return os.getpid()


class Picky(BaseModel):
    """Read in this process as it was written in the other, or not at all."""

    pid: int

    @field_validator("pid")
    @classmethod
    def _here(cls, pid: int) -> int:
        if pid != os.getpid():
            raise RuntimeError("another process wrote this")
        return pid


@app.task
def picky() -> Picky:
    return Picky(pid=os.getpid())


@app.task
def unwritable() -> Any:
    return object()


@app.task
def odd() -> None:
    raise Odd(1, 2)


@app.task
def leave(code: int) -> None:
    raise SystemExit(code)


@app.task(cancel_grace=0.2)
def sleep(file: str) -> None:
    note(file, os.getpid())
    try:
        time.sleep(60)
    finally:
        note(file, "cleaned")


@app.task(cancel_grace=0.2)
def spin(file: str) -> None:
    note(file, os.getpid())
    while True:
        pass


@app.task(cancel_grace=0.2)
def in_c(file: str) -> None:
    """Hold the interpreter in a C call: no signal handler of Python's runs meanwhile."""
    note(file, os.getpid())
    sum(range(10**15))


@app.task
def crash(how: str) -> None:
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGSEGV if how == "segfault" else signal.SIGKILL)


@app.task(retry=Retry(on=Exception, attempts=9, base=0))
def crash_always(file: str) -> None:
    note(file, "began")
    os._exit(3)


@app.task(retry=Retry(on=Exception, attempts=2, base=0))
def crash_once(file: str) -> int:
    note(file, "began")
    me = current_job()
    if me.attempt == 1:
        me.checkpoint({"at": 5})
        os._exit(3)
    return int(me.last_checkpoint["at"])


@app.task
def tell(parts: int) -> bool:
    me = current_job()
    for part in range(parts):
        me.progress(part + 1, parts, "telling")
    time.sleep(0.3)
    return me.cancel_requested
