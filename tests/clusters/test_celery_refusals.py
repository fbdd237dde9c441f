"""What `CeleryExecutor` says and does without a worker: what it cannot use, and how it reaches what it can."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("celery")

from celery import Celery

from quarterjack import InvalidOption, JobMissed, Quarterjack, UsageError
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.executors import _celery_client, _celery_message
from quarterjack.executors import celery as executors
from quarterjack.executors._celery_results import Results
from quarterjack.executors.celery import CeleryExecutor, CeleryTask
from quarterjack.model import OutcomeKind
from quarterjack.testing import _contract_bodies
from quarterjack.testing._executor_bench import TestCall, Track
from quarterjack.testing.executor_contract import ExecutorBench
from tests.real_time import LONG_S, until

pytestmark = pytest.mark.slow  # what one Python shows is enough
NOWHERE = "redis://127.0.0.1:1/0"
"""Nobody listens there."""


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "must be in one Redis or Valkey"),
        ({"backend": "cache+memory://"}, "must be in one Redis or Valkey"),
        ({"backend": "sentinel://localhost:26379/0"}, "must be in one Redis or Valkey"),
        ({"backend": NOWHERE, "result_serializer": "pickle"}, r"written as 'pickle'; .* result_serializer=\"json\""),
    ],
)
def test_results_that_cannot_be_listened_for_are_refused(options: dict[str, str], why: str) -> None:
    """Nobody would ever hear of an end."""
    backend = options.pop("backend", None)
    celery: Any = Celery("x", broker="memory://", backend=backend)
    celery.conf.update(options)
    with pytest.raises(InvalidOption, match=why):
        CeleryExecutor(celery)


def test_what_is_no_celery_app_is_refused() -> None:
    """Other executors take an address, so this one is given one as well; and two arguments are soon swapped."""
    celery: Any = Celery("x", broker="memory://", backend=NOWHERE)
    with pytest.raises(InvalidOption, match=f"a Celery app is wanted, .* got '{NOWHERE}'"):
        CeleryExecutor(NOWHERE)
    with pytest.raises(InvalidOption, match="takes the name of a task of theirs, and their Celery app; got <Celery x"):
        CeleryTask(celery, "shop.add")


def test_without_the_extra_the_line_that_installs_it_is_named() -> None:
    """All else works without it."""
    program = (
        "import sys; sys.modules['celery'] = None\n"
        "import quarterjack, quarterjack.executors\n"
        "try: import quarterjack.executors.celery\n"
        "except quarterjack.MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=30, capture_output=True, text=True)
    assert "pip install 'quarterjack[celery]'" in done.stdout


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("redis://ada:secret@host:7/3", "Connection", {"host": "host", "port": 7, "db": 3, "password": "secret"}),
        ("rediss://host?ssl_cert_reqs=none&ssl_ca_certs=/ca.pem", "SSLConnection", {"ssl_ca_certs": "/ca.pem"}),
        ("redis+socket:///run/valkey.sock?virtual_host=2", "UnixDomainSocketConnection", {"path": "/run/valkey.sock"}),
    ],
)
async def test_results_are_reached_as_celery_reaches_them(url: str, kind: str, says: dict[str, Any]) -> None:
    """Through TLS, a socket's file, with its credentials: what the user's app says, and nothing less."""
    celery: Any = Celery("x", broker="memory://", backend=url)
    pool = Results(celery, lambda *_: None, lambda *_: None)._client.connection_pool
    assert pool.connection_class.__name__ == kind
    assert says.items() <= pool.connection_kwargs.items()
    made = pool.make_connection()  # it takes all that it is given
    assert made.socket_timeout == pool.connection_kwargs["socket_timeout"]


async def test_one_executor_serves_one_app(bench: ExecutorBench) -> None:
    """The first app's stop would end it under the other's jobs."""
    executor = CeleryExecutor(Celery("away", broker=NOWHERE, backend=NOWHERE))
    await executor.start(bench.home())
    try:
        with pytest.raises(UsageError, match="in use by an app"):
            await executor.start(bench.home())
    finally:
        await executor.stop(0)


async def test_executors_of_one_celery_app_share_the_thread_that_speaks_to_its_broker(bench: ExecutorBench) -> None:
    """Whoever puts fifty of their tasks on our schedules needs no fifty threads and connections for it."""
    celery: Any = Celery("away", broker=NOWHERE, backend=NOWHERE)
    first, second = CeleryTask("theirs.add", celery), CeleryTask("theirs.fail", celery)
    for executor in (first, second):
        await executor.start(bench.home())
    thread = first._client._thread
    assert second._client is first._client
    await first.stop(0)
    assert thread.is_alive()
    await first.start(bench.home())
    assert first._client is second._client
    for executor in (first, second):
        await executor.stop(0)
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()


async def test_messages_go_the_way_that_the_app_of_the_user_says(bench: ExecutorBench) -> None:
    """RabbitMQ refuses whoever declares a queue in another way than it was made."""
    celery: Any = Celery("away", broker=NOWHERE, backend=NOWHERE)
    celery.conf.update(task_default_queue="high", task_queue_max_priority=9, task_create_missing_queue_type="quorum")
    executor = CeleryExecutor(celery)
    await executor.start(bench.home())
    try:
        ours = executor._client._celery
        for name in ("high", "another"):
            declared = [app.amqp.queues[name].as_dict(recurse=True) for app in (ours, celery)]
            assert declared[0] == declared[1]
        assert ours.amqp.queues["high"].queue_arguments["x-max-priority"] == 9
    finally:
        await executor.stop(0)


def test_what_an_app_left_that_ended_without_stopping_it_is_let_go(bench: ExecutorBench) -> None:
    """Each loop that came to such an end kept a thread, its connection and itself."""
    executor = CeleryExecutor(Celery("away", broker=NOWHERE, backend=NOWHERE), slots=1)

    async def leave() -> threading.Thread:
        await executor.start(bench.home())
        bench.begin(executor, "double", 1)
        return executor._client._thread

    async def begin_again() -> None:
        await executor.start(bench.home())
        assert {chore.get_loop() for chore in executor._chores.tasks} == {asyncio.get_running_loop()}
        await executor.stop(0)

    loop = asyncio.new_event_loop()
    thread = loop.run_until_complete(leave())
    loop.close()
    asyncio.run(begin_again())
    thread.join(LONG_S)
    assert not thread.is_alive()


async def test_broker_that_does_not_answer_is_told_and_asked_again(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A network that swallows everything held up all messages for as long as the system waits, and nobody knew why."""
    monkeypatch.setattr(_celery_client, "SILENT_S", 0.05)
    writers: list[asyncio.StreamWriter] = []

    async def listen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        executor = CeleryTask("theirs.add", Celery("mute", broker=f"redis://127.0.0.1:{port}/0", backend=NOWHERE))
        await executor.start(bench.home())
        try:
            _, track = bench.begin(executor, "double", 1)
            await until(lambda: "could not be handed over" in caplog.text)
        finally:
            await executor.stop(0.1)
        assert (await track.end()).kind is OutcomeKind.CANCELLED
        await asyncio.to_thread(executor._client._thread.join, LONG_S)
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_results_are_read_as_celery_writes_them(compression: str | None) -> None:
    """Compressed, if its app says so; with the types that Celery's JSON knows."""
    celery: Any = Celery("x", broker="memory://", backend=NOWHERE)
    celery.conf.result_compression = compression
    heard: list[Any] = []
    results = Results(celery, lambda ref, meta: heard.append((ref, dict(meta))), lambda *_: None)
    await results.watch("job-1.1")
    when = datetime(2026, 2, 3, tzinfo=UTC)
    results._tell(results._key_of("job-1.1"), celery.backend.encode({"status": "SUCCESS", "result": when}))
    assert heard == [("job-1.1", {"status": "SUCCESS", "result": when})]


