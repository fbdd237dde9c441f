"""What all of a durable store stands on: one transaction around a decision, and who is told of it. See `_durable`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.errors import UsageError
from quarterjack.model import JobIds

from ._listeners import Listeners
from ._needs import Changes, Needs
from ._part import Part
from ._rows import Encoding
from .base import Hint, HintListener, Store

__all__ = ["DurableBase"]

T = TypeVar("T")


class DurableBase(Store):
    """A store whose rows are plain values, changed by decisions."""

    keeps_objects: ClassVar[bool] = False
    never_suspends: ClassVar[bool] = False

    def __init__(self) -> None:
        self._clock: Clock = SYSTEM_CLOCK
        self._ids = JobIds()
        self._encoding = Encoding()
        self._listeners = Listeners()

    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        """Take the app's clock, ids and encoding; the engine connects.

        Raises:
            UsageError: If there is no encoding.
        """
        if encoding is None:
            raise UsageError(f"the {self.name} store keeps rows as plain values: open it with an encoding")
        self._clock, self._ids, self._encoding = clock, ids, encoding

    # -- what an engine writes -------------------------------------------------------

    @abstractmethod
    async def _transact(self, needs: Needs, decide: Callable[[Part, int], T]) -> T:
        """Make a decision come true, in one transaction.

        Read the store's clock, make a `Part` (with ``self._ids``), load *needs*, and
        `Part.run` *decide*; on `Missing` load that too and run it again. Write
        `Part.changes`, commit, tell `_told`, return the answer. What was loaded, and
        what was found absent, must be the same when it commits (by locks, or by
        revisions that the commit compares); if it is not, begin anew with `Part.fresh`.
        An error of *decide* rolls back and passes through.
        """

    # -- hints -----------------------------------------------------------------------

    def listen(self, hint: HintListener) -> Callable[[], None]:
        """Call *hint* when there may be something to do."""
        return self._listeners.add(hint)

    def _hear(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        """Tell this process's listeners: of a commit here, or of what another process has sent."""
        self._listeners.tell(hint, ids)

    def _told(self, changes: Changes) -> None:
        """A decision was committed: tell this process. An engine extends it to send others theirs."""
        for hint, ids in changes.hints:
            self._hear(hint, ids)
