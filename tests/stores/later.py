"""A later version's schema, and what a process of this one must be able to do on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from quarterjack.model import FinishKind, JobFilter, JobState, Unique, WorkerInfo
from quarterjack.stores import _postgres_schema, _sqlite_schema
from quarterjack.stores._schema import Migration, migrations
from quarterjack.stores.base import AuditRow, Renewal
from quarterjack.testing.store_contract import Bench

__all__ = ["later_step", "lives"]


@contextmanager
def later_step(monkeypatch: pytest.MonkeyPatch, engine: str, sql: str, *, expands: bool = True) -> Iterator[int]:
    """Let this process be a version that knows one step more; yield the step's number."""
    known = migrations(engine)
    number = known[-1].number + 1
    step = Migration(number, "later", sql, known[-1].number if expands else number)
    with monkeypatch.context() as patch:
        for module in (_postgres_schema, _sqlite_schema):
            patch.setattr(module, "migrations", lambda asked: (*known, step) if asked == engine else migrations(asked))
        yield number


async def lives(b: Bench) -> None:
    """Let a store do something of everything."""
    store = b.store
    await b.schedule("s", every_s=60)
    plain, unique = await b.put(), await b.put(unique=Unique("k"))
    later = await b.put("b", delay_ns=10**12)
    held = {row.id: row for row in await b.claim()}
    assert held.keys() == {plain.id, unique.id}
    await store.jobs_renew("w1", [Renewal(plain.id, held[plain.id].attempt, running_at_ns=1, checkpoint=1)], 30)
    assert await b.finish(held[plain.id].fence, result=5)
    assert await b.finish(held[unique.id].fence, FinishKind.RETRY)
    (again,) = await b.claim()
    assert await b.finish(again.fence)
    await store.jobs_request_cancel([later.id])
    assert await b.states([plain, unique, later]) == ["done", "done", "cancelled"]
    assert await store.schedules_trigger("s", b.job()) is not None
    assert len((await store.jobs_list(JobFilter(states=frozenset({JobState.SUBMITTED})))).jobs) == 1
    assert len(await store.jobs_retry(JobFilter(), [plain.id])) == 1
    for row in await b.claim():
        assert await b.finish(row.fence)
    await store.workers_put(WorkerInfo("w1", "host", 1, "both", ("default",), 0, 0))
    await store.audit_put([AuditRow(0, "me", "look", "s")])
    assert (await store.limit_acquire("l", ["h"], maximum=1, ttl_s=9)).taken
    assert await store.limit_take("r", 1, rate=10_000, burst=1) == 0
    assert await store.outcomes(0)
    await b.advance(1)
    assert await store.jobs_purge(timedelta(0)) == 4
    assert await store.schedules_remove(["s"]) == 1
    await store.limit_release("l", ["h"])
    await b.advance(10)
