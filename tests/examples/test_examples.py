"""The examples run, end and print what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from examples.fastapi_lifespan import api, jobs
from tests.repo.checkout import blocks

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *args: str, stderr: str = "") -> str:
    """Run an example as a user would; it must end by itself, with nothing on stderr but a line that ends so."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *args], capture_output=True, text=True, timeout=150, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1 if stderr else 0), done.stderr
    assert done.stderr.endswith(stderr)
    return done.stdout


def test_clock_tops_tick_and_leave_nothing_behind() -> None:
    """Three kinds of generators, cancelled in three ways."""
    out = run("actr_clock_tops.py")
    assert out.count("grid     #") == 4
    assert "clock top" in out
    slow = [line for line in out.splitlines() if line.startswith("slow body")]
    assert len(slow) == 3
    assert "3 missed" in slow[-1] or "2 missed" in slow[-1]
    assert "struck at 12:00, the next at 12:15" in out
    assert "tasks left: 0" in out


def test_periodic_ways_keep_their_grids() -> None:
    """A body that waits makes no tick late, one longer than the period skips some, and a pause is no grid."""
    rows = [line.split() for line in run("periodic_ways.py").splitlines()]
    runs = {name: int(count) for name, count, *_ in rows}
    assert runs.keys() == {
        "in_a_thread",
        "in_a_process",
        "on_the_loop",
        "longer_than_the_period",
        "pause_in_between",
        "in_place",
    }
    assert runs["in_place"] == 6
    assert runs["on_the_loop"] > runs["pause_in_between"]  # that of the app, and that made at run time
    assert 2 <= runs["longer_than_the_period"] < runs["in_a_thread"]


def test_heavy_work_draws_bars_and_survives_a_crash() -> None:
    """Two children for three jobs; the one that dies goes on from its checkpoint."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples/heavy_work.py", "2000"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "303 primes in 1 attempt",
        "550 primes in 1 attempt",
        "303 primes in 2 attempts",
    ]
    assert "303 primes below 2000" in done.stderr


def test_a_backup_runs_at_half_past_two_in_every_night() -> None:
    """Also in that which has no such time."""
    out = run("backup_command.py").splitlines()
    assert out[2] == "Sun 29 Mar 01:00 UTC: dumped the shop, exit code 0"
    assert out[5:8] == ["2026-03-27T02:30+01:00", "2026-03-28T02:30+01:00", "2026-03-29T03:00+02:00"]


@pytest.mark.slow
def test_processes_keep_one_limit() -> None:
    """Three share what is left while a fourth that was killed has two of four slots, and then those as well."""
    killed, counted = run("fleet_limits.py").splitlines()
    assert killed == "the first process has two slots and is killed"
    words = counted.split()
    assert counted.startswith("90 calls of three processes")
    assert int(words[-3]) <= 4


def test_states_stamps_and_callbacks() -> None:
    """One loop, threads and an own-loop thread side by side."""
    out = run("async_scheduler_states.py", stderr="timed out in attempt 1: ran longer than its timeout of 0.3 s\n")
    assert out.count(": submitted") == 3
    assert "quick after 0.05 s" in out
    assert out.count("on urgent") + out.count("on qj-urgent") >= 3 or out.count("alarm ") >= 3
    assert "ran longer than its timeout" in out
    assert "cancelled: True cancelled" in out
    assert "JobTimedOut" in out


def test_clock_application_serves_and_stops() -> None:
    """Groups, dependencies, hooks and every kind of trigger."""
    out = run("aioclock_app.py", "3.6").splitlines()
    assert out[0] == "welcome"
    assert out[-1] == "going offline"
    assert "once: I love lamp" in out
    assert out.count("every second: a plain function, in a thread") >= 2
    assert any("screen door" in line for line in out)


def test_task_manager_and_each_line_of_its_roadmap() -> None:
    """Who comes from there finds what he had, and what he was promised."""
    out = run("task_manager.py").splitlines()
    assert [line for line in out[:8] if "completed after 1.0s" in line] == out[:8]
    assert out[8:] == [
        "Idle after 3 s. Result from task-7",
        "Stopping the manager...",
        "Manager stopped.",
        "Delay: [0.0, 40.0, 80.0]",
        "FixedWindow: {0.0: 300, 900.0: 300, 1800.0: 100}",
        "Retry: an answer at [0.0, 1.0, 3.0, 7.0]",
        "Priority: ['high 0', 'high 1', 'high 2', 'low, early', 'low', 'high 3']",
        "SlidingWindow: [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0]",
        "SlidingWindow, smooth: [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2]",
        "AdaptiveLimit: between 4 and 16: True",
        "Batch: [4, 1] ['A', 'B', 'ValueError: empty row', 'D', 'E']",
        "CircuitBreaker: {'ConnectionError': 3, 'CircuitOpen': 2} an answer",
        "WeightedRoundRobin: {'large': 4, 'small-1': 2, 'small-2': 2}",
        "TimeWindow: waited, 21:00 UTC",
    ]


def test_orders_of_strategies_cost_what_their_page_says() -> None:
    """The page explains these numbers one by one."""
    page = ROOT / "docs/flow/composition.md"
    assert run("flow_composition.py") in [block.text for block in blocks(page) if block.language == "text"]


async def test_fastapi_runs_the_app_in_its_lifespan() -> None:
    """Requests submit jobs and look at them."""
    async with api.router.lifespan_context(api):
        transport = httpx.ASGITransport(app=api)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            job = (await client.post("/mail/ada")).json()["job"]
            await (await jobs.job(job))
            answer = (await client.get(f"/jobs/{job}")).json()
            unknown = (await client.get("/jobs/nobody")).status_code
    assert answer == {"state": "done", "result": "mail to ada"}
    assert unknown == 404
    assert not jobs.is_running


def test_jobs_in_a_file_survive_restarts(tmp_path: Path) -> None:
    """What one process submitted another does, at its time, and each tick runs once."""
    out = run("survives_a_restart.py", str(tmp_path))
    assert "09:00:00  order 1 delivered, attempt 1\n  order 1 is on its way" in out
    assert "09:02:30  order 2 delivered, attempt 1" in out
    assert "order 2: done, 0 s after its time" in out
    assert out.endswith("stocktaking: 4 runs, each of another minute: 4\n")
    assert (tmp_path / "jobs.db").exists()
