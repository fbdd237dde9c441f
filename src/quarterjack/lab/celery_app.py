"""The app of the way ``ours-celery``, and the Celery app whose workers run its bodies; both sides import this module.

The broker's address, and the case, come by the environment."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any, Final

from quarterjack import Quarterjack
from quarterjack.executors.celery import CeleryExecutor, serve_bodies

from .ways._case import Case
from .ways._celery import BROKER

__all__ = ["app", "body", "celery", "warm_up"]

address = os.environ.get(BROKER, "redis://127.0.0.1:6379/0")
celery: Final[Any] = import_module("celery").Celery("lab", broker=address, backend=address)
celery.conf.update(worker_hijack_root_logger=False)
serve_bodies(celery, "quarterjack.lab.celery_app:app")

app = Quarterjack()
case = cache(Case.from_environment)
hands = CeleryExecutor(celery)


@app.task(executor=hands)
def body() -> None:
    """Run one body."""
    case().run_body()


@app.task(executor=hands)
def warm_up() -> None:
    """Have the app imported in a worker: that is set-up, and no part of a tick."""
