"""The scheduler: turns due schedules into jobs, on time.

It knows what falls due soon, sleeps on the precise timer until the earliest,
asks the pure planner about everything due at once and hands the plans to the
store in one call, together with the worker's free slots, so that what fires is
leased on the way. It holds no truth: cursors live in the store, a lost plan
only means that another process was first.

Many schedules at one instant are fired in chunks, and the loop turns between
them, so the first bodies run while the last plans are made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from quarterjack import planner
from quarterjack.errors import StoreError
from quarterjack.events import EventStream, ScheduleEvent, ScheduleKind
from quarterjack.model import JobRecord, JobState, Schedule
from quarterjack.stores.base import Fired, Store

from .agenda import Agenda
from .claiming import POLL_S, SLACK_NS
from .worker import Worker

if TYPE_CHECKING:
    from contextvars import Context

    from quarterjack.clock import Clock
    from quarterjack.timer import Timer, TimerHandle

    from .declarations import Declarations
    from .handles import Handles
    from .outage import Outage
    from .store_time import StoreTime

__all__ = ["Scheduler", "SchedulerHost", "run_at_once"]

log = logging.getLogger("quarterjack.scheduler")

HORIZON_NS: Final = 60 * 1_000_000_000
"""On a shared store the scheduler reads this far ahead, twice as often."""
NEAR_NS: Final = 5 * 1_000_000_000 // 2
"""Every second or so (`POLL_S`) it looks for what falls due this soon: a change is known in time without a hint."""
FEW: Final = 8
"""So many changed schedules are read one by one; of more, the whole horizon is read anew."""
DOING: Final = "looking at schedules"
ANSWER_S: Final = 10.0
"""A stop waits so long for the answer to a fire, should a store have no deadline of its own."""
EVER_NS: Final = 2**62
CHUNK: Final = 32
"""Fewest schedules fired in one store call when more are due."""


class SchedulerHost(Protocol):
    """What the scheduler needs of the app around it."""

    @property
    def store(self) -> Store: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def timer(self) -> Timer: ...
    @property
    def events(self) -> EventStream: ...
    @property
    def handles(self) -> Handles: ...
    @property
    def outage(self) -> Outage: ...
    @property
    def time(self) -> StoreTime: ...
    @property
    def context(self) -> Context: ...
    @property
    def declarations(self) -> Declarations: ...
    def on_fired(self, records: Sequence[JobRecord]) -> None: ...
    def fatal(self, error: BaseException) -> None: ...


class _Chunk(NamedTuple):
    """Schedules that are due together, and what is to be done about them."""

    now_ns: int
    rows: list[Schedule]
    plans: list[planner.Plan]
    resume: list[Schedule]
    broken: list[tuple[Schedule, Exception]]


class Scheduler:
    """Fires the schedules of one app."""

    def __init__(self, host: SchedulerHost, worker: Worker | None) -> None:
        self._host = host
        self._store = host.store
        self._time = host.time
        self._rng = Random()  # noqa: S311  # spreads the looks, guards nothing
        self._events = host.events
        self._worker = worker
        self._agenda = Agenda()
        self._ahead: _Chunk | None = None
        self._changed: set[str] = set()
        self._reload = True
        self._is_over = False
        self._wake = asyncio.Event()
        self._alarm: TimerHandle | None = None
        self._looks = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._task: asyncio.Task[None] | None = None
        self._under_way: asyncio.Future[None] | None = None
        """Done once the fire that is under way is answered and what it leased has been taken."""

    # -- life ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to fire."""
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name="quarterjack-scheduler", context=self._host.context.copy()
        )
        self._task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if self._task is None:
            return
        error = RuntimeError(f"somebody cancelled {task.get_name()}") if task.cancelled() else task.exception()
        if error is not None:
            self._host.fatal(error)

    def stop_firing(self) -> None:
        """Fire nothing more; a flag only, for a signal's handler. `stop` follows."""
        self._is_over = True

    def hold(self, *, is_held: bool) -> None:
        """Fire nothing while it is held."""
        self._is_over = is_held
        self._reload = True
        self._wake.set()

    @property
    def is_firing(self) -> bool:
        """True while the store has not answered a fire: it may have leased jobs to this process."""
        return self._under_way is not None

    async def stop(self, hurried: asyncio.Event) -> None:
        """Fire nothing more; a fire that is under way comes to its end, so that the worker hears what it leased.

        Unless the stop is hurried before that.
        """
        self._is_over = True
        self._disarm()
        for timer in self._timers.values():
            timer.cancel()
        task, self._task = self._task, None
        if task is not None:
            try:
                if self._under_way is not None:
                    await _first(self._under_way, hurried, ANSWER_S)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    @property
    def next_due_ns(self) -> int | None:
        """When the next schedule is due, as far as this process knows."""
        return self._agenda.next_ns

    def on_change(self, schedule_ids: Sequence[str]) -> None:
        """Rows changed (none named: any may have)."""
        if schedule_ids:
            self._changed.update(schedule_ids)
        else:
            self._reload = True
        self._wake.set()

    def wake(self) -> None:
        """Look at the clock again."""
        self._wake.set()

    # -- the loop --------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._refresh()
                fired = await self._fire_due()
            except StoreError as error:
                await asyncio.sleep(self._failed(error))
                continue
            self._host.outage.worked(DOING)
            if fired:
                await asyncio.sleep(0)  # the bodies that were just leased begin now
                continue
            self._arm()
            await self._wake.wait()

    def _failed(self, error: StoreError) -> float:
        """The store failed: know nothing, and return how long to wait before the next look."""
        self._reload = True
        self._disarm()
        return self._host.outage.failed(DOING, error)

    async def _refresh(self) -> None:
        if self._reload:
            self._reload = False
            self._changed.clear()
            self._agenda.clear()
            horizon = HORIZON_NS if self._store.is_shared else EVER_NS
            for row in await self._store.schedules_due(horizon, limit=1_000_000):
                self._know(row.id, row)
            self._ahead = None
            self._again("reload", HORIZON_NS / 2e9)
            self._again("look", POLL_S)
        elif self._looks:
            for row in await self._store.schedules_due(NEAR_NS):
                self._know_if_new(row)
            self._again("look", POLL_S)
        self._looks = False
        while self._changed:
            schedule_id = self._changed.pop()
            try:
                changed = await self._store.schedules_get(schedule_id)
            except StoreError:
                self._changed.add(schedule_id)
                raise
            self._know(schedule_id, changed)
        if self._worker is not None:
            self._worker.claimer.keep_for_ticks(self._agenda.lanes)

    def _again(self, what: str, after_s: float) -> None:
        """Look again after a while, where other processes may change what is stored."""
        if not self._store.is_shared or self._is_over:
            return
        if what in self._timers:
            self._timers[what].cancel()
        spread_s = after_s * self._rng.uniform(0.8, 1.2)
        self._timers[what] = asyncio.get_running_loop().call_later(spread_s, self._look_again, what)

    def _look_again(self, what: str) -> None:
        if what == "reload":
            self._reload = True
        else:
            self._looks = True
        self._wake.set()

    def _know_if_new(self, row: Schedule) -> None:
        known = self._agenda.get(row.id)
        if known is None or _stand(known) != _stand(row):
            self._know(row.id, row)

    def _know(self, schedule_id: str, row: Schedule | None) -> None:
        if row is None:
            self._agenda.forget(schedule_id)
        elif (why := self._host.declarations.why_not_fired(row)) is None:
            self._agenda.put(row)
        else:
            self._host.declarations.note(row)
            if self._agenda.forget(schedule_id):
                log.info("this process fires schedule %s no more: %s", schedule_id, why)

    def _arm(self) -> None:
        next_ns = self.next_due_ns
        due = None if next_ns is None else self._time.local_ns(next_ns)
        if self._alarm is not None:
            if due is not None and abs(self._alarm.due_ns - due) <= (0 if self._time.is_local else SLACK_NS):
                return
            self._disarm()
        if due is not None and not self._is_over:
            self._alarm = self._host.timer.call_at(due, self._on_alarm, self._plan_ahead)

    def _on_alarm(self) -> None:
        """Something is due. Where the store answers at once, fire here: a task would be a turn later (80 µs)."""
        self._alarm = None
        try:
            if self._is_over:
                return
            if self._store.never_suspends and not self._reload and not self._changed:
                run_at_once(self._fire_due())
        except StoreError as error:
            self._failed(error)
        except Exception as error:  # nothing of ours should raise here; if it does, it must not stop in silence
            self._host.fatal(error)
        finally:
            self._wake.set()  # the bodies begin before the scheduler's task looks again and arms the timer

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    # -- firing ----------------------------------------------------------------------

    async def _fire_due(self) -> bool:
        """Fire one chunk of what is due; say whether there was any."""
        if self._is_over:
            return False
        chunk = self._take_ahead() or self._plan_due(self._time.now_ns())
        for row in chunk.resume:
            await self._resume(row)
        if chunk.plans:
            self._under_way = answered = asyncio.get_running_loop().create_future()
            try:
                await self._fire(chunk.plans)
            finally:
                self._under_way = None
                answered.set_result(None)
        for row, error in chunk.broken:  # after the run that was due
            await self._park(row, error)
        return bool(chunk.rows)

    def _plan_due(self, now: int) -> _Chunk:
        """Plan what is due at *now*; touches nothing but this process's own heap."""
        chunk = _Chunk(now, self._agenda.take(now, CHUNK), [], [], [])
        for row in chunk.rows:
            if row.paused_at_ns is not None:
                chunk.resume.append(row)
                continue
            try:
                plan = planner.plan(row, now)
            except Exception as error:  # a user's trigger runs here; it parks its own schedule and no other
                chunk.broken.append((row, error))
                last = planner.last_plan(row)
                if last is not None:
                    chunk.plans.append(last)
                continue
            if plan is None:
                self._know(row.id, row)
            else:
                chunk.plans.append(plan)
        return chunk

    def _plan_ahead(self) -> None:
        """Plan what falls due in a moment; the timer calls this just before it does."""
        due = self.next_due_ns
        if self._ahead is None and due is not None:
            self._ahead = self._plan_due(due)

    def _take_ahead(self) -> _Chunk | None:
        """Return what was planned ahead, if its moment has come; else forget the plans, not the schedules."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.now_ns <= self._time.now_ns():
            return ahead
        self._changed.update(row.id for row in ahead.rows)  # read anew: the clock was set, and they with it
        self._wake.set()
        return None

    async def _fire(self, plans: list[planner.Plan]) -> None:
        wanted = sum([len(plan.nominals) for plan in plans])  # several of one schedule where it catches up
        asked_ns = self._host.clock.monotonic_ns()
        fired = await self._ask_to_fire(plans, wanted)
        lost = [plan.schedule_id for plan, after in zip(plans, fired.schedules, strict=True) if after is None]
        for after in fired.schedules:
            if after is not None:
                self._agenda.put(after)
        if lost and fired.wait_ns:  # our clock is ahead of the store's: look again when it says so
            self._time.was_early(fired.wait_ns)
            asyncio.get_running_loop().call_later(fired.wait_ns / 1e9, self.on_change, lost)
        elif len(lost) > FEW and self._store.is_shared:  # another process was first
            self._reload = True
        else:
            self._changed.update(lost)
        if self._events.has_listeners:
            self._announce(fired)  # first: whoever listens hears of the cause before its effect
        self._host.on_fired(fired.rows)
        if self._worker is not None:
            self._worker.begin(fired.jobs, asked_ns)
            self._worker.cancel_local([job.id for job in fired.cancelled])

    async def _ask_to_fire(self, plans: list[planner.Plan], wanted: int) -> Fired:
        """Have the store fire, and lease up to *wanted* of the jobs to this process's worker."""
        claimer = None if self._worker is None else self._worker.claimer
        claim = None if claimer is None else claimer.free_for_ticks(wanted)
        if claimer is None or claim is None:
            return await self._store.schedules_fire(plans)
        try:
            with claimer.unanswered:
                return await self._store.schedules_fire(plans, claim)
        finally:
            if claimer.unanswered.is_owed:
                claimer.wake.set()

    async def _resume(self, row: Schedule) -> None:
        """The pause was set to end by itself."""
        try:
            resumed = await self._store.schedules_resume(row.id, catch_up=False)
        except StoreError:
            raise
        except Exception as error:  # a user's trigger runs here; it parks its own schedule and no other
            await self._park(row, error)
            return
        self._know(row.id, resumed)
        self.tell("resumed", row, reason="its pause ended")

    async def _park(self, row: Schedule, error: Exception) -> None:
        reason = planner.parked(row, error).parked_reason or "its trigger raised"
        log.error("schedule %s is parked: %s", row.id, reason, exc_info=error, extra={"schedule": row.id})
        await self._store.schedules_park(row.id, reason)
        self._agenda.forget(row.id)
        self.tell("parked", row, reason=reason)

    # -- telling ---------------------------------------------------------------------

    def _announce(self, fired: Fired) -> None:
        for job in fired.rows:
            self._announce_row(job)

    def _announce_row(self, job: JobRecord) -> None:
        origin = job.origin
        if origin is None:
            return
        kind = _KINDS.get(job.state, "fired")
        self._events.send(
            ScheduleEvent(
                at_ns=job.submitted_at_ns or 0,
                kind=kind,
                schedule_id=origin.schedule_id,
                task=job.task,
                nominal_ns=origin.nominal_ns,
                count=origin.missed_count if job.state is JobState.MISSED else 1,
                reason=job.reason,
            )
        )

    def tell(self, kind: ScheduleKind, row: Schedule, *, reason: str | None = None, count: int = 1) -> None:
        """Tell the event stream what became of a schedule."""
        if self._events.has_listeners:
            now, task = self._time.now_ns(), row.payload.task
            self._events.send(
                ScheduleEvent(at_ns=now, kind=kind, schedule_id=row.id, task=task, reason=reason, count=count)
            )


def _stand(row: Schedule) -> tuple[int, int, int, int | None]:
    """Return what tells a row that has changed from the one that is known."""
    return row.generation, row.revision, row.cursor_ns, row.wake_ns


async def _first(future: asyncio.Future[None], hurried: asyncio.Event, most_s: float) -> None:
    """Wait until *future* is done or *hurried* is set, *most_s* seconds at most."""
    hurry = asyncio.ensure_future(hurried.wait())
    try:
        either: set[asyncio.Future[Any]] = {future, hurry}
        await asyncio.wait(either, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hurry.cancel()


def run_at_once(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine that never suspends, from a callback.

    Raises:
        RuntimeError: If it does suspend.
    """
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("a store that says it never suspends did")


_KINDS: Final[dict[JobState, ScheduleKind]] = {JobState.SKIPPED: "skipped", JobState.MISSED: "missed"}
