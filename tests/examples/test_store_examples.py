"""The examples about stores, run as users would: on each store, in several processes, inside a transaction."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

import quarterjack

ROOT = Path(__file__).resolve().parents[2]
SOURCE = str(Path(quarterjack.__file__).parents[1])


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join((SOURCE, str(ROOT))), **more}


def run(name: str, **more: str) -> list[str]:
    """Run an example to its end; nothing may stand on stderr."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name],
        capture_output=True, text=True, timeout=100, check=False, env=environment(**more),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


# -- the same file on four stores ----------------------------------------------------------


def told(earlier: int) -> list[str]:
    return [
        f"packed by earlier runs: {earlier}",
        "packed: ['1 bell', '2 clapper', '3 rope']",
        "asked for twice, done once: True, label 7 in attempt 2",
        "stocktaking ran, each fire time once: True",
    ]


def test_application_runs_on_memory() -> None:
    """Where it begins: with nothing to install and nothing to clean up."""
    assert run("four_stores.py", JOBS_URL="memory") == told(0)


def test_application_runs_on_a_file_and_finds_it_again(tmp_path: Path) -> None:
    """One URL, and the jobs of the run before are there."""
    url = f"sqlite:///{tmp_path / 'orders.db'}"
    assert run("four_stores.py", JOBS_URL=url) == told(0)
    assert run("four_stores.py", JOBS_URL=url) == told(3)


def test_application_runs_on_postgresql(postgres_url: str) -> None:
    """The same file, for many machines."""
    assert run("four_stores.py", JOBS_URL=postgres_url) == told(0)


def test_application_runs_on_redis(redis_url: str) -> None:
    """And for many small jobs."""
    assert run("four_stores.py", JOBS_URL=redis_url) == told(0)


# -- several processes of a web server ---------------------------------------------------------

WORKERS = 3
TICKS = 12


@contextmanager
def served(url: str) -> Iterator[httpx.Client]:
    """Serve the example by several processes of uvicorn; yield a client once all are at work."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["uvicorn", "examples.fastapi_workers:api", "--workers", str(WORKERS), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", *words, "--log-level", "warning"],
        env=environment(JOBS_URL=url, PERIOD_S="0.25"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            assert within(60, lambda: len(answer(client, "/processes")) == WORKERS), process.poll()
            yield client
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert "Traceback" not in out, out


def answer(client: httpx.Client, path: str) -> list[str]:
    try:
        found: list[str] = client.get(path).json()
    except httpx.TransportError:  # it is still starting
        return []
    return found


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    """Ask again and again, as there is no event of another program's to wait for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.skipif(find_spec("uvicorn") is None, reason="uvicorn is not installed: python3 dev.py test does it")
def test_ticks_of_a_web_service_in_several_processes_run_once_each(tmp_path: Path) -> None:
    """The question that everybody asks who puts a scheduler into a web service: why does it run three times?"""
    with served(f"sqlite:///{tmp_path / 'service.db'}") as client:
        assert within(60, lambda: len(answer(client, "/minutes")) >= TICKS)
        fires = answer(client, "/minutes")
        assert len(fires) == len({*fires}), fires
        assert [client.get(f"/sum/{n}/1").json() for n in range(6)] == [1, 2, 3, 4, 5, 6]


# -- inside a transaction -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_job_asked_for_in_a_transaction_of_sqlalchemy_stands_or_falls_with_it(
    postgres_server: str, postgres_url: str, driver: str
) -> None:
    """Orders and their jobs are one fact, whichever driver SQLAlchemy has."""
    database = postgres_server.replace("postgresql://", f"postgresql+{driver}://")
    assert run("sqlalchemy_orders.py", DATABASE_URL=database, JOBS_URL=postgres_url) == [
        "the order that was kept: its receipt is done",
        "the order that was rolled back: nobody ever asked for a receipt",
        "orders: 1, receipts: 1",
    ]
