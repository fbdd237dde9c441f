"""What the machine is: facts that belong beside every number (Linux; elsewhere what can be known)."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

__all__ = ["facts"]


def facts() -> dict[str, str]:
    """Return processor, cores, kernel, clock source, memory, load and interpreter, as text."""
    known = {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": f"{_usable_cores()} usable of {os.cpu_count()}",
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()}",
        "virtual": "yes" if "hypervisor" in (_field("/proc/cpuinfo", "flags") or "") else "not seen",
        "clock source": _text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "CPU limit": _text("/sys/fs/cgroup/cpu.max"),
        "load before": ", ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
    }
    return {name: fact for name, fact in known.items() if fact}


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _field(path: str, name: str) -> str:
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
