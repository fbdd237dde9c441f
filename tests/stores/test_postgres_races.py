"""Many at once on one PostgreSQL: what must never be, is not; and without a mechanism of ours, it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from quarterjack.model import JobIds
from quarterjack.stores.postgres import PostgresStore
from tests.stores.postgres_race import Violation, race, two_stores

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_is_held_twice_or_lost_and_no_limit_is_exceeded(postgres_url: str, seed: int) -> None:
    """Two processes decide at once, each over what the other may just be changing."""
    async with two_stores(postgres_url) as stores:
        ledger = await race(stores, racers=12, steps=25, seed=seed)
    assert len(ledger.finished) > 50


def without(text: str, *names: str) -> Callable[[dict[str, str]], None]:
    """Return what takes *text* out of the statements *names*."""

    def change(sql: dict[str, str]) -> None:
        for name in names:
            assert text in sql[name]
            sql[name] = sql[name].replace(text, "")

    return change


def without_names(sql: dict[str, str]) -> None:
    sql["lock"] = sql["now_ns"].rstrip(";") + " WHERE $1::text[] IS NOT NULL"
    sql["try_lock"] = "SELECT $1::text[] IS NOT NULL"


def without_turns(sql: dict[str, str]) -> None:
    taken = "AND h.serial AND h.owner IS NOT NULL"
    for name in ("claim", "give_turns"):
        assert taken in sql[name]
        sql[name] = sql[name].replace(taken, "AND false")


NOTHING: Final = "SELECT 1"
BROKEN: Final[dict[str, tuple[Callable[[dict[str, str]], None], str]]] = {
    "decisions lock no names": (without_names, NOTHING),
    "decisions lock no rows": (without("FOR UPDATE", "load_jobs"), NOTHING),
    "finishes are not fenced": (without("AND j.attempt = f.attempt AND j.owner = f.owner", "finish"), NOTHING),
    "serial keys are not looked at": (without_turns, "DROP INDEX {schema}.job_serial"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_race_finds_what_a_mechanism_is_for(postgres_url: str, name: str) -> None:
    """A race that nothing can lose proves nothing."""
    change, ddl = BROKEN[name]
    async with two_stores(postgres_url) as stores:
        for store, _ in stores:
            change(store._link.sql)
        async with stores[0][0]._link.connection("breaking") as connection:
            await connection.execute(ddl.format(schema=stores[0][0]._settings.quoted_schema))
        with pytest.raises(Violation):
            await races(stores)


async def races(stores: list[tuple[PostgresStore, JobIds]]) -> None:
    for seed in range(40):
        await race(stores, racers=12, steps=12, seed=seed)
