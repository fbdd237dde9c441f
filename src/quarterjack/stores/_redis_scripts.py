"""The Lua scripts of the Redis store: one for each step that must be atomic.

They are in ``lua/``: `common.lua` says which keys there are. Each is sent once and
run by its hash from then on; a server that has forgotten it (a restart, a
failover, SCRIPT FLUSH) is sent it again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

from redis.exceptions import NoScriptError, ResponseError

from ._redis_link import Link, Word

__all__ = ["CLOCK", "Scripts"]

_USES: Final = "-- uses: "
"""How the first line of a script begins that names parts it shares with others, beside `common`: what it does
not need would cost it a microsecond each time it runs."""


@cache
def _source(name: str) -> str:
    return files("quarterjack.stores").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


CLOCK: Final = "clock"
"""The snippet that reads the server's clock."""


class Scripts:
    """Runs the scripts of one store.

    Args:
        link: The way to the server.
        root: What every key begins with, a hash tag: ``{qj}:``.
        clock: The body of a Lua function that returns the store's clock in microseconds.
    """

    def __init__(self, link: Link, root: str, clock: str | None = None) -> None:
        self.link = link
        self.root = root
        self._clock = clock or _source(CLOCK)
        self._known: dict[str, tuple[str, str]] = {}

    def _script(self, name: str) -> tuple[str, str]:
        known = self._known.get(name)
        if known is None:
            source = _source(name)
            first = source.partition("\n")[0]
            shared = first.removeprefix(_USES).split(", ") if first.startswith(_USES) else []
            clock = f"local function now_us()\n{self._clock}\nend"
            body = "\n".join([clock, *map(_source, ("common", *shared)), source])
            known = self._known[name] = body, sha1(body.encode(), usedforsecurity=False).hexdigest()
        return known

    async def run(self, name: str, words: Sequence[Word]) -> Any:
        """Run a script on *words*; it happens whole or not at all.

        Raises:
            StoreError: If it could not be run; `StoreUnavailable` if nobody can say whether it was.
        """
        body, digest = self._script(name)
        try:
            try:
                return await self.link.call(name, "EVALSHA", digest, 1, self.root, *words)
            except NoScriptError:
                return await self.link.call(name, "EVAL", body, 1, self.root, *words)
        except ResponseError as error:
            raise self.link.explain(error, name) from error
