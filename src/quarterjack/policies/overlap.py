"""Overlap: what becomes of a fire time while earlier jobs of the schedule are open.

Pure functions over counts. *Open* jobs are all unfinished ones (waiting,
retrying, running) and bodies that outlived their timeout. The store asks in
the transaction that inserts the jobs, so two replicas cannot both see room.

The jobs of a backfill are not counted: what they make up for can wait, and no fire
time of today is left out for them. They only take turns with the others (`SERIAL_MODES`)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal, NamedTuple

__all__ = ["SERIAL_MODES", "Action", "OverlapMode", "Verdict", "admit", "has_room"]

OverlapMode = Literal["skip", "queue_one", "queue_latest", "queue_all", "cancel_previous", "allow"]

SERIAL_MODES: Final = frozenset({"skip", "queue_one", "queue_latest", "queue_all", "cancel_previous"})
"""Modes whose jobs run one at a time per overlap key, in turn; ``allow`` decides at the fire time only."""


class Action(StrEnum):
    """What the store does with one fire time."""

    RUN = "run"
    """Insert the job; it may start at once, or (serial modes) when its turn comes."""
    SKIP = "skip"
    """Insert a SKIPPED row that names the blocking job."""


class Verdict(NamedTuple):
    """The decision about one fire time."""

    action: Action
    drop_waiting: bool = False
    """The jobs that wait for the key become SKIPPED: this one takes their place."""
    cancel_open: bool = False
    """Every open job of the key is cancelled."""


_RUN: Final = Verdict(Action.RUN)
_SKIP: Final = Verdict(Action.SKIP)


def admit(mode: OverlapMode, maximum: int | None, *, running: int, waiting: int) -> Verdict:
    """Return what becomes of one fire time beside *running* and *waiting* open jobs of its key.

    Args:
        mode: The schedule's policy.
        maximum: Bound of ``queue_all`` (waiting jobs) and ``allow`` (open jobs); None is no bound.
        running: Open jobs that a worker holds, bodies that outlived their timeout included.
        waiting: Open jobs that no worker holds.
    """
    if not running and not waiting:
        return _RUN
    if mode == "allow":
        return _RUN if maximum is None or running + waiting < maximum else _SKIP
    if mode == "queue_one":
        return _SKIP if waiting else _RUN
    if mode == "queue_latest":
        return Verdict(Action.RUN, drop_waiting=waiting > 0)
    if mode == "queue_all":
        return _RUN if maximum is None or waiting < maximum else _SKIP
    if mode == "cancel_previous":
        return Verdict(Action.RUN, cancel_open=True)
    return _SKIP


def has_room(mode: OverlapMode, maximum: int | None, *, running: int, waiting: int) -> bool:
    """Say whether a run that waits for its turn may come now: it is admitted, and takes no other job's place.

    A schedule that runs again after its job's end asks this after a run of it was
    left out; two that replaced each other's waiting runs at once would never stop.
    """
    return admit(mode, maximum, running=running, waiting=waiting) == _RUN
