"""The cases about stores that outlive a process: Redis, PostgreSQL and SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .case import PER_JOB, Case, Column, Contender

__all__ = ["postgres_cases", "redis_cases", "sqlite_cases"]

QUEUED: Final = (
    Column("per_s", "jobs/s", 0),
    *PER_JOB[:2],
    Column("server_us_per_job", "server CPU µs/job"),
    PER_JOB[2],
)
LATENCY: Final = (Column("p50_ms", "p50 ms", 3), Column("p99_ms", "p99 ms"), Column("n", "jobs", 0))


def redis_cases() -> Iterator[Case]:
    def contenders(how: str, slow: int) -> tuple[Contender, ...]:
        few = {"how": how, "n": slow}
        return (
            Contender("quarterjack", "redis_store/ours.py", "ours-redis", {"how": how}),
            Contender("redis-py stream", "redis_store/raw_stream.py", "redis", {"how": how}),
            Contender("taskiq", "redis_store/taskiq_stream.py", "taskiq-redis", few),
            Contender("SAQ", "redis_store/saq_queue.py", "saq-redis", few),
            Contender("arq", "redis_store/arq_pool.py", "arq", few),
        )

    for name, how, title in (
        ("C-one", "one", "20,000 no-op jobs enqueued one by one over Valkey"),
        ("C-bulk", "bulk", "20,000 no-op jobs enqueued in lots of 1,000 over Valkey"),
        ("C-drain", "drain", "20,000 no-op jobs drained by one worker, 100 at once, over Valkey"),
    ):
        yield Case(
            name, title, contenders(how, 10_000), QUEUED, "cpu_us_per_job", "redis-py stream",
            options={"n": 20_000}, quick={"n": 5_000},
        )  # fmt: skip
    yield Case(
        "C-latency", "one job at a time over Valkey, from before the submit to the body's first line",
        contenders("latency", 40), LATENCY, "p50_ms", "redis-py stream", options={"n": 1_000}, quick={"n": 200},
    )  # fmt: skip


def sqlite_cases() -> Iterator[Case]:
    per_second = (Column("per_second", "jobs/s", 0), *PER_JOB)
    queues = (
        Contender("huey", "sqlite/huey_file.py", "huey", {"n": 3_000}),
        Contender("persist-queue, acknowledged", "sqlite/persist_queue.py", "persistqueue", {"n": 3_000}),
    )
    pops = Contender("persist-queue, popped", "sqlite/persist_queue.py", "persistqueue", {"n": 3_000, "how": "pop"})
    yield Case(
        "E1", "a backlog of 20,000 no-op jobs in an SQLite file, drained by one process",
        (
            Contender("quarterjack", "sqlite/ours.py", "ours-sqlite"),
            Contender("quarterjack, normal", "sqlite/ours.py", "ours-sqlite", {"synchronous": "normal"}),
            *queues,
            pops,
        ),
        per_second, "wall_us_per_job", "huey", options={"n": 20_000, "what": "drain"}, quick={"n": 2_000},
    )  # fmt: skip
    yield Case(
        "E2", "jobs submitted to an SQLite file",
        (
            Contender("quarterjack, 100 tasks", "sqlite/ours.py", "ours-sqlite"),
            Contender("quarterjack, one by one", "sqlite/ours.py", "ours-sqlite", {"tasks": 1, "n": 3_000}),
            *queues,
        ),
        per_second, "wall_us_per_job", "huey", options={"n": 20_000, "what": "submit"}, quick={"n": 1_000},
    )  # fmt: skip
    yield Case(
        "E3", "from the submit of a job to the start of its body, one process, an SQLite file",
        (Contender("quarterjack", "sqlite/ours.py", "ours-sqlite"), Contender("huey", "sqlite/huey_file.py", "huey")),
        (Column("p50_ms", "p50 ms", 3), Column("p99_ms", "p99 ms"), Column("max_ms", "max ms")),
        "p50_ms", "huey", options={"n": 500, "what": "latency"}, quick={"n": 50},
    )  # fmt: skip


def postgres_cases() -> Iterator[Case]:
    def contenders(how: str, slow: int) -> tuple[Contender, ...]:
        few = {"how": how, "n": slow}
        return (
            Contender("quarterjack", "pg_store/ours.py", "ours-postgres", {"how": how}),
            Contender("asyncpg, bare", "pg_store/raw_asyncpg.py", "asyncpg", {"how": how}),
            Contender("pgqueuer", "pg_store/pgqueuer_manager.py", "pgqueuer", {"how": how}),
            Contender("SAQ", "pg_store/saq_queue.py", "saq-postgres", few),
            Contender("procrastinate", "pg_store/procrastinate_app.py", "procrastinate", few),
        )

    for name, how, title, n, slow in (
        ("D-one", "one", "no-op jobs enqueued one by one over PostgreSQL", 3_000, 2_000),
        ("D-bulk", "bulk", "20,000 no-op jobs enqueued in lots of 1,000 over PostgreSQL", 20_000, 3_000),
        ("D-drain", "drain", "20,000 no-op jobs drained by one worker, 100 at once, over PostgreSQL", 20_000, 2_000),
    ):
        many = Contender("quarterjack, 50 tasks", "pg_store/ours.py", "ours-postgres", {"how": how, "tasks": 50})
        yield Case(
            name, title, (*contenders(how, slow), *([many] if how == "one" else [])), QUEUED,
            "cpu_us_per_job", "asyncpg, bare", options={"n": n}, quick={"n": n // 5},
        )  # fmt: skip
    for name, what, title in (
        ("D-backlog", {"backlog": 100_000}, "of 120,000 no-op jobs over PostgreSQL, the first 20,000"),
        ("D-pinned", {"pinned": 1}, "20,000 no-op jobs over PostgreSQL while a transaction elsewhere keeps dead rows"),
    ):
        without = Contender("quarterjack, without", "pg_store/ours.py", "ours-postgres", dict.fromkeys(what, 0))
        yield Case(
            name, f"{title}, drained by one worker, 100 at once", (*contenders("drain", 0)[:3], without), QUEUED,
            "wall_us_per_job", "quarterjack, without", options={"n": 20_000, **what},
            quick={"n": 4_000, **{key: min(value, 20_000) for key, value in what.items()}},
        )  # fmt: skip
    yield Case(
        "D-latency", "one job at a time over PostgreSQL, from before the submit to the body's first line",
        contenders("latency", 200), LATENCY, "p50_ms", "asyncpg, bare", options={"n": 500}, quick={"n": 100},
    )  # fmt: skip
