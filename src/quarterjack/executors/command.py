"""Commands: a body says what to run, and the exit code and the output are the job's.

No shell, unless the command asks for one. Each runs in a session of its own, so
that a cancel or a timeout reaches all that it has started: SIGTERM, and SIGKILL
after the grace. Its end is that of its first process, told by a thread that
waits for it; who else holds its output open is not waited for. (asyncio's own
subprocesses wait for both.) Output is kept in constant memory, see `_output`.

On Linux the kernel kills a command whose app is gone, as it does with children
of the process pool."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Final, cast

from quarterjack._numbers import whole_number
from quarterjack.command import Command
from quarterjack.errors import BodyDied, CommandFailed, InvalidOption
from quarterjack.model import ErrorInfo, Outcome, OutcomeKind

from ._away import UNKILLABLE_S, Away, Desk, Killable
from ._desk_executor import DeskExecutor
from ._leash import fasten_group, has_leash, not_for_forks, unfasten
from ._output import Output
from .base import Call, Capabilities, Home, Report
from .thread import default_slots

__all__ = ["CommandExecutor"]

log = logging.getLogger("quarterjack.executors")

CHUNK: Final = 64 * 1024
_NEVER: Final = frozenset({errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.E2BIG, errno.ENOEXEC, errno.ELOOP})
"""What starting it once more would not mend."""
UNKNOWN_END: Final = "nobody knows how it ended: SIGCHLD is ignored in this process, or others took its exit code"


class CommandExecutor(DeskExecutor):
    """Runs up to *slots* commands at once.

    Args:
        slots: How many; None is one per processor and four more, at most 32.
        name: What it is called in logs.

    Raises:
        InvalidOption: If *slots* is no whole number from 1.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        can_cancel_queued=True,
        can_interrupt=True,
        can_kill=True,
        can_report_start=True,
        can_report_progress=True,
        survives_worker_restart=False,
        submit_is_idempotent=False,
        runs_coroutines=True,
    )
    runs_commands: ClassVar[bool] = True

    def __init__(self, slots: int | None = None, name: str = "command") -> None:
        self.slots = default_slots() if slots is None else whole_number(slots, "slots", 1)
        self.name = name

    async def start(self, home: Home) -> None:
        """Bind to the running loop.

        Raises:
            UsageError: If another app uses it.
        """
        self._desk = self._new_desk(home)

    def submit(self, call: Call, report: Report) -> Away:
        """Ask the body what to run, and run it.

        Raises:
            ExecutorFull: If all slots are taken.
            ExecutorClosed: If it is not started, or was stopped.
        """
        desk = self._desk_with_room()
        running = _Running(desk, call, report)
        running.begin()
        return running

    async def stop(self, grace_s: float) -> None:
        """End every command: SIGTERM, and after *grace_s* seconds SIGKILL."""
        desk, self._desk = self._desk, None
        if desk is None:
            return
        await self._end_all(desk, grace_s, partial(_all_gone, desk))


async def _all_gone(desk: Desk) -> None:
    """Wait for what was killed; a coroutine that is to say what to run, and goes on, is not waited for."""
    killed = [away for away in desk.out if isinstance(away, _Running) and not away.is_asking]
    await desk.wait_for(killed, UNKILLABLE_S)


