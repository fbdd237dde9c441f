"""A Redis server whose memory is full takes no new work, and lets all that there is come to its end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from quarterjack._durations import NS_PER_S
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import StoreUnavailable
from quarterjack.model import (
    Finish,
    FinishKind,
    JobIds,
    JobRecord,
    JobState,
    Payload,
    RunOptions,
    Schedule,
    Timing,
    Unique,
    WorkerInfo,
    lanes_of,
)
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import CancelAnswer, Claim, Renewal, Renewed, Want
from quarterjack.stores.redis import RedisStore
from quarterjack.triggers import Every
from tests.servers.running import OwnServer
from tests.stores.redis_kit import RedisBench, filled

OwnRedis = Callable[..., OwnServer]


async def test_full_memory_refuses_new_work_and_lets_what_runs_end(own_redis: OwnRedis) -> None:
    """An end that could not be recorded would be a second run; and only what ends can be deleted."""
    store = RedisStore(own_redis().url)
    await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
    claim = Claim("w", [Want(("default",), lanes_of(["a"]), 1)], 30)
    await store.jobs_put([JobRecord(name, "a", (), {}, RunOptions()) for name in ("one", "two")])
    (held,) = (await store.jobs_claim(claim)).jobs
    await filled(store)
    with pytest.raises(StoreUnavailable, match="raise its maxmemory"):
        await store.jobs_put([JobRecord("three", "a", (), {}, RunOptions())])
    with pytest.raises(StoreUnavailable, match="raise its maxmemory"):
        await store.jobs_claim(claim)
    finish = Finish(*held.fence, FinishKind.DONE, await store.now_ns(), result="x" * 1_000)
    assert await store.jobs_finish([finish]) == [JobState.DONE]
    assert await store.jobs_purge(timedelta(0)) == 1
    assert (await store.stats()).states == {JobState.SUBMITTED: 1}
    await store.close()


async def test_full_memory_stops_no_sign_of_life(own_redis: OwnRedis) -> None:
    """A lease that is not renewed is a second run beside the first, as soon as there is memory again."""
    store = RedisStore(own_redis().url)
    await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
    await store.jobs_put([JobRecord("one", "a", (), {}, RunOptions())])
    (held,) = (await store.jobs_claim(Claim("w", [Want(("default",), lanes_of(["a"]), 1)], 30))).jobs
    assert (await store.limit_acquire("limit", ["w"], maximum=1, ttl_s=30)).taken
    await filled(store)
    renewal = Renewal("one", held.attempt, running_at_ns=await store.now_ns())
    assert await store.jobs_renew("w", [renewal], 60) == Renewed([], [])
    (row,) = await store.jobs_get(["one"])
    assert row is not None
    assert row.state is JobState.RUNNING
    assert (row.lease_until_ns or 0) > await store.now_ns() + 50 * NS_PER_S
    assert await store.limit_renew("limit", ["w"], 60) == []
    assert await store.workers_put(WorkerInfo("w", "host", 1, "both", ("default",), 0, 0, "1", 1, 0)) is None
    await store.close()


@pytest.mark.parametrize("kind", ["plain", "unique", "of a schedule"])
async def test_full_memory_lets_jobs_move_on_whatever_hangs_on_them(own_redis: OwnRedis, kind: str) -> None:
    """Ends that free a key or move a schedule on are ends: who is refused them would run the job again."""
    bench = RedisBench(own_redis().url)
    await bench.open()
    store = bench.store
    await store.schedules_put([Schedule("s", Timing(trigger=Every(hours=1)), Payload(task="a"))])
    ways = ("finish", "release", "retry", "cancel", "rescue")
    for name in ways:
        unique = Unique(name) if kind == "unique" else None
        job = JobRecord(name, "a", (), {}, RunOptions(unique=unique, delay_ns=NS_PER_S if name == "cancel" else 0))
        await (store.schedules_trigger("s", job, "allow") if kind == "of a schedule" else store.jobs_put([job]))
    wants = [Want(("default",), lanes_of(["a"]), 4 if kind != "of a schedule" else 5)]
    held = {job.id: job for job in (await store.jobs_claim(Claim("w", wants, 30))).jobs}
    await store.jobs_renew("w", [Renewal("rescue", held["rescue"].attempt)], 1)
    await bench.advance(2)
    now = await store.now_ns()
    await filled(store)
    assert await store.jobs_finish([Finish(*held["finish"].fence, FinishKind.DONE, now, result=5)]) == [JobState.DONE]
    await store.jobs_release([held["release"].fence])
    retry = Finish(*held["retry"].fence, FinishKind.RETRY, now, delay_ns=NS_PER_S)
    assert await store.jobs_finish([retry]) == [JobState.SUBMITTED]
    answer = CancelAnswer.REQUESTED if kind == "of a schedule" else CancelAnswer.CANCELLED
    assert await store.jobs_request_cancel(["cancel"]) == [answer]
    with pytest.raises(StoreUnavailable):  # nothing is claimed, but what ran out is taken back
        await store.jobs_claim(Claim("other", wants, 30))
    rows = {row.id: row for row in await store.jobs_get(ways) if row is not None}
    assert (rows["finish"].result, rows["release"].state, rows["rescue"].rescues) == (5, JobState.SUBMITTED, 1)
    await store._scripts.link.call("testing", "CONFIG", "SET", "maxmemory", "0")
    await store.close()
    bench.end()
