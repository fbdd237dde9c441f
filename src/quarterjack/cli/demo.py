"""``qj demo``: the real library at work, live on the terminal.

The frames are drawn on the app's own event loop, which is the honest place:
whatever the drawing costs, the ticks would feel. So it is done between ticks,
as a body that takes long ought to."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from quarterjack import JobState, Quarterjack
from quarterjack._durations import parse_duration
from quarterjack.errors import InvalidOption
from quarterjack.model import as_datetime

from ._demo_app import make_app
from ._demo_board import Board, Note
from ._output import console, is_for_people, json_option, show_json

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["command"]

FRAME_S: Final = 0.1
CLEAR_S: Final = 0.06
"""No frame is begun this short before a tick: one takes 5 to 15 ms here, and machines may be slower."""
SETTLE_S: Final = 0.01
"""A frame that waited for a tick is drawn this long after it."""
_BUSY: Final = (JobState.RUNNING, JobState.SUBMITTED)


@dataclass(slots=True)
class _Show:
    """One run of the demo: its app, how long it is to last, when it began and was told to end."""

    app: Quarterjack
    for_s: float | None
    began_ns: int
    told_ns: int | None = None

    def stop(self) -> None:
        """End it, unless a signal has done so: a second stop would mean now."""
        if self.app.is_serving:
            self.told_ns = self.app.clock.monotonic_ns()
            self.app.stop()

    @property
    def seconds(self) -> float:
        """How long it went on, without the time that running jobs took to end."""
        return ((self.told_ns or self.app.clock.monotonic_ns()) - self.began_ns) / 1e9


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return seconds.

    Raises:
        click.BadParameter: If the text is no duration, or none that passes.
    """
    if value is None:
        return None
    try:
        seconds = parse_duration(value, "it")
    except InvalidOption as error:
        raise click.BadParameter(str(error), ctx, param) from None
    if seconds <= 0:
        raise click.BadParameter(f"it must be more than nothing, got {value!r}", ctx, param)
    return seconds


@click.command("demo")
@click.option("--for", "for_s", callback=_duration, metavar="20s", help="End by itself after so long, as 20s or 1m30s.")
@json_option
def command(for_s: float | None, as_json: bool) -> None:
    """See what quarterjack does: schedules, running jobs, retries, lag, live.

    Runs the real library on its memory store until Ctrl-C (or --for) and ends
    with what it measured. Piped, it writes a line for each thing that happens;
    with --json only the measurements at the end.
    """
    app = make_app()
    is_drawn = is_for_people() and not as_json and not console().is_dumb_terminal
    board = Board(None if is_drawn or as_json else _write)
    unlisten = app.event_stream.listen(board)
    show = _Show(app, for_s, app.clock.monotonic_ns())
    signals: tuple[signal.Signals, ...] = ()
    with _without_logs(), suppress(KeyboardInterrupt):  # Ctrl-C before the app listens to it
        signals = asyncio.run(_drawn(show, board) if is_drawn else _played(show))
    unlisten()
    _sum_up(board, show.seconds, as_json=as_json)
    if len(signals) > 1:
        raise click.exceptions.Exit(128 + signals[-1])


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep the tracebacks of jobs that fail on purpose off the picture: they are told as lines of it."""
    log = logging.getLogger("quarterjack")
    propagates, log.propagate = log.propagate, False
    silent = logging.NullHandler()
    log.addHandler(silent)
    try:
        yield
    finally:
        log.removeHandler(silent)
        log.propagate = propagates


async def _played(show: _Show, on_started: Callable[[], None] | None = None) -> tuple[signal.Signals, ...]:
    """Serve until a signal, or for as long as the show lasts; return the signals that came."""
    end: asyncio.TimerHandle | None = None

    def started() -> None:
        nonlocal end
        show.began_ns = show.app.clock.monotonic_ns()
        if show.for_s is not None:
            end = asyncio.get_running_loop().call_later(show.for_s, show.stop)
        if on_started is not None:
            on_started()

    try:
        return await show.app.serve(on_started=started)
    finally:
        if end is not None:
            end.cancel()


# -- on a terminal ------------------------------------------------------------------


async def _drawn(show: _Show, board: Board) -> tuple[signal.Signals, ...]:
    from rich.live import Live  # noqa: PLC0415  # rich is loaded where it draws

    started = asyncio.Event()
    with Live(console=console(), screen=True, auto_refresh=False, redirect_stderr=False) as live:
        draw = asyncio.create_task(_draw(show, board, live, started))
        try:
            return await _played(show, started.set)
        finally:
            draw.cancel()
            with suppress(asyncio.CancelledError):
                await draw


async def _draw(show: _Show, board: Board, live: Live, started: asyncio.Event) -> None:
    """Draw frame after frame, each between two ticks."""
    from ._demo_view import Scene, frame  # noqa: PLC0415  # loads rich

    app = show.app
    await started.wait()
    while app.is_running:
        schedules = await app.schedules()
        now_ns = app.clock.now_ns()
        wait_s = min((view.next_due.timestamp() for view in schedules if view.next_due), default=now_ns) - now_ns / 1e9
        if 0 <= wait_s < CLEAR_S:
            await asyncio.sleep(wait_s + SETTLE_S)
            continue
        jobs = sorted(await app.jobs(state=_BUSY), key=lambda job: job.id)
        scene = Scene(schedules, jobs, board, now_ns, show.seconds, show.for_s)
        live.update(frame(scene, live.console.height), refresh=True)
        await asyncio.sleep(FRAME_S)


# -- in a pipe ----------------------------------------------------------------------


def _write(note: Note) -> None:
    at = as_datetime(note.at_ns)
    clock = "" if at is None else at.astimezone().isoformat(timespec="milliseconds")
    click.echo(f"{clock}\t{note.task}\t{note.text}")


# -- at the end ---------------------------------------------------------------------


def _sum_up(board: Board, seconds: float, *, as_json: bool) -> None:
    lag, counts = board.lag, board.counts
    if as_json:
        show_json(
            "demo",
            seconds=round(seconds, 3),
            ticks=board.ticks,
            missed=board.missed,
            early=board.early,
            lag_ms=None if lag is None else {name: round(value, 4) for name, value in lag._asdict().items()},
            jobs=dict(counts),
        )
        return
    click.echo(f"{seconds:.1f} s, {board.ticks} ticks: {board.missed} missed, {board.early} early")
    if lag is not None:
        click.echo(f"ticks late by {lag.p50:.2f} ms p50, {lag.p99:.2f} ms p99, {lag.worst:.2f} ms worst")
    failed = counts["failed"] + counts["timed_out"] + counts["lost"]
    ended = f" ({board.at_end} by the end of the demo)" if board.at_end else ""
    click.echo(
        f"jobs: {counts['done']} done, {failed} failed, {counts['retry']} tried again, "
        f"{counts['cancelled']} cancelled{ended}"
    )
    if is_for_people():
        click.secho('Next: qj explain "*/5 9-17 * * mon-fri"', dim=True)