@pytest.mark.parametrize("kind", ["ours", "theirs"])
async def test_message_that_was_cancelled_before_it_could_be_sent_is_never_sent(
    kind: str, bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker is away; when it is back, what nobody wants any more is not to run, and keeps no slot meanwhile."""
    monkeypatch.setattr(executors, "HAND_OVER_S", (0.01, 0.01))
    celery: Any = Celery("away", broker=NOWHERE, backend=NOWHERE)
    executor = CeleryExecutor(celery, slots=1) if kind == "ours" else CeleryTask("theirs.add", celery, slots=1)
    await executor.start(bench.home())
    try:
        tries: list[str] = []
        is_cancelled = asyncio.Event()

        async def away(*_: Any, **__: Any) -> None:
            tries.append("a try")
            if len(tries) == 2:
                await is_cancelled.wait()
            raise ConnectionError("it is away")

        monkeypatch.setattr(executor._client, "publish", away)
        monkeypatch.setattr(executor._client, "revoke", away)
        monkeypatch.setattr(executor._ledger.results, "want", away)
        handle, track = bench.begin(executor, "double", 1)
        await until(lambda: len(tries) >= 2)
        handle.cancel("not wanted")
        is_cancelled.set()
        assert (await track.end()).kind is OutcomeKind.CANCELLED
        assert executor.free == 1
        so_far = len(tries)
        # Nobody tries any more; one looks on for all.
        await until(lambda: len(executor._chores.tasks) == (kind == "ours"))
        assert len(tries) - so_far <= 1, "a revoke, at most"
        track.check()
    finally:
        await executor.stop(1)


@pytest.mark.parametrize("kind", ["ours", "theirs"])
async def test_job_that_waits_for_servers_that_are_away_is_missed_at_its_deadline(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It waited for the end of the outage; and the log said that what was never sent could not be withdrawn."""
    celery: Any = Celery("away", broker=NOWHERE, backend=NOWHERE)
    app = Quarterjack()
    executor = CeleryExecutor(celery) if kind == "ours" else CeleryTask("theirs.add", celery)
    double = app.task(executor=executor, start_deadline=0.5)(_contract_bodies.double.__wrapped__)
    async with app:
        with pytest.raises(JobMissed, match="had not been handed to Celery by its start deadline"):
            await (await app.submit(double, 1))
    assert "withdrawn" not in caplog.text


@pytest.mark.parametrize("queue", [5, ["heavy"], b"heavy", True, ""])
def test_queue_that_is_no_name_is_refused_where_it_is_written(queue: Any) -> None:
    """It was taken for an outage, which never ended."""
    celery: Any = Celery("x", broker="memory://", backend=NOWHERE)
    with pytest.raises(InvalidOption, match='queue must be a text such as "heavy"'):
        CeleryTask("theirs.add", celery, queue=queue)


async def test_job_for_a_queue_that_celery_refuses_fails_with_its_words(bench: ExecutorBench) -> None:
    """An app whose queues are all declared has a typo in one: no outage, and nothing that another try could mend."""
    celery: Any = Celery("x", broker="memory://", backend=NOWHERE)
    celery.conf.task_create_missing_queues = False
    executor = CeleryTask("theirs.add", celery, queue="hevay", slots=1)
    await executor.start(bench.home())
    try:
        outcome = await bench.run(executor, "double", 1)
        assert (outcome.kind, executor.free, executor.trouble) == (OutcomeKind.REJECTED, 1, None)
        assert "hevay" in (outcome.reason or "")
    finally:
        await executor.stop(0)


@asynccontextmanager
async def answer_is_lost(bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Any, list[str]]]:
    """Run an executor for a task of theirs whose broker takes messages, and never says so; and what is done there."""
    monkeypatch.setattr(executors, "HAND_OVER_S", (0.01, 0.01))
    executor, done = CeleryTask("theirs.add", Celery("x", broker="memory://", backend=NOWHERE), slots=1), list[str]()

    def send_task(*_: Any, **__: Any) -> None:
        done.append("sent")
        raise TimeoutError("no answer")

    async def revoke(ref: str, signal: str) -> None:
        done.append(f"revoked by {signal}")

    await executor.start(bench.home())
    try:
        monkeypatch.setattr(executor._client._celery, "send_task", send_task)
        monkeypatch.setattr(executor._client, "revoke", revoke)
        yield executor, done
    finally:
        await executor.stop(0)


