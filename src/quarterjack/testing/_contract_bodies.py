"""The app whose bodies the executors' contract runs, wherever an executor finds them; they tell by files."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from quarterjack import Quarterjack, current_job

__all__ = ["app"]

app = Quarterjack()

_pause: Final = threading.Event()
"""Never set: waiting for it is a sleep that no clock of ours has to know of."""


def _note(file: str, text: str) -> None:
    with Path(file).open("a", encoding="utf-8") as notes:
        notes.write(text + "\n")


@app.task
def double(n: int) -> int:
    """Return twice as much."""
    return 2 * n


@app.task
async def double_later(n: int) -> int:
    """Return twice as much, in a while."""
    await asyncio.sleep(0)
    return 2 * n


@app.task
def fail(text: str) -> None:
    """Raise."""
    raise ValueError(text)


@app.task
async def fail_later(text: str) -> None:
    """Raise, in a while."""
    await asyncio.sleep(0)
    raise ValueError(text)


@app.task
def echo(text: str) -> str:
    """Return what came."""
    return text


@app.task
async def echo_later(text: str) -> str:
    """Return what came."""
    return text


@app.task
def mark(file: str) -> None:
    """Note that it ran."""
    _note(file, "ran")


@app.task
async def mark_later(file: str) -> None:
    """Note that it ran."""
    _note(file, "ran")


@app.task
def hold(file: str, until: str) -> str:
    """Note that it began, wait for a file, and note how it ended."""
    try:
        _note(file, "began")
        while not Path(until).exists():
            _pause.wait(0.005)
    except BaseException:
        _note(file, "interrupted")
        raise
    return "let go"


@app.task
async def hold_later(file: str, until: str) -> str:
    """Note that it began, wait for a file, and note how it ended."""
    try:
        _note(file, "began")
        while not Path(until).exists():  # noqa: ASYNC110, ASYNC240  # another process may make it
            await asyncio.sleep(0.005)
    except BaseException:
        _note(file, "interrupted")
        raise
    return "let go"


@app.task
def defy(file: str, until: str) -> str:
    """Note that it began, and wait for a file whatever is raised."""
    _note(file, "began")
    for _ in itertools.count():
        with suppress(BaseException):
            if Path(until).exists():
                break
            _pause.wait(0.005)
    return "let go"


@app.task
async def defy_later(file: str, until: str) -> str:
    """Note that it began, and wait for a file whatever is raised."""
    _note(file, "began")
    for _ in itertools.count():
        with suppress(BaseException):
            if Path(until).exists():  # noqa: ASYNC240  # another process makes it
                break
            await asyncio.sleep(0.005)
    return "let go"


@app.task
def say(parts: int) -> str:
    """Tell how far it is, and who it is."""
    me = current_job()
    for part in range(parts):
        me.progress(part + 1, parts, f"part {part + 1}")
    return f"{me.task} {me.attempt}"


@app.task
async def say_later(parts: int) -> Any:
    """Tell how far it is, and who it is."""
    me = current_job()
    for part in range(parts):
        me.progress(part + 1, parts, f"part {part + 1}")
    return f"{me.task} {me.attempt}"
