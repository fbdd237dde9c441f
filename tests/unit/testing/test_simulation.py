"""A simulation tells what the schedules of an app would do, without running a line of the app's bodies."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quarterjack import (
    AdaptiveLimit,
    At,
    Between,
    CircuitBreaker,
    ConcurrencyLimit,
    Cron,
    Deadline,
    Every,
    Fallback,
    FixedDelay,
    Flow,
    Gate,
    Hedge,
    InvalidOption,
    LoopThread,
    OnStartup,
    Order,
    Overlap,
    Priority,
    Quarterjack,
    Resource,
    SlidingWindow,
    StrategyAdapter,
    Timeout,
    TimeWindow,
    Trigger,
    UnknownTask,
    UsageError,
    Waiting,
    WeightedRoundRobin,
    Wrap,
)
from quarterjack.testing import ScheduleLoad, Simulation, TooManyFires, simulate

MIDNIGHT = "2027-03-25T00:00+00:00"


async def never() -> None:
    raise AssertionError("a simulation ran a body")


def app_of(*triggers: Trigger, concurrency: int = 100, **policies: Any) -> Quarterjack:
    app = Quarterjack(concurrency=concurrency)
    for number, trigger in enumerate(triggers):
        app.task(trigger, name=f"t{number}", **policies)(never)
    return app


def load(found: Simulation, schedule_id: str = "t0") -> ScheduleLoad:
    return next(one for one in found.schedules if one.id == schedule_id)


def test_runs_are_counted_and_take_what_is_assumed() -> None:
    """The number of runs is the rule's, their length is the assumption's."""
    found = simulate(app_of(Every(hours=1)), "1d", start=MIDNIGHT, assume="90s")
    assert load(found) == ScheduleLoad(id="t0", runs=24, waiting=0, busy_s=23 * 90.0)
    assert (found.start, found.end) == (datetime(2027, 3, 25, tzinfo=UTC), datetime(2027, 3, 26, tzinfo=UTC))
    assert found.assumed == {"t0": 90.0}


def test_no_code_of_the_app_is_run() -> None:
    """Bodies, hooks, lifespan, callbacks, wrappers: who simulates a production app must be able to rely on it."""

    def lifespan(_: Quarterjack) -> Any:
        raise AssertionError("entered")

    app = Quarterjack(lifespan=lifespan)
    thread = LoopThread("t")

    async def around(job: Any, proceed: Any) -> Any:
        raise AssertionError("around")

    app.around(around)
    app.task(OnStartup(), name="up")(never)
    task = app.task(Every(hours=1), name="hourly", executor=thread)(never)

    told: list[Any] = []
    task.on_done(told.append)

    found = simulate(app, "3h", start=MIDNIGHT)
    assert load(found, "hourly").runs == 3
    assert next(one for one in found.executors if one.name == "t").peak == 1
    assert (told, app.is_running) == ([], False)


def test_overlap_is_decided_as_the_app_would() -> None:
    """A body that outlasts its period is what a simulation is meant to show."""
    skip = simulate(app_of(Every(hours=1)), "12h", start=MIDNIGHT, assume="90m")
    assert (load(skip).runs, load(skip).skipped) == (6, 6)
    queued = simulate(app_of(Every(hours=1), overlap="queue_all"), "12h", start=MIDNIGHT, assume="90m")
    assert (load(queued).runs, load(queued).waiting) == (8, 4)
    assert load(queued).longest_wait_s == 7 * 1_800.0
    bounded = simulate(app_of(Every(hours=1), overlap=Overlap("queue_all", 1)), "12h", start=MIDNIGHT, assume="90m")
    assert load(bounded).skipped > 0
    cancelled = simulate(app_of(Every(hours=1), overlap="cancel_previous"), "12h", start=MIDNIGHT, assume="90m")
    assert (load(cancelled).runs, load(cancelled).cancelled) == (12, 11)


def test_slots_are_the_apps_and_waits_are_told() -> None:
    """Three jobs at once on two slots: one of them waits for the length of a body."""
    app = app_of(Every(hours=1), Every(hours=1), Every(hours=1), concurrency=2)
    found = simulate(app, "1h", start=MIDNIGHT, assume=60)
    loop = next(one for one in found.executors if one.name == "loop")
    assert (loop.peak, loop.slots, loop.peak_at) == (2, 2, datetime(2027, 3, 25, 1, tzinfo=UTC))
    again = simulate(app, "2h", start=MIDNIGHT, assume=60)
    assert sorted(one.longest_wait_s for one in again.schedules) == [0.0, 0.0, 60.0]


def test_run_that_waits_beyond_its_deadline_is_missed() -> None:
    """start_deadline bounds the wait for a slot."""
    app = app_of(Every(hours=1), Every(hours=1), concurrency=1, start_deadline=30)
    found = simulate(app, "90m", start=MIDNIGHT, assume=60)
    assert sorted((one.runs, one.missed) for one in found.schedules) == [(0, 1), (1, 0)]


def test_timeout_ends_a_body() -> None:
    """A body holds its slot no longer than its timeout allows."""
    found = simulate(app_of(Every(hours=1), timeout=60), "1h30m", start=MIDNIGHT, assume="2h")
    assert load(found).busy_s == 60.0


def test_collisions_are_named_once_with_how_often() -> None:
    """All at full hours: the usual mistake, and jitter or H the cure."""
    found = simulate(app_of(Cron("0 * * * *"), Cron("0 */2 * * *"), Cron("30 1 * * *")), "1d", start=MIDNIGHT)
    (worst,) = found.collisions
    assert (worst.starts, worst.schedules, worst.seconds) == (2, ("t0", "t1"), 12)
    assert worst.at == datetime(2027, 3, 25, 2, tzinfo=UTC)
    assert found.busiest[0] == (worst.at, 2)
    assert simulate(app_of(Cron("0 * * * *"), Cron("30 * * * *")), "1d", start=MIDNIGHT).collisions == ()


def test_chains_go_by_the_length_of_their_bodies() -> None:
    """FixedDelay counts from the end of a run."""
    found = simulate(app_of(FixedDelay(minutes=5)), "1h", start=MIDNIGHT, assume="5m")
    assert load(found).runs == 6


def test_nights_are_met_and_told() -> None:
    """A week that holds the change shows what it does to each schedule."""
    found = simulate(app_of(At("02:30", tz="Europe/Rome"), At("12:00", tz="Europe/Rome")), "7d", start=MIDNIGHT)
    assert [(one, change.is_affected) for one, change in found.clock_changes] == [("t0", True), ("t1", False)]
    assert load(found).runs == 7


class Late(Trigger):
    """Raises at its second question."""

    at_once: bool = False

    def next(self, after: datetime) -> datetime | None:
        if self.at_once or after.hour >= 2:
            raise OSError("no calendar")
        return after + timedelta(hours=1)


def test_broken_triggers_are_parked_and_the_others_play_on(caplog: pytest.LogCaptureFixture) -> None:
    """As in the app itself."""
    caplog.set_level(logging.CRITICAL, "quarterjack")
    found = simulate(app_of(Every(hours=1), Late(), Late(at_once=True)), "1d", start=MIDNIGHT)
    assert load(found).runs == 24
    assert {one: "no calendar" in why for one, why in found.parked.items()} == {"t1": True, "t2": True}


def test_too_many_fires_are_refused_with_what_would_do() -> None:
    """Every second of a week would take minutes; who asked is told at once, and for how long it can be had."""
    app = app_of(Every(seconds=1), Every(hours=1))
    with pytest.raises(TooManyFires, match=r"more than 150,000 times .* most of all 't0'; .* 41h") as caught:
        simulate(app, "7d", start=MIDNIGHT)
    assert caught.value.fits == "41h"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert load(simulate(app, "10m", start=MIDNIGHT, assume=0.5)).runs == 600
    with pytest.raises(TooManyFires):
        simulate(app_of(FixedDelay(milliseconds=1)), "1d", assume=0)


def test_how_long_can_be_played_is_true_of_uneven_schedules() -> None:
    """Who follows the advice must not be refused again; the rate of a month is not that of its first day."""
    app = app_of(Every(milliseconds=100) & Between("09:00", "17:00"), Every(days=1))
    with pytest.raises(TooManyFires) as caught:
        simulate(app, "30d", start=MIDNIGHT, most_fires=500)
    assert caught.value.fits == "8h"
    assert load(simulate(app, caught.value.fits, start=MIDNIGHT, most_fires=500)).runs == 0


def test_rule_that_is_counted_one_by_one_is_refused_soon() -> None:
    """The bug: a union was counted through the whole year, 31 million fire times, before it was refused."""
    asked = 0

    class Asked(Trigger):
        def next(self, after: datetime) -> datetime:
            nonlocal asked
            asked += 1
            return after + timedelta(seconds=1)

    with pytest.raises(TooManyFires) as caught:
        simulate(app_of(Asked()), "365d", start=MIDNIGHT, most_fires=1_000)
    assert asked < 20_000
    assert caught.value.fits in {"15m", "16m"}


def test_run_that_waits_for_its_turn_starts_when_that_comes() -> None:
    """The bug: fire times were counted as starts, so a run in a queue collided with what ran meanwhile."""
    app = app_of(Cron("0 * * * *"), Cron("0 * * * *"), overlap_key="one", overlap="queue_all")
    found = simulate(app, "150m", start=MIDNIGHT, assume="10m")
    assert found.collisions == ()
    assert found.runs == 4


def test_max_runs_and_bounds_count_as_they_do() -> None:
    """What is never fired is not refused either."""
    app = app_of(Every(seconds=1), max_runs=3)
    assert load(simulate(app, "7d", start=MIDNIGHT)).runs == 3
    bounded = app_of(Every(seconds=1), end=datetime(2027, 3, 25, 0, 1, tzinfo=UTC))
    assert load(simulate(bounded, "7d", start=MIDNIGHT, assume=0.1)).runs == 60


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"for_": "7x"}, InvalidOption, "for_ must look like"),
        ({"assume": {"nope": 1}}, UnknownTask, "no task 'nope'"),
        ({"assume": {"t": 1}}, UnknownTask, "did you mean 't0'"),
        ({"assume": "long"}, InvalidOption, "assume of 't0'"),
        ({"start": "someday"}, InvalidOption, "'someday' is no instant"),
    ],
)
def test_wrong_questions_are_refused(wrong: dict[str, Any], error: type[Exception], said: str) -> None:
    """Before anything is played."""
    with pytest.raises(error, match=said):
        simulate(app_of(Every(hours=1)), **wrong)


async def test_inside_a_running_loop_the_way_out_is_told() -> None:
    """It has a loop of its own; asyncio's error would not say what to write."""
    with pytest.raises(UsageError, match=r"asyncio\.to_thread"):
        simulate(app_of(Every(hours=1)))


