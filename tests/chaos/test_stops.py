"""Processes that stand still, die at a bad moment or go by a wrong clock."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Final

import pytest

from tests.chaos.app import CHAIN_S
from tests.chaos.arena import MARKS, Arena
from tests.chaos.crew import Member
from tests.servers.fixtures import ON_REDIS

pytestmark = MARKS

AT_REST_S: Final = 0.2
NS_PER_S: Final = 1_000_000_000
LATE_S: Final = 3.0
BODY_S: Final = 4.0
"""Longer than a lease, so that of two bodies that begin a lease apart one runs when the other has returned."""


def is_free(file: Path) -> bool:
    """Say whether nobody is writing to a SQLite file."""
    with closing(sqlite3.connect(file, timeout=AT_REST_S, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True


async def stop_at_rest(member: Member, file: Path) -> None:
    """Stop a process, but not while it writes to a SQLite file: then all would stand still."""
    await asyncio.sleep(AT_REST_S)
    member.stop()
    while file.exists() and not is_free(file):
        member.go_on()
        await asyncio.sleep(AT_REST_S)
        member.stop()


async def test_outcome_of_a_worker_that_stood_still_is_refused(place: Arena, tmp_path: Path) -> None:
    """SIGSTOP past the lease, and SIGCONT: another one has the job, and what the first brings no longer counts."""
    (one,) = await place.start("worker")
    await place.submit([place.chaos.threaded.bind(BODY_S)])
    await place.until(lambda: place.holds(one, "threaded"))
    begun = monotonic()
    await stop_at_rest(one, tmp_path / "jobs.db")
    (two,) = await place.start("worker")
    await place.until(lambda: place.holds(two, "threaded"))
    await place.until(lambda: monotonic() - begun > BODY_S)
    one.go_on()  # its body returns at once, while the other one's runs
    await place.until(lambda: one.says("outcome of job", "lease of job"))
    await place.until(lambda: place.ended("threaded") == 2)
    evidence = await place.judge()
    (row,) = evidence.rows
    assert row.result == [row.attempt, two.who]
    assert (row.rescues, row.failures) == (1, 0)


@pytest.mark.parametrize("store_kind", [ON_REDIS], indirect=True)
async def test_chain_goes_on_when_its_worker_dies(place: Arena) -> None:
    """What runs again after its own end has nobody else to start it: the one that takes the job up does."""
    await place.start("both", "both")
    await place.until(lambda: any(place.holds(member, "chain") for member in place.upright))
    place.crew.replace(next(member for member in place.upright if place.holds(member, "chain")))
    await place.more("chain", 3)
    evidence = await place.judge()
    runs = sorted((body for body in evidence.bodies if body.task == "chain"), key=lambda body: body.begun_ns)
    for before, after in pairwise(runs):
        if before.job != after.job:
            assert before.ended_ns is not None
            assert after.begun_ns - before.ended_ns >= CHAIN_S * NS_PER_S


@pytest.mark.parametrize(
    ("store_kind", "skew_s"),
    [
        pytest.param("postgres", 5.0, marks=pytest.mark.needs_postgres),
        pytest.param("redis", -5.0, marks=pytest.mark.needs_redis),
    ],
    indirect=["store_kind"],
)
async def test_worker_whose_clock_is_wrong_fires_and_runs_by_the_stores(place: Arena, skew_s: float) -> None:
    """5 s off: no fire time before its time, none late, none twice; and nobody's lease is too long or too short."""
    await place.start("both", skew_s=skew_s)
    await place.start("worker")
    await place.submit(place.chaos.long.bind(3.0) for _ in range(4))
    await place.until(lambda: place.begun("tick") > 7 and place.ended("long") == 4)
    evidence = await place.judge()
    assert all(row.rescues == 0 for row in evidence.rows)
    for row in evidence.rows:
        if row.origin is not None and row.running_at_ns is not None and row.task != "chain":
            assert 0 <= row.running_at_ns - row.origin.nominal_ns < LATE_S * NS_PER_S, row
