"""A transaction that somebody holds open elsewhere, which is what keeps dead rows from being removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

__all__ = ["pinned"]


@asynccontextmanager
async def pinned(url: str, is_wanted: int) -> AsyncIterator[None]:
    """Hold a transaction open that might still look at all there is from now on, so that no dead row can be removed."""
    if not is_wanted:
        yield
        return
    connection = await asyncpg.connect(url)
    async with connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("SELECT count(*) FROM pg_class")  # with the first statement it begins
        yield
    await connection.close()