# -- flows --------------------------------------------------------------------------------


def flowing(*flows: Any, every: Trigger | None = None, **options: Any) -> Quarterjack:
    app = Quarterjack()
    for number, flow in enumerate(flows):
        app.task(every or Every(minutes=1), name=f"t{number}", flow=flow, **options)(never)
    return app


def test_gate_that_two_tasks_share_keeps_their_runs_apart() -> None:
    """The bug: both ran at once, each minute, and nothing said that their flows were left out."""
    one = Flow(ConcurrencyLimit(1))
    found = simulate(flowing(one, one), "1h", start=MIDNIGHT, assume="20s")
    assert (load(found, "t0").runs, load(found, "t1").runs) == (60, 59)
    assert (load(found, "t1").waiting, load(found, "t1").longest_wait_s) == (1, 20.0)
    assert not found.collisions
    assert found.executors[0].peak == 1
    assert not found.unplayed


def test_gate_of_a_queue_and_of_a_group_are_played_as_well() -> None:
    """A flow stands in several places, and the same gate in two flows is one."""
    limit = ConcurrencyLimit(1)
    app = flowing(Flow(limit, TimeWindow(Between("00:00", "00:30"))))
    app.queue("q", flow=limit)
    app.task(Every(minutes=1), name="q0", queue="q")(never)
    found = simulate(app, "1h", start=MIDNIGHT, assume="20s")
    assert (load(found, "t0").runs, load(found, "q0").runs) == (29, 60)
    assert found.executors[0].peak == 1


