"""A Dask cluster on this machine, as a program of its own: the scheduler here, each worker in a process.

Prints the scheduler's address, and ends with its standard input."""

from __future__ import annotations

import sys
from typing import Any

import distributed


def main(workers: int, threads: int, port: int) -> None:
    """Serve until nobody is there any more; port 0 is any."""
    make: Any = distributed.LocalCluster
    sizes = {"n_workers": workers, "threads_per_worker": threads, "memory_limit": 0}
    with make(processes=True, scheduler_port=port, dashboard_address=":0", **sizes) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