async def test_task_of_theirs_whose_broker_did_not_answer_is_revoked(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker may have it: the job was told as stopped, and the task ran all the same."""
    monkeypatch.setattr(_celery_message, "KILL_S", 0.01)
    async with answer_is_lost(bench, monkeypatch) as (executor, done):
        handle, track = bench.begin(executor, "double", 1, cancel_grace_s=0.01)
        await until(lambda: "sent" in done)
        handle.cancel("not wanted")
        outcome = await track.end()
        assert (outcome.kind, outcome.stopped) == (OutcomeKind.CANCELLED, False)
        assert "revoked by SIGTERM" in done
        await track.heard("ended")
        assert executor.free == 1


async def test_task_of_theirs_that_perhaps_was_sent_is_not_sent_past_its_deadline(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whether it has begun, so its lease decides; one more message could only come too late."""
    async with answer_is_lost(bench, monkeypatch) as (executor, done):
        call = TestCall("double", (1,), {}, track := Track())
        call.deadline_ns = SYSTEM_CLOCK.now_ns() + 10**12
        executor.submit(call, track)
        await until(lambda: "sent" in done)
        call.deadline_ns = SYSTEM_CLOCK.now_ns()
        assert (await track.end()).kind is OutcomeKind.LOST
        so_far = done.copy()
        await until(lambda: not executor._chores.tasks)  # nobody tries any more
        assert (done, executor.free) == (so_far, 1)


async def test_message_to_a_task_of_theirs_expires_when_nobody_waits_for_it_any_more(bench: ExecutorBench) -> None:
    """A worker that was not there when it was revoked would run it days later."""
    celery: Any = Celery("away", broker=NOWHERE, backend=NOWHERE)
    executor = CeleryTask("theirs.add", celery)
    await executor.start(bench.home())
    try:
        before = datetime.now(UTC)
        call = TestCall("double", (1,), {"timeout_s": 60.0}, Track())
        expires = executor._limits(call)["expires"]
        assert before + timedelta(seconds=60) <= expires <= datetime.now(UTC) + timedelta(seconds=60)
        call.deadline_ns = 10**18
        assert executor._limits(call)["expires"] == datetime.fromtimestamp(10**9, UTC)
        assert "expires" not in executor._limits(TestCall("double", (1,), {}, Track()))
    finally:
        await executor.stop(0)


async def test_stop_answers_what_was_not_handed_over_yet(bench: ExecutorBench) -> None:
    """The broker is away, and the app ends: no job may wait for ever."""
    celery: Any = Celery("away", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/1")
    executor = CeleryExecutor(celery, slots=1)
    await executor.start(bench.home())
    _, track = bench.begin(executor, "double", 1)
    await asyncio.sleep(0)
    await executor.stop(0.2)
    assert (await track.end()).kind is OutcomeKind.CANCELLED
