"""The PostgreSQL store keeps the contract of every store, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import asyncpg
import pytest
from hypothesis import settings

from quarterjack.model import FinishKind, JobState
from quarterjack.stores._postgres_url import parse
from quarterjack.stores.base import Renewal
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


@pytest.mark.parametrize("end", ["it dies", "it gives the job back", "it snoozes"])
async def test_completed_job_never_runs_again_whatever_its_worker_does(url: str, end: str) -> None:
    """What its transaction has committed cannot be done twice."""
    b = MovedBench(url)
    await b.open()
    await b.put()
    (row,) = await b.claim(lease_s=30)
    connection = await asyncpg.connect(parse(url).dsn)
    async with connection.transaction():
        await b.store.complete_in(connection, row.fence, "paid")
        renewed = await b.store.jobs_renew("w1", [Renewal(row.id, row.attempt)], 30)
        assert (renewed.lost, renewed.cancelled) == ([], []), "while it commits the job is held, and nobody waits"
        await b.advance(31)
        assert await b.claim() == []
    await connection.close()
    if end == "it gives the job back":
        await b.store.jobs_release([row.fence])
    elif end == "it snoozes":
        assert await b.finish(row.fence, FinishKind.SNOOZE)
    assert await b.claim() == []
    done = await b.get(row.id)
    assert (done.state, done.result) == (JobState.DONE, "paid")
    await b.store.close()
