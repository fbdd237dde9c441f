"""A simulation: what an app's schedules would do in a week, told in seconds.

The very scheduler, planner, store and worker run on the virtual clock, and
copies of the flows; only the bodies are replaced, each by the time it is assumed
to take. So overlaps, queues, slots, gates, jitter and the nights when the clocks
change come out as they would in truth, as far as the assumptions hold."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from itertools import islice
from typing import Final

from quarterjack import planner
from quarterjack._durations import NS_PER_S, Seconds, parse_duration
from quarterjack.app import Quarterjack
from quarterjack.errors import UnknownTask, UsageError
from quarterjack.events import Event, EventStream, JobEvent, ScheduleEvent
from quarterjack.executors import CommandExecutor, ProcessExecutor, ThreadExecutor
from quarterjack.model import JobFilter, JobState, Schedule
from quarterjack.runtime.service import Service
from quarterjack.stores import MemoryStore
from quarterjack.triggers import ClockChange
from quarterjack.triggers.base import from_ns

from ._clock import DEFAULT_START, VirtualClock
from ._loop import virtual_loop
from ._simulated import Collision, ExecutorLoad, ScheduleLoad, Simulation, TooManyFires
from ._standin_flows import StandinFlows
from ._standins import StandinExecutor, Standins

__all__ = ["simulate"]

ASSUMED_S: Final = 1.0
"""How long a body is assumed to take if nobody says."""
MOST_FIRES: Final = 150_000
"""More are refused: they take a quarter of a minute on a small machine, at 0.1 ms each."""
_MINUTE_S: Final = 60
_FINE: Final = 32
"""How long can be played is told to one part in so many."""
_KEPT: Final = 20
"""So many kinds of collision are kept, the worst."""
_WAITS: Final = frozenset({JobState.SUBMITTED, JobState.SCHEDULED})


def simulate(
    app: Quarterjack,
    for_: Seconds | str = "7d",
    *,
    start: datetime | str = DEFAULT_START,
    assume: Seconds | str | Mapping[str, Seconds | str] = ASSUMED_S,
    most_fires: int = MOST_FIRES,
) -> Simulation:
    """Play the schedules that an app declares on a virtual clock, and tell how they get on with each other.

    No code of the app's is run but its triggers' and that of its own gates and orders:
    each body is replaced by the time it is assumed to take (a timeout ends it, nothing
    fails, so no breaker opens and nothing is tried again). The app itself is not touched; it
    starts anew, on a memory store, and so do its flows. It runs a loop of its own: where one
    runs already, call it by ``asyncio.to_thread``.

    Args:
        app: The app; its slots and queues are those it was given.
        for_: How long, as a duration: ``"7d"``, seconds, a timedelta.
        start: When it begins: an aware datetime, or ISO 8601 with an offset.
        assume: How long bodies take: one duration for all, or one for each task by
            name, with ``"*"`` for all others; 1 second where nothing is said.
        most_fires: How many fire times are played at most.

    Raises:
        TooManyFires: If the schedules fire more often than *most_fires*.
        UnknownTask: If *assume* names a task that the app does not have.
        InvalidOption: If a duration or *start* is none.
        UsageError: If an event loop is running in this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise UsageError("simulate runs a loop of its own; here write `await asyncio.to_thread(simulate, app, …)`")
    tasks, declared, *_ = app._collect()
    assumed = _assumed(assume, tasks)
    clock = VirtualClock(start)
    start_ns = clock.now_ns()
    end_ns = start_ns + round(parse_duration(for_, "for_") * NS_PER_S)
    flows = StandinFlows(clock)
    standins = Standins(tasks, assumed.__getitem__, flows)
    play = _Play(clock, start_ns, end_ns)
    rows = [standins.row(row) for row in declared if play.admits(row)]
    play.check(rows, assumed, most_fires)
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:  # virtual time is for this one
        runner.run(play.run(app, standins, rows))
    play.unplayed = flows.unplayed
    used = {row.payload.task for row in declared}
    return play.result(standins, {task: seconds for task, seconds in assumed.items() if task in used})


def _assumed(assume: Seconds | str | Mapping[str, Seconds | str], tasks: Mapping[str, object]) -> dict[str, float]:
    """Return how long the body of each task takes.

    Raises:
        UnknownTask: If a task is named that does not exist.
    """
    named = assume if isinstance(assume, Mapping) else {"*": assume}
    for name in named:
        if name != "*" and name not in tasks:
            near = get_close_matches(name, tasks, 1)
            raise UnknownTask(f"no task {name!r} in this app" + (f"; did you mean {near[0]!r}?" if near else ""))
    others = named.get("*", ASSUMED_S)
    return {task: parse_duration(named.get(task, others), f"assume of {task!r}") for task in tasks}


