"""The cases: what is measured, who is measured, and what each is compared with.

A contender is a script of this folder, an environment of ``peers.toml`` and options.
One process runs one contender once and answers with one line of JSON (``measure.py``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from .process_cases import process_cases

__all__ = ["CASES", "Case", "Column", "Contender"]

Options = Mapping[str, float | int | str]


@dataclass(frozen=True, slots=True)
class Contender:
    """Who runs: *name* in the table, a script, its environment and the options that are its own."""

    name: str
    script: str
    env: str
    options: Options = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        return self.env == "ours"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the metric, its heading with the unit, and how many decimals are shown."""

    metric: str
    heading: str
    decimals: int = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One table.

    Attributes:
        ratio_of: The metric that ratios are made of, this case's verdict.
        reference: The contender that the ratio is 1 for.
        floor: A contender that shows the machine's own noise; what it measures
            is taken off the metric *over_floor* in a column of its own.
        options: Given to every contender; *quick* ones replace them under ``--quick``.
        seconds: A contender that takes longer is stopped and counted as failed.
    """

    name: str
    title: str
    contenders: tuple[Contender, ...]
    columns: tuple[Column, ...]
    ratio_of: str
    reference: str
    options: Options = field(default_factory=dict)
    quick: Options = field(default_factory=dict)
    floor: str | None = None
    over_floor: str | None = None
    seconds: float = 180.0


LAGS: Final = (
    Column("p50_ms", "lag p50 ms", 3),
    Column("p99_ms", "p99 ms"),
    Column("max_ms", "max ms"),
    Column("early", "early", 0),
    Column("doubled", "doubled", 0),
    Column("missed", "missed", 0),
    Column("drift_ms", "drift ms"),
    Column("cpu_us_per_fire", "CPU µs/start", 0),
)
PER_JOB: Final = (
    Column("cpu_us_per_job", "CPU µs/job"),
    Column("wall_us_per_job", "wall µs/job"),
    Column("n", "jobs", 0),
)


def _way(name: str, way: str, env: str, **options: str) -> Contender:
    """Return a contender that is one of the drift laboratory's ways."""
    return Contender(name, "periodic/way.py", env, {"way": way, **options})


OURS_PERIODIC: Final = Contender("quarterjack", "periodic/ours.py", "ours")
OURS_PERIODIC_UVLOOP: Final = Contender("quarterjack, uvloop", "periodic/ours.py", "ours", {"loop": "uvloop"})
APSCHEDULER3: Final = Contender("APScheduler 3", "periodic/apscheduler3.py", "apscheduler3")
APSCHEDULER4: Final = Contender("APScheduler 4 (pre)", "periodic/apscheduler4.py", "apscheduler4")
AIOCLOCK: Final = Contender("aioclock", "periodic/aioclock_app.py", "aioclock")
TASKIQ: Final = Contender("taskiq scheduler", "periodic/taskiq_memory.py", "taskiq")
SINGLE: Final = (
    _way("quarterjack", "ours-loop", "ours"),
    _way("quarterjack, uvloop", "ours-loop", "ours", loop="uvloop"),
    _way("timerfd, blocking", "machine", "raw"),
    _way("loop.call_at", "asyncio-deadline", "raw"),
    _way("loop.call_at, uvloop", "asyncio-deadline", "raw", loop="uvloop"),
    _way("sleep loop", "asyncio-sleep", "raw"),
    _way("APScheduler 3", "apscheduler", "apscheduler3"),
    APSCHEDULER4,
    AIOCLOCK,
)
MANY: Final = (
    Contender("heap, one timer", "periodic/raw_heap.py", "raw"),
    Contender("heap, uvloop", "periodic/raw_heap.py", "raw", {"loop": "uvloop"}),
    APSCHEDULER3,
    APSCHEDULER4,
    AIOCLOCK,
    TASKIQ,
)


