"""Inside a Celery worker: the task ``quarterjack.run``, which runs the bodies of an app's tasks.

It asks the fence before a body begins, says when it began and how far it is, and
keeps saying that its process is there, from a thread of its own."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from types import FrameType
from typing import Any, Final

from celery.exceptions import Ignore

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import Orphaned

from ._celery_fence import BEGIN, KEPT_S, PULSE, alive_key, begun_key, orders_key, wanted_key
from ._gate import DOORBELL, Gate
from ._loading import load_bodies
from ._remote import Answer, Bodies, Body, HasBodies, Request, in_figures, run
from ._stage import Stage
from .base import AppRef

__all__ = ["TASK", "serve"]

TASK: Final = "quarterjack.run"
ALIVE_S = 15
"""A process that says nothing for so long is dead, or stands still."""
PULSE_S = 2.0
"""How often a process says that it is there."""
QUICK_NS: Final = 100_000_000
"""How often it says how far it is, at most; the last word is always said."""


def serve(celery: Any, app: HasBodies | str) -> None:
    """Register the task that runs the bodies of *app*; see `quarterjack.executors.celery.serve_bodies`."""
    places: list[_Place] = []

    def place() -> _Place:
        if not places:  # in the process that runs bodies, not in the one that forks it
            places.append(_Place(_bodies_of(app)))
        return places[0]

    # Acknowledged before it runs: one that is delivered again after a crash would only meet the fence.
    register: Callable[[Callable[..., str]], Any] = celery.task(
        name=TASK, bind=True, acks_late=False, ignore_result=False, max_retries=0, serializer="json"
    )

    @register
    def quarterjack_run(self: Any, text: str) -> str:
        request = Request.read(text.encode())
        fence = Fence(self.backend, request.ref)
        if not fence.may_begin():
            raise Ignore
        if request.deadline_ns is not None and SYSTEM_CLOCK.now_ns() > request.deadline_ns:
            return Answer.missed("its message came after its start deadline").decode()
        return _answer(place, request, Pulse(self.backend, fence, self.request.id)).decode()


def _bodies_of(app: HasBodies | str) -> Bodies:
    if not isinstance(app, str):
        return Bodies(app)
    module, _, attribute = app.partition(":")
    return load_bodies(AppRef(module, None, attribute or "app"))


def _answer(place: Callable[[], _Place], request: Request, pulse: Pulse) -> bytes:
    try:
        here = place()
        body = here.bodies.take(request, pulse)
    except Orphaned as error:
        return Answer.orphaned(error.why)
    except Exception as error:  # the user's module is loaded here
        return Answer.rejected(f"it cannot be run by this Celery worker: {error}", error)
    return here.answer(body, pulse)


class _Place:
    """This process: the bodies it knows, and how they are interrupted.

    With Celery's own pool of processes they run in the main thread, behind a gate. Other
    pools run them in other threads: there a body is only told (``current_job().is_unwanted``).
    """

    def __init__(self, bodies: Bodies) -> None:
        self.bodies = bodies
        is_main = threading.current_thread() is threading.main_thread()
        self._bell = Bell() if is_main and DOORBELL is not None else None

    def answer(self, body: Body, pulse: Pulse) -> bytes:
        """Run a body to its end; return the answer."""
        bell = self._bell
        if bell is None:
            with pulse:
                return run(body)
        bell.begin(pulse)
        with pulse:
            return bell.stage.answer(body)


class Bell:
    """Interrupts bodies by a signal, which is also that of Celery's soft time limits: others' rings are passed on."""

    def __init__(self) -> None:
        self.gate = Gate(lambda: self._pulse is not None and self._pulse.is_unwanted)
        self.stage = Stage(self.gate)
        self._pulse: Pulse | None = None
        self._is_ours = False
        self._before: Any = signal.signal(signal.SIGUSR1, self._on_signal)

    def begin(self, pulse: Pulse) -> None:
        """Have this one's orders interrupt the next body."""
        self.gate.reset()
        self._pulse, pulse.bell = pulse, self

    def ring(self) -> None:
        """Interrupt the body; from any thread."""
        self._is_ours = True
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, signal.SIGUSR1)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_ours:
            self._is_ours = False
            self.gate._on_ring(number, frame)
        elif callable(self._before):
            self._before(number, frame)


