"""What may happen to a crew and its store. Each blow is noted in the ledger, and over when it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from tests.chaos.arena import Arena
from tests.chaos.ground import TIMEOUT_S, Ground

__all__ = ["BLOWS", "Blow", "blows_on", "kill", "stop"]

Blow = Callable[[Arena, Ground, Random], Awaitable[None]]

LOCKING: Final = ("sqlite", "postgres")
LEFT: Final = 2
"""So many that have started are left to go on."""


async def kill(arena: Arena, ground: Ground, rng: Random) -> None:
    """Kill -9 of one process, and another one in its place."""
    del ground
    await arena.until(lambda: len(arena.upright) > LEFT)
    arena.crew.replace(rng.choice(arena.upright))


async def stop(arena: Arena, ground: Ground, rng: Random) -> None:
    """SIGSTOP for longer than the lease, and SIGCONT.

    On SQLite it may strike a process that is writing to the file, and on PostgreSQL one in the middle of a
    transaction: that holds up the others, of the same rows at least.
    """
    await arena.until(lambda: len(arena.upright) > LEFT)
    member = rng.choice(arena.upright)
    member.stop()
    if ground.kind in LOCKING:
        arena.cut_off()
    await asyncio.sleep(arena.chaos.settings.lease_s * rng.uniform(1.2, 1.8))
    member.go_on()
    if ground.kind in LOCKING:
        arena.connected()


async def deploy(arena: Arena, ground: Ground, rng: Random) -> None:
    """SIGTERM of one process, and one of another version in its place."""
    del ground
    await arena.until(lambda: len(arena.upright) > LEFT)
    member = rng.choice(arena.upright)
    member.tell()
    await asyncio.to_thread(member.left)
    arena.crew.members.remove(member)
    version = "2.0" if member.settings.version == "1.0" else "1.0"
    arena.crew.start(role=member.settings.role, version=version)


async def crash(arena: Arena, ground: Ground, rng: Random) -> None:
    """A crash of the server, in the middle of whatever it does, and its start."""
    assert ground.server is not None
    arena.cut_off()
    await asyncio.to_thread(ground.server.kill)
    await asyncio.sleep(rng.uniform(0.0, 1.0))
    await asyncio.to_thread(ground.server.start)
    arena.connected()


async def forget(arena: Arena, ground: Ground, rng: Random) -> None:
    """All connections half-open for good; new ones work."""
    del rng
    assert ground.proxy is not None
    arena.cut_off()
    ground.proxy.forget()
    await asyncio.sleep(TIMEOUT_S)
    arena.connected()


async def hold(arena: Arena, ground: Ground, rng: Random) -> None:
    """Nothing passes for a while, and then all of it."""
    assert ground.proxy is not None
    arena.cut_off()
    ground.proxy.hold()
    await asyncio.sleep(rng.uniform(0.5, 1.5) * arena.chaos.settings.lease_s)
    ground.proxy.release()
    arena.connected()


async def cut(arena: Arena, ground: Ground, rng: Random) -> None:
    """All connections are reset."""
    del rng
    assert ground.proxy is not None
    arena.cut_off()
    ground.proxy.cut()
    arena.connected()


BLOWS: Final[dict[str, Blow]] = {
    "kill -9": kill,
    "SIGSTOP": stop,
    "deploy": deploy,
    "crash of the server": crash,
    "half-open": forget,
    "held back": hold,
    "reset": cut,
}
OF_PROCESSES: Final = ("kill -9", "SIGSTOP", "deploy")


def blows_on(ground: Ground) -> dict[str, Blow]:
    """Return the blows that a kind of ground can take."""
    return BLOWS if ground.server is not None else {name: BLOWS[name] for name in OF_PROCESSES}
