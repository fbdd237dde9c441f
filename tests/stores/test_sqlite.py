"""The SQLite store keeps the contract of every store, and what it promises beyond."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from quarterjack import Quarterjack
from quarterjack.errors import Conflict, InvalidOption, StoreUnavailable
from quarterjack.model import Finish, FinishKind, JobState, Overlap, Unique, WorkerInfo
from quarterjack.stores import _sqlite_rows as rows
from quarterjack.stores._schema import queries
from quarterjack.stores._sqlite_url import warn_of_network
from quarterjack.stores.base import Renewal
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing.store_contract import Bench, StoreContract
from quarterjack.testing.store_machine import store_machine
from tests.stores.sqlite_kit import Computer


class TestSQLiteStore(StoreContract):
    """The contract, case by case."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "jobs.db"

    def bench(self) -> Bench:
        return Bench(SQLiteStore(self.path, synchronous="off"))  # what waits for the disk is tested below


# -- where it is, and how it is opened ---------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path", "settings"),
    [
        ("sqlite:///jobs.db", "jobs.db", ("FULL", 30.0, 0.05)),
        ("sqlite:////var/lib/my%20app/jobs.db", "/var/lib/my app/jobs.db", ("FULL", 30.0, 0.05)),
        ("sqlite:///a/jobs.db?synchronous=normal&timeout=5&poll=0.2", "a/jobs.db", ("NORMAL", 5.0, 0.2)),
    ],
)
def test_url_names_the_file_and_its_options(url: str, path: str, settings: tuple[str, float, float]) -> None:
    """Three slashes are relative, four absolute, as everywhere."""
    store = SQLiteStore.from_url(url)
    assert store.path == Path(path)
    assert store._settings[2:] == settings


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "does not name a file: write three slashes"),
        ("sqlite://jobs.db", "does not name a file: write three slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "leave the store out to keep all in memory"),
        ("sqlite:///jobs.db?synchronos=off", "no option 'synchronos'; did you mean 'synchronous'"),
        ("sqlite:///jobs.db?x=1", "no option 'x'; there are synchronous, timeout, poll"),
        ("sqlite:///jobs.db?synchronous=never", "one of full, normal, off, extra, got 'never'"),
        ("sqlite:///jobs.db?timeout=soon", "number of seconds above 0, got 'soon'"),
        ("sqlite:///jobs.db?poll=0", "number of seconds above 0, got '0'"),
    ],
)
def test_url_with_a_mistake_says_what_is_right(url: str, words: str) -> None:
    """A typo in a setting must not become a default."""
    with pytest.raises(InvalidOption) as caught:
        SQLiteStore.from_url(url)
    assert words in str(caught.value)


def test_network_file_system_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """There locks do not keep two machines apart, and jobs would run twice in silence."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /srv/shared\\040files rw,relatime shared:1 - nfs4 server:/export rw\n"
    )
    warn_of_network(Path("/srv/local/jobs.db"), "sqlite:////srv/local/jobs.db", mounts)
    warn_of_network(Path("/srv/shared files/jobs.db"), "sqlite:////elsewhere", tmp_path / "none")
    assert caplog.messages == []
    warn_of_network(Path("/srv/shared files/jobs.db"), "sqlite:////srv/shared files/jobs.db", mounts)
    assert "network file system (nfs4)" in caplog.messages[0]


async def test_one_store_object_serves_one_app(computer: Computer) -> None:
    """Two apps on one file are two stores; what is closed says so, and may be opened again."""
    b = await computer.store()
    with pytest.raises(Conflict, match="make one store per app, on the same file"):
        await b.open()
    await b.store.close()
    with pytest.raises(StoreUnavailable, match=r"jobs\.db is not open"):
        await b.put()
    with pytest.raises(StoreUnavailable, match=r"jobs\.db is not open"):
        await b.store.stats()
    await b.open()
    await b.put()


async def test_relative_file_stays_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that changes its folder must not find an empty store there."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    b = Bench(SQLiteStore("jobs.db"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    await b.open()
    job = await b.put()
    assert await b.states([job]) == ["submitted"]
    await b.store.close()
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["jobs.db"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


# -- keeping and losing ------------------------------------------------------------------


async def test_purge_goes_on_until_all_old_jobs_are_gone(computer: Computer) -> None:
    """It deletes some at a time, so that others get a turn, and still as many as it was asked to."""
    b = await computer.store()
    for _ in range(3):
        await b.store.jobs_put([b.job() for _ in range(400)])
    while held := await b.claim(500):
        now = await b.store.now_ns()
        await b.store.jobs_finish([Finish(*row.fence, FinishKind.DONE, now) for row in held])
    await b.advance(10)
    assert await b.store.jobs_purge(timedelta(seconds=5), limit=700) == 700
    assert await b.store.jobs_purge(timedelta(seconds=5)) == 500


async def test_two_that_purge_at_once_keep_what_is_to_be_kept(computer: Computer) -> None:
    """Each finds the same surplus: it must not go twice."""
    benches = [await computer.store() for _ in range(2)]
    for _ in range(3):
        await benches[0].store.jobs_put([benches[0].job() for _ in range(500)])
    while held := await benches[0].claim(500):
        now = await benches[0].store.now_ns()  # many of one instant
        await benches[0].store.jobs_finish([Finish(*row.fence, FinishKind.DONE, now) for row in held])
    gone = await asyncio.gather(*(b.store.jobs_purge(timedelta(days=1), keep=400) for b in benches))
    assert sum(gone) == 1_100


async def test_delays_that_end_together_are_taken_up_a_part_at_a_time(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others wait for the transaction; who claims is told to come again at once."""
    monkeypatch.setattr("quarterjack.stores._sqlite_jobs._PROMOTED_AT_ONCE", 10)
    b = await computer.store()
    await b.store.jobs_put([b.job(delay_ns=n) for n in range(1, 26)])
    await b.advance(1)
    now = await b.store.now_ns()
    asked, got = 0, list[str]()
    while (claimed := await b.claimed(100)).next_run_at_ns is not None:
        assert claimed.next_run_at_ns <= now
        asked, got = asked + 1, got + [row.id for row in claimed.jobs]
    got += [row.id for row in claimed.jobs]
    assert (asked, len(set(got))) == (2, 25)


