"""A FastAPI service in several processes, in which each tick runs once.

    pip install fastapi uvicorn
    JOBS_URL=sqlite:///service.db uvicorn examples.fastapi_workers:api --workers 3
    curl localhost:8000/minutes

Each process of uvicorn fires and runs, beside its requests; the store that they share lets each fire time through
once, whichever of them is awake. A request may ask any of them for a job that another one runs. On several machines
it is the same, with a URL of PostgreSQL or Redis.
"""

from __future__ import annotations

import os

from fastapi import FastAPI

from quarterjack import Every, JobState, Quarterjack, current_job

jobs = Quarterjack(os.environ.get("JOBS_URL", "sqlite:///service.db"))


@jobs.task(Every(seconds=float(os.environ.get("PERIOD_S", "60"))), overlap="allow")
async def minute() -> str:
    """Return which process it ran in; the result is kept, and can be asked for everywhere."""
    return current_job().id.partition("-")[0]


@jobs.task
async def add(a: int, b: int) -> int:
    """Work that a request waits for, in whichever process has a slot."""
    return a + b


api = FastAPI(lifespan=jobs.as_lifespan())


@api.get("/processes")
async def processes() -> list[str]:
    """Who is at work."""
    return [worker.id for worker in await jobs.workers()]


@api.get("/minutes")
async def minutes() -> list[str]:
    """Return the fire times that ran, the newest first."""
    done = await jobs.jobs(task=minute, state=JobState.DONE, limit=1_000)
    return [job.nominal.isoformat() for job in done if job.nominal is not None]


@api.get("/sum/{a}/{b}")
async def total(a: int, b: int) -> int:
    """Answer with the result of a job."""
    return await (await jobs.submit(add, a, b))
