"""The Redis store keeps the promises of every store, and its keys stay in order."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from quarterjack.testing.store_contract import Bench, StoreContract
from tests.stores.redis_kit import RedisBench


class TestContract(StoreContract):
    """Each promise, on a real server."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: str) -> None:
        self.url = redis_server

    def bench(self) -> RedisBench:
        return RedisBench(self.url)

    @pytest.fixture
    async def b(self) -> AsyncIterator[Bench]:
        """Open a new store for the case, close it, and look at every key it leaves."""
        bench = self.bench()
        await bench.open()
        yield bench
        await bench.store.close()
        bench.end()
