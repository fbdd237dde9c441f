"""How long a fresh interpreter takes for one command, for any contender: ``--code`` or ``--module``.

Several starts in a row, the first left out (it writes bytecode and warms the disk cache)."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from measure import answer, options, percentile

args = options(code="", module="", arguments="", starts=7, note="")


def once(command: list[str]) -> tuple[float, float]:
    """Return the wall and CPU milliseconds of one start.

    Raises:
        SystemExit: If the command fails; the text ends with what it said.
    """
    before, began = _children_cpu_s(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, cpu = time.perf_counter() - began, _children_cpu_s() - before
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
    return wall * 1e3, cpu * 1e3


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    what = ["-m", args.module, *args.arguments.split()] if args.module else ["-c", args.code]
    command = [sys.executable, "-P", *what]
    once(command)
    runs = [once(command) for _ in range(args.starts)]
    walls, cpus = sorted(wall for wall, _ in runs), sorted(cpu for _, cpu in runs)
    answer(args, {"wall_ms": percentile(walls, 0.5), "cpu_ms": percentile(cpus, 0.5), "n": args.starts}, args.note)


main()
