"""One set of decisions: whatever is asked in whatever order, every store answers as the memory store does.

Beside it stand the faults of a database: rows that come in any order and by bits,
commits that fail, and decisions that are made several times over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import MemoryStore
from quarterjack.errors import StoreUnavailable, UniqueConflict
from quarterjack.stores.base import Claim
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing.store_contract import Bench
from tests.stores.postgres_kit import MovedBench, schema_on_test_time
from tests.stores.redis_kit import RedisBench
from tests.stores.reference import ReferenceStore
from tests.stores.stories import ACTS, LOST, Step, Teller, story, told_alike

steps = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 2**16)), min_size=25, max_size=60)
seeds = st.integers(0, 2**16)


class Unlucky(Teller):
    """The first commit of every call fails: nothing has come of it, and the call is made again."""

    async def call(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        store, n = self.b.store, self.ids.n
        assert isinstance(store, ReferenceStore)
        before, heard = store.tables.snapshot(), set(self.heard)
        store.faults = ["before"]
        try:
            answer = await ask()
        except StoreUnavailable:
            assert store.tables == before, "nothing is half-done"
            assert self.heard == heard, "nobody was told"
            self.ids.n = n
            return await ask()
        except UniqueConflict:
            store.faults = []
            raise
        assert store.faults == ["before"], "what failed says so"
        store.faults = []
        return answer  # there was nothing to commit


class Deaf(Teller):
    """What it asks for is committed, and the answer is lost: it goes by what another one was told."""

    def __init__(self, b: Bench, other: Teller) -> None:
        super().__init__(b)
        self._other = other

    async def call(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        store = self.b.store
        assert isinstance(store, ReferenceStore)
        store.faults = ["after"]
        try:
            return await ask()
        finally:
            store.faults = []

    async def act(self, what: str, n: int) -> object:
        try:
            return await super().act(what, n)
        except StoreUnavailable:
            self.fences, self.made = list(self._other.fences), {k: list(v) for k, v in self._other.made.items()}
            return LOST

    async def act_claim(self, n: int, name: str) -> object:
        nobody = Claim("nobody", [], None)
        await self.b.store.jobs_claim(nobody)  # a commit of its own: it takes back what ran out
        try:
            return await super().act_claim(n, name)
        finally:  # what the jobs made room for that were claimed unheard goes on with the next claim
            await self.b.store.jobs_claim(nobody)


def memory() -> Teller:
    return Teller(Bench(MemoryStore()))


async def told_with_hints(story: list[Step], other: Teller) -> None:
    mine = memory()
    await told_alike(story, mine, other)
    assert mine.heard == other.heard


@settings(max_examples=50, deadline=None)
@given(steps)
def test_durable_store_answers_as_the_memory_store_does(story: list[Step]) -> None:
    """A program that moves from memory to a database finds every decision unchanged."""
    asyncio.run(told_with_hints(story, Teller(Bench(ReferenceStore()))))


@settings(max_examples=25, deadline=None)
@given(steps, seeds)
def test_decision_is_the_same_in_whatever_order_and_bits_its_rows_come(story: list[Step], seed: int) -> None:
    """It is made again as often as it takes, and nothing of the earlier tries is left."""
    asyncio.run(told_with_hints(story, Teller(Bench(ReferenceStore(whim=Random(seed))))))


@settings(max_examples=25, deadline=None)
@given(steps)
def test_call_whose_commit_fails_has_changed_nothing_and_can_be_made_again(story: list[Step]) -> None:
    """Neither rows nor the caller's records nor hints show that it was ever tried."""
    asyncio.run(told_with_hints(story, Unlucky(Bench(ReferenceStore()))))


@settings(max_examples=25, deadline=None)
@given(steps)
def test_call_whose_answer_is_lost_has_changed_all_that_it_says(story: list[Step]) -> None:
    """Who lost the answer may ask what there is, and finds the whole of it."""
    mine = memory()
    asyncio.run(told_alike(story, mine, Deaf(Bench(ReferenceStore()), mine)))


# -- on real databases -------------------------------------------------------------------


async def told_on(bench: Bench, seed: int) -> None:
    try:
        await told_alike(story(seed), memory(), Teller(bench))
    finally:
        await bench.store.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_sqlite_store_answers_as_the_memory_store_does(tmp_path: Path, seed: int) -> None:
    """Its own statements, for the plain majority, decide nothing otherwise."""
    await told_on(Bench(SQLiteStore(tmp_path / "jobs.db", synchronous="off")), seed)


@pytest.fixture(scope="module")
def postgres_schema(postgres_server: str) -> Iterator[str]:
    with schema_on_test_time(postgres_server) as url:
        yield url


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_postgres_store_answers_as_the_memory_store_does(postgres_schema: str, seed: int) -> None:
    """Its own statements, for the plain majority, decide nothing otherwise."""
    await told_on(MovedBench(postgres_schema), seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_redis_store_answers_as_the_memory_store_does(redis_server: str, seed: int) -> None:
    """Its scripts, for the plain majority, decide nothing otherwise."""
    bench = RedisBench(redis_server)
    await told_on(bench, seed)
    bench.end()
