"""One connection for all calls: replies find who asked, and a dead line is noticed, dropped and made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis import exceptions

from quarterjack.errors import InvalidOption, StoreError, StoreUnavailable
from quarterjack.stores._redis_errors import explained
from quarterjack.stores._redis_link import Link
from quarterjack.stores._redis_scripts import Scripts
from quarterjack.stores._redis_server import Address, check_server, checked_prefix, own_options
from tests.servers.proxy import Proxy
from tests.servers.running import OwnServer
from tests.stores.redis_kit import cluster_options

OwnRedis = Callable[..., OwnServer]


def link_to(url: str, timeout_s: float = 10.0) -> Link:
    address = Address(url, timeout_s)
    return Link(address.connection, address.shown, timeout_s)


@pytest.fixture
async def link(redis_server: str) -> AsyncIterator[Link]:
    """A link to the run's server."""
    link = link_to(redis_server)
    yield link
    await link.close()


class TestCalls:
    async def test_many_callers_share_the_line_and_each_gets_its_own_reply(self, link: Link) -> None:
        """Replies carry no name: their order is all there is."""
        said = await asyncio.gather(*(link.call("testing", "ECHO", str(n)) for n in range(500)))
        assert said == [str(n) for n in range(500)]

    async def test_small_commands_beside_large_ones_get_their_own_replies(self, link: Link) -> None:
        """A batch of outcomes is large, and a claim beside it small: neither may get the answer of the other."""
        await link.call("testing", "PING")
        words = [str(n) * (1 if n % 2 else 40_000) for n in range(20)]
        assert await asyncio.gather(*(link.call("testing", "ECHO", word) for word in words)) == words

    async def test_reply_of_a_cancelled_caller_goes_to_nobody(self, link: Link) -> None:
        """Whoever asks next must not get the answer to another question."""
        await link.call("testing", "PING")
        for n in range(50):
            gone = asyncio.create_task(link.call("testing", "ECHO", f"gone {n}"))
            await asyncio.sleep(0)
            gone.cancel()
            assert await link.call("testing", "ECHO", f"here {n}") == f"here {n}"
            assert gone.cancelled() or await asyncio.gather(gone, return_exceptions=True)

    async def test_large_command_whose_caller_is_cancelled_leaves_no_half_behind(self, link: Link) -> None:
        """Megabytes do not fit the socket at once: the rest is still sent, or the server would wait for it for ever."""
        await link.call("testing", "PING")
        gone = asyncio.create_task(link.call("testing", "ECHO", "x" * 20_000_000))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone.cancel()
        assert await link.call("testing", "ECHO", "here") == "here"
        with pytest.raises(asyncio.CancelledError):
            await gone

    async def test_bytes_that_are_no_text_come_back_as_they_were(self, link: Link) -> None:
        """What a codec makes of a payload may be any bytes."""
        every = bytes(range(256))
        said = await link.call("testing", "ECHO", every)
        assert said.encode("utf-8", "surrogateescape") == every

    async def test_error_of_one_command_is_no_other_commands(self, link: Link) -> None:
        """The server refuses what it is asked, and goes on."""
        scripts = Scripts(link, "{t}:", "error('no clock')")
        wrong = asyncio.create_task(scripts.run("now", ()))
        right = asyncio.create_task(link.call("testing", "ECHO", "1"))
        with pytest.raises(StoreError, match="no clock"):
            await wrong
        assert await right == "1"

    async def test_scripts_are_sent_again_to_a_server_that_forgot_them(self, link: Link) -> None:
        """A restart, a failover or SCRIPT FLUSH must not be noticed."""
        scripts = Scripts(link, "{t}:", "return 42")
        for _ in range(2):
            assert await scripts.run("now", ()) == "42"
            await link.call("testing", "SCRIPT", "FLUSH")

    async def test_closed_link_connects_again_when_it_is_asked_again(self, link: Link) -> None:
        """Closing lets go of the connection, and may be repeated."""
        await link.call("testing", "PING")
        await link.close()
        await link.close()
        assert await link.call("testing", "ECHO", "1") == "1"


