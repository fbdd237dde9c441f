"""`AdaptiveLimit` and `Pressure`: when the limit rises, when it falls, and never too far."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from quarterjack import AdaptiveLimit, CircuitOpen, InvalidOption, MissingExtra, Pressure, TaskManager, Waiting
from quarterjack.flow import _load
from quarterjack.flow.adaptive import Sample
from quarterjack.flow.outcome import CANCELLED, NOT_STARTED, RETURNED, Ended, EndKind
from quarterjack.flow.permit import Pass
from quarterjack.testing import virtual_loop

FAILED: Final = Ended(EndKind.RAISED, OSError("down"))


def window(gate: AdaptiveLimit, now: float, lasts: float, ended: Ended = RETURNED, *, most: int | None = None) -> float:
    """Fill one window by hand with jobs that begin at *now*; return when it was over."""
    jobs = [Pass() for _ in range(gate.limit if most is None else most)]
    for job in jobs:
        assert gate.eta(job, now) <= now
        gate.take(job, now)
        job.started_at = now
    end = now + max(lasts, 1.0)
    for job in jobs:
        job.started_at = end - lasts
        gate.give(job, end, ended)
    return end


def windows(gate: AdaptiveLimit, count: int, lasts: float, ended: Ended = RETURNED, *, now: float = 0.0) -> float:
    """Fill so many windows."""
    for _ in range(count):
        now = window(gate, now, lasts, ended)
    return now


# ---------------------------------------------------------------- one decision


SAMPLES: Final = st.builds(
    Sample,
    failures=st.integers(0, 20),
    worked=st.integers(0, 20),
    total_s=st.floats(0.0, 100.0),
    most=st.floats(0.0, 250.0),
    strained=st.booleans(),
)


def decide(kind: type[AdaptiveLimit], gate_options: dict[str, Any], limit: float, sample: Sample) -> float:
    """Return the limit after one window, from *limit*."""
    gate = kind(**gate_options)
    gate._unloaded_s = 0.5
    gate._limit = limit
    gate._set(gate._decide(replace(sample, ends=sample.failures + sample.worked)))
    return gate._limit


def check_decision(
    kind: type[AdaptiveLimit], target: float | None, limit: float, sample: Sample, worse_by: float
) -> None:
    """Within its bounds, never up for want of demand, and never higher for a worse window."""
    options: dict[str, Any] = {"min": 2, "max": 200, "target_latency": target}
    chosen = decide(kind, options, limit, sample)
    assert 2 <= chosen <= 200
    if sample.most * 2 < limit:
        assert chosen <= limit, "it was not what held jobs back"
    slower = replace(sample, total_s=sample.total_s + worse_by) if sample.worked else sample
    for worse in (slower, replace(sample, failures=sample.failures + 1), replace(sample, strained=True)):
        assert decide(kind, options, limit, worse) <= chosen, "worse, and higher"


def property_of(
    kind: type[AdaptiveLimit], *, examples: int, phases: tuple[Phase, ...] = tuple(Phase)
) -> Callable[[], None]:
    """Return the property of one decision, for this class."""

    @settings(
        max_examples=examples, phases=phases, derandomize=len(phases) == 1, database=None, report_multiple_bugs=False
    )
    @given(
        target=st.sampled_from([None, 0.1, 1.0, 10.0]),
        limit=st.floats(2, 200),
        sample=SAMPLES,
        worse_by=st.floats(0.0, 50.0),
    )
    def holds(target: float | None, limit: float, sample: Sample, worse_by: float) -> None:
        assume(sample.worked or not sample.total_s)
        check_decision(kind, target, limit, sample, worse_by)

    return holds


def test_decisions_stay_in_bounds_and_worse_is_never_rewarded() -> None:
    """The one thing that a control loop must not do is push harder when it hurts."""
    property_of(AdaptiveLimit, examples=400)()


class KnowsNoBounds(AdaptiveLimit):
    """Goes where it likes."""

    def _set(self, limit: float) -> None:
        self._limit = limit


class GrowsIdle(AdaptiveLimit):
    """Grows although nobody needs it."""

    def _decide(self, sample: Sample) -> float:
        return super()._decide(replace(sample, most=1e9))


class LikesFailures(AdaptiveLimit):
    """Takes fast failures for speed."""

    def _decide(self, sample: Sample) -> float:
        return super()._decide(replace(sample, ends=sample.worked, failures=0)) + sample.failures


@pytest.mark.parametrize(
    ("kind", "told"),
    [(KnowsNoBounds, ""), (GrowsIdle, "it was not what held jobs back"), (LikesFailures, "worse, and higher")],
)
def test_the_property_tells_broken_limits(kind: type[AdaptiveLimit], told: str) -> None:
    """A property that nothing breaks proves nothing."""
    with pytest.raises(AssertionError) as caught:
        property_of(kind, examples=400, phases=(Phase.generate,))()
    assert told in str(caught.value)


# ---------------------------------------------------------------- many windows


@pytest.mark.parametrize("target", [None, 1.0])
def test_it_falls_to_its_minimum_against_a_dead_server_and_comes_back(target: float | None) -> None:
    """An outage is over sooner if nobody storms the door, and then the work goes on as before."""
    gate = AdaptiveLimit(100, min=1, max=200, target_latency=target, pressure=None)
    now = windows(gate, 3, 0.1)
    assert gate.limit > 100
    now = windows(gate, 15, 0.1, FAILED, now=now)
    assert gate.limit == 1
    windows(gate, 30, 0.1, now=now)
    assert gate.limit >= 180, "nine tenths of the maximum in 30 windows"


def test_it_settles_where_the_target_is_met() -> None:
    """Neither at the minimum nor at the maximum: at what the service can do."""
    gate, now, seen = AdaptiveLimit(10, max=200, target_latency=0.5, pressure=None), 0.0, list[int]()
    for _ in range(60):
        now = window(gate, now, max(0.1, gate.limit / 100))  # a hundred a second, and a queue beyond
        seen.append(gate.limit)
    assert min(seen[20:]) >= 30
    assert max(seen[20:]) <= 65


def test_without_a_target_it_lets_a_few_queue_and_no_more() -> None:
    """The latency without load says what is queueing, and what is the service's own time."""
    gate, now, seen = AdaptiveLimit(10, max=200, pressure=None), 0.0, list[int]()
    assert gate.algorithm == "vegas"
    now = window(gate, now, 0.5, most=1)
    assert gate.limit == 10, "nothing to compare with yet"
    for _ in range(25):
        now = window(gate, now, max(0.5, gate.limit / 100))  # fifty at once, and a queue beyond
        seen.append(gate.limit)
    assert min(seen[12:]) >= 51
    assert max(seen[12:]) <= 62


