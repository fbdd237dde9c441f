"""Bodies that a cluster's worker process hands on to processes of its own, where they can be interrupted and killed.

For clusters that run bodies in threads, where nobody can end them. A request
comes as bytes and goes on as bytes; so does its answer. Each app that is asked
for gets a pool of processes, and so does one that was started anew: it may have
other code. A pool ends with its last body once its clients have left, else when
it has had nothing to do for a while: what an app has left behind holds no
memory of a cluster.

When the worker process ends, however that happens, the bodies end with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, Final

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import BodyDied, ExecutorFull
from quarterjack.model import Outcome, OutcomeKind

from ._remote import Answer, Relayed, Request
from .base import AppRef, Executor, Handle, Home
from .process import ProcessExecutor

__all__ = ["Refusal", "Relay", "Tell"]

IDLE_S: Final = 60.0
"""A pool without a body goes after so long."""
MOST: Final = 1000
"""The cluster says how many bodies run at once; a pool has as many processes as there are bodies, and one idle."""
STOP_S: Final = 0.5
"""How long bodies are waited for that were interrupted because their pool ends."""

Tell = Callable[[str, Any], None]
"""Passes on what a body says, and what kind of news that is: ``began``, ``progress``, ``keep``."""
Refusal = Callable[[], Awaitable[bytes | None]]
"""Returns why a body must not begin, as an answer; None lets it."""


class Relay:
    """The pools of one process of a cluster. Belongs to its loop.

    Args:
        preload: What apps on such a cluster import, and what takes long: it is imported once for each app.
    """

    def __init__(self, preload: Sequence[str] = ()) -> None:
        self._preload = preload
        self._pools: dict[AppRef, _Pool] = {}
        self._bodies: dict[str, _Body] = {}
        self._is_over = False

    async def run(
        self, app: AppRef, client: str, request: bytes, tell: Tell, refusal: Refusal, cancel_grace_s: float
    ) -> bytes:
        """Run the body that a request names, and return its answer; cancelled, interrupt it first.

        Args:
            app: Whose body it is.
            client: Who wants it; `on_left` tells that he wants nothing more.
            request: As `request_of` made it.
            tell: Hears what the body says.
            refusal: Asked before it begins; what it returns is the answer, and None lets the body begin.
            cancel_grace_s: How long after it was interrupted the body is killed.
        """
        call = _Onward(Request.read(request), cancel_grace_s)
        body = self._bodies[call.ref] = _Body()
        try:
            refused = await refusal()
            if refused is not None:
                return refused
            async with self._pool(app, client) as executor:
                if self._is_over:
                    return Answer.died(None, "its worker process ends")
                return await body.run(executor, call, _Said(tell))
        finally:
            del self._bodies[call.ref]

    def stop(self, ref: str, reason: str) -> None:
        """Interrupt a body, and kill it after its grace."""
        if ref in self._bodies:
            self._bodies[ref].stop(reason)

    def on_left(self, client: str) -> None:
        """A client has left: the pools that nobody else has asked for end with their last body."""
        for pool in tuple(self._pools.values()):
            pool.on_left(client)

    def _pool(self, app: AppRef, client: str) -> _Pool:
        if app not in self._pools:
            self._pools[app] = _Pool(app, self._preload, self._on_pool_over)
        self._pools[app].clients.add(client)
        return self._pools[app]

    def _on_pool_over(self, pool: _Pool) -> None:
        if self._pools.get(pool.app) is pool:  # else the next one stands there already
            del self._pools[pool.app]

    async def close(self) -> None:
        """End all bodies and their processes, and begin no more."""
        self._is_over = True
        pools, self._pools = self._pools, {}
        await asyncio.gather(*(pool.close() for pool in pools.values()))


class _Body:
    """A body that is about to begin, or runs."""

    def __init__(self) -> None:
        self._handle: Handle | None = None
        self._reason: str | None = None

    async def run(self, executor: Executor, call: _Onward, said: _Said) -> bytes:
        try:
            handle = self._handle = executor.submit(call, said)
        except ExecutorFull as error:  # as when a process cannot be started
            return Answer.died(None, str(error))
        if self._reason is not None:
            handle.cancel(self._reason)
        try:
            return _answer_of(await asyncio.shield(said.over))
        except asyncio.CancelledError:
            handle.cancel("its worker process ends")
            await asyncio.wait([said.over], timeout=call.cancel_grace_s + STOP_S)
            raise

    def stop(self, reason: str) -> None:
        self._reason = reason
        if self._handle is not None:
            self._handle.cancel(reason)


class _Pool:
    """The processes of one app; entered by each of its bodies.

    Args:
        app: How they find it.
        preload: What they have imported before.
        on_over: Called when they have ended, and no body has come meanwhile.
    """

    def __init__(self, app: AppRef, preload: Sequence[str], on_over: Callable[[_Pool], object]) -> None:
        self.app: Final = app
        self._executor = ProcessExecutor(MOST, preload=preload, name=f"relay of {app}")
        self._home = Home(SYSTEM_CLOCK, lambda: app)
        self._on_over = on_over
        self.clients: set[str] = set()
        """Who has asked for it, and not left."""
        self._users = 0
        self._is_open = False
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Executor:
        self._users += 1
        self._stay()
        try:
            async with self._turn:  # it may just be ending
                if not self._is_open:
                    await self._executor.start(self._home)
                    self._is_open = True
        except BaseException:
            self._leave()
            raise
        return self._executor

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._idle = asyncio.get_running_loop().call_later(IDLE_S if self.clients else 0, self._end)

    def on_left(self, client: str) -> None:
        """A client has left."""
        self.clients.discard(client)
        if not self.clients and self._idle is not None:
            self._stay()
            self._end()

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _end(self) -> None:
        self._idle = None
        self._ending = asyncio.get_running_loop().create_task(self.close(if_idle=True))

    async def close(self, *, if_idle: bool = False) -> None:
        """End the processes; *if_idle*: unless a body has come meanwhile."""
        self._stay()
        async with self._turn:
            if not (if_idle and self._users):
                self._is_open = False
                await self._executor.stop(STOP_S)
        if not self._users:
            self._on_over(self)


class _Said:
    """The report of a body that is run for somebody elsewhere."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.over: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._outcome: Outcome | None = None

    def accepted(self) -> None:
        """Nothing queues here."""

    def began(self, at_mono_ns: int | None = None) -> None:
        del at_mono_ns
        self._tell("began", None)

    def progress(self, done: float, total: float | None, text: str) -> None:
        self._tell("progress", [done, total, text])

    def keep(self, value: Any) -> None:
        self._tell("keep", value)

    def done(self, result: Any) -> None:
        self.finished(Outcome(OutcomeKind.DONE, result))

    def finished(self, outcome: Outcome, at_mono_ns: int | None = None) -> None:
        del at_mono_ns
        self._outcome = outcome
        if outcome.stopped:
            self.ended()

    def ended(self) -> None:
        if not self.over.done():
            self.over.set_result(self._outcome)  # type: ignore[arg-type]  # there is one by now


