"""Dask as a pair of hands: the executors' contract over a real cluster, and what a cluster does beyond it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest

pytest.importorskip("distributed")

from quarterjack import InvalidOption, JobFailed, JobMissed, JobState, Progress, Quarterjack, ResultUnavailable
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import BodyDied
from quarterjack.executors import AppRef, Executor, Home, _dask_link
from quarterjack.executors import dask as dask_executor
from quarterjack.executors._dask_fence import WITHDRAWN, Holder, take
from quarterjack.executors._dask_worker import run_body
from quarterjack.executors._remote import outcome_of
from quarterjack.executors.dask import DaskExecutor
from quarterjack.model import Outcome, OutcomeKind
from quarterjack.testing import _contract_bodies, _executor_bench
from quarterjack.testing._executor_bench import TestCall, Track, notes_in, until
from quarterjack.testing.executor_contract import ExecutorBench, ExecutorContract
from tests.clusters.dask_app import app, crash, huge, odd
from tests.clusters.kit import ROOT, end
from tests.repo.checkout import blocks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),  # a cluster is several processes that import much
    pytest.mark.leaks("threads"),  # Dask keeps one for what it offloads
]


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
        with suppress(subprocess.TimeoutExpired):  # a busy machine; it is ended below
            process.wait(60)
    finally:
        end(process)
        process.stdout.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Have a cluster of one worker with four threads, so that a pool of processes is warm soon."""
    with cluster(1, 4) as one:
        yield one.address


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer than for a process of ours: a Dask worker that comes back imports for seconds, its bodies' too."""
    monkeypatch.setattr(_executor_bench, "ENOUGH_S", 100.0)


class TestContract(ExecutorContract):
    """Bodies beside Dask workers."""

    bursts = 20

    @pytest.fixture(autouse=True)
    def _address(self, address: str) -> None:
        self.address = address

    def make(self, slots: int) -> Executor:
        return DaskExecutor(self.address, slots=slots)


@pytest.fixture
def bench(address: str, tmp_path: Path) -> ExecutorBench:
    """Return what submits the contract's bodies."""
    return ExecutorBench(lambda slots: DaskExecutor(address, slots=slots), "plain", tmp_path)


async def holder_of(executor: DaskExecutor) -> Holder:
    """Return the Dask worker that runs the one body."""
    [errand] = executor._errands.values()
    holder = await take(errand.client.scheduler, errand.key, WITHDRAWN)
    assert isinstance(holder, Holder)
    return holder


def dask(executor: Executor) -> DaskExecutor:
    """Return it as what it is."""
    assert isinstance(executor, DaskExecutor)
    return executor


class Findable(DaskExecutor):
    """One whose app is made in a test: its tasks are those of another app, which can be imported."""

    async def start(self, home: Home) -> None:
        await super().start(Home(home.clock, lambda: AppRef("tests.clusters.dask_app", None, "app")))


# ---------------------------------------------------------------- what a body brings


async def test_arguments_of_many_megabytes_come_through(bench: ExecutorBench) -> None:
    """Dask warns of a task that brings so much itself: they go ahead of it."""
    text = "quarter jäck " * 800_000
    async with bench.started(1) as executor:
        assert (await bench.run(executor, "echo", text)).result == text


async def test_result_that_is_no_json_leaves_the_job_done(address: str) -> None:
    """The body has had its effect; it must not run again for what it returned."""
    async with app:
        job = await app.submit(odd.options(executor=DaskExecutor(address)))
        with pytest.raises(ResultUnavailable):
            await job
    assert job.state is JobState.DONE


async def test_numbers_of_any_size_come_through(address: str) -> None:
    """Dask's own events take 64 bits: one more would break what the body has to its Dask worker, and end it."""
    async with app:
        job = await app.submit(huge.options(executor=DaskExecutor(address)), 2**70)
        assert await job == 2**70
        assert job.progress == Progress(2**70, 2**70, "")