async def test_unique_keys_of_periods_that_are_over_are_forgotten(computer: Computer) -> None:
    """A key per customer and hour must not fill the file."""
    b = await computer.store()
    await b.put(unique=Unique("k", scope=timedelta(minutes=10)))
    await b.finish((await b.claim())[0].fence)
    await b.store.jobs_purge(timedelta(0))
    assert computer.look("SELECT key FROM qj_unique") == [("k",)]
    await b.advance(601)
    await b.store.jobs_purge(timedelta(0))
    assert computer.look("SELECT key FROM qj_unique") == []


async def test_limits_that_say_nothing_more_are_forgotten(computer: Computer) -> None:
    """There may be one for each customer, or for each window: they must not fill the file."""
    b = await computer.store()
    await b.store.limit_acquire("l", ["a"], maximum=1, ttl_s=30)
    await b.store.limit_acquire("l", ["b"], maximum=1, ttl_s=30, waiter="w")
    await b.store.limit_take("t", 1, rate=1, burst=2)
    await b.store.jobs_purge(timedelta(0))
    assert computer.look("SELECT name FROM qj_slots UNION ALL SELECT name FROM qj_tokens") == [("l",), ("l",), ("t",)]
    await b.advance(30)
    await b.store.jobs_purge(timedelta(0))
    assert computer.look("SELECT name FROM qj_slots UNION ALL SELECT name FROM qj_tokens") == []


