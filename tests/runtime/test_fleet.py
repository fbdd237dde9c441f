"""Several apps on one shared store: what one process does, the others see."""

from __future__ import annotations

from quarterjack import JobState, Quarterjack
from quarterjack.testing._clock import VirtualClock
from tests.runtime.fleet import Server, fleet


async def test_a_client_awaits_what_a_worker_returns() -> None:
    """The plainest use of two processes: one submits, the other runs."""
    server = Server(VirtualClock())
    client, worker = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())

    async def body(x: int) -> int:
        return x + 1

    task = client.task(name="add")(body)
    worker.task(name="add")(body)
    async with fleet(server, client, worker):
        job = await client.submit(task, 1)
        assert await job == 2
        assert job.state is JobState.DONE
