"""Dask as a pair of hands: the executors' contract over a real cluster, and what a cluster does beyond it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

pytest.importorskip("distributed")

from quarterjack.executors import Executor
from quarterjack.executors.dask import DaskExecutor
from quarterjack.testing.executor_contract import ExecutorContract
from tests.clusters.conftest import ROOT, end

pytestmark = [pytest.mark.slow, pytest.mark.leaks("threads")]  # Dask keeps a thread for what it offloads


class Cluster(NamedTuple):
    """A program that runs a Dask cluster."""

    process: subprocess.Popen[bytes]
    address: str


@contextmanager
def cluster(workers: int, threads: int, port: int = 0) -> Iterator[Cluster]:
    """Run a Dask cluster in a process group of its own; end all of it."""
    command = [sys.executable, "-m", "tests.clusters.dask_cluster", *map(str, (workers, threads, port))]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Cluster(process, process.stdout.readline().decode().strip())
        process.stdin.close()
        process.wait(10)
    finally:
        end(process)
        process.stdout.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Have a cluster of one worker with four threads, so that a pool of processes is warm soon."""
    with cluster(1, 4) as one:
        yield one.address


class TestContract(ExecutorContract):
    """Bodies beside Dask workers."""

    bursts = 20

    @pytest.fixture(autouse=True)
    def _address(self, address: str) -> None:
        self.address = address

    def make(self, slots: int) -> Executor:
        return DaskExecutor(self.address, slots=slots)
