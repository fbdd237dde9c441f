"""`Quarterjack`: what users touch.

Registration is synchronous and may happen at import. Life is one of three:
``await app.serve()`` (until a signal), ``async with app`` (inside a program
with a loop of its own), ``with app.in_thread()`` (beside one that has none).
Every asynchronous method may be awaited from any event loop: what belongs to
the app's loop is carried there.

The class is put together from its parts: settings (`_app_base`), life
(`_app_life`, `_app_beside`), jobs (`_app_jobs`; inside users' transactions `_app_guests`), schedules
(`_app_schedules`), answers (`_app_why`), operators (`_app_operate`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from typing import Any, Unpack

from ._app_beside import AppBeside
from ._app_guests import AppGuests
from ._app_operate import AppOperate
from ._app_schedules import AppSchedules
from ._app_why import AppWhy
from ._durations import Seconds
from ._payload import MAX_ARGUMENT_BYTES, PayloadCodec
from .clock import Clock
from .group import GroupOptions
from .runtime.service import Role
from .stores import Store

__all__ = ["Quarterjack"]


class Quarterjack(AppBeside, AppGuests, AppSchedules, AppWhy, AppOperate):
    """An application: tasks, schedules, jobs, and where they live.

    Args:
        store: Where jobs and schedules live: ``"memory"`` (the default), a URL such as
            ``"sqlite:///jobs.db"``, ``"postgresql://…"`` or ``"redis://…"``, or a `Store`.
        lifespan: A context manager factory, asynchronous or plain, that takes
            the app: entered before the first job, left after the last.
        role: ``"both"`` fires and runs, ``"scheduler"`` only fires, ``"worker"``
            only runs, ``"client"`` only submits.
        queues: Queues to take jobs from; every queue its tasks and jobs name by default.
        concurrency: Coroutine jobs running at once. Where schedules send their runs, a
            tenth of the slots (at least one, if there are two) is kept for them.
        version: The application's version, such as ``"1.4.2"`` or ``"2026.11.21"``, for
            rolling deploys: of two that declare a schedule differently the newer one
            counts, whichever starts last. One without a version is older than any.
        shutdown_grace: Seconds that running jobs have to end at shutdown.
        watchdog: Report the loop as blocked after this many seconds; None is
            off, except in asyncio's debug mode.
        switch_interval: Seconds after which Python takes the interpreter from a thread that
            computes (`sys.setswitchinterval`), while the app runs; for the whole process. None
            leaves it as it is, at 5 ms; 0.0005 starts ticks sooner beside threads that compute.
        strict: Validate arguments and results and take them through JSON, as a
            durable store would, on memory too. The testing kit turns it on.
        codec: What arguments, results, errors, progress and checkpoints pass on their way
            into a store and out of it, such as encryption; see `PayloadCodec`. The
            memory store keeps live objects, and has no use for it.
        max_argument_bytes: How many bytes of JSON the arguments of one job may take
            (a store that outlives the process, and strict apps).
        lease: Seconds a worker's claim on a job lasts unless renewed, at least 2 (shared
            stores): a job whose worker died is taken up by another one so much later.
        retention: How long finished jobs are kept on a shared store: seconds, or a timedelta.
        keep_finished: How many finished jobs are kept at most, however young (a `MemoryStore`
            has a ``keep_finished`` of its own).
        clock: Where time is read; tests pass a virtual one.
        defaults: Options and policies for all tasks.

    Raises:
        InvalidOption: Naming the option, its value and what is allowed.
    """

    def __init__(
        self,
        store: Store | str = "memory",
        *,
        lifespan: Callable[[Any], AbstractAsyncContextManager[Any] | AbstractContextManager[Any]] | None = None,
        role: Role = "both",
        queues: Sequence[str] | None = None,
        concurrency: int = 100,
        version: str | None = None,
        shutdown_grace: Seconds = 30.0,
        watchdog: Seconds | None = None,
        switch_interval: Seconds | None = None,
        strict: bool = False,
        codec: PayloadCodec | None = None,
        max_argument_bytes: int = MAX_ARGUMENT_BYTES,
        lease: Seconds = 30.0,
        retention: Seconds = timedelta(days=7),
        keep_finished: int = 100_000,
        clock: Clock | None = None,
        **defaults: Unpack[GroupOptions],
    ) -> None:
        super().__init__(
            store,
            lifespan=lifespan,
            role=role,
            queues=queues,
            concurrency=concurrency,
            version=version,
            shutdown_grace=shutdown_grace,
            watchdog=watchdog,
            switch_interval=switch_interval,
            strict=strict,
            codec=codec,
            max_argument_bytes=max_argument_bytes,
            lease=lease,
            retention=retention,
            keep_finished=keep_finished,
            clock=clock,
            defaults=defaults,
        )

    def __repr__(self) -> str:
        state = "running" if self.is_running else "not running"
        return f"<Quarterjack {self.store.name} {self.role} {state}>"
