"""What processes on one SQLite file have in common: the clock, and word of what the others did."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from quarterjack._durations import NS_PER_S
from quarterjack.stores import _sqlite_registry as registry
from quarterjack.stores._sqlite_engine import Session
from quarterjack.stores.base import Hint, Store
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing import VirtualClock
from tests.stores.sqlite_kit import Computer

# -- a clock that is set -----------------------------------------------------------------


async def test_delays_shift_once_however_many_processes_share_the_file(computer: Computer) -> None:
    """A delay is elapsed time: an hour that the clock jumps is no hour waited, and is not made up for twice."""
    one, two = await computer.store(), await computer.store()
    now = await one.store.now_ns()
    delayed = await one.put(delay_ns=60 * NS_PER_S)
    at = await one.put("b", run_at_ns=now + 60 * NS_PER_S)
    computer.clock.step_clock(3600)
    for b in (one, two, one):
        b.store.clock_stepped(3600 * NS_PER_S)
    assert [row.id for row in await two.claim(lease_s=None)] == [at.id]
    assert await one.claim() == []
    assert (await two.get(delayed.id)).run_at_ns == now + 3660 * NS_PER_S
    await one.advance(60)
    assert [row.id for row in await two.claim()] == [delayed.id]


async def test_jobs_that_are_due_stay_due_and_in_order_when_the_clock_is_set_back(computer: Computer) -> None:
    """Newcomers must not overtake by an hour those who have waited, nor wait an hour for them."""
    b = await computer.store()
    first = await b.put()
    computer.clock.step_clock(-3600)
    second = await b.put()
    assert [row.id for row in await b.claim()] == [first.id, second.id]


async def test_schedule_goes_on_when_the_clock_is_set_back(computer: Computer) -> None:
    """Who runs each minute expects the next run in a minute, not in an hour."""
    b = await computer.store()
    await b.schedule(every_s=60)
    computer.clock.step_clock(-3600)
    b.store.clock_stepped(-3600 * NS_PER_S)
    await b.put()  # behind it in the queue
    (row,) = await b.store.schedules_due(60 * NS_PER_S)
    assert (row.next_due_ns or 0) - await b.store.now_ns() <= 60 * NS_PER_S


async def test_reboot_is_no_step(computer: Computer) -> None:
    """Time since boot begins anew, and says nothing of what the wall clock did meanwhile."""
    b = await computer.store()
    delayed = await b.put(delay_ns=60 * NS_PER_S)
    await b.store.close()
    rebooted = await computer.store(VirtualClock("2026-03-02T09:00:30Z"))
    assert (await rebooted.get(delayed.id)).run_at_ns == delayed.run_at_ns
    await rebooted.advance(30)
    assert [row.id for row in await rebooted.claim()] == [delayed.id]


async def test_step_while_nobody_ran_is_put_right_by_the_next_process(computer: Computer) -> None:
    """The file remembers the clock, not the process."""
    b = await computer.store()
    delayed = await b.put(delay_ns=60 * NS_PER_S)
    await b.store.close()
    computer.clock.step_clock(3600)
    later = await computer.store()
    assert await later.claim() == []
    assert (await later.get(delayed.id)).run_at_ns == delayed.run_at_ns + 3600 * NS_PER_S


# -- word between processes --------------------------------------------------------------


class Ear:
    """Hears the hints of a store."""

    def __init__(self, store: Store) -> None:
        self.heard: list[tuple[Hint, tuple[str, ...]]] = []
        self._news = asyncio.Event()
        store.listen(self._hear)

    def _hear(self, hint: Hint, ids: Sequence[str]) -> None:
        self.heard.append((hint, tuple(ids)))
        self._news.set()

    async def hears(self, hint: Hint, *ids: str) -> None:
        async with asyncio.timeout(20):
            while not any(kind is hint and set(ids) <= set(of) for kind, of in self.heard):
                self._news.clear()
                await self._news.wait()


async def test_other_processes_hear_of_jobs_ends_cancels_and_schedules(computer: Computer) -> None:
    """Within a few hundredths of a second, and each with the ids it is about."""
    one, two = await computer.store(), await computer.store(poll=0.01)
    ear, own = Ear(two.store), Ear(one.store)
    job = await one.put()
    await ear.hears(Hint.JOBS)
    await one.schedule("s")
    await ear.hears(Hint.SCHEDULES, "s")
    (row,) = await one.claim()
    await one.store.jobs_request_cancel([job.id])
    await ear.hears(Hint.CANCELS, job.id)
    await one.finish(row.fence)
    await ear.hears(Hint.ENDED, job.id)
    waiting = await one.put()
    await one.store.jobs_request_cancel([waiting.id])
    await ear.hears(Hint.ENDED, waiting.id)
    assert Hint.FINISHED not in {hint for hint, _ in ear.heard}, "that is for the process alone which ended it"
    assert (Hint.FINISHED, (waiting.id,)) in own.heard
    assert Hint.ENDED not in {hint for hint, _ in own.heard}, "it knows already"
    ear.heard.clear()
    await one.store.wake(Hint.JOBS)
    await ear.hears(Hint.JOBS)


async def test_process_does_not_hear_its_own_word_again(computer: Computer) -> None:
    """What it knows it need not look up when another process has written."""
    one, two = await computer.store(poll=0.01), await computer.store()
    ear = Ear(one.store)
    job = await one.put()
    await one.claim()
    await one.store.jobs_request_cancel([job.id])
    assert (Hint.CANCELS, (job.id,)) in ear.heard
    ear.heard.clear()
    await two.schedule("s")
    await ear.hears(Hint.SCHEDULES, "s")
    assert Hint.CANCELS not in {hint for hint, _ in ear.heard}


async def test_process_that_has_missed_word_looks_at_everything(computer: Computer) -> None:
    """Word is kept for a while, not for ever."""
    one, two = await computer.store(), await computer.store(poll=0.01)
    ear = Ear(two.store)

    def flood(session: Session) -> None:
        for n in range(3):
            registry.publish(session, [(Hint.CANCELS, [f"{n}-{m}"]) for m in range(1_500)], "elsewhere")

    store = one.store
    assert isinstance(store, SQLiteStore)
    await store._write(flood)
    await ear.hears(Hint.SCHEDULES)
    assert {(hint, ids) for hint, ids in ear.heard if hint is not Hint.JOBS} == {
        (hint, ()) for hint in (Hint.SCHEDULES, Hint.CANCELS, Hint.ENDED, Hint.PAUSED, Hint.LIMITS)
    }
    (kept,) = computer.look("SELECT count(*) FROM qj_hints")
    assert kept == (1_000,)