def _punctual() -> Iterator[Case]:
    ours = (OURS_PERIODIC, OURS_PERIODIC_UVLOOP)
    yield Case(
        "A1",
        "one task every 100 ms for 20 s",
        SINGLE,
        LAGS,
        "p50_ms",
        "loop.call_at",
        options={"period": 0.1, "seconds": 20.0},
        quick={"seconds": 3.0},
        floor="timerfd, blocking",
        over_floor="p99_ms",
    )
    yield Case(
        "A2",
        "one task every 1 s for 20 s, its body takes 0 to 0.9 s",
        (*SINGLE, TASKIQ),
        LAGS,
        "p50_ms",
        "loop.call_at",
        options={"period": 1.0, "seconds": 20.0, "body": 0.9},
        quick={"seconds": 5.0},
        floor="timerfd, blocking",
        over_floor="p99_ms",
    )
    for name, tasks, lead in (("A3-1k", 1_000, 4.0), ("A3-10k", 10_000, 20.0)):
        yield Case(
            name,
            f"{tasks:,} tasks each second for 10 s",
            (*ours, *MANY),
            LAGS,
            "cpu_us_per_fire",
            "heap, one timer",
            options={"period": 1.0, "seconds": 10.0, "tasks": tasks, "lead": lead},
            quick={"seconds": 3.0},
        )

    replicas = Contender("quarterjack, 3 replicas", "periodic/ours_postgres.py", "ours-postgres")
    yield Case(
        "A5",
        "five tasks each second for 20 s, three processes over one PostgreSQL server; one process beside it",
        (replicas, Contender("quarterjack, 1 replica", "periodic/ours_postgres.py", "ours-postgres", {"replicas": 1})),
        LAGS[:-1],
        "p50_ms",
        "quarterjack, 1 replica",
        options={"period": 1.0, "seconds": 20.0, "tasks": 5, "lead": 15.0},
        quick={"seconds": 5.0},
    )


def _jobs() -> Iterator[Case]:
    contenders = (
        Contender("quarterjack submit", "jobs/ours.py", "ours"),
        Contender("quarterjack submit_many", "jobs/ours.py", "ours", {"how": "submit_many"}),
        Contender("quarterjack TaskManager", "jobs/ours_manager.py", "ours"),
        Contender("create_task + gather", "jobs/raw_gather.py", "raw"),
        Contender("TaskGroup + Semaphore", "jobs/raw_taskgroup.py", "raw"),
        Contender("aiojobs", "jobs/aiojobs_scheduler.py", "aiojobs"),
        Contender("taskiq in memory", "jobs/taskiq_memory.py", "taskiq"),
        Contender("APScheduler 3", "jobs/apscheduler3.py", "apscheduler3", {"n": 10_000}),
        Contender("APScheduler 4 (pre)", "jobs/apscheduler4.py", "apscheduler4", {"n": 10_000}),
    )
    for name, body, title in (
        ("B1", "noop", "no-op coroutine jobs"),
        ("B2", "once", "coroutine jobs that await sleep(0) once"),
    ):
        yield Case(
            name,
            f"100,000 {title}, submitted and awaited",
            contenders,
            PER_JOB,
            "cpu_us_per_job",
            "create_task + gather",
            options={"n": 100_000, "body": body},
            quick={"n": 10_000},
        )


def _memory() -> Iterator[Case]:
    contenders = (
        Contender("quarterjack, queued", "memory/ours.py", "ours"),
        Contender("quarterjack, delayed", "memory/ours.py", "ours", {"how": "later"}),
        Contender("quarterjack TaskManager", "memory/ours_manager.py", "ours"),
        Contender("pending task", "memory/raw_tasks.py", "raw"),
        Contender("loop.call_later", "memory/raw_call_later.py", "raw"),
        Contender("aiojobs", "memory/aiojobs_scheduler.py", "aiojobs"),
        Contender("taskiq in memory", "memory/taskiq_memory.py", "taskiq", {"n": 20_000}),
        Contender("APScheduler 3", "memory/apscheduler3.py", "apscheduler3", {"n": 10_000}),
        Contender("APScheduler 4 (pre)", "memory/apscheduler4.py", "apscheduler4", {"n": 10_000}),
    )
    columns = (Column("bytes_per_job", "bytes/job", 0), Column("n", "jobs", 0))
    for meter, title in (("resident", "resident size"), ("traced", "tracemalloc")):
        yield Case(
            f"B3-{meter}",
            f"memory per waiting job, by {title}",
            contenders,
            columns,
            "bytes_per_job",
            "pending task",
            options={"n": 50_000, "meter": meter},
            quick={"n": 10_000},
        )


def _idle() -> Case:
    return Case(
        "B4", "idle for 65 s with 1,000 schedules an hour away",
        (
            Contender("quarterjack", "idle/ours.py", "ours"),
            Contender("quarterjack, flows alone", "idle/ours_flow.py", "ours"),
            Contender("asyncio, 1,000 timers", "idle/raw_asyncio.py", "raw"),
            Contender("APScheduler 3", "idle/apscheduler3.py", "apscheduler3"),
            Contender("APScheduler 4 (pre)", "idle/apscheduler4.py", "apscheduler4"),
            Contender("aioclock", "idle/aioclock_app.py", "aioclock"),
            Contender("taskiq scheduler", "idle/taskiq_memory.py", "taskiq"),
        ),
        (Column("turns", "loop turns", 0), Column("switches", "waits", 0), Column("cpu_ms", "CPU ms")),
        "switches", "asyncio, 1,000 timers", options={"schedules": 1_000, "seconds": 65.0}, quick={"seconds": 5.0},
    )  # fmt: skip


