"""Celery alone: a task sent and its result fetched, as a program does it that has no event loop."""

from __future__ import annotations

from time import perf_counter

from celery.result import ResultSet

from clusters.theirs import noop, working
from measure import Meter, answer, options, percentile

args = options(n=1_000, how="serial")


def serial(n: int) -> list[float]:
    """Return the milliseconds that each took."""
    times: list[float] = []
    for _ in range(n):
        began = perf_counter()
        noop.delay().get()
        times.append(1e3 * (perf_counter() - began))
    return sorted(times)


def burst(n: int) -> list[float]:
    """Send a hundred, fetch a hundred: by the way its documentation has for many results in Redis."""
    for _ in range(n // 100):
        ResultSet([noop.delay() for _ in range(100)]).join_native()
    return []


def main() -> None:
    meter, play = Meter(), serial if args.how == "serial" else burst
    with working("clusters.theirs"):
        play(200)
        meter.start()
        times = play(args.n)
        meter.stop()
    more = {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99)} if times else {}
    answer(args, {**meter.per(args.n), **more}, "no record of a job; nobody hears when it begins")


main()
