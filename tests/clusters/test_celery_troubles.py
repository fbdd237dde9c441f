"""What goes wrong on a Celery cluster: what comes twice or too late, dies, or is forgotten."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("celery")

from redis import Redis

from quarterjack import JobCancelled, JobMissed, Quarterjack
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import BodyDied
from quarterjack.executors import _celery_message, _celery_pulse, _celery_results, _celery_search
from quarterjack.executors._celery_client import Letter
from quarterjack.executors._celery_fence import alive_key, begun_key, wanted_key
from quarterjack.executors._celery_worker import TASK
from quarterjack.executors.celery import CeleryExecutor, CeleryTask
from quarterjack.model import OutcomeKind
from quarterjack.runtime import endings
from quarterjack.testing import _contract_bodies
from quarterjack.testing._executor_bench import TestCall, Track
from quarterjack.testing.executor_contract import ExecutorBench
from tests.clusters.kit import app_on, end, started, worker
from tests.real_time import LONG_S, until
from tests.servers.running import VALKEY, OwnServer, own

pytestmark = [pytest.mark.slow, pytest.mark.needs_redis]
TELLING = "tests.clusters.telling_bodies:app"
NOBODY: int = 4
"""The database of a broker whose messages no worker gets."""


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have silence noticed soon, and what was lost begun anew soon."""
    monkeypatch.setattr(_celery_results, "LOOK_S", 0.2)
    monkeypatch.setattr(_celery_message, "SILENT_S", 0.2)
    monkeypatch.setattr(endings, "LOST_S", 0.2)


# ---------------------------------------------------------------- twice, too late, not at all


async def test_message_that_is_delivered_twice_runs_once(celery: Any, at_work: None, bench: ExecutorBench) -> None:
    """Brokers deliver again what was not acknowledged in time; the body asks before it begins."""
    async with started(celery, bench) as executor:
        _, track = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
        await until(lambda: bool(bench.notes("a")))
        [message] = executor._ledger.messages()
        await executor._client.publish(executor._letter(message.call), message.ref)
        await executor._client.publish(Letter("shop.sleep", [0, bench.file("after")], {}), "after-it")
        await until(Path(bench.file("after")).exists)  # two slots: the one that is free has met both
        bench.let_go("go")
        assert (await track.end()).result == "let go"
    assert bench.notes("a") == ["began"]


async def test_job_that_waits_in_celery_past_its_deadline_is_missed(valkey: OwnServer) -> None:
    """As in a queue of ours; and at that moment, whether a worker ever gets its message or not."""
    app = Quarterjack()
    double = app.task(executor=CeleryExecutor(app_on(valkey.port, broker=NOBODY), slots=1), start_deadline=1)(
        _contract_bodies.double.__wrapped__
    )
    async with app:
        with pytest.raises(JobMissed, match=r"start.deadline"):
            await (await app.submit(double, 1))


