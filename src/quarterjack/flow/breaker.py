"""`CircuitBreaker`: leaves a service alone that does not answer.

                     too many failures
          ┌───────────────────────────────────┐
          │                                   ▼
       closed ◀── all probes worked ── half-open ◀── the time is over,    open
                                          │          and the health check  ▲
                                          │          (if any) says so      │
                                          └────────── a probe failed ──────┘

and *isolated*, by hand, until `reset`. Each move begins a new epoch, and what
began in an older one says nothing any more: a call that was sent before the
service broke cannot close the breaker, nor one that hung all the while open it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Literal

from quarterjack._durations import Seconds
from quarterjack._numbers import shown
from quarterjack._signatures import check_plain
from quarterjack.errors import CircuitOpen, InvalidOption

from ._breaker_settings import CHANGEABLE, BreakerSettings, OnOpen
from ._counts import Counts, judge_of
from ._health import Check, HealthCheck
from ._keys import By
from ._options import changed
from ._tally import CallTally, Tally, TimeTally
from .alarms import Alarm
from .base import Gate
from .outcome import Ended
from .waiting import Waiting

__all__ = ["CircuitBreaker", "CircuitState"]

log = logging.getLogger("quarterjack.flow")

CircuitState = Literal["closed", "open", "half_open", "isolated"]


class CircuitBreaker(Gate):
    """Stops calls to a service that fails, and lets a few through now and then to see whether it is well again.

    Use it for whatever is down as a whole when it is down: an API, a database, a
    host. Not for failures that come from the arguments: those are answers, see
    *counts*. And not instead of a timeout: a call that never returns is never
    counted, so set ``Timeout`` beside it, or *slow_call* if late answers are useless.

    A job that is turned away ends with `CircuitOpen` and is not retried. O(1) time
    per job; ten counters, or as many as *window_calls*, and one entry per job inside.

    Args:
        failure_ratio: Share of failures that opens it, above 0 and at most 1.
        min_calls: Calls that must be remembered before it opens, 1 or more.
        window: Seconds for which calls are remembered, to a tenth.
        window_calls: Remember the last so many calls instead, however old; of a key that nobody
            used for a day they are forgotten.
        slow_call: Seconds from which a call counts as failed though it returned.
        open_for: Seconds for which it stays open the first time; twice as long each
            time that a probe or a health check fails in a row.
        max_open_for: What that grows to; ten times *open_for* by default.
        jitter: Each opening lasts up to this share longer, 0 to 1, so that many
            processes do not come back at once.
        probes: Calls that are let through half-open, at once and in all; when so
            many have worked it closes, and the first that fails opens it.
        probe_timeout: Seconds that a probe or a health check may take; then it has
            failed, though the job goes on. None waits for ever.
        health_check: A coroutine function, asked when an opening is over: half-open only
            if it returns anything but False. It may raise, hang or ignore its
            cancellation: it has failed then, and nothing waits for it.
        on_open: ``"fail"`` turns jobs away with `CircuitOpen`, ``"hold"`` lets them wait.
        counts: Which exceptions count as failures (timeouts do, cancellations never),
            or a function of how a call ended that returns True (failed), False (worked)
            or None (says nothing).
        on_change: Called with the breaker, its state before and after; what it raises is logged.
        by: A breaker for each key, such as ``by="host"``.
        name: What it is called in `why_waiting`, `stats` and errors.

    Raises:
        InvalidOption: Naming the option, the value and the range.

    Source:
        M. Nygard, *Release It!*, 2007; M. Fowler, "CircuitBreaker", 2014. Epochs and
        permits for half-open calls as in Failsafe and resilience4j.
    """

    def __init__(
        self,
        *,
        failure_ratio: float = 0.5,
        min_calls: int = 10,
        window: Seconds = 60.0,
        window_calls: int | None = None,
        slow_call: Seconds | None = None,
        open_for: Seconds = 30.0,
        max_open_for: Seconds | None = None,
        jitter: float = 0.1,
        probes: int = 1,
        probe_timeout: Seconds | None = 60.0,
        health_check: Check | None = None,
        on_open: OnOpen = "fail",
        counts: Counts = (Exception,),
        on_change: Callable[[CircuitBreaker, CircuitState, CircuitState], object] | None = None,
        by: By | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(by=by, name=name)
        self._settings = BreakerSettings(
            failure_ratio=failure_ratio,
            min_calls=min_calls,
            window=window,
            window_calls=window_calls,
            slow_call=slow_call,
            open_for=open_for,
            max_open_for=max_open_for,
            jitter=jitter,
            probes=probes,
            probe_timeout=probe_timeout,
            on_open=on_open,
        )
        self._judge = judge_of(counts)
        self._check = _callable(health_check, "health_check")
        self._on_change = _callable(on_change, "on_change")
        if on_change is not None:
            check_plain(on_change, "on_change")
        self._random = Random()  # noqa: S311  # spreads openings, guards nothing
        self._begin()

    def _begin(self) -> None:
        """Be closed, and remember nothing."""
        settings = self._settings
        self._state: CircuitState = "closed"
        self._epoch = 0
        self._tally: Tally = (
            TimeTally(float(settings.window))  # type: ignore[arg-type]  # seconds by now
            if settings.window_calls is None
            else CallTally(settings.window_calls)
        )
        self._passes: dict[Waiting, int] = {}
        """The epoch in which each job inside was admitted."""
        self._lates: dict[Waiting, Alarm] = {}
        """For the probes inside: when each has taken too long."""
        self._until = -math.inf
        """When the opening is over."""
        self._asks_health = False
        """A health check decides whether it is."""
        self._openings = 0
        """Openings since it was closed."""
        self._probing = 0
        self._worked = 0
        self._alarm: Alarm | None = None
        self._health = None if self._check is None else HealthCheck(self._check, self)
        self.recovered_at: float | None = None
        """When it last closed by itself: monotonic seconds."""

    @property
    def state(self) -> CircuitState:
        """``"closed"``, ``"open"``, ``"half_open"`` or ``"isolated"``.

        Without a health check an opening that is over goes on until somebody comes to be the probe.
        """
        return self._state

    # -- as a gate -------------------------------------------------------------------

    def eta(self, job: Waiting, now: float) -> float:
        state = self._state
        if state == "closed":
            return now
        if state == "open" and self._until <= now and not self._asks_health:
            return now
        if state == "half_open" and self._probing + self._worked < self._settings.probes:
            return now
        is_timed = state == "open" and self._until > now
        if self._settings.on_open == "hold":
            return self._until if is_timed and not self._asks_health else math.inf
        raise CircuitOpen(self.label, self._until - now if is_timed else None, state)

    def why_closed(self, job: Waiting) -> str:
        if self._state == "isolated":
            return "is isolated, and lets nobody through until it is reset"
        if self._state == "half_open":
            return "is half open, and waits for what its probes end with"
        return "is open, and waits for its health check"

    def take(self, job: Waiting, now: float) -> None:
        if self._state == "open":
            self._move("half_open")
        self._passes[job] = self._epoch
        if self._state == "half_open":
            self._probing += 1
            limit_s = self._settings.probe_s
            alarm = None if limit_s is None else self._call_at(now + limit_s, partial(self._on_late, job, self._epoch))
            if alarm is not None:
                self._lates[job] = alarm

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        if self._lates and (alarm := self._lates.pop(job, None)) is not None:
            alarm.cancel()
        if self._passes.pop(job, None) != self._epoch:
            return  # the state it was admitted in is over
        failed = self._verdict(job, now, ended)
        if self._state == "half_open":
            self._probing -= 1
            if failed is not None:
                self._on_probed(now, failed)
        elif failed is not None:
            self._tally.add(now, failed)
            if failed:
                self._look(now)

    def _verdict(self, job: Waiting, now: float, ended: Ended) -> bool | None:
        failed = self._judge(ended)
        slow_s = self._settings.slow_s
        if failed is False and slow_s is not None and job.started_at is not None:
            return now - job.started_at >= slow_s
        return failed

    def _look(self, now: float) -> None:
        """Open if too many have failed."""
        tally, settings = self._tally, self._settings
        if tally.calls >= settings.min_calls and tally.ratio >= settings.failure_ratio:
            self._open(now)

    def _on_probed(self, now: float, failed: bool) -> None:
        if failed:
            self._open(now)
            return
        self._worked += 1
        if self._worked >= self._settings.probes:
            self._openings = 0
            self.recovered_at = now
            self._move("closed")

    def _on_late(self, job: Waiting, epoch: int) -> None:
        """A probe has taken too long: it counts as failed, and whatever it ends with does not."""
        if epoch == self._epoch and self._passes.get(job) == epoch:
            self._open(self.clock.monotonic())

    # -- moves -----------------------------------------------------------------------

    def _move(self, state: CircuitState) -> None:
        before, self._state = self._state, state
        self._epoch += 1
        self._probing = self._worked = 0
        self._tally.clear()
        for alarm in self._lates.values():
            alarm.cancel()
        self._lates.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._health is not None:
            self._health.cancel()
        if state != before:
            self._tell(before, state)
        self.wake()

    def _tell(self, before: CircuitState, after: CircuitState) -> None:
        log.log(logging.INFO if after == "closed" else logging.WARNING, "%s is %s, was %s", self.label, after, before)
        if self._on_change is not None:
            try:
                self._on_change(self, before, after)
            except Exception:  # the user's callback: the breaker has moved all the same
                log.exception("%s: on_change raised", self.label)

    def _open(self, now: float) -> None:
        self._openings += 1
        lasts_s = self._settings.open_s(self._openings) * (1.0 + self._settings.jitter * self._random.random())
        self._until = now + lasts_s
        self._asks_health = self._health is not None
        self._move("open")
        if self._asks_health and self._state == "open":
            self._alarm = self._call_at(self._until, partial(self._ask_health, self._epoch))

    def _ask_health(self, epoch: int) -> None:
        """The opening is over: is the service well?"""
        dispatcher = self._dispatcher
        if epoch == self._epoch and self._health is not None and dispatcher is not None:
            self._health.ask(dispatcher, self._settings.probe_s, partial(self._on_health, epoch))

    def _on_health(self, epoch: int, is_well: bool) -> None:
        if epoch != self._epoch:
            return
        if is_well:
            self._move("half_open")
        else:
            self._open(self.clock.monotonic())

    # -- by hand ---------------------------------------------------------------------

    def isolate(self) -> None:
        """Let nothing through until `reset`, of any key: for maintenance, or when you know better."""
        for breaker in self._breakers():
            breaker._move("isolated")

    def reset(self) -> None:
        """Close, and forget what failed, of every key; it opens at its first *open_for* again."""
        for breaker in self._breakers():
            breaker._openings = 0
            breaker._move("closed")

    def _breakers(self) -> list[CircuitBreaker]:
        return [gate for gate in self._all() if isinstance(gate, CircuitBreaker)]

    # -- views and settings ----------------------------------------------------------

    def health(self, now: float) -> float:
        """Return how well the service is, above 0 to 1: what a router weighs it by."""
        if self._state != "closed":
            return 1.0
        self._tally.trim(now)
        doubt = self._settings.min_calls  # few calls say little
        return 1.0 - self._tally.failures / (self._tally.calls + doubt)

    def is_idle(self, now: float) -> bool:
        return self._state == "closed" and not self._passes and not self._tally.matters(now)

    def forget(self) -> None:
        is_isolated = self._state == "isolated"
        self._begin()
        if is_isolated:
            self._state = "isolated"

    def fresh(self) -> CircuitBreaker:
        gate = self._bare()  # not a deep one: a health check may be the method of a client
        gate.forget()
        return gate

    def stats(self) -> dict[str, Any]:
        now = self.clock.monotonic()
        self._tally.trim(now)
        return {
            "state": self._state,
            "calls": self._tally.calls,
            "failures": self._tally.failures,
            "inside": len(self._passes),
            "openings": self._openings,
            "retry_in_s": self._until - now if self._state == "open" and self._until > now else None,
        }

    def _check_changes(self, changes: Mapping[str, Any]) -> None:
        changed(self, changes, CHANGEABLE)
        replace(self._settings, **changes)

    def _change(self, changes: Mapping[str, Any]) -> None:
        self._settings = replace(self._settings, **changes)


def _callable(function: Any, field: str) -> Any:
    if function is not None and not callable(function):
        raise InvalidOption(f"{field} must be a function, got {shown(function)}")
    return function
