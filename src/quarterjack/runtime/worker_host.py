"""What a worker needs of the app around it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from quarterjack.events import EventStream
from quarterjack.executors import Executor
from quarterjack.model import JobRecord
from quarterjack.stores.base import Store

if TYPE_CHECKING:
    from quarterjack.clock import Clock
    from quarterjack.task import TaskDefinition
    from quarterjack.timer import Timer

    from .flows import Flows
    from .handles import Handles
    from .outage import Outage
    from .patience import Patience
    from .silence import Silence
    from .store_time import StoreTime

__all__ = ["Lanes", "Prepared", "WorkPlaces", "WorkerHost"]


class Prepared(Protocol):
    """A task made ready to run: its body with dependencies and wrappers, and where it runs."""

    @property
    def definition(self) -> TaskDefinition: ...
    @property
    def fn(self) -> Callable[..., Any]: ...
    @property
    def is_coroutine(self) -> bool: ...
    @property
    def executor(self) -> Executor: ...


class Lanes(NamedTuple):
    """An executor, and the lanes of the jobs that go there."""

    executor: Executor
    all: frozenset[str]
    ticks: frozenset[str]


class WorkPlaces(Protocol):
    """Where bodies run."""

    @property
    def prepared(self) -> Mapping[str, Prepared]: ...
    def lanes(self, parked: Collection[str] = ()) -> list[Lanes]: ...
    def of(self, record: JobRecord, prepared: Prepared) -> Executor: ...


class WorkerHost(Protocol):
    """What the worker needs of the app around it."""

    @property
    def store(self) -> Store: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def timer(self) -> Timer: ...
    @property
    def events(self) -> EventStream: ...
    @property
    def handles(self) -> Handles: ...
    @property
    def places(self) -> WorkPlaces: ...
    @property
    def context(self) -> Context: ...
    @property
    def owner(self) -> str: ...
    @property
    def lease_s(self) -> float | None: ...
    @property
    def silence(self) -> Silence | None: ...
    @property
    def flows(self) -> Flows | None: ...
    @property
    def tasks(self) -> Mapping[str, TaskDefinition]: ...
    @property
    def checks_results(self) -> bool: ...
    def check_result(self, value: Any, record: JobRecord) -> Any: ...
    def decode_call(
        self, definition: TaskDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]: ...
    @property
    def outage(self) -> Outage: ...
    @property
    def patience(self) -> Patience: ...
    @property
    def time(self) -> StoreTime: ...
    def fatal(self, error: BaseException) -> None: ...
