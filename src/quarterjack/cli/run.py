"""``qj run``: an app until it is told to stop, or until nothing is left to do.

The app serves as ``await app.serve()`` does; here it gets logging, an end when
it is idle, and exit codes that a supervisor can go by."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import click

from quarterjack import FINISHED, JobState, Quarterjack
from quarterjack.errors import QuarterjackError, StartupFailed
from quarterjack.events import Event

from ._runlog import LogFormat, MoveLog, configure
from ._shell import EXIT_FAILED, EXIT_INTERRUPTED, Failure
from ._target import Target, load, target_argument

__all__ = ["command"]

log = logging.getLogger("quarterjack.run")

QUIET_S: Final = 0.02
"""An app is looked at this long after its last move: callbacks of a finished job may submit more."""
LOOK_S: Final = 1.0
"""It is looked at so often anyway, for what ends without a move, such as a pause."""
UNFINISHED: Final = frozenset(JobState) - FINISHED


@click.command("run")
@target_argument
@click.option("--until-idle", is_flag=True, help="End when no job waits or runs and no schedule has a next fire.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="How much to tell.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(target: str | None, until_idle: bool, log_level: str, log_format: LogFormat) -> None:
    """Run an app until SIGINT (Ctrl-C) or SIGTERM, then drain; a second signal means now.

    \b
    Ends with
      0    drained after one signal, or idle (--until-idle) and no job failed
      1    start-up or a shutdown hook failed, or with --until-idle a job
           ended failed, timed out or lost
      2    asked wrongly
      130  interrupted: before it had started, before it was idle, or by a
           second signal (143 if that signal was SIGTERM)
    """
    found = load(target)
    configure(log_level, log_format)
    raise click.exceptions.Exit(_run(found, until_idle))


def _run(target: Target, until_idle: bool) -> int:
    """Serve the app; return the exit code."""
    app, moves = target.app, MoveLog()
    unlisten = app.event_stream.listen(moves)
    log.info("running %s on the %s store; Ctrl-C drains, twice stops now", target.name, app.store.name)
    was_idle = False
    try:
        was_idle = asyncio.run(_serve(app, until_idle))
    except StartupFailed as error:
        log.error("%s", error, exc_info=error.__cause__)  # noqa: TRY400  # the cause is theirs, the rest is ours
        raise Failure(f"{target.name} did not start: {error}", f"qj ls {target.name}") from None
    except ExceptionGroup as group:
        raise Failure(f"{target.name} has stopped, but {group}", "look at the tracebacks above") from None
    except QuarterjackError as error:
        raise Failure(f"{target.name}: {error}", f"qj ls {target.name}") from None
    except KeyboardInterrupt:  # raised by a body, or before the app listened to signals
        return EXIT_INTERRUPTED
    finally:
        unlisten()
    log.info("stopped: %s", moves.summary())
    is_complete = was_idle or (app._has_served and not until_idle)
    return exit_code(app._signals, is_complete=is_complete, has_failures=until_idle and moves.has_failures)


def exit_code(signals: Sequence[signal.Signals], *, is_complete: bool, has_failures: bool) -> int:
    """Return the exit code of an app that was stopped by *signals*.

    *is_complete* is false if it had not started yet, or had to go on until it is idle and was not.
    """
    is_forced = len(signals) > 1
    if signals and (is_forced or not is_complete):
        return 128 + signals[-1]
    return EXIT_FAILED if has_failures else 0


async def _serve(app: Quarterjack, until_idle: bool) -> bool:
    """Serve; return True if it ended because it was idle."""
    if not until_idle:
        await app.serve()
        return False
    watch = asyncio.create_task(_stop_when_idle(app))
    try:
        await app.serve()
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
    return watch.done() and not watch.cancelled() and watch.exception() is None


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
            if app._serving and await is_idle(app):
                app.stop()
                return
            # A store full of jobs is not asked again at once: looking takes a tenth of the time at most.
            await asyncio.sleep(9e-9 * (app.clock.monotonic_ns() - began_ns))
    finally:
        unlisten()


async def is_idle(app: Quarterjack) -> bool:
    """Say whether no job waits or runs and no schedule will fire by itself."""
    for view in await app.schedules():
        if view.next is not None or view.paused_until is not None:
            return False
    return not await app.jobs(state=UNFINISHED, limit=1)
