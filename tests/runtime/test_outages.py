"""Parts of an outage: some calls of a store fail, and others work."""

from __future__ import annotations

import asyncio
import logging

import pytest

from quarterjack import Quarterjack
from quarterjack.errors import StoreUnavailable
from quarterjack.testing._clock import VirtualClock
from tests.runtime.fleet import Connection, Fault, Server, fleet


def is_renewal(name: str) -> bool:
    """Say whether a call comes over the connection that renews leases."""
    task = asyncio.current_task()
    return name in {"jobs_renew", "workers_put"} and task is not None and task.get_name() == "quarterjack-leases"


def failing(*names: str) -> Fault:
    """Return the fault of a store that does everything but *names*."""

    async def fault(by: Connection, name: str, is_after: bool) -> None:
        del by
        if not is_after and name in names:
            raise StoreUnavailable("away")

    return fault


async def test_a_purge_that_fails_is_no_reason_to_send_work_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    """Else a lock on the history takes all pods out of service at once, and the heaviest call is repeated the most."""
    caplog.set_level(logging.INFO, "quarterjack")
    server = Server(VirtualClock())
    app = Quarterjack(server.connect())
    server.fault = failing("jobs_purge")
    async with fleet(server, app) as clock:
        await clock.run_for(600)
        assert app.health().is_ready
        tried = [name for _, name in server.calls].count("jobs_purge")
        assert 5 <= tried <= 10
        server.fault = None
        await clock.run_for(120)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == ["old jobs cannot be deleted: away; it is tried again each minute", "old jobs are deleted again"]


async def test_leases_that_nobody_renews_are_no_health() -> None:
    """The jobs of such a process are about to be taken from it, though it claims and records as if all were well."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), lease=30)
    async with fleet(server, app) as clock:

        async def fault(by: Connection, name: str, is_after: bool) -> None:
            del by, is_after
            if is_renewal(name):
                raise StoreUnavailable("away")

        server.fault = fault
        await clock.run_for(30)
        health = app.health()
        assert (health.is_ready, health.why.split(" for ")[0]) == (False, "no lease has been renewed")
        server.fault = None
        await clock.run_for(30)
        assert app.health().is_ready
