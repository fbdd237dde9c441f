"""What a Celery worker's process says of one body and hears for it, with results that are away or slow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from redis.exceptions import ConnectionError as AwayError
from redis.exceptions import ResponseError

from quarterjack.executors import _celery_pulse
from quarterjack.executors._celery_pulse import Fence, Pulse
from tests.real_time import LONG_S, wait_until


class Results:
    """A result backend that keeps what is stored, unless it stands still or is away."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, dict[str, Any]]] = []
        self.fails = 0
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.asked = 0
        self.client = self

    def store_result(self, task_id: str, result: dict[str, Any], state: str) -> None:
        self.asked += 1
        assert self.goes_on.wait(LONG_S)
        if self.fails:
            self.fails -= 1
            raise AwayError(task_id)
        self.stored.append((state, result))

    def eval(self, *_: Any) -> int:
        self.asked += 1
        if self.fails:
            self.fails -= 1
            raise AwayError
        return 1


class Orders:
    """A fence without a server: orders are given by hand."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.is_over = threading.Event()

    def pulse(self) -> bool:
        return True

    def was_told_to_stop(self, within_s: float) -> bool:
        del within_s
        while not self.is_over.is_set():
            if self.stop.wait(0.001):
                return True
        return False

    def end(self) -> None:
        self.is_over.set()


@pytest.fixture
def results() -> Results:
    return Results()


@pytest.fixture
def orders() -> Orders:
    return Orders()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tried again soon what failed."""
    monkeypatch.setattr(_celery_pulse, "PULSE_S", 0.01)


@pytest.fixture
def pulse(results: Results, orders: Orders) -> Iterator[Pulse]:
    """Return a body's pulse, and see its threads end."""
    made: Any = orders
    pulse = Pulse(results, made, "job-1.1")
    yield pulse
    results.goes_on.set()
    for thread in (pulse._thread, pulse._teller):
        if thread is not None:
            thread.join(LONG_S)
            assert not thread.is_alive()


def test_body_that_tells_its_progress_does_not_wait_for_results_that_stand_still(
    results: Results, orders: Orders, pulse: Pulse
) -> None:
    """Celery tries for twenty seconds to store one: so long each word of the body took, and no cancel reached it."""

    def say() -> None:
        for n in range(4):
            pulse.progress(n, 3, "")

    with pulse:
        results.goes_on.clear()
        body = threading.Thread(target=say, daemon=True)
        body.start()
        wait_until(lambda: results.asked == 2)  # its start, and the first word
        body.join(LONG_S)
        assert not body.is_alive()
        orders.stop.set()
        wait_until(lambda: pulse.is_unwanted)
        results.goes_on.set()
    assert results.stored[-1][1]["progress"] == [3, 3, ""]


def test_nothing_is_stored_over_the_end(results: Results, pulse: Pulse) -> None:
    """Celery stores the outcome next: a word that came later would hide it from everybody."""
    with pulse:
        pulse.progress(1, 2, "")
        wait_until(lambda: len(results.stored) == 2)
        pulse.keep("half")
    so_far = list(results.stored)
    assert so_far[-1][1]["kept"] == ["half"]
    pulse.progress(2, 2, "")  # a thread that the body left behind
    assert results.stored == so_far
    assert [state for state, _ in so_far] == ["STARTED", "PROGRESS", "PROGRESS"]


def test_the_end_waits_for_a_word_that_is_on_its_way(results: Results, pulse: Pulse) -> None:
    """It would arrive after the outcome, and hide that."""
    pulse.__enter__()
    results.goes_on.clear()
    pulse.progress(1, 2, "")
    wait_until(lambda: results.asked == 2)
    end = threading.Thread(target=pulse.__exit__, daemon=True)
    end.start()
    end.join(0.05)  # a moment in which it might go wrong; nothing else depends on how long it is
    assert end.is_alive()
    results.goes_on.set()
    end.join(LONG_S)
    assert [state for state, _ in results.stored] == ["STARTED", "PROGRESS"]


def test_start_that_could_not_be_stored_is_stored_later(results: Results, pulse: Pulse) -> None:
    """Else the body would count as waiting all the while it runs."""
    results.fails = 2
    with pulse:
        wait_until(lambda: results.stored)
    assert results.stored[0][1].keys() == {"pid", "host"}


def test_body_waits_for_results_that_are_away_when_it_is_to_begin(results: Results) -> None:
    """It did not run: that a server was restarted is no failure of its job."""
    results.fails = 3
    assert Fence(results, "job-1.1").may_begin()
    results.fails = 10**6
    with pytest.raises(AwayError):
        Fence(results, "job-1.1").may_begin()


def test_results_that_refuse_the_question_are_not_asked_again(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights that are missing do not come by waiting."""

    def refuse(*_: Any) -> int:
        results.asked += 1
        raise ResponseError("NOPERM")

    monkeypatch.setattr(results, "eval", refuse)
    with pytest.raises(ResponseError):
        Fence(results, "job-1.1").may_begin()
    assert results.asked == 1
