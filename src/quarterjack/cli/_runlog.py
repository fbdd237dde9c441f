"""What ``qj run`` writes: one line per move, as text or as JSON, on stderr.

Text lines carry local time; JSON lines carry ISO times in UTC and the job's
fields under their own names. Level ``info`` tells of starts and ends, ``debug``
also of what is submitted, fired and how far bodies are. Logging that the
user's module has set up is left alone: then only our lines are added to it."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal

from quarterjack.events import ClockJumped, Event, EventsDropped, JobEvent, ScheduleEvent, StreamEvent

from ._spans import span

__all__ = ["LogFormat", "MoveLog", "configure", "one_line", "said_once"]

LogFormat = Literal["text", "json"]

log = logging.getLogger("quarterjack.moves")

_QUIET_JOB_KINDS: Final = frozenset({"submitted", "scheduled", "progress"})
_LOUD_SCHEDULE_KINDS: Final = frozenset({"missed", "skipped", "paused", "resumed", "removed"})
_LOUD_STREAM_KINDS: Final = frozenset({"started", "ended"})
_ANSI: Final = {"DEBUG": "2", "INFO": "36", "WARNING": "35", "ERROR": "31", "CRITICAL": "1;31"}
_PLAIN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(level: str, form: LogFormat, *, process: str | None = None, is_coloured: bool | None = None) -> None:
    """Send log records to stderr in *form*, unless the user's module has set up logging itself.

    Args:
        level: The least that is told.
        form: Text or JSON.
        process: What JSON lines name as theirs.
        is_coloured: Whether lines of text are; None asks the terminal.
    """
    root = logging.getLogger()
    logging.getLogger("quarterjack").setLevel(level.upper())
    if root.handlers and form == "text":
        return
    handler = logging.StreamHandler()
    asked = sys.stderr.isatty() and not os.environ.get("NO_COLOR") if is_coloured is None else is_coloured
    handler.setFormatter(_JsonFormatter(process) if form == "json" else _TextFormatter(is_coloured=bool(asked)))
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class _TextFormatter(logging.Formatter):
    """``12:00:00.004 info    heartbeat done in 1.2 ms``."""

    def __init__(self, *, is_coloured: bool) -> None:
        super().__init__("%(message)s")
        self._is_coloured = is_coloured

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with a traceback below it where there is one."""
        at = datetime.fromtimestamp(record.created).astimezone()
        level = f"{record.levelname.lower():<8}"
        if self._is_coloured:
            level = f"\x1b[{_ANSI.get(record.levelname, '0')}m{level}\x1b[0m"
        return f"{at:%H:%M:%S}.{at.microsecond // 1000:03} {level} {super().format(record)}"


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever ``extra`` holds."""

    def __init__(self, process: str | None) -> None:
        super().__init__()
        self._process: dict[str, Any] = {} if process is None else {"process": process}

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as one line."""
        found: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._process,
        }
        found |= {key: value for key, value in vars(record).items() if key not in _PLAIN_FIELDS}
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False, default=str)


class MoveLog:
    """A listener of the event stream that logs each move and counts how jobs ended."""

    def __init__(self) -> None:
        self.ended: dict[str, int] = {}
        """How many jobs ended in each final state."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, JobEvent):
            if event.state in _FINAL and event.kind not in {"retry", "progress"}:
                self.ended[event.state] = self.ended.get(event.state, 0) + 1
            self._on_job(event)
        elif isinstance(event, ScheduleEvent):
            self._on_schedule(event)
        elif isinstance(event, StreamEvent):
            self._on_stream(event)
        elif not isinstance(event, ClockJumped | EventsDropped):  # the runtime has logged those itself
            log.debug("%s", type(event).__name__, extra={"event": type(event).__name__})

    @property
    def has_failures(self) -> bool:
        """Say whether any job ended failed, timed out or lost."""
        return any(self.ended.get(state) for state in ("failed", "timed_out", "lost"))

    def summary(self) -> str:
        """Return the counts in words: ``"12 done, 1 failed"``."""
        return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in self.ended.items()) or "no jobs"

    def _on_job(self, event: JobEvent) -> None:
        level = logging.DEBUG if event.kind in _QUIET_JOB_KINDS else logging.INFO
        if not log.isEnabledFor(level):
            return
        facts = {
            "event": f"job.{event.kind}",
            "job": event.job_id,
            "task": event.task,
            "state": event.state,
            "attempt": event.attempt,
            "schedule": event.schedule_id,
            "lag_s": event.lag_s,
            "duration_s": event.duration_s,
            "reason": event.reason,
        }
        log.log(level, "%s", job_words(event), extra={k: v for k, v in facts.items() if v is not None})

    def _on_schedule(self, event: ScheduleEvent) -> None:
        level = logging.INFO if event.kind in _LOUD_SCHEDULE_KINDS else logging.DEBUG
        if not log.isEnabledFor(level):
            return
        count = f" ({event.count} times)" if event.count > 1 else ""
        why = f": {one_line(event.reason)}" if event.reason else ""
        facts = {"event": f"schedule.{event.kind}", "schedule": event.schedule_id, "task": event.task}
        log.log(level, "schedule %s %s%s%s", event.schedule_id, event.kind, count, why, extra=facts)

    def _on_stream(self, event: StreamEvent) -> None:
        if event.kind not in _LOUD_STREAM_KINDS:  # the runtime has logged the others itself, with their tracebacks
            return
        again = "" if event.pause_s is None else f"; again in {span(event.pause_s)}"
        facts = {"event": f"stream.{event.kind}", "stream": event.stream_id, "task": event.task}
        log.info("stream %s %s%s", event.stream_id, event.kind, again, extra=facts)


_FINAL: Final = frozenset({"done", "failed", "timed_out", "cancelled", "skipped", "missed", "lost"})


def job_words(event: JobEvent) -> str:
    """Return a job's move as a line: task, id, what happened, what is good to know."""
    what = {"submitted": "submitted", "timed_out": "timed out", "retry": "will be tried again"}.get(
        event.kind, event.kind
    )
    what, reason = said_once(what, event.reason)
    parts = [f"{event.task} {event.job_id} {what}"]
    if event.kind == "running":
        if event.lag_s is not None:
            parts.append(f"{span(event.lag_s)} after it was due")
        if event.attempt > 1:
            parts.append(f"attempt {event.attempt}")
    elif event.duration_s is not None:
        parts.append(f"after {span(event.duration_s)}")
    if reason and event.kind != "running":
        parts.append(one_line(reason))
    return ", ".join(parts)


def said_once(what: str, reason: str | None) -> tuple[str, str]:
    """Return what happened to a job, and why if that adds to it; "cancelled by request" says both."""
    if reason and f"{reason} ".startswith(f"{what} "):
        return one_line(reason), ""
    return what, reason or ""


def one_line(reason: str) -> str:
    """Return the first line of a reason, with an ellipsis for the rest: texts of exceptions are often longer."""
    first, _, rest = reason.strip().partition("\n")
    return f"{first.rstrip()} …" if rest.strip() else first
