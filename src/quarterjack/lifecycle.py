"""How a job lives: its states' moves, as one table.

    NEW ─▶ SUBMITTED ─▶ SCHEDULED ─▶ [STARTED] ─▶ RUNNING ─▶ DONE, FAILED, TIMED_OUT, CANCELLED
               ▲             │           │           │
               └─────────────┴───────────┴───────────┘   retried, snoozed, released, lease expired

A move that is not in the table is an `IllegalMove`, raised in `move` and
nowhere else. The diagram in the documentation is drawn from this table by
`diagram`. SKIPPED and MISSED are born finished: the run never became a job
that waits. Nothing leaves a finished state but `Move.REPEATED`, the explicit
"run it again" of ``app.retry``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from .errors import IllegalMove
from .model import FINISHED, JobState

__all__ = ["MOVES", "Move", "diagram", "move"]


class Move(StrEnum):
    """What can happen to a job."""

    SUBMITTED = "submitted"
    LEASED = "leased"
    ACCEPTED = "accepted"
    BEGAN = "begun"
    RETURNED = "done"
    RAISED = "failed"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    SNOOZED = "snoozed"
    RELEASED = "released"
    LEASE_EXPIRED = "rescued"
    LOST = "lost"
    SKIPPED = "skipped"
    MISSED = "missed"
    REPEATED = "repeated"


_NEW, _SUBMITTED, _SCHEDULED = JobState.NEW, JobState.SUBMITTED, JobState.SCHEDULED
_STARTED, _RUNNING = JobState.STARTED, JobState.RUNNING
_HELD: Final = (_SCHEDULED, _STARTED, _RUNNING)

MOVES: Final[Mapping[tuple[JobState, Move], JobState]] = {
    (_NEW, Move.SUBMITTED): _SUBMITTED,
    (_NEW, Move.SKIPPED): JobState.SKIPPED,
    (_NEW, Move.MISSED): JobState.MISSED,
    (_SUBMITTED, Move.LEASED): _SCHEDULED,
    (_SUBMITTED, Move.CANCELLED): JobState.CANCELLED,
    (_SUBMITTED, Move.MISSED): JobState.MISSED,
    (_SUBMITTED, Move.SKIPPED): JobState.SKIPPED,
    (_SCHEDULED, Move.ACCEPTED): _STARTED,
    (_SCHEDULED, Move.BEGAN): _RUNNING,
    (_SCHEDULED, Move.MISSED): JobState.MISSED,
    (_STARTED, Move.MISSED): JobState.MISSED,
    (_STARTED, Move.BEGAN): _RUNNING,
    (_RUNNING, Move.RETURNED): JobState.DONE,
    **{(held, Move.RAISED): JobState.FAILED for held in _HELD},
    **{(held, Move.TIMED_OUT): JobState.TIMED_OUT for held in _HELD},
    **{(held, Move.CANCELLED): JobState.CANCELLED for held in _HELD},
    **{(held, Move.RETRIED): _SUBMITTED for held in _HELD},
    **{(held, Move.SNOOZED): _SUBMITTED for held in _HELD},
    **{(held, Move.RELEASED): _SUBMITTED for held in _HELD},
    **{(held, Move.LEASE_EXPIRED): _SUBMITTED for held in _HELD},
    **{(held, Move.LOST): JobState.LOST for held in _HELD},
    **{(finished, Move.REPEATED): _SUBMITTED for finished in sorted(FINISHED)},
}


def move(state: JobState, event: Move) -> JobState:
    """Return the state after *event*.

    Raises:
        IllegalMove: If a job in *state* cannot make this move.
    """
    try:
        return MOVES[state, event]
    except KeyError:
        raise IllegalMove(state.value, event.value) from None


def diagram() -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> NEW"]
    labels: dict[tuple[JobState, JobState], list[str]] = {}
    for (before, event), after in MOVES.items():
        if event is not Move.REPEATED:
            labels.setdefault((before, after), []).append(event.value)
    lines += [f"    {before.name} --> {after.name}: {', '.join(names)}" for (before, after), names in labels.items()]
    lines += [f"    {state.name} --> [*]" for state in sorted(FINISHED)]
    return "\n".join(lines) + "\n"
