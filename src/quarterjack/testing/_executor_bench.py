"""What the executors' contract stands on: calls of its bodies, and a listener that is strict."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any, Final, Literal

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.codec import encode_call, result_codec
from quarterjack.context import CURRENT
from quarterjack.executors import AppRef, Executor, Handle, Home
from quarterjack.executors.elsewhere import meta_of
from quarterjack.model import NO_KWARGS, JobRecord, Outcome, OutcomeKind

from . import _contract_bodies

__all__ = ["ENOUGH_S", "BodyKind", "ExecutorBench", "TestCall", "Track", "notes_in", "until"]

BodyKind = Literal["plain", "coroutine"]
ENOUGH_S: Final = 30.0
"""Nothing that goes right takes this long."""
_numbers = itertools.count(1)


async def until(is_so: Callable[[], bool], within_s: float | None = None) -> None:
    """Wait until something is so; by default as long as for all else."""
    async with asyncio.timeout(ENOUGH_S if within_s is None else within_s):
        while not is_so():  # noqa: ASYNC110  # what it waits for may happen in another process
            await asyncio.sleep(0.002)


def notes_in(file: Path) -> list[str]:
    """Return what bodies noted there; a file that is there may still be empty."""
    return file.read_text(encoding="utf-8").split() if file.exists() else []


class Track:
    """A report that notes what it hears, and what is out of order."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.log: list[str] = []
        self.contexts: dict[str, Context] = {}
        """In which each report came last."""
        self.said: list[tuple[float, float | None, str]] = []
        self.broken: list[str] = []
        self.outcome: Outcome | None = None
        self._changed = asyncio.Event()

    def _note(self, what: str, *allowed_after: str) -> None:
        last = next((one for one in reversed(self.log) if one != "progress"), "submitted")
        if last not in allowed_after:
            self.broken.append(f"{what} after {last}")
        if threading.get_ident() != self.thread:
            self.broken.append(f"{what} in {threading.current_thread().name}")
        self.log.append(what)
        self.contexts[what] = copy_context()
        self._changed.set()

    def accepted(self) -> None:
        self._note("accepted", "submitted")

    def began(self, at_mono_ns: int | None = None) -> None:
        del at_mono_ns
        self._note("began", "submitted", "accepted")

    def progress(self, done: float, total: float | None, text: str) -> None:
        self._note("progress", "began", "accepted")
        self.said.append((done, total, text))

    def keep(self, value: Any) -> None:
        del value
        self._note("progress", "began", "accepted")

    def done(self, result: Any) -> None:
        self.finished(Outcome(OutcomeKind.DONE, result))

    def finished(self, outcome: Outcome, at_mono_ns: int | None = None) -> None:
        del at_mono_ns
        self._note("finished", "submitted", "accepted", "began")
        self.outcome = outcome

    def ended(self) -> None:
        self._note("ended", "finished")
        if self.outcome is None or self.outcome.stopped:
            self.broken.append("ended a body that had stopped")

    async def heard(self, what: str) -> None:
        """Wait until it is told."""
        async with asyncio.timeout(ENOUGH_S):
            while what not in self.log:
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> Outcome:
        """Wait for the outcome."""
        await self.heard("finished")
        assert self.outcome is not None
        return self.outcome

    def check(self) -> None:
        """Fail unless everything so far kept to the contract."""
        assert not self.broken
        assert self.log.count("finished") == 1


class TestCall:
    """One attempt at a body of the contract's app."""

    __test__ = False  # no test of pytest's

    def __init__(self, task: str, args: Sequence[Any], limits: Mapping[str, float | None], track: Track) -> None:
        self.definition, self.fn, self.is_coroutine = _contract_bodies.app.bodies()[task]
        self.task = task
        self.args = tuple(args)
        self.kwargs = NO_KWARGS
        self.record = JobRecord(f"contract-{next(_numbers)}", task, self.args, {}, self.definition.options)
        self.job_id = self.record.id
        self.number = self.record.attempt = 1
        self.ref = f"{self.job_id}.1"
        self.timeout_s = limits.get("timeout_s")
        self.cancel_grace_s = limits.get("cancel_grace_s") or ENOUGH_S
        self.deadline_ns: int | None = None
        self.max_result_bytes: int | None = None
        self._track = track
        self._loop = asyncio.get_running_loop()
        self.context = Context()
        self.context.run(CURRENT.set, self)  # type: ignore[arg-type]  # as much of a running attempt as bodies ask for

    def payload(self) -> bytes:
        return encode_call(self.definition, self.args, self.kwargs)

    def meta(self) -> dict[str, Any]:
        return meta_of(self.record, 1)

    def read_result(self, data: bytes) -> Any:
        return result_codec(self.definition).read(data)

    def tell(self, done: float, total: float | None, text: str) -> None:
        """A body of this process says how far it is."""
        if threading.get_ident() == self._track.thread:
            self._track.progress(done, total, text)
        else:
            self._loop.call_soon_threadsafe(self._track.progress, done, total, text)


class ExecutorBench:
    """An executor under test, and short ways to ask it.

    Args:
        make: Returns an executor with so many slots.
        kind: The bodies it is made for: a loop's plain functions would hold up the test.
        folder: Where bodies leave their notes.
    """

    def __init__(self, make: Callable[[int], Executor], kind: BodyKind, folder: Path) -> None:
        self.make = make
        self.kind: BodyKind = kind
        self.folder = folder

    @asynccontextmanager
    async def started(self, slots: int) -> AsyncGenerator[Executor, None]:
        """Start an executor, and stop it."""
        executor = self.make(slots)
        await executor.start(self.home())
        try:
            yield executor
        finally:
            await executor.stop(ENOUGH_S)

    @staticmethod
    def home() -> Home:
        """Return the contract's app, as its executors see it."""
        return Home(SYSTEM_CLOCK, lambda: AppRef(_contract_bodies.__name__, None, "app"))

    def name(self, task: str, kind: BodyKind | None = None) -> str:
        """Return which of the two bodies of this name is meant."""
        return task if (kind or self.kind) == "plain" else f"{task}_later"

    def begin(
        self, executor: Executor, task: str, *args: Any, kind: BodyKind | None = None, **limits: float | None
    ) -> tuple[Handle, Track]:
        """Submit a body."""
        track = Track()
        return executor.submit(TestCall(self.name(task, kind), args, limits, track), track), track

    async def begun(
        self, executor: Executor, task: str, file: str = "a", cancel_grace_s: float | None = None
    ) -> tuple[Handle, Track]:
        """Submit a body that waits for the file ``go``, and see it run: its executor tells of it a step before that."""
        handle, track = self.begin(executor, task, self.file(file), self.file("go"), cancel_grace_s=cancel_grace_s)
        await until(lambda: bool(self.notes(file)))
        return handle, track

    async def run(self, executor: Executor, task: str, *args: Any, **limits: Any) -> Outcome:
        """Run a body to its end."""
        _, track = self.begin(executor, task, *args, **limits)
        outcome = await track.end()
        track.check()
        return outcome

    def file(self, name: str) -> str:
        """Return the path of a file of notes."""
        return str(self.folder / name)

    def notes(self, name: str) -> list[str]:
        """Return what bodies noted."""
        return notes_in(self.folder / name)

    def let_go(self, name: str) -> None:
        """Let the bodies end that wait for this file."""
        (self.folder / name).touch()
