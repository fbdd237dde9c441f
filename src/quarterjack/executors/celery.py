"""Bodies on a Celery cluster: our tasks inside its workers, or its own tasks by name. Needs ``quarterjack[celery]``.

    heavy = CeleryExecutor(celery)                      # bodies of ours, in workers that call serve_bodies()
    theirs = CeleryTask("shop.add", celery)             # a task that is theirs already

    @app.task(executor=heavy)
    def render(page: int) -> str: ...

    @app.task(Every(minutes=5), executor=theirs)
    def add(x: int = 1, y: int = 2) -> int: ...         # its body is never run: it says what the task takes and gives

Celery is a pair of hands. Which attempt counts, how long it may take and what it
gave stands in the app's own store; a message is one attempt, its id is
``<job>.<attempt>``, and Celery's own retries, acknowledgements and results are
used for nothing but carrying it. Results come from Redis or Valkey."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from pydantic_core import from_json, to_json

from quarterjack._choices import name_or_none
from quarterjack._durations import NS_PER_S
from quarterjack._numbers import whole_number
from quarterjack.errors import InvalidOption, MissingExtra
from quarterjack.model import Outcome, OutcomeKind

from ._chores import Chores
from ._desk_executor import DeskExecutor
from ._outage import Outage
from ._remote import HasBodies, outcome_of, request_of
from .base import Call, Capabilities, Handle, Home, Report

try:
    from celery.exceptions import QueueNotFound

    from ._celery_client import Client, Letter, client_of
    from ._celery_ledger import Ledger
    from ._celery_message import Message
    from ._celery_results import check_results
    from ._celery_search import Search
    from ._celery_worker import TASK, serve
except ImportError as error:
    if isinstance(error, MissingExtra):
        raise
    raise MissingExtra("the Celery executor", "celery") from error

__all__ = ["CeleryExecutor", "CeleryTask", "serve_bodies"]

log = logging.getLogger("quarterjack.celery")

HAND_OVER_S: Final = (0.2, 5.0)
"""Before a message is sent again that the broker did not take: the first and the longest pause."""
MORE_S: Final = 30.0
"""Celery's own time limit stands this far behind ours: it ends what no worker of ours watches any more."""


def serve_bodies(celery: Any, app: HasBodies | str) -> None:
    """Let the workers of a Celery app run the bodies of *app*'s tasks; call it in a module that they import.

    Args:
        celery: The Celery app.
        app: The Quarterjack app, or ``"module:attribute"``, imported when the first body is to run.

    Raises:
        InvalidOption: If its workers run the bodies of another app already.
    """
    serve(celery, app)


