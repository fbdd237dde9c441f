"""What the capacity model of `docs/scaling.md` is made of: bytes and CPU of a job and of a fire, on each store.

    .venv/bin/python benchmarks/capacity.py [--store sqlite,postgres,redis] [--jobs 20000] [--schedules 20000,100000]

It needs the drivers and the servers of the test group. CPU times hold on a busy machine, bytes on any; wall times
are not told. What schedules cost is looked at for twenty seconds."""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, NamedTuple

from measure import Meter
from postgres import server as postgres_server
from quarterjack import Every, JobState, Quarterjack
from quarterjack._app_base import Role
from quarterjack.group import declared_schedule
from quarterjack.task import AsyncTask
from valkey import server as valkey_server

LOT: Final = 1_000
FIRING_S: Final = 20.0
PAYLOAD: Final = "x" * 100
Number = Callable[[], Awaitable[float]]


class Place(NamedTuple):
    """A store to measure: its URL, and what it uses by now."""

    url: str
    stored: Number
    """Bytes in tables, indexes or memory."""
    logged: Number
    """Bytes written to a log that makes them durable."""
    cpu_us: Number
    """CPU time of the server; 0 where the store is in the process."""


def application(url: str, role: Role) -> tuple[Quarterjack, AsyncTask[[str], None]]:
    app = Quarterjack(url, role=role, retention=86_400, keep_finished=10_000_000)

    @app.task
    async def work(text: str = PAYLOAD) -> None:
        del text

    return app, work


async def jobs(place: Place, count: int) -> dict[str, float]:
    """Store, run and keep *count* jobs of a hundred bytes each; return what one costs."""
    app, work = application(place.url, "client")
    store, drain = Meter(), Meter()
    async with app:
        before = [await one() for one in place[1:]]
        store.start()
        for _ in range(0, count, LOT):
            await app.submit_many(work.bind(PAYLOAD) for _ in range(LOT))
        store.stop()
        waiting = [await one() for one in place[1:]]
    app, _ = application(place.url, "worker")
    before_drain = await place.cpu_us()  # what the ended connections of the submitter have used is counted no more
    drain.start()
    async with app:
        while (await app.store.stats()).states.get(JobState.DONE, 0) < count:
            await asyncio.sleep(0.1)
        drain.stop()
        done = [await one() for one in place[1:]]
    return {
        "bytes of a waiting job": (waiting[0] - before[0]) / count,
        "bytes of a finished job": (done[0] - before[0]) / count,
        "bytes logged per job": (done[1] - before[1]) / count,
        "CPU µs of the submitter": store.cpu_s / count * 1e6,
        "CPU µs of the worker": drain.cpu_s / count * 1e6,
        "server µs to submit": (waiting[2] - before[2]) / count,
        "server µs to run": (done[2] - before_drain) / count,
    }


async def by_several(place: Place, count: int, workers: int) -> dict[str, float]:
    """Have several processes run *count* jobs together; return what one costs all of them."""
    app, work = application(place.url, "client")
    async with app:
        for _ in range(0, count, LOT):
            await app.submit_many(work.bind(PAYLOAD) for _ in range(LOT))
    before = await place.cpu_us()
    command = [sys.executable, __file__, "--work", place.url, "--jobs", str(count)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(workers)
    ]
    cpu_s = [float(await asyncio.to_thread(process.stdout.readline)) for process in processes if process.stdout]
    server_us = await place.cpu_us() - before
    for process in processes:
        process.communicate()
    return {"CPU µs of all workers": sum(cpu_s) / count * 1e6, "server µs to run": server_us / count}


