"""Calls that lease jobs, and those whose answer is lost.

A claim or a fire that fails may have been done all the same: then jobs are
leased to this process, and nobody here knows. They would wait for their leases
to run out, count a rescue though no worker died, and be LOST unrun where one
death is too many. So once the store answers again it is asked to give back
what this process does not know of, before anything else is claimed. While it
is asked no other such call may be under way, for its jobs are not known yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Unanswered"]


class Unanswered:
    """Counts them, for one worker; each such call is made in a ``with`` block of it."""

    def __init__(self) -> None:
        self._under_way = 0
        self._is_owed = False
        self.is_settling = False
        """True while the store is asked: no call that leases jobs may begin."""

    def __enter__(self) -> None:
        self._under_way += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._under_way -= 1
        if kind is not None:  # who is cancelled hears no answer either
            self._is_owed = True

    @property
    def is_owed(self) -> bool:
        """True if the store is to be asked, and may be asked now."""
        return self._is_owed and not self._under_way

    @contextmanager
    def settling(self) -> Iterator[None]:
        """The store is asked until the block is left; by an error it has not answered."""
        self.is_settling = True
        try:
            yield
            self._is_owed = False
        finally:
            self.is_settling = False
