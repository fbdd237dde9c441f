"""The cases about processes: a no-op there and back, and what spinning children do to ticks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["process_cases"]


def process_cases(
    make_case: Callable[..., Any], contender: Callable[..., Any], column: Callable[..., Any]
) -> Iterator[Any]:
    """Yield the cases, made of the classes of ``cases.py``."""
    contenders = (
        contender("quarterjack", "process/ours.py", "ours"),
        contender("ProcessPoolExecutor", "process/pools.py", "raw", {"pool": "stdlib"}),
        contender("pebble", "process/pools.py", "pebble", {"pool": "pebble"}),
        contender("loky", "process/pools.py", "loky", {"pool": "loky"}),
    )
    columns = (
        column("wall_us_per_job", "wall µs/job", 0),
        column("cpu_us_per_job", "CPU µs/job of the parent", 0),
        column("first_ms", "first body ms", 0),
    )
    for name, how, title in (
        ("H1", "serial", "one after the other"),
        ("H2", "burst", "a hundred in flight, two workers"),
    ):
        yield make_case(
            name,
            f"no-op functions in processes, {title}",
            contenders,
            columns,
            "wall_us_per_job",
            "ProcessPoolExecutor",
            options={"n": 5_000, "how": how},
            quick={"n": 1_000},
        )
    yield make_case(
        "H3",
        "ticks every 100 ms beside two children that spin",
        (
            contender("quarterjack, idle", "process/ours.py", "ours", {"how": "lag-idle"}),
            contender("quarterjack, children spin", "process/ours.py", "ours", {"how": "lag-busy"}),
        ),
        (column("p50_ms", "lag p50 ms", 3), column("p99_ms", "p99 ms", 3)),
        "p99_ms",
        "quarterjack, idle",
        options={"seconds": 20.0},
        quick={"seconds": 5.0},
    )
