"""Apps over a real PostgreSQL: replicas share ticks and jobs, a client asks and waits, an outage passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from quarterjack.errors import StoreUnavailable
from tests.servers.running import OwnServer
from tests.stores.replicas import Seen, again, replica, replicas_share_and_serve

pytestmark = pytest.mark.slow


async def test_replicas_share_ticks_and_serve_a_client(postgres_url: str) -> None:
    """One job per tick however many fire, and who asks need not be who works."""
    await replicas_share_and_serve(postgres_url)


async def test_outage_of_the_server_stops_no_replica(own_postgres: Callable[..., OwnServer]) -> None:
    """When the server is back all goes on by itself, and what was missed is not made up for twice."""
    server = own_postgres()
    seen = Seen()
    one, two = replica(server.url, seen), replica(server.url, seen)
    async with one.app, two.app:
        await seen.more(2)
        await asyncio.to_thread(server.stop)
        with pytest.raises(StoreUnavailable):
            await one.app.submit(one.add, 1, 1)
        await asyncio.to_thread(server.start)
        await seen.more(3)
        assert await (await again(one.app.submit, one.add, 5, 6)) == 11
    assert set(seen.ticks.values()) == {1}
