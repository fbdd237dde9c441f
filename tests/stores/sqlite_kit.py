"""Stores on one SQLite file, as the processes of one machine have them."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing import VirtualClock
from quarterjack.testing.store_contract import Bench

__all__ = ["Computer"]


@dataclass
class Computer:
    """Opens stores on one file, as processes of one machine would."""

    path: Path
    stack: AsyncExitStack
    clock: VirtualClock = field(default_factory=lambda: VirtualClock("2026-03-02T09:00Z"))

    async def store(self, clock: VirtualClock | None = None, **options: Any) -> Bench:
        """Open a store; it does not wait for the disk unless that is asked for."""
        settings: dict[str, Any] = {"synchronous": "off", **options}
        bench = Bench(SQLiteStore(self.path, **settings))
        bench.clock = clock or self.clock
        await bench.open()
        self.stack.push_async_callback(bench.store.close)
        return bench

    def look(self, sql: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()