class TestBrokenLines:
    async def test_half_open_line_is_given_up_at_the_deadline(self, redis_server: str) -> None:
        """A peer that vanished without a word is the case in which workers hang for hours."""
        port = int(redis_server.rpartition(":")[2].partition("/")[0])
        async with Proxy("127.0.0.1", port) as proxy:
            link = link_to(f"redis://127.0.0.1:{proxy.port}/0", 0.2)
            await link.call("testing", "PING")
            proxy.hold()
            asked = [asyncio.create_task(link.call("testing", "ECHO", "1")) for _ in range(3)]
            for answer in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(answer, StoreUnavailable)
                assert "0.2 s" in str(answer) or "half-open" in str(answer)
            proxy.release()
            assert await link.call("testing", "ECHO", "2") == "2"
            await link.close()

    async def test_line_that_was_cut_fails_who_waits_and_serves_who_comes_next(self, redis_server: str) -> None:
        """Nothing is sent into a line that is known to be dead."""
        port = int(redis_server.rpartition(":")[2].partition("/")[0])
        async with Proxy("127.0.0.1", port) as proxy:
            link = link_to(f"redis://127.0.0.1:{proxy.port}/0")
            await link.call("testing", "PING")
            proxy.hold()
            waiting = asyncio.create_task(link.call("testing", "ECHO", "1"))
            await asyncio.sleep(0.01)
            proxy.cut()
            with pytest.raises(StoreUnavailable, match="while testing"):
                await waiting
            proxy.release()
            assert await link.call("testing", "ECHO", "2") == "2"
            await link.close()

    async def test_server_that_restarts_is_found_again(self, own_redis: OwnRedis) -> None:
        """Down, it is told as such; up, the next call works."""
        server = own_redis()
        link = link_to(server.url)
        await link.call("testing", "PING")
        server.stop()
        with pytest.raises(StoreUnavailable, match="is the server running"):
            await link.call("testing", "PING")
        server.start()
        assert await link.call("testing", "ECHO", "1") == "1"
        await link.close()