class _Running(Killable):
    """One command; the handle the runtime holds."""

    __slots__ = ("_command", "_fd", "_leash", "_output", "_pid", "_signalled", "_task", "is_asking")

    def __init__(self, desk: Desk, call: Call, report: Report) -> None:
        super().__init__(desk, call, report)
        self._command: Command | None = None
        self._output = Output(report.progress)
        self._task: asyncio.Task[None] | None = None
        self.is_asking = False
        """Its body is at work: the coroutine function that says what to run."""
        self._pid = 0
        self._signalled = 0
        """The last signal that it was to get."""
        self._fd = -1
        self._leash = -1, -1

    # -- what to run: on the loop ------------------------------------------------------------

    def begin(self) -> None:
        """Ask the body, in its own context; a coroutine function is awaited. With that its run begins."""
        loop = self.desk.loop
        if self.call.is_coroutine:
            self._task = loop.create_task(self._ask_later(), context=self.call.context)
        else:
            loop.call_soon(self._ask_now, context=self.call.context)

    def _ask_now(self) -> None:
        if not self.may_begin():
            return
        self.began()
        try:
            planned = self.call.fn(*self.call.args, **self.call.kwargs)
        except BaseException as error:  # the user's code ran here
            self._fail(error)
            return
        self._plan(planned)

    async def _ask_later(self) -> None:
        if not self.may_begin():
            return
        self.began()
        self.is_asking = True
        try:
            planned = await self.call.fn(*self.call.args, **self.call.kwargs)
        except BaseException as error:  # likewise
            self._fail(error)
            return
        finally:
            self.is_asking = False
        self._plan(planned)

    def _fail(self, error: BaseException) -> None:
        kind = OutcomeKind.CANCELLED if isinstance(error, asyncio.CancelledError) else OutcomeKind.RAISED
        self.finished(Outcome(kind, error=error))

    def _plan(self, planned: Any) -> None:
        if self.is_asked:  # it made nothing of that, and now nobody wants to run it
            self.finished(Outcome(OutcomeKind.CANCELLED))
            return
        try:
            self._command = planned if isinstance(planned, Command) else _command_of(planned)
        except InvalidOption as error:
            self.finished(Outcome(OutcomeKind.REJECTED, error=error, reason=str(error)))
            return
        try:
            threading.Thread(target=self._run, args=(self._command,), name="qj-command", daemon=True).start()
        except RuntimeError as error:  # too many threads: later there may be room
            self._fail(error)

    # -- running it: in a thread -----------------------------------------------------------------

    def _run(self, command: Command) -> None:
        if self.is_asked:  # since it was planned
            self.finished(Outcome(OutcomeKind.CANCELLED))
            return
        try:
            process, fd, leash = _popen(command)
        except Exception as error:  # such as a text that the system has no bytes for
            self.finished(_not_started(command, error))
            return
        self.desk.post(self._started, (process.pid, fd, leash))
        self.desk.post(self._on_exit, (process, _ended(process)))

    # -- on the loop ---------------------------------------------------------------------------

    def _started(self, found: tuple[int, int, tuple[int, int]]) -> None:
        self._pid, self._fd, self._leash = found
        os.set_blocking(self._fd, False)
        self.desk.loop.add_reader(self._fd, self._read)
        if self._signalled:  # between its start and this letter about it
            self._signal(self._signalled)

    def _read(self) -> bool:
        """Take some output; False once there is none, now or at all."""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.desk.loop.remove_reader(self._fd)
            return False
        self._output.feed(data)
        return True

    def _on_exit(self, found: tuple[subprocess.Popen[bytes], int | None]) -> None:
        process, code = found
        if self.is_asked:
            self._signal(signal.SIGKILL)  # what it started and left behind
        process.wait()
        self._pid = 0
        for _ in range(16):  # what fits into a pipe; another process may go on filling it
            if not self._read():
                break
        self._let_go()
        self._disarm()
        outcome = self._outcome(code)
        self.outcome = outcome
        self._ended_mono_ns = self.desk.clock.monotonic_ns()
        self._on_finished(outcome)

    def _outcome(self, code: int | None) -> Outcome:
        command, text = self._command, self._output.text()
        if command is None:
            raise AssertionError
        if self.is_asked:
            what = f"{_name(command)} was ended"
            return Outcome(OutcomeKind.CANCELLED, info=ErrorInfo("CommandEnded", what, text))
        if code is None:
            died = BodyDied(None, UNKNOWN_END)
            return Outcome(OutcomeKind.DIED, error=died, reason=str(died), info=ErrorInfo("BodyDied", str(died), text))
        if code in command.ok_codes:
            return Outcome(OutcomeKind.DONE, command.ended(code, text, self._output.size))
        error = CommandFailed(_name(command), code, text)
        return Outcome(OutcomeKind.RAISED, error=error, info=ErrorInfo("CommandFailed", str(error), text, error))

    def _let_go(self) -> None:
        self.desk.loop.remove_reader(self._fd)
        not_for_forks(self._leash[1], None)
        unfasten(self._leash[0])  # what it has left running on purpose goes on
        for fd in (self._fd, *self._leash):
            with contextlib.suppress(OSError):
                os.close(fd)

    def _signal(self, number: int) -> None:
        self._signalled = number
        if self._pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)

    def interrupt(self, reason: str) -> None:
        """Cancel the body that says what to run; tell the command and all that it has started to end."""
        if self.is_asking and self._task is not None:
            self._task.cancel(reason)
        else:
            self._signal(signal.SIGTERM)
        self.arm(self.call.cancel_grace_s, self.kill)

    def kill(self) -> None:
        """End them now; the thread that waits tells when. A coroutine cannot be killed."""
        if self.is_asking:
            self.give_up()
            return
        self._signal(signal.SIGKILL)
        self.arm(UNKILLABLE_S, self.give_up)


