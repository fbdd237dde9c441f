"""``qj run --reload``: the app in a process of its own, started anew whenever its source changes.

This process never imports the app: a broken edit ends the other one, whose
traceback is the user's to read, while this one waits for the next change. It
gives its orders by SIGTERM, one to drain and one more to end now, and kills
what obeys neither.

Both processes belong to the terminal, so that a debugger in the app can read
from it; Ctrl-C reaches both. The app's process ignores it from its first
instruction and leaves the count to this one, or one Ctrl-C would be two. It also
holds the reading end of a pipe that nobody writes to, and ends when the writing
end does: so it outlives not even a parent that was killed."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from quarterjack.runtime.signals import Signals

from ._shell import EXIT_FAILED, EXIT_USAGE, Failure
from ._target import folders

__all__ = ["follow", "supervise"]

log = logging.getLogger("quarterjack.reload")

RESTART_GRACE_S: Final = 1.0
"""How long running jobs may take to end before a restart cancels them."""
LAST_GRACE_S: Final = 4.0
"""How long what was told to end now may take before it is killed: its hooks and its lifespan are left in it."""
APART_S: Final = 0.05
"""Two orders in one moment would be one: a signal that is still to be delivered is not counted twice."""
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
    command = ["-m", "quarterjack", "run", *([] if target is None else [target]), *options]
    with _lifeline() as fd:
        words = [sys.executable, *_interpreter_options(), *command, "--lifeline", str(fd)]
        return asyncio.run(_Supervisor(words, fd, roots, watchfiles.awatch).run())


def _interpreter_options() -> list[str]:
    """Return the -W and -X options that this interpreter was started with."""
    values = {name: "" if value is True else f"={value}" for name, value in sys._xoptions.items()}
    return [*(f"-W{one}" for one in sys.warnoptions), *(f"-X{name}{value}" for name, value in values.items())]


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
        self._signals: list[signal.Signals] = []
        self._news, self._hurry = asyncio.Event(), asyncio.Event()
        self._child: _Child | None = None

    async def run(self) -> int:
        """Return the exit code: 0 after one signal, unless the app's shutdown failed."""
        with Signals(self._on_signal):
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
        while not self._signals:
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
        await child.end(RESTART_GRACE_S, self._hurry)
        if not self._signals:
            self._changed.clear()
            self._child = await _Child.start(self._words, self._fd, self._news)

    async def _end(self, child: _Child) -> int:
        was_over = child.code is not None
        await child.end(None, self._hurry)
        if len(self._signals) > 1:
            return 128 + self._signals[-1]
        return EXIT_FAILED if child.code == EXIT_FAILED and not was_over else 0

    def _on_signal(self, number: signal.Signals) -> None:
        self._signals.append(number)
        self._news.set()
        if len(self._signals) > 1:
            log.warning("%s again: stopping now", number.name)
            self._hurry.set()
        else:
            log.warning("%s: draining; once more stops now", number.name)

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


class _Child:
    """One run of the app in a process of its own; *news* is set when it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, news: asyncio.Event) -> None:
        self._process = process
        self._over = asyncio.create_task(process.wait())
        self._over.add_done_callback(lambda _: news.set())
        self._is_told = False

    @classmethod
    async def start(cls, words: Sequence[str], fd: int, news: asyncio.Event) -> _Child:
        """Start the process, with Ctrl-C held back until it has said that it ignores it (see `follow`)."""
        with _held_back(signal.SIGINT):
            process = await asyncio.create_subprocess_exec(*words, pass_fds=() if fd < 0 else (fd,))
        return cls(process, news)

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.returncode

    def is_news(self) -> bool:
        """Say whether it has ended by itself and nobody was told."""
        return self._over.done() and not self._is_told

    def tell_end(self) -> None:
        """Tell that it has ended by itself."""
        self._is_told = True
        code = self.code or 0
        how = "" if not code else f" with exit code {code}" if code > 0 else f" by {signal.Signals(-code).name}"
        log.log(logging.WARNING if code else logging.INFO, "the app has ended%s; waiting for a change", how)

    async def end(self, grace_s: float | None, hurry: asyncio.Event) -> None:
        """Drain it for *grace_s* seconds (None: as long as it takes) or until *hurry*; then end it now, or kill it."""
        self._is_told = True
        self._order()
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait({self._over, hurried}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not self._over.done():
            await asyncio.sleep(APART_S)
            self._order()
            await asyncio.wait({self._over}, timeout=LAST_GRACE_S)
        if not self._over.done():
            log.warning("the app did not end within %g s of being told to: killed", LAST_GRACE_S)
        await self.kill()

    def _order(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()

    async def kill(self) -> None:
        """Make sure that it is gone."""
        if not self._over.done():
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._over


@contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Hold a signal back in this thread, and in a process that is started meanwhile."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- in the app's process -----------------------------------------------------------


def follow(lifeline: int) -> None:
    """Leave Ctrl-C to the process that started this one, and end when it has.

    Called before the app is imported, so that SIGTERM ends even an import that hangs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if lifeline >= 0:
        os.set_inheritable(lifeline, False)
        threading.Thread(target=_end_with_parent, args=(lifeline,), name="qj-lifeline", daemon=True).start()


def _end_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody writes: it returns when the other end is closed, by whatever end of the parent
    for grace_s in (RESTART_GRACE_S, LAST_GRACE_S):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
    os._exit(EXIT_FAILED)
