"""A stand-in for Ray: as much of it as its driver asks for, so that our side is tested where Ray is not installed.

Bodies run in processes that are forked from the driver, two at once; the actor
lives in the driver. A soft cancel is SIGINT, which raises KeyboardInterrupt in
the main thread as Ray's does. What it says of Ray itself is proved by
`tests/clusters/test_ray.py`, over the real one."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from types import SimpleNamespace
from typing import Any, Final

from quarterjack.testing import _contract_bodies

from . import exceptions

__all__ = ["cancel", "get_runtime_context", "init", "remote", "shutdown"]

PROCESSORS: Final = 2
PRELOADED: Final = _contract_bodies
"""What most bodies load: once in the driver, not in each process that is forked from it."""
PR_SET_PDEATHSIG: Final = 1
_waiting: Final[deque[_Ref]] = deque()
_running: Final[set[_Ref]] = set()


def init(address: str | None, *, include_dashboard: bool, mood: str = "") -> None:
    """Connect to a cluster; there are all but the one that is away."""
    del include_dashboard
    if address == "away:1":
        raise ConnectionError("there is no cluster") from RuntimeError(
            "Traceback:\n  a line\nNotFound: nobody listens\n"
        )
    if mood == "slow":
        time.sleep(60)
    if mood == "dies":
        os._exit(3)
    if mood == "cut":
        _Actor.news_most = 1
    if mood == "gone":
        _Ref.is_out_of_reach = True


def shutdown() -> None:
    """End what runs."""
    for ref in tuple(_running):
        os.kill(ref.pid, signal.SIGKILL)


def get_runtime_context() -> Any:
    return SimpleNamespace(get_node_id=lambda: "node")


def remote(**options: Any) -> Callable[[Any], Any]:
    """Make a function or a class remote."""
    assert options.get("max_retries", 0) == 0

    def decorated(what: Any) -> Any:
        if isinstance(what, type):
            return SimpleNamespace(remote=lambda: _Actor(what()))
        body = SimpleNamespace(remote=lambda *args: _Ref(what, args))
        return SimpleNamespace(options=lambda **_: body)

    return decorated


def cancel(ref: _Ref, *, force: bool) -> None:
    """Drop a body from the queue, interrupt it, or kill its process."""
    if ref in _waiting:
        _waiting.remove(ref)
        ref.future.set_exception(exceptions.TaskCancelledError())
    elif ref in _running:
        os.kill(ref.pid, signal.SIGKILL if force else signal.SIGINT)


class _Actor:
    """An actor's handle, in the driver."""

    news_most: float = float("inf")
    """After so many the cluster is out of reach, as Ray's client tells it."""

    def __init__(self, itself: Any) -> None:
        self.news = SimpleNamespace(remote=self._news)
        self.itself = itself

    async def _news(self) -> Any:
        if self.news_most <= 0:
            raise ConnectionError("Failed to reconnect within the reconnection grace period")
        self.news_most -= 1
        return await self.itself.news()


class _Ref:
    """What a body will have returned."""

    is_out_of_reach = False

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self.is_out_of_reach:
            raise ConnectionError("Failed to reconnect within the reconnection grace period")
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pid = 0
        self._function, self._args = function, args
        self._actor = next((one for one in args if isinstance(one, _Actor)), None)
        self._link: Connection
        _waiting.append(self)
        _next()

    def __await__(self) -> Any:
        return self.future.__await__()

    def begin(self) -> None:
        """Run it in a process of its own."""
        self._link, theirs = Pipe(duplex=False)
        self.pid = os.fork()
        if not self.pid:
            _be_worker(self._function, self._args, theirs)
        theirs.close()
        _running.add(self)
        asyncio.get_running_loop().add_reader(self._link.fileno(), self._hear)

    def _hear(self) -> None:
        try:
            what, value = self._link.recv()
        except EOFError:
            self._end(error=exceptions.WorkerCrashedError("its worker died. There is more to say."))
            return
        if what == "tell" and self._actor is not None:
            asyncio.get_running_loop().create_task(self._actor.itself.tell(value))
        elif what == "done":
            self._end(value)
        else:
            self._end(error=value)

    def _end(self, value: Any = None, error: Exception | None = None) -> None:
        asyncio.get_running_loop().remove_reader(self._link.fileno())
        self._link.close()
        _running.discard(self)
        os.waitpid(self.pid, 0)
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)
        _next()


def _next() -> None:
    while _waiting and len(_running) < PROCESSORS:
        _waiting.popleft().begin()


def _be_worker(function: Callable[..., Any], args: tuple[Any, ...], link: Connection) -> None:
    """Run a body, tell how it ended, and end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # Ray ends what a driver leaves behind
    signal.signal(signal.SIGINT, signal.default_int_handler)
    writing = threading.Lock()

    def tell(letter: Any) -> None:
        with writing:
            link.send(("tell", letter))

    board = SimpleNamespace(tell=SimpleNamespace(remote=tell))
    try:
        told = "done", function(*(board if isinstance(one, _Actor) else one for one in args))
    except KeyboardInterrupt:
        told = "raised", exceptions.TaskCancelledError()
    except BaseException as error:  # whatever it is, the driver tells it
        told = "raised", exceptions.RayTaskError(error)
    try:
        link.send(told)
    finally:  # the driver may be gone; nothing of it is to go on here
        os._exit(0)