class _Play:
    """One simulation: what is known before it, what happens in it, what came of it."""

    def __init__(self, clock: VirtualClock, start_ns: int, end_ns: int) -> None:
        self._clock, self._start_ns, self._end_ns = clock, start_ns, end_ns
        self._planned: dict[str, Schedule] = {}
        self._parked: dict[str, str] = {}
        self.unplayed: Mapping[str, str] = {}
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._waits: dict[str, float] = defaultdict(float)
        self._busy: dict[str, float] = defaultdict(float)
        self._starts: dict[int, list[str]] = defaultdict(list)
        """For each second the schedules that started in it."""

    # -- before ----------------------------------------------------------------------

    def admits(self, row: Schedule) -> bool:
        """Say whether a schedule can be played; one whose trigger raises is noted as parked."""
        try:
            self._planned[row.id] = planner.upserted(None, row, self._start_ns)
        except Exception as error:  # a user's trigger runs here; the app would park its schedule and no other
            self._parked[row.id] = f"{type(error).__name__}: {error}"
            return False
        return True

    def check(self, rows: Sequence[Schedule], assumed: Mapping[str, float], most: int) -> None:
        """Refuse what would take too long to play.

        Raises:
            TooManyFires: If there are more fire times than *most*.
        """
        whole = self._end_ns - self._start_ns

        def fires_in(span: int) -> dict[str, int]:
            end = self._start_ns + span
            return {
                row.id: self._fires(self._planned[row.id], assumed[row.payload.task], end, most + 1) for row in rows
            }

        fits, span = 0, min(_MINUTE_S * NS_PER_S, whole)
        while sum((found := fires_in(span)).values()) <= most:  # in growing spans: some triggers count one by one
            if span == whole:
                return
            fits, span = span, min(2 * span, whole)
        while span - fits > max(fits // _FINE, NS_PER_S):
            middle = (fits + span) // 2
            fits, span = (middle, span) if sum(fires_in(middle).values()) <= most else (fits, middle)
        raise TooManyFires(most, max(found, key=found.__getitem__), fits / NS_PER_S)

    def _fires(self, row: Schedule, body_s: float, until: int, most: int) -> int:
        bound = row.timing.start_ns
        start = self._start_ns if bound is None or bound <= self._start_ns else bound - 1
        end = min(until, row.timing.end_ns or until)
        pause_ns = row.trigger.after_finish_ns
        if pause_ns is not None:
            found = max(0, end - start) // max(1, pause_ns + round(body_s * NS_PER_S))
        else:
            try:
                found = row.trigger.count_ns(start, end, most) if start < end else 0
            except Exception:  # a user's trigger runs here; it is parked when it raises in the simulation as well
                found = 0
        return found if row.payload.max_runs is None else min(found, row.payload.max_runs)

    # -- meanwhile -------------------------------------------------------------------

    async def run(self, app: Quarterjack, standins: Standins, rows: Sequence[Schedule]) -> None:
        """Play from the start to the end."""
        events = EventStream()
        with virtual_loop(self._clock):
            store = MemoryStore()
            service = Service(
                store=store,
                clock=self._clock,
                events=events,
                tasks=standins.tasks,
                preparer=standins,
                role="both",
                queues=app.queues,
                concurrency=app.concurrency,
                version=None,
                lease_s=app.lease_s,
                on_fatal=self._fail,
                on_stop=lambda: None,
                declared=rows,
                flow_by_queue=standins.flows.by_queue(app._flow_by_queue),
            )
            own: dict[str, StandinExecutor] = {
                "loop": standins.own("loop", app.concurrency),
                "thread": standins.own("thread", ThreadExecutor().slots),
            }
            named = {task.options.executor for task in standins.tasks.values()}
            for name, slots in (("process", ProcessExecutor().slots), ("command", CommandExecutor().slots)):
                if name in named:
                    own[name] = standins.own(name, slots)
            service.places.own = {**own}
            service.places.executors = set(standins.executors.values())
            end = events.listen(self._heard)
            try:
                await service.open()
                await service.start()
                await self._clock.run_until(self._end_ns)
                await self._stop(service, store)
            finally:
                end()
                await service.close()

    async def _stop(self, service: Service, store: MemoryStore) -> None:
        """End what goes on, without counting it."""
        for job in (await store.jobs_list(JobFilter(states=_WAITS), limit=10**9)).jobs:
            if job.origin is not None:
                schedule_id = job.origin.schedule_id
                self._counts[schedule_id]["waiting"] += 1
                waited_s = (self._end_ns - job.run_at_ns) / NS_PER_S
                self._waits[schedule_id] = max(self._waits[schedule_id], waited_s)
        service.events = EventStream()
        self._is_over = True
        await service.drain(0)
        left = (await store.jobs_list(JobFilter(states=frozenset({JobState.SUBMITTED})), limit=10**9)).jobs
        await store.jobs_request_cancel([job.id for job in left])
        await service.end_work(0)

    _is_over = False

    def _fail(self, error: BaseException) -> None:
        raise error

    def _heard(self, event: Event) -> None:
        if self._is_over:
            return
        if isinstance(event, ScheduleEvent):
            if event.kind in {"skipped", "missed"}:
                self._counts[event.schedule_id][event.kind] += event.count
            elif event.kind == "parked":
                self._parked[event.schedule_id] = event.reason or ""
        elif isinstance(event, JobEvent) and event.schedule_id is not None:
            schedule_id = event.schedule_id
            self._counts[schedule_id][event.kind] += 1
            if event.kind == "running":
                self._starts[event.at_ns // NS_PER_S].append(schedule_id)
            if event.kind == "running" and event.lag_s:
                self._waits[schedule_id] = max(self._waits[schedule_id], event.lag_s)
            if event.duration_s is not None:
                self._busy[schedule_id] += event.duration_s

    # -- afterwards ------------------------------------------------------------------

    def result(self, standins: Standins, assumed: Mapping[str, float]) -> Simulation:
        """Return what came of it."""
        start, end = from_ns(self._start_ns), from_ns(self._end_ns)
        ids = sorted({*self._planned, *self._parked})
        return Simulation(
            start=start,
            end=end,
            assumed=assumed,
            schedules=tuple(self._load(one) for one in ids),
            executors=tuple(
                ExecutorLoad(
                    name=one.name, slots=one.slots, peak=one.peak, peak_at=from_ns(one.peak_at_ns) if one.peak else None
                )
                for one in standins.executors.values()
            ),
            collisions=self._collisions(),
            busiest=self._busiest(),
            clock_changes=tuple(self._changes(start, end)),
            parked=dict(self._parked),
            unplayed=dict(self.unplayed),
        )

    def _load(self, schedule_id: str) -> ScheduleLoad:
        counts = self._counts[schedule_id]
        return ScheduleLoad(
            id=schedule_id,
            runs=counts["running"],
            skipped=counts["skipped"],
            missed=counts["missed"],
            cancelled=counts["cancelled"],
            refused=counts["failed"] + counts["timed_out"],  # no body fails
            waiting=counts["waiting"],
            longest_wait_s=round(self._waits[schedule_id], 6),
            busy_s=round(self._busy[schedule_id], 6),
        )

    def _collisions(self) -> tuple[Collision, ...]:
        found: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for second, ids in sorted(self._starts.items()):
            if len(ids) > 1:
                found[tuple(sorted(ids))].append(second)
        worst = sorted(found.items(), key=lambda item: (-len(item[0]), -len(item[1]), item[1][0]))
        return tuple(
            Collision(
                at=from_ns(seconds[0] * NS_PER_S),
                starts=len(ids),
                schedules=tuple(dict.fromkeys(ids)),
                seconds=len(seconds),
            )
            for ids, seconds in islice(worst, _KEPT)
        )

    def _busiest(self) -> tuple[tuple[datetime, int], ...]:
        minutes: Counter[int] = Counter()
        for second, ids in self._starts.items():
            minutes[second // _MINUTE_S] += len(ids)
        worst = sorted(minutes.items(), key=lambda item: (-item[1], item[0]))
        return tuple((from_ns(minute * _MINUTE_S * NS_PER_S), starts) for minute, starts in worst[:_KEPT])

    def _changes(self, start: datetime, end: datetime) -> list[tuple[str, ClockChange]]:
        found: list[tuple[str, ClockChange]] = []
        for schedule_id, row in self._planned.items():
            with suppress(Exception):  # a user's trigger runs here; that it raises is told with what is parked
                found += [(schedule_id, one) for one in row.trigger.clock_changes(after=start, until=end)]
        return sorted(found, key=lambda pair: (pair[1].at.timestamp(), pair[0]))
