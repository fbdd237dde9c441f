"""`OnStartup` and `OnShutdown`: hooks of each process, written as triggers.

They are no schedules and make no jobs: the app runs them itself, before the
first job and after the last. They cannot be combined with anything."""

from __future__ import annotations

from typing import Any

from quarterjack.errors import InvalidTrigger

from .base import Trigger, UnlistedTrigger

__all__ = ["OnShutDown", "OnShutdown", "OnStartUp", "OnStartup"]


class _Hook(UnlistedTrigger):
    is_hook = True

    def _alone(self) -> InvalidTrigger:
        name = type(self).__name__
        return InvalidTrigger(f"{name} is a hook of the process, not a fire time; write a task of its own for it")

    def __or__(self, other: Trigger) -> Trigger:
        raise self._alone()

    def __and__(self, keep: Any) -> Trigger:
        raise self._alone()

    def __sub__(self, drop: Any) -> Trigger:
        raise self._alone()


class OnStartup(_Hook):
    """Run in each process before its first job, in order of registration; a failure stops the start."""

    def explain(self) -> str:
        """Return the rule in words."""
        return "when a process starts"


class OnShutdown(_Hook):
    """Run in each process after its last job, last registered first; a failure is logged and told at the end."""

    def explain(self) -> str:
        """Return the rule in words."""
        return "when a process stops"


OnStartUp = OnStartup
OnShutDown = OnShutdown
