"""``qj workers``: the processes at work, and orders to them."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import click

from quarterjack import Quarterjack
from quarterjack._at_work import LOST_AFTER_S, is_lost, standing
from quarterjack.model import WorkerInfo, as_datetime
from quarterjack.runtime.commands import COMMANDS

from ._client import ask, asked, look, store_option
from ._hints import nearest, typed
from ._output import iso, json_option, show_json, show_table, tell_notes
from ._shell import EXIT_USAGE, Failure
from ._spans import in_words
from ._target import Target

__all__ = ["command"]

ORDERS: Final = (*COMMANDS, "forget")
_BENEATH: Final = {"host": "worker", "version": "role", "up": "seen"}


class _Seen(NamedTuple):
    """A process, and how it looks now."""

    info: WorkerInfo
    now_ns: int

    @property
    def ago_s(self) -> float:
        """How long ago it gave its last sign of life."""
        return max(0.0, (self.now_ns - self.info.seen_at_ns) / 1e9)

    @property
    def state(self) -> str:
        """How it stands, in a word."""
        return standing(self.info, self.now_ns)


@click.command("workers")
@click.argument("words", nargs=-1, metavar="[APP] [drain|resume|stop|forget WORKER]")
@store_option
@json_option
def command(words: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """List the processes that fire and run, or give one an order.

    What a process says of itself is as old as its last sign of life; that it is
    drained, or has parked a task, it says within a second.

    \b
        qj workers shop.py
        qj workers shop.py drain k3v9x2ab     takes and fires no more, and ends what runs
        qj workers shop.py resume k3v9x2ab
        qj workers shop.py stop k3v9x2ab      drains, then ends the process
        qj workers shop.py forget k3v9x2ab    is dead: strikes it off, others take its jobs

    An order is obeyed at the process's next sign of life, within a third of the lease.
    """
    found = asked(words, url, least=0, is_app=lambda word: word not in ORDERS)
    if found.words:
        _order(found.target, found.words)
        return

    async def work(app: Quarterjack) -> list[_Seen]:
        now_ns = round((await app.store_now()).timestamp() * 1e9)
        return [_Seen(one, now_ns) for one in await app.workers()]

    seen = look(found.target, work, list[_Seen]())
    if as_json:
        show_json("workers", workers=[_as_dict(one) for one in seen])
        return
    if not seen:
        tell_notes(["nobody is at work: qj run starts a process"])
        return
    columns = {"worker": "bold", "state": "", "role": "", "running": "cyan", "queues": "", "seen": "", "up": ""}
    columns |= {"host": "", "version": ""}
    show_table(columns, list(map(_for_people, seen)), list(map(_plain, seen)), beneath=_BENEATH)
    tell_notes(f"{one.info.id} has parked {', '.join(one.info.parked)}" for one in seen if one.info.parked)


def _for_people(one: _Seen) -> list[str]:
    info = one.info
    return [
        info.id,
        "LOST" if one.state == "lost" else one.state,
        info.role,
        f"{info.running}" + (f" +{info.zombies} left behind" if info.zombies else ""),
        ", ".join(info.queues),
        in_words(-one.ago_s),
        in_words((one.now_ns - info.started_at_ns) / 1e9),
        f"{info.host}:{info.pid}",
        info.version or "",
    ]


def _plain(one: _Seen) -> list[str]:
    info = one.info
    return [
        info.id,
        info.role,
        str(info.running),
        ",".join(info.queues),
        f"{one.ago_s:.3f}",
        iso(as_datetime(info.started_at_ns)) or "",
        f"{info.host}:{info.pid}",
        info.version or "",
        str(info.zombies),
        one.state,
        ",".join(info.parked),
    ]


def _order(target: Target, words: list[str]) -> None:
    if len(words) != 2 or words[0] not in ORDERS:
        raise Failure(f"{' '.join(words)!r} is no order", typed("drain", "WORKER"), EXIT_USAGE)
    order, worker_id = words

    async def work(app: Quarterjack) -> str:
        told = await (_forget(app, worker_id, target) if order == "forget" else _tell(app, worker_id, order))
        if told is None:
            near = nearest(worker_id, [one.id for one in await app.workers()])
            hint = f"qj workers {target.words}" + (f" {order} {near}" if near else "")
            raise Failure(f"there is no worker {worker_id}", hint, EXIT_USAGE)
        await app.note(order, worker_id)
        return told

    click.echo(ask(target, work))


async def _tell(app: Quarterjack, worker_id: str, order: str) -> str | None:
    is_there = await app.order(worker_id, order)
    return f"{worker_id} is told to {order}; it obeys at its next sign of life" if is_there else None


async def _forget(app: Quarterjack, worker_id: str, target: Target) -> str | None:
    """Forget a process that is lost.

    Raises:
        Failure: If it is not: its jobs would be run beside it.
    """
    now_ns = round((await app.store_now()).timestamp() * 1e9)
    living = [one for one in await app.workers() if one.id == worker_id and not is_lost(one, now_ns)]
    if living:
        ago = in_words(_Seen(living[0], now_ns).ago_s)
        told = f"worker {worker_id} gave a sign of life {ago} ago; it is lost once it gives none for {LOST_AFTER_S:g} s"
        raise Failure(told, f"qj workers {target.words} stop {worker_id}, if it lives", EXIT_USAGE)
    freed = await app.forget_worker(worker_id)
    if freed is None:
        return None
    return f"{worker_id} is forgotten" + (f"; others take the {freed} it held" if freed else "")


def _as_dict(one: _Seen) -> dict[str, Any]:
    info = one.info
    return {
        "id": info.id,
        "role": info.role,
        "host": info.host,
        "pid": info.pid,
        "queues": list(info.queues),
        "running": info.running,
        "zombies": info.zombies,
        "version": info.version,
        "started_at": iso(as_datetime(info.started_at_ns)),
        "seen_s_ago": one.ago_s,
        "is_lost": one.state == "lost",
        "state": one.state,
        "parked": list(info.parked),
    }
