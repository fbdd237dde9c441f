"""The app beside code of another kind: a client of its store, in a thread of its own, in a framework's lifespan."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from typing import Any, Self

from ._app_life import AppLife
from .context import CURRENT
from .errors import UsageError
from .executors.elsewhere import Elsewhere
from .runtime.service import Service

__all__ = ["AppBeside"]


class AppBeside(AppLife):
    """Life beside code without a loop, and inside other frameworks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._beside: ExitStack | None = None
        """Ends the client that `submit_sync` started; None if there is none."""
        self._beside_lock = threading.Lock()

    async def __aenter__(self) -> Self:
        """As `AppLife`; a client that `submit_sync` started ends before."""
        if self._beside is not None:
            await asyncio.to_thread(self._end_beside)
        return await super().__aenter__()

    def _service_beside(self) -> Service:
        """Return the service; where the app does not run and others share its store, that of a client in a thread.

        Raises:
            NotRunning: If the app does not run, and its store lives and dies with it, or a body asks for it that
                runs in another process.
        """
        is_elsewhere = isinstance(CURRENT.get(), Elsewhere)  # nobody would end a client that a body starts there
        if self._service is None and self.store.is_shared and not self._forked and not is_elsewhere:
            with self._beside_lock:
                if self._service is None:
                    stack = ExitStack()
                    stack.enter_context(self._in_thread(self.as_client()))
                    self._beside = stack
                    atexit.register(self._end_beside)
        return self._running()

    def _end_beside(self) -> None:
        with self._beside_lock:
            stack, self._beside = self._beside, None
            if stack is not None:
                atexit.unregister(self._end_beside)
                stack.close()

    @contextlib.asynccontextmanager
    async def as_client(self) -> AsyncIterator[Self]:
        """Start the app beside its store alone: to submit, to look and to act, not to fire or to run.

            async with app.as_client():
                await app.submit(report, 7)

        Neither the lifespan nor the hooks run. The processes that do the work share the store.

        Raises:
            UsageError: If the store lives in the process that runs the app, or the app runs already.
        """
        if not self.store.is_shared:
            raise UsageError(
                f"the {self.store.name} store lives in the process that runs the app, so nobody else can ask it; "
                "a file serves several: Quarterjack('sqlite:///jobs.db')"
            )
        role, lifespan = self.role, self._lifespan
        self.role, self._lifespan = "client", None
        try:
            async with self:
                yield self
        finally:
            self.role, self._lifespan = role, lifespan

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Run the app on an event loop in a thread of its own, for programs without one.

        ``with app.in_thread(): job = app.submit_sync(…)``. Leaving the block drains.

        Raises:
            StartupFailed: If the app cannot start.
        """
        with self._in_thread(self):
            yield self

    @contextlib.contextmanager
    def _in_thread(self, life: AbstractAsyncContextManager[Any]) -> Iterator[None]:
        started = threading.Event()
        failure: list[BaseException] = []
        ends: list[Callable[[], object]] = []
        """How to end this run, and no other that the app may have."""

        async def main() -> None:
            async with life:
                loop, stop = asyncio.get_running_loop(), self._stop
                if stop is not None:
                    ends.append(partial(loop.call_soon_threadsafe, stop.set))
                started.set()
                if stop is not None:
                    await stop.wait()

        def run() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:  # carried to the thread that waits for it
                failure.append(error)
            finally:
                started.set()

        thread = threading.Thread(target=run, name="quarterjack-app", daemon=True)
        thread.start()
        started.wait()
        try:
            if not failure:
                yield
        finally:
            for end in ends:
                with contextlib.suppress(RuntimeError):  # it ended by itself meanwhile
                    end()
            thread.join()
            if failure and sys.exc_info()[0] is None:
                raise failure[0]

    def as_lifespan(self) -> Any:
        """Return a lifespan for FastAPI, Starlette or Litestar: ``FastAPI(lifespan=app.as_lifespan())``."""

        @contextlib.asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            async with self:
                yield

        return lifespan
