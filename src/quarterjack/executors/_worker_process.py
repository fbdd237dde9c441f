"""One child process, as the app sees it: a socket, a leash, and at most one body at a time.

    starting ─▶ idle ⇄ busy ─▶ ended
        └────────┴───────┴──▶ (it died, or could not load the app)

Its end is heard twice: as the end of its socket, behind everything that it has
written, and from its nursery, with its exit code. Both are waited for, in either
order, as far as both can come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from quarterjack._exit_codes import name_of
from quarterjack.errors import BodyDied
from quarterjack.model import Outcome, OutcomeKind

from ._away import UNKILLABLE_S, Desk, Killable
from ._files import REQUEST, remove
from ._frames import LARGE, Frame, Frames, pack
from ._gate import DOORBELL
from ._leash import not_for_forks
from ._remote import outcome_of
from ._starting import Nursery, in_thread
from .base import Call, Report

if TYPE_CHECKING:
    from ._crew import Crew

__all__ = ["Running", "WorkerProcess", "words_of"]

log = logging.getLogger("quarterjack.executors")

CHUNK: Final = 64 * 1024
"""Read at once, into one buffer: a new one for each read costs more than all the rest of it."""
LAST_WORDS_S: Final = 0.05
"""How long a dead child's socket is read: another process that it forked may hold it open."""
NEWS_S: Final = 2.0
"""How long after its socket a child's exit code is waited for."""
LEAVE_S: Final = 10.0
"""How long a child that is to run nothing more may take to end."""
MOVES_MOST: Final = 2
"""How often a body is given to another child because the one that had it died before the body began."""


def words_of(code: int | None) -> str:
    """Return what an exit code says of a process's end."""
    if code is None:
        return "nobody knows how it ended"
    if code >= 0:
        return f"{name_of(code)}: it ended by itself, by os._exit or in the middle of a library"
    if -code == signal.SIGKILL:
        return f"{name_of(code)}: killed from outside, perhaps out of memory"
    return f"{name_of(code)}: it crashed, or was killed from outside"


class Running(Killable):
    """One body in a child, or on its way to one; the handle the runtime holds."""

    __slots__ = ("_crew", "_moves", "child", "has_turn", "is_sent", "request")

    def __init__(self, crew: Crew, desk: Desk, call: Call, report: Report, request: bytes) -> None:
        super().__init__(desk, call, report)
        self._crew = crew
        self.request = request
        self.child: WorkerProcess | None = None
        self.is_sent = False
        self.has_turn = False
        """It was given to a child once: nobody can withdraw it from outside any more."""
        self._moves = 0

    @property
    def is_late(self) -> bool:
        """True if it must not begin any more."""
        deadline_ns = self.call.deadline_ns
        return deadline_ns is not None and self.desk.clock.now_ns() > deadline_ns

    def withdraw(self, reason: str) -> None:
        """End a call that waits for a child."""
        self._crew.forget(self)
        super().withdraw(reason)

    def interrupt(self, reason: str) -> None:
        """Ring, and kill the child after the grace."""
        del reason
        if self.child is None:  # its child died before it began, and it waits for another one
            self._crew.forget(self)
            self.on_over(Outcome(OutcomeKind.CANCELLED))
            return
        if self.is_sent:
            self.child.ring()
        self.arm(self.call.cancel_grace_s, self.kill)

    def kill(self) -> None:
        """End the body by ending its process; that tells when it has."""
        if self.child is not None:
            self.child.kill()
        self.arm(UNKILLABLE_S, self.give_up)

    def tell(self, kind: Frame, data: bytes) -> None:
        """The body says something."""
        if self._is_reported or self._is_abandoned:
            return
        words: Any = from_json(data)
        if kind is Frame.KEEP:
            self._report.keep(words)
        else:
            self._report.progress(*words)

    def on_over(self, outcome: Outcome) -> None:
        """The body is over."""
        self.outcome = outcome
        self._on_finished(outcome)

    def on_dead(self, code: int | None) -> None:
        """Its process has ended under it, or before it began: then another one gets it."""
        self.child = None
        if not self._is_begun and not self.is_asked and self._moves < MOVES_MOST:
            self._moves, self.is_sent = self._moves + 1, False
            self._crew.again(self)
            return
        if self.is_asked:
            self.on_over(Outcome(OutcomeKind.CANCELLED))  # as which it was asked to end
            return
        error = BodyDied(code, words_of(code))
        self.on_over(Outcome(OutcomeKind.DIED, error=error, reason=str(error)))


