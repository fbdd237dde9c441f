"""Random compositions at work: jobs and bare passes through three real strategies, and whatever disturbs them.

`played` runs a `Plan` on virtual time and returns what was found wrong: by the
models of the gates (`tests.flow.models`), in the order of jobs, in how each ended,
and in what is left when all is over."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from hypothesis import strategies as st

from quarterjack import (
    Flow,
    FlowRefused,
    InvalidOption,
    JobState,
    NotRunning,
    QueueFull,
    Retry,
    TaskManager,
    current_job,
)
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.room import Overflow
from quarterjack.testing import VirtualClock, virtual_loop

from .ledger import EPS, Case, Ledger, Run, Work
from .parts import Part, Pick, build, composed
from .virtual_uvloop import VirtualUvLoop

__all__ = ["CLINGS_S", "TURNS", "Action", "Plan", "Play", "planned", "plans", "played"]

CLINGS_S: Final = 0.03
"""How long a body lingers that does not want to be cancelled."""
CHECK_EVERY_S: Final = 0.05
OFF_GRID_S: Final = 0.00037
"""Everything a plan does falls on whole milliseconds, what is looked at in between does not."""
SLACK_S: Final = 0.0002
PATIENCE_S: Final = 200.0
"""Virtual seconds after which whoever waits has waited long enough for whatever is not closed for good."""
FAR_S: Final = 30 * 86_400.0
TURNS: Final = 8
"""Turns of the loop in which the end of a body is the end of its attempt, whatever stands around it."""


@dataclass(frozen=True)
class Action:
    """Something that happens so many turns of the loop after an instant, in milliseconds."""

    at: int
    what: Literal["stall", "update", "penalise", "isolate", "reset", "step"]
    which: int = 0
    pick: int = 0
    turns: int = 0


@dataclass(frozen=True)
class Plan:
    """A composition and what it goes through."""

    parts: tuple[Part, ...]
    works: tuple[Work, ...]
    actions: tuple[Action, ...] = ()
    is_eager: bool = True
    stop_at: int | None = None
    """When the manager is stopped."""
    drains: bool = False
    """It lets those end that are there."""
    max_queue: int | None = None
    overflow: Overflow = "reject"
    max_wait: int | None = None
    start: str = "2026-03-02T08:59:58Z"

    @property
    def kinds(self) -> set[str]:
        return {one.kind for one in self.parts}

    @property
    def all_let_in_begin(self) -> bool:
        """True if nobody is stopped between its admission and its body."""
        are_cancelled = any(work.cancel_after is not None for work in self.works)
        return not are_cancelled and self.stop_at is None and "deadline" not in self.kinds

    def option(self, kind: str, name: str) -> Any:
        """Return an option of its part of that kind, None without one."""
        return next((one.chosen[name] for one in self.parts if one.kind == kind), None)


def played(plan: Plan, kind: Callable[[Plan], Play] | None = None, *, on_uvloop: bool = False) -> list[str]:
    """Play *plan*, through a manager unless *kind* says otherwise; return what was found wrong."""
    with asyncio.Runner(loop_factory=VirtualUvLoop if on_uvloop else None) as runner:
        return runner.run((kind or Play)(plan).go()).faults


class Play:
    """One plan under way."""

    sees_room = True
    """Who waits in the bounded room is who waits by the ledger."""
    can_step = True
    """What goes by the wall clock are its gates alone."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tasks: set[asyncio.Task[None]] = set()
        self.turns = TURNS
        self.is_stopped = False
        self.stopped_at: float | None = None

    async def go(self) -> Ledger:
        loop = asyncio.get_running_loop()
        if not self.plan.is_eager:
            loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
        start = self.plan.start
        with loop.virtual(start) if isinstance(loop, VirtualUvLoop) else virtual_loop(start=start) as clock:
            await self._go(loop, clock)
        return self.ledger

    async def _go(self, loop: asyncio.AbstractEventLoop, clock: VirtualClock) -> None:
        self.prepare(loop, clock)
        async with TaskManager(self.flow, grace=5) as manager:
            self.manager = manager
            self.arrange(clock.monotonic())
            if self.plan.stop_at is not None:
                loop.call_later(self.plan.stop_at / 1000, self._stop)
            await self.see_it_through()
            self.is_stopped = True
            await manager.stop(drain=False)
            self.stopped_at = self.stopped_at or clock.monotonic()
            await self.end_tasks()
        await self.look_at_the_end()
        engine: Any = manager._jobs.engine
        if engine.unfinished or engine.room.size:
            self.ledger.fault(f"{len(engine.unfinished)} jobs are left, {engine.room.size} in the room")
        if engine.singles:
            self.ledger.fault("single flights are left")

    def prepare(self, loop: asyncio.AbstractEventLoop, clock: VirtualClock) -> None:
        """Build the flow, and open the ledger."""
        plan = self.plan
        self.loop, self.clock = loop, clock
        self.ledger = Ledger(clock, hedges="hedge" in plan.kinds)
        if plan.max_wait is not None:
            self.ledger.longest_s = plan.max_wait / 1000
        self.built = build(self.ledger, plan.parts, are_shares_exact=plan.all_let_in_begin)
        self.models = tuple(one.keyed for one in self.built if one.keyed is not None)
        self.flow = Flow(
            *(one.strategy for one in self.built),
            max_queue=plan.max_queue,
            overflow=plan.overflow,
            max_wait=None if plan.max_wait is None else plan.max_wait / 1000,
        )

    def arrange(self, began: float) -> None:
        """Have everything happen in its time."""
        self.began = began
        for work in self.plan.works:
            self.loop.call_at(began + work.comes / 1000, partial(self.come, work))
        for action in self.plan.actions:
            act = partial(self._act, action)
            self.loop.call_at(began + action.at / 1000, partial(_after_turns, self.loop, action.turns, act))

    async def end_tasks(self) -> None:
        """End who waits for ever."""
        tasks = tuple(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def look_at_the_end(self) -> None:
        """See how each ended, and what is left."""
        for one in self.built:
            one.by_hand("reset")  # an open breaker goes on asking how its service is
        await asyncio.sleep(1.5)  # windows and lags of adaptive limits end
        for case in self.ledger.cases:
            _check_end(self.plan, self.ledger, case)
        self._check_nothing_is_left()

    def _interrupt(self, task: asyncio.Task[None]) -> None:
        self.ledger.last_event = self.clock.monotonic()
        task.cancel()

    def spawn(self, call: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *call* beside the others, until the end at most."""
        task = self.loop.create_task(call)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    # -- what happens ------------------------------------------------------------------

    def come(self, work: Work) -> None:
        """Submit a job, or begin a bare pass."""
        if work.passes is not None:
            task = self.spawn(self._pass(work))
            if work.cancel_after is not None:
                self.loop.call_later(work.cancel_after / 1000, self._interrupt, task)
            return
        case = self.ledger.come(work, self.models, "manager")
        case.entered_first += work.delay / 1000
        if self.plan.overflow == "block":
            case.entered = math.inf
            self.spawn(self._submit_wait(case))
            return
        case.entered += work.delay / 1000
        try:
            submitter = self.manager.options(key={"tenant": work.tenant}, **self.options_of(work))
            job = submitter.submit(self.body, case)
        except Exception as error:  # which of them are right is looked at here
            self._has_not_come(case, error)
        else:
            self._has_come(case, job)

    async def _submit_wait(self, case: Case) -> None:
        work = case.work
        try:
            submitter = self.manager.options(key={"tenant": work.tenant}, **self.options_of(work))
            job = await submitter.submit_wait(self.body, case)
        except Exception as error:  # likewise
            self._has_not_come(case, error)
        except asyncio.CancelledError:
            case.is_over = True
            raise
        else:
            case.came = self.clock.monotonic()
            self.ledger.enter(case, case.due, case.due)
            self._has_come(case, job)

    def _has_not_come(self, case: Case, error: Exception) -> None:
        self.ledger.cases.remove(case)
        self.check_refusal(case.work, error)

    def _has_come(self, case: Case, job: Any) -> None:
        work, case.job = case.work, job
        if job.is_duplicate:
            self.ledger.cases.remove(case)
            if not any(other.key == case.key and not other.is_finished for other in self.ledger.cases if other.job):
                self.ledger.fault(f"{case!r} is a duplicate of nothing")
            return
        if "dedupe" in self.plan.kinds:
            twins = [other for other in self.ledger.cases if other.job and other.key == case.key and other is not case]
            if not all(other.is_finished for other in twins):
                self.ledger.fault(f"{case!r} runs beside its twin")
        if work.is_watched:
            for on in (job.on_done, job.on_error, job.on_cancel, job.on_timeout):
                on(partial(self.told, case))
        if work.cancel_after is not None:
            self.loop.call_later(work.cancel_after / 1000, partial(self._cancel, case))

    def options_of(self, work: Work) -> dict[str, Any]:
        """Return the options that managers and apps have in common."""
        options: dict[str, Any] = {"cost": work.cost}
        if (timeout_s := self.timeout_of(work)) is not None:
            options["timeout"] = timeout_s
        if work.priority is not None:
            options["priority"] = work.priority
        if work.delay:
            options["delay"] = work.delay / 1000
        return options

    @staticmethod
    def told(case: Case, job: Any) -> None:
        case.ends_told += 1

    def timeout_of(self, work: Work) -> float | None:
        if work.timeout is not None:
            return work.timeout / 1000
        is_bounded = self.plan.kinds & {"timeout", "deadline"} or work.cancel_after is not None
        return None if work.end != "hangs" or is_bounded else (work.lasts + 1) / 1000

    def check_refusal(self, work: Work, error: Exception) -> None:
        heavy = any(work.cost > keyed.capacity() for keyed in self.models)
        longer = "deadline" in self.plan.kinds and (self.timeout_of(work) or 0) > self.plan.option(
            "deadline", "seconds"
        )
        no_level = (work.priority or 0) >= (self.plan.option("priority", "levels") or 99)
        if isinstance(error, NotRunning) and self.is_stopped:
            return
        if isinstance(error, InvalidOption) and (heavy or longer or no_level):
            return
        now = self.clock.monotonic()
        waiting = sum(case.may_wait(now) for case in self.ledger.cases if case.job)
        most = self.plan.max_queue
        if isinstance(error, QueueFull) and most is not None and (waiting >= most or not self.sees_room):
            return
        self.ledger.fault(f"{work} was refused with {error!r}")

    def _cancel(self, case: Case) -> None:
        if not case.is_finished and case.cancelled_at is None:
            case.cancelled_at = self.clock.monotonic()
        self.ledger.last_event = self.clock.monotonic()
        self.manager._jobs.running().cancel(
            case.job._record
        )  # here and now: between its admission and its body, perhaps

    def _act(self, action: Action) -> None:
        self.ledger.last_event = self.clock.monotonic()
        built, now = self.built[action.which % len(self.built)], self.clock.monotonic()
        match action.what:
            case "stall":
                self.ledger.stall((1, 3, 30, 250)[action.pick % 4] / 1000)
            case "step":
                if self.can_step:
                    self.ledger.step((-3600, -2, 2, 3600)[action.pick % 4])
            case "update":
                built.update(action.pick, now)
            case "penalise":
                built.penalise(action.pick, now)
            case "isolate" | "reset":
                built.by_hand(action.what)

    def _stop(self) -> None:
        if self.is_stopped:
            return
        self.is_stopped = True
        if not self.plan.drains:
            self.stopped_at = self.clock.monotonic()
        self.spawn(self.manager.stop(drain=self.plan.drains))

    async def see_it_through(self) -> None:
        """Look at the ledger between events, until all has ended or is closed for good."""
        plan = self.plan
        last_ms = max([one.comes + one.delay for one in plan.works] + [one.at for one in plan.actions])
        until = self.clock.monotonic() + last_ms / 1000 + 0.3
        at = self.began + OFF_GRID_S
        has_days = any(one.kind == "fixed" and one.chosen["per"] == "day" for one in plan.parts)
        is_far = has_days or any(action.what == "step" for action in plan.actions)
        patience_s = FAR_S if is_far else PATIENCE_S
        step = CHECK_EVERY_S
        while at < until + patience_s:
            await asyncio.sleep(at - self.clock.monotonic())
            self.ledger.check(self.clock.monotonic(), SLACK_S)
            if at > until:
                step *= 1.5
                if self.is_over:
                    break
            at = round((self.clock.monotonic() + step) * 1000) / 1000 + OFF_GRID_S
        for case in self.ledger.left_waiting():
            self.ledger.fault(f"{case!r} waits for ever")

    @property
    def is_over(self) -> bool:
        """True if nobody waits or runs any more."""
        return all(case.is_finished for case in self.ledger.cases)

    # -- bodies ------------------------------------------------------------------------

    async def _pass(self, work: Work) -> None:
        number = work.passes or 0
        gates = [one for one in self.built if one.keyed is not None]
        chosen = gates if number < 0 or not gates else [gates[number % len(gates)]]
        owner: Any = self.flow if number < 0 or not gates else chosen[0].strategy
        models = tuple(one.keyed for one in chosen if one.keyed is not None)
        case = self.ledger.come(work, models, ("pass", id(owner)))
        if owner is self.flow and self.plan.overflow == "block":
            case.entered = math.inf  # when it finds room is not known
        run: Run | None = None
        try:
            async with owner.permit(cost=work.cost, tenant=work.tenant) as one:
                run = self.ledger.begin(case, 1, None if one.resource is None else one.resource.name)
                error: BaseException | None = None
                try:
                    await self._behave(case, run)
                except BaseException as caught:
                    error = caught
                    raise
                finally:
                    is_cancelled = isinstance(error, asyncio.CancelledError)
                    case.is_over = True
                    self.ledger.end(run, error, None if is_cancelled else error is not None)
        except (OSError, KeyError, FlowRefused, InvalidOption):
            pass
        finally:
            case.is_over = True

    async def body(self, case: Case) -> Any:
        me = current_job()
        resource: Any = me.resource
        run = self.ledger.begin(case, me.attempt, None if resource is None else resource.name)
        error: BaseException | None = None
        try:
            return await self._behave(case, run)
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._note_end(case, run, error)

    async def _behave(self, case: Case, run: Run) -> str:
        work = case.work
        ends_so = work.end if run.attempt <= work.fails else "returns"
        if ends_so == "hangs" and work.passes is not None:
            ends_so = "returns"
        try:
            if ends_so == "hangs":
                await asyncio.sleep(3600)
            elif work.lasts:
                await asyncio.sleep(work.lasts / 1000)
        except asyncio.CancelledError:
            self._note_interruption(case, run)
            if ends_so == "clings":
                await asyncio.sleep(CLINGS_S)
            raise
        if ends_so == "raises":
            raise OSError(case.number)
        if ends_so == "breaks":
            raise KeyError(case.number)
        return f"done {case.number}"

    def _note_interruption(self, case: Case, run: Run) -> None:
        """Tell a timeout from a cancellation, as far as can be seen from here."""
        now = self.clock.monotonic()
        own = self.timeout_of(case.work)
        limit = self.plan.option("timeout", "seconds") if own is None else own
        deadline = self.plan.option("deadline", "seconds")
        is_asked = case.cancelled_at is not None or self.stopped_at is not None
        is_asked = is_asked or (deadline is not None and now >= case.came + deadline - EPS)
        is_late = limit is not None and now >= run.stamped + limit - EPS
        run.has_failed = True if is_late and not is_asked else None
        run.is_unclear = run.is_unclear or (is_late and is_asked) or self.ledger.hedges

    def _note_end(self, case: Case, run: Run, error: BaseException | None) -> None:
        is_interrupted = isinstance(error, asyncio.CancelledError)
        failed = run.has_failed if is_interrupted else error is not None
        unclear = self.ledger.hedges and (run.copies > 1 or bool(run.error))
        if self.ledger.end(run, error, failed, unclear=unclear):
            self.loop.call_soon(self.see_what_follows, case, run, self.turns)

    def see_what_follows(self, case: Case, run: Run, turns: int) -> None:
        """Note when *case* will wait again, if it is to be tried again."""
        if case.run is not None or case.is_finished or case.runs[-1] is not run:
            return
        if case.job.state is JobState.RUNNING:
            if turns:
                self.loop.call_soon(self.see_what_follows, case, run, turns - 1)
            return
        retry = next((one.strategy for one in self.built if isinstance(one.strategy, Retry)), None)
        if retry is None or run.ended is None:
            self.ledger.fault(f"{case!r} is {case.job.state.value} after its end")
            return
        first, last = _pause_s(retry, len(case.runs))
        self.ledger.enter(case, run.ended + first, run.ended + last)

    # -- the end -----------------------------------------------------------------------

    def _check_nothing_is_left(self) -> None:
        fault = self.ledger.fault
        for one in self.built:
            strategy: Any = one.strategy
            for gate in strategy._all() if hasattr(strategy, "_all") else ():
                for inner in (gate, *gate._led):
                    for text in _held_by(inner):
                        fault(f"{inner!r}: {text}")
            if hasattr(strategy, "_fair") and (strategy._fair._places or strategy.stats().get("waiting_by_key")):
                fault("its order remembers who has gone")
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            fault(f"tasks are left: {others}")
        dispatcher = Dispatcher.of(self.loop)
        alive = [alarm for _, _, alarm in dispatcher.alarms._heap if alarm.is_live]
        if alive:
            fault(f"timers are left: {[str(alarm._callback)[:60] for alarm in alive]}")
        if dispatcher._ready or dispatcher._open:
            fault("somebody is about to be asked for")


def _held_by(gate: Any) -> list[str]:
    names = ("used", "_users", "_lent", "_passes", "_reserved", "_jobs_reserved", "_is_taken", "_probing")
    held = [(name, getattr(gate, name, None)) for name in names]
    found = [f"{name} is {value} at the end" for name, value in held if value]
    if gate._post is not None and gate._post.best is not None:
        found.append("somebody is parked there")
    return found


def _after_turns(loop: asyncio.AbstractEventLoop, turns: int, callback: Callable[[], None]) -> None:
    if turns:
        loop.call_soon(_after_turns, loop, turns - 1, callback)
    else:
        callback()


def _pause_s(retry: Retry, failures: int) -> tuple[float, float]:
    """Return the shortest and the longest pause after so many failures."""
    if retry.jitter == "none":
        pause = min(retry.cap_s, retry.base_s * 2.0 ** (failures - 1))
        return pause, pause
    return 0.0, retry.cap_s


# -- how jobs end ----------------------------------------------------------------------


def _check_end(plan: Plan, ledger: Ledger, case: Case) -> None:
    """See that *case* ended once, and as its runs say."""

    def fault(text: str) -> None:
        ledger.fault(f"{case!r} {text}")

    if not case.is_finished:
        fault("never ended")
    elif case.job is not None:
        if case.work.is_watched and case.ends_told != 1:
            fault(f"was told of {case.ends_told} ends")
        if case.runs and not (ledger.hedges and ledger.stalls):  # when a copy won is not known to the moment
            _check_attempts(plan, case, fault)
            _check_state(plan, ledger, case, fault)
            _check_times(plan, ledger, case, fault)


def _check_state(plan: Plan, ledger: Ledger, case: Case, fault: Callable[[str], None]) -> None:
    error, state = case.runs[-1].error, case.job.state
    is_limited = case.job.reason is not None or "deadline" in plan.kinds or plan.option("timeout", "seconds")
    if ledger.hedges and (case.cancelled_at is not None or is_limited):
        return  # one body has ended, another one was interrupted
    if isinstance(error, KeyError) and state is not JobState.FAILED:
        fault(f"raised KeyError and is {state.value}")
    if error is None and state is not JobState.DONE:
        fault(f"returned and is {state.value}")
    if error is None and state is JobState.DONE and case.job.result() != f"done {case.number}":
        fault(f"has the result {case.job.result()!r}")
    is_for_good = state is JobState.FAILED and case.job._record.error.exception is error
    stands_in = plan.option("fallback", "value") in {"value", "later", "much later"} and case.cancelled_at is None
    if isinstance(error, OSError) and is_for_good and stands_in:
        fault("failed in spite of a fallback")


def _check_times(plan: Plan, ledger: Ledger, case: Case, fault: Callable[[str], None]) -> None:
    limit = plan.option("timeout", "seconds") if case.work.timeout is None else case.work.timeout / 1000
    deadline = plan.option("deadline", "seconds")
    for run in case.runs:
        more_s = (CLINGS_S if case.work.end == "clings" else 0.0) + _stalled(ledger, run) + 0.001
        ended = run.began if run.ended is None else run.ended
        if limit is not None and ended - run.began > limit + more_s:
            fault(f"ran for {ended - run.began} s, with a timeout of {limit} s")
        if deadline is not None and ended > case.came + deadline + more_s:
            fault(f"ran {ended - case.came} s after it came, with a deadline of {deadline} s")


def _stalled(ledger: Ledger, run: Run) -> float:
    return sum(last - first for first, last in ledger.stalls if last >= run.began and first <= (run.ended or last))


def _check_attempts(plan: Plan, case: Case, fault: Callable[[str], None]) -> None:
    retry = next((one for one in plan.parts if one.kind == "retry"), None)
    most = 1 if retry is None else retry.chosen["attempts"]
    if len(case.runs) > most:
        fault(f"had {len(case.runs)} attempts of {most}")
    if retry is None:
        return
    due = case.came + case.work.delay / 1000
    deadline = retry.chosen["deadline"]
    for before, run in zip(case.runs, case.runs[1:], strict=False):
        if not isinstance(before.error, OSError | asyncio.CancelledError):
            fault(f"was tried again after {before.error!r}")
        if deadline is not None and run.since > due + deadline + EPS:
            fault("was tried again past the deadline")
        pause = min(0.1, retry.chosen["base"] * 2 ** (before.attempt - 1)) if retry.chosen["jitter"] == "none" else 0.0
        if run.began < (before.ended or 0.0) + pause - EPS:
            fault("was tried again too soon")
    error = case.runs[-1].error if case.runs else None
    may_retry = isinstance(error, OSError) and case.cancelled_at is None and len(case.runs) < most and deadline is None
    if may_retry and case.job.state is JobState.FAILED and case.job._record.error.exception is error:
        fault("was not tried again")


# -- how they are drawn ----------------------------------------------------------------

_INSTANTS: Final = (0, 0, 0, 0, 1, 99, 100, 101, 300, 500, 999, 1000, 7, 43, 62, 151, 233, 357, 428, 615, 738, 886)
_WORKS: Final[Mapping[str, Sequence[Any]]] = {
    "comes": _INSTANTS,
    "lasts": (0, 0, 1, 30, 200),
    "end": ("returns", "returns", "raises", "raises", "breaks", "hangs", "clings"),
    "fails": (9, 1, 2),
    "cost": (1, 1, 1, 2, 0.1, 0.7),
    "tenant": "aab",
    "priority": (None, None, 0, 1, 2),
    "timeout": (None, None, None, 20, 150),
    "delay": (0, 0, 0, 40),
    "cancel_after": (None, None, None, 0, 1, 50, 400),
    "passes": (None, None, None, None, -1, 0, 1),
    "is_watched": (False, True),
}
_ACTIONS: Final[Mapping[str, Sequence[Any]]] = {
    "at": _INSTANTS,
    "what": ("stall", "stall", "update", "update", "penalise", "isolate", "reset", "step"),
    "which": range(3),
    "pick": range(8),
    "turns": range(4),
}


def planned(
    pick: Pick, holding: str | None = None, *, size: int = 3, most: int = 12, without: Sequence[str] = ()
) -> Plan:
    """Return a plan of a second or two, as *pick* chooses."""
    works = [Work(**_chosen(pick, _WORKS)) for _ in range(pick(range(1, most + 1)))]
    max_queue = pick((None, None, None, 1, 3))
    return Plan(
        parts=composed(pick, holding, size, without),
        works=tuple(sorted(works, key=lambda work: work.comes)),
        actions=tuple(Action(**_chosen(pick, _ACTIONS)) for _ in range(pick(range(5)))),
        is_eager=pick((True, False)),
        stop_at=pick((None, None, None, None, 50, 310)),
        drains=pick((False, True)),
        max_queue=max_queue,
        overflow="reject" if max_queue is None else pick(("reject", "drop_oldest", "block")),
        max_wait=pick((None, None, None, 150, 600)),
    )


def _chosen(pick: Pick, choices: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {name: pick(values) for name, values in choices.items()}


@st.composite
def plans(draw: st.DrawFn, holding: str | None = None, *, size: int = 3, most: int = 12) -> Plan:
    """Draw plans; Hypothesis makes those that fail smaller."""
    return planned(lambda values: draw(st.sampled_from(values)), holding, size=size, most=most)