async def work_on(url: str, count: int) -> None:
    """Be one of several workers: run until all is done, tell the CPU time, and stay while the server's is read."""
    app, _ = application(url, "worker")
    meter = Meter()
    meter.start()
    async with app:
        while await ended(app) < count:
            await asyncio.sleep(0.25)
        meter.stop()
        print(meter.cpu_s, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def fires(place: Place, count: int, per_s: float, *, together: bool) -> dict[str, float]:
    """Keep *count* schedules that fire *per_s* times a second in all; return what a schedule and a fire cost.

    Each at an instant of its own, or a thousand *together*.
    """
    period = count / per_s
    policies = {} if together else {"jitter": period * 0.99}
    app, work = application(place.url, "both")
    async with app:
        scheduler = app._running().scheduler
        assert scheduler is not None
        scheduler.stop_firing()
        before = await place.stored()
        for start in range(0, count, LOT):
            rows = [
                declared_schedule(work.definition, Every(seconds=period), {"id": f"s{n}", **policies}, None)
                for n in range(start, min(start + LOT, count))
            ]
            for row in rows:
                row.in_code = False  # as those that are put at run time: all code fires them that knows their task
            await app.store.schedules_put(rows)
        kept = await place.stored()
    app, work = application(place.url, "both")
    meter = Meter()
    async with app:
        await asyncio.sleep(5)
        first, cpu, log = (await ended(app)), await place.cpu_us(), await place.logged()
        meter.start()
        await asyncio.sleep(FIRING_S)
        meter.stop()
        last, cpu_then, log_then = (await ended(app)), await place.cpu_us(), await place.logged()
    fired = max(1, last - first)
    return {
        "bytes of a schedule": (kept - before) / count,
        "fires a second": fired / meter.wall_s,
        "CPU µs per fire and run": meter.cpu_s / fired * 1e6,
        "server µs per fire and run": (cpu_then - cpu) / fired,
        "bytes logged per fire and run": (log_then - log) / fired,
    }


async def ended(app: Quarterjack) -> int:
    return (await app.store.stats()).states.get(JobState.DONE, 0)


# -- places ---------------------------------------------------------------------------


async def nothing() -> float:
    return 0.0


def sqlite_place(stack: ExitStack) -> Place:
    file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "jobs.db"

    async def stored() -> float:
        with closing(sqlite3.connect(file)) as db:  # what is still in the log counts as well
            (pages,), (free,), (size,) = (
                db.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "freelist_count", "page_size")
            )
        return float((pages - free) * size)

    return Place(f"sqlite:///{file}", stored, nothing, nothing)


def postgres_place(stack: ExitStack) -> Place:
    one = stack.enter_context(postgres_server())

    async def ask(sql: str) -> float:
        import asyncpg  # noqa: PLC0415  # only where this store is measured

        connection = await asyncpg.connect(one.url)
        try:
            return float(await connection.fetchval(sql) or 0)
        finally:
            await connection.close()

    sizes = "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
WHERE n.nspname = 'quarterjack' AND c.relkind = 'r'"

    async def cpu() -> float:
        return one.cpu_us()

    return Place(one.url, lambda: ask(sizes), lambda: ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"), cpu)


def redis_place(stack: ExitStack) -> Place:
    one = stack.enter_context(valkey_server())

    async def info(section: str) -> dict[str, Any]:
        from redis.asyncio import Redis  # noqa: PLC0415  # as above

        async with Redis(port=one.port) as client:
            found: dict[str, Any] = await client.info(section)
            return found

    async def used() -> float:
        return float((await info("memory"))["used_memory"])

    async def cpu() -> float:
        return one.cpu_us()

    return Place(f"{one.url}/0", used, nothing, cpu)


PLACES: Final = {"sqlite": sqlite_place, "postgres": postgres_place, "redis": redis_place}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default=",".join(PLACES))
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--schedules", default="20000,100000")
    parser.add_argument("--fires", type=float, default=1_000.0, help="a second, in all")
    parser.add_argument("--workers", default="1,2,4", help="processes that share the jobs of a store that is a server")
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        asyncio.run(work_on(args.work, args.jobs))
        return
    for name in args.store.split(","):
        with ExitStack() as stack:
            tell(name, f"{args.jobs:,} jobs", asyncio.run(jobs(PLACES[name](stack), args.jobs)))
        for workers in (int(word) for word in args.workers.split(",") if word):
            with ExitStack() as stack:
                found = asyncio.run(by_several(PLACES[name](stack), args.jobs, workers))
            tell(name, f"{args.jobs:,} jobs run by {workers}", found)
        for count in (int(word) for word in args.schedules.split(",") if word):
            for together in (False, True):
                with ExitStack() as stack:
                    found = asyncio.run(fires(PLACES[name](stack), count, args.fires, together=together))
                tell(name, f"{count:,} schedules, {'a thousand together' if together else 'each by itself'}", found)


def tell(name: str, what: str, found: dict[str, float]) -> None:
    print(f"\n{name}, {what}")
    for label, value in found.items():
        print(f"  {label:<32} {value:>10,.1f}", flush=True)


if __name__ == "__main__":
    main()
