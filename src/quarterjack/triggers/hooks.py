"""Hooks of a process, written as triggers: `OnStartup` and `OnShutdown`.

They belong to each process that serves the app, not to a schedule: nothing is
stored, nothing is missed, and a start-up hook that fails stops the app."""

from __future__ import annotations

from typing import ClassVar

from .base import UnlistedTrigger

__all__ = ["OnShutDown", "OnShutdown", "OnStartUp", "OnStartup"]


class OnStartup(UnlistedTrigger):
    """Runs once in each process, before its schedules and jobs start. Cannot be combined with other rules."""

    is_hook: ClassVar[bool] = True

    def explain(self) -> str:
        """Return the rule in words."""
        return "when the app starts"


class OnShutdown(UnlistedTrigger):
    """Runs once in each process, after its jobs have ended. Cannot be combined with other rules."""

    is_hook: ClassVar[bool] = True

    def explain(self) -> str:
        """Return the rule in words."""
        return "when the app stops"


OnStartUp = OnStartup
"""Another spelling of `OnStartup`."""
OnShutDown = OnShutdown
"""Another spelling of `OnShutdown`."""