async def test_put_that_fails_leaves_the_records_as_they_were(computer: Computer) -> None:
    """The caller may try again with the same ones."""
    b = await computer.store(timeout=0.05)
    shell = sqlite3.connect(computer.path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    jobs = [b.job(), b.job()]
    keyed = b.job(unique=Unique("k"))
    for put in (jobs, [keyed]):
        with pytest.raises(StoreUnavailable, match="locked"):
            await b.store.jobs_put(put)
    shell.execute("ROLLBACK")
    assert {job.state for job in (*jobs, keyed)} == {JobState.NEW}
    assert await b.store.jobs_put([*jobs, keyed]) == [*jobs, keyed]
    shell.close()


async def test_instant_beyond_what_the_file_can_hold_is_refused(computer: Computer) -> None:
    """The year 9999 is a popular "never"; the error says what there is instead of speaking of C."""
    b = await computer.store()
    with pytest.raises(InvalidOption, match="up to the year 2262"):
        await b.put(run_at_ns=2**63)
    assert len(await b.claim()) == 0


async def test_claim_waits_for_the_disk_where_a_power_failure_must_not_undo_it(computer: Computer) -> None:
    """A plain claim is the claimer's, who is gone as well then; a job with one try must not have two."""
    b = await computer.store(synchronous="full")
    assert isinstance(b.store, SQLiteStore)
    writer = b.store._writer
    assert writer is not None

    async def waited() -> bool:
        await b.store.workers_put(WorkerInfo("w", "host", 1, "both", (), 0, 0))
        assert writer._synchronous == "NORMAL"
        assert len(await b.claim(1, lease_s=30)) == 1
        return writer._synchronous == "FULL"

    await b.put()
    assert not await waited()
    await b.put(max_rescues=0)
    assert await waited()
    await b.advance(31)
    assert await waited(), "the job with one try is lost, and somebody may be told so"


# -- proof: what is broken is found -----------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        """submitted_by = '["p", null, null, "text", "region", "team"]'""",
        """submitted_by = 'nobody'""",
        """options = '{"newer": 1, "timeout_s": {"soft": 1}, "executor": ["thread"], "retry": {"newer": 1}}'""",
        """options = '5'""",
        """unique_key = 'k', unique_scope = 'per_shift', unique_conflict = 'ask'""",
    ],
)
async def test_row_of_a_later_version_stops_no_worker(tmp_path: Path, said: str) -> None:
    """It was leased by the time it was read: whoever ended there left it to the next one, and all others with it."""
    path = tmp_path / "jobs.db"
    client, app = Quarterjack(f"sqlite:///{path}", role="client"), Quarterjack(f"sqlite:///{path}")

    async def double(n: int) -> int:
        return 2 * n

    theirs, ours = client.task(double), app.task(double)
    async with client:
        odd = await client.submit(theirs, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE qj_jobs SET {said}")  # the texts above
    async with app, asyncio.timeout(20):
        assert await (await app.submit(ours, 2)) == 4
        assert await (await app.job(odd.id)) == 2


async def renewal_of_an_earlier_attempt_is_lost(b: Bench) -> None:
    await b.put()
    (old,) = await b.claim(lease_s=30)
    await b.advance(31)
    await b.claim(lease_s=30)
    assert (await b.store.jobs_renew("w1", [Renewal(old.id, old.attempt)], 30)).lost == [old.id]


_contract: Any = StoreContract()
_STALE = partial(_contract.test_stale_holder_writes_nothing, verb="finish")
_STALE_RENEWAL = _contract.test_stale_renewal_makes_nothing_running
_FINAL = partial(_contract.test_final_outcome_ends_the_job_once, kind="done")
_TWICE = _contract.test_no_job_is_held_twice
_RESCUE = _contract.test_lease_that_ran_out_is_rescued_by_the_next_claim
_ZOMBIE = _contract.test_body_that_outlives_its_outcome_keeps_its_overlap_until_it_ends
_LEFT_OUT = partial(_contract.test_fire_time_is_not_left_out_for_a_backfill_and_goes_before_its_rest, mode="skip")
_QUEUED = partial(
    _contract.test_fire_decides_overlap, overlap=Overlap("queue_all"), expected=["scheduled", "submitted", "submitted"]
)
_NEXT = _contract.test_next_in_line_has_its_turn_if_the_one_before_is_cancelled
_IN_ORDER = _contract.test_claim_takes_due_jobs_of_wanted_tasks_and_queues_in_order


@pytest.mark.parametrize(
    ("query", "part", "instead", "case"),
    [
        ("finish", "attempt = ended.column2", "TRUE", _STALE),
        ("finish", "owner = ended.column3", "TRUE", _STALE),
        ("finish", "owner = NULL,", "", _FINAL),
        ("renew", "attempt = alive.column2", "TRUE", renewal_of_an_earlier_attempt_is_lost),
        ("began", "attempt = :attempt AND owner = :owner", ":attempt IS NOT :owner", _STALE_RENEWAL),
        ("lease", "attempt = attempt + 1", "attempt = attempt", _FINAL),
        ("lease", "place = 0", "place = 1", _TWICE),
        ("ready_in_lane", "ORDER BY order_at_ns, seq", "ORDER BY seq", _IN_ORDER),
        ("expired", "lease_until_ns <= ?", "lease_until_ns > ?", _RESCUE),
        ("line_is_taken", "zombie = 1 OR state IN", "state IN", _ZOMBIE),
        ("line_is_taken", "AND serial = 1", "AND FALSE", _QUEUED),
        ("line_goes_on", "min(origin_trigger IS", "max(origin_trigger IS", _LEFT_OUT),
        ("line_goes_on", "place = 3", "FALSE", _NEXT),
    ],
)
async def test_broken_statement_is_found_by_the_contract(
    computer: Computer, broken: Callable[[str, str, str], None], query: str, part: str, instead: str, case: Any
) -> None:
    """A suite that passes whatever the statements say would prove nothing."""
    await case(await Computer(computer.path.with_name("sound.db"), computer.stack).store())
    broken(query, part, instead)
    with pytest.raises((AssertionError, ValueError)):
        await case(await computer.store())


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Return a function that breaks a statement of the store for this test."""

    def break_(query: str, part: str, instead: str) -> None:
        sound = queries("sqlite")[query]
        assert part in sound
        monkeypatch.setitem(queries("sqlite"), query, sound.replace(part, instead))
        rows._sql.cache_clear()

    yield break_
    monkeypatch.undo()
    rows._sql.cache_clear()


# -- the contract as a machine -----------------------------------------------------------


def test_store_beside_its_model(tmp_path: Path) -> None:
    """Any order of calls, with leases that run out: the store shows what the model shows."""
    runs = count()
    machine = store_machine(lambda: Bench(SQLiteStore(tmp_path / f"{next(runs)}.db", synchronous="off")))
    run_state_machine_as_test(machine, settings=settings(max_examples=30, stateful_step_count=30))