class Fence:
    """What the result backend, a Redis, knows of one attempt."""

    def __init__(self, backend: Any, ref: str) -> None:
        self.ref = ref
        self.client = backend.client
        self._keys = wanted_key(ref), begun_key(ref), alive_key(ref)

    def may_begin(self) -> bool:
        """Take the attempt's one turn."""
        return bool(self.client.eval(BEGIN, 3, *self._keys, self.ref, KEPT_S, ALIVE_S))

    def pulse(self) -> bool:
        """Say that this process is there; return whether its body is still wanted."""
        return bool(self.client.eval(PULSE, 3, *self._keys, self.ref, KEPT_S, ALIVE_S))

    def was_told_to_stop(self, within_s: float) -> bool:
        """Wait for an order."""
        return self.client.blpop([orders_key(self.ref)], timeout=within_s) is not None

    def end(self) -> None:
        """The body is over: who waits for an order waits no longer, and keeps no connection."""
        with self.client.pipeline(transaction=False) as pipe:
            pipe.rpush(orders_key(self.ref), "over")
            pipe.expire(orders_key(self.ref), ALIVE_S)
            pipe.execute()


class Pulse:
    """Says from a thread that a body's process is there; hears there that the body is to stop."""

    def __init__(self, backend: Any, fence: Fence, task_id: str) -> None:
        self._backend, self._fence, self._task_id = backend, fence, task_id
        self._said: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()}
        self._lock = threading.RLock()
        self._stored_ns = 0
        self._has_news = self._is_over = False
        self._thread = threading.Thread(target=self._run, name="quarterjack-pulse", daemon=True)
        self.bell: Bell | None = None
        self.is_unwanted = False

    def __enter__(self) -> Pulse:
        self._store("STARTED")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # from here on nobody is interrupted, and nobody writes over the end
            self._is_over = True
            if self._has_news:
                self._store("PROGRESS")
        with suppress(Exception):  # the backend is away: then it waits a while
            self._fence.end()

    def progress(self, done: float, total: float | None, text: str) -> None:
        """The body says how far it is."""
        self._say("progress", list(in_figures(done, total, text)))

    def keep(self, value: Any) -> None:
        """The body keeps a value for the next attempt."""
        self._say("kept", [value])

    def _say(self, what: str, value: list[Any]) -> None:
        with nullcontext() if self.bell is None else self.bell.gate, self._lock:
            if self._is_over:  # a thread that the body left behind
                return
            self._said[what] = value
            self._has_news = True
            if SYSTEM_CLOCK.monotonic_ns() - self._stored_ns >= QUICK_NS:
                self._store("PROGRESS")

    def _store(self, state: str) -> None:
        self._stored_ns, self._has_news = SYSTEM_CLOCK.monotonic_ns(), True
        with suppress(Exception):  # the backend is away, which is no fault of the body's: said with the next pulse
            self._backend.store_result(self._task_id, dict(self._said), state)
            self._has_news = False

    def _run(self) -> None:
        while not self._is_over:
            try:
                is_wanted = self._fence.pulse()
                with self._lock:
                    if self._has_news and not self._is_over:
                        self._store("PROGRESS")
                if not (is_wanted or self.is_unwanted) or self._fence.was_told_to_stop(PULSE_S):
                    self._interrupt()
            except Exception:  # the backend is away: the next pulse may be heard, and the body goes on
                threading.Event().wait(PULSE_S)

    def _interrupt(self) -> None:
        with self._lock:
            if not (self.is_unwanted or self._is_over):
                self.is_unwanted = True
                if self.bell is not None:
                    self.bell.ring()
