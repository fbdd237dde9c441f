"""How ``qj run`` serves an app in this process, and the exit code that comes of it.

The app serves as ``await app.serve()`` does; here it gets a log line per move,
an end when it is idle, and exit codes that a supervisor can go by."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from quarterjack import FINISHED, JobState, Quarterjack
from quarterjack.errors import QuarterjackError, StartupFailed
from quarterjack.events import Event

from ._hints import listing, once_mended
from ._leaving import leave, run
from ._runlog import MoveLog
from ._shell import EXIT_FAILED, EXIT_INTERRUPTED, Failure
from ._target import Target

__all__ = ["exit_code", "is_idle", "part_of", "serve"]

log = logging.getLogger("quarterjack.run")

QUIET_S: Final = 0.02
"""An app is looked at this long after its last move: callbacks of a finished job may submit more."""
LOOK_S: Final = 1.0
"""It is looked at so often anyway, for what ends without a move, such as a pause."""
UNFINISHED: Final = frozenset(JobState) - FINISHED


@dataclass(slots=True)
class _Course:
    """How far an app has come."""

    tell_start: Callable[[], object] | None = None
    signals: Sequence[signal.Signals] = ()
    has_started: bool = False
    was_idle: bool = False
    left: list[str] = field(default_factory=list[str])
    """What was told to end and does not."""

    def on_started(self) -> None:
        self.has_started = True
        if self.tell_start is not None:
            self.tell_start()


def serve(
    target: Target, *, until_idle: bool, is_followed: bool, on_started: Callable[[], object] | None = None
) -> int:
    """Serve the app until a signal, or until it is idle; return the exit code.

    Args:
        target: The app.
        until_idle: Whether to end when nothing is left to do.
        is_followed: Whether this is one of the processes of another ``qj run``, which tells of the signals.
        on_started: Called once the start is complete.

    Raises:
        Failure: If the app could not start, or a shutdown hook raised.
    """
    course = _Course(on_started)
    target.app.tells_signals = not is_followed
    try:
        code = _served(target, course, until_idle)
    except BaseException as error:
        if course.left:
            leave(_told(error))
        raise
    if course.left:
        leave(code)
    return code


def _told(error: BaseException) -> int:
    """Tell why the command ends, as it would be told by whoever catches this; return the exit code."""
    if isinstance(error, Failure):
        error.show()
        return error.code
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return error.code or 0
    traceback.print_exception(error)
    return EXIT_FAILED


def _served(target: Target, course: _Course, until_idle: bool) -> int:
    app, moves = target.app, MoveLog()
    unlisten = app.event_stream.listen(moves)
    what = "; Ctrl-C drains, twice stops now" if app.tells_signals else f", process {os.getpid()}"
    log.info("running %s%s on the %s store%s", target.name, part_of(app), app.store.name, what)
    try:
        run(_serve(app, course, until_idle), course.left, lambda: len(course.signals) > 1)
    except StartupFailed as error:
        log.error("the start failed", exc_info=error.__cause__)  # noqa: TRY400  # the cause is theirs, the rest is ours
        raise Failure(f"{target.name} did not start: {error}", once_mended(target.name)) from None
    except ExceptionGroup as group:
        raise Failure(f"{target.name} has stopped, but {_raised(group)}", once_mended(target.name)) from None
    except QuarterjackError as error:
        raise Failure(f"{target.name}: {error}", once_mended(target.name)) from None
    except KeyboardInterrupt:  # raised by a body, or before the app listened to signals
        log.info("stopped: %s", moves.summary())
        return EXIT_INTERRUPTED
    finally:
        unlisten()
    log.info("stopped: %s", moves.summary())
    is_complete = course.was_idle or (course.has_started and not until_idle)
    return exit_code(course.signals, is_complete=is_complete, has_failures=until_idle and moves.has_failures)


def part_of(app: Quarterjack) -> str:
    """Return which part of the work this process takes, as words behind the app's name; nothing for all of it."""
    part = "" if app.role == "both" else f" as a {app.role}"
    if app.queues is not None and app.role != "scheduler":
        part += f" for queue {listing(list(app.queues))}"
    return part


def _raised(group: ExceptionGroup[Exception]) -> str:
    """Put what shutdown hooks raised into words; the log has named each hook, with its traceback."""
    errors = [f"{type(error).__name__}: {error}".removesuffix(": ") for error in group.exceptions]
    hooks = "a shutdown hook" if len(errors) == 1 else f"{len(errors)} shutdown hooks"
    return f"{hooks} raised {', '.join(errors)}"


def exit_code(signals: Sequence[signal.Signals], *, is_complete: bool, has_failures: bool) -> int:
    """Return the exit code of an app that was stopped by *signals*.

    *is_complete* is false if it had not started yet, or had to go on until it is idle and was not.
    """
    is_forced = len(signals) > 1
    if signals and (is_forced or not is_complete):
        return 128 + signals[-1]
    return EXIT_FAILED if has_failures else 0


async def _serve(app: Quarterjack, course: _Course, until_idle: bool) -> None:
    if not until_idle:
        course.signals = await app.serve(on_started=course.on_started)
        return
    watch = asyncio.create_task(_stop_when_idle(app))
    try:
        course.signals = await app.serve(on_started=course.on_started)
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
    course.was_idle = watch.done() and not watch.cancelled() and watch.exception() is None


async def _stop_when_idle(app: Quarterjack) -> None:
    """Look whenever something has happened and it is quiet; stop the app once nothing is left."""
    moved = asyncio.Event()

    def on_event(_: Event) -> None:
        moved.set()

    unlisten = app.event_stream.listen(on_event)
    try:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await moved.wait()
            await asyncio.sleep(QUIET_S)
            moved.clear()
            began_ns = app.clock.monotonic_ns()
            if app.is_serving and await is_idle(app) and app.is_serving:
                app.stop()
                return
            # A store full of jobs is not asked again at once: looking takes a tenth of the time at most.
            await asyncio.sleep(9e-9 * (app.clock.monotonic_ns() - began_ns))
    finally:
        unlisten()


async def is_idle(app: Quarterjack) -> bool:
    """Say whether no job waits or runs, no schedule will fire by itself and no stream is open."""
    if any(view.is_open for view in await app.streams()):
        return False
    for view in await app.schedules():
        if view.next is not None or view.paused_until is not None:
            return False
    return not await app.jobs(state=UNFINISHED, limit=1)
