"""An interruption reaches the body it is meant for, and nothing else: rung by another thread, thousands of times."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from random import Random

import pytest

from quarterjack.executors._gate import DOORBELL, Gate, Interrupted

RACES = 10_000


class Box:
    """The frames that have come: how many cancels for the body that runs."""

    def __init__(self) -> None:
        self.cancels = 0

    def take(self) -> bool:
        found, self.cancels = self.cancels > 0, 0
        return found


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def gate(box: Box) -> Iterator[Gate]:
    assert DOORBELL is not None
    before = signal.getsignal(DOORBELL)
    made = Gate(box.take)
    made.install()
    yield made
    signal.signal(DOORBELL, before)


def ring() -> None:
    assert DOORBELL is not None
    os.kill(os.getpid(), DOORBELL)


def test_a_ring_without_a_cancel_disturbs_nobody(gate: Gate) -> None:
    """It may be late, and belong to a body that is over."""
    ring()
    gate.reset()

    def body() -> str:
        ring()
        return "done"

    assert gate.run(body) == "done"
    assert not gate.is_unwanted


def test_a_cancel_that_comes_before_the_body_begins_is_not_lost(gate: Gate, box: Box) -> None:
    """It came between the request and the first line."""
    gate.reset()
    box.cancels = 1
    ring()
    ran: list[int] = []
    with pytest.raises(Interrupted):
        gate.run(lambda: ran.append(1))
    assert ran == []
    assert gate.is_unwanted


def test_what_is_written_is_written_whole_and_the_body_interrupted_behind_it(gate: Gate, box: Box) -> None:
    """Half a frame would be the end of the conversation."""
    written: list[str] = []

    def body() -> None:
        with gate:
            box.cancels = 1
            ring()
            written.append("whole")
        written.append("never")

    gate.reset()
    with pytest.raises(Interrupted):
        gate.run(body)
    assert written == ["whole"]


def test_a_coroutine_is_cancelled_rather_than_raised_into(gate: Gate, box: Box) -> None:
    """Its loop's own code must not be interrupted."""

    async def body() -> None:
        box.cancels = 1
        ring()
        await asyncio.sleep(30)

    gate.reset()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(gate.run_async(body))


def test_rings_at_every_point_hit_bodies_alone(gate: Gate, box: Box) -> None:
    """Each body returns or is interrupted, once; no ring comes out anywhere else."""
    rng = Random(11)
    over = threading.Event()
    asked = threading.Semaphore(0)

    def ringer() -> None:
        while not over.is_set():
            asked.acquire()
            for _ in range(rng.randrange(200)):
                pass
            box.cancels = 1
            ring()

    thread = threading.Thread(target=ringer)
    thread.start()
    written = ends = interrupted = 0

    def body() -> int:
        nonlocal written
        total = 0
        for n in range(20):
            total += n
            with gate:
                written += 1
        return total

    try:
        for _ in range(RACES):
            box.cancels = 0  # as the app writes none for a body that is over
            gate.reset()
            asked.release()
            try:
                assert gate.run(body) == 190
            except Interrupted:
                interrupted += 1
            ends += 1
    finally:
        over.set()
        asked.release()
        thread.join()
    assert ends == RACES
    assert 0 < interrupted <= RACES
