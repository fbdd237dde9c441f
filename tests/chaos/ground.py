"""Where an arena stands: a store on a server of its own, which can crash, behind a proxy that can stop forwarding."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from tests.servers import running
from tests.servers.fixtures import with_option
from tests.servers.proxy import Proxy
from tests.servers.running import POSTGRES, VALKEY, OwnServer

__all__ = ["KINDS", "Ground", "behind", "ground"]

KINDS: Final = ("sqlite", "postgres", "redis")
TIMEOUT_S: Final = 2.0
"""The deadline of a call where connections are half-open; the default would take a test longer, and show no more."""
# Its reply to a write comes after the write is in the file, so that no kill of the process can take it back
NOTHING_FORGOTTEN: Final = ("--appendonly", "yes", "--appendfsync", "always")


@dataclass(frozen=True)
class Ground:
    """A store, and what can be done to it. SQLite has no server, and no way to it."""

    kind: str
    url: str
    crew_url: str
    server: OwnServer | None = None
    proxy: Proxy | None = None


@asynccontextmanager
async def ground(kind: str, folder: Path) -> AsyncIterator[Ground]:
    """Yield a ground of a kind; its server is its own."""
    if kind == "sqlite":
        url = f"sqlite:///{folder}/jobs.db"
        yield Ground(kind, url, url)
        return
    options = () if kind == "postgres" else NOTHING_FORGOTTEN
    with running.own(POSTGRES if kind == "postgres" else VALKEY, *options) as server:
        async with Proxy("127.0.0.1", server.port) as proxy:
            url = with_option(server.url, f"timeout={TIMEOUT_S}")
            yield Ground(kind, url, behind(url, proxy), server, proxy)


def behind(url: str, proxy: Proxy) -> str:
    """Return *url* with the proxy in the server's place."""
    parts = urlsplit(url)
    assert parts.port is not None
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}")))
