"""The thread that renews leases: what cannot starve it, whom it lets go, and that it does not end in silence."""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from quarterjack import Quarterjack, current_job
from quarterjack.errors import StoreUnavailable
from quarterjack.executors import LoopExecutor, ThreadExecutor
from quarterjack.model import WorkerInfo
from quarterjack.runtime import renewal
from quarterjack.stores.base import Renewal, Renewed
from quarterjack.stores.leases import CarriedLink, LeaseLink
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing._clock import VirtualClock
from quarterjack.testing._loop import virtual_loop
from tests.runtime.fleet import Connection, Server, fleet

LEASE_S = 2.0
BLOCKED_S = 3.5


def blocks_its_loop(app: Quarterjack, ran: list[int]) -> Any:
    """Register a task whose body blocks the app's loop for longer than a lease."""

    @app.task(name="block")
    async def block() -> int:
        ran.append(current_job().attempt)
        time.sleep(BLOCKED_S)
        return current_job().attempt

    return block


def runs_of_a_body_that_blocks(store: type[SQLiteStore], file: Path) -> list[int]:
    """Return the attempts that ran while another process stood by to take over."""
    ran: list[int] = []
    first, second = (Quarterjack(store.from_url(f"sqlite:///{file}"), lease=LEASE_S) for _ in range(2))
    task = blocks_its_loop(first, ran)

    @second.task(name="block")
    async def block() -> None:
        ran.append(current_job().attempt)

    with ExitStack() as stack:
        stack.enter_context(first.in_thread())
        job = first.submit_sync(task)
        while not ran:
            time.sleep(0.01)
        stack.enter_context(second.in_thread())
        job.wait_sync(30)
    return ran


@pytest.mark.slow
def test_a_blocked_loop_loses_no_lease(tmp_path: Path) -> None:
    """Users' code may block for longer than a lease: the job is not run by another process meanwhile."""
    assert runs_of_a_body_that_blocks(SQLiteStore, tmp_path / "jobs.db") == [1]


class WithoutOwnLink(SQLiteStore):
    """Renews on the app's loop, as a store does that offers no link of its own."""

    def lease_link(self) -> LeaseLink:
        return CarriedLink(self, asyncio.get_running_loop())


@pytest.mark.slow
def test_renewing_on_the_blocked_loop_is_found(tmp_path: Path) -> None:
    """The proof that the test above can fail."""
    assert runs_of_a_body_that_blocks(WithoutOwnLink, tmp_path / "jobs.db") == [1, 2]


class BrokenLink(LeaseLink):
    """Fails as no store should."""

    async def open(self) -> None:
        raise ZeroDivisionError("a bug in a store")

    async def jobs_renew(self, owner: str, renewals: Any, lease_s: float | None) -> Renewed:
        raise NotImplementedError

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        raise NotImplementedError

    async def close(self) -> None: ...


@pytest.mark.parametrize("is_virtual", [True, False])
async def test_it_never_ends_in_silence(monkeypatch: pytest.MonkeyPatch, is_virtual: bool) -> None:
    """A worker whose leases nobody renews must not go on as if all were well."""
    monkeypatch.setattr(renewal, "NEWS_S", 0.01)
    server = Server(VirtualClock())
    app = Quarterjack(server.connect())
    monkeypatch.setattr(type(app.store), "lease_link", lambda _: BrokenLink())

    async def life() -> None:
        if not is_virtual:
            await app.serve()
            return
        async with fleet(server, app) as clock:
            await clock.run_for(100)

    with pytest.raises(ZeroDivisionError, match="a bug in a store"):
        await life()
    assert not [one for one in threading.enumerate() if one.name == "quarterjack-leases"]


class Host:
    """As much of an app as the renewer needs."""

    def __init__(self, clock: VirtualClock, link: LeaseLink) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = clock
        self.store: Any = LinkOnly(link)
        self.worker: Any = self
        self.owner, self.lease_s = "w", 30.0
        self.silence = None
        self.attempts: list[Any] = []

    def on_their_way(self) -> list[Any]:
        return []

    def held(self) -> list[Any]:
        return self.attempts

    def info(self) -> WorkerInfo:
        return WorkerInfo("w", "h", 1, "worker", (), 0, 0)

    def obey(self, command: str) -> None: ...
    def fatal(self, error: BaseException) -> None: ...
    def cancel_local(self, job_ids: Any) -> None: ...
    def lose(self, attempts: Any) -> None: ...


class LinkOnly:
    """A store that offers a link."""

    def __init__(self, link: LeaseLink) -> None:
        self.link = link

    def lease_link(self) -> LeaseLink:
        return self.link


class Noting(CarriedLink):
    """Notes what is renewed."""

    def __init__(self) -> None:
        self.renewed: list[list[str]] = []

    async def jobs_renew(self, owner: str, renewals: Any, lease_s: float | None) -> Renewed:
        self.renewed.append([one.job_id for one in renewals])
        return Renewed([], [])

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        return None