def _timers() -> Case:
    return Case(
        "B5", "timer structure, 100,000 dues in random order",
        (
            Contender("quarterjack Timer", "timers/ours.py", "ours"),
            Contender("loop.call_at", "timers/loop_call_at.py", "raw"),
            Contender("heapq alone", "timers/heapq_alone.py", "raw"),
        ),
        (Column("push_us", "push CPU µs"), Column("pop_us", "pop CPU µs"), Column("n", "dues", 0)),
        "pop_us", "loop.call_at", options={"n": 100_000}, quick={"n": 20_000},
    )  # fmt: skip


def _start() -> Case:
    def started(name: str, env: str, **options: str) -> Contender:
        return Contender(name, "start/python.py", env, options)

    base = "import asyncio, click, pydantic"
    # pydantic loads most of itself when its first name is used, so this is what a program with one model pays.
    model = f"{base}\nclass Model(pydantic.BaseModel): x: int"
    return Case(
        "B6", "a fresh interpreter to the end of an import or of --help",
        (
            started("import quarterjack", "ours", code="import quarterjack"),
            started("qj --help", "ours", module="quarterjack", arguments="--help"),
            started("asyncio, click, pydantic", "ours", code=base),
            started("the same, one model made", "ours", code=model),
            started("nothing", "raw", code="pass"),
            started("APScheduler 3", "apscheduler3", code="import apscheduler.schedulers.asyncio"),
            started("APScheduler 4 (pre)", "apscheduler4", code="from apscheduler import AsyncScheduler"),
            started("aioclock", "aioclock", code="from aioclock import AioClock, Every"),
            started("taskiq", "taskiq", code="from taskiq import InMemoryBroker, TaskiqScheduler"),
        ),
        (Column("wall_ms", "wall ms", 0), Column("cpu_ms", "CPU ms", 0)),
        "cpu_ms", "asyncio, click, pydantic", options={"starts": 7}, quick={"starts": 3},
    )  # fmt: skip


QUEUED: Final = (
    Column("per_s", "jobs/s", 0),
    *PER_JOB[:2],
    Column("server_us_per_job", "server CPU µs/job"),
    PER_JOB[2],
)
LATENCY: Final = (Column("p50_ms", "p50 ms", 3), Column("p99_ms", "p99 ms"), Column("n", "jobs", 0))


def _redis() -> Iterator[Case]:
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


def _cron() -> Iterator[Case]:
    contenders = (
        Contender("quarterjack next_ns", "cron/ours.py", "ours", {"how": "next_ns"}),
        Contender("quarterjack next", "cron/ours.py", "ours"),
        Contender("cronsim", "cron/cronsim_next.py", "cron"),
        Contender("croniter", "cron/croniter_next.py", "cron"),
        Contender("APScheduler 3", "cron/apscheduler3.py", "apscheduler3"),
    )
    columns = (
        Column("us_per_next", "CPU µs/next, median"), Column("least_us", "least"), Column("most_us", "most"),
        Column("first_us", "parse + first µs", 0),
    )  # fmt: skip
    for name, zone in (("F-utc", "UTC"), ("F-zone", "Europe/Rome")):
        yield Case(
            name,
            f"cron next() over eight expressions in {zone}",
            contenders,
            columns,
            "us_per_next",
            "cronsim",
            options={"zone": zone, "steps": 300},
            quick={"steps": 100},
        )


def _never() -> Case:
    def of(name: str, env: str, library: str) -> Contender:
        return Contender(name, "cron/never.py", env, {"of": library})

    return Case(
        "F-never", "four expressions that name dates which never come, until they are refused",
        (of("quarterjack", "ours", "ours"), of("cronsim", "cron", "cronsim"), of("croniter", "cron", "croniter")),
        (Column("us_median", "CPU µs, median", 0), Column("us_most", "most", 0)),
        "us_most", "cronsim", options={"times": 20}, quick={"times": 3},
    )  # fmt: skip


def _plan() -> Case:
    def after(name: str, **options: float | str) -> Contender:
        return Contender(name, "cron/plan.py", "ours", options)

    return Case(
        "F-plan", "one plan of a schedule of every second after an outage",
        (
            after("latest, 1 s", away=1),
            after("latest, an hour", away=3_600),
            after("latest, a year"),
            after("earliest, a year", missed="earliest"),
            after("skip, a year", missed="skip"),
            after("all, 100 of an hour", missed="all", away=3_600),
            after("all, 100 of a year", missed="all"),
            after("all, 1,000 of a year", missed="all", most=1_000),
        ),
        (Column("us_per_plan", "CPU µs/plan"), Column("runs", "runs", 0)),
        "us_per_plan", "latest, an hour", quick={"steps": 100},
    )  # fmt: skip