def test_a_route_that_became_longer_is_learnt() -> None:
    """Without that the limit would stay at its minimum for ever after the service has moved."""
    gate = AdaptiveLimit(10, max=50, pressure=None)
    now = windows(gate, 5, 0.1)
    now = windows(gate, 20, 2.0, now=now)
    low = gate.limit
    windows(gate, 40, 2.0, now=now)
    assert low < 20
    assert gate.limit == 50


def test_windows_are_the_pace() -> None:
    """A burst of failures is one drop, not a hundred."""
    gate = AdaptiveLimit(100, min=1, target_latency=1, pressure=None)
    jobs = [Pass() for _ in range(100)]
    for job in jobs:
        gate.take(job, 0.0)
        job.started_at = 0.0
    for n, job in enumerate(jobs):
        gate.give(job, 0.9 + n / 1000, FAILED)
    assert gate.limit == 100, "the window lasts a second"
    window(gate, 1.0, 0.1, most=1)
    assert gate.limit == 70


@pytest.mark.parametrize("ended", [CANCELLED, NOT_STARTED, Ended(EndKind.RAISED, CircuitOpen("inner"))])
def test_ends_that_say_nothing_move_nothing(ended: Ended) -> None:
    """Users who close the page are no sign of load."""
    gate = AdaptiveLimit(10, target_latency=1, pressure=None)
    windows(gate, 5, 9.0, ended)
    assert (gate.limit, gate.used) == (10, 0)


