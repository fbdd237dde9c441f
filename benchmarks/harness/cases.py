"""The cases: what is measured, who is measured, and what each is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from .case import LAGS, PER_JOB, Case, Column, Contender
from .process_cases import celery_cases, process_cases
from .store_cases import postgres_cases, redis_cases, sqlite_cases

__all__ = ["CASES"]


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


CASES: Final[Mapping[str, Case]] = {
    case.name: case
    for case in (
        *_punctual(),
        *_jobs(),
        *_memory(),
        _idle(),
        _timers(),
        _start(),
        *redis_cases(),
        *postgres_cases(),
        *_cron(),
        _never(),
        _plan(),
        *_flow(),
        *sqlite_cases(),
        *process_cases(),
        *celery_cases(),
    )
}
"""Every case by name, in the order of the pages."""
