"""What the executors' tests share: calls, a strict listener, and every place on every loop."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any

import pytest
import uvloop

from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.executors import Executor, Home, LoopExecutor, LoopThread, ThreadExecutor
from quarterjack.model import Outcome, OutcomeKind

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
PLACES: dict[str, Callable[[int], Executor]] = {
    "loop": LoopExecutor,
    "thread": ThreadExecutor,
    "loop_thread": lambda slots: LoopThread("test", slots=slots),
    "loop_thread_uvloop": lambda slots: LoopThread("test", slots=slots, loop_factory=uvloop.new_event_loop),
}
LONG_S = 30.0
"""Nothing that goes right takes this long."""


def on_each_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a coroutine test once per kind of event loop, on a loop of its own."""

    @functools.wraps(test)
    def run(loop: str, **given: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(asyncio.wait_for(test(**given), LONG_S))

    own = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([own, *inspect.signature(test).parameters.values()])
    vars(run)["__signature__"] = signature  # what pytest reads
    del run.__wrapped__  # or pytest would read the coroutine's
    marked: Callable[..., None] = pytest.mark.parametrize("loop", LOOPS)(run)
    return marked


in_each_place = pytest.mark.parametrize("place", PLACES)


class FakeCall:
    """One attempt with a body of the test's."""

    _numbers = itertools.count(1)

    def __init__(
        self,
        fn: Callable[..., Any],
        *args: Any,
        timeout_s: float | None = None,
        cancel_grace_s: float = LONG_S,
        context: Context | None = None,
    ) -> None:
        self.job_id = f"job-{next(self._numbers)}"
        self.ref = f"{self.job_id}.1"
        self.fn = fn
        self.args = args
        self.kwargs: Mapping[str, Any] = {}
        self.is_coroutine = inspect.iscoroutinefunction(fn)
        self.context = Context() if context is None else context
        self.timeout_s = timeout_s
        self.cancel_grace_s = cancel_grace_s
        self.task = "test"
        self.deadline_ns: int | None = None
        self.max_result_bytes: int | None = None

    def payload(self) -> bytes:
        raise NotImplementedError  # nothing travels in this process

    def meta(self) -> dict[str, Any]:
        raise NotImplementedError

    def read_result(self, data: bytes) -> Any:
        raise NotImplementedError


class Listener:
    """A report that fails the test when the contract's order, number or thread is broken."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self.log: list[str] = []
        self.began_at_ns: int | None = None
        self.outcome: Outcome | None = None
        self.has_begun = asyncio.Event()
        self.has_finished = asyncio.Event()
        self.has_ended = asyncio.Event()
        self.broken: list[str] = []

    def _note(self, what: str, *allowed_after: str) -> None:
        last = self.log[-1] if self.log else "submitted"
        if last not in allowed_after:
            self.broken.append(f"{what} after {last}")
        if threading.get_ident() != self._thread:
            self.broken.append(f"{what} in {threading.current_thread().name}")
        self.log.append(what)

    def accepted(self) -> None:
        self.broken.append("accepted")

    def began(self, at_mono_ns: int | None = None) -> None:
        self.began_at_ns = at_mono_ns
        self._note("began", "submitted")
        self.has_begun.set()

    def progress(self, done: float, total: float | None, text: str) -> None:
        self._note("progress", "began")

    def keep(self, value: object) -> None:
        self.broken.append("keep")

    def done(self, result: object) -> None:
        self.finished(Outcome(OutcomeKind.DONE, result))

    def finished(self, outcome: Outcome, at_mono_ns: int | None = None) -> None:
        self.outcome = outcome
        self._note("finished", "submitted", "began")
        self.has_finished.set()

    def ended(self) -> None:
        if self.outcome is None or self.outcome.stopped:
            self.broken.append("ended a stopped body")
        self._note("ended", "finished")
        self.has_ended.set()

    async def end(self) -> Outcome:
        """Wait for the outcome."""
        await self.has_finished.wait()
        assert self.outcome is not None
        return self.outcome

    def check(self) -> None:
        """Fail unless everything reported so far kept to the contract."""
        assert not self.broken
        assert self.log.count("finished") == 1


@asynccontextmanager
async def started(executor: Executor, clock: Clock = SYSTEM_CLOCK) -> AsyncGenerator[Executor, None]:
    """Start an executor, and stop it with enough time for every body."""
    await executor.start(Home(clock))
    try:
        yield executor
    finally:
        await executor.stop(LONG_S)


async def outcome_of(executor: Executor, fn: Callable[..., Any], *args: Any, **options: Any) -> Outcome:
    """Run one body to its end."""
    listener = Listener()
    executor.submit(FakeCall(fn, *args, **options), listener)
    outcome = await listener.end()
    listener.check()
    return outcome


async def all_free(executor: Executor) -> None:
    """Wait until every slot has come back; the last letters may still be on their way."""
    while executor.free < executor.slots:
        await asyncio.sleep(0)