async def test_app_that_dask_cannot_load_is_told(bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job fails at once, with the reason that the far side has; the cluster goes on."""
    missing = Home(SYSTEM_CLOCK, lambda: AppRef("there_is_no_such_module", None, "app"))
    monkeypatch.setattr(ExecutorBench, "home", staticmethod(lambda: missing))
    async with bench.started(1) as executor:
        outcome = await bench.run(executor, "double", 1)
    assert outcome.kind is OutcomeKind.REJECTED
    assert "there_is_no_such_module" in (outcome.reason or "")


async def test_app_whose_cluster_is_configured_here_is_loaded_there(
    bench: ExecutorBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``DaskExecutor()`` stands in its module, and a Dask worker has no DASK_SCHEDULER_ADDRESS."""
    script = tmp_path / "configured.py"
    imports = (
        "from quarterjack.executors.dask import DaskExecutor\nfrom quarterjack.testing._contract_bodies import app\n"
    )
    script.write_text(f"{imports}DaskExecutor()\n", encoding="utf-8")
    configured = Home(SYSTEM_CLOCK, lambda: AppRef(None, str(script), "app"))
    monkeypatch.setattr(ExecutorBench, "home", staticmethod(lambda: configured))
    async with bench.started(1) as executor:
        assert (await bench.run(executor, "double", 1)).result == 2


async def test_app_that_was_started_anew_is_run_as_it_is_written_now(address: str, tmp_path: Path) -> None:
    """A deploy reaches the cluster though bodies keep coming; the processes of the app that was there before end."""
    script = tmp_path / "shop.py"
    program = """
import asyncio, os, sys
from quarterjack import Quarterjack
from quarterjack.executors.dask import DaskExecutor
app = Quarterjack()
@app.task(executor=DaskExecutor({address!r}))
def price() -> list[int]:
    return [{price}, os.getpid()]
async def main() -> None:
    async with app:
        print(*await (await app.submit(price)), flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""
    shops, told = [], []
    for price in (1, 2):
        script.write_text(program.format(address=address, price=price), encoding="utf-8")
        shop = await asyncio.create_subprocess_exec(
            sys.executable, script, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        shops.append(shop)
        assert shop.stdout is not None
        told.append([int(word) for word in (await shop.stdout.readline()).split()])
    (before, first), (now, second) = told
    assert (before, now) == (1, 2)
    for shop in shops:
        await shop.communicate(b"")
    await until(lambda: not psutil.pid_exists(first) and not psutil.pid_exists(second))


# ---------------------------------------------------------------- what goes wrong on a cluster


async def test_run_that_comes_second_does_not_begin(bench: ExecutorBench) -> None:
    """Dask runs a task anew when it has lost sight of the first run, whatever that does."""
    async with bench.started(1) as executor:
        _, track = await bench.begun(executor, "hold")
        await track.heard("began")
        [errand] = dask(executor)._errands.values()
        again = run_body, errand.request, list(errand.app), "hold", errand.ref, "nobody", 1.0
        answer = await errand.client.submit(*again, key="once more", pure=False)
        assert outcome_of(errand.call, answer).kind is OutcomeKind.LOST
        bench.let_go("go")
        assert (await track.end()).result == "let go"
    assert bench.notes("a") == ["began"]


async def test_scheduler_keeps_nothing_of_what_is_over(bench: ExecutorBench) -> None:
    """It lives for months, and meets millions of jobs; Dask would compute what it keeps anew when a worker leaves."""

    def known(dask_scheduler: Any) -> list[str]:
        return [*dask_scheduler.plugins["quarterjack"]._turn_by_key, *dask_scheduler.tasks]

    gc.disable()  # an app that waits for its next job makes no garbage that would be collected
    try:
        async with bench.started(3) as executor:
            handle, held = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
            tracks = [bench.begin(executor, "echo", "much " * n)[1] for n in (1, 2_000_000)]
            await held.heard("began")
            refs = {errand.ref for errand in dask(executor)._errands.values()}
            client = await dask(executor)._link.client()
            for track in tracks:
                assert (await track.end()).kind is OutcomeKind.DONE
            handle.cancel("not wanted")
            await held.end()
            async with asyncio.timeout(_executor_bench.ENOUGH_S):
                while any(ref in key for key in await client.run_on_scheduler(known) for ref in refs):
                    await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def test_attempt_that_was_handed_in_twice_ends_once_for_each(bench: ExecutorBench) -> None:
    """One body, two who wait for it: a cancel of the one that is over already is nobody's news."""
    tracks = [Track(), Track()]
    async with bench.started(2) as executor:
        calls = [TestCall("hold", (bench.file("a"), bench.file("go")), {}, track) for track in tracks]
        calls[1].ref = calls[0].ref
        handles = [executor.submit(call, track) for call, track in zip(calls, tracks, strict=True)]
        for track in tracks:
            await track.heard("began")
        await until(lambda: bench.notes("a") == ["began"])
        handles[0].cancel("changed my mind")
        for track in tracks:
            assert (await track.end()).kind is OutcomeKind.CANCELLED
            track.check()
    assert bench.notes("a") == ["began", "interrupted"]


async def test_attempt_that_is_handed_in_again_as_it_ends_is_answered(bench: ExecutorBench) -> None:
    """What ends carries nobody else; whoever waits with it would wait for ever."""

    class Again(Track):
        def finished(self, outcome: Outcome, at_mono_ns: int | None = None) -> None:
            super().finished(outcome, at_mono_ns)
            asyncio.get_running_loop().call_soon(executor.submit, call, track)

    track = Track()
    async with bench.started(1) as executor:
        call = TestCall("double", (1,), {}, track)
        executor.submit(call, first := Again())
        assert (await first.end()).result == 2
        assert (await track.end()).kind in {OutcomeKind.DONE, OutcomeKind.LOST}


async def test_crash_of_a_body_is_told_with_its_exit_code(address: str, tmp_path: Path) -> None:
    """It runs in a process of its own: the Dask worker lives on, and Dask begins nothing anew."""
    async with app:
        job = await app.submit(crash.options(executor=DaskExecutor(address)), str(tmp_path / "ran"))
        with pytest.raises(JobFailed, match="exit code 3"):
            await job
    assert (tmp_path / "ran").read_text().split() == ["ran"]


async def test_killed_dask_worker_ends_the_attempt_and_the_body_runs_once(bench: ExecutorBench) -> None:
    """Dask begins the task anew up to four times; here the retry policy decides, at once."""
    async with bench.started(2) as executor:
        _, track = await bench.begun(executor, "hold")
        await track.heard("began")
        os.kill((await holder_of(dask(executor))).pid, signal.SIGKILL)
        outcome = await track.end()
        assert outcome.kind is OutcomeKind.DIED
        assert isinstance(outcome.error, BodyDied)
        bench.let_go("go")
        assert (await bench.run(executor, "double", 1)).result == 2  # in the worker's successor
    assert bench.notes("a") == ["began"]


async def test_dask_worker_that_dies_as_it_gets_its_turn_is_known_to_the_next(bench: ExecutorBench) -> None:
    """Whatever moment it dies in: nobody may hear that the job was cancelled, and the retry policy decides."""

    def arm(dask_worker: Any) -> None:
        asks = dask_worker.scheduler.quarterjack_take

        async def die(**words: Any) -> None:
            await asks(**words)
            os.kill(os.getpid(), signal.SIGKILL)

        dask_worker.scheduler.quarterjack_take = die

    async with bench.started(1) as executor:
        client = await dask(executor)._link.client()
        await client.run(arm)
        outcome = await bench.run(executor, "mark", bench.file("a"))
    assert (outcome.kind, bench.notes("a")) == (OutcomeKind.DIED, [])


async def test_dask_worker_that_closes_interrupts_its_bodies(bench: ExecutorBench) -> None:
    """As when a cluster shrinks: what becomes of the job is decided here, and Dask begins nothing anew."""

    async def close(dask_worker: Any) -> None:
        await dask_worker.close(nanny=False)

    async with bench.started(1) as executor:
        _, track = await bench.begun(executor, "hold")
        await track.heard("began")
        [errand] = dask(executor)._errands.values()
        await errand.client.run(close, workers=[(await holder_of(dask(executor))).address], wait=False)
        outcome = await track.end()
        assert (outcome.kind, str(outcome.error)) == (
            OutcomeKind.DIED,
            "its process died: its Dask worker was closed",
        )
        assert (await bench.run(executor, "double", 1)).result == 2  # in the worker's successor
    assert bench.notes("a") == ["began", "interrupted"]


async def test_killed_app_leaves_no_body_behind(address: str, tmp_path: Path) -> None:
    """Nobody waits for it any more: its slot on the cluster is somebody else's."""
    app_of_old = subprocess.Popen([sys.executable, "-m", "tests.clusters.dask_app", address, str(tmp_path)], cwd=ROOT)
    try:
        await until(lambda: bool(notes_in(tmp_path / "a")))
    finally:
        app_of_old.kill()
        app_of_old.wait()
    await until(lambda: notes_in(tmp_path / "a") == ["began", "interrupted"])


async def test_killed_scheduler_loses_what_it_had_and_the_lease_brings_it_back(tmp_path: Path) -> None:
    """Nobody knows what its workers do: somebody else begins once the lease has run out, and that is no failure.

    What comes while it is away was nowhere yet: it waits, and its first attempt is its last.
    """
    with cluster(1, 2) as old, ExitStack() as later_on:
        lasting = Quarterjack(f"sqlite:///{tmp_path}/jobs.db", lease=2)
        body = lasting.task(executor=Findable(old.address))(_contract_bodies.hold.__wrapped__)
        async with lasting:
            job = await lasting.submit(body, str(tmp_path / "a"), str(tmp_path / "go"))
            await until(lambda: bool(notes_in(tmp_path / "a")))
            old.process.kill()
            old.process.wait()
            later = await lasting.submit(body, str(tmp_path / "b"), str(tmp_path / "go"))
            again = cluster(1, 2, int(old.address.rpartition(":")[2]))
            await asyncio.to_thread(later_on.enter_context, again)
            await until(lambda: notes_in(tmp_path / "a").count("began") == 2)
            (tmp_path / "go").touch()
            assert await job == "let go"
            assert await later == "let go"
    assert (job.attempt, job.failures, job.rescues) == (2, 0, 1)
    assert (later.attempt, notes_in(tmp_path / "b")) == (1, ["began"])


def test_place_that_is_no_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the app is written, not when its first job comes."""
    with pytest.raises(InvalidOption, match="DASK_SCHEDULER_ADDRESS"):
        DaskExecutor()
    with pytest.raises(InvalidOption, match="is an address"):
        DaskExecutor(8786)
    for address in ("127.0.0.1", "tcp://127.0.0.1", "tcp://:8786", "tcp://127.0.0.1:88888", "http://127.0.0.1:8787"):
        with pytest.raises(InvalidOption, match=f"'{address}'.* such as 'tcp://127.0.0.1:8786'"):
            DaskExecutor(address)
    for address in ("127.0.0.1:8786", "tls://[::1]:8786", "inproc://127.0.0.1/1/2"):
        assert address in repr(DaskExecutor(address))
    with pytest.raises(InvalidOption, match="from 1"):
        DaskExecutor("tcp://127.0.0.1:8786", slots=0)


async def test_scheduler_that_is_out_of_reach_is_told_before_the_first_job(
    bench: ExecutorBench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator learns it when the app starts."""
    monkeypatch.setattr(_dask_link, "CONNECT_S", 0.1)
    executor = DaskExecutor("tcp://127.0.0.1:1")
    await executor.start(bench.home())
    await executor.warm()
    await until(lambda: "tcp://127.0.0.1:1 is out of reach" in caplog.text)
    await executor.stop(1.0)


async def test_scheduler_that_comes_later_is_told_without_a_job(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log said that it was tried again, and nobody tried: an hour later it still was away."""
    monkeypatch.setattr(dask_executor, "HAND_OVER_S", (0.001, 0.001))
    executor = DaskExecutor("tcp://127.0.0.1:1")
    troubles: list[str | None] = []

    async def client() -> None:
        troubles.append(executor.trouble)
        if len(troubles) < 3:
            raise OSError("nobody is there")

    await executor.start(bench.home())
    monkeypatch.setattr(executor._link, "client", client)
    await executor.warm()
    await until(lambda: not executor._chores.tasks)
    assert (len(troubles), troubles[0], executor.trouble) == (3, None, None)
    assert "nobody is there" in (troubles[1] or "")
    await executor.stop(1.0)


@pytest.mark.parametrize("resources", [{"GPU": "x"}, {"GPU": -1}, {1: 1}, 5, "x", [("GPU", 1)]])
def test_resources_that_are_no_numbers_by_name_are_refused(resources: Any) -> None:
    """Dask takes them, and the job waits for ever."""
    with pytest.raises(InvalidOption, match="resources"):
        DaskExecutor("tcp://127.0.0.1:8786", resources=resources)


async def test_stop_answers_what_no_scheduler_took(
    bench: ExecutorBench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster is away, and the app ends: no job may wait for ever."""
    monkeypatch.setattr(_dask_link, "CONNECT_S", 0.1)
    executor = DaskExecutor("tcp://127.0.0.1:1", slots=1)
    await executor.start(bench.home())
    _, track = bench.begin(executor, "double", 1)
    await until(lambda: "Dask may be away" in caplog.text)
    await executor.stop(0.2)
    assert (await track.end()).kind is OutcomeKind.CANCELLED


async def test_job_that_no_scheduler_took_is_missed_at_its_deadline(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster is away, maybe for hours; who waits for the job is to know that it is too late."""
    monkeypatch.setattr(_dask_link, "CONNECT_S", 0.1)
    app = Quarterjack()
    double = app.task(executor=Findable("tcp://127.0.0.1:1"), start_deadline=0.5)(_contract_bodies.double.__wrapped__)
    async with app:
        with pytest.raises(JobMissed, match="had not been handed to Dask by its start deadline"):
            await (await app.submit(double, 1))


async def test_job_that_waits_on_dask_past_its_deadline_is_missed(address: str, tmp_path: Path) -> None:
    """At that moment, whether there is ever room for it or not."""
    bench = ExecutorBench(lambda slots: DaskExecutor(address, slots=slots, resources={"NOBODY": 1}), "plain", tmp_path)
    async with bench.started(1) as executor:
        _, track = bench.begin(executor, "double", 1)
        await track.heard("accepted")
        [errand] = dask(executor)._errands.values()
        errand.messages[0]._pass_deadline()  # its alarm, whenever this machine has come so far
        assert (await track.end()).kind is OutcomeKind.MISSED
        track.check()
    assert track.log == ["accepted", "finished"]


@pytest.mark.leaks("tasks")
def test_app_that_ended_without_stopping_it_leaves_the_next_one_nothing(
    bench: ExecutorBench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test or a notebook has one loop after the other, and closes one with all that was under way."""
    monkeypatch.setattr(_dask_link, "CONNECT_S", 0.1)
    executor = DaskExecutor("tcp://127.0.0.1:1", slots=1)

    async def leave() -> asyncio.Task[None]:
        await executor.start(bench.home())
        bench.begin(executor, "double", 1)
        await until(lambda: "Dask may be away" in caplog.text)
        [errand] = executor._errands.values()
        return errand.task

    async def go_on() -> None:
        await executor.start(bench.home())
        await executor.stop(1.0)

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(leave())
    loop.close()
    asyncio.run(go_on())
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it was left on purpose


async def test_connection_that_was_given_up_is_made_anew_and_let_go_quietly(bench: ExecutorBench) -> None:
    """Dask's client closes itself when its scheduler was away for some seconds: neither a job nor a stop may mind."""
    async with bench.started(1) as executor:
        link = dask(executor)._link
        for _ in range(2):
            assert (await bench.run(executor, "double", 1)).result == 2
            await (await link.client()).close()


@pytest.mark.parametrize("how", ["abort", "deaf"])
async def test_connection_that_breaks_loses_what_runs_and_nothing_else(bench: ExecutorBench, how: str) -> None:
    """Its body ends, and the lease decides; what comes after that is just a bit late.

    Dask's client may stop listening without a word, or stay "connecting" for ever, and what waits for it with it.
    What is handed over in the very moment of the break may be on its way or not: lost, too, if Dask does not say.
    """
    async with bench.started(2) as executor:
        _, track = await bench.begun(executor, "hold")
        await track.heard("began")
        client = await dask(executor)._link.client()
        if how == "abort":
            client.scheduler_comm.comm.abort()
        else:
            client._handle_report_task.cancel()
        meanwhile = await bench.run(executor, "double", 1)
        assert meanwhile.result == 2 or meanwhile.kind is OutcomeKind.LOST
        assert (await bench.run(executor, "double", 2)).result == 4
        assert (await track.end()).kind is OutcomeKind.LOST
        await until(lambda: bench.notes("a") == ["began", "interrupted"])


async def test_connection_that_broke_is_not_made_anew_under_the_same_name(bench: ExecutorBench) -> None:
    """Its scheduler would drop what waits there, or let bodies go on for which nobody waits."""
    async with bench.started(1) as executor:
        link = dask(executor)._link
        client = await link.client()
        client.scheduler_comm.comm.abort()
        await until(lambda: client.status == "closed")
        assert (await bench.run(executor, "double", 1)).result == 2
        assert (await link.client()).id != client.id


async def test_scheduler_that_leaves_as_it_is_to_be_handed_a_job_is_waited_for(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask's client keeps what it cannot send, and its next scheduler would not know who may run it."""
    async with bench.started(1) as executor:
        link = dask(executor)._link
        leaving: list[Any] = [SimpleNamespace(status="connecting")]

        async def ready(key: str) -> Any:
            return leaving.pop() if leaving else await whole(key)

        whole = link.ready
        monkeypatch.setattr(link, "ready", ready)
        assert (await bench.run(executor, "double", 1)).result == 2


async def test_scheduler_without_quarterjack_fails_the_job_with_the_install_line(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for ever for what is not going to come."""

    async def bring_fences(client: Any) -> None:
        raise ModuleNotFoundError("No module named 'quarterjack'")

    monkeypatch.setattr(_dask_link, "bring_fences", bring_fences)
    async with bench.started(1) as executor:
        outcome = await bench.run(executor, "double", 1)
    assert outcome.kind is OutcomeKind.REJECTED
    assert "quarterjack[dask] installed for its scheduler" in (outcome.reason or "")


async def test_what_others_say_on_a_topic_of_all_is_not_misread(
    bench: ExecutorBench, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may say anything there, also what looks like an event of Dask's."""
    async with bench.started(1) as executor:
        _, track = await bench.begun(executor, "hold")
        await track.heard("began")
        client = await dask(executor)._link.client()
        for words in ("remove-worker", {"action": "remove-worker"}):
            await client.log_event("all", words)
        bench.let_go("go")
        assert (await track.end()).result == "let go"
    assert not caplog.records


# ---------------------------------------------------------------- what the pages show


def test_guide_prints_what_it_says(tmp_path: Path) -> None:
    """The program of the page, as a new user copies it."""
    page = blocks(ROOT / "docs/guides/clusters.md")
    [at] = [n for n, block in enumerate(page) if "LocalCluster" in block.text]
    program = tmp_path / "program.py"
    program.write_text(page[at].text, encoding="utf-8")
    assert output_of(program) == page[at + 1].text


def test_computation_survives_a_crash_and_is_rid_of_what_nobody_wants(address: str) -> None:
    """The example, on a cluster that is there already."""
    assert output_of(ROOT / "examples/dask_computation.py", address).splitlines() == [
        *(f"part {n}: {'2 attempts' if n == 1 else '1 attempt'}, {Progress(10, 10, f'part {n}')}" for n in range(4)),
        "pi is 3.141592654",
        "none of it in this process: True",
        "the endless one was cancelled",
    ]


def output_of(program: Path, *words: str) -> str:
    """Run a program to its end; no process may be left of it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    done: Any = subprocess.Popen([sys.executable, program, *words], env=env, start_new_session=True, **pipes)  # type: ignore[call-overload]
    try:
        out, err = done.communicate(timeout=150)
        assert done.returncode == 0, err
        assert "Traceback" not in err  # on a busy machine Dask says that it waits
        gone = threading.Event()
        for _ in range(500):
            try:
                os.killpg(done.pid, 0)
            except ProcessLookupError:
                break
            gone.wait(0.02)  # multiprocessing's own helper goes last
        else:
            raise AssertionError("a process of the cluster is left")
    finally:
        end(done)
    return str(out)


async def test_a_connection_that_nobody_waits_for_any_more_fails_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: an app that stopped while Dask was away ended with a traceback of a task "never retrieved"."""

    async def refuse(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0.01)
        raise OSError("Timed out trying to connect")

    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    monkeypatch.setattr(_dask_link, "Client", refuse)
    link = _dask_link.Link("tcp://127.0.0.1:1", print, print)
    asker = asyncio.ensure_future(link.client())
    await asyncio.sleep(0)
    asker.cancel()
    await asyncio.sleep(0.05)
    gc.collect()
    assert told == []
