"""The one thread that speaks to Celery's broker: kombu blocks, and a broker that is away blocks for seconds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import celery

__all__ = ["Client", "Letter", "client_of"]

_POLICY: Final = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
_TAKEN: Final = ("broker_", "control_", "task_create_missing_", "task_default_", "task_queue", "task_routes")
"""How the settings begin of the user's app that say how messages go; its results are none of the client's business."""


class Letter(NamedTuple):
    """What a message says."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]


class Client:
    """Publishes messages and revokes tasks, one after another, in a thread of its own; made by `client_of`.

    The client app has no result backend: one with Redis would connect to it in the
    middle of a publish, and stand still while that is away.
    """

    def __init__(self, theirs: Any, key: _Key) -> None:
        self.users = 0
        self._key = key
        self._celery = _without_results(theirs.main)
        self._celery.conf.update({key: theirs.conf[key] for key in theirs.conf if key.startswith(_TAKEN)})
        self._celery.control.mailbox.producer_pool = None  # else it takes connections of a pool that all apps share
        self._connection: Any = None
        self._loop = asyncio.get_running_loop()
        self._steps: SimpleQueue[tuple[Callable[[Any], object], asyncio.Future[None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"quarterjack-{theirs.main or 'celery'}", daemon=True)
        self._thread.start()

    async def publish(self, letter: Letter, ref: str, **options: Any) -> None:
        """Send a message; the broker has it when this returns.

        Raises:
            Exception: The broker's, as kombu has it.
        """
        await self._do(
            lambda connection: self._celery.send_task(
                letter.task,
                connection=connection,
                args=letter.args,
                kwargs=letter.kwargs,
                task_id=ref,
                serializer="json",
                ignore_result=False,  # whatever the task says: here somebody waits for it
                retry=True,
                retry_policy=_POLICY,
                **options,
            )
        )

    async def revoke(self, ref: str, signal: str) -> None:
        """Tell all workers that this task is not wanted, and have the process that runs it sent a signal."""
        await self._do(
            lambda connection: self._celery.control.revoke(ref, connection=connection, terminate=True, signal=signal)
        )

    def close(self) -> None:
        """End the thread with its last user, once it has done what was asked of it; wait for nothing."""
        self.users -= 1
        if not self.users:
            _clients.pop(self._key).end()

    def end(self) -> None:
        """End the thread."""
        self._steps.put(None)

    async def _do(self, step: Callable[[Any], object]) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        self._steps.put((step, done))
        await done

    def _run(self) -> None:
        while (item := self._steps.get()) is not None:
            step, done = item
            error: Exception | None = None
            try:
                if self._connection is None:
                    self._connection = self._celery.connection_for_write()
                step(self._connection)
            except Exception as caught:  # kombu raises the exceptions of every transport there is
                error = caught
                self._hang_up()
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(_settle, done, error)
        self._hang_up()
        self._celery.close()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        with suppress(Exception):  # a broker that is away cannot be left in good order
            connection.release()


_Key = tuple[Any, asyncio.AbstractEventLoop]
_clients: Final[dict[_Key, Client]] = {}
"""One for each Celery app and loop, however many of its tasks have an executor each."""


def client_of(theirs: Any) -> Client:
    """Return what speaks to the broker of the user's app, for one more user on this loop, who is to close it."""
    for key in list(_clients):
        if key[1].is_closed():  # its app ended without stopping its executors
            _clients.pop(key).end()
    key = theirs, asyncio.get_running_loop()
    client = _clients.get(key)
    if client is None:
        client = _clients[key] = Client(theirs, key)
    client.users += 1
    return client


def _without_results(name: str) -> Any:
    return celery.Celery(name, set_as_current=False, backend="disabled://")


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():  # who waited was cancelled
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
