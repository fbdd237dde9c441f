"""What has happened so far in ``qj demo``: counted, measured and put into words, event by event.

A listener of the event stream and nothing else: every number shown comes from
what the library itself tells."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final, NamedTuple

from quarterjack.events import Event, JobEvent, ScheduleEvent

from ._runlog import one_line, said_once
from ._spans import span

__all__ = ["Board", "Lag", "Note"]

KEPT_LAGS: Final = 10_000
"""Ticks that the percentiles look back on: almost two hours of this demo."""
KEPT_NOTES: Final = 100
BRIEF_S: Final = 0.01
"""A tick whose body is over so soon is told by the line of its start alone."""

_MARKS: Final = {
    "done": ("✓", "green"),
    "running": ("▸", "cyan"),
    "retry": ("↻", "magenta"),
    "failed": ("✗", "red"),
    "timed_out": ("✗", "red"),
    "lost": ("✗", "red"),
    "cancelled": ("■", "magenta"),
    "missed": ("!", "red"),
    "skipped": ("!", "magenta"),
}


class Note(NamedTuple):
    """One thing that happened, as a line."""

    at_ns: int
    mark: str
    style: str
    task: str
    text: str


class Lag(NamedTuple):
    """How late ticks started, in milliseconds."""

    p50: float
    p99: float
    worst: float


class Board:
    """Listens and keeps score; *on_note* is called with each line as it comes."""

    def __init__(self, on_note: Callable[[Note], None] | None = None) -> None:
        self.counts: Counter[str] = Counter()
        """Jobs by how they ended; ``retry`` counts attempts that were tried again."""
        self.ticks = 0
        """Fire times whose job has begun."""
        self.early = self.missed = self.at_end = 0
        """Ticks begun before their time; fire times that got no run; jobs that the demo's end cancelled."""
        self.notes: deque[Note] = deque(maxlen=KEPT_NOTES)
        self.fired_ns: dict[str, int] = {}
        """When each schedule fired last."""
        self.ended: dict[str, str] = {}
        """How each schedule's last job ended."""
        self._lags_s: deque[float] = deque(maxlen=KEPT_LAGS)
        self._worst_s = 0.0
        self._on_note = on_note

    def __call__(self, event: Event) -> None:
        if isinstance(event, JobEvent):
            self._on_job(event)
        elif isinstance(event, ScheduleEvent) and event.kind in {"missed", "skipped"}:
            self.missed += event.count
            self._note(event.at_ns, event.kind, event.task, event.reason or f"{event.count} fire times")

    @property
    def lag(self) -> Lag | None:
        """The lag of the ticks so far; None before the first."""
        if not self._lags_s:
            return None
        ordered = sorted(self._lags_s)
        last = len(ordered) - 1
        return Lag(ordered[last // 2] * 1e3, ordered[round(last * 0.99)] * 1e3, self._worst_s * 1e3)

    def _on_job(self, event: JobEvent) -> None:
        if event.kind == "running":
            self._on_running(event)
        elif event.kind in _MARKS:
            self.counts[event.kind] += 1
            self.at_end += event.reason == "shutdown"
            if event.schedule_id is not None:
                self.ended[event.schedule_id] = event.kind
            if not _is_brief(event):
                self._note(event.at_ns, event.kind, event.task, _ending(event))

    def _on_running(self, event: JobEvent) -> None:
        is_tick = event.nominal_ns is not None and event.attempt == 1 and event.lag_s is not None
        if not is_tick or event.lag_s is None:
            again = f"attempt {event.attempt}" if event.attempt > 1 else "submitted by another job"
            self._note(event.at_ns, "running", event.task, again)
            return
        self.ticks += 1
        self.early += event.lag_s < 0
        self._lags_s.append(event.lag_s)
        self._worst_s = max(self._worst_s, event.lag_s)
        if event.schedule_id is not None:
            self.fired_ns[event.schedule_id] = event.at_ns
        self._note(event.at_ns, "running", event.task, f"{event.lag_s * 1e3:.2f} ms after its time")

    def _note(self, at_ns: int, kind: str, task: str, text: str) -> None:
        mark, style = _MARKS[kind]
        note = Note(at_ns, mark, style, task, text)
        self.notes.append(note)
        if self._on_note is not None:
            self._on_note(note)


def _is_brief(event: JobEvent) -> bool:
    return event.kind == "done" and event.nominal_ns is not None and (event.duration_s or 0.0) < BRIEF_S


def _ending(event: JobEvent) -> str:
    took = f" after {span(event.duration_s)}" if event.duration_s is not None else ""
    if event.kind == "done":
        return f"done{took}"
    if event.kind == "retry":
        return f"attempt {event.attempt} failed, will be tried again: {one_line(event.reason or '')}".rstrip(": ")
    if event.kind == "failed":
        return f"failed for good in attempt {event.attempt}: {one_line(event.reason or '')}".rstrip(": ")
    what, reason = said_once(event.kind.replace("_", " "), event.reason)
    return f"{what}{took}" + (f": {one_line(reason)}" if reason else "")
