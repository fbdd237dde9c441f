"""The process that speaks to Ray for an app: Ray's driver. Started by `_ray_link`.

The app is no driver itself, for Ray treats the process of one as its own: it ends
it when the cluster has been away for a minute, takes its SIGTERM, ends bodies
and a local cluster with it, and stands still while it connects. Here that hurts
nobody: the app sees a process end, and starts another one.

One thread, one loop; frames in, frames out. When this process ends, however that
comes, Ray ends the bodies that it has begun."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import signal
import socket
import sys
import traceback
from typing import Any, Final

from pydantic_core import to_json

from quarterjack.errors import MissingExtra

from ._chores import Chores
from ._frames import Frame, Frames, number_of, numbered, pack
from ._leash import fasten
from ._ray_worker import Board, Letter, run_body
from ._remote import Answer, in_words

__all__ = ["main"]

try:  # by name: an environment with type checkers may lack it
    ray: Any = importlib.import_module("ray")
    exceptions: Any = importlib.import_module("ray.exceptions")
    strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
except ImportError as error:
    raise MissingExtra("the Ray executor", "ray") from error

CHUNK: Final = 256 * 1024
REASON_MOST: Final = 500
"""Characters of Ray's own reason."""
AGAIN_S: Final = 1.0
"""Before the board is asked again that did not answer."""


def main() -> None:
    """Serve the app whose end of the socket is the descriptor in ``sys.argv[1]``; the leash is in ``sys.argv[2]``."""
    link, leash = map(int, sys.argv[1:3])
    sys.argv[:] = sys.argv[3:]
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", None)):
        if number is not None:
            signal.signal(number, signal.SIG_IGN)  # who sends it means the app, which knows what to do about us
    fasten(leash)
    with contextlib.suppress(ConnectionError):  # the app is gone
        asyncio.run(_Driver().serve(socket.socket(fileno=link)))


def _stay(*_: object) -> None:
    """Do nothing: a stop of all processes of a service is for the app to hear."""


class _Driver:
    """This process."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter
        self._app: list[Any] = []
        self._body: Any = None
        self._board: Any = None
        self._refs: dict[int, Any] = {}
        self._chores = Chores()

    async def serve(self, link: socket.socket) -> None:
        """Do what frames say, until the end."""
        reader, self._writer = await asyncio.open_connection(sock=link)
        frames = Frames()
        while data := await reader.read(CHUNK):
            frames.feed(data)
            while (frame := frames.take()) is not None:
                if frame[0] is Frame.EXIT:
                    ray.shutdown()
                    return
                self._hear(*frame)

    def _send(self, kind: Frame, data: bytes = b"") -> None:
        self._writer.write(pack(kind, data))

    def _hear(self, kind: Frame, data: bytes) -> None:
        if kind is Frame.HELLO:
            self._begin(json.loads(data))
            return
        number, rest = number_of(data)
        if kind is Frame.RUN:
            self._run(number, rest)
        elif number in self._refs:  # CANCEL or KILL
            self._cancel(self._refs[number], is_hard=kind is Frame.KILL)

    def _begin(self, settings: dict[str, Any]) -> None:
        try:
            self._connect(settings)
        except Exception as error:  # Ray's, in great variety
            self._send(Frame.UNLOADABLE, to_json([in_words(_why_not(error)), in_words(traceback.format_exc())]))
            return
        signal.signal(signal.SIGTERM, _stay)  # Ray has taken it
        self._chores.do(self._listen())
        self._send(Frame.READY)

    def _connect(self, settings: dict[str, Any]) -> None:
        self._app = settings["app"]
        ray.init(settings["address"], **{"include_dashboard": False, **settings["init"]})
        self._body = ray.remote(max_retries=0)(run_body)
        # Beside this process: it lives as long as there is somebody to take the letters.
        here = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Board)
        self._board = actor.remote()

    # -- bodies ----------------------------------------------------------------------------

    def _run(self, number: int, data: bytes) -> None:
        try:
            needs, _, request = data.partition(b"\n")
            body = self._body.options(**json.loads(needs))
            self._refs[number] = body.remote(self._app, request, number, self._board)
        except ConnectionError as error:  # of Ray's client
            self._send(Frame.ENDED, numbered(number, Answer.lost(f"nobody knows whether Ray has it: {error}")))
            return
        except Exception as error:  # likewise: such as a request that its store has no room for
            self._send(Frame.ENDED, numbered(number, Answer.rejected(f"Ray does not take it: {error}")))
            return
        self._send(Frame.ACCEPTED, numbered(number))
        self._chores.do(self._wait(number))

    async def _wait(self, number: int) -> None:
        letters: list[Letter]
        try:
            letters, answer = await self._refs[number]
        except Exception as error:  # likewise
            letters, answer = [], _answer_for(error)
        for letter in letters:
            self._tell(*letter)
        self._send(Frame.ENDED, numbered(number, answer))
        del self._refs[number]

    @staticmethod
    def _cancel(ref: Any, *, is_hard: bool) -> None:
        with contextlib.suppress(Exception):  # it has ended; how, is told by itself
            ray.cancel(ref, force=is_hard)

    # -- what they say ---------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            try:
                for letter in await self._board.news.remote():
                    self._tell(*letter)
            except exceptions.RayError:  # the actor has died: Ray starts it anew
                await asyncio.sleep(AGAIN_S)
            except Exception:  # of Ray's client, which has lost the cluster for good, and would refuse all that comes
                traceback.print_exc()
                self._writer.close()  # with that this process ends
                return

    def _tell(self, number: int, kind: int, data: bytes) -> None:
        if number in self._refs:
            self._send(Frame(kind), numbered(number, data))


def _why_not(error: BaseException) -> str:
    """Return why Ray cannot be reached: what it raises, and the reason that it has for that."""
    why = "".join(traceback.format_exception_only(error)).strip()
    cause = str(error.__cause__ or "").strip().rpartition("\n")[2]  # a whole traceback, whose last line tells
    return f"{why} ({cause[:REASON_MOST]})" if cause else why


def _answer_for(error: Any) -> bytes:
    """Return the answer for a body that gave none."""
    why = f"{type(error).__name__}: {str(error).strip().partition('. ')[0]}"
    if isinstance(error, exceptions.TaskCancelledError):
        return Answer.cancelled("cancelled in Ray")
    if isinstance(error, exceptions.ObjectLostError):
        return Answer.died(None, f"it has ended, and its result is lost: {why}")
    if isinstance(error, (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError)):
        return Answer.died(None, why)
    if isinstance(error, exceptions.RayTaskError):  # our function does not raise: it was not found, or not called
        return Answer.rejected(f"it cannot be run by this Ray worker: {error.cause!r}")
    if isinstance(error, (exceptions.RuntimeEnvSetupError, exceptions.TaskUnschedulableError)):
        return Answer.rejected(f"Ray cannot run it: {error}")
    return Answer.lost(f"nobody knows what became of it: {why}")
