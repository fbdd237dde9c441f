"""A store behind Sentinel: after a failover it goes on with the new primary."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from redis.asyncio.sentinel import Sentinel

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import StoreError
from quarterjack.model import JobIds, JobRecord, RunOptions
from quarterjack.stores._rows import Encoding
from quarterjack.stores.redis import RedisStore
from tests.servers import running
from tests.servers.running import OwnServer
from tests.stores.redis_kit import free_port


@contextmanager
def watching(folder: Path, primary: int, replica: int) -> Iterator[int]:
    """Run a Sentinel that watches alone, and yield its port."""
    port, config = free_port(), folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {primary} 1\n"
        "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 2000\n"
        f"sentinel known-replica main 127.0.0.1 {replica}\n"  # else it hears of it after ten seconds
    )
    process = subprocess.Popen(
        [str(running.find(running.VALKEY)), str(config), "--sentinel"], stdout=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
async def test_failover_is_followed(own_redis: Callable[..., OwnServer], tmp_path: Path) -> None:
    """The pool says who is primary; a connection to one that was put down is left at once."""
    at_once = ("--shutdown-timeout", "0")
    first = own_redis(*at_once)
    second = own_redis("--replicaof", f"127.0.0.1 {first.port}", *at_once)
    with watching(tmp_path, first.port, second.port) as port:
        sentinel = Sentinel([("127.0.0.1", port)])  # type: ignore[no-untyped-call, unused-ignore]  # the driver's
        store = RedisStore("redis://main/0", pool=sentinel.master_for("main").connection_pool)
        await opened(store)
        await store.jobs_put([JobRecord("one", "a", (), {}, RunOptions())])
        with redis.Redis(port=second.port) as replica, redis.Redis(port=port) as watcher:
            while not replica.exists("{qj}:j:one"):
                await asyncio.sleep(0.05)
            while True:  # it hears of the replica in its own time
                with suppress(redis.ResponseError):
                    watcher.execute_command("SENTINEL FAILOVER main")
                    break
                await asyncio.sleep(0.2)
            while replica.role()[0] != b"master":
                await asyncio.sleep(0.05)
            with redis.Redis(port=first.port) as former:  # what it took until now is lost
                former.replicaof("127.0.0.1", str(second.port))  # as Sentinel does, some ten seconds later
        while True:
            with suppress(StoreError):
                await store.jobs_put([JobRecord("two", "a", (), {}, RunOptions())])
                break
            await asyncio.sleep(0.05)
        with redis.Redis(port=second.port) as primary:
            assert primary.exists("{qj}:j:one", "{qj}:j:two") == 2
        await store.close()
        for client in sentinel.sentinels:
            await client.aclose()


async def opened(store: RedisStore) -> None:
    """Open a store as soon as the Sentinel knows its primary."""
    while True:
        with suppress(StoreError):
            await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
            return
        await asyncio.sleep(0.1)
