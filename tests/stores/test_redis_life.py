"""A Redis store and its server: other versions' keys, rights, sockets, lost lines, and errors that say what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import pytest

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import Conflict, InvalidOption, StoreError, StoreUnavailable
from quarterjack.model import (
    Finish,
    FinishKind,
    JobIds,
    JobRecord,
    JobState,
    RunOptions,
    Unique,
    lanes_of,
)
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import Claim, Renewal, Renewed, Want
from quarterjack.stores.redis import RedisStore
from tests.servers.proxy import Proxy
from tests.servers.running import OwnServer
from tests.stores.redis_kit import RedisBench, cluster_options, opened

OwnRedis = Callable[..., OwnServer]


@pytest.fixture
async def b(redis_server: str) -> AsyncIterator[RedisBench]:
    """A store on a clock that the test moves."""
    async for bench in opened(redis_server):
        yield bench


class TestLife:
    async def test_keys_of_a_newer_version_are_refused(self, b: RedisBench, redis_server: str) -> None:
        """It may keep what this one would not understand."""
        b.client.set(f"{b.root}layout", "99 1")
        added_to = RedisStore.from_url(f"{redis_server}?prefix={b.root[1:-2]}")
        await added_to.open(SYSTEM_CLOCK, JobIds(), Encoding())  # it says that this one can live with it
        await added_to.close()
        b.client.set(f"{b.root}layout", 99)
        store = RedisStore.from_url(f"{redis_server}?prefix={b.root[1:-2]}")
        with pytest.raises(StoreError, match="of layout 99, and this version of quarterjack knows up to 1; upgrade"):
            await store.open(SYSTEM_CLOCK, JobIds(), Encoding())

    async def test_store_serves_one_app_at_a_time_and_says_when_it_is_not_open(self, b: RedisBench) -> None:
        """Two apps on one object would close each other's connection."""
        with pytest.raises(Conflict, match="one store per app"):
            await b.store.open(b.clock, JobIds(), Encoding())
        await b.store.close()
        views = (b.store.jobs_get(["x"]), b.store.stats(), b.store.schedules_list(), b.store.workers_list())
        calls = (b.store.now_ns(), b.store.jobs_put([b.job()]), b.store.jobs_request_cancel(["x"]))
        for call in (*calls, *views, b.store.jobs_renew("w", [Renewal("x", 1)], 30)):
            with pytest.raises(StoreUnavailable, match="not open"):
                await call
        assert b.store._scripts.link._line is None, "nothing has connected anew"
        await b.open()

    async def test_server_that_throws_keys_away_is_refused(self, own_redis: OwnRedis) -> None:
        """Jobs are no cache."""
        server = own_redis("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreError, match="CONFIG SET maxmemory-policy noeviction"):
            await RedisStore(server.url).open(SYSTEM_CLOCK, JobIds(), Encoding())

    async def test_unreachable_server_is_told_with_its_address_and_without_the_password(self) -> None:
        """At the start, not at the first job."""
        store = RedisStore.from_url("redis://me:secret@127.0.0.1:1/0?timeout=2")
        with pytest.raises(StoreUnavailable, match=r"redis://me:\*\*\*@127.0.0.1:1/0.*is the server running") as caught:
            await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
        assert "secret" not in str(caught.value)

    @pytest.mark.slow
    async def test_cluster_of_one_node_will_do(self, own_redis: OwnRedis) -> None:
        """All keys are in one slot, and none is touched that has not the store's hash tag."""
        server = own_redis(*cluster_options())
        store = RedisStore(server.url)
        link = store._scripts.link
        await link.call("testing", "CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        await until_ok(link)
        await link.close()
        await works(store)

    async def test_user_with_the_documented_rights_and_no_others(self, own_redis: OwnRedis) -> None:
        """What the page says is enough: scripts, keys and channel of the prefix; those of others are not to be had."""
        server = own_redis()
        rights = "on >secret ~{shop}:* &{shop}:* +@all -@admin -@dangerous +info"
        owner = RedisStore(server.url)._scripts.link
        await owner.call("testing", "ACL", "SETUSER", "jobs", *rights.split())
        await owner.close()
        url = f"redis://jobs:secret@127.0.0.1:{server.port}/0?prefix="
        await works(RedisStore.from_url(f"{url}shop"))
        with pytest.raises(StoreError, match=r"it needs `~\{prefix\}:\*"):
            await works(RedisStore.from_url(f"{url}other"))

    async def test_server_at_a_socket(self, own_redis: OwnRedis) -> None:
        """No port, no network; a path may hold a space."""
        server = own_redis("--unixsocket", "valkey server.sock", "--unixsocketperm", "777")
        (path,) = server.folder.rglob("*.sock")
        await works(RedisStore.from_url(f"unix://{quote(str(path))}?prefix=shop"))

    @pytest.mark.parametrize("url", ["redis://host?prefix=a b", "redis://host?timeout=x", "redis://host?prefx=a"])
    def test_url_with_a_mistake_is_refused(self, url: str) -> None:
        """A typo must not become a default."""
        with pytest.raises(InvalidOption):
            RedisStore.from_url(url)

    async def test_lease_without_a_link_is_renewed_after_the_server_was_away(self, own_redis: OwnRedis) -> None:
        """The thread that renews finds the server again by itself."""
        server = own_redis("--appendonly", "yes")
        store = RedisStore(server.url)
        await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
        link = store.lease_link()
        await link.open()
        server.stop()
        with pytest.raises(StoreUnavailable):
            await link.open()
        server.start()
        await link.open()
        await link.close()
        await link.close()
        await store.close()

    async def test_half_open_line_of_the_lease_link_is_given_up_with_the_call(self, own_redis: OwnRedis) -> None:
        """The renewal is given up long before the line's own deadline, and must not ask a dead line again and again."""
        server = own_redis()
        async with Proxy("127.0.0.1", server.port) as proxy:
            store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0")
            await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
            link = store.lease_link()
            await link.open()
            proxy.forget()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await link.jobs_renew("w", [], 6.0)
            assert await link.jobs_renew("w", [], 6.0) == Renewed([], [])
            await link.close()
            await store.close()


async def works(store: RedisStore) -> None:
    """Put a job, claim it, finish it, and listen to others."""
    await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
    assert store._hints is not None
    try:
        await store.jobs_put([JobRecord("one", "a", (), {}, RunOptions(unique=Unique("k")))])
        await store._hints.listening.wait()
        (held,) = (await store.jobs_claim(Claim("w", [Want(("default",), lanes_of(["a"]), 5)], 30))).jobs
        finish = Finish(*held.fence, FinishKind.DONE, await store.now_ns())
        assert await store.jobs_finish([finish]) == [JobState.DONE]
    finally:
        await store.close()


async def until_ok(link: Any) -> None:
    """Wait until a cluster has taken up its slots."""
    while "cluster_state:ok" not in await link.call("testing", "CLUSTER", "INFO"):
        await asyncio.sleep(0.05)