class WorkerProcess(asyncio.BufferedProtocol):
    """A child; made by `open`.

    Args:
        crew: Who hears of it.
        nursery: Starts it.
        files: What the names of its files begin with.
        trial: Which round of starts it belongs to.
    """

    def __init__(self, crew: Crew, nursery: Nursery, files: str, trial: int) -> None:
        self._crew = crew
        self._nursery = nursery
        self._files = files
        self.trial = trial
        self._frames = Frames()
        self._buffer = bytearray(CHUNK)
        self._transport: asyncio.Transport | None = None
        self._leash = -1
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._has_code = self._is_cut = False
        self.is_killed = False
        """We have ended it."""
        self.code: int | None = None
        self.pid: int | None = None
        self.is_ready = False
        self.ready_at_ns = 0
        self.is_over = False
        self.is_retiring = False
        """Nothing more is to run there."""
        self.is_outgrown = False
        """It holds too much memory: it goes when its replacement is ready."""
        self.jobs = 0
        """Bodies it was given so far."""
        self.memory_kib = 0
        self.running: Running | None = None
        self.why_not = ""
        """Why it could not load the app."""
        self.over = asyncio.Event()

    async def open(self, settings: dict[str, Any], load_s: float) -> None:
        """Have the child started; it has *load_s* seconds to load the app.

        Raises:
            OSError: If there are no descriptors left for it, or its nursery has ended meanwhile.
        """
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as its_own:
            try:
                held, self._leash = os.pipe()
                its_own.callback(os.close, held)
                not_for_forks(self._leash, partial(os.close, self._leash))
                ours.setblocking(False)
                self._transport, _ = await self._loop.create_connection(lambda: self, sock=ours)
                self._transport.set_write_buffer_limits(high=0)  # `resume_writing` is when all is written
                self._wait(load_s, partial(self._on_late, load_s))
                self._nursery.start(self, theirs.fileno(), held)
            except BaseException:
                self._let_go()
                ours.close()
                raise
        self.send(Frame.HELLO, json.dumps({**settings, "files": self._files}).encode())  # paths may be no UTF-8

    def _on_late(self, load_s: float) -> None:
        """It has not loaded the app in time: a module waits for a network, or for a lock that nobody frees."""
        self.why_not = f"it had not loaded the app after {load_s:g} s"
        if self.pid is None:
            self._nursery.give_up()
        else:
            self.kill()

    # -- what it is told -------------------------------------------------------------------

    def send(self, kind: Frame, data: bytes = b"") -> None:
        """Write a frame."""
        if self._transport is not None and not self._is_cut:
            self._transport.write(pack(kind, data))

    def run(self, running: Running) -> None:
        """Run a body."""
        self.running, running.child = running, self
        self.jobs += 1
        if len(running.request) > LARGE:
            self._crew.spawn(self._run_large(running))
            return
        running.is_sent = True
        self.send(Frame.RUN, running.request)

    async def _run_large(self, running: Running) -> None:
        """Run a body whose request goes through a file."""
        path = Path(self._files + REQUEST)
        failure: Exception | None = None
        try:
            await in_thread(lambda: path.write_bytes(running.request))
        except Exception as error:  # no room, no thread, no memory: the body is answered all the same
            failure = error
        if self.running is running and failure is None and not running.is_asked:
            running.is_sent = True
            self.send(Frame.RUN_FILE, os.fsencode(path))
            return
        remove(self._files)
        if self.running is not running:
            pass  # this child has died meanwhile, and another one has it
        elif running.is_asked:
            self._end_body(Outcome(OutcomeKind.CANCELLED))
        else:
            self._end_body(Outcome(OutcomeKind.RAISED, error=failure))

    def ring(self) -> None:
        """Interrupt the body."""
        self.send(Frame.CANCEL)
        self._ring_bell()

    def resume_writing(self) -> None:
        """All is written: a cancel behind a large request too, which its bell has overtaken."""
        if self.running is not None and self.running.is_asked:
            self._ring_bell()

    def _ring_bell(self) -> None:
        if self.pid is not None and DOORBELL is not None:
            self._nursery.signal(self.pid, DOORBELL)

    def kill(self) -> None:
        """End it now: by its leash, and where there is none, by its nursery."""
        self.is_killed = True
        self._cut_leash()
        if self.pid is not None:
            self._nursery.signal(self.pid, signal.SIGKILL)

    def retire(self) -> None:
        """Let it end, once it is idle."""
        self.is_retiring = True
        if self.running is None and not self._has_code and not self._is_cut:
            self.send(Frame.EXIT)
            self._wait(LEAVE_S, self._on_lingering)

    def _on_lingering(self) -> None:
        """It does not end: a thread that a body has left there holds it up, or what was registered for the end."""
        log.warning("a process that has run its last body has not ended after %g s; it is killed", LEAVE_S)
        self.kill()

    # -- what it says ----------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> bytearray:
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._frames.feed(self._buffer[:nbytes])
        while (frame := self._frames.take()) is not None:
            self._hear(*frame)

    def _hear(self, kind: Frame, data: bytes) -> None:
        running = self.running
        if kind is Frame.READY:
            self.is_ready = True
            self._is_heard()
            self._crew.on_ready(self)
        elif kind is Frame.UNLOADABLE:
            why, trace = from_json(data)
            self.why_not = why
            self._is_heard()
            self._crew.on_unloadable(self, why, trace)
            self.retire()
        elif kind is Frame.MEMORY:
            self.memory_kib = int(data)
        elif running is None:
            pass  # the last words of a body that is over
        elif kind is Frame.STARTED:
            running.on_begun()
        elif kind is Frame.ENDED:
            self._end_body(outcome_of(running.call, data))
        elif kind is Frame.ENDED_FILE:
            self._crew.spawn(self._read_large(running, Path(os.fsdecode(data))))
        else:
            running.tell(kind, data)

    async def _read_large(self, running: Running, path: Path) -> None:
        def read() -> Outcome:
            try:
                return outcome_of(running.call, path.read_bytes())
            finally:
                path.unlink(missing_ok=True)

        try:
            outcome = await in_thread(read)
        except Exception as error:  # likewise
            remove(self._files)
            outcome = Outcome(OutcomeKind.RAISED, error=error)
        if self.running is running:  # else it died meanwhile, or was killed
            self._end_body(outcome)

    def _end_body(self, outcome: Outcome) -> None:
        running, self.running = self.running, None
        if self.is_retiring:
            self.retire()
        # First the child, then the outcome: who hears of the outcome may submit into this slot.
        self._crew.on_idle(self)
        if running is not None:
            running.request = b""
            running.on_over(outcome)

    # -- how it ends -----------------------------------------------------------------------

    def on_started(self, pid: int) -> None:
        self.pid = pid
        if self.is_killed:
            self._nursery.signal(pid, signal.SIGKILL)

    def desert(self) -> None:
        """End it without a loop: that of the app is closed."""
        self._cut_leash()

    def drop(self) -> None:
        """Forget it: its executor has stopped."""
        self._close()

    def on_unstarted(self, why: str) -> None:
        self.why_not = self.why_not or why
        self.on_ended(None)

    def on_ended(self, code: int | None) -> None:
        """Its nursery tells how it ended, or that nobody will."""
        if code is None and self.pid is not None and not self._is_cut:
            self._has_code = True  # as much as there will ever be; its socket tells when
            return
        self._has_code, self.code = True, code
        if self._is_cut:
            self._close()
        else:
            self._wait(LAST_WORDS_S, self._close)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # whatever it was, nothing more comes
        self._is_cut = True
        if self._has_code:
            self._close()
        else:
            self._wait(NEWS_S, self._close)

    def _wait(self, seconds: float, call: Callable[[], None]) -> None:
        self._is_heard()
        self._timer = self._loop.call_later(seconds, call)

    def _is_heard(self) -> None:
        """What was waited for has come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        """It is gone."""
        if self.is_over:
            return
        self.is_over = self._is_cut = True
        self._let_go()
        remove(self._files)
        self._crew.on_gone(self)
        running, self.running = self.running, None
        if running is not None:
            running.on_dead(self.code)
        self.over.set()

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._cut_leash()

    def _cut_leash(self) -> None:
        if self._leash >= 0:
            leash, self._leash = self._leash, -1
            not_for_forks(leash, None)
            with contextlib.suppress(OSError):
                os.close(leash)
