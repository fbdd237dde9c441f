"""Who may run an attempt on Dask: the first, and nobody after it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

pytest.importorskip("distributed")

from quarterjack.executors._dask_fence import WITHDRAWN, Fences, Holder, _birth, bring_fences, open_fence, take

HERE = Holder.here("tcp://a")
ELSEWHERE = HERE._replace(address="tcp://b")


class Scheduler:
    """As much of Dask's scheduler as the fence asks."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.plugins: dict[str, Any] = {}
        self.workers = {HERE.address: object()}
        self.sent: list[tuple[str, str]] = []

    def worker_send(self, address: str, message: dict[str, str]) -> None:
        self.sent.append((address, message["client"]))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def ask(**words: Any) -> Any:
            sent = {word: list(one) if isinstance(one, tuple) else one for word, one in words.items()}  # as by a wire
            return self.handlers[name](**sent) if name in self.handlers else None

        return ask


class Client:
    """A client of it."""

    def __init__(self, scheduler: Scheduler, name: str = "client") -> None:
        self.scheduler, self.id = scheduler, name

    async def register_plugin(self, plugin: Any, *, name: str) -> None:
        if name not in self.scheduler.plugins:
            self.scheduler.plugins[name] = plugin
            await plugin.start(self.scheduler)


@pytest.fixture
async def scheduler() -> Scheduler:
    """Return one on which the attempt ``job.1`` may begin."""
    client = Client(Scheduler())
    await bring_fences(client)
    await bring_fences(client)  # as another app does, or the same one once more
    await open_fence(client, "job.1")
    return client.scheduler


def fences_of(scheduler: Scheduler) -> Fences:
    """Return what stands there."""
    [fences] = scheduler.plugins.values()
    assert isinstance(fences, Fences)
    return fences


async def test_first_begins_and_whoever_comes_later_is_told_who_that_was(scheduler: Scheduler) -> None:
    """A body must not run twice at the same time, whatever Dask does with its task."""
    assert await take(scheduler, "job.1", HERE) is None
    assert await take(scheduler, "job.1", ELSEWHERE) == HERE
    assert await take(scheduler, "job.1", WITHDRAWN) == HERE


async def test_withdrawn_attempt_never_begins(scheduler: Scheduler) -> None:
    """Who cancelled it has been told that it did not run."""
    assert await take(scheduler, "job.1", WITHDRAWN) is None
    assert await take(scheduler, "job.1", HERE) == WITHDRAWN


async def test_attempt_that_was_handed_over_twice_begins_once(scheduler: Scheduler) -> None:
    """An answer of the scheduler's that was lost on the way has the attempt put there once more."""
    await open_fence(Client(scheduler), "job.1")
    assert await take(scheduler, "job.1", HERE) is None
    await open_fence(Client(scheduler), "job.1")
    assert await take(scheduler, "job.1", ELSEWHERE) == HERE


async def test_attempt_that_nobody_knows_does_not_begin(scheduler: Scheduler) -> None:
    """Who waited for it has gone, or has its outcome; or the scheduler was started anew, and has never heard of us."""
    with pytest.raises(LookupError):
        await take(scheduler, "job.2", HERE)
    with pytest.raises(LookupError):
        await take(Scheduler(), "job.1", HERE)
    with pytest.raises(ConnectionError):
        await open_fence(Client(Scheduler()), "job.1")


async def test_what_dask_forgets_is_forgotten(scheduler: Scheduler) -> None:
    """A scheduler lives for months."""
    fences = fences_of(scheduler)
    fences.transition("somebody's", "released", "forgotten", stimulus_id="")
    fences.transition("job.1", "processing", "memory", stimulus_id="")
    assert await take(scheduler, "job.1", HERE) is None
    fences.transition("job.1", "released", "forgotten", stimulus_id="")
    with pytest.raises(LookupError):
        await take(scheduler, "job.1", ELSEWHERE)


async def test_what_a_client_has_left_goes_with_it_alone(scheduler: Scheduler) -> None:
    """It was killed between the opening and the hand-over; another app's attempts are none of its business."""
    await open_fence(Client(scheduler, "other"), "other.1")
    fences_of(scheduler).remove_client(scheduler, "client")
    with pytest.raises(LookupError):
        await take(scheduler, "job.1", HERE)
    assert await take(scheduler, "other.1", HERE) is None


async def test_workers_that_ran_something_for_a_client_hear_that_it_has_left(scheduler: Scheduler) -> None:
    """Its processes there would wait for nobody; a worker that has left as well hears nothing."""
    holders: list[str | Holder] = [HERE, HERE, ELSEWHERE, WITHDRAWN]
    for number, holder in enumerate(holders):
        await open_fence(Client(scheduler), f"more.{number}")
        await take(scheduler, f"more.{number}", holder)
    fences = fences_of(scheduler)
    fences.remove_client(scheduler, "other")
    fences.remove_client(scheduler, "client")
    fences.remove_client(scheduler, "client")
    assert scheduler.sent == [(HERE.address, "client")]


async def test_worker_that_came_back_to_its_address_is_told_nothing(scheduler: Scheduler) -> None:
    """It has run nothing of ours yet, does not know the words, and would lose its connection over them."""
    fences = fences_of(scheduler)
    assert await take(scheduler, "job.1", HERE) is None
    fences.remove_worker(scheduler, HERE.address, stimulus_id="")
    fences.remove_client(scheduler, "client")
    assert scheduler.sent == []


def test_process_is_gone_only_where_that_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks dead from another machine may go on there: then only the lease decides."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not HERE.is_gone()
    assert HERE._replace(pid=ended.pid).is_gone()
    assert HERE._replace(born=HERE.born - 100).is_gone()  # its number went to another process
    assert not HERE._replace(pid=ended.pid, place="another machine").is_gone()

    def hidden(pid: int, number: int) -> None:
        raise PermissionError(pid, number)

    monkeypatch.setattr(os, "kill", hidden)
    assert not HERE._replace(pid=ended.pid).is_gone()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the system notes when a process began")
def test_step_of_the_wall_clock_makes_no_process_look_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker would be taken for dead, and the body begun once more beside the one that runs."""
    create_time = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: create_time(process) + 60)
    assert not HERE.is_gone()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there is it asked")
def test_process_that_has_ended_is_gone_before_anybody_asks_how() -> None:
    """In a container the first process may bury nobody: those whose parents died stay in the list for ever."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    holder = Holder("tcp://a", HERE.place, child.pid, _birth(child.pid))
    assert not holder.is_gone()
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert holder.is_gone()
    child.wait()
