"""``qj workers``: the processes at work, and orders to them."""

from __future__ import annotations

from typing import Any

import click

from quarterjack import Quarterjack
from quarterjack._at_work import LOST_AFTER_S
from quarterjack.model import WorkerInfo, as_datetime
from quarterjack.runtime.commands import COMMANDS

from ._client import ask, asked, look, store_option
from ._hints import nearest, typed
from ._output import iso, json_option, show_json, show_table, tell_notes
from ._shell import EXIT_USAGE, Failure
from ._spans import in_words
from ._target import Target

__all__ = ["command"]


@click.command("workers")
@click.argument("words", nargs=-1, metavar="[APP] [drain|resume|stop WORKER]")
@store_option
@json_option
def command(words: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """List the processes that fire and run, or give one an order.

    \b
        qj workers shop.py
        qj workers shop.py drain k3v9x2ab     takes and fires no more, and ends what runs
        qj workers shop.py resume k3v9x2ab
        qj workers shop.py stop k3v9x2ab      drains, then ends the process

    An order is obeyed at the process's next sign of life, within a third of the lease.
    """
    found = asked(words, url, least=0, is_app=lambda word: word not in COMMANDS)
    if found.words:
        _order(found.target, found.words)
        return

    async def work(app: Quarterjack) -> tuple[list[WorkerInfo], float]:
        return await app.workers(), (await app.store_now()).timestamp()

    nobody: tuple[list[WorkerInfo], float] = ([], 0.0)
    workers, now = look(found.target, work, nobody)
    seen = [(worker, max(0.0, now - worker.seen_at_ns / 1e9)) for worker in workers]
    if as_json:
        show_json("workers", workers=[_as_dict(worker, ago) for worker, ago in seen])
        return
    if not seen:
        tell_notes(["nobody is at work: qj run starts a process"])
        return
    columns = {
        "worker": "bold",
        "role": "",
        "running": "cyan",
        "queues": "",
        "seen": "",
        "up": "",
        "host": "",
        "version": "",
    }
    people = [
        [
            one.id,
            one.role,
            f"{one.running}" + (f" +{one.zombies} left behind" if one.zombies else ""),
            ", ".join(one.queues),
            ("LOST, " if ago > LOST_AFTER_S else "") + in_words(-ago),
            in_words(now - one.started_at_ns / 1e9),
            f"{one.host}:{one.pid}",
            one.version or "",
        ]
        for one, ago in seen
    ]
    plain = [
        [
            one.id,
            one.role,
            str(one.running),
            ",".join(one.queues),
            f"{ago:.3f}",
            iso(as_datetime(one.started_at_ns)) or "",
            f"{one.host}:{one.pid}",
            one.version or "",
            str(one.zombies),
        ]
        for one, ago in seen
    ]
    show_table(columns, people, plain, beneath={"host": "worker", "version": "role", "up": "seen"})


def _order(target: Target, words: list[str]) -> None:
    if len(words) != 2 or words[0] not in COMMANDS:
        raise Failure(f"{' '.join(words)!r} is no order", typed("drain", "WORKER"), EXIT_USAGE)
    order, worker_id = words

    async def work(app: Quarterjack) -> None:
        if not await app.order(worker_id, order):
            near = nearest(worker_id, [one.id for one in await app.workers()])
            hint = f"qj workers {target.words}" + (f" {order} {near}" if near else "")
            raise Failure(f"there is no worker {worker_id}", hint, EXIT_USAGE)
        await app.note(order, worker_id)

    ask(target, work)
    click.echo(f"{worker_id} is told to {order}; it obeys at its next sign of life")


def _as_dict(worker: WorkerInfo, ago: float) -> dict[str, Any]:
    return {
        "id": worker.id,
        "role": worker.role,
        "host": worker.host,
        "pid": worker.pid,
        "queues": list(worker.queues),
        "running": worker.running,
        "zombies": worker.zombies,
        "version": worker.version,
        "started_at": iso(as_datetime(worker.started_at_ns)),
        "seen_s_ago": ago,
        "is_lost": ago > LOST_AFTER_S,
    }