class Held:
    """As much of an attempt as the renewer needs."""

    has_words = False
    sent: Renewal | None = None

    def __init__(self, job_id: str, executor: object, began_ns: int, timeout_s: float | None = None) -> None:
        self.job_id = job_id
        self.record = self
        self.task = "task"
        self.executor = executor
        self.began_mono_ns = began_ns
        self.timeout_s = timeout_s

    def renewal(self) -> Renewal:
        return Renewal(self.job_id, 1, running_at_ns=1)


async def test_whom_it_lets_go(caplog: pytest.LogCaptureFixture) -> None:
    """A hung process must not hold its jobs for ever; what still turns keeps its own."""
    caplog.set_level(logging.INFO, "quarterjack")
    clock, link = VirtualClock(), Noting()
    host = Host(clock, link)
    now = clock.monotonic_ns()
    loop, threads = LoopExecutor(1), ThreadExecutor()
    host.attempts = [
        Held("on the loop", loop, now),
        Held("in a thread", threads, now),
        Held("with a timeout", threads, now, timeout_s=10),
    ]
    renewer = renewal.Renewer(host)
    await renewer.renew()
    clock.move_to(now + 69 * 10**9)
    await renewer.renew()  # tells the loop, which has not turned yet
    clock.move_to(now + 71 * 10**9)
    await renewer.renew()
    await asyncio.sleep(0)  # it turns
    await renewer.renew()
    assert link.renewed == [
        ["on the loop", "in a thread", "with a timeout"],
        ["in a thread", "with a timeout"],
        ["in a thread"],
        ["on the loop", "in a thread"],
    ]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the event loop has not turned for 69 s",
        "job with a timeout (task) is 60 s past its timeout and does not end",
        "the event loop turns again",
    ]


class Mute(Noting):
    """Answers nothing, like a connection that is half-open, until it is opened a second time."""

    is_open = False

    async def open(self) -> None:
        if not self.is_open:
            self.is_open = True
            await asyncio.Event().wait()


async def test_a_link_that_does_not_open_is_asked_again_before_the_lease_is_over() -> None:
    """Connecting may hang as well as any call, and its own deadline may be longer than a lease."""
    clock, link = VirtualClock(), Mute()
    with virtual_loop(clock):
        host = Host(clock, link)
        host.attempts = [Held("job", ThreadExecutor(), clock.monotonic_ns())]
        renewer = renewal.Renewer(host)
        renewer.start()
        await clock.run_for(host.lease_s)
        assert ["job"] in link.renewed
        await renewer.stop()


async def test_late_news_of_a_lost_attempt_leaves_the_newer_one_alone() -> None:
    """A worker may lose a job and claim it again before it hears of the loss."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect())

    @app.task
    async def body() -> str:
        await asyncio.sleep(1)
        return "done"

    async with fleet(server, app) as clock:
        job = await app.submit(body)
        await clock.run_for(0.2)
        worker = app._running().worker
        assert worker is not None
        (attempt,) = worker.attempts()
        worker.lose([copy.copy(attempt)])
        assert await job == "done"


async def test_a_lost_attempt_ends_and_says_nothing() -> None:
    """Its job is another worker's by now."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect())
    ended: list[str] = []

    @app.task
    async def body() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with fleet(server, app) as clock:
        job = await app.submit(body)
        await clock.run_for(0.2)
        worker = app._running().worker
        assert worker is not None
        worker.lose(worker.attempts())
        await clock.run_for(1)
        assert (ended, worker.running) == (["cancelled"], 0)
        await job.refresh()
        assert job.state.is_held
        assert not [call for _, call in server.calls if call == "jobs_finish"]


async def test_a_process_does_not_rescue_its_own_jobs_after_an_outage() -> None:
    """What runs goes on, and what has ended is recorded: its claim may be the first call that works again."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), lease=2)
    began: list[str] = []
    go = asyncio.Event()

    @app.task(max_rescues=0)
    async def body(name: str) -> str:
        began.append(name)
        await (go.wait() if name == "short" else asyncio.sleep(30))
        return name

    away_from, claims = float("inf"), []

    async def outage(by: Connection, name: str, is_after: bool) -> None:
        """Nothing works for a while, and then the claimer's calls first."""
        del by
        task = asyncio.current_task()
        is_claimer = task is not None and task.get_name() == "quarterjack-claimer"
        since_s = server.clock.monotonic() - away_from
        if since_s > 5 and is_claimer and is_after and name == "jobs_claim":
            claims.append(since_s)
        if since_s > 0 and not claims and (since_s < 5 or not is_claimer):
            raise StoreUnavailable("away")

    server.fault = outage
    async with fleet(server, app) as clock:
        jobs = [await app.submit(body, name) for name in ("short", "long")]
        await clock.run_for(1)
        away_from = clock.monotonic()
        await clock.run_for(1)
        go.set()
        await clock.run_for(40)
        assert claims
        assert [await job for job in jobs] == ["short", "long"]
        assert (began, [server.store._jobs[job.id].rescues for job in jobs]) == (["short", "long"], [0, 0])
