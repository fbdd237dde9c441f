"""The cases about bodies elsewhere: a no-op in a process or on Celery, and what spinning children do to ticks."""

from __future__ import annotations

from collections.abc import Iterator

from .case import Case, Column, Contender

__all__ = ["celery_cases", "process_cases"]


def process_cases() -> Iterator[Case]:
    """Yield the cases."""
    contenders = (
        Contender("quarterjack", "process/ours.py", "ours"),
        Contender("ProcessPoolExecutor", "process/pools.py", "raw", {"pool": "stdlib"}),
        Contender("pebble", "process/pools.py", "pebble", {"pool": "pebble"}),
        Contender("loky", "process/pools.py", "loky", {"pool": "loky"}),
    )
    columns = (
        Column("best_us", "wall µs/job, best tenth", 0),
        Column("wall_us_per_job", "all", 0),
        Column("cpu_us_per_job", "CPU µs/job of the parent", 0),
        Column("first_ms", "first body ms", 0),
    )
    for name, how, title in (
        ("H1", "serial", "one after the other"),
        ("H2", "burst", "a hundred in flight, two workers"),
    ):
        yield Case(
            name,
            f"no-op functions in processes, {title}",
            contenders,
            columns,
            "best_us",
            "ProcessPoolExecutor",
            options={"n": 5_000, "how": how},
            quick={"n": 1_000},
        )
    yield Case(
        "H3",
        "ticks every 100 ms beside two children that spin",
        (
            Contender("quarterjack, idle", "process/ours.py", "ours", {"how": "lag-idle"}),
            Contender("quarterjack, children spin", "process/ours.py", "ours", {"how": "lag-busy"}),
        ),
        (Column("p50_ms", "lag p50 ms", 3), Column("p99_ms", "p99 ms", 3)),
        "p99_ms",
        "quarterjack, idle",
        options={"seconds": 20.0},
        quick={"seconds": 5.0},
    )


def celery_cases() -> Iterator[Case]:
    """Yield the cases about a Celery worker over Valkey."""
    contenders = (
        Contender("quarterjack CeleryExecutor", "clusters/ours.py", "ours-celery"),
        Contender("quarterjack CeleryTask", "clusters/ours.py", "ours-celery", {"whose": "theirs"}),
        Contender("Celery .get()", "clusters/celery_get.py", "celery"),
    )
    columns = (
        Column("wall_us_per_job", "wall µs/job", 0),
        Column("cpu_us_per_job", "CPU µs/job of the program", 0),
    )
    for name, how, title in (
        ("H4", "serial", "one after the other"),
        ("H5", "burst", "a hundred in flight"),
    ):
        yield Case(
            name,
            f"no-op tasks on a Celery worker of two processes and back, {title}",
            contenders,
            columns,
            "wall_us_per_job",
            "Celery .get()",
            options={"n": 500, "how": how},
            quick={"n": 200},
        )
