"""Bodies that a cluster's process hands on to processes of its own."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterjack.executors import AppRef, _crew, _relay
from quarterjack.executors._relay import Relay
from quarterjack.executors._remote import Answer, outcome_of, request_of
from quarterjack.model import Outcome, OutcomeKind
from quarterjack.testing import _contract_bodies
from quarterjack.testing._executor_bench import ENOUGH_S, TestCall, Track, notes_in, until

pytestmark = pytest.mark.slow  # each case starts processes

APP = AppRef(_contract_bodies.__name__, None, "app")


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """Return one, and end it."""
    relay = Relay()
    yield relay
    await relay.close()


class Sent:
    """A call on its way through a relay."""

    def __init__(self, relay: Relay, task: str, *args: Any) -> None:
        self.call = TestCall(task, args, {}, Track())
        self.news: list[tuple[str, Any]] = []
        self._relay = relay

    async def run(self, *, refused: bytes | None = None, stop: str = "") -> Outcome:
        """Run it; *stop* comes while it is asked whether it may begin."""

        async def refusal() -> bytes | None:
            if stop:
                self._relay.stop(self.call.ref, stop)
            return refused

        def tell(kind: str, value: Any) -> None:
            self.news.append((kind, value))

        answer = await self._relay.run(APP, "client", request_of(self.call), tell, refusal, ENOUGH_S)
        return outcome_of(self.call, answer)


async def test_what_a_body_says_and_answers_comes_back(relay: Relay) -> None:
    """Through two processes, as if it were one."""
    sent = Sent(relay, "say", 1)
    assert (await sent.run()).result == "say 1"
    assert sent.news == [("began", None), ("progress", [1, 1, "part 1"])]
    error = (await Sent(relay, "fail", "mine").run()).error
    assert isinstance(error, ValueError)


async def test_refused_body_does_not_begin(relay: Relay, tmp_path: Path) -> None:
    """What refuses it is its answer."""
    sent = Sent(relay, "mark", str(tmp_path / "a"))
    assert (await sent.run(refused=Answer.lost("elsewhere"))).kind is OutcomeKind.LOST
    assert not (tmp_path / "a").exists()


async def test_stop_that_comes_before_the_beginning_is_kept(relay: Relay, tmp_path: Path) -> None:
    """It may come between the question and the process."""
    sent = Sent(relay, "hold", str(tmp_path / "a"), str(tmp_path / "go"))
    assert (await sent.run(stop="changed my mind")).kind is OutcomeKind.CANCELLED


async def test_cancelled_run_ends_its_body_first(relay: Relay, tmp_path: Path) -> None:
    """A cluster's process that closes takes its bodies with it, in good order."""
    run = asyncio.create_task(Sent(relay, "hold", str(tmp_path / "a"), str(tmp_path / "go")).run())
    await until(lambda: bool(notes_in(tmp_path / "a")))
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert notes_in(tmp_path / "a") == ["began", "interrupted"]


async def test_processes_end_when_nothing_was_to_do_for_a_while(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an app has left behind holds no memory of a cluster; the next body begins anew."""
    monkeypatch.setattr(_relay, "IDLE_S", 0.05)
    assert (await Sent(relay, "double", 1).run()).result == 2
    [pool] = relay._pools.values()
    await until(lambda: not pool._executor.pids)
    assert (await Sent(relay, "double", 2).run()).result == 4


async def test_processes_end_with_their_last_body_once_their_clients_have_left(relay: Relay, tmp_path: Path) -> None:
    """A program that is started each minute would leave a pool behind with each start."""
    run = asyncio.create_task(Sent(relay, "hold", str(tmp_path / "a"), str(tmp_path / "go")).run())
    await until(lambda: bool(notes_in(tmp_path / "a")))
    [pool] = relay._pools.values()
    relay.on_left("another")
    relay.on_left("client")
    (tmp_path / "go").touch()
    assert (await run).result == "let go"
    await until(lambda: not pool._executor.pids and not relay._pools)
    assert (await Sent(relay, "double", 2).run()).result == 4


async def test_run_that_is_cancelled_as_it_waits_for_its_pool_holds_it_no_longer(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask forgets a task in the moment in which its app's processes end: the next ones must end as well."""
    monkeypatch.setattr(_relay, "IDLE_S", 0.05)
    assert (await Sent(relay, "double", 1).run()).result == 2
    [pool] = relay._pools.values()
    async with pool._turn:  # it ends
        run = asyncio.create_task(Sent(relay, "double", 1).run())
        await until(lambda: pool._users == 1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    await until(lambda: not pool._executor.pids)


async def test_pool_that_is_over_takes_no_other_with_it(relay: Relay, tmp_path: Path) -> None:
    """Somebody came as it ended, and left at once: when it ended once more, the app's next pool was forgotten."""
    assert (await Sent(relay, "double", 1).run()).result == 2
    [pool] = relay._pools.values()
    async with pool._turn:
        relay.on_left("client")
        run = asyncio.create_task(Sent(relay, "double", 1).run())
        await until(lambda: pool._users == 1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    await until(lambda: not relay._pools)
    run = asyncio.create_task(Sent(relay, "hold", str(tmp_path / "a"), str(tmp_path / "go")).run())
    await until(lambda: bool(notes_in(tmp_path / "a")))
    [following] = relay._pools.values()
    await pool.close(if_idle=True)  # as its idle timer would have it
    assert list(relay._pools.values()) == [following]
    (tmp_path / "go").touch()
    assert (await run).result == "let go"


async def test_body_that_no_process_can_be_had_for_has_died(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has no room for a while: the retry policy decides, and the reason is the true one."""

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_crew, "Files", full)
    outcome = await Sent(relay, "double", 1).run()
    assert (outcome.kind, "No space left" in str(outcome.error)) == (OutcomeKind.DIED, True)


async def test_relay_that_has_ended_begins_nothing(relay: Relay) -> None:
    """A run may have asked whether it may begin while the Dask worker was closing."""
    await relay.close()
    assert (await Sent(relay, "double", 1).run()).kind is OutcomeKind.DIED
    assert not [pool for pool in relay._pools.values() if pool._executor.pids]
