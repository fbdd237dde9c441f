"""Limits of a fleet on real stores, between real processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path

import pytest

from quarterjack import ConcurrencyLimit, TaskManager, fleet, gather
from tests.repo.checkout import ROOT

pytestmark = pytest.mark.slow
ROUNDS = 150
"""Of each of two processes."""


@contextmanager
def process(*args: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process of `limited`; it is killed if it does not end."""
    command = [sys.executable, "-m", "tests.runtime.limited", *args]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def rounds(url: str, log: Path) -> None:
    with ExitStack() as stack:
        both = [stack.enter_context(process("rounds", url, str(log), str(ROUNDS))) for _ in range(2)]
        for one in both:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in both:
            begin(one)
        for one in both:
            one.communicate(timeout=150)
            assert one.returncode == 0
    jobs = [line.split() for line in log.read_text().splitlines()]
    assert len(jobs) >= 2 * ROUNDS
    assert len({pid for *_, pid in jobs}) == 2
    moves = sorted([(int(began), 1) for began, _, _ in jobs] + [(int(ended), -1) for _, ended, _ in jobs])
    assert max(accumulate(step for _, step in moves)) <= 4


def begin(one: subprocess.Popen[str]) -> None:
    """Let a process begin its rounds; it goes on by itself."""
    assert one.stdin is not None
    one.stdin.write("go\n")
    one.stdin.close()
    one.stdin = None


def test_no_more_than_the_limit_are_ever_inside_on_sqlite(tmp_path: Path) -> None:
    """Three hundred rounds of two processes: a limit that counts running rows was passed in 298 of them."""
    rounds(f"sqlite:///{tmp_path / 'limits.db'}", tmp_path / "log")


def test_no_more_than_the_limit_are_ever_inside_on_postgres(postgres_url: str, tmp_path: Path) -> None:
    """Likewise where transactions overlap."""
    rounds(postgres_url, tmp_path / "log")


def test_no_more_than_the_limit_are_ever_inside_on_redis(redis_url: str, tmp_path: Path) -> None:
    """Likewise where a script is the transaction."""
    rounds(redis_url, tmp_path / "log")


async def taken_over(url: str) -> None:
    limit = ConcurrencyLimit(4, scope="fleet", name="kept")
    async with fleet(url, limit, lease=2), TaskManager(limit) as manager:
        with process("for ever", url) as holder:
            assert holder.stdout is not None
            assert await asyncio.to_thread(holder.stdout.readline) == "ready\n"
            jobs = [manager.submit(asyncio.sleep, 0) for _ in range(4)]
            await asyncio.sleep(0.3)
            assert not any(job.state.is_finished for job in jobs)
            holder.kill()
        async with asyncio.timeout(2 + 1 + 30):  # the lease, the longest pause between two questions, a slow machine
            await gather(jobs)


async def test_slots_of_a_killed_process_return_within_its_lease_on_sqlite(tmp_path: Path) -> None:
    """Nobody is left to give them back, and nobody has to clean up."""
    await taken_over(f"sqlite:///{tmp_path / 'limits.db'}")


async def test_slots_of_a_killed_process_return_within_its_lease_on_postgres(postgres_url: str) -> None:
    """Likewise by the server's clock."""
    await taken_over(postgres_url)


async def test_slots_of_a_killed_process_return_within_its_lease_on_redis(redis_url: str) -> None:
    """Likewise."""
    await taken_over(redis_url)
