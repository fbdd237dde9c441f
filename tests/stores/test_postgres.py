"""The PostgreSQL store keeps the contract of every store, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import settings

from quarterjack.testing.store_contract import Bench, StoreContract
from quarterjack.testing.store_machine import store_machine
from tests.stores.postgres_kit import MovedBench, schema_on_test_time


@pytest.fixture(scope="module")
def url(postgres_server: str) -> Iterator[str]:
    with schema_on_test_time(postgres_server) as url:
        yield url


class TestPostgresStore(StoreContract):
    """The contract, case by case."""

    @pytest.fixture(autouse=True)
    def _server(self, url: str) -> None:
        self.url = url

    def bench(self) -> Bench:
        return MovedBench(self.url)


@pytest.fixture(scope="module", autouse=True)
def _machine_server(url: str) -> None:
    """Tell the state machine, which pytest makes no fixtures for, where the server is."""
    WHERE.append(url)


WHERE: Final[list[str]] = []

TestPostgresStoreBesideItsModel = store_machine(lambda: MovedBench(WHERE[-1])).TestCase
TestPostgresStoreBesideItsModel.settings = settings(max_examples=15, stateful_step_count=30)