class CeleryExecutor(DeskExecutor):
    """Runs bodies of the app's own tasks in Celery workers that call `serve_bodies`.

    Attributes are set by the arguments:

    Args:
        celery: The Celery app; its result backend must be Redis or Valkey.
        queue: The Celery queue that the workers consume; None for the app's default.
        slots: How many bodies are out at once.
        name: Its name in messages.

    Raises:
        InvalidOption: If its results are kept elsewhere, *queue* is no text, or *slots* is no whole number from 1.
    """

    is_remote = True
    handed_to = "Celery"
    _is_fenced: ClassVar[bool] = True
    """Its bodies ask before they begin, and say that they are there."""
    capabilities: ClassVar[Capabilities] = Capabilities(
        can_cancel_queued=True,
        can_interrupt=True,
        can_kill=True,
        can_report_start=True,
        can_report_progress=True,
        survives_worker_restart=True,
        submit_is_idempotent=True,
        runs_coroutines=True,
    )

    def __init__(self, celery: Any, *, queue: str | None = None, slots: int = 100, name: str = "celery") -> None:
        self.name, self.slots = name, whole_number(slots, "slots", 1)
        check_results(celery)
        self._celery, self._queue = celery, name_or_none(queue, "queue", "heavy")
        self._client: Client
        self._ledger: Ledger
        self._stopped: Ledger | None = None
        self._search: Search
        self._outage = Outage("Celery", HAND_OVER_S[1], log)
        self._chores = Chores()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._celery.main!r}, queue={self._queue!r}, slots={self.slots})"

    # -- the contract ------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        return self._outage.words

    async def start(self, home: Home) -> None:
        """Begin to listen for results, on connections that are made when they can be.

        Raises:
            UsageError: If another app uses the executor.
        """
        self._desk, self._chores = self._new_desk(home), Chores()
        self._ledger = Ledger(self._celery, is_fenced=self._is_fenced)
        self._ledger.start()
        self._client = client_of(self._celery)
        if self._is_fenced:
            self._search = Search(self._ledger.messages, self._missing, self._send_again)
            self.chore(self._search.run())

    def submit(self, call: Call, report: Report) -> Handle:
        return self._begin(call, report, before=None)

    def reattach(self, ref: str, call: Call, report: Report) -> Handle | None:
        """Take up the body of an earlier attempt, *ref* or one before it, that still runs; else submit *call*."""
        return self._begin(call, report, before=ref)

    def leave(self, handle: Handle) -> None:
        assert isinstance(handle, Message)  # noqa: S101  # ours, or the caller is broken
        handle.leave()

    def settled(self, ref: str, *, is_stored: bool) -> None:
        for ledger in (self._ledger, self._stopped):
            if ledger is not None:
                ledger.settled(ref, is_stored=is_stored)

    async def all_settled(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            await stopped.close()

    async def stop(self, grace_s: float) -> None:
        desk, self._desk = self._desk, None
        if desk is None:
            return
        try:
            await self._end_all(desk, grace_s)
        finally:
            self._stopped = self._ledger
            await self._chores.end()
            self._client.close()
            await self._ledger.close()

    # -- messages ----------------------------------------------------------------------

    def _begin(self, call: Call, report: Report, *, before: str | None) -> Handle:
        desk = self._desk_with_room()
        letter = self._letter(call)  # what cannot travel is refused before anything is sent
        message = Message(desk, call, report, self, is_sent=before is not None)
        handing_over = self.chore(self._hand_over(message, letter, before=before))
        if before is not None:
            message.looking = handing_over
        return message

    def _letter(self, call: Call) -> Letter:
        return Letter(TASK, [request_of(call).decode()], {})

    async def _hand_over(self, message: Message, letter: Letter, *, before: str | None) -> None:
        pause_s = HAND_OVER_S[0]
        while message in message.desk.out and (before is not None or not message.is_asked):
            if not self._is_fenced and message.is_sent and message.is_too_late:
                message.on_doubt()
                return
            try:
                if before is not None and await self._ledger.take_up(message, before):
                    message.on_accepted()
                    await self._ledger.results.look()
                elif not message.is_asked:
                    await self._send(message, letter)
            except QueueNotFound as error:
                message.on_refused(f"Celery does not take it: {error.args[0]}")
                return
            except Exception as error:  # of kombu's transports, or of redis-py
                self._outage.failed(f"job {message.ref} could not be handed over", error)
            else:
                self._outage.worked()
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, HAND_OVER_S[1])

    async def _send(self, message: Message, letter: Letter) -> None:
        await self._ledger.watch(message)
        is_new = not self._is_fenced or await self._ledger.results.want(message.ref)
        if message.is_over:
            return
        if is_new:
            limits = self._limits(message.call)
            message.expires = limits.get("expires")
            await self._client.publish(letter, message.ref, may_send=message.may_send, queue=self._queue, **limits)
            message.on_accepted()
        elif message.may_send():
            message.on_accepted()
            message.on_begun()

    async def _send_again(self, message: Message) -> None:
        await self._send(message, self._letter(message.call))

    async def _missing(self, refs: list[str]) -> set[str]:
        return await self._client.missing(refs, TASK, self._queue)

    def _limits(self, call: Call) -> dict[str, Any]:
        """Return what ends a body that no worker of ours watches any more."""
        return {} if call.timeout_s is None else {"time_limit": call.timeout_s + call.cancel_grace_s + MORE_S}

    # -- what messages ask ---------------------------------------------------------------

    def outcome_of(self, call: Call, result: Any) -> Outcome:
        """Return what a result says."""
        return outcome_of(call, result.encode())

    def part(self, message: Message, end: OutcomeKind) -> None:
        """Watch a message no more."""
        self._ledger.part(message, end)

    async def withdraw(self, message: Message) -> bool:
        """Say whether a body has not begun, and have it never begin."""
        return await self._ledger.results.withdraw(message.ref)

    async def interrupt(self, message: Message) -> bool:
        """Withdraw a body that has not begun, and say so; else have it raise where it stands.

        Not by Celery's own revoke: a worker that was told to interrupt a task forgets it, and cannot kill it later.
        """
        return await self._ledger.results.withdraw(message.ref, "stop")

    async def kill(self, message: Message) -> None:
        """End the process that runs the body."""
        await self._client.revoke(message.ref, "SIGKILL")

    def chore(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the loop's other work."""
        return self._chores.do(work)


class CeleryTask(CeleryExecutor):
    """Runs a task of theirs by its name; the function that it is given to only says what the task takes and gives.

    Args:
        task: The task's name in their workers.
        celery: The Celery app, as for `CeleryExecutor`.
        queue: The Celery queue; None for what the app's routes say.
        slots: How many are out at once.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        can_cancel_queued=True,
        can_interrupt=False,
        can_kill=True,
        can_report_start=False,
        can_report_progress=False,
        survives_worker_restart=False,
        submit_is_idempotent=False,
        runs_coroutines=True,
    )

    _is_fenced = False

    def __init__(self, task: str, celery: Any, *, queue: str | None = None, slots: int = 100) -> None:
        if not isinstance(task, str) or not task:
            raise InvalidOption(
                f"CeleryTask takes the name of a task of theirs, and their Celery app; got {task!r} first"
            )
        super().__init__(celery, queue=queue, slots=slots, name=f"celery:{task}")
        self.task = task

    def _letter(self, call: Call) -> Letter:
        args, kwargs = from_json(call.payload())
        return Letter(self.task, args, kwargs)

    def _limits(self, call: Call) -> dict[str, Any]:
        """Return, besides, until when its message may be taken: a revoke is forgotten by workers that are not there."""
        limits = super()._limits(call)
        ends = [] if call.deadline_ns is None else [call.deadline_ns / NS_PER_S]
        if call.timeout_s is not None and self._desk is not None:
            ends.append(self._desk.clock.now_ns() / NS_PER_S + call.timeout_s)
        return {**limits, "expires": datetime.fromtimestamp(min(ends), UTC)} if ends else limits

    async def withdraw(self, message: Message) -> bool:
        """Say no: nobody knows whether it has begun."""
        del message
        return False

    def reattach(self, ref: str, call: Call, report: Report) -> Handle | None:
        """Find nothing: a task of theirs does not say whether it has begun."""
        del ref, call, report
        return None

    def outcome_of(self, call: Call, result: Any) -> Outcome:
        return Outcome(OutcomeKind.DONE, call.read_result(to_json(result)))

    async def interrupt(self, message: Message) -> bool:
        """Have its worker end its process; one that has not begun is dropped by the worker that meets it."""
        await self._client.revoke(message.ref, "SIGTERM")
        return False
