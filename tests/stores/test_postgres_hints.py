"""Hints between processes over PostgreSQL: they arrive after the commit, and what cannot be sent is no burden."""

from __future__ import annotations

import asyncio
import logging

import pytest

from quarterjack.errors import StoreUnavailable
from quarterjack.model import Finish, FinishKind
from quarterjack.stores import _postgres_hints
from quarterjack.stores._postgres_url import parse
from quarterjack.stores.base import Hint
from tests.stores.postgres_kit import CLAIM, Heard, job, opened


async def test_hints_reach_other_processes_after_the_commit(postgres_url: str) -> None:
    """Polling finds everything; a hint makes that quick."""
    async with opened(postgres_url) as here, opened(postgres_url) as there:
        heard = Heard(there)
        await there._hints.ready()
        await here._hints.ready()
        (row,) = await here.jobs_put([job()])
        await heard.until(heard.has(Hint.JOBS))
        (held,) = (await here.jobs_claim(CLAIM)).jobs
        assert held.id == row.id
        await there.jobs_request_cancel([row.id])
        told_here = Heard(here)
        await there.jobs_request_cancel([row.id])
        await told_here.until(lambda: (Hint.CANCELS, (row.id,)) in told_here.hints)
        await here.jobs_finish([Finish(*held.fence, FinishKind.DONE, 1, 1, 1)])
        await heard.until(lambda: (Hint.ENDED, (row.id,)) in heard.hints)


async def test_what_comes_shortly_after_a_hint_travels_with_the_next_and_at_the_latest_with_the_end(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message for each of a thousand submits would cost more than they do; a command that ends must be heard."""
    monkeypatch.setattr(_postgres_hints, "SPACING_S", 60.0)
    monkeypatch.setattr(_postgres_hints, "LAST_WORDS_S", 60.0)
    async with opened(postgres_url) as there:
        heard = Heard(there)
        await there._hints.ready()
        async with opened(postgres_url) as here:
            await here._hints.ready()
            await here.jobs_put([job()])
            await heard.until(heard.has(Hint.JOBS))
            for _ in range(20):
                await here.jobs_put([job()])
            assert heard.hints == [(Hint.JOBS, ())]
        await heard.until(lambda: len(heard.hints) > 1)
        assert heard.hints == [(Hint.JOBS, ())] * 2


async def test_missing_hints_are_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is one line in the log, not one per attempt."""
    tries: list[int] = []
    enough = asyncio.Event()

    async def fail(settings: object) -> None:
        tries.append(1)
        if len(tries) == 3:
            enough.set()
        raise StoreUnavailable("nobody answers")

    monkeypatch.setattr(_postgres_hints, "connect", fail)
    monkeypatch.setattr(_postgres_hints, "LONGEST_PAUSE_S", 0.01)
    hints = quiet_hints()
    with caplog.at_level(logging.WARNING, "quarterjack.stores"):
        hints.start()
        await enough.wait()
        await hints.close()
    assert [it.message for it in caplog.records] == [
        "hints of other processes do not arrive, so all is found by polling: nobody answers"
    ]


async def test_hints_that_cannot_be_sent_are_not_gathered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without a connection left goes on with its jobs for days; each that ends has an id."""

    async def fail(settings: object) -> None:
        raise StoreUnavailable("no connection left")

    monkeypatch.setattr(_postgres_hints, "connect", fail)
    hints = quiet_hints()
    hints.start()
    hints.send(Hint.CANCELS, ["one"])
    hints.send(Hint.CANCELS, ["two"])
    for n in range(1_000):
        hints.send(Hint.ENDED, [str(n)])
    await hints.close()
    assert hints._pending == {Hint.CANCELS: {"one", "two"}, Hint.ENDED: None}, "None is to look at all"


def quiet_hints() -> _postgres_hints.Hints:
    return _postgres_hints.Hints(parse("postgresql://host/db"), "me", lambda hint, ids: None)