def test_run_that_waits_for_its_hours_waits_and_the_next_ones_are_skipped() -> None:
    """As the app would: one job stands there, and an overlap that skips leaves out the rest."""
    found = simulate(flowing(TimeWindow(Between("02:00", "03:00"))), "90m", start=MIDNIGHT)
    assert load(found) == ScheduleLoad(id="t0", skipped=89, waiting=1, longest_wait_s=89 * 60.0)


NIGHTLY = TimeWindow(Between("02:00", "03:00"))


@pytest.mark.parametrize(
    "flow", [Flow(NIGHTLY, max_wait=40), Flow(NIGHTLY, Deadline(40))], ids=["max_wait", "deadline"]
)
def test_run_that_its_flow_turns_away_is_counted(flow: Flow) -> None:
    """It did not run, and no body of a simulation fails: so the flow it was."""
    app = flowing(flow, every=Every(seconds=30), overlap="allow")
    found = simulate(app, "2m", start=MIDNIGHT)
    assert load(found) == ScheduleLoad(id="t0", refused=2, waiting=2, longest_wait_s=30.0)


def test_timeouts_of_flows_end_bodies() -> None:
    """That of an attempt, and what is left of the whole job's deadline."""
    app = flowing(Flow(Timeout(20)), Flow(Deadline(30)))
    found = simulate(app, "10m", start=MIDNIGHT, assume="50s")
    assert [load(found, one).busy_s for one in ("t0", "t1")] == [9 * 20.0, 9 * 30.0]