def _popen(command: Command) -> tuple[subprocess.Popen[bytes], int, tuple[int, int]]:
    """Start a command; return it with our end of its output's pipe, and both ends of its leash.

    Raises:
        OSError: If the system does not start it.
        ValueError: If it cannot, such as for a text that the system has no bytes for.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        read, write = os.pipe()
        ours.callback(os.close, read)
        theirs.callback(os.close, write)
        held, leash = os.pipe()
        ours.callback(os.close, leash)
        ours.callback(os.close, held)
        process = subprocess.Popen(  # noqa: S603  # to run what the user says is what this is for
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(held,) if has_leash() else (),
            cwd=command.cwd,
            env=None if command.env is None else {**os.environ, **command.env},
        )
        fasten_group(held, process.pid)
        not_for_forks(leash, partial(os.close, leash))
        ours.pop_all()
        return process, read, (held, leash)


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for the end of a process; return its exit code, None if that went to somebody else.

    Where the system can, it is not buried yet: its number is that of its group, the rest of which may have to be ended.
    """
    try:
        if has_leash() and hasattr(os, "waitid"):
            told = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            return None if told is None else told.si_status * (1 if told.si_code == os.CLD_EXITED else -1)
        process.returncode = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
    except ChildProcessError:
        return None
    return process.returncode


def _command_of(planned: Any) -> Command:
    if isinstance(planned, Sequence) and not isinstance(planned, str | bytes):
        return Command(cast("Sequence[str]", planned))
    raise InvalidOption(
        f"the body of a command says what to run: a list such as ['pg_dump', 'shop'], or a Command, got {planned!r}"
    )


def _name(command: Command) -> str:
    return command.words if isinstance(command.words, str) else command.words[0]


def _not_started(command: Command, error: Exception) -> Outcome:
    text = f"{_name(command)} cannot be started: {_why(command, error)}"
    if isinstance(error, ValueError | TypeError) or (isinstance(error, OSError) and error.errno in _NEVER):
        error.__traceback__ = None  # the way through our own lines tells nobody anything
        return Outcome(OutcomeKind.REJECTED, error=error, reason=text, info=ErrorInfo(type(error).__name__, text))
    return Outcome(OutcomeKind.RAISED, error=error)  # no memory, or too many processes: later there may be room


def _why(command: Command, error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if error.errno == errno.E2BIG:
        return "its arguments are longer than the system takes; put them into a file"
    if error.errno == errno.ENOENT and command.cwd is not None and not os.path.isdir(command.cwd):  # noqa: PTH112
        return f"there is no folder {command.cwd!r}"
    if error.errno == errno.ENOENT:
        return "there is no such program"
    return error.strerror or str(error)
