"""The slots of executors, as gates: the last ones of every flow in an app.

So a job is handed over in the very step in which its gates are taken, and
holds no slot before. They remember nothing: an executor knows what it runs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from typing import Protocol, cast

from quarterjack.executors import Executor
from quarterjack.flow.base import Gate
from quarterjack.flow.waiting import Waiting

__all__ = ["Slot", "Slots", "SlotsHost"]


class SlotsHost(Protocol):
    """What is asked of the worker."""

    @property
    def is_claiming(self) -> bool: ...
    def kept_of(self, executor: Executor) -> int: ...


class Slot(Gate):
    """Whether an executor has a slot for a job."""

    def __init__(self, host: SlotsHost, executor: Executor, *, is_tick: bool) -> None:
        super().__init__(name=f"executor {executor.name!r}")
        self._host = host
        self._is_tick = is_tick
        self.executor = executor

    @property
    def is_free(self) -> bool:
        """True if one more job may be handed over."""
        free = self.executor.free
        if free <= 0 or not self._host.is_claiming:
            return False
        return self._is_tick or free > self._host.kept_of(self.executor)

    def eta(self, job: Waiting, now: float) -> float:
        return now if self.is_free else math.inf

    @property
    def wanted(self) -> int:
        """Jobs that passed every other gate when they were asked last, and those behind them."""
        post = self._post
        return 0 if post is None else sum(entry[2].size for entry in post.entries if entry[2].entry is entry)


class Slots(Gate):
    """The slots of all executors, as the last gate of every flow."""

    def __init__(self, host: SlotsHost) -> None:
        super().__init__(by=lambda entry: entry.place)
        self._host = host
        self._slots: dict[Hashable, Slot] = {}

    def eta(self, job: Waiting, now: float) -> float:
        raise NotImplementedError  # asked of the one `at` the job's place

    def at(self, key: Hashable) -> Gate:
        slot = self._slots.get(key)
        if slot is None:
            executor, is_tick = cast("tuple[Executor, bool]", key)  # what `Entry.place` returns
            slot = self._slots[key] = Slot(self._host, executor, is_tick=is_tick)
        return slot

    def drop(self, key: Hashable, now: float) -> bool:
        return True  # it remembers nothing; the slots are few and stay

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())
