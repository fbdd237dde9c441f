"""One connection to Ray for all executors of an app that ask for the same.

Otherwise each would have a process of its own, and begin a local cluster of its
own, on the same processors."""

from __future__ import annotations

import asyncio
import json
import traceback
from contextvars import Context
from typing import Any, Final
from weakref import WeakValueDictionary

from ._frames import Frame
from ._ray_link import Link, Owner

__all__ = ["Shared", "connection_of"]

_by_settings: Final[WeakValueDictionary[str, Shared]] = WeakValueDictionary()


def connection_of(settings: dict[str, Any], context: Context, owner: Owner) -> Shared:
    """Return the connection that *owner* shares from now on, begun in *context* if there is none.

    Args:
        settings: The app, as another process finds it, and what `ray.init` takes.
        context: What it hears is reported there, for as long as it lives.
        owner: Hears what the process says that speaks to Ray.
    """
    key, loop = json.dumps(settings), asyncio.get_running_loop()
    shared = _by_settings.get(key)
    if shared is None or shared.is_leaving or shared.loop is not loop:  # a loop of old: its app never stopped
        shared = _by_settings[key] = Shared(loop)
        shared.life = loop.create_task(shared.live(settings), context=context.copy())
    shared.owners.append(owner)
    return shared


class Shared:
    """A connection, and who has a share in it; made by `connection_of`."""

    life: asyncio.Task[None]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.link = Link(self)
        self.owners: list[Owner] = []
        self.is_leaving = False
        """Who comes now needs another one."""

    async def live(self, settings: dict[str, Any]) -> None:
        """Return when the process has ended that speaks to Ray."""
        try:
            await self.link.live(settings)
        except Exception as error:  # whatever it was: those that wait are told, and it is tried again
            self.on_unready(f"{type(error).__name__}: {error}", traceback.format_exc())
            self.on_gone(self.link)

    async def leave(self, owner: Owner) -> None:
        """Give up a share; with the last one, leave Ray."""
        if owner in self.owners:
            self.owners.remove(owner)
        if not self.owners:
            self.is_leaving = True
            self.link.end()
            await asyncio.gather(self.life, return_exceptions=True)

    # -- what the process says -------------------------------------------------------------

    def on_ready(self) -> None:
        for owner in tuple(self.owners):
            owner.on_ready()

    def on_unready(self, why: str, trace: str) -> None:
        """It could not connect."""
        self.is_leaving = True
        for owner in tuple(self.owners):
            owner.on_unready(why, trace)

    def on_frame(self, kind: Frame, number: int, data: bytes) -> None:
        """It says something of a body, which is one owner's."""
        for owner in tuple(self.owners):
            owner.on_frame(kind, number, data)

    def on_gone(self, link: Link) -> None:
        """It has ended."""
        self.is_leaving = True
        owners, self.owners = self.owners, []
        for owner in owners:
            owner.on_gone(link)