def test_a_heavy_job_starts_when_nothing_else_runs() -> None:
    """A limit that has fallen below its cost would lock it out for ever."""
    gate = AdaptiveLimit(2, max=5)
    heavy, light = Pass(cost=4.0), Pass()
    gate.check(heavy)
    assert gate.eta(heavy, 0.0) == 0.0
    gate.take(light, 0.0)
    assert gate.eta(heavy, 0.0) > 1e9
    with pytest.raises(InvalidOption, match=r"cost=6 is above max=5"):
        gate.check(Pass(cost=6.0))


# ---------------------------------------------------------------- on a loop


class Work(NamedTuple):
    """One job of a scenario."""

    after: float
    lasts: float
    ends: str
    stalls: bool


WORK: Final = st.lists(
    st.builds(
        Work,
        after=st.sampled_from([0.0, 0.0, 0.0, 0.2, 3.0]),
        lasts=st.sampled_from([0.0, 0.1, 0.5, 4.0]),
        ends=st.sampled_from(["returns", "returns", "raises", "is cancelled", "times out"]),
        stalls=st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


async def play(kind: type[AdaptiveLimit], work: list[Work], target: float | None) -> None:
    """Never more at once than the limit allowed when they came, all jobs end, and nothing stays taken."""
    gate = kind(2, min=1, max=3, target_latency=target)
    inside, wrong = 0, list[int]()

    with virtual_loop() as clock:

        async def body(one: Work) -> None:
            nonlocal inside
            inside += 1
            if inside > 3:
                wrong.append(inside)
            try:
                if one.stalls:
                    clock.move_to(clock.monotonic_ns() + 300_000_000)
                if one.ends == "is cancelled":
                    worker = asyncio.current_task()
                    assert worker is not None
                    asyncio.get_running_loop().call_later(one.lasts / 2, worker.cancel)
                await asyncio.sleep(one.lasts)
                if one.ends == "raises":
                    raise OSError
            finally:
                inside -= 1

        async with TaskManager(gate) as manager:
            for one in work:
                await asyncio.sleep(one.after)
                timeout = one.lasts / 2 + 0.01 if one.ends == "times out" else None
                manager.options(timeout=timeout).submit(body, one)
                assert 1 <= gate.limit <= 3
            async with asyncio.timeout(1_000):
                await manager.idle()
        assert wrong == []
        assert gate.used == 0
        await asyncio.sleep(5)


def loop_property_of(
    kind: type[AdaptiveLimit], *, examples: int, phases: tuple[Phase, ...] = tuple(Phase)
) -> Callable[[], None]:
    """Return the property of a limit in use, for this class."""

    @settings(
        max_examples=examples, phases=phases, derandomize=len(phases) == 1, database=None, report_multiple_bugs=False
    )
    @given(work=WORK, target=st.sampled_from([None, 0.3]))
    def holds(work: list[Work], target: float | None) -> None:
        asyncio.run(play(kind, work, target))

    return holds


def test_in_use_it_keeps_its_bounds_and_leaks_nothing() -> None:
    """Whatever fails, hangs, is cancelled or blocks the loop."""
    loop_property_of(AdaptiveLimit, examples=40)()


class Leaks(AdaptiveLimit):
    """Cancelled jobs keep their slots."""

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        super().give(job, now, ended)
        if ended.kind is EndKind.CANCELLED:
            self.used += job.cost


class LetsAllIn(AdaptiveLimit):
    """A limit in name."""

    def eta(self, job: Waiting, now: float) -> float:
        return now


@pytest.mark.parametrize("kind", [Leaks, LetsAllIn])
def test_the_loop_property_tells_broken_limits(kind: type[AdaptiveLimit]) -> None:
    """Likewise."""
    with pytest.raises((AssertionError, TimeoutError)):
        loop_property_of(kind, examples=100, phases=(Phase.generate,))()


async def test_a_raised_limit_lets_waiters_in_at_once() -> None:
    """By itself or by hand."""
    gate = AdaptiveLimit(1, max=10, pressure=None)
    async with TaskManager(gate) as manager:
        jobs = [manager.submit(asyncio.sleep, 3600) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert [job.state.value for job in jobs] == ["running", "submitted", "submitted"]
        gate.update(min=2)
        await asyncio.sleep(0.01)
        assert [job.state.value for job in jobs] == ["running", "running", "submitted"]
        for job in jobs:
            await job.cancel()


# ---------------------------------------------------------------- pressure


def strained(gate: AdaptiveLimit) -> tuple[int, str]:
    """Return the limit and the reason after one good window."""
    window(gate, 0.0, 0.1)
    return gate.limit, gate.last


def test_a_strained_machine_is_a_drop_however_well_the_service_does(caplog: pytest.LogCaptureFixture) -> None:
    """The bottleneck may be here; and a source that breaks must not stop the work."""

    def broken() -> str | None:
        raise OSError

    assert strained(AdaptiveLimit(10, target_latency=1, pressure=lambda: "disk at 99%")) == (7, "lowered: disk at 99%")
    assert strained(AdaptiveLimit(10, target_latency=1, pressure=lambda: None)) == (13, "raised")
    assert strained(AdaptiveLimit(10, target_latency=1, pressure=broken)) == (13, "raised")
    assert "pressure cannot be read" in caplog.text


def test_pressure_is_asked_once_per_window() -> None:
    """Reading files for each job would be the load."""
    asked: list[int] = []
    gate = AdaptiveLimit(100, target_latency=1, pressure=lambda: asked.append(1))
    windows(gate, 5, 0.1)
    assert len(asked) == 5


async def test_a_loop_that_lags_lowers_the_limit() -> None:
    """Bodies that block the loop make each other slow; fewer of them do less harm."""
    with virtual_loop() as clock:
        for blocks_s, is_lower in ((0.0, False), (0.5, True)):
            gate = AdaptiveLimit(20, target_latency=10)

            async def work(blocks_s: float = blocks_s) -> None:
                await asyncio.sleep(0.4)
                clock.move_to(clock.monotonic_ns() + round(blocks_s * 1e9))

            async with TaskManager(gate) as manager:
                for _ in range(200):
                    manager.submit(work)
                await asyncio.sleep(3)
                assert (gate.limit < 20) is is_lower
                assert ("the event loop is" in gate.last) is is_lower
                await manager.stop(drain=False)
            await asyncio.sleep(5)
            assert gate._lag_alarm is None, "an idle limit wakes nobody"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose files say what a test writes."""
    monkeypatch.setattr(_load, "PROC", tmp_path / "proc")
    monkeypatch.setattr(_load, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setitem(sys.modules, "psutil", None)
    write(tmp_path / "proc/self/cgroup", "4:memory:/old\n0::/pod/one\n")
    write(tmp_path / "proc/pressure/cpu", "some avg10=20.00 avg60=1 avg300=1 total=1\n")
    write(tmp_path / "proc/pressure/memory", "some avg10=85.50 avg60=1 avg300=1 total=1\nfull avg10=99 avg60=1\n")
    write(tmp_path / "proc/meminfo", "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 250 kB\n")
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_stalls_are_those_of_the_kernel(machine: Path) -> None:
    """The higher of CPU and memory, of the own group where it tells."""
    assert Pressure(max_stall=0.85).reason(0) == "stall at 86%"
    assert Pressure(max_stall=0.86).reason(0) is None
    write(machine / "cgroup/pod/one/cpu.pressure", "some avg10=30.00 avg60=1\n")
    write(machine / "cgroup/pod/one/memory.pressure", "some avg10=0.00 avg60=1\n")
    pressure = Pressure(max_stall=0.29)
    assert pressure.reason(0) == "stall at 30%"
    (machine / "cgroup/pod/one/cpu.pressure").unlink()
    assert pressure.reason(0) is None, "what is not told any more is no strain"


def test_memory_is_the_containers_or_the_machines(machine: Path) -> None:
    """A container dies at its own limit, whatever the machine has left."""
    assert Pressure(max_memory=0.7).reason(0) == "memory at 75%"
    write(machine / "cgroup/pod/one/memory.max", "2000\n")
    write(machine / "cgroup/pod/one/memory.current", "1000\n")
    assert Pressure(max_memory=0.7).reason(0) is None
    assert Pressure(max_memory=0.4).reason(0) == "memory at 50%"


def test_cpu_is_the_quotas_share_since_it_was_asked_last(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CPUs of quota used for one second in each second are half used."""
    now = 100.0
    monkeypatch.setattr(_load, "SYSTEM_CLOCK", SimpleNamespace(monotonic=lambda: now))
    group = machine / "cgroup/pod/one"
    write(group / "cpu.max", "200000 100000\n")
    write(group / "cpu.stat", "usage_usec 5000000\nuser_usec 1\n")
    pressure = Pressure(max_cpu=0.45)
    now = 102.0
    write(group / "cpu.stat", "usage_usec 7000000\n")
    assert pressure.reason(0) == "cpu at 50%"
    assert pressure.reason(0) == "cpu at 50%", "no time has passed"
    now = 104.0
    assert pressure.reason(0) is None


def test_without_a_quota_psutil_is_asked_or_its_install_line_told(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be measured is refused when it is asked for, not ignored."""
    with pytest.raises(MissingExtra, match=r"max_cpu of Pressure needs .* 'quarterjack\[system\]'"):
        Pressure(max_cpu=0.9)
    (machine / "proc/meminfo").unlink()
    with pytest.raises(MissingExtra, match="max_memory"):
        Pressure(max_memory=0.9)
    (machine / "proc/pressure/cpu").unlink()
    with pytest.raises(InvalidOption, match="max_stall of Pressure needs Linux"):
        Pressure(max_stall=0.9)
    fake = SimpleNamespace(cpu_percent=lambda interval: 91.0, virtual_memory=lambda: SimpleNamespace(percent=50.0))
    monkeypatch.setitem(sys.modules, "psutil", fake)
    assert Pressure(max_cpu=0.9).reason(0) == "cpu at 91%"
    assert Pressure(max_memory=0.4).reason(0) == "memory at 50%"


def test_this_machine_can_be_read() -> None:
    """The files of a real kernel, as far as there are any."""
    assert 0.0 <= _load.memory_source()() <= 1.0
    assert Pressure(max_lag=None).reason(99) is None


# ---------------------------------------------------------------- settings


async def test_settings_change_together_or_not_at_all() -> None:
    """And the limit is within the new bounds at once."""
    gate = AdaptiveLimit(50)
    with pytest.raises(InvalidOption, match=r"max must be a number|max must be a whole number from 10"):
        gate.update(min=10, max=5)
    with pytest.raises(InvalidOption, match=r"update takes min, max, .* got 'initial'"):
        gate.update(initial=5)
    assert gate.limit == 50
    gate.update(max=20, target_latency=0.5)
    assert (gate.limit, gate.algorithm) == (20, "aimd")


def test_keys_have_limits_of_their_own_and_are_forgotten_when_long_unused() -> None:
    """A thousand hosts are not one, and a host of last week needs no memory."""
    gate = AdaptiveLimit(10, by="host", pressure=lambda: None)
    one: Any = gate.at("a")
    end = windows(one, 3, 0.1)
    assert one.limit > 10
    assert gate.at("b").stats()["limit"] == 10
    assert not one.is_idle(end + 100)
    assert one.is_idle(end + 301)
    one.forget()
    assert one.limit == 10


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"initial": 0}, "initial must be a whole number from 1"),
        ({"initial": 300}, "initial must be a whole number from 1 to 200, got 300"),
        ({"min": 0}, "min must be a whole number"),
        ({"min": 5, "max": 4}, "max must be a whole number from 5"),
        ({"target_latency": 0}, "target_latency must be more than 0"),
        ({"window": 0}, "window must be more than 0"),
        ({"backoff": 1}, "backoff must be below 1"),
        ({"backoff": 0}, "backoff must be a number above 0"),
        ({"failure_ratio": 0}, "failure_ratio must be a number above 0"),
        ({"pressure": 0.9}, "pressure must be a Pressure"),
        ({"counts": 5}, "counts must be exception types"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_built(options: dict[str, Any], told: str) -> None:
    """A limit that cannot fall is no limit."""
    with pytest.raises(InvalidOption, match=told):
        AdaptiveLimit(**options)


@pytest.mark.parametrize("options", [{"max_lag": 0}, {"max_cpu": 1.5}, {"max_memory": 0}, {"max_stall": "much"}])
def test_pressure_takes_shares(options: dict[str, Any]) -> None:
    """90 is not 90 %."""
    with pytest.raises(InvalidOption, match=next(iter(options))):
        Pressure(**options)
