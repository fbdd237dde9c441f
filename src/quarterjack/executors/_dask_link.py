"""The connection to a Dask cluster: made when it is needed, and made anew when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import dask.config
from distributed import Client
from distributed.comm.addressing import parse_address
from distributed.comm.registry import get_backend

from quarterjack.errors import InvalidOption

from ._dask_fence import WITHDRAWN, Holder, bring_fences, open_fence, take

__all__ = ["Link", "address_of"]

CONNECT_S: Final = 5.0
CLOSE_S: Final = 5.0
WITH_PORT: Final = frozenset({"tcp", "tls"})
EVERYBODY: Final = "all"
"""The topic to which the scheduler tells that a worker has left."""

Hear = Callable[[Mapping[str, Any]], None]


def address_of(place: Any) -> str | None:
    """Return where the scheduler is: of a cluster, a client, an address, or as Dask is configured.

    Raises:
        InvalidOption: If *place* is nothing of the kind.
    """
    if place is None:
        settings: Any = dask.config
        place = settings.get("scheduler-address", None)
    for found in (place, getattr(place, "scheduler_address", None), _address_in(getattr(place, "scheduler", None))):
        if isinstance(found, str) and found:
            return _checked(found)
    raise InvalidOption(
        f"a Dask cluster is an address such as 'tcp://127.0.0.1:8786', a Client or a cluster, got {place!r}; "
        "without one, the environment variable DASK_SCHEDULER_ADDRESS names it"
    )


def _checked(address: str) -> str:
    """Return *address*.

    Raises:
        InvalidOption: If no scheduler can have it.
    """
    scheme, place = parse_address(address)
    try:
        backend: Any = get_backend(scheme)
        if scheme in WITH_PORT:
            host, port = backend.get_address_host_port(place)
            if not host or not 0 < port < 2**16:
                raise ValueError("it needs a host and a port")
    except ValueError as error:
        raise InvalidOption(
            f"no Dask scheduler can be at {address!r} ({error}); an address is one such as 'tcp://127.0.0.1:8786'"
        ) from None
    return address


def _address_in(scheduler: Any) -> Any:
    return getattr(scheduler, "address", None)


def _hear(hear: Hear, event: tuple[float, Mapping[str, Any]]) -> None:
    if isinstance(event[1], Mapping):  # anybody may say anything there
        hear(event[1])


class Link:
    """A client of Dask's on the app's loop.

    A client whose connection was lost is given up, and its scheduler hears of the next one by another name. Dask would
    connect the same one anew: its scheduler then takes the end of the old connection for the end of the new one, or
    lets bodies go on for which nobody waits.

    Args:
        place: As `address_of` takes it.
        on_news: Called with what the Dask workers tell of bodies.
        on_event: Called with what the scheduler tells everybody.
    """

    def __init__(self, place: Any, on_news: Hear, on_event: Hear) -> None:
        self._place = place
        self._on_news, self._on_event = on_news, on_event
        self._client: Any = None
        self._connecting: asyncio.Task[None] | None = None
        self._partings: set[asyncio.Task[None]] = set()

    async def client(self) -> Any:
        """Return the client, connected.

        Raises:
            OSError: If the scheduler is out of reach.
            ImportError: If it has no quarterjack.
        """
        if not self.has(self._client):
            if self._connecting is None:
                self._connecting = asyncio.get_running_loop().create_task(self._connect())
                self._connecting.add_done_callback(_fails_in_silence)
            await asyncio.shield(self._connecting)  # one that is cancelled halfway cannot be closed any more
        if self._client is None:
            raise ConnectionError("the scheduler has left at once")
        return self._client

    def has(self, client: Any) -> bool:
        """Say whether this is the client that now is connected."""
        return client is not None and client is self._client and client.status == "running"

    async def _connect(self) -> None:
        try:
            self._part()
            client: Any = await Client(
                address_of(self._place),
                security=getattr(self._place, "security", None),
                asynchronous=True,
                set_as_default=False,
                timeout=CONNECT_S,
                name="quarterjack",
            )
            self._client = client
            client._timeout = 0  # so long it would try to connect again
            client._handle_report_task.add_done_callback(partial(self._on_deaf, client))
            client.subscribe_topic(client.id, partial(_hear, self._on_news))
            client.subscribe_topic(EVERYBODY, partial(_hear, self._on_event))
            async with asyncio.timeout(CONNECT_S):
                await bring_fences(client)
        except BaseException:
            self._part()
            raise
        finally:
            self._connecting = None

    def _on_deaf(self, client: Any, _: object) -> None:
        """A client listens no more, and would not say so: its scheduler has told it to go, or it has failed."""
        if client is self._client:
            self._part()

    def _part(self) -> None:
        """Close the client, beside all else: what waits for it is lost."""
        client, self._client = self._client, None
        if client is not None:
            task = asyncio.get_running_loop().create_task(_close(client))
            self._partings.add(task)
            task.add_done_callback(self._partings.discard)

    async def ready(self, key: str) -> Any:
        """Return the client once it hears of *key*, whose body may begin.

        Raises:
            OSError: If the scheduler is out of reach.
            TimeoutError: If it does not answer.
            ImportError: If it has no quarterjack.
        """
        async with asyncio.timeout(2 * CONNECT_S):
            client = await self.client()
            await open_fence(client, key)
        return client

    async def withdraw(self, key: str) -> str | None:
        """See that the body of *key* does not begin; return the address of the Dask worker if it has.

        Raises:
            OSError: If the scheduler is out of reach.
            TimeoutError: If it does not answer.
            LookupError: If it is over.
        """
        async with asyncio.timeout(2 * CONNECT_S):
            client = await self.client()
            holder = await take(client.scheduler, key, WITHDRAWN)
        return holder.address if isinstance(holder, Holder) else None

    async def run(self, address: str, function: Callable[..., object], *args: Any) -> None:
        """Have a Dask worker call a function beside its tasks.

        Raises:
            OSError: If the scheduler or the worker is out of reach.
            TimeoutError: If they do not answer.
        """
        async with asyncio.timeout(2 * CONNECT_S):
            client = await self.client()
            await client.run(function, *args, workers=[address])

    async def close(self) -> None:
        """Hang up; Dask forgets what was asked of it."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        self._part()
        await asyncio.gather(*self._partings)


def _fails_in_silence(connecting: asyncio.Task[None]) -> None:
    """Who waits for the connection is told why there is none; at the app's end nobody does any more."""
    if not connecting.cancelled():
        connecting.exception()


async def _close(client: Any) -> None:
    if client.status == "running":
        for topic in (client.id, EVERYBODY):
            with suppress(ValueError, RuntimeError):  # it was not subscribed to, or the scheduler is gone
                client.unsubscribe_topic(topic)  # else the scheduler tells us that we go, and fails
    with suppress(OSError, TimeoutError):
        await client.close(CLOSE_S)
