"""Commands in trouble: bodies that do not say what to run, and ends that nobody hears of."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from quarterjack._timerfd import PORTABLE
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import BodyDied
from quarterjack.executors import CommandExecutor, Home, command
from quarterjack.executors._away import Away
from quarterjack.executors._leash import fasten_group
from quarterjack.model import OutcomeKind
from quarterjack.testing._executor_bench import ENOUGH_S, until
from tests.unit.executors.kit import FakeCall, Listener, all_free

SHORT_S = 0.02


@asynccontextmanager
async def started() -> AsyncGenerator[CommandExecutor, None]:
    executor = CommandExecutor(1)
    await executor.start(Home(SYSTEM_CLOCK))
    try:
        yield executor
    finally:
        await executor.stop(SHORT_S)


def deaf(let_go: asyncio.Event, words: list[str]) -> Callable[[], Any]:
    """Return a body that says *words* once it is let go, and does not hear that it is to stop."""

    async def body() -> list[str]:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                pass  # it was told
        return words

    return body


async def begun(executor: CommandExecutor, body: Callable[[], Any], **limits: Any) -> tuple[Away, Listener]:
    """Submit a body, and have it begin."""
    listener = Listener()
    handle = executor.submit(FakeCall(body, **limits), listener)
    await listener.has_begun.wait()
    return handle, listener


# -- a body that is to say what to run ----------------------------------------------------


async def hang() -> list[str]:
    """Wait for a secret that nobody sends."""
    await asyncio.Event().wait()
    return ["true"]


@pytest.mark.parametrize("way", ["timeout", "cancel"])
async def test_a_body_that_hangs_before_it_says_what_to_run_is_ended(way: str) -> None:
    """The bug: only the command had a timeout; its slot was taken for ever, and nobody saw that it had begun."""
    async with started() as executor:
        handle, listener = await begun(executor, hang, **({"timeout_s": SHORT_S} if way == "timeout" else {}))
        if way == "cancel":
            handle.cancel("not wanted")
        outcome = await listener.end()
        await all_free(executor)
    assert outcome.kind is (OutcomeKind.TIMED_OUT if way == "timeout" else OutcomeKind.CANCELLED)
    assert outcome.stopped
    listener.check()
    assert listener.log == ["began", "finished"]


async def test_a_body_that_does_not_hear_keeps_its_slot_and_what_it_says_is_not_run(tmp_path: Path) -> None:
    """A coroutine cannot be killed; a command that nobody wants any more must not be started late."""
    let_go = asyncio.Event()
    async with started() as executor:
        body = deaf(let_go, ["touch", str(tmp_path / "ran")])
        handle, listener = await begun(executor, body, cancel_grace_s=SHORT_S)
        handle.cancel("not wanted")
        outcome = await listener.end()
        assert (outcome.kind, outcome.stopped, executor.free) == (OutcomeKind.CANCELLED, False, 0)
        let_go.set()
        await listener.has_ended.wait()
        await all_free(executor)
    listener.check()
    assert not (tmp_path / "ran").exists()


async def test_a_stop_leaves_such_a_body_behind_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: no executor but those of threads said what it had left running."""
    monkeypatch.setattr(command, "UNKILLABLE_S", 10 * ENOUGH_S)  # so long a process may take, and nothing else
    let_go = asyncio.Event()
    async with asyncio.timeout(ENOUGH_S), started() as executor:
        _, listener = await begun(executor, deaf(let_go, ["true"]))
    assert listener.outcome is not None
    assert (listener.outcome.kind, listener.outcome.stopped) == (OutcomeKind.CANCELLED, False)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("job job-")
    assert line.endswith("may still run: the executor 'command' could not end it")
    let_go.set()
    await asyncio.sleep(0)


async def test_a_call_that_is_cancelled_before_its_body_is_asked_never_begins() -> None:
    """Nothing of it has run: it was withdrawn."""

    async def never() -> list[str]:
        raise AssertionError

    async with started() as executor:
        for body in (never, lambda: ["false"]):
            listener = Listener()
            executor.submit(FakeCall(body), listener).cancel("not wanted")
            assert (await listener.end()).reason == "not wanted"
            await asyncio.sleep(0)
            assert listener.log == ["finished"]


# -- how it ended -------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["leash", "portable"])
async def test_a_command_whose_exit_code_nobody_knows_has_died(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: where SIGCHLD is ignored, as some programs start others, its job waited for ever, or was DONE."""
    if way == "portable":
        monkeypatch.setenv(PORTABLE, "1")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with started() as executor:
            _, listener = await begun(executor, lambda: ["sh", "-c", "echo half of it; exit 3"])
            outcome = await asyncio.wait_for(listener.end(), ENOUGH_S)
            await all_free(executor)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert outcome.kind is OutcomeKind.DIED
    assert isinstance(outcome.error, BodyDied)
    assert "SIGCHLD is ignored" in str(outcome.error)
    assert outcome.info is not None
    assert outcome.info.traceback_text == "half of it\n"


def test_a_command_that_is_buried_before_it_is_leashed_needs_no_leash() -> None:
    """The bug: where SIGCHLD is ignored and the command was quick, its job failed with ProcessLookupError."""
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()
    read, write = os.pipe()
    try:
        fasten_group(read, process.pid)
    finally:
        os.close(read)
        os.close(write)


async def test_a_stop_between_a_commands_start_and_the_news_of_it_kills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked before its pid was known, it would get SIGTERM alone, and be left behind if it ignores that."""
    is_there, go_on, popen = threading.Event(), threading.Event(), command._popen

    def slowly(planned: Any) -> Any:
        found = popen(planned)
        is_there.set()
        go_on.wait(ENOUGH_S)
        return found

    monkeypatch.setattr(command, "_popen", slowly)
    executor, listener = CommandExecutor(1), Listener()
    await executor.start(Home(SYSTEM_CLOCK))
    ready = tmp_path / "ready"
    words = ["sh", "-c", f"trap '' TERM; touch {ready}; sleep 60 & wait; sleep 60"]
    executor.submit(FakeCall(lambda: words), listener)
    await until(lambda: is_there.is_set() and ready.exists())
    stop = asyncio.create_task(executor.stop(0))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, go_on.set)
    outcome = await listener.end()
    await stop
    assert (outcome.kind, outcome.stopped) == (OutcomeKind.CANCELLED, True)
    listener.check()
