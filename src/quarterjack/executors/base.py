"""Where a body runs: the contract between the runtime and an executor.

The runtime hands an executor a `Call` and a `Report`; the executor answers
with a `Handle` at once and tells the report what happens, always on the app's
event loop, always in this order:

    [accepted]  [began  progress…]  finished  [ended]

``finished`` (or ``done``, its short form for a body that returned) comes exactly
once for every call, whatever happened; ``ended``
follows only an outcome with ``stopped=False``, when the body is really over.
Executors know no store, no job and no policy. A report is a plain object with
methods rather than a future per call: a future and its callback cost a no-op
job a third of its time.

The timeout of a call counts from ``began``, and the executor enforces it;
where the start cannot be seen, from ``accepted``. A cancel is asked once and
answered by ``finished``: where a body can be interrupted it is, and after
``cancel_grace_s`` the executor kills it, or, where it cannot, reports what it
knows, with ``stopped=False`` if the body still runs.

Two kinds of places. In this process live objects are passed (``fn``, ``args``,
``context``). Elsewhere (*is_remote*) the other side loads the app by its
`AppRef`, and the call travels as bytes: its task's name, `Call.payload` and
`Call.meta`; `_remote` has both ends of that. What becomes of a remote body is
DIED if it certainly runs no more (the retry policy decides at once), LOST if
nobody knows (nothing is decided before its lease is over), REJECTED if it
cannot be run there at all (it is not tried again), ORPHANED if only the version
of the app there cannot run it (it goes back, and is offered again), and MISSED
if it came there after `Call.deadline_ns`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from quarterjack._signatures import Explained
from quarterjack.clock import Clock
from quarterjack.errors import UsageError
from quarterjack.model import Outcome, OutcomeKind

__all__ = ["AppRef", "Call", "Capabilities", "Executor", "Handle", "Home", "Report"]


class AppRef(NamedTuple):
    """How another process finds the app: a global of a module that it imports, or of a script that it runs."""

    module: str | None
    """The module's name; None for a script."""
    path: str | None
    """The script's file; None for a module."""
    attribute: str
    is_main: bool = False
    """It is the program that was started: elsewhere it goes by another name than ``__main__``."""
    edition: str = ""
    """The app object that asks: a process that has loaded the app for another one may have other code."""

    def __str__(self) -> str:
        return f"{self.module or self.path}:{self.attribute}"


def _no_app() -> AppRef:
    raise UsageError("bodies run in another process only for an app; there is none here")


@dataclass(frozen=True, slots=True)
class Home:
    """The app as its executors see it.

    Attributes:
        clock: Its clock.
        find_app: Returns how another process finds it, or raises `UsageError` if none can.
    """

    clock: Clock
    find_app: Callable[[], AppRef] = _no_app


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an executor can do; each flag is a promise that a test proves true or false."""

    can_cancel_queued: bool
    """A call that has not begun is withdrawn."""
    can_interrupt: bool
    """A running body is made to raise where it stands."""
    can_kill: bool
    """A running body can be ended for certain."""
    can_report_start: bool
    can_report_progress: bool
    survives_worker_restart: bool
    """A body goes on without its worker, and `Executor.reattach` finds it again."""
    submit_is_idempotent: bool
    """The same ref submitted twice runs once."""
    runs_coroutines: bool


class Call(Protocol):
    """One attempt, as an executor sees it.

    Executors of this process use the live objects; what travels is made only when it is asked for.
    """

    @property
    def ref(self) -> str:
        """``<job id>.<attempt>``: the attempt's name for remote systems."""
        ...

    @property
    def job_id(self) -> str:
        """The job's id, to name things by."""
        ...

    @property
    def fn(self) -> Callable[..., Any]:
        """The body: a coroutine function if *is_coroutine*, else a plain callable."""
        ...

    @property
    def args(self) -> tuple[Any, ...]: ...
    @property
    def kwargs(self) -> Mapping[str, Any]: ...
    @property
    def is_coroutine(self) -> bool: ...
    @property
    def context(self) -> Context:
        """The context to run the body in; ``current_job()`` is set there."""
        ...

    @property
    def timeout_s(self) -> float | None: ...
    @property
    def cancel_grace_s(self) -> float: ...

    @property
    def task(self) -> str:
        """The task's full name, by which the other side knows it."""
        ...

    @property
    def deadline_ns(self) -> int | None:
        """The instant (UTC) after which the body must not begin any more; None: there is none."""
        ...

    @property
    def max_result_bytes(self) -> int | None:
        """How many bytes of JSON its result may take; None: as many as it likes."""
        ...

    def payload(self) -> bytes:
        """Return the arguments as JSON: ``[args, kwargs]``.

        Raises:
            InvalidArguments: If one cannot be written as JSON.
        """
        ...

    def meta(self) -> dict[str, Any]:
        """Return what ``current_job()`` tells on the other side, as plain JSON values."""
        ...

    def read_result(self, data: bytes) -> Any:
        """Return the result from its JSON, as the task's return hint says."""
        ...


