"""How it is told that a cluster is away."""

from __future__ import annotations

import logging

import pytest

from quarterjack.executors._outage import Outage
from quarterjack.testing import VirtualClock


def test_outage_is_told_once_at_each_end(caplog: pytest.LogCaptureFixture) -> None:
    """The bug: each job that waited told it every five seconds, and the line that mattered was lost."""
    clock = VirtualClock("2027-03-28T03:00Z")
    outage = Outage("Dask", 5.0, logging.getLogger("test.outage"), clock)
    outage.worked()
    assert outage.words is None
    for job in ("job-1", "job-2", "job-1"):
        outage.failed(f"{job} failed", OSError("nobody listens"))
    outage.failed("job-2 failed", TimeoutError())
    assert outage.words == "Dask may be away, since Sunday 28 March 2027 at 03:00 UTC: TimeoutError"
    outage.worked()
    outage.worked()
    assert outage.words is None
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "Dask may be away: job-1 failed, tried again until it works, at least every 5 s: nobody listens",
        "Dask can be reached again",
    ]
