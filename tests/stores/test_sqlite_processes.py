"""Several processes on one SQLite file, and killed ones: nothing answered is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.model import JobFilter, JobIds, JobRecord, JobState, RunOptions
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import Claim, Want
from quarterjack.stores.sqlite import SQLiteStore

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, json, sys
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.model import Finish, FinishKind, JobIds, JobRecord, RunOptions, Unique
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import Claim, Want
from quarterjack.stores.sqlite import SQLiteStore

def say(**facts):
    print(json.dumps(facts), flush=True)

async def put_and_finish(store, ids, who):
    n = 0
    while True:
        n += 1
        options = [RunOptions(), RunOptions(), RunOptions(unique=Unique(f"{n}"))]
        jobs = [JobRecord(ids(), "a", (n,), {}, each) for each in options]
        await store.jobs_put(jobs)
        say(batch=n)
        rows = (await store.jobs_claim(Claim(who, [Want(("default",), frozenset({"a"}), 2)], 30.0))).jobs
        now = await store.now_ns()
        await store.jobs_finish([Finish(*row.fence, FinishKind.DONE, now, now, now, result=1) for row in rows])
        say(done=[row.id for row in rows])

async def claim_all(store, ids, who):
    say(ready=True)
    sys.stdin.readline()
    while True:
        rows = (await store.jobs_claim(Claim(who, [Want(("default",), frozenset({"a"}), 7)], 30.0))).jobs
        if not rows:
            break
        now = await store.now_ns()
        states = await store.jobs_finish([Finish(*row.fence, FinishKind.DONE, now, now, now) for row in rows])
        for row, state in zip(rows, states):
            say(id=row.id, attempt=row.attempt, state=state)

async def main(path, what, who):
    store, ids = SQLiteStore(path), JobIds()
    await store.open(SYSTEM_CLOCK, ids, Encoding())
    await globals()[what](store, ids, who)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def program(path: Path, what: str, who: str = "w") -> Iterator[subprocess.Popen[str]]:
    """Run one part of PROGRAM on the file in a process of its own; it is gone at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), what, who],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def opened(path: Path) -> SQLiteStore:
    store = SQLiteStore(path)
    await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
    return store


def lines(text: str) -> list[dict[str, Any]]:
    """Return what a program said; the last line may be cut off."""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("after", [1, 40])
async def test_killed_process_leaves_all_it_was_answered_and_nothing_half_done(tmp_path: Path, after: int) -> None:
    """The promise of the store: whoever has an answer may rely on it, whatever happens to the process."""
    path = tmp_path / "jobs.db"
    with program(path, "put_and_finish") as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        rest, errors = await asyncio.to_thread(process.communicate)
    assert errors == ""
    facts = lines("".join(said) + rest)
    store = await opened(path)
    rows = (await store.jobs_list(JobFilter(), limit=100_000)).jobs
    batches = Counter(row.args[0] for row in rows)
    assert set(batches.values()) <= {3}, "all of a batch or nothing"
    assert {fact["batch"] for fact in facts if "batch" in fact} <= set(batches)
    states = {row.id: row.state for row in rows}
    assert {states[job_id] for fact in facts for job_id in fact.get("done", [])} <= {JobState.DONE}
    assert all(row.finished_at_ns and row.result == 1 for row in rows if row.state is JobState.DONE)
    waiting = next(row for row in rows if row.options.unique is not None and not row.state.is_finished)
    (answer,) = await store.jobs_put([JobRecord("new", "a", (), {}, waiting.options)])
    assert answer.id == waiting.id, "its key is its own as before"
    await store.close()


async def test_processes_that_claim_from_one_file_share_the_jobs(tmp_path: Path) -> None:
    """No job is held twice, none is forgotten, and nobody hears that the file is locked."""
    path = tmp_path / "jobs.db"
    store = await opened(path)
    ids = JobIds()
    jobs = [JobRecord(ids(), "a", (n,), {}, RunOptions()) for n in range(400)]
    await store.jobs_put(jobs)
    with program(path, "claim_all", "w1") as one, program(path, "claim_all", "w2") as two:
        for process in (one, two):
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"ready": True}
        runs = [asyncio.to_thread(process.communicate, "go\n") for process in (one, two)]
        answers = await asyncio.gather(*runs)
    assert [errors for _, errors in answers] == ["", ""]
    said = [lines(text) for text, _ in answers]
    assert all(said), "both had some"
    claimed = [(fact["id"], fact["attempt"], fact["state"]) for facts in said for fact in facts]
    assert sorted(claimed) == sorted((job.id, 1, "done") for job in jobs)
    await store.close()


async def test_backlog_is_served_in_order_after_a_restart(tmp_path: Path) -> None:
    """A restart is no event in the life of a job that waits."""
    path, ids = tmp_path / "jobs.db", JobIds()
    store = await opened(path)
    jobs = [JobRecord(ids(), "a", (n,), {}, RunOptions(priority=n % 2)) for n in range(50)]
    await store.jobs_put(jobs)
    (held,) = (await store.jobs_claim(Claim("w1", [Want(("default",), frozenset({"a"}), 1)], 30.0))).jobs
    await store.close()
    store = await opened(path)
    again = (await store.jobs_claim(Claim("w2", [Want(("default",), frozenset({"a"}), 100)], 30.0))).jobs
    assert [row.id for row in (held, *again)] == [job.id for job in (*jobs[::2], *jobs[1::2])]
    assert [row.args for row in again[:2]] == [(2,), (4,)]
    await store.close()
