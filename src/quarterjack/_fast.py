"""Shortcuts for the few places that run once per job.

``new_tuple(Plan, (a, b, c))`` is ``Plan(a, b, c)`` in a third of the time,
without the Python frame of a named tuple's generated constructor, and checks
nothing: every field is given, in order."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

__all__ = ["EAGER_TASKS", "new_tuple"]

new_tuple: Final[Callable[..., Any]] = tuple.__new__  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]

EAGER_TASKS: Final = sys.version_info >= (3, 12)
"""A task may take its first step as it is made, so a job's body may run in the middle of the turn that starts it."""