class Odd(Gate):
    """Open in odd minutes only; the user's own."""

    def eta(self, job: Waiting, now: float) -> float:
        at = self.clock.now()
        return now if at.minute % 2 else now + 60 - at.second


def test_gate_of_the_users_own_is_asked_on_the_clock_of_the_play() -> None:
    """Triggers of their own are, too."""
    found = simulate(flowing(Odd()), "1h", start=MIDNIGHT, assume="1s")
    assert (load(found).runs, load(found).longest_wait_s) == (30, 60.0)


class Locked(Gate):
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__(name="the lock")
        self.lock = threading.Lock()

    def eta(self, job: Waiting, now: float) -> float:
        raise AssertionError("asked")


class Noisy(Wrap):
    async def __call__(self, job: Waiting, proceed: Callable[[], Awaitable[Any]]) -> Any:
        raise AssertionError("a simulation ran a wrap")


class Backwards(Order):
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def rank(self, job: Waiting, now: float) -> float:
        raise AssertionError("asked")


def test_what_takes_no_part_is_named() -> None:
    """A figure that leaves out a limit in silence is wrong."""

    def stand_in(_: BaseException) -> None:
        raise AssertionError("a simulation asked a fallback")

    flow = Flow(Locked(), Backwards(), Noisy(), Hedge(after=1), Fallback(stand_in), max_wait=1)
    found = simulate(
        flowing(flow, executor=LoopThread("own", slots=1), overlap="allow"), "3m", start=MIDNIGHT, assume="90s"
    )
    assert (load(found).runs, load(found).refused) == (2, 1)
    assert found.unplayed == {
        "the lock": "it cannot be copied, TypeError: cannot pickle '_thread.lock' object",
        "Backwards": "it cannot be copied, TypeError: cannot pickle '_thread.lock' object",
        "Noisy": "it surrounds bodies, and none is run",
    }


def test_gates_begin_anew_and_those_of_the_app_see_nothing() -> None:
    """What an app has used up or penalised at noon says nothing about next week, nor does a play use up anything."""
    client = threading.Lock()
    router = WeightedRoundRobin(Resource("a", client), Resource("b", client), by=lambda job: job.task)
    limits = (ConcurrencyLimit(1), SlidingWindow(1, per=60), CircuitBreaker(on_open="hold"), AdaptiveLimit())
    order = Priority(fair_by=lambda job: job.task)
    limits[0].used = 1.0
    limits[1].penalise(for_=9e8)
    before = [limit.stats() for limit in limits]
    found = simulate(flowing(Flow(*limits, router, order)), "1h", start=MIDNIGHT)
    assert load(found).runs == 60
    assert not found.unplayed
    assert [limit.stats() for limit in limits] == before
    assert not router.keys()
    assert not order.stats()["waiting_by_key"]


class Alternate:
    """A strategy of the three-method shape: one at a time."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []
        self.is_free = True

    def add_task(self, task: Any) -> None:
        self.jobs.append(task)

    def get_next_task(self) -> Any:
        if not self.is_free or not self.jobs:
            return None
        self.is_free = False
        return self.jobs.pop(0)

    async def get_sleep_interval(self) -> None: ...

    async def on_task_done(self) -> None:
        self.is_free = True


def test_what_is_gate_and_order_at_once_is_one_in_the_play_too() -> None:
    """An adapted strategy is both; two copies of it would each know half."""
    mine = Alternate()
    app = flowing(Flow(StrategyAdapter(mine)), overlap="allow")
    found = simulate(app, "1h", start=MIDNIGHT, assume="90s")
    assert not found.unplayed
    assert not mine.jobs
    assert load(found).runs == 40
    assert found.executors[0].peak == 1
