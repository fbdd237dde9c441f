"""Loops that wait for a period, or for what is left of it: what everybody writes first."""

from __future__ import annotations

import threading
import time

from ._case import Case
from ._catalog import way

__all__ = ["event_wait", "sleep_loop", "sleep_rest", "timer_chain"]


@way("sleep-loop", "time.sleep(T)", "interval", "runs the body, then sleeps for a whole period")
def sleep_loop(case: Case) -> None:
    """Run, sleep, run."""
    case.go()
    case.wait_for_origin()
    while True:
        case.run_body()
        time.sleep(case.period_s)


@way("sleep-rest", "time.sleep(T - elapsed)", "interval", "sleeps for what the body has left of the period")
def sleep_rest(case: Case) -> None:
    """Sleep for the rest, which forgets what sleeping too long and going round have cost."""
    case.go()
    case.wait_for_origin()
    while True:
        began = time.monotonic()
        case.run_body()
        time.sleep(max(0.0, case.period_s - (time.monotonic() - began)))


@way("event-wait", "threading.Event.wait(T)", "interval", "a thread that waits for its stop event, a period each time")
def event_wait(case: Case) -> None:
    """Wait for an event that never comes, so that the loop could be stopped at once."""
    stopped = threading.Event()

    def repeat() -> None:
        case.run_body()
        while not stopped.wait(case.period_s):
            case.run_body()

    case.go()
    case.wait_for_origin()
    thread = threading.Thread(target=repeat)
    thread.start()
    thread.join()


@way("timer-chain", "threading.Timer chain", "interval", "each timer starts the next one, then runs the body")
def timer_chain(case: Case) -> None:
    """Set the next timer first, so that the body does not hold it up."""

    def turn() -> None:
        timer = threading.Timer(case.period_s, turn)
        timer.start()
        case.run_body()

    case.go()
    case.wait_for_origin()
    turn()
    threading.Event().wait()
