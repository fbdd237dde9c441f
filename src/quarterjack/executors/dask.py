"""Bodies on a Dask cluster. Needs ``quarterjack[dask]``, here and on the cluster.

    heavy = DaskExecutor("tcp://10.0.0.5:8786")         # or a Client, or a cluster such as LocalCluster

    @app.task(executor=heavy, timeout=600, retry=3)
    def render(page: int) -> str: ...

Dask is a pair of hands. Which attempt counts, how long it may take and what it
gave stands in the app's own store; to Dask, an attempt is one task. Its worker
does not run the body in one of its threads, which nobody could end, but in a
process beside it (`_relay`), and asks before it begins (`_dask_fence`): Dask
itself runs a task anew whose worker died."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, ClassVar, Final

from quarterjack._numbers import number, shown, whole_number
from quarterjack.errors import InvalidOption, MissingExtra

from ._chores import Chores
from ._desk_executor import DeskExecutor
from ._frames import LARGE
from ._loading import is_loading
from ._outage import Outage
from ._remote import outcome_of, request_of
from .base import Call, Capabilities, Handle, Home, Report

try:
    from ._dask_errand import Errand
    from ._dask_fence import key_of
    from ._dask_link import Link, address_of
    from ._dask_message import Message
    from ._dask_worker import run_body, stop_body
except ImportError as error:
    raise MissingExtra("the Dask executor", "dask") from error

__all__ = ["DaskExecutor"]

log = logging.getLogger("quarterjack.dask")

HAND_OVER_S: Final = (0.2, 5.0)
"""Before an attempt is handed over again that no scheduler took: the first and the longest pause."""


class DaskExecutor(DeskExecutor):
    """Runs bodies of the app's tasks on a Dask cluster.

    Args:
        cluster: Where its scheduler is: an address, a ``Client`` or a cluster. None is what Dask is configured for
            (``DASK_SCHEDULER_ADDRESS``). The executor opens a client of its own there, on the app's loop.
        slots: How many bodies are out at once.
        resources: What Dask's workers must have for each, such as ``{"GPU": 1}``.
        name: Its name in messages.

    Raises:
        InvalidOption: If *cluster* is nothing of the kind, *slots* is no whole number from 1, or *resources* are no
            numbers from 0 by their names.
    """

    is_remote: ClassVar[bool] = True
    handed_to = "Dask"
    capabilities: ClassVar[Capabilities] = Capabilities(
        can_cancel_queued=True,
        can_interrupt=True,
        can_kill=True,
        can_report_start=True,
        can_report_progress=True,
        survives_worker_restart=False,
        submit_is_idempotent=True,
        runs_coroutines=True,
    )

    def __init__(
        self,
        cluster: Any = None,
        *,
        slots: int = 100,
        resources: Mapping[str, float] | None = None,
        name: str = "dask",
    ) -> None:
        self.name, self.slots = name, whole_number(slots, "slots", 1)
        self._cluster = cluster
        self._address = None if is_loading() else address_of(cluster)  # a Dask worker need not know how it is found
        self._resources = None if resources is None else _checked(resources)
        self._home: Home
        self._link: Link
        self._outage = Outage("Dask", HAND_OVER_S[1], log)
        self._errands: dict[str, Errand] = {}
        self._chores = Chores()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address!r}, slots={self.slots})"

    # -- the contract ------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        return self._outage.words

    async def start(self, home: Home) -> None:
        self._desk = self._new_desk(home)
        self._home = home
        self._errands, self._chores = {}, Chores()  # an app that ended without stopping it may have left some
        self._outage = Outage("Dask", HAND_OVER_S[1], log, home.clock)
        self._link = Link(self._cluster, self._on_news, self._on_event)

    async def warm(self) -> None:
        self._home.find_app()
        self.chore(self._warm())

    async def _warm(self) -> None:
        pause_s = HAND_OVER_S[0]
        while True:
            try:
                await self._link.client()
            except Exception as error:  # whatever Dask raises
                self._outage.failed(f"its scheduler at {self._address} is out of reach", error)
            else:
                self._outage.worked()
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, HAND_OVER_S[1])

    def submit(self, call: Call, report: Report) -> Handle:
        desk = self._desk_with_room()
        app, request = self._home.find_app(), request_of(call)  # what cannot travel is refused before anything is sent
        message = Message(desk, call, report, self)
        errand = self._errands.get(call.ref)
        if errand is None or errand.is_ending:
            errand = self._errands[call.ref] = Errand(call, app, request)
            errand.task = self._chores.do(self._carry(errand))
        errand.messages.append(message)
        if errand.future is not None:  # the same attempt once more: it shares what becomes of it
            message.may_begin()
            desk.loop.call_soon(message.on_accepted)
        return message

    async def stop(self, grace_s: float) -> None:
        desk, self._desk = self._desk, None
        if desk is None:
            return
        try:
            await self._end_all(desk, grace_s)
        finally:
            await self._chores.end()
            await self._link.close()

    # -- there and back ----------------------------------------------------------------

    async def _carry(self, errand: Errand) -> None:
        try:
            payload = await self._hand_over(errand)
            if payload is not None and self._send(errand, payload):
                answer: bytes = await errand.future
                errand.tell(partial(outcome_of, data=answer))
        except Exception as error:  # Dask's; `run_body` itself answers with all that there is to say
            errand.tell_failure(error)
        finally:
            errand.release()
            if self._errands.get(errand.ref) is errand:
                del self._errands[errand.ref]

    async def _hand_over(self, errand: Errand) -> Any:
        """Return what Dask's task is to bring to the body, once its scheduler is there; None if nobody wants that."""
        pause_s = HAND_OVER_S[0]
        while errand.is_wanted:
            try:
                payload = await self._open(errand)
            except ImportError:  # there is a scheduler, without quarterjack
                raise
            except Exception as error:  # whatever Dask raises when its scheduler is away
                self._outage.failed(f"job {errand.ref} could not be handed over", error)
            else:
                self._outage.worked()
                return payload
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, HAND_OVER_S[1])
        return None

    async def _open(self, errand: Errand) -> Any:
        errand.client = client = await self._link.ready(errand.key)
        payload = errand.request
        if len(payload) > LARGE:
            # A task that brings so much makes Dask warn.
            payload = errand.hold(await client.scatter(payload, hash=False))
        if not self._link.has(client):  # else it would reach a scheduler that knows no fence for it, or none
            raise ConnectionError("its scheduler has left meanwhile")
        return payload

    def _send(self, errand: Errand, payload: Any) -> bool:
        """Hand an attempt to Dask; False if it was withdrawn meanwhile."""
        taken = [message for message in errand.messages if message.may_begin()]  # from now on nobody withdraws it here
        if taken:
            call = errand.call
            future = errand.client.submit(
                run_body,
                payload,
                list(errand.app),
                call.task,
                call.ref,
                errand.client.id,
                call.cancel_grace_s,
                key=errand.key,
                pure=False,
                retries=0,
                resources=self._resources,
            )
            errand.future = errand.hold(future)
        for message in taken:
            message.on_accepted()
        return bool(taken)

    async def withdraw(self, message: Message) -> bool:
        """Say whether a body has not begun, and have it never begin."""
        return await self._link.withdraw(key_of(message.call.task, message.call.ref)) is None

    async def interrupt(self, message: Message, reason: str) -> bool:
        """Withdraw a body that has not begun, and say so; else interrupt it there."""
        call = message.call
        address = await self._link.withdraw(key_of(call.task, call.ref))
        if address is None:
            return True
        await self._link.run(address, stop_body, call.ref, reason)
        return False

    def part(self, message: Message) -> None:
        """Carry an attempt no further once nobody waits for it; while it is handed over, that is seen there."""
        errand = self._errands.get(message.call.ref)
        if errand is None or errand.future is None or errand.is_wanted:
            return
        if errand.task is not asyncio.current_task():
            errand.is_ending = True
            errand.task.cancel()

    # -- what is heard -----------------------------------------------------------------

    def _on_news(self, news: Mapping[str, Any]) -> None:
        errand = self._errands.get(news.get("ref", ""))
        if errand is None:  # its last words, or Dask's own
            return
        for message in errand.messages.copy():
            try:
                message.worker = news["worker"]
                message.on_news(news["kind"], news["value"])
            except Exception:  # the result's type is the user's code; Dask would hear nothing more
                log.exception("what a Dask worker tells of %s cannot be read", errand.ref)

    def _on_event(self, event: Mapping[str, Any]) -> None:
        if event.get("action") == "remove-worker":
            for errand in self._errands.values():
                for message in errand.messages:
                    if message.is_begun and message.worker == event.get("worker"):
                        message.on_removed()

    def chore(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the loop's other work."""
        self._chores.do(work)


def _checked(resources: Any) -> dict[str, float]:
    by_name: Any = resources
    if not isinstance(resources, Mapping) or not all(isinstance(name, str) for name in by_name):
        raise InvalidOption(f'resources must be numbers by their names, such as {{"GPU": 1}}, got {shown(by_name)}')
    return {name: number(value, f"resources[{name!r}]", 0) for name, value in by_name.items()}
