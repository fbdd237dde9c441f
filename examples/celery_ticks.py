"""A Celery cluster that receives our ticks: each second one body, in whichever worker is free.

Needs ``pip install "quarterjack[celery]"`` and a Redis or Valkey. In two terminals, in this folder:

    celery -A celery_ticks:celery worker
    qj run celery_ticks

Stop either one and start it again: the schedule goes on, and no tick runs twice."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from quarterjack import Every, Quarterjack, current_job
from quarterjack.executors.celery import CeleryExecutor, serve_bodies

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")

celery: Any = Celery("ticks", broker=f"{URL}/0", backend=f"{URL}/1")
app = Quarterjack()


@app.task(Every(seconds=1), executor=CeleryExecutor(celery), timeout=30)
def tick() -> int:
    """Run in a Celery worker."""
    job = current_job()
    print(f"{job.nominal:%H:%M:%S} in process {os.getpid()}", flush=True)
    return os.getpid()


serve_bodies(celery, app)