async def test_message_that_comes_past_its_deadline_begins_no_body(
    celery: Any, at_work: None, bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app may be away at that moment, so the worker looks as well."""
    monkeypatch.setattr(_celery_message.Message, "_pass_deadline", lambda self: None)
    async with started(celery, bench) as executor:
        call = TestCall("mark", (bench.file("a"),), {}, track := Track())
        call.deadline_ns = SYSTEM_CLOCK.now_ns() - 1
        executor.submit(call, track)
        assert (await track.end()).kind is OutcomeKind.MISSED
    assert bench.notes("a") == []


async def test_deadline_waits_until_it_is_known_which_body_goes_on(
    celery: Any, at_work: None, bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt that takes up the body of the one before it has not missed the beginning."""
    async with started(celery, bench) as executor:
        handle, _ = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
        await until(lambda: bool(bench.notes("a")))
        [before] = executor._ledger.messages()
        executor.leave(handle)
        results, is_known = executor._ledger.results, asyncio.Event()
        take_up, withdraw, asked = results.take_up, results.withdraw, []

        async def slow(*given: str) -> str | None:
            await is_known.wait()
            found: str | None = await take_up(*given)
            return found

        async def spy(*given: str) -> bool:
            asked.append(given)
            return bool(await withdraw(*given))

        monkeypatch.setattr(results, "take_up", slow)
        monkeypatch.setattr(results, "withdraw", spy)
        call = TestCall("hold", ("", ""), {}, track := Track())
        call.deadline_ns = SYSTEM_CLOCK.now_ns() - 1
        call.job_id, call.ref = before.call.job_id, f"{before.call.job_id}.2"
        message = executor.reattach(before.ref, call, track)
        while message._timer is not None or len(executor._chores.tasks) < 3:  # the deadline rings at once
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        is_known.set()
        await until(lambda: asked)
        bench.let_go("go")
        assert (await track.end()).result == "let go"


async def test_slot_of_a_message_that_nobody_stops_comes_back_with_its_end(
    valkey: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task of theirs was cancelled while no worker was up; when one runs it after all, that is over too."""
    monkeypatch.setattr(_celery_message, "KILL_S", 0.1)
    executor, app = CeleryTask("shop.nobody", app_on(valkey.port, broker=NOBODY), slots=1), Quarterjack()

    @app.task(executor=executor, cancel_grace=0.1)
    def nobody() -> int: ...  # type: ignore[empty-body]  # it runs elsewhere

    async with app:
        unwanted = await app.submit(nobody)
        await until(lambda: str(unwanted.state) == "started")
        await unwanted.cancel()
        with pytest.raises(JobCancelled):
            await unwanted
        next_one = await app.submit(nobody)
        assert executor.free == 0
        await _end(executor, f"{unwanted.id}.1", 5)
        await until(lambda: str(next_one.state) == "started")
        await _end(executor, f"{next_one.id}.1", 6)
        assert await next_one == 6


async def _end(executor: CeleryTask, ref: str, result: int) -> None:
    """Store a result as a worker does, and have it found."""
    results = executor._ledger.results
    await results._client.set(results._key_of(ref), json.dumps({"status": "SUCCESS", "result": result}))
    await results.look()


async def test_body_that_is_wanted_no_more_is_interrupted(celery: Any, at_work: None, bench: ExecutorBench) -> None:
    """After a server lost its data another attempt may have begun: the old one is not to go on beside it."""
    async with started(celery, bench) as executor:
        _, track = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
        await until(lambda: bool(bench.notes("a")))
        [message] = executor._ledger.messages()
        await executor._ledger.results._client.set(wanted_key(message.ref), "another")
        assert (await track.end()).kind is OutcomeKind.CANCELLED
    assert bench.notes("a") == ["began", "interrupted"]


async def test_message_that_vanished_is_sent_again(celery: Any, at_work: None, bench: ExecutorBench) -> None:
    """An operator purged the queue, or a worker was killed that had taken it: its job waited for ever."""
    queue = f"purged-{os.getpid()}"
    async with started(celery, bench, queue=queue) as executor:
        _, track = bench.begin(executor, "mark", bench.file("a"))
        await track.heard("accepted")
        with Redis(port=celery.backend.connparams["port"]) as broker:
            async with asyncio.timeout(LONG_S):  # the worker may have yet to start
                while not await executor._client.missing(["another"], TASK, f"not-{queue}"):
                    pass
            for _ in range(_celery_search.PATIENCE):
                await executor._search.look()
            assert broker.llen(queue) == 1, "it may wait for its turn"
            broker.delete(queue)
            for _ in range(2 * _celery_search.PATIENCE):
                await executor._search.look()
            assert broker.llen(queue) == 1
        control = executor._client._celery.control
        await executor._client._do(lambda link: control.add_consumer(queue, connection=link))
        assert (await track.end()).kind is OutcomeKind.DONE
        await executor._client._do(lambda link: control.cancel_consumer(queue, connection=link))
        track.check()
    assert bench.notes("a") == ["ran"]


async def test_message_that_a_worker_holds_is_not_sent_again(
    celery: Any, at_work: None, bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers take more than they have room for: then the queue is empty, and all is well."""
    executor = CeleryExecutor(celery, slots=3)
    await executor.start(bench.home())
    try:
        tracks = [bench.begin(executor, "hold", bench.file(name), bench.file("go"))[1] for name in ("a", "b", "c")]
        await until(lambda: sum(map(bool, map(bench.notes, "abc"))) == 2)
        asked: list[set[str]] = []
        missing = executor._client.missing

        async def spy(*given: Any) -> set[str]:
            asked.append(await missing(*given))
            return asked[-1]

        monkeypatch.setattr(executor._client, "missing", spy)
        for _ in range(_celery_search.PATIENCE):
            await executor._search.look()
        assert asked == [set()]
        bench.let_go("go")
        assert [(await track.end()).result for track in tracks] == ["let go"] * 3
    finally:
        await executor.stop(10)


async def test_nothing_is_missing_while_no_worker_answers(valkey: OwnServer, bench: ExecutorBench) -> None:
    """They may have taken what is not in the queue, and be out of reach."""
    async with started(app_on(valkey.port, broker=NOBODY), bench, queue="nobody") as executor:
        _, track = bench.begin(executor, "mark", bench.file("a"))
        await track.heard("accepted")
        [message] = executor._ledger.messages()
        with Redis(port=valkey.port, db=NOBODY) as broker:
            assert broker.delete("nobody")
        assert await executor._client.missing([message.ref], TASK, "nobody") == set()


async def test_module_that_ends_its_interpreter_refuses_its_jobs(valkey: OwnServer, bench: ExecutorBench) -> None:
    """It ended the process of the pool, which the job's policy tried again, three times; nobody was told why."""
    with worker(valkey.port, "--queues=ends", QJ_TEST_CELERY_BODIES="tests.clusters.ends_itself:app"):
        async with started(app_on(valkey.port), bench, queue="ends") as executor:
            outcome = await bench.run(executor, "double", 1)
    assert outcome.kind is OutcomeKind.REJECTED
    assert "there are no settings here" in (outcome.reason or "")


# ---------------------------------------------------------------- deaths and silence


async def test_killed_child_is_told_as_died(celery: Any, at_work: None, bench: ExecutorBench) -> None:
    """Celery says so at once, so the retry policy decides at once."""
    async with started(celery, bench) as executor:
        _, track = await bench.begun(executor, "hold")
        await track.heard("began")
        [message] = executor._ledger.messages()
        told = celery.backend.get_task_meta(message.ref)
        celery.backend.client.connection_pool.disconnect()
        os.kill(told["result"]["pid"], signal.SIGKILL)
        outcome = await track.end()
        assert outcome.kind is OutcomeKind.DIED
        assert isinstance(outcome.error, BodyDied), "as of a process of our own: no `Retry(on=ValueError)` takes it"
        assert outcome.error.code == -signal.SIGKILL


async def test_job_whose_celery_worker_was_killed_runs_again(bench: ExecutorBench, quick_looks: None) -> None:
    """Nobody says that the worker is gone: its silence does, and then nobody waits for the dead body."""
    app = Quarterjack()
    with own(VALKEY) as server:
        hold = app.task(executor=CeleryExecutor(app_on(server.port), slots=1))(_contract_bodies.hold.__wrapped__)
        async with app:
            with worker(server.port, QJ_TEST_CELERY_ALIVE="3") as process:
                job = await app.submit(hold, bench.file("a"), bench.file("go"))
                await until(lambda: str(job.state) == "running" and bench.notes("a"))
                end(process)
                await until(lambda: job.attempt > 1)
            bench.let_go("go")
            with worker(server.port):
                assert await job == "let go"
    assert bench.notes("a").count("began") > 1


async def test_body_whose_process_died_before_it_could_say_so_is_lost(
    valkey: OwnServer, bench: ExecutorBench, quick_looks: None
) -> None:
    """It had passed the fence, and nobody else may: its job waited for ever for a message that was gone."""
    async with started(app_on(valkey.port, broker=NOBODY), bench) as executor:
        _, track = bench.begin(executor, "double", 1)
        await track.heard("accepted")
        [message] = executor._ledger.messages()
        await executor._ledger.results._client.set(begun_key(message.ref), "1", ex=60)
        assert (await track.end()).kind is OutcomeKind.LOST
        track.check()


async def test_two_looks_in_a_row_are_no_silence(
    celery: Any, at_work: None, bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was restarted knows of nobody until the workers have connected anew."""
    monkeypatch.setattr(_celery_message, "SILENT_S", 60.0)
    async with started(celery, bench) as executor:
        _, track = await bench.begun(executor, "hold")
        await track.heard("began")
        [message] = executor._ledger.messages()
        for _ in range(3):
            await executor._ledger.results._client.delete(alive_key(message.ref))
            await executor._ledger.results.look()
        bench.let_go("go")
        assert (await track.end()).result == "let go"


async def test_jobs_that_wait_run_after_a_restart_of_the_server(bench: ExecutorBench, quick_looks: None) -> None:
    """What the server has kept runs from the message that was sent; what it has forgotten is lost, and sent anew."""
    app = Quarterjack()
    with own(VALKEY, "--appendonly", "yes") as server:
        mark = app.task(executor=CeleryExecutor(app_on(server.port)))(_contract_bodies.mark.__wrapped__)
        async with app:
            kept, forgotten = [await app.submit(mark, bench.file(name)) for name in ("a", "b")]
            await until(lambda: {str(kept.state), str(forgotten.state)} == {"started"})
            server.restart()
            with Redis(port=server.port, db=1) as client:
                client.delete(wanted_key(f"{forgotten.id}.1"))
            await until(lambda: forgotten.attempt == 2)
            with worker(server.port):
                await kept
                await forgotten
            assert (kept.attempt, forgotten.attempt) == (1, 2)
    assert (bench.notes("a"), bench.notes("b")) == (["ran"], ["ran"])


async def test_result_waits_in_its_worker_until_the_server_is_back(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery asks once before it stores a result: of a body that ended while the server was away there was none."""
    monkeypatch.setattr(_celery_message, "SILENT_S", 60.0)  # a server may take long to start
    with own(VALKEY, "--appendonly", "yes") as server, worker(server.port, QJ_TEST_CELERY_BODIES=TELLING):
        async with started(app_on(server.port), bench) as executor:
            _, track = await bench.begun(executor, "hold")
            await track.heard("began")
            server.stop()
            bench.let_go("go")
            await until(lambda: bench.notes("a") == ["began", "ended"])
            server.start()
            assert (await track.end()).result == "let go"


async def test_outcome_is_found_after_the_server_was_away(celery: Any, at_work: None, bench: ExecutorBench) -> None:
    """A result that came while the connections were cut is read after the reconnect."""
    async with started(celery, bench) as executor:
        _, track = await bench.begun(executor, "hold")
        await track.heard("began")
        await executor._ledger.results._client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        bench.let_go("go")
        assert (await track.end()).result == "let go"


async def test_listening_survives_an_error_that_nobody_expects(
    celery: Any, at_work: None, bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the client raises of a connection that is torn down, no job waits for ever."""
    async with started(celery, bench) as executor:
        results, looks = executor._ledger.results, []

        async def look() -> None:
            looks.append(1)
            raise RuntimeError("torn down")

        with monkeypatch.context() as patch:
            patch.setattr(results, "look", look)
            await results._client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: looks)
        await until(lambda: results._pubsub is not None)
        assert (await bench.run(executor, "double", 21)).result == 42


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # Celery's
def test_pulse_ends_with_its_body(celery: Any, valkey: OwnServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waited on for orders held a connection for seconds: a hundred quick bodies, and there was none left."""
    monkeypatch.setattr(_celery_pulse, "PULSE_S", 60.0)
    fence = _celery_pulse.Fence(celery.backend, "job-1.1")
    with _celery_pulse.Pulse(celery.backend, fence, "job-1.1") as pulse:
        pass
    pulse._thread.join(20.0)
    assert not pulse._thread.is_alive()
    celery.backend.client.connection_pool.disconnect()
