"""``qj run --reload``: the app in a process of its own, started anew whenever its source changes.

This process never imports the app: a broken edit ends the other one, whose
traceback is the user's to read, while this one waits for the next change. It
gives its orders by SIGTERM, one to drain and one more to end now, and kills
what obeys neither.

Both processes belong to the terminal, so that a debugger in the app can read
from it. The other one leaves Ctrl-C to this one, and holds the reading end of a
pipe that nobody writes to: so it outlives not even a parent that was killed
(`_following`)."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from quarterjack.runtime.signals import Signals

from ._children import Child, Orders, command_of, ended_how, held_back
from ._following import RESTART_GRACE_S
from ._shell import EXIT_FAILED, EXIT_USAGE, Failure
from ._target import folders

__all__ = ["supervise"]

log = logging.getLogger("quarterjack.reload")

NOT_OURS: Final = frozenset({"__pycache__", "node_modules", "site-packages"})
"""Folders whose files nobody edits; nor are those that begin with a dot watched, such as .venv and .git."""
NAMED: Final = 3
"""As many changed files are named, of more the number is told."""


def supervise(target: str | None, options: Sequence[str]) -> int:
    """Run the app in a process of its own until a signal, anew after each change; return the exit code.

    Raises:
        Failure: If no app is named, watchfiles is not installed, or a folder cannot be watched.
    """
    roots = folders(target)
    try:
        watchfiles: Any = importlib.import_module("watchfiles")  # an extra; its types name packages that few have
    except ImportError:
        raise Failure("--reload needs the package watchfiles", "pip install watchfiles") from None
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of each change, as we do
    with _lifeline() as fd:
        words = command_of(target, [*options, "--lifeline", str(fd)])
        return asyncio.run(_Supervisor(words, fd, roots, watchfiles.awatch).run())


@contextmanager
def _lifeline() -> Iterator[int]:
    """Yield the end of a pipe that the app's process is to hold; -1 where it could not be handed over."""
    if sys.platform == "win32":
        yield -1
        return
    held, ours = os.pipe()
    try:
        yield held
    finally:
        os.close(held)
        os.close(ours)


# -- in the process that watches ----------------------------------------------------

_Awatch = Callable[..., AsyncIterator[Iterable[tuple[object, str]]]]


class _Supervisor:
    """Starts, watches, starts anew, ends: one app's process at a time.

    Whatever happens (a change, a signal, an end) is noted in a field and wakes
    the one loop of `run`, which decides.
    """

    def __init__(self, words: Sequence[str], fd: int, roots: Sequence[Path], awatch: _Awatch) -> None:
        self._words, self._fd, self._roots, self._awatch = words, fd, roots, awatch
        self._changed: set[Path] = set()
        self._news = asyncio.Event()
        self._orders = Orders(self._news, log)
        self._child: _Child | None = None

    async def run(self) -> int:
        """Return the exit code: 0 after one signal, unless the app's shutdown failed."""
        with Signals(self._orders.take):
            watch = asyncio.create_task(self._watch())
            watch.add_done_callback(lambda _: self._news.set())
            try:
                return await self._until_told(watch)
            finally:
                if self._child is not None:
                    await self._child.kill()
                watch.cancel()
                with suppress(asyncio.CancelledError, Exception):  # told by `_until_told` if it matters
                    await watch

    async def _until_told(self, watch: asyncio.Task[None]) -> int:
        await asyncio.sleep(0)  # the watch begins before the app reads its files: no edit falls in between
        log.info("watching Python files in %s; Ctrl-C ends", ", ".join(map(str, self._roots)))
        self._child = await _Child.start(self._words, self._fd, self._news)
        is_first = True
        while not self._orders.signals:
            await self._news.wait()
            self._news.clear()
            if watch.done():
                raise _cannot_watch(watch.exception())
            if self._changed:
                is_first = False
                await self._restart(self._child)
            elif self._child.is_news():
                if is_first and self._child.code == EXIT_USAGE:  # a slip in the command line: no edit mends it
                    return EXIT_USAGE
                self._child.tell_end()
        return await self._end(self._child)

    async def _restart(self, child: _Child) -> None:
        log.info("%s changed: %s", _named(self._changed), "restarting" if child.code is None else "starting again")
        await child.end(RESTART_GRACE_S, self._orders.hurry)
        if not self._orders.signals:
            self._changed.clear()
            self._child = await _Child.start(self._words, self._fd, self._news)

    async def _end(self, child: _Child) -> int:
        was_over = child.code is not None
        await child.end(None, self._orders.hurry)
        if len(self._orders.signals) > 1:
            return 128 + self._orders.signals[-1]
        return EXIT_FAILED if child.code == EXIT_FAILED and not was_over else 0

    async def _watch(self) -> None:
        async for changes in self._awatch(*self._roots, watch_filter=self._is_source, ignore_permission_denied=True):
            self._changed |= {Path(path) for _, path in changes}
            self._news.set()

    def _is_source(self, _: object, name: str) -> bool:
        """Say whether a change of this file is a change of the project."""
        path = Path(name)
        root = next((root for root in self._roots if path.is_relative_to(root)), None)
        parts = path.parts if root is None else path.relative_to(root).parts
        is_hidden = any(part.startswith(".") or part in NOT_OURS for part in parts)
        return path.suffix == ".py" and not is_hidden


def _cannot_watch(error: BaseException | None) -> Failure:
    return Failure(f"the files cannot be watched: {error}", "WATCHFILES_FORCE_POLLING=1 qj run --reload …")


def _named(paths: Iterable[Path]) -> str:
    names = sorted(os.path.relpath(path) for path in paths)
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} files"


class _Child(Child):
    """One run of the app in a process of its own; *news* is set when it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, news: asyncio.Event) -> None:
        super().__init__(process)
        self.over.add_done_callback(lambda _: news.set())
        self._is_told = False

    @classmethod
    async def start(cls, words: Sequence[str], fd: int, news: asyncio.Event) -> _Child:
        """Start the process, with Ctrl-C held back until it has said that it ignores it (see `follow`)."""
        with held_back(signal.SIGINT):
            process = await asyncio.create_subprocess_exec(*words, pass_fds=() if fd < 0 else (fd,))
        return cls(process, news)

    def is_news(self) -> bool:
        """Say whether it has ended by itself and nobody was told."""
        return self.over.done() and not self._is_told

    def tell_end(self) -> None:
        """Tell that it has ended by itself."""
        self._is_told = True
        code = self.code or 0
        level = logging.WARNING if code else logging.INFO
        log.log(level, "the app has ended%s; waiting for a change", ended_how(code))

    async def end(self, grace_s: float | None, hurry: asyncio.Event) -> None:
        """Drain it, and leave its end untold."""
        self._is_told = True
        await super().end(grace_s, hurry)
