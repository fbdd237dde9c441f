"""What a process and all that it has started take, as Linux tells it."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ._case import NS_PER_S

__all__ = ["Usage", "usage_of"]

PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time so far, and resident memory, of a process and its descendants."""

    cpu_ns: int
    memory_bytes: int

    def since(self, before: Usage) -> Usage:
        """Return the CPU time since *before*, and the memory of now."""
        return Usage(max(0, self.cpu_ns - before.cpu_ns), self.memory_bytes)


def usage_of(pid: int) -> Usage | None:
    """Return what the process *pid* and its descendants take; None where the system does not tell.

    CPU time of those that have ended counts once their parents have collected them.
    Pages that processes share count in each of them.
    """
    fields = {int(entry.name): stat for entry in _processes() if (stat := _stat(entry)) is not None}
    if pid not in fields:
        return None
    cpu_ns = memory_bytes = 0
    ticks_per_s, page_bytes = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    for one in _family(pid, {child: int(stat[1]) for child, stat in fields.items()}):
        # Fields 14 to 17 of proc(5), here from 11: own user and system time, then that of collected children.
        user, system, gone_user, gone_system = map(int, fields[one][11:15])
        cpu_ns += _cpu_ns(one, (user + system) * NS_PER_S // ticks_per_s)
        cpu_ns += (gone_user + gone_system) * NS_PER_S // ticks_per_s
        memory_bytes += int(fields[one][21]) * page_bytes
    return Usage(cpu_ns, memory_bytes)


def _processes() -> Iterator[Path]:
    with suppress(OSError):
        yield from (entry for entry in PROC.iterdir() if entry.name.isdecimal())


def _stat(entry: Path) -> list[str] | None:
    """Return the fields behind the command's name, which may hold blanks and brackets."""
    try:
        return (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:  # it has ended
        return None


def _family(pid: int, parent_by_child: dict[int, int]) -> Iterator[int]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for child, parent in parent_by_child.items():
        children[parent].append(child)
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += children[one]


def _cpu_ns(pid: int, counted_ns: int) -> int:
    """Return a process's CPU time to the nanosecond; what was counted in hundredths of a second where that fails."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)  # as clock_getcpuclockid(3) makes the clock of a process
    except OSError:
        return counted_ns
