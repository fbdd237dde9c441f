"""How ``qj demo`` looks on a terminal: one frame from one set of facts.

Pure but for reading rich: what is to be seen goes in, something to print comes
out, cut to the size of the terminal. Colours are the terminal's own sixteen,
none of which drowns on a light or on a dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from quarterjack import Job, JobState, ScheduleView
from quarterjack.model import as_datetime

from ._demo_app import PLACE_BY_TASK
from ._demo_board import Board, Lag
from ._spans import in_words

__all__ = ["Scene", "frame"]

FLASH_NS: Final = 300_000_000
"""How long a schedule's lamp is lit after it fired."""
BUSY_ROWS: Final = 4
"""Lines for what runs: as many as this app ever has at once."""
_FIXED_ROWS: Final = 1 + 2 + 1 + 2 + BUSY_ROWS + 2 + 2
"""All lines but the schedules and the notes: heading, frames, table heading, running jobs, score."""

_ENDINGS: Final = {
    "done": ("✓ done", "green"),
    "failed": ("✗ failed", "red"),
    "timed_out": ("✗ timed out", "red"),
    "lost": ("✗ lost", "red"),
    "retry": ("↻ retries", "magenta"),
    "cancelled": ("■ cancelled", "magenta"),
}


class Scene(NamedTuple):
    """What a frame shows: the schedules, the jobs at work or waiting for a retry, the score, the time."""

    schedules: Sequence[ScheduleView]
    jobs: Sequence[Job[Any]]
    board: Board
    now_ns: int
    elapsed_s: float
    for_s: float | None


def frame(scene: Scene, height: int) -> RenderableType:
    """Return one frame, *height* lines high and as wide as the console."""
    notes = max(1, height - _FIXED_ROWS - len(scene.schedules))
    return Group(
        _heading(scene),
        _panel("schedules", _schedules(scene)),
        _panel("running now", _busy(scene)),
        _panel("what happened", _notes(scene.board, notes)),
        _score(scene.board),
    )


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(
        content, title=Text(title, "bold"), title_align="left", box=ROUNDED, border_style="dim", padding=(0, 1)
    )


def _heading(scene: Scene) -> Table:
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    left = Text(" quarterjack ", "bold reverse") + Text("  live, on its memory store", "dim")
    of = "" if scene.for_s is None else f" of {scene.for_s:.0f}"
    line.add_row(left, Text(f"{scene.elapsed_s:.0f}{of} s   ", "bold") + Text("Ctrl-C ends ", "dim"))
    return line


def _schedules(scene: Scene) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    table.add_column("", width=1)
    table.add_column("task", no_wrap=True, style="bold")
    table.add_column("rule", no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column("next in", justify="right", no_wrap=True, min_width=9, style="cyan")
    table.add_column("last job", no_wrap=True, width=11)
    for view in scene.schedules:
        is_lit = scene.now_ns - scene.board.fired_ns.get(view.id, 0) < FLASH_NS
        lamp = Text("●", "bold green") if is_lit else Text("·", "dim")
        table.add_row(lamp, view.id, Text(view.explain()), _countdown(view, scene.now_ns), _last(scene.board, view.id))
    return table


def _countdown(view: ScheduleView, now_ns: int) -> str:
    now = as_datetime(now_ns)
    if view.next is None or now is None:
        return ""
    return in_words(max(0.0, (view.next - now).total_seconds()))


def _last(board: Board, schedule_id: str) -> Text:
    return Text(*_ENDINGS.get(board.ended.get(schedule_id, ""), ("", "")))


def _busy(scene: Scene) -> Table:
    """Draw what runs with its progress, and what waits to be tried again; always the same height."""
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold", min_width=13)
    table.add_column(no_wrap=True, style="dim", width=6)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right", width=18)
    shown = [job for job in scene.jobs if job.state is JobState.RUNNING or job.failures][:BUSY_ROWS]
    for job in shown:
        table.add_row(job.task, PLACE_BY_TASK.get(job.task, "loop"), *_progress(job, scene.now_ns))
    for _ in range(BUSY_ROWS - len(shown)):
        table.add_row("", "", "", "")
    return table


def _progress(job: Job[Any], now_ns: int) -> tuple[RenderableType, Text]:
    if job.state is not JobState.RUNNING:
        now, due = as_datetime(now_ns), job.timestamps.run_at
        wait_s = 0.0 if now is None or due is None else max(0.0, (due - now).total_seconds())
        return Text(f"waits for attempt {job.attempt + 1}", "magenta", no_wrap=True, overflow="ellipsis"), Text(
            f"in {wait_s:.1f} s", "magenta"
        )
    said = job.progress
    if said is None or not said.total:
        return ProgressBar(total=1, completed=0, style="dim", complete_style="cyan"), Text("…", "dim")
    bar = ProgressBar(total=said.total, completed=said.done, style="dim", complete_style="cyan", finished_style="green")
    return bar, Text(said.text, "dim") + Text(f" {said.done / said.total:4.0%}")


def _notes(board: Board, rows: int) -> Table:
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    latest = list(board.notes)[-rows:]
    for note in latest:
        at = as_datetime(note.at_ns)
        clock = "" if at is None else f"{at.astimezone():%H:%M:%S}"
        table.add_row(clock, Text(f"{note.mark} ", note.style) + Text(note.task), Text(note.text))
    for _ in range(rows - len(latest)):
        table.add_row("", "", "")
    return table


def _score(board: Board) -> Text:
    counts = board.counts
    ticks = Text.assemble(
        (" ticks ", "dim"), (f"{board.ticks}", "bold"), ("  missed ", "dim"), _count(board.missed, "red")
    )
    ticks.append("   late ", "dim")
    ticks.append_text(_lag(board.lag))
    jobs = Text.assemble(
        (" jobs  ", "dim"),
        (f"{counts['done']}", "bold green"),
        " done  ",
        _count(counts["failed"] + counts["timed_out"] + counts["lost"], "red"),
        " failed  ",
        _count(counts["retry"], "magenta"),
        " tried again  ",
        _count(counts["cancelled"], "magenta"),
        " cancelled",
    )
    return Text("\n").join([ticks, jobs])


def _count(number: int, style: str) -> tuple[str, str]:
    return (str(number), f"bold {style}" if number else "bold")


def _lag(lag: Lag | None) -> Text:
    if lag is None:
        return Text("…", "dim")
    return Text.assemble(
        (f"{lag.p50:.2f} ms", "bold"),
        (" p50  ", "dim"),
        (f"{lag.p99:.2f} ms", "bold"),
        (" p99  ", "dim"),
        (f"{lag.worst:.2f} ms", "bold"),
        (" worst", "dim"),
    )
