"""huey on an SQLite file, fsync on: enqueue one by one, drain by one consumer thread, latency of a single task."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

from huey import SqliteHuey

from measure import Meter, answer, options, percentile, run

logging.disable(logging.CRITICAL)
args = options(n=20_000, what="drain", tasks=1)


def wait_for(count: list[float], n: int) -> None:
    while len(count) < n:
        time.sleep(0.001)


async def main() -> None:
    meter, begun = Meter(), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        huey = SqliteHuey(filename=str(Path(folder) / "huey.db"), fsync=True, results=True)

        @huey.task()
        def note(submitted: float) -> None:
            begun.append(time.perf_counter() - submitted)

        # The shortest pauses between looks that it takes: by default it looks up to every 10 s.
        consumer = huey.create_consumer(workers=1, periodic=False, initial_delay=0.001, backoff=1.0, max_delay=0.001)
        if args.what == "latency":
            consumer.start()
            for n in range(args.n):
                note(time.perf_counter())
                wait_for(begun, n + 1)
                time.sleep(0.005)
            consumer.stop(graceful=True)
            waits = sorted(1e3 * wait for wait in begun)
            metrics = {"p50_ms": percentile(waits, 0.5), "p99_ms": percentile(waits, 0.99), "max_ms": waits[-1]}
            answer(args, metrics, "one worker thread, looks each ms")
            return
        if args.what == "submit":
            meter.start()
        for _ in range(args.n):
            note(0.0)
        if args.what == "drain":
            meter.start()
            consumer.start()
            wait_for(begun, args.n)
        meter.stop()
        if args.what == "drain":
            consumer.stop(graceful=True)
    answer(args, {**meter.per(args.n), "per_second": args.n / meter.wall_s}, "one at a time; one worker thread")


run(main, args)
