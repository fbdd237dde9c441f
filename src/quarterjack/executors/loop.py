"""Bodies as asyncio tasks on the app's own loop: the default for coroutine functions.

One asyncio task per call, in a context of its own: user code expects
``asyncio.current_task()``, cancellation and context variables to be its job's
alone. (Worker tasks that take many jobs are half as dear and wrong: a late
cancel of one job hits the next.)

A call that is cancelled before its first step is withdrawn: `_Running.cancel`
does so itself, and a cancel of the task by somebody else is looked for (`_fresh`)."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from quarterjack._fast import EAGER_TASKS
from quarterjack.errors import ExecutorClosed, ExecutorFull
from quarterjack.model import Outcome, OutcomeKind

from ._fresh import UNBEGUN, Fresh
from .base import Call, Capabilities, Executor, Home, Report

__all__ = ["LoopExecutor"]

_DONE, _RAISED = OutcomeKind.DONE, OutcomeKind.RAISED
_CANCELLED, _TIMED_OUT = OutcomeKind.CANCELLED, OutcomeKind.TIMED_OUT
OVERRUN_S: Final = 0.05
"""A body that is so much over its timeout and was not stopped has blocked the loop; less is chance."""


class LoopExecutor(Executor):
    """Runs up to *slots* coroutines at once on the app's loop."""

    name = "loop"
    capabilities: ClassVar[Capabilities] = Capabilities(
        can_cancel_queued=True,
        can_interrupt=True,
        can_kill=False,
        can_report_start=True,
        can_report_progress=True,
        survives_worker_restart=False,
        submit_is_idempotent=False,
        runs_coroutines=True,
    )

    def __init__(self, slots: int = 100) -> None:
        self.slots = slots
        self._running: set[_Running] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = asyncio.Event()
        self._stopping = False
        self._held = False
        self._factory = False

    async def start(self, home: Home) -> None:
        """Bind to the running loop."""
        del home
        self.bind(asyncio.get_running_loop())

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run bodies on *loop* from now on; it need not run yet."""
        self._loop = loop
        self._idle, self._stopping, self._held = asyncio.Event(), False, False
        # A loop with a task factory of its own decides how tasks are made and begun.
        self._factory = loop.get_task_factory() is not None
        self._fresh = Fresh(loop, _unbegun, _Running.on_unbegun)

    @property
    def free(self) -> int:
        """Slots that no body holds."""
        return self.slots + self.lent - len(self._running)

    def submit(self, call: Call, report: Report) -> _Running:
        """Start the body as a task."""
        loop = self._loop
        if loop is None:
            raise ExecutorClosed("the loop executor is not started, or was stopped")
        if len(self._running) >= self.slots + self.lent:
            raise ExecutorFull(f"all {self.slots} slots of the loop executor are taken")
        running = _Running(self, call, report)
        self._running.add(running)
        if self._factory:
            running.task = loop.create_task(running.drive(), name=call.job_id, context=call.context)
            self._fresh.add(running)
        elif EAGER_TASKS:
            coroutine = running.drive()
            running.task = asyncio.Task(coroutine, loop=loop, name=call.job_id, context=call.context, eager_start=True)  # type: ignore[call-arg,unused-ignore]
        else:  # as create_task does, less its Python frame
            running.task = asyncio.Task(running.drive(), loop=loop, name=call.job_id, context=call.context)
            self._fresh.add(running)
        return running

    def hold(self) -> None:
        """Begin no body from now on; what is submitted and has not begun is withdrawn when its turn comes."""
        self._held = True

    async def stop(self, grace_s: float) -> None:
        """Cancel every body and wait for them up to *grace_s* seconds."""
        self._stopping = True
        for running in tuple(self._running):
            running.cancel("shutdown")
        if self._running:
            try:
                async with asyncio.timeout(grace_s):
                    await self._idle.wait()
            except TimeoutError:
                for running in tuple(self._running):
                    running.give_up()
        self._loop = None


class _Running:
    """One body at work; the handle the runtime holds."""

    __slots__ = ("_cancel_kind", "_executor", "_reason", "_reported", "_timer", "begun", "call", "report", "task")

    def __init__(self, executor: LoopExecutor, call: Call, report: Report) -> None:
        self._executor = executor
        self.call = call
        self.report = report
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        self._cancel_kind: OutcomeKind | None = None
        self._reason = ""
        self._reported = False
        self._timer: asyncio.TimerHandle | None = None

    async def drive(self) -> None:
        """Run the body and report how it ended."""
        call, report = self.call, self.report
        self.begun = True
        if self._executor._held:
            self._report(Outcome(_CANCELLED, reason="shutdown"))
            return
        report.began()
        if call.timeout_s is not None:
            self._timer = asyncio.get_running_loop().call_later(call.timeout_s, self._time_out)
        try:
            result = call.fn(*call.args, **call.kwargs)
            if call.is_coroutine:
                result = await result
        except asyncio.CancelledError as error:
            self._report(self._interrupted(error))
        except BaseException as error:  # the user's code runs here, and whatever it raises is its job's outcome;
            # KeyboardInterrupt and SystemExit too: the runtime then ends the app in an orderly way
            if isinstance(error, GeneratorExit) and self.task is not None and self.task.get_loop().is_closed():
                raise  # the loop was closed under the body: nobody is there to hear of it
            self._report(self._raised(error))
        else:
            executor = self._executor
            if self._timer is not None or self._reported or executor._stopping:
                self._report(Outcome(_DONE, result, reason=self._overrun()))
            else:  # most jobs; the long way costs them two frames and a tuple
                executor._running.discard(self)
                self._reported = True
                report.done(result)

    def _overrun(self) -> str | None:
        """Say by how much a body that has returned had passed its timeout: one that blocks the loop is not stopped."""
        timeout_s, timer = self.call.timeout_s, self._timer
        if timeout_s is None or timer is None or self._cancel_kind is not None:
            return None
        over_s = asyncio.get_running_loop().time() - timer.when()
        if over_s < OVERRUN_S:
            return None
        return f"ran {timeout_s + over_s:.3g} s, over its timeout of {timeout_s:g} s: it blocks the event loop"

    def _interrupted(self, error: asyncio.CancelledError) -> Outcome:
        if self._cancel_kind is _TIMED_OUT:
            return Outcome(_TIMED_OUT, error=error, reason=self._reason)
        return Outcome(_CANCELLED, reason=self._reason or "the body raised CancelledError")

    def _raised(self, error: BaseException) -> Outcome:
        # A body that turns our CancelledError into an exception of its own was stopped all the same.
        if self._cancel_kind is _TIMED_OUT:
            return Outcome(_TIMED_OUT, error=error, reason=self._reason)
        return Outcome(_RAISED, error=error)

    def _report(self, outcome: Outcome) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        executor = self._executor
        executor._running.discard(self)  # one module
        if executor._stopping and not executor._running:
            executor._idle.set()
        if self._reported:
            self.report.ended()
            return
        self._reported = True
        self.report.finished(outcome)

    def cancel(self, reason: str) -> None:
        """Interrupt the body, or withdraw it if it has not begun."""
        self._stop(_CANCELLED, reason)

    def _time_out(self) -> None:
        self._timer = None
        self._stop(_TIMED_OUT, f"ran longer than its timeout of {self.call.timeout_s:g} s")

    def _stop(self, kind: OutcomeKind, reason: str) -> None:
        if self._cancel_kind is not None or self._reported or self.task is None or self.task.done():
            return
        self._cancel_kind = kind
        self._reason = reason
        self.task.cancel(reason)
        if not self.begun:
            self._report(Outcome(_CANCELLED, reason=reason))
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = self.task.get_loop()
        self._timer = loop.call_later(self.call.cancel_grace_s, self.give_up)

    def on_unbegun(self) -> None:
        """Nothing of it has run: it was withdrawn, or somebody else has cancelled its task."""
        if not self._reported and self.task is not None and self.task.done():
            self._report(Outcome(_CANCELLED, reason=UNBEGUN))

    def give_up(self) -> None:
        """Report a body that ignores its cancellation; it keeps its slot until it really ends."""
        if self._reported:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        kind = self._cancel_kind or _CANCELLED
        self._reported = True
        self.report.finished(Outcome(kind, reason=self._reason, stopped=False))


def _unbegun(calls: list[_Running]) -> list[_Running]:
    return [call for call in calls if not call.begun]
