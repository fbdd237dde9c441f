"""The app's life: start, serve, stop.

Start, in order: store and executors, lifespan, start-up hooks, work. Stop is
the reverse: take, fire and claim no more, wait for what runs, cancel the rest,
shutdown hooks, lifespan, store. Whatever fails on the way, what was entered is
left, in one task, so that lifespans may hold task groups."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

from ._app_base import AppBase
from ._durations import NS_PER_S
from .errors import StartupFailed, UsageError, WrongLoop
from .executors import Home
from .executors._loading import hold_if_loading
from .runtime.health import Health
from .runtime.hooks import run_shutdown, run_startup
from .runtime.service import Service
from .runtime.signals import Signals
from .runtime.watchdog import Watchdog
from .task import TaskDefinition

__all__ = ["AppLife", "starts_refused"]

log = logging.getLogger("quarterjack")

LAST_GRACE_S: Final = 5.0
"""How long bodies that were cancelled at shutdown may take to end."""
HURRIED_GRACE_S: Final = 0.5
"""The same after a second signal, which means now."""

_refusals: Final[list[None]] = []
"""One for each open block of `starts_refused`."""


@contextlib.contextmanager
def starts_refused() -> Iterator[None]:
    """Refuse to start any app while the block is open, in every thread: a module is imported only to be looked at."""
    _refusals.append(None)
    try:
        yield
    finally:
        _refusals.pop()


class AppLife(AppBase):
    """Start and stop, in all their forms."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stack: AsyncExitStack | None = None
        self._host: asyncio.Task[Any] | None = None
        self._fatal: BaseException | None = None
        self._stop: asyncio.Event | None = None
        self._grace_s: float = self.shutdown_grace_s
        self._stop_asked_ns: int | None = None
        """When the stop was asked for: the grace counts from then, also where the loop hears of it later."""
        self._shutdown_errors: list[Exception] = []
        self._started_lock = threading.Lock()
        self._is_ending = False
        self.signals_came: list[signal.Signals] = []
        """The signals that the present `serve`, or the last one, has had; written between any two steps."""

    # -- start -----------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start the app on the running loop; jobs run until the block is left, which drains.

        Raises:
            StartupFailed: If the lifespan or a start-up hook raised; everything is undone.
            WrongLoop: If the app runs on another loop already.
            UsageError: If it runs already, or is started by a module that ``qj`` imports.
            DuplicateName: If two tasks or schedules share a name.
        """
        self._take_loop()
        try:
            self._host = asyncio.current_task()
            await self._start()
        except BaseException:
            self._loop = self._host = None
            raise
        return self

    def _take_loop(self) -> None:
        hold_if_loading()
        if _refusals:
            raise UsageError(
                "this app is started while its module is imported; put what starts it under "
                '`if __name__ == "__main__":`'
            )
        loop = asyncio.get_running_loop()
        with self._started_lock:
            if self._loop is not None and self._loop is not loop and not self._loop.is_closed():
                raise WrongLoop(
                    "this app runs on another event loop already; make one app per loop, "
                    "or submit to it from here with `await app.submit(…)`"
                )
            if self._loop is not None and not self._loop.is_closed():
                raise UsageError("this app is started already; enter it once, and submit from anywhere")
            self._loop = loop

    async def _start(self) -> None:
        declared = self._collect()
        preparer = self._preparer()
        self._fatal, self._shutdown_errors, self._grace_s = None, [], self.shutdown_grace_s
        self._stop, self._stop_asked_ns = asyncio.Event(), None
        async with AsyncExitStack() as stack:
            service = Service(
                store=self.store,
                clock=self.clock,
                events=self.event_stream,
                tasks=declared.tasks,
                preparer=preparer,
                role=self.role,
                queues=self.queues,
                concurrency=self.concurrency,
                version=self.version,
                lease_s=self.lease_s,
                on_fatal=self._on_fatal,
                on_stop=self.stop,
                retention=self.retention,
                declared=declared.schedules,
                streams=declared.streams,
                check_call=self._checked,
                flow_by_queue=self._flow_by_queue,
                encoding=self._encoding(declared.tasks),
                home=Home(self.clock, self.ref),
            )
            if self.switch_interval_s is not None:
                stack.callback(sys.setswitchinterval, sys.getswitchinterval())
                sys.setswitchinterval(self.switch_interval_s)
            stack.push_async_callback(self._close, service)
            await service.open()
            self._service = service
            await self._enter_lifespan(stack)
            if self.role != "client":
                stack.push_async_callback(self._run_shutdown_hooks, service, declared.shutdown)
                await self._run_startup_hooks(declared.startup)
            await service.start()
            if self.role != "client":
                for doubt in self._queue_doubts():
                    log.warning(doubt)
            stack.push_async_callback(self._end_work, service)
            self._start_watchdog(stack, service)
            self._stack = stack.pop_all()

    async def _enter_lifespan(self, stack: AsyncExitStack) -> None:
        if self._lifespan is None:
            return
        try:
            manager: Any = self._lifespan(self)
            if hasattr(manager, "__aenter__"):
                await stack.enter_async_context(manager)
            elif hasattr(manager, "__enter__"):
                stack.enter_context(manager)
            else:
                if inspect.iscoroutine(manager):
                    manager.close()  # or Python warns of it, beside the point
                raise TypeError(
                    f"lifespan must return a context manager, got {manager!r}; "
                    "put @asynccontextmanager or @contextmanager above it"
                )
        except Exception as error:
            raise StartupFailed(f"the lifespan raised {type(error).__name__}: {error}") from error

    async def _run_startup_hooks(self, hooks: list[TaskDefinition]) -> None:
        try:
            await run_startup(hooks, self._preparer())
        except Exception as error:
            raise StartupFailed(f"a start-up hook raised {type(error).__name__}: {error}") from error

    def _start_watchdog(self, stack: AsyncExitStack, service: Service) -> None:
        threshold = self.watchdog_s
        if threshold is None and service.loop.get_debug():
            threshold = service.loop.slow_callback_duration
        if threshold is not None:
            watchdog = Watchdog.start_for(service, threshold)
            stack.callback(watchdog.stop)

    # -- stop ------------------------------------------------------------------------

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Drain and stop; raises what ended the app if a body raised KeyboardInterrupt or SystemExit."""
        cancelled_by_us = self._fatal is not None and isinstance(error, asyncio.CancelledError)
        if cancelled_by_us and self._host is not None:
            self._host.uncancel()
        await self._shut_down()
        if self._fatal is not None and (error is None or cancelled_by_us):
            raise self._fatal

    async def _shut_down(self) -> None:
        stack, self._stack = self._stack, None
        self._is_ending = True
        try:
            if stack is not None:
                await stack.aclose()
        finally:
            self._is_ending = False
            self._loop = self._host = None

    async def _end_work(self, service: Service) -> None:
        try:
            left = await service.drain(self._grace_left_s())
            if left and service.is_hurried:
                log.warning("asked to stop now, so what runs is cancelled: %s", left)
            elif left:
                log.warning("after shutdown_grace=%g s what still runs is cancelled: %s", self._grace_s, left)
        except asyncio.CancelledError:  # whoever runs us has no patience; the work is ended all the same
            service.hurry()
            raise
        finally:
            await service.end_work(HURRIED_GRACE_S if service.is_hurried else LAST_GRACE_S)

    def _grace_left_s(self) -> float:
        asked = self._stop_asked_ns
        spent_s = 0.0 if asked is None else (self.clock.monotonic_ns() - asked) / NS_PER_S
        return max(0.0, self._grace_s - spent_s)

    def _stop_beginning(self) -> None:
        """Begin no body from now on; may be called between any two steps of the loop's thread."""
        if self._stop_asked_ns is None:
            self._stop_asked_ns = self.clock.monotonic_ns()
        if self._service is not None:
            self._service.stop_beginning()

    async def _run_shutdown_hooks(self, service: Service, hooks: list[TaskDefinition]) -> None:
        self._shutdown_errors += await run_shutdown(hooks, self._preparer(), service.hurried)

    async def _close(self, service: Service) -> None:
        self._service = None
        await service.close()

    def stop(self) -> None:
        """Ask a serving app to drain and stop; from its own loop. A second call means now."""
        if self._stop is None:
            return
        if self._stop_asked_ns is None:
            self._stop_asked_ns = self.clock.monotonic_ns()
        if self._stop.is_set():
            self._grace_s = 0.0
            if self._service is not None:
                self._service.hurry()
        self._stop.set()

    def _on_fatal(self, error: BaseException) -> None:
        """End the app: a body raised KeyboardInterrupt or SystemExit, or a part of the runtime broke."""
        if self._fatal is not None:
            return
        self._fatal = error
        if isinstance(error, Exception):
            log.critical("the runtime broke; the app stops", exc_info=error)
        if self._is_ending:  # it ends already; a host that is cancelled now would leave the end half-done
            if isinstance(error, KeyboardInterrupt) and self._service is not None:
                self._service.hurry()
        elif self._stop is not None and self._serving:
            self._stop.set()
        elif self._host is not None:
            self._host.cancel()

    # -- serve -----------------------------------------------------------------------

    _serving = False
    tells_signals = True
    """Whether `serve` logs the signals it gets; not where who sends them does (``qj run --reload``)."""

    @property
    def is_serving(self) -> bool:
        """True while `serve` fires and claims: from the end of the start until it is asked to stop."""
        return self._serving and not self._is_stopping()

    async def serve(self, *, on_started: Callable[[], object] | None = None) -> tuple[signal.Signals, ...]:
        """Run until SIGINT or SIGTERM, then drain; a second signal means now.

        A signal in the middle of the start undoes what was started. A signal
        that the process was told to ignore stays ignored, as for ``nohup``.

        Args:
            on_started: Called on the loop once the start is complete.

        Returns:
            The signals that came, in order; none if `stop` ended it.

        Raises:
            StartupFailed: If the lifespan or a start-up hook raised.
            ExceptionGroup: If shutdown hooks raised; all of them ran.
            BaseException: What a body raised to end the app (KeyboardInterrupt, SystemExit).
        """
        host = asyncio.current_task()
        starting, cancels, told = True, 0, False
        came = self.signals_came = []

        def arrived(number: signal.Signals) -> None:
            came.append(number)
            if not starting:
                self._stop_beginning()

        def tell(number: signal.Signals) -> None:
            nonlocal told
            if starting or not self.tells_signals:
                return
            if self._is_stopping() or told:
                log.warning("%s again: stopping now", number.name)
            else:
                log.warning("%s: draining for up to %g s; once more stops now", number.name, self._grace_s)
            told = True

        def on_signal(_: signal.Signals) -> None:
            nonlocal cancels
            if starting and host is not None:
                cancels += 1
                host.cancel()
                return
            self.stop()

        # Who tells of the signals sends them as well, each on purpose.
        with Signals(on_signal, arrived=arrived, tell=tell, counts_all=not self.tells_signals):
            try:
                await self.__aenter__()
            except asyncio.CancelledError:
                left = [host.uncancel() for _ in range(cancels)] if host is not None else []
                if not left or left[-1] > 0:  # somebody else cancelled us, or did so too
                    raise
                log.info("interrupted during the start; everything is undone")
                return tuple(came)
            starting = False
            await self._serve_until_stopped(on_started)
        self._raise_what_ended_it()
        return tuple(came)

    def _is_stopping(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    async def _serve_until_stopped(self, on_started: Callable[[], object] | None) -> None:
        self._serving = True
        try:
            if on_started is not None:
                on_started()
            if self._stop is not None:
                await self._stop.wait()
        finally:
            self._serving = False
            await self._shut_down()

    def _raise_what_ended_it(self) -> None:
        if self._fatal is not None:
            raise self._fatal
        if self._shutdown_errors:
            raise ExceptionGroup("shutdown hooks raised", self._shutdown_errors)

    def health(self) -> Health:
        """Say whether the app gets on with its work, for a readiness probe. From any thread.

        Raises:
            NotRunning: If the app is not running.
        """
        return self._running().health()
