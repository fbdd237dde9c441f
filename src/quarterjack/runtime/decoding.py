"""What a body gets of a stored job: its arguments and its checkpoint, if this version of the app can read them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from quarterjack._payload import Unreadable
from quarterjack.errors import Orphaned
from quarterjack.why import ORPHANED

if TYPE_CHECKING:
    from quarterjack.task import TaskDefinition

    from .run import Attempt

__all__ = ["Decoder", "DecoderHost"]

log = logging.getLogger("quarterjack.worker")


class DecoderHost(Protocol):
    """What is needed of the app around it."""

    def decode_call(
        self, definition: TaskDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]: ...


class Decoder:
    """Decodes what the jobs of one worker take."""

    def __init__(self, host: DecoderHost) -> None:
        self._host = host
        self._told: set[str] = set()

    def decode(self, attempt: Attempt) -> str | None:
        """Give an attempt its arguments; return why it cannot be run here, if that is so.

        That is told once for each task: a worker of another version may well run its jobs.
        """
        record = attempt.record
        try:
            args, kwargs = self._host.decode_call(attempt.definition, record.args, record.kwargs)
            attempt.args, attempt.kwargs = record.args, record.kwargs = args, kwargs  # gates and callbacks see them too
            if isinstance(record.checkpoint, Unreadable):  # begun without it, the body would do its work twice
                raise Orphaned(record.task, f"its checkpoint cannot be read: {record.checkpoint.reason}")
        except Orphaned as error:
            if record.task not in self._told:
                self._told.add(record.task)
                log.warning("job %s waits for a worker that can run it: %s", record.id, error)
            return f"{ORPHANED}: {error.why}"
        return None
