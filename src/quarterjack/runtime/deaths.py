"""Tasks whose bodies keep killing their processes: parked here after three deaths in a row.

A crash that comes every time (a broken library, too little memory) would end
child after child for as long as its jobs are retried. So the third death in a
row parks the task in this process: its jobs stay SUBMITTED and are claimed here
no more until the process starts anew. One body that ends in any other way
begins the count again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from quarterjack._exit_codes import name_of
from quarterjack.errors import BodyDied
from quarterjack.model import Outcome, OutcomeKind

__all__ = ["DEATHS_MOST", "Deaths"]

log = logging.getLogger("quarterjack.worker")

DEATHS_MOST: Final = 3
"""So many deaths in a row park a task."""
_SAYS_NOTHING: Final = frozenset({OutcomeKind.REJECTED, OutcomeKind.MISSED, OutcomeKind.ORPHANED, OutcomeKind.LOST})
PARKED: Final = "its processes died %d times in a row (%s)"


class Deaths:
    """The deaths of one worker's bodies, by task.

    Args:
        on_parked: Told when one more task is parked.
    """

    def __init__(self, on_parked: Callable[[], None]) -> None:
        self._on_parked = on_parked
        self._in_a_row: dict[str, list[str]] = {}
        self.parked: dict[str, str] = {}
        """Why each parked task is, by its name."""

    @property
    def is_counting(self) -> bool:
        """True while there is a death that the end of another body could make forgotten."""
        return bool(self._in_a_row)

    def note(self, task: str, outcome: Outcome) -> None:
        """A body of *task* has ended."""
        if outcome.kind in _SAYS_NOTHING or not outcome.stopped:
            return
        if outcome.kind is not OutcomeKind.DIED:
            self._in_a_row.pop(task, None)
            return
        codes = self._in_a_row.setdefault(task, [])
        codes.append(_code_of(outcome))
        if len(codes) >= DEATHS_MOST and task not in self.parked:
            self.parked[task] = PARKED % (len(codes), ", ".join(codes))
            log.error("task %s is parked: %s; restart this process once that is mended", task, self.parked[task])
            self._on_parked()

    def why(self, task: str) -> str | None:
        """Return why *task* is parked; None if it is not."""
        return self.parked.get(task)


def _code_of(outcome: Outcome) -> str:
    error = outcome.error
    code = error.code if isinstance(error, BodyDied) else None
    return "unknown exit code" if code is None else name_of(code)
