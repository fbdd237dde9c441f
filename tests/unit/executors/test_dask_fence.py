"""Who may run an attempt on Dask: the first, and nobody after it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("distributed")

from quarterjack.executors._dask_fence import WITHDRAWN, Holder, fence_of, open_fence, take


class Scheduler:
    """As much of Dask's scheduler as the fence asks."""

    def __init__(self) -> None:
        self.queues: dict[str, list[Any]] = {}

    async def queue_create(self, *, name: str, client: str, maxsize: int) -> None:
        self.queues.setdefault(name, [])

    async def queue_put(self, *, name: str, data: Any, client: str, timeout: float | None) -> None:
        self.queues[name].append(list(data) if isinstance(data, tuple) else data)  # as it comes back from a wire

    async def queue_get(self, *, name: str, timeout: float | None, batch: bool) -> list[dict[str, Any]]:
        found, self.queues[name] = self.queues[name], []
        return [{"type": "msgpack", "value": one} for one in found]


class Client:
    """A client of it."""

    id = "client"
    status = "running"

    def __init__(self) -> None:
        self.scheduler = Scheduler()


@pytest.fixture
async def scheduler() -> Scheduler:
    """Return one on which the attempt ``job.1`` may begin."""
    client = Client()
    await open_fence(client, "job.1")
    return client.scheduler


async def test_first_begins_and_whoever_comes_later_is_told_who_that_was(scheduler: Scheduler) -> None:
    """A body must not run twice at the same time, whatever Dask does with its task."""
    mine, other = Holder.here("tcp://a"), Holder.here("tcp://b")
    assert await take(scheduler, "job.1", mine) is None
    assert await take(scheduler, "job.1", other) == mine
    assert await take(scheduler, "job.1", WITHDRAWN) == mine


async def test_withdrawn_attempt_never_begins(scheduler: Scheduler) -> None:
    """Who cancelled it has been told that it did not run."""
    assert await take(scheduler, "job.1", WITHDRAWN) is None
    assert await take(scheduler, "job.1", Holder.here("tcp://a")) == WITHDRAWN


async def test_attempt_that_was_handed_over_twice_begins_once(scheduler: Scheduler) -> None:
    """An answer of the scheduler's that was lost on the way has the attempt put there once more."""
    await scheduler.queue_put(name=fence_of("job.1"), data="free", client="", timeout=None)
    assert await take(scheduler, "job.1", Holder.here("tcp://a")) is None
    assert await take(scheduler, "job.1", Holder.here("tcp://b")) is not None


async def test_attempt_that_nobody_knows_any_more_does_not_begin(scheduler: Scheduler) -> None:
    """Who waited for it has gone, or has its outcome."""
    with pytest.raises(LookupError):
        await take(scheduler, "job.2", Holder.here("tcp://a"))


def test_process_is_gone_only_where_that_is_certain() -> None:
    """What looks dead from another machine may go on there: then only the lease decides."""
    here = Holder.here("tcp://a")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not here.is_gone()
    assert here._replace(pid=ended.pid).is_gone()
    assert here._replace(born=here.born - 100).is_gone()  # its number went to another process
    assert not here._replace(pid=ended.pid, place="another machine").is_gone()
