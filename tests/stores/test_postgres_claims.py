"""Claims over PostgreSQL: no statement for what there is nothing of, and none of what there is passed over."""

from __future__ import annotations

from collections import Counter

import pytest

from quarterjack.model import JobRecord, RunOptions
from quarterjack.stores.base import Claim, Want
from quarterjack.stores.postgres import PostgresStore
from tests.servers.fixtures import with_option
from tests.stores.postgres_kit import opened

LOOP = Want(("default",), frozenset({"a", "a\x1floop"}), 2)
THREAD = Want(("default",), frozenset({"b", "b\x1fthread"}), 2)


def jobs_of(*tasks: str, prefix: str = "") -> list[JobRecord]:
    return [JobRecord(f"{prefix}{task}{n}", task, (), {}, RunOptions()) for n, task in enumerate(tasks)]


def counted(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the store's statements by their names."""
    rows, asked = store._link.rows, Counter[str]()

    async def count(name: str, *arguments: object) -> object:
        asked[name] += 1
        return await rows(name, *arguments)

    monkeypatch.setattr(store._link, "rows", count)
    return asked


async def test_claim_is_one_statement_where_one_executor_has_work(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every worker has threads beside its loop: to ask for both each time would double what a claim costs."""
    async with opened(with_option(postgres_url, "poll=1")) as store:
        await store.jobs_put(jobs_of(*"bbbbb"))
        asked = counted(store, monkeypatch)
        claim = Claim("w", [LOOP, THREAD], 30.0)
        claimed = [len((await store.jobs_claim(claim)).jobs) for _ in range(4)]
        assert claimed == [2, 2, 1, 0]
        assert asked["claim"] == 5, "the first has not known yet who has work"


async def test_claim_finds_what_there_is_for_every_want(postgres_url: str) -> None:
    """Whoever brought something last comes first, and is not the only one who comes."""
    async with opened(with_option(postgres_url, "poll=1")) as store:
        claim = Claim("w", [LOOP, THREAD], 30.0)
        for times, tasks in enumerate(("bb", "aabb", "a", "ab", "b")):
            await store.jobs_put(jobs := jobs_of(*tasks, prefix=str(times)))
            claimed = await store.jobs_claim(claim)
            assert {row.id for row in claimed.jobs} == {job.id for job in jobs}


async def test_want_that_shares_lanes_with_one_before_it_stays_behind(postgres_url: str) -> None:
    """Slots kept for ticks come behind those for all jobs: before them they would hold what all the others may take."""
    both, few = LOOP._replace(lanes=frozenset("ab"), slots=1), THREAD._replace(lanes=frozenset("b"), slots=1)
    async with opened(with_option(postgres_url, "poll=1")) as store:
        await store.jobs_put(jobs_of(*"bbab"))
        await store.jobs_claim(Claim("w", [few], 30.0))
        claimed = await store.jobs_claim(Claim("w", [both, few], 30.0))
        assert [row.id for row in claimed.jobs] == ["b1", "b3"]