class TestErrors:
    """Each says what is wrong, where, without the password, and what to do."""

    async def test_wrong_password(self, own_redis: OwnRedis) -> None:
        """Put it into the URL."""
        server = own_redis()
        owner = link_to(server.url)
        await owner.call("testing", "CONFIG", "SET", "requirepass", "right")
        await owner.close()
        for given in ("", ":wrong@", "user:wrong@"):
            link = link_to(f"redis://{given}127.0.0.1:{server.port}/0")
            with pytest.raises(StoreError, match="redis://user:password@host") as caught:
                await Scripts(link, "{t}:").run("now", ())
            assert "wrong" not in str(caught.value).lower().replace("wrongpass", "")
            await link.close()

    async def test_full_memory(self, own_redis: OwnRedis) -> None:
        """Raise maxmemory; nothing of the call is written."""
        server = own_redis()
        link = link_to(server.url)
        await link.call("testing", "CONFIG", "SET", "maxmemory", "1")
        scripts = Scripts(link, "{t}:")
        with pytest.raises(StoreError, match="raise its maxmemory"):
            await scripts.run("open", (1,))
        await link.close()

    async def test_replica(self, own_redis: OwnRedis) -> None:
        """Give the address of the primary."""
        primary = own_redis()
        replica = own_redis("--replicaof", f"127.0.0.1 {primary.port}")
        link = link_to(replica.url)
        with pytest.raises(StoreUnavailable, match=f"replica of 127.0.0.1:{primary.port}"):
            check_server(await link.call("testing", "INFO"), link.where)
        with pytest.raises(StoreUnavailable, match="read-only replica"):
            await Scripts(link, "{t}:", "return 1").run("open", (1,))
        await link.close()

    async def test_cluster_without_slots(self, own_redis: OwnRedis) -> None:
        """A cluster's trouble is told as one."""
        server = own_redis(*cluster_options())
        link = link_to(server.url)
        with pytest.raises(StoreUnavailable, match="CLUSTER INFO"):
            await Scripts(link, "{t}:").run("open", (1,))
        await link.close()

    async def test_database_that_there_is_not(self, redis_server: str) -> None:
        """Its number is in the URL."""
        link = link_to(redis_server.replace("/0", "/9999"))
        with pytest.raises(StoreError, match="no database of that number"):
            await link.call("testing", "PING")
        await link.close()

    def test_server_that_throws_keys_away_or_is_too_old(self) -> None:
        """Jobs must not vanish when a cache is full."""
        good = "redis_version:7.2.4\r\nrole:master\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\n"
        check_server(good, "here")
        check_server(good.replace("noeviction", "allkeys-lru").replace(":100", ":0"), "here")
        with pytest.raises(StoreError, match=r"here: .*CONFIG SET maxmemory-policy noeviction"):
            check_server(good.replace("noeviction", "volatile-lru"), "here")
        with pytest.raises(StoreError, match=r"version 6\.0\.16; it takes Redis 6\.2"):
            check_server(good.replace("7.2.4", "6.0.16"), "here")

    @pytest.mark.parametrize(
        ("error", "kind", "words"),
        [
            (exceptions.BusyLoadingError("Redis is loading the dataset"), StoreUnavailable, "loading its data"),
            (exceptions.MovedError("11 127.0.0.1:7001"), StoreError, "belong to another one; give that one's address"),
            (exceptions.ResponseError("MOVED 11 127.0.0.1:7001"), StoreError, "belong to another one"),
            (exceptions.ResponseError("CLUSTERDOWN Hash slot not served"), StoreUnavailable, "see CLUSTER INFO"),
            (exceptions.ResponseError("MISCONF Errors writing to the AOF file"), StoreUnavailable, "its log says why"),
            (
                exceptions.OutOfMemoryError("command not allowed when used memory"),
                StoreUnavailable,
                "raise its maxmemory",
            ),
            (
                exceptions.ResponseError("NOREPLICAS Not enough good replicas"),
                StoreUnavailable,
                "min-replicas-to-write",
            ),
            (exceptions.ResponseError("BUSY Redis is busy running a script"), StoreUnavailable, "SCRIPT KILL"),
            (exceptions.NoPermissionError("this user has no permissions"), StoreError, "+@all -@admin"),
            (exceptions.ConnectionError("max number of clients reached"), StoreUnavailable, "raise its maxclients"),
            (exceptions.ResponseError("something else"), StoreError, "ResponseError while claim: something else"),
        ],
        ids=str,
    )
    def test_what_a_server_may_say(self, error: Exception, kind: type[StoreError], words: str) -> None:
        """What trying again may mend is told from what somebody has to."""
        told = explained(error, "redis://host", "claim")
        assert type(told) is kind
        assert words in str(told)
        assert str(told).startswith("redis://host: ")


class TestUrls:
    @pytest.mark.parametrize("scheme", ["redis", "valkey", "rediss", "valkeys"])
    def test_both_names_are_one(self, scheme: str) -> None:
        """Valkey speaks the same protocol."""
        Address(f"{scheme}://user:secret@host:1234/2?client_name=me", 1)

    @pytest.mark.parametrize(
        "url", ["http://host", "redis://host?socket_timeout=soon", "redis://host?prefx=a", "unix://"]
    )
    def test_nonsense_is_refused_before_anything_is_asked(self, url: str) -> None:
        """A typo is found when the store is made."""
        with pytest.raises(InvalidOption):
            Address(url, 1)

    @pytest.mark.parametrize("prefix", ["", "a b", "{a}", "a*", "x" * 101])
    def test_prefix_is_one_word(self, prefix: str) -> None:
        """It stands within the hash tag of every key."""
        with pytest.raises(InvalidOption, match="prefix"):
            checked_prefix(prefix)

    def test_own_options_are_taken_out_of_the_url(self) -> None:
        """The rest is the driver's."""
        url = "redis://u:p@h:1/0?prefix=a&client_name=b&timeout=3"
        assert own_options(url, {"prefix": str, "timeout": float}) == (
            "redis://u:p@h:1/0?client_name=b",
            {"prefix": "a", "timeout": 3.0},
        )
        with pytest.raises(InvalidOption, match="timeout='soon' in redis://h"):
            own_options("redis://h?timeout=soon", {"timeout": float})
