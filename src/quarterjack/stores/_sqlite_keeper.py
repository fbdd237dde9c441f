"""What the SQLite store does around every transaction: the schema, the clock, word to and from other processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from secrets import token_hex

from quarterjack.clock import Clock

from . import _sqlite_registry as registry
from . import _sqlite_schema as schema
from ._rows import Encoding
from ._sqlite_clock import StepWatch, shift
from ._sqlite_engine import Host, Session, Told
from .base import Hint

__all__ = ["Keeper"]


class Keeper(Host):
    """Serves one writer; all but `tell` runs in its thread.

    Args:
        url: How the store is called in errors.
        clock: The store's clock.
        encoding: Reads and writes schedules, should the clock be set back.
        hear: Tells the listeners of this process.
    """

    def __init__(self, url: str, clock: Clock, encoding: Encoding, hear: Callable[[Hint, Sequence[str]], None]) -> None:
        self._url = url
        self._clock = clock
        self._encoding = encoding
        self._hear = hear
        self._process = token_hex(8)
        self._steps: StepWatch | None = None
        self._heard = 0

    def begin(self, session: Session) -> None:
        """Bring the schema up to date; from now on there is a clock to watch and word to hear.

        Raises:
            StoreError: If the schema is newer than this version knows.
        """
        schema.upgrade(session, self._url)
        self._steps = StepWatch(self._clock)
        self._heard = registry.newest(session)

    def begun(self, session: Session) -> None:
        """Put right what a clock that was set has moved."""
        step = 0 if self._steps is None else self._steps.step(session)
        if step:
            shift(session, self._encoding, step)

    def wake(self, session: Session, hint: Hint) -> None:
        """Send a hint to every listener, in other processes too."""
        session.tell(hint)
        if hint is Hint.JOBS:
            registry.publish(session, [(hint, ())], self._process)

    def ending(self, session: Session) -> None:
        """Leave word for other processes."""
        hints = registry.for_others(session)
        if hints:
            registry.publish(session, hints, self._process)

    def noticed(self, connection: sqlite3.Connection) -> Sequence[Told]:
        """Return what another process has left word of, and that there may be jobs."""
        self._heard, hints = registry.heard(connection, self._heard, self._process)
        return [(Hint.JOBS, ()), *hints]

    def tell(self, hints: Sequence[Told]) -> None:
        """Send hints to the listeners, those without ids once."""
        bare: set[Hint] = set()
        for hint, ids in hints:
            if not ids:
                if hint in bare:
                    continue
                bare.add(hint)
            self._hear(hint, ids)
