"""Jobs that run elsewhere: when the store is asked how they ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.model import JobRecord, JobState, RunOptions
from quarterjack.runtime.afar import FIRST_LOOK_S, REMEMBERED, Afar


class Elsewhere:
    """A host, store and all, whose jobs have all ended in another process."""

    def __init__(self) -> None:
        self.store = self.handles = self.outage = self
        self.asked: list[list[str]] = []
        self.settled = asyncio.Event()
        self.clock = SYSTEM_CLOCK
        self.afar = Afar(self)  # type: ignore[arg-type]  # all of it in one

    async def jobs_get(self, job_ids: Sequence[str]) -> list[JobRecord]:
        self.asked.append(list(job_ids))
        rows = [job(job_id) for job_id in job_ids]
        for row in rows:
            row.state = JobState.DONE
        return rows

    def settle_afar(self, record: JobRecord) -> None:
        self.afar.ended(record)
        self.settled.set()

    def is_held_here(self, job_id: str) -> bool:
        return False

    def known(self, record: JobRecord) -> JobRecord:
        return record

    def worked(self, doing: str) -> None:
        pass


def job(job_id: str) -> JobRecord:
    return JobRecord(job_id, "a", (), {}, RunOptions())


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited before each look; none is waited for."""
    found: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float, result: Any = None) -> Any:
        found.append(seconds)
        await sleep(0)
        return result

    monkeypatch.setattr("quarterjack.runtime.afar.asyncio.sleep", pause)
    return found


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
async def test_end_that_was_told_is_looked_at_without_a_pause(
    pauses: list[float], is_told: bool, is_first: bool
) -> None:
    """Two hundred jobs that ended long ago and are awaited in turn must not cost two hundred pauses."""
    host, record = Elsewhere(), job("one")
    if is_told and is_first:
        host.afar.hint(["zero", "one"])
    host.afar.watch(record)
    if is_told and not is_first:
        host.afar.hint(["one", "two"])
    await host.settled.wait()
    assert record.state is JobState.DONE
    assert (host.asked, pauses) == ([["one"]], [0.0 if is_told else FIRST_LOOK_S])
    await host.afar.close()


async def test_ends_that_nobody_asks_for_are_forgotten_in_time(pauses: list[float]) -> None:
    """A process hears of every end of the fleet."""
    host = Elsewhere()
    host.afar.hint([str(n) for n in range(REMEMBERED + 1)])
    assert len(host.afar._over) == REMEMBERED
    host.afar.watch(job("0"))
    await host.settled.wait()
    assert pauses == [FIRST_LOOK_S]
    await host.afar.close()
