"""The streams of one process: started last, stopped first; see `consumer` for what each does.

They run where schedules fire (roles ``"both"`` and ``"scheduler"``): a stream turns
items into jobs as a schedule turns fire times into jobs, and a process that only
runs jobs connects to no broker of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from quarterjack.triggers import Stream

from ._intake import DeclaredStream, StreamHost
from .consumer import Consumer, StreamState

__all__ = ["DeclaredStream", "StreamView", "Streams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamView:
    """A snapshot of a stream in this process: how it stands, and how many items went which way.

    Attributes:
        id: The stream's id: the task's name unless one was given.
        task: The task its jobs run.
        trigger: The rule, as declared.
        state: ``"opening"`` its source, ``"waiting"`` for an item, ``"full"`` (waiting for one of its jobs to
            end), ``"storing"`` a job (or waiting for room in its flow), ``"pausing"`` before the source is opened
            again, ``"ended"`` with its source, ``"stopped"``, or ``"elsewhere"`` (this
            process has a role that takes no items).
        taken: Items taken from the source since the start of the app.
        stored: Those that became a job.
        duplicates: Those that found their job there already, by its unique key.
        refused: Those that could not become a job.
        unacknowledged: Those whose ``ack`` raised, although their job is stored.
        unfinished: Jobs of its that have not ended.
        failures: How often in a row the source has raised before it gave an item.
    """

    id: str
    task: str
    trigger: Stream
    state: StreamState
    taken: int
    stored: int
    duplicates: int
    refused: int
    unacknowledged: int
    unfinished: int
    failures: int

    @property
    def is_open(self) -> bool:
        """True while more items may come to this process."""
        return self.state not in {"ended", "stopped", "elsewhere"}

    def explain(self) -> str:
        """Return its rule and its state in words."""
        return f"{self.trigger.explain()}; {self.state}"


class Streams:
    """All consumers of one process."""

    def __init__(self, host: StreamHost, declared: Sequence[DeclaredStream], *, are_here: bool) -> None:
        self._consumers = [Consumer(host, one) for one in declared]
        self._are_here = are_here
        if not are_here:
            for consumer in self._consumers:
                consumer.state = "elsewhere"

    def __contains__(self, stream_id: str) -> bool:
        return any(consumer.declared.id == stream_id for consumer in self._consumers)

    def start(self) -> None:
        """Begin to take items."""
        for consumer in self._consumers if self._are_here else ():
            consumer.start()

    def hold(self) -> None:
        """Ask for no more items: flags only. `stop` follows."""
        for consumer in self._consumers:
            consumer.hold()

    def stop(self) -> None:
        """Take no more items; what is in hand is stored first."""
        for consumer in self._consumers:
            consumer.stop()

    async def ended(self) -> None:
        """Wait until every source is closed. After `stop`."""
        await asyncio.gather(*(consumer.ended() for consumer in self._consumers))

    async def close(self, grace_s: float) -> None:
        """End what does not end by itself; sources get *grace_s* seconds to close."""
        await asyncio.gather(*(consumer.close(grace_s) for consumer in self._consumers))

    @property
    def are_ended(self) -> bool:
        """True if there is nothing to wait for."""
        return all(consumer.is_ended for consumer in self._consumers)

    def views(self) -> list[StreamView]:
        """Return how each stands, by id."""
        return [_view(consumer) for consumer in sorted(self._consumers, key=lambda one: one.declared.id)]


def _view(consumer: Consumer) -> StreamView:
    declared, intake = consumer.declared, consumer.intake
    return StreamView(
        id=declared.id,
        task=declared.definition.name,
        trigger=declared.trigger,
        state=consumer.state,
        taken=intake.taken,
        stored=intake.stored,
        duplicates=intake.duplicates,
        refused=intake.refused,
        unacknowledged=intake.unacknowledged,
        unfinished=intake.unfinished,
        failures=consumer.failures,
    )
