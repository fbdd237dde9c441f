"""Each mechanism that is PostgreSQL's own, broken once: a test of what users would suffer then must notice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import pytest

from quarterjack.errors import StoreError
from quarterjack.testing.store_contract import Bench
from tests.stores import test_regressions as regressions
from tests.stores.postgres_kit import MovedBench, schema_on_test_time

ROUNDS: Final = 50
"""What goes wrong only where two meet is tried so often; most times the first will do."""

Case = Callable[[Bench], Awaitable[None]]
Break = tuple[str, str, str]

BROKEN: Final[dict[str, tuple[list[Break], Case]]] = {
    "ends without a fence": (
        [("finish", "j.attempt = f.attempt AND j.owner = f.owner AND", "")],
        regressions.test_stale_worker_overwrites_no_newer_attempt,
    ),
    "renewals without a fence": (
        [("renew", "j.attempt = a.attempt AND j.owner = $1", "true")],
        regressions.test_stale_worker_overwrites_no_newer_attempt,
    ),
    "renewals that renew nothing": (
        [("renew", "lease_until_ns = coalesce((SELECT", "lease_until_ns = least(j.lease_until_ns, (SELECT")],
        regressions.test_long_job_of_a_living_worker_is_not_run_twice,
    ),
    "jobs of the dead that nobody takes up": (
        [("claim", "lease_until_ns <= (SELECT ns FROM now)", "false")],
        regressions.test_job_of_a_crashed_worker_waits_no_longer_than_its_lease,
    ),
    "claims that count before they choose": (
        [("claim", "AND j.lane = l.name", "")],
        regressions.test_saturated_task_starves_no_other,
    ),
    "fires that do not wait for each other": (
        [
            ("load_schedules", "FOR UPDATE", ""),
            ("load_schedules_at_once", "FOR UPDATE NOWAIT", ""),
            ("try_lock", "bool_and(pg_try_advisory_xact_lock(number))", "bool_and(number IS NOT NULL)"),
        ],
        regressions.test_two_schedulers_make_one_job_of_each_tick,
    ),
}


class Forgetful(dict[str, str]):
    """What a store that fires for the first time knows: a later fire looks at its key first, and is late for harm."""

    def update(self, *_: object) -> None:  # type: ignore[override]  # as much as the store asks of it
        """Keep nothing."""


@pytest.fixture(scope="module")
def url(postgres_server: str) -> Iterator[str]:
    with schema_on_test_time(postgres_server) as url:
        yield url


@pytest.mark.parametrize("what", BROKEN)
async def test_broken_statement_is_found(url: str, what: str) -> None:
    """A list of regressions that a store without the mechanism would pass guards nothing."""
    breaks, case = BROKEN[what]
    bench = MovedBench(url)
    await bench.open()
    bench.store._line_by_id = Forgetful()
    sql = bench.store._link.sql
    for name, right, wrong in breaks:
        assert right in sql[name], "the mechanism has moved: break it where it is now"
        sql[name] = sql[name].replace(right, wrong)
    try:
        with pytest.raises((AssertionError, ValueError, StoreError)):  # noqa: PT012  # the round that finds it
            for _ in range(ROUNDS):
                await case(bench)
    finally:
        await bench.store.close()
