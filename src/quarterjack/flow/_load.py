"""How busy this machine is, as far as it says: CPU, memory, stalls. Linux by its own files, elsewhere by psutil.

Each source is a function without arguments that returns a share from 0 to 1. It is
chosen once, when it is asked for; a container's limits count, where there are any."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import InvalidOption, MissingExtra

__all__ = ["Share", "cpu_source", "memory_source", "stall_source"]

Share = Callable[[], float]

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
_STALLED: Final = re.compile(r"^some avg10=(\d+(?:\.\d+)?)", re.MULTILINE)
_MEMORY: Final = re.compile(r"^(MemTotal|MemAvailable):\s+(\d+)", re.MULTILINE)


def cpu_source() -> Share:
    """Return how much of the CPU time that this process's group may use is used: its quota, or the machine's.

    Raises:
        MissingExtra: If there is no quota and no psutil.
    """
    group = _group()
    quota = _read(group / "cpu.max").split()
    if len(quota) == 2 and quota[0] != "max" and _cpu_s(group) is not None:
        return _quota_use(group, float(quota[0]) / float(quota[1]))
    psutil = _psutil("max_cpu of Pressure")
    psutil.cpu_percent(None)  # each call tells of the time since the one before
    return lambda: float(psutil.cpu_percent(None)) / 100.0


def memory_source() -> Share:
    """Return how much of the memory is used: of the container's limit, or of the machine's.

    Raises:
        MissingExtra: If neither says so, and there is no psutil.
    """
    group = _group()
    limit = _read(group / "memory.max").strip()
    if limit.isdigit() and _read(group / "memory.current"):
        return lambda: float(_read(group / "memory.current") or 0) / float(limit)
    if len(_MEMORY.findall(_read(PROC / "meminfo"))) == 2:
        return _machine_memory
    psutil = _psutil("max_memory of Pressure")
    return lambda: float(psutil.virtual_memory().percent) / 100.0


def stall_source() -> Share:
    """Return for how much of the last 10 s something here waited for a CPU or for memory (Linux PSI), the higher.

    Raises:
        InvalidOption: If the kernel does not tell.
    """
    group = _group()
    files = [group / "cpu.pressure", group / "memory.pressure"]
    if not all(_STALLED.search(_read(file)) for file in files):
        files = [PROC / "pressure/cpu", PROC / "pressure/memory"]
    if not all(_STALLED.search(_read(file)) for file in files):
        raise InvalidOption("max_stall of Pressure needs Linux 4.20 with pressure stall information; use max_cpu=")
    return lambda: max(_stalled(file) for file in files)


def _stalled(file: Path) -> float:
    found = _STALLED.search(_read(file))
    return float(found[1]) / 100.0 if found else 0.0


def _machine_memory() -> float:
    sizes = dict(_MEMORY.findall(_read(PROC / "meminfo")))
    return 1.0 - float(sizes["MemAvailable"]) / float(sizes["MemTotal"]) if len(sizes) == 2 else 0.0


def _quota_use(group: Path, cpus: float) -> Share:
    """Return the share of *cpus* that *group* has used since the call before."""
    before = (SYSTEM_CLOCK.monotonic(), _cpu_s(group) or 0.0)
    share = 0.0

    def used() -> float:
        nonlocal before, share
        now = (SYSTEM_CLOCK.monotonic(), _cpu_s(group) or 0.0)
        if now[0] > before[0]:
            share = (now[1] - before[1]) / (now[0] - before[0]) / cpus
            before = now
        return share

    return used


def _cpu_s(group: Path) -> float | None:
    found = re.search(r"^usage_usec (\d+)", _read(group / "cpu.stat"), re.MULTILINE)
    return int(found[1]) / 1e6 if found else None


def _group() -> Path:
    """Return this process's control group (version 2), or the root that a container sees."""
    found = re.search(r"^0::(/.*)$", _read(PROC / "self/cgroup"), re.MULTILINE)
    inside = CGROUPS / found[1].lstrip("/") if found else CGROUPS
    return inside if inside.is_dir() else CGROUPS


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux, an older kernel, or not for us to read
        return ""


def _psutil(what: str) -> Any:
    try:
        return importlib.import_module("psutil")
    except ImportError:
        raise MissingExtra(what, "system") from None