class _Onward(Relayed):
    """A call that came as bytes and goes on as such."""

    fn: Any = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    is_coroutine = False
    timeout_s: float | None = None  # who sent it counts

    def __init__(self, request: Request, cancel_grace_s: float) -> None:
        self._request = request
        self.ref, self.task = request.ref, request.task
        self.job_id = request.ref.rpartition(".")[0]
        self.deadline_ns, self.max_result_bytes = request.deadline_ns, request.max_result_bytes
        self.cancel_grace_s = cancel_grace_s
        self.context = Context()

    def payload(self) -> bytes:
        return self._request.arguments

    def meta(self) -> dict[str, Any]:
        return dict(self._request.meta)

    def read_result(self, data: bytes) -> Any:
        return data


def _answer_of(outcome: Outcome) -> bytes:
    """Return an outcome as an answer; what a child has answered is one already."""
    error = outcome.error
    if outcome.kind is OutcomeKind.DONE:
        answer: bytes = outcome.result
        return answer
    if isinstance(error, BodyDied):
        return Answer.died(error.code, error.hint)
    if outcome.kind in _IN_WORDS:
        return _IN_WORDS[outcome.kind](outcome.reason or "")
    if error is not None:  # its request could not be written to a file, or read
        return Answer.raised(error, pickles=False)
    trace = "" if outcome.info is None else outcome.info.traceback_text
    return Answer.rejected(outcome.reason or "", trace=trace)


_IN_WORDS: Final[Mapping[OutcomeKind, Callable[[str], bytes]]] = {
    OutcomeKind.CANCELLED: Answer.cancelled,
    OutcomeKind.MISSED: Answer.missed,
    OutcomeKind.ORPHANED: Answer.orphaned,
}
