"""The one thread that speaks to Celery's broker: kombu blocks, and a broker that is away blocks for seconds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import celery

__all__ = ["Client", "Letter", "client_of"]

ANSWER_S: Final = 1.0
"""Workers that are there answer within that."""
NO_QUEUE: Final = "404"
"""What brokers say of a queue that is not there; in Redis each empty one."""
SILENT_S = 30.0
"""A Redis that takes so long for one message is away; kombu would wait for as long as the system does.

It is also how long the largest message may take.
"""
_REDIS: Final = ("redis", "sentinel")
_POLICY: Final = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}
_TAKEN: Final = ("broker_", "control_", "task_create_missing_", "task_default_", "task_queue", "task_routes")
"""How the settings begin of the user's app that say how messages go; its results are none of the client's business."""


class Letter(NamedTuple):
    """What a message says."""

    task: str
    args: list[Any]
    kwargs: dict[str, Any]


_Step = Callable[[Any], object]


class _Steps(SimpleQueue[tuple[_Step, asyncio.Future[Any]] | None]):
    """What a thread is to do with its connection to the broker, up to None."""


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
        if str(theirs.conf.broker_write_url or theirs.conf.broker_url).startswith(_REDIS):
            limits = {"socket_timeout": SILENT_S, "socket_connect_timeout": SILENT_S}
            self._celery.conf.broker_transport_options = {**limits, **(theirs.conf.broker_transport_options or {})}
        self._celery.control.mailbox.producer_pool = None  # else it takes connections of a pool that all apps share
        self._loop = asyncio.get_running_loop()
        self._steps = _Steps()
        self._thread = self._begin(self._steps)

    async def publish(
        self, letter: Letter, ref: str, *, may_send: Callable[[], bool] = lambda: True, **options: Any
    ) -> None:
        """Send a message; the broker has it when this returns.

        Args:
            letter: What it says.
            ref: Its id.
            may_send: Asked in the client's thread as soon as there is a connection; nothing is sent if it says no.
            options: Celery's own.

        Raises:
            Exception: The broker's, as kombu has it. Whether the broker has it, nobody knows if *may_send* was asked.
        """

        def send(connection: Any) -> None:
            connection.ensure_connection(**_POLICY)
            if may_send():
                self._celery.send_task(
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

        await self._do(send)

    async def revoke(self, ref: str, signal: str) -> None:
        """Tell all workers that this task is not wanted, and have the process that runs it sent a signal."""
        await self._do(
            lambda connection: self._celery.control.revoke(ref, connection=connection, terminate=True, signal=signal)
        )

    async def missing(self, refs: Collection[str], task: str, queue: str | None) -> set[str]:
        """Return which of these messages are nowhere: the queue is empty, and no worker has them.

        While no worker answers that cannot be said of any. The answers take `ANSWER_S`, in
        a thread of their own: nothing else is to wait for them.

        Raises:
            Exception: The broker's, as kombu has it.
        """
        steps = _Steps()
        asked = self._put(steps, lambda connection: self._missing(connection, set(refs), task, queue))
        steps.put(None)
        self._begin(steps)
        missing: set[str] = await asked
        return missing

    def close(self) -> None:
        """End the thread with its last user, once it has done what was asked of it; wait for nothing."""
        self.users -= 1
        if not self.users:
            _clients.pop(self._key).end()

    def end(self) -> None:
        """End the thread."""
        self._steps.put(None)

    async def _do(self, step: _Step) -> None:
        await self._put(self._steps, step)

    def _put(self, steps: _Steps, step: _Step) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = self._loop.create_future()
        steps.put((step, done))
        return done

    # -- in a thread -------------------------------------------------------------------

    def _begin(self, steps: _Steps) -> threading.Thread:
        name = f"quarterjack-{self._celery.main or 'celery'}"
        thread = threading.Thread(target=self._run, args=(steps,), name=name, daemon=True)
        thread.start()
        return thread

    def _run(self, steps: _Steps) -> None:
        connection: Any = None
        while (item := steps.get()) is not None:
            step, done = item
            value: Any = None
            error: Exception | None = None
            try:
                connection = connection or self._celery.connection_for_write()
                value = step(connection)
            except Exception as caught:  # kombu raises the exceptions of every transport there is
                error = caught
                _hang_up(connection)
                connection = None
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(_settle, done, value, error)
        _hang_up(connection)
        if steps is self._steps:
            self._celery.close()

    def _missing(self, connection: Any, refs: set[str], task: str, queue: str | None) -> set[str]:
        route = self._celery.amqp.router.route({} if queue is None else {"queue": queue}, task)
        if "queue" not in route or _waiting_in(route["queue"].name, connection):
            return set()  # sent to an exchange, or it may wait for its turn
        answers = self._celery.control.inspect(connection=connection, timeout=ANSWER_S).query_task(*refs)
        return refs.difference(*answers.values()) if answers else set()


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


def _hang_up(connection: Any) -> None:
    with suppress(Exception):  # a broker that is away cannot be left in good order
        connection.release()


def _waiting_in(queue: str, connection: Any) -> int:
    """Return how many messages no worker has taken yet."""
    try:
        with connection.channel() as channel:
            found: int = channel.queue_declare(queue=queue, passive=True).message_count
    except connection.channel_errors as error:
        if str(error.reply_code) != NO_QUEUE:
            raise
        return 0
    return found


def _settle(done: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if done.done():  # who waited was cancelled
        return
    if error is None:
        done.set_result(value)
    else:
        done.set_exception(error)
