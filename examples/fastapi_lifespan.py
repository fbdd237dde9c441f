"""quarterjack inside FastAPI: one lifespan, jobs submitted from requests.

pip install fastapi uvicorn
uvicorn examples.fastapi_lifespan:api
"""

from __future__ import annotations

from fastapi import FastAPI, HTTPException

from quarterjack import Every, JobError, JobGone, Quarterjack

jobs = Quarterjack()
beats: list[str] = []


@jobs.task(Every(seconds=1))
async def heartbeat() -> None:
    """Fire beside the requests."""
    beats.append("tick")


@jobs.task
async def send_mail(to: str) -> str:
    """Work that a request need not wait for."""
    return f"mail to {to}"


api = FastAPI(lifespan=jobs.as_lifespan())


@api.post("/mail/{to}")
async def order_mail(to: str) -> dict[str, str]:
    """Answer at once with the job's id."""
    job = await jobs.submit(send_mail, to)
    return {"job": job.id}


@api.get("/jobs/{job_id}")
async def look(job_id: str) -> dict[str, str]:
    """Tell how far it is."""
    try:
        job = await jobs.job(job_id)
    except JobGone as error:
        raise HTTPException(404, str(error)) from None
    try:
        result = str(job.result()) if job.state.is_finished else ""
    except JobError as error:
        result = str(error)
    return {"state": job.state.value, "result": result}