class Report(Protocol):
    """What the runtime wants to hear. Every method is called on the app's loop, and none raises."""

    def accepted(self) -> None:
        """The call waits in a queue that is not ours."""

    def began(self, at_mono_ns: int | None = None) -> None:
        """The body begins now, or began at this monotonic instant of the app's clock."""

    def progress(self, done: float, total: float | None, text: str) -> None:
        """A body elsewhere says how far it is; one in this process tells its job itself."""

    def keep(self, value: Any) -> None:
        """A body elsewhere keeps a value for the next attempt."""

    def done(self, result: Any) -> None:
        """The body returned *result* just now: the short form of ``finished`` with a DONE outcome."""
        self.finished(Outcome(OutcomeKind.DONE, result))

    def finished(self, outcome: Outcome, at_mono_ns: int | None = None) -> None:
        """The attempt is over: now, or since this monotonic instant of the app's clock. Exactly once."""

    def ended(self) -> None:
        """The body that outlived its outcome is over too."""


class Handle(Protocol):
    """A submitted call."""

    def cancel(self, reason: str) -> None:
        """Ask the body to stop; at once, idempotent, never raises. ``finished`` answers."""


def _nothing() -> None:
    """End nothing."""


class Executor(Explained, ABC):
    """Runs bodies. Belongs to one app and one loop from `start` to `stop`."""

    name: str
    slots: int
    """How many bodies run at once."""
    capabilities: ClassVar[Capabilities]
    is_remote: ClassVar[bool] = False
    """Bodies run in other processes: arguments and results travel as JSON."""
    runs_commands: ClassVar[bool] = False
    """What a body returns says what to run: a `Command`."""
    handed_to: ClassVar[str] = ""
    """Whose queue bodies wait in, as ``"Celery"``, where `Report.accepted` is told; empty where they begin at once."""
    lent: int = 0
    """Slots whose bodies wait for other jobs; `free` counts them as free, so that children cannot deadlock."""

    @abstractmethod
    async def start(self, home: Home) -> None:
        """Get ready; called on the app's loop before the first `submit`.

        Raises:
            UsageError: If bodies cannot run there.
        """

    async def warm(self) -> None:
        """Be ready for a first body: a task of the app names this executor. After `start`.

        Raises:
            UsageError: If bodies cannot run there.
        """

    @property
    def trouble(self) -> str | None:
        """Why nothing can be handed over just now, and since when, in words; None if nothing is known to be wrong."""
        return None

    @property
    @abstractmethod
    def free(self) -> int:
        """How many calls it would take now; the worker claims no more than that."""

    @abstractmethod
    def submit(self, call: Call, report: Report) -> Handle:
        """Take a call; synchronous and quick.

        Raises:
            ExecutorFull: If there is no room; nothing was begun and nothing is reported.
            ExecutorClosed: After `stop`.
        """

    @abstractmethod
    async def stop(self, grace_s: float) -> None:
        """Cancel what runs, wait up to *grace_s* for it, and let go of everything.

        Bodies that cannot be stopped are left behind (threads are daemons) and logged.
        """

    def on_free(self, poke: Callable[[], None]) -> Callable[[], None]:
        """Have *poke* called, on the loop this is called on, when *another app* may have freed or lent a slot.

        Only executors that several apps share have to; each worker knows of its own slots.

        Returns:
            What ends it.
        """
        del poke
        return _nothing

    def lend(self, n: int) -> None:
        """Count *n* more slots as lent (fewer, if negative); on the loop of the app whose body waits.

        Executors that several apps share tell the others of it (`on_free`).
        """
        self.lent += n

    def leave(self, handle: Handle) -> None:
        """Let a body go on without its worker, which ends or has lost its lease: nothing more is reported of it.

        Only where `Capabilities.survives_worker_restart`; the next worker finds it by `reattach`.
        """
        del handle
        raise NotImplementedError

    def reattach(self, ref: str, call: Call, report: Report) -> Handle | None:
        """Take up the body of an earlier attempt, *ref*, that survived its worker, as that of *call*.

        One that returned meanwhile is found as well, as long as no `settled` said that the store has its result.

        Returns:
            None if there is none: then *call* is submitted.
        """
        del ref, call, report
        return None

    def settled(self, ref: str, *, is_stored: bool) -> None:
        """The outcome of *ref* is in the store; or that refused it, as the job is another attempt's by now.

        Called only where `Capabilities.survives_worker_restart`. Until then what is known there of a body that
        returned is kept: should this process die before, the next attempt finds it by `reattach`. What ended last is
        recorded after `stop`.
        """

    async def all_settled(self) -> None:
        """The app that has stopped this executor records nothing more; `settled` will not be called any more.

        Another app may have started it since.
        """