def _flow() -> Iterator[Case]:
    per_pass = (Column("cpu_us_per_pass", "CPU µs/pass"), Column("wall_us_per_pass", "wall µs/pass"))
    yield Case(
        "G1", "a gate that is open, passed again and again by one task",
        (
            Contender("quarterjack ConcurrencyLimit", "flow/ours.py", "ours"),
            Contender("quarterjack SlidingWindow", "flow/ours.py", "ours", {"gate": "window"}),
            Contender("quarterjack TokenBucket", "flow/ours.py", "ours", {"gate": "bucket"}),
            Contender("asyncio.Semaphore", "flow/raw_semaphore.py", "raw"),
            Contender("aiolimiter", "flow/aiolimiter_limiter.py", "aiolimiter"),
            Contender("limits, moving window", "flow/limits_hit.py", "limits", {"n": 20_000}),
            Contender("limits, fixed window", "flow/limits_hit.py", "limits", {"n": 20_000, "how": "fixed-window"}),
            Contender("throttled-py, gcra", "flow/throttled_limit.py", "throttled", {"n": 20_000}),
            Contender("pyrate-limiter", "flow/pyrate_limiter.py", "pyrate", {"n": 20_000}),
            Contender("aiometer, per job", "flow/aiometer_run.py", "aiometer", {"n": 20_000}),
        ),
        per_pass, "cpu_us_per_pass", "asyncio.Semaphore", options={"n": 200_000}, quick={"n": 5_000},
    )  # fmt: skip
    yield Case(
        "G2", "three gates that are open, taken together",
        (
            Contender("quarterjack Flow.permit", "flow/ours.py", "ours"),
            Contender("three asyncio.Semaphores", "flow/raw_semaphore.py", "raw"),
            Contender("three of aiolimiter", "flow/aiolimiter_limiter.py", "aiolimiter"),
        ),
        per_pass, "cpu_us_per_pass", "three asyncio.Semaphores",
        options={"n": 100_000, "what": "threefold"}, quick={"n": 5_000},
    )  # fmt: skip
    yield Case(
        "G3", "1,000 jobs at 100 a second, the loop blocked for 30 ms five times a second",
        (
            Contender("quarterjack SlidingWindow", "flow/ours.py", "ours"),
            Contender("aiolimiter", "flow/aiolimiter_limiter.py", "aiolimiter"),
            Contender("throttled-py, gcra", "flow/throttled_limit.py", "throttled"),
            Contender("pyrate-limiter", "flow/pyrate_limiter.py", "pyrate"),
            Contender("aiometer", "flow/aiometer_run.py", "aiometer"),
        ),
        (
            Column("seconds", "first to last s"), Column("fullest", "starts in a second", 0),
            Column("inversions", "overtaken", 0), Column("cpu_ms", "CPU ms", 0),
        ),
        "cpu_ms", "aiolimiter", options={"n": 1_000, "what": "rate", "rate": 100}, quick={"n": 250},
    )  # fmt: skip
    yield Case(
        "G4", "100,000 no-op jobs through a limit by key",
        (
            Contender("one key", "jobs/ours_manager.py", "ours", {"keys": 1}),
            Contender("100 keys", "jobs/ours_manager.py", "ours", {"keys": 100}),
            Contender("10,000 keys", "jobs/ours_manager.py", "ours", {"keys": 10_000}),
        ),
        PER_JOB, "cpu_us_per_job", "one key", options={"n": 100_000}, quick={"n": 20_000},
    )  # fmt: skip


def _sqlite() -> Iterator[Case]:
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


def _postgres() -> Iterator[Case]:
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
    yield Case(
        "D-latency", "one job at a time over PostgreSQL, from before the submit to the body's first line",
        contenders("latency", 200), LATENCY, "p50_ms", "asyncpg, bare", options={"n": 500}, quick={"n": 100},
    )  # fmt: skip


CASES: Final[Mapping[str, Case]] = {
    case.name: case
    for case in (
        *_punctual(),
        *_jobs(),
        *_memory(),
        _idle(),
        _timers(),
        _start(),
        *_redis(),
        *_postgres(),
        *_cron(),
        _never(),
        _plan(),
        *_flow(),
        *_sqlite(),
        *process_cases(Case, Contender, Column),
    )
}
"""Every case by name, in the order of the pages."""
