"""What `qj check` makes of the registry and of what waits: judged by pure functions."""

from __future__ import annotations

from typing import Any

import pytest

from quarterjack.cli.check import of_waiting, of_workers
from quarterjack.model import JobState, WorkerInfo
from quarterjack.stores.base import StoreStats

NOW = 1_000_000_000_000
S = 1_000_000_000


def worker(name: str, role: str = "both", *queues: str, ago: float = 1.0, **more: Any) -> WorkerInfo:
    return WorkerInfo(name, "host", 1, role, queues or ("default",), 0, NOW - round(ago * S), **more)


def waiting(oldest_ago: float | None = None, **jobs: int) -> StoreStats:
    oldest = None if oldest_ago is None else NOW - round(oldest_ago * S)
    return StoreStats({JobState.SUBMITTED: sum(jobs.values())}, jobs, oldest)


DRAINED = worker("w2", halt="drained")


@pytest.mark.parametrize(
    ("workers", "state", "words"),
    [
        ([], "degraded", "nobody is at work: qj run starts a process"),
        ([worker("w1")], "ok", "1 at work"),
        ([worker("w1", "worker")], "degraded", "none of 1 is a scheduler"),
        ([worker("w1"), DRAINED], "degraded", "2 at work; w2 drained: qj workers shop resume w2"),
        (
            [worker("w1", halt="drained"), DRAINED],
            "degraded",
            "2 at work; all of them drained: qj workers shop resume w1",
        ),
        ([worker("w1"), worker("w2", halt="ending")], "ok", "2 at work"),
        (
            [worker("w1"), worker("w2", parked=("crash",))],
            "degraded",
            "2 at work; crash is parked at w2, as its processes kept dying: mend it, and restart those workers",
        ),
        (
            [worker("w1"), worker("w2", ago=61)],
            "degraded",
            "1 at work; no sign of life from w2; if it is dead: qj workers shop forget w2",
        ),
    ],
)
def test_process_that_takes_nothing_or_says_nothing_is_told(workers: list[WorkerInfo], state: str, words: str) -> None:
    """The bug: every worker was drained, nothing fired and nothing was claimed, and all was in order."""
    found = of_workers(workers, NOW, "shop")
    assert (found.state, found.words) == (state, words)


@pytest.mark.parametrize(
    ("stats", "workers", "state", "words"),
    [
        (waiting(default=2), [worker("w1")], "ok", "2 jobs"),
        (waiting(70, default=1), [worker("w1")], "degraded", "1 job, one of them due 1 m 10 s ago"),
        (
            waiting(mails=1, default=2),
            [worker("w1")],
            "degraded",
            "3 jobs; nobody at work takes those in queue mails: qj run --queue mails",
        ),
        (
            waiting(default=2),
            [worker("w1", "worker", "mails")],
            "degraded",
            "2 jobs; nobody at work takes those in queue default: qj run --queue default",
        ),
        (waiting(default=2), [DRAINED], "degraded", "2 jobs; nobody at work takes those in queue default"),
        (waiting(default=2), [], "ok", "2 jobs"),
        (waiting(default=0, mails=0), [worker("w1", "scheduler")], "ok", "0 jobs"),
    ],
)
def test_queue_that_nobody_serves_is_told(stats: StoreStats, workers: list[WorkerInfo], state: str, words: str) -> None:
    """The bug: a misspelt queue was taken in silence, and its jobs waited for ever. Nobody at all is told elsewhere."""
    found = of_waiting(stats, workers, NOW)
    assert (found.state, found.words) == (state, words)
