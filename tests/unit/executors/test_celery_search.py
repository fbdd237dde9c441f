"""Messages that are nowhere any more, while the broker comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from quarterjack.executors._celery_search import ASKED_MOST, LOOK_S, PATIENCE, Search
from quarterjack.testing import VirtualClock, virtual_loop

ASKED_S = LOOK_S * PATIENCE
"""When a message that is lost is asked for first."""
DAY_S = 86_400.0


class Waiting:
    """A message that the broker was given."""

    def __init__(self, ref: str) -> None:
        self.ref = ref
        self.is_waiting = True


class Broker:
    """One that has lost all messages; it is away until an instant, wholly or for what is sent alone."""

    def __init__(self, clock: VirtualClock, count: int, *, deaf_s: float = 0.0, full_s: float = 0.0) -> None:
        self._clock, self._began_s = clock, clock.monotonic()
        self._deaf_s, self._full_s = deaf_s, full_s
        self.messages: list[Any] = [Waiting(f"job-{n}.1") for n in range(count)]
        self.asked: list[float] = []
        self.sent_at_s: dict[str, float] = {}

    @property
    def now_s(self) -> float:
        """Seconds since it was made."""
        return self._clock.monotonic() - self._began_s

    async def missing(self, refs: list[str]) -> set[str]:
        self.asked.append(self.now_s)
        if self.now_s < self._deaf_s:
            raise ConnectionError("it is away")
        return set(refs)

    async def send(self, message: Any) -> None:
        if self.now_s < self._full_s and message.ref == "job-0.1":
            raise ConnectionError("it takes nothing")
        self.sent_at_s[message.ref] = self.now_s
        message.is_waiting = False

    async def live(self) -> None:
        """Have them searched for, for a day."""
        search = asyncio.create_task(Search(lambda: self.messages, self.missing, self.send).run())
        await asyncio.sleep(DAY_S)
        search.cancel()


@pytest.fixture
async def clock() -> AsyncIterator[VirtualClock]:
    """Let the test's time be virtual."""
    with virtual_loop() as clock:
        yield clock


async def test_outage_costs_no_patience(clock: VirtualClock) -> None:
    """The bug: what an outage had lost was sent again half an hour after it: a failed look counted as an answer."""
    broker = Broker(clock, 1, deaf_s=600.0)
    await broker.live()
    assert broker.sent_at_s == {"job-0.1": pytest.approx(600.0, abs=LOOK_S)}


async def test_message_that_could_not_be_sent_holds_up_no_other_and_is_sent_at_a_next_look(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The bug: one failure dropped all that were found missing with it, and the log said that they were sent."""
    broker = Broker(clock, 3, full_s=ASKED_S + 1)
    await broker.live()
    assert broker.sent_at_s["job-1.1"] == broker.sent_at_s["job-2.1"] == pytest.approx(ASKED_S)
    assert broker.sent_at_s["job-0.1"] == pytest.approx(ASKED_S + LOOK_S)
    said = [record.getMessage() for record in caplog.records if "job-0.1" in record.getMessage()]
    assert [words.rpartition(", and ")[2] for words in said] == [
        "could not be sent again yet: it takes nothing",
        "was sent again",
    ]


async def test_those_who_wait_longest_are_asked_for_first(clock: VirtualClock) -> None:
    """Workers answer with whole messages, so few are asked for at once; one that cannot be sent must starve nobody."""
    count = 3 * ASKED_MOST
    broker = Broker(clock, count, full_s=DAY_S)
    await broker.live()
    assert set(broker.sent_at_s) == {message.ref for message in broker.messages[1:]}
    assert max(broker.sent_at_s.values()) <= ASKED_S + 3 * LOOK_S


async def test_message_that_is_there_is_asked_for_ever_more_seldom(clock: VirtualClock) -> None:
    """It may wait for its turn for hours."""
    broker = Broker(clock, 1)
    asked: list[float] = []

    async def found(refs: list[str]) -> set[str]:
        asked.append(broker.now_s)
        return set()

    broker.missing = found  # type: ignore[method-assign]
    await broker.live()
    assert asked == [pytest.approx(ASKED_S * (2**n - 1)) for n in range(1, len(asked) + 1)]
    assert (len(asked), broker.sent_at_s) == (10, {})
