"""A proxy between a client and its server that can stop forwarding: a network that fails in a test's hands."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Final, Self

__all__ = ["Proxy"]

CHUNK: Final = 65_536


class Proxy:
    """Forwards what comes to a port of its own to another, while it is told to.

    async with Proxy("127.0.0.1", server_port) as proxy:
        ... connect to proxy.port ...
        proxy.hold()      # a half-open connection: accepted, silent, nothing is lost
        proxy.release()   # what was held back arrives
        proxy.cut()       # every connection is reset; new ones are welcome
        proxy.forget()    # what comes over the connections of now is swallowed; new ones flow
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.target_port = host, port
        self.port = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._forgotten = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        self._flowing.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._writers) // 2

    def hold(self) -> None:
        """Forward nothing from now on, in either direction, and keep every connection open."""
        self._flowing.clear()

    def release(self) -> None:
        """Forward again, first what came meanwhile."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            if writer.is_closing():
                continue
            # With nothing to linger for, closing sends a reset and no orderly end
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def forget(self) -> None:
        """Swallow what comes over the connections there are, as a router that has lost its table; new ones flow."""
        self._forgotten += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(self.host, self.target_port)
            self._writers |= {writer, far_writer}
            try:
                await self._both_ways(reader, writer, far_reader, far_writer)
            finally:
                self._writers -= {writer, far_writer}
                far_writer.transport.abort()
        writer.transport.abort()
        self._tasks.discard(task)

    async def _both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Forward until either side ends."""
        there = asyncio.create_task(self._forward(reader, far_writer))
        back = asyncio.create_task(self._forward(far_reader, writer))
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        born = self._forgotten
        with suppress(OSError):
            while data := await source.read(CHUNK):
                await self._flowing.wait()
                if self._forgotten != born:
                    continue
                target.write(data)
                await target.drain()
