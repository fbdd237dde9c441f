"""Inside a Dask worker: runs a body of ours in a process of its own, and says by events how far it is.

Events go to the topic that is named like the client that waits for them. Each is
a dict: *ref*, *kind* (``began``, ``progress``, ``keep``, ``answer``) and *value*,
which is JSON (Dask's own events take no number of more than 64 bits) or an answer;
Dask adds *worker*. An answer that is small goes as an event too: it arrives
though its worker ends in the same moment, and a step sooner than Dask's result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from distributed import get_worker
from pydantic_core import to_json

from ._dask_fence import LEFT, Holder, key_of, take
from ._relay import Relay
from ._remote import Answer
from .base import AppRef

if TYPE_CHECKING:  # where Dask is not installed, its classes are no classes

    class WorkerPlugin:
        """Dask's."""
else:
    from distributed import WorkerPlugin

__all__ = ["run_body", "stop_body"]

NAME: Final = "quarterjack"
SMALL: Final = 4096
"""The scheduler keeps the last thousand events of a topic, these answers among them."""


async def run_body(request: bytes, app: Sequence[Any], task: str, ref: str, topic: str, cancel_grace_s: float) -> bytes:
    """Run a body, and return its answer; a task of Dask's.

    Args:
        request: As `request_of` made it.
        app: The fields of an `AppRef`.
        task: The job's task.
        ref: The attempt.
        topic: Where to tell of it.
        cancel_grace_s: How long after it was interrupted the body is killed.
    """
    worker: Any = get_worker()
    hands = await Hands.of(worker)
    news = News(worker, topic, ref)
    try:
        answer = await hands.run(request, AppRef(*app), task, news, cancel_grace_s)
    except asyncio.CancelledError:
        news.tell("answer", Answer.died(None, "its Dask worker was closed"))
        raise
    if len(answer) <= SMALL:
        news.tell("answer", answer)
    return answer


def stop_body(ref: str, reason: str, dask_worker: Any = None) -> None:
    """Interrupt a body, and kill it after its grace; run by Dask beside the tasks."""
    hands = dask_worker.plugins.get(NAME)
    if hands is not None:
        hands.relay.stop(ref, reason)


class News:
    """What is told of one attempt."""

    def __init__(self, worker: Any, topic: str, ref: str) -> None:
        self._worker, self.topic, self.ref = worker, topic, ref

    def tell(self, kind: str, value: Any) -> None:
        """Tell something."""
        data = value if isinstance(value, bytes) else to_json(value)
        self._worker.log_event(self.topic, {"ref": self.ref, "kind": kind, "value": data})


class Hands(WorkerPlugin):
    """One Dask worker's bodies; it hears as a plugin when Dask does not want one any more, and when it closes."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._ref_by_key: dict[str, str] = {}
        self.relay = Relay(["distributed"])
        worker.stream_handlers[LEFT] = self._on_left

    @classmethod
    async def of(cls, worker: Any) -> Hands:
        """Return those of a worker."""
        if NAME not in worker.plugins:
            await worker.plugin_add(plugin=cls(worker), name=NAME)
        hands: Hands = worker.plugins[NAME]
        return hands

    async def run(self, request: bytes, app: AppRef, task: str, news: News, cancel_grace_s: float) -> bytes:
        """Run a body, unless it was begun elsewhere, or is not wanted."""
        key = key_of(task, news.ref)
        if key in self._ref_by_key:
            return Answer.lost("it was begun in this Dask worker before")
        self._ref_by_key[key] = news.ref
        try:
            may_begin = partial(self._refusal, key)
            return await self.relay.run(app, news.topic, request, news.tell, may_begin, cancel_grace_s)
        finally:
            del self._ref_by_key[key]

    async def _refusal(self, key: str) -> bytes | None:
        try:
            holder = await take(self._worker.scheduler, key, Holder.here(self._worker.address))
        except LookupError:  # if anybody still waits for it, that is all that he can be told
            return Answer.lost("Dask's scheduler does not know who is to run it")
        if holder is None:
            return None
        if isinstance(holder, str):
            return Answer.cancelled("it was withdrawn")
        if holder.is_gone():
            return Answer.died(None, "its Dask worker has ended, and its processes with it")
        return Answer.lost(f"its Dask worker {holder.address} is out of reach")

    def _on_left(self, client: str, **_: Any) -> None:
        self.relay.on_left(client)

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Stop a body that Dask does not ask for any more: whoever waited for it is gone."""
        del finish
        if key in self._ref_by_key and start in {"executing", "long-running"}:
            self.relay.stop(self._ref_by_key[key], "nobody waits for it any more")

    async def teardown(self, worker: Any) -> None:
        """End all bodies: the worker closes."""
        del worker
        await self.relay.close()
