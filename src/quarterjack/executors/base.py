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

The timeout of a call counts from ``began``, and the executor enforces it. A
cancel is asked once and answered by ``finished``: where a body can be
interrupted it is, and after ``cancel_grace_s`` the executor reports what it
knows, with ``stopped=False`` if the body still runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from quarterjack.clock import Clock
from quarterjack.model import Outcome, OutcomeKind

__all__ = ["Call", "Capabilities", "Executor", "Handle", "Report"]


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
    """One attempt, as an executor sees it. In-process executors use the live objects."""

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


class Report(Protocol):
    """What the runtime wants to hear. Every method is called on the app's loop, and none raises."""

    def accepted(self) -> None:
        """The call waits in a queue that is not ours."""

    def began(self, at_mono_ns: int | None = None) -> None:
        """The body begins now, or began at this monotonic instant of the app's clock."""

    def progress(self, done: float, total: float | None, text: str) -> None:
        """The body says how far it is."""

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


class Executor(ABC):
    """Runs bodies. Belongs to one app and one loop from `start` to `stop`."""

    name: str
    slots: int
    """How many bodies run at once."""
    capabilities: ClassVar[Capabilities]
    lent: int = 0
    """Slots whose bodies wait for other jobs; `free` counts them as free, so that children cannot deadlock."""

    @abstractmethod
    async def start(self, clock: Clock) -> None:
        """Get ready; called on the app's loop before the first `submit`."""

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

    def reattach(self, ref: str, report: Report) -> Handle | None:
        """Find a body that survived its worker; None where that cannot be."""
        del ref, report
        return None
