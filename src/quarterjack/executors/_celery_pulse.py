"""Inside a Celery worker: what one body says and hears, beside its own thread.

`Fence` is asked whether the body may begin. `Pulse` says that its process is
there, hears that it is to stop, and stores how far it is: each in a thread of
its own, for what keeps results may be away for long, and a body that only tells
of its progress is not to wait for that. `Bell` interrupts the body."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from types import FrameType
from typing import Any, Final, TypeVar

from redis.exceptions import ConnectionError as AwayError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as SlowError

from ._celery_fence import BEGIN, KEPT_S, PULSE, alive_key, begun_key, orders_key, wanted_key
from ._gate import Gate
from ._remote import in_figures
from ._stage import Stage

__all__ = ["Bell", "Fence", "Pulse"]

T = TypeVar("T")
ALIVE_S = 15
"""A process that says nothing for so long is dead, or stands still."""
PULSE_S = 2.0
"""How often a process says that it is there, and stores again what could not be stored."""
ASKED_MOST: Final = 30
"""How often a backend that is away is asked when a body begins, and when it ends."""
_AWAY: Final = (AwayError, SlowError, ReadOnlyError, OSError)
"""What a backend raises that is away, or not ready yet."""
BETWEEN_S: Final = 0.1
"""It stores how far it is so often at most; the last word is always stored."""


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
        """Take the attempt's one turn; wait while the backend is away.

        Raises:
            Exception: The backend's, if it stays away, or refuses the question.
        """
        return bool(_once_there(lambda: self.client.eval(BEGIN, 3, *self._keys, self.ref, KEPT_S, ALIVE_S)))

    def pulse(self) -> bool:
        """Say that this process is there; return whether its body is still wanted."""
        return bool(self.client.eval(PULSE, 3, *self._keys, self.ref, KEPT_S, ALIVE_S))

    def was_told_to_stop(self, within_s: float) -> bool:
        """Wait for an order."""
        return self.client.blpop([orders_key(self.ref)], timeout=within_s) is not None

    def end(self) -> None:
        """The body is over: who waits for an order waits no longer, and keeps no connection.

        Waits while the backend is away: Celery would try to store the result once, and lose it.
        """
        _once_there(self._end_orders)

    def _end_orders(self) -> None:
        with self.client.pipeline(transaction=False) as pipe:
            pipe.rpush(orders_key(self.ref), "over")
            pipe.expire(orders_key(self.ref), ALIVE_S)
            pipe.execute()


def _once_there(ask: Callable[[], T]) -> T:
    """Return what the backend answers, once it is there; raise what it raises when it stays away."""
    for _ in range(ASKED_MOST - 1):
        with suppress(*_AWAY):
            return ask()
        threading.Event().wait(PULSE_S)
    return ask()


class Pulse:
    """Says that a body's process is there, and what the body says of itself; hears that it is to stop."""

    def __init__(self, backend: Any, fence: Fence, task_id: str) -> None:
        self._backend, self._fence, self._task_id = backend, fence, task_id
        self._said: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()}
        self._has_news = False
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._storing = threading.Lock()
        """Held for as long as storing takes; a body never waits for it."""
        self._thread = threading.Thread(target=self._run, name="quarterjack-pulse", daemon=True)
        self._teller: threading.Thread | None = None  # most bodies say nothing
        self.bell: Bell | None = None
        self.is_unwanted = False

    def __enter__(self) -> Pulse:
        if not self._is_stored("STARTED"):
            self._note()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:  # from here on nobody is interrupted
            self._is_over.set()
            self._changed.notify()
        with suppress(Exception):  # the backend stays away: then nobody can be told of the end
            self._fence.end()
        with self._storing:  # nor does anybody write over the end
            if self._has_news:
                self._is_stored("PROGRESS")

    # -- what the body says ------------------------------------------------------------

    def progress(self, done: float, total: float | None, text: str) -> None:
        """The body says how far it is."""
        self._say(progress=list(in_figures(done, total, text)))

    def keep(self, value: Any) -> None:
        """The body keeps a value for the next attempt."""
        self._say(kept=[value])

    def _say(self, **words: Any) -> None:
        with nullcontext() if self.bell is None else self.bell.gate:  # an interruption must not leave it locked
            self._note(**words)

    def _note(self, **words: Any) -> None:
        with self._lock:
            if self._is_over.is_set():  # a thread that the body left behind
                return
            self._said = {**self._said, **words}
            self._has_news = True
            self._changed.notify()
            if self._teller is None:
                self._teller = threading.Thread(target=self._tell, name="quarterjack-progress", daemon=True)
                self._teller.start()

    def _tell(self) -> None:
        while self._awaits_news():
            with self._storing:
                is_told = self._is_over.is_set() or self._is_stored("PROGRESS")
            self._is_over.wait(BETWEEN_S if is_told else PULSE_S)

    def _awaits_news(self) -> bool:
        with self._lock:
            while not (self._has_news or self._is_over.is_set()):
                self._changed.wait()
        return not self._is_over.is_set()

    def _is_stored(self, state: str) -> bool:
        self._has_news = False
        try:
            self._backend.store_result(self._task_id, self._said, state)
        except Exception:  # the backend is away, which is no fault of the body's
            self._has_news = True
        return not self._has_news

    # -- the pulse ---------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                is_wanted = self._fence.pulse()
                if not (is_wanted or self.is_unwanted) or self._fence.was_told_to_stop(PULSE_S):
                    self._interrupt()
            except Exception:  # the backend is away: the next pulse may be heard, and the body goes on
                self._is_over.wait(PULSE_S)

    def _interrupt(self) -> None:
        with self._lock:
            if not (self.is_unwanted or self._is_over.is_set()):
                self.is_unwanted = True
                if self.bell is not None:
                    self.bell.ring()
