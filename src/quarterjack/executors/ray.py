"""Bodies on a Ray cluster. Needs ``quarterjack[ray]``.

    heavy = RayExecutor("auto", num_cpus=2)

    @app.task(executor=heavy)
    def train(rows: int) -> float: ...

A body is one Ray task that Ray never tries again; which attempt counts, how long
it may take and what it gave stands in the app's own store. The app's tasks must
be importable where Ray's workers run. Names and JSON travel, never code.

Ray is spoken to by a process of its own (`_ray_driver`): it ends a driver that
has lost its cluster, and that must not be the app. When the app ends, however
that comes, so does that process, and with it Ray ends the bodies."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import logging
import sys
from collections import deque
from collections.abc import Mapping, Sized
from contextvars import copy_context
from functools import partial
from typing import Any, ClassVar, Final

from pydantic_core import PydanticSerializationError, from_json, to_json

from quarterjack._numbers import number, whole_number
from quarterjack.errors import InvalidOption, MissingExtra, UsageError
from quarterjack.model import Outcome, OutcomeKind

from ._desk_executor import DeskExecutor
from ._frames import Frame, numbered
from ._outage import Outage
from ._ray_body import Sent
from ._ray_link import Link
from ._ray_shared import Shared, connection_of
from ._remote import request_of
from ._worker_process import words_of
from .base import Call, Capabilities, Handle, Home, Report

__all__ = ["RayExecutor"]

log = logging.getLogger("quarterjack.ray")

PAUSE_S: Final = (0.5, 30.0)
"""Before Ray is tried again that could not be reached: the first and the longest pause."""
SLOW_S: Final = 10.0
"""Ray itself says after a minute that it cannot connect; after so long the log says that it has not yet."""
BEGINS_S: Final = 30.0
"""How long the log waits with that where Ray may have to begin a local cluster."""
KILLED_S: Final = 5.0
"""How long a stop waits for bodies to end that are killed."""


_numbers: Final = itertools.count(1)
"""Of bodies, in all executors: some share a connection."""


class RayExecutor(DeskExecutor):
    """Runs bodies in the worker processes of a Ray cluster.

    Args:
        address: The cluster, as `ray.init` has it: ``"auto"``, ``"10.0.0.5:6379"``, ``"ray://10.0.0.5:10001"`` from
            a machine that is none of its own (with ``ray[client]``), ``"local"`` for one that is begun
            here and ends with the executor. None: the one of the variable RAY_ADDRESS, else the one that was started
            on this machine, else a local one.
        num_cpus: How many processors Ray sets aside for a body; a part of one is allowed.
        num_gpus: How many GPUs.
        resources: What else a body needs, by name, as the cluster's nodes offer it.
        slots: How many bodies are out at once; those for which the cluster has no room wait in its queue.
        init: More keywords for `ray.init`, such as ``{"runtime_env": {"working_dir": "."}}``; they are sent to
            another process, so they must be JSON.
        name: Its name in messages.

    Raises:
        InvalidOption: If one of them is not that.
        MissingExtra: If Ray is not installed.
        UsageError: If the address needs Ray's client, and that is not installed.
    """

    is_remote = True
    handed_to = "Ray"
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

    def __init__(
        self,
        address: str | None = None,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        resources: Mapping[str, float] | None = None,
        slots: int = 100,
        init: Mapping[str, Any] | None = None,
        name: str = "ray",
    ) -> None:
        spec = importlib.util.find_spec("ray")
        if spec is None or spec.origin is None:
            raise MissingExtra("the Ray executor", "ray")
        needs = {
            "num_cpus": number(num_cpus, "num_cpus", 0),
            "num_gpus": number(num_gpus, "num_gpus", 0),
            "resources": {key: number(value, f"resources[{key!r}]", 0) for key, value in (resources or {}).items()},
        }
        self._needs = to_json(needs)
        self.name, self.slots = name, whole_number(slots, "slots", 1)
        self._address = _checked(address)
        self._init = _as_json(init or {})
        self._home: Home
        self._link: Link | None = None
        self._shared: Shared | None = None
        self._slow: asyncio.TimerHandle | None = None
        self._waiting: deque[Sent] = deque()
        self._out: dict[int, Sent] = {}
        self._again: asyncio.TimerHandle | None = None
        self._pause_s = PAUSE_S[0]
        self._outage = Outage("Ray", PAUSE_S[1], log)
        self._reason = ""
        """Why Ray could not be reached this time."""
        self._owes_reason = False
        """It was told that Ray does not answer, and not yet why."""
        self._context = copy_context()

    def __repr__(self) -> str:
        return f"RayExecutor({self._address!r}, slots={self.slots})"

    # -- the contract ----------------------------------------------------------------------

    @property
    def trouble(self) -> str | None:
        return self._outage.words

    async def start(self, home: Home) -> None:
        """Bind to the running loop; Ray is connected to when a task names this executor, or with the first body."""
        self._desk, self._home, self._context = self._new_desk(home), home, copy_context()
        self._pause_s = PAUSE_S[0]
        self._link = self._shared = self._slow = self._again = None  # of an app that ended without stopping it
        self._waiting.clear()
        self._out.clear()

    async def warm(self) -> None:
        """Begin to connect; nobody waits for that, and an app whose cluster is away starts all the same."""
        self._connect()

    def submit(self, call: Call, report: Report) -> Handle:
        """Hand a call to Ray, or have it wait until there is a connection.

        Raises:
            ExecutorFull: If all slots are taken.
            ExecutorClosed: If it is not started, or was stopped.
            InvalidArguments: If the arguments cannot travel.
            UsageError: If no other process could find the app.
        """
        desk = self._desk_with_room()
        self._connect()
        sent = Sent(self, desk, call, report, next(_numbers), request_of(call))
        self._waiting.append(sent)
        self._pump()
        return sent

    async def stop(self, grace_s: float) -> None:
        """Interrupt every body, kill those that are left after *grace_s* seconds, and leave Ray."""
        desk, self._desk = self._desk, None
        if desk is None:
            return
        if self._again is not None:
            self._again.cancel()
            self._again = None
        try:
            await self._end_all(desk, grace_s, partial(desk.wait_for, desk.out, KILLED_S))
        finally:
            await self._hang_up()

    async def _hang_up(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
        if self._shared is not None:
            await self._shared.leave(self)
        self._link = self._shared = self._slow = None
        self._out.clear()

    # -- the connection --------------------------------------------------------------------

    def _connect(self) -> None:
        if self._link is None and self._again is None:
            settings = {"app": list(self._home.find_app()), "address": self._address, "init": self._init}
            self._shared = connection_of(settings, self._context, self)
            self._link = self._shared.link
            self._reason = ""
            slow_s = BEGINS_S if self._address in {None, "local"} else SLOW_S
            self._slow = asyncio.get_running_loop().call_later(slow_s, self._on_slow, slow_s)

    def _on_slow(self, slow_s: float) -> None:
        if self._link is not None and not self._link.is_ready:
            self._owes_reason = self._outage.words is None
            place = "" if self._address is None else f" at {self._address}"
            waits = _jobs(self._waiting, "waits", "wait")
            self._outage.failed(f"{waits} for it", f"Ray{place} has not answered for {slow_s:.0f} s")

    def on_ready(self) -> None:
        """Ray is there."""
        self._pause_s = PAUSE_S[0]
        self._outage.worked()
        self._owes_reason = False
        self._pump()

    def on_unready(self, why: str, trace: str) -> None:
        """Ray could not be reached."""
        self._outage.failed("it could not be connected to", why)
        if self._owes_reason:
            log.warning("Ray could not be connected to: %s", why)
            self._owes_reason = False
        self._reason = why
        log.debug("%s", trace)

    def on_gone(self, link: Link) -> None:
        """The process that spoke to Ray has ended: what it had is lost, what waits goes to the next one."""
        out, self._out = self._out, {}
        if self._slow is not None:
            self._slow.cancel()
        self._link = self._shared = self._slow = None
        why = f"the process that spoke to Ray has ended, perhaps because Ray has: {words_of(link.code)}"
        for sent in out.values():
            sent.on_over(Outcome(OutcomeKind.LOST, reason=why))
        if self._desk is None:
            return
        if out:
            log.warning("%s on Ray: %s", _jobs(out, "is lost", "are lost"), why)
        if self._waiting:
            self._outage.failed(f"{_jobs(self._waiting, 'waits', 'wait')} for it", self._reason or why)
            self._again = asyncio.get_running_loop().call_later(self._pause_s, self._try_again)
            self._pause_s = min(2 * self._pause_s, PAUSE_S[1])

    def _try_again(self) -> None:
        self._again = None
        if self._waiting:
            self._connect()
            self._pump()  # another executor may have connected meanwhile

    # -- bodies ----------------------------------------------------------------------------

    def _pump(self) -> None:
        """Hand over what waits."""
        link = self._link
        while self._waiting and link is not None and link.is_ready:
            sent = self._waiting.popleft()
            if sent.may_begin():
                self._out[sent.number] = sent
                link.send(Frame.RUN, numbered(sent.number, self._needs + b"\n" + sent.request))
                sent.request = b""

    def tell(self, kind: Frame, sent: Sent) -> None:
        """Have something done about a body that is out."""
        if self._link is not None:
            self._link.send(kind, numbered(sent.number))

    def withdraw(self, sent: Sent) -> None:
        """Forget a call that waits."""
        if sent in self._waiting:
            self._waiting.remove(sent)

    def on_frame(self, kind: Frame, number: int, data: bytes) -> None:
        """The process says something of a body."""
        sent = self._out.get(number)
        if sent is None:
            return
        if kind is Frame.ENDED:
            del self._out[number]
        sent.hear(kind, data)


def _jobs(jobs: Sized, one: str, more: str) -> str:
    return f"1 job {one}" if len(jobs) == 1 else f"{len(jobs)} jobs {more}"


def _checked(address: Any) -> str | None:
    if address is not None and not isinstance(address, str):
        raise InvalidOption(f"address must be a text such as 'auto' or '10.0.0.5:6379', got {address!r}")
    if address is not None and not _is_possible(address):
        raise InvalidOption(
            f"no Ray cluster can be at {address!r}; an address is 'auto', 'local', one such as '10.0.0.5:6379', "
            "or, from outside the cluster, 'ray://10.0.0.5:10001'"
        )
    if address is not None and address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        raise UsageError(f"the address {address!r} needs Ray's client: pip install 'ray[client]'")
    return address


def _is_possible(address: str) -> bool:
    scheme, mark, place = address.partition("://")
    if scheme == "ray" and mark:
        return bool(place)
    if mark:  # Ray asks a module of that name, of somebody who has written one
        is_other = scheme.isidentifier() and scheme not in sys.stdlib_module_names
        return is_other and importlib.util.find_spec(scheme) is not None
    host, _, port = address.rpartition(":")
    return address in {"auto", "local"} or bool(host and port.isdecimal() and 0 < int(port) < 2**16)


def _as_json(init: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = from_json(to_json(init))
    except PydanticSerializationError as error:
        raise InvalidOption(f"init must be JSON, for it is sent to another process: {error}") from None
    return plain
