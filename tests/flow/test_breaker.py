"""`CircuitBreaker`: when it opens, who is let through half-open, and what old results are worth."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from quarterjack import (
    CircuitBreaker,
    CircuitOpen,
    ConcurrencyLimit,
    Deadline,
    Discard,
    Flow,
    InvalidOption,
    Job,
    JobError,
    JobState,
    Quarterjack,
    Retry,
    TaskManager,
    Waiting,
)
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.outcome import CANCELLED, NOT_STARTED, RETURNED, Ended, EndKind
from quarterjack.flow.permit import Pass
from quarterjack.testing import virtual_loop, virtual_time

FAILED: Final = Ended(EndKind.RAISED, OSError("down"))


def breaker(**options: Any) -> CircuitBreaker:
    """Return a breaker without jitter that opens after two failures of two."""
    chosen: dict[str, Any] = {"min_calls": 2, "open_for": 10, "jitter": 0, **options}
    return CircuitBreaker(**chosen)


def call(gate: CircuitBreaker, now: float, ended: Ended = RETURNED, *, lasts: float = 0.0) -> None:
    """Pass one call through by hand."""
    job = Pass()
    assert gate.eta(job, now) <= now
    gate.take(job, now)
    job.started_at = now
    gate.give(job, now + lasts, ended)


# ---------------------------------------------------------------- when it opens


def test_it_opens_at_the_ratio_and_not_before_the_least_number_of_calls() -> None:
    """One failure of one is no outage, and a share below the ratio is ordinary life."""
    gate = breaker(failure_ratio=0.5, min_calls=4)
    for n in range(3):
        call(gate, n, FAILED)
    states = [gate.state]
    call(gate, 3, FAILED)
    assert [*states, gate.state] == ["closed", "open"]
    gate.reset()
    for n in range(30):
        call(gate, n / 10, FAILED if n % 3 == 2 else RETURNED)
    assert gate.state == "closed"


def test_calls_are_forgotten_with_time_or_by_later_calls() -> None:
    """Last hour's failures do not open it for one of today."""
    by_time, by_number = breaker(min_calls=3, window=60), breaker(min_calls=3, window_calls=3, failure_ratio=1)
    for gate in (by_time, by_number):
        call(gate, 0, FAILED)
        call(gate, 1, FAILED)
    call(by_time, 62, FAILED)
    call(by_number, 62)
    call(by_number, 63)
    call(by_number, 64, FAILED)
    assert (by_time.state, by_time._tally.calls) == ("closed", 1)
    assert (by_number.state, by_number._tally.failures) == ("closed", 1)
    assert not by_time.is_idle(64)
    assert by_time.is_idle(200)


def test_slow_answers_count_as_failures_where_told() -> None:
    """A service that answers after a minute is down for whoever waits."""
    gate = breaker(slow_call=5)
    call(gate, 0, lasts=4.9)
    assert gate._tally.failures == 0
    call(gate, 10, lasts=5)
    assert gate.state == "open"


@pytest.mark.parametrize(
    ("counts", "ended", "calls", "failures"),
    [
        ((OSError,), FAILED, 1, 1),
        (OSError, Ended(EndKind.RAISED, KeyError("no such user")), 1, 0),
        ((KeyError,), Ended(EndKind.TIMED_OUT), 1, 1),
        ((Exception,), CANCELLED, 0, 0),
        ((Exception,), NOT_STARTED, 0, 0),
        ((Exception,), Ended(EndKind.RAISED, CircuitOpen("inner")), 0, 0),
        ((Exception,), Ended(EndKind.RAISED, Discard("nothing to do")), 0, 0),
        (lambda ended: None, FAILED, 0, 0),
        (lambda ended: ended.kind is EndKind.CANCELLED, CANCELLED, 1, 1),
        (lambda ended: False, FAILED, 1, 0),
    ],
)
def test_what_counts_is_the_users_to_say(counts: Any, ended: Ended, calls: int, failures: int) -> None:
    """A missing user is an answer; that nobody waited for it says nothing of the service."""
    gate = breaker(min_calls=10, counts=counts)
    call(gate, 0, ended)
    assert (gate._tally.calls, gate._tally.failures) == (calls, failures)


# ---------------------------------------------------------------- open, and back


def opened(gate: CircuitBreaker, now: float = 0.0) -> CircuitBreaker:
    """Let two calls fail."""
    call(gate, now, FAILED)
    call(gate, now, FAILED)
    assert gate.state == "open"
    return gate


def test_an_opening_lasts_twice_as_long_each_time_to_its_limit() -> None:
    """A service that is down for the night is not asked every half minute, and one that comes back is trusted anew."""
    gate, now, lasted = opened(breaker(max_open_for=60)), 0.0, []
    for _ in range(5):
        with pytest.raises(CircuitOpen) as refused:
            gate.eta(Pass(), now)
        assert refused.value.retry_in_s is not None
        lasted.append(refused.value.retry_in_s)
        now += refused.value.retry_in_s
        call(gate, now, FAILED)
    assert lasted == [10, 20, 40, 60, 60]
    call(gate, now + 60)
    assert gate.state == "closed"
    assert gate.recovered_at == now + 60
    opened(gate, now + 60)
    with pytest.raises(CircuitOpen, match="for 10 s more"):
        gate.eta(Pass(), now + 60)


def test_jitter_spreads_openings_and_never_shortens_them() -> None:
    """A hundred processes that saw the same outage do not come back in the same instant."""
    times = set[float]()
    for _ in range(50):
        gate = opened(breaker(jitter=0.5, on_open="hold"))
        times.add(gate.eta(Pass(), 0))
    assert len(times) > 40
    assert min(times) >= 10
    assert max(times) <= 15


def test_as_many_probes_as_told_must_work_before_it_closes() -> None:
    """One lucky call is not a service that is well."""
    gate = opened(breaker(probes=3))
    jobs = [Pass() for _ in range(3)]
    for job in jobs:
        assert gate.eta(job, 10) <= 10
        gate.take(job, 10)
    with pytest.raises(CircuitOpen, match="probes are under way"):
        gate.eta(Pass(), 10)
    for job in jobs[:2]:
        gate.give(job, 11, RETURNED)
        assert gate.state == "half_open"
        with pytest.raises(CircuitOpen):
            gate.eta(Pass(), 11)
    gate.give(jobs[2], 12, RETURNED)
    assert gate.state == "closed"


async def test_jobs_are_turned_away_at_once_and_not_retried() -> None:
    """Retrying against an open breaker is what it is there to prevent."""
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(1)  # else a loop that begins bodies at once sees two fail before the third is let in
        raise OSError

    with virtual_loop():
        async with TaskManager(Flow(Retry(on=OSError, attempts=5, base=1), breaker())) as manager:
            jobs = [manager.submit(work) for _ in range(4)]
            await manager.idle()
            for job in jobs:
                with pytest.raises((CircuitOpen, OSError)):
                    await job
        assert calls == 4, "all had begun before the first failed"
        assert all(job.attempt == 1 for job in jobs), "their second attempts were turned away"


async def test_held_jobs_wait_for_the_probe_and_follow_it() -> None:
    """Work that must not be lost waits out the outage, and does not fall upon the service when it stirs."""
    gate = breaker(on_open="hold")
    starts: list[float] = []

    with virtual_loop() as clock:

        async def work() -> None:
            starts.append(clock.monotonic() - began)
            await asyncio.sleep(1)
            if clock.monotonic() - began < 15:
                raise OSError

        async with TaskManager(gate, ConcurrencyLimit(2)) as manager:
            began = clock.monotonic()
            jobs = [manager.submit(work) for _ in range(6)]
            await asyncio.sleep(2)
            assert manager.why_waiting(jobs[-1]) == "CircuitBreaker lets it start in 9 seconds"
            assert gate.stats()["retry_in_s"] == pytest.approx(9)
            await manager.idle()
    assert [round(at) for at in starts] == [0, 0, 11, 32, 33, 33]
    assert gate.stats()["retry_in_s"] is None
    assert gate.state == "closed"


async def test_a_probe_that_hangs_opens_it_and_its_late_result_changes_nothing() -> None:
    """One call that never returns must not keep all others out for ever, nor close the breaker an hour later."""
    gate, moves = breaker(probe_timeout=5, on_open="hold"), list[str]()
    gate._on_change = lambda _, __, after: moves.append(after)

    async def fail() -> None:
        raise OSError

    with virtual_loop():
        async with TaskManager(gate) as manager:
            manager.submit(fail)
            manager.submit(fail)
            await manager.idle()
            manager.submit(asyncio.sleep, 8)
            await asyncio.sleep(14)
            assert moves == ["open", "half_open"]
            await asyncio.sleep(2)
            assert moves == ["open", "half_open", "open"]
            await manager.idle()
            assert gate.state == "open"


# ---------------------------------------------------------------- the must-hold column


class Call(NamedTuple):
    """One job of a scenario."""

    after: float
    lasts: float
    ends: str
    stalls: bool


CALLS: Final = st.lists(
    st.builds(
        Call,
        after=st.sampled_from([0.0, 0.0, 0.5, 2.0, 9.0]),
        lasts=st.sampled_from([0.0, 0.1, 1.0, 7.0, 30.0]),
        ends=st.sampled_from(["returns", "raises", "raises", "is cancelled", "is taken back", "times out"]),
        stalls=st.booleans(),
    ),
    min_size=4,
    max_size=25,
)


def watched(kind: type[CircuitBreaker]) -> type[CircuitBreaker]:
    """Return *kind*, which complains when it does what a breaker must not."""

    class Watched(kind):  # type: ignore[misc,valid-type]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, on_change=lambda *_: self.note())
            self.moves = 0
            self.since: dict[Any, int] = {}
            self.wrong: list[str] = []

        def note(self) -> None:
            self.moves += 1

        def take(self, job: Waiting, now: float) -> None:
            super().take(job, now)
            self.since[job] = self.moves
            inside = sum(moves == self.moves for moves in self.since.values())
            if self.state == "half_open" and inside > self._settings.probes:
                self.wrong.append(f"{inside} probes at once")
            if self.state in {"open", "isolated"}:
                self.wrong.append(f"let one through while {self.state}")

        def give(self, job: Waiting, now: float, ended: Ended) -> None:
            is_old = self.since.pop(job) != self.moves
            before = (self.state, self.moves, self._tally.calls, self._probing, self._worked)
            super().give(job, now, ended)
            after = (self.state, self.moves, self._tally.calls, self._probing, self._worked)
            if is_old and before != after:
                self.wrong.append(f"an old result changed {before} to {after}")

    return Watched


async def play(kind: type[CircuitBreaker], calls: list[Call], probes: int) -> None:
    """Play a scenario: no probe too many, no old result heard, and no slot lost."""
    with virtual_loop() as clock:
        options: dict[str, Any] = {"open_for": 5, "max_open_for": 20, "probes": probes, "probe_timeout": 12}
        gate: Any = watched(kind)(min_calls=2, on_open="hold", jitter=0, **options)
        loop = asyncio.get_running_loop()

        async def body(one: Call) -> None:
            worker = asyncio.current_task()
            assert worker is not None
            if one.stalls:
                clock.move_to(clock.monotonic_ns() + 30_000_000)
            if one.ends == "is cancelled":
                loop.call_later(one.lasts / 2, worker.cancel)
            await asyncio.sleep(one.lasts)
            if one.ends == "raises":
                raise OSError

        async with TaskManager(gate, ConcurrencyLimit(8)) as manager:
            jobs: list[Job[None]] = []
            for one in calls:
                await asyncio.sleep(one.after)
                timeout = one.lasts / 2 + 0.01 if one.ends == "times out" else None
                jobs.append(manager.options(timeout=timeout).submit(body, one))
                if one.ends == "is taken back":
                    run: Any = jobs[-1]._record
                    loop.call_later(one.lasts / 2, run.engine.cancel, run)
            async with asyncio.timeout(3_000):
                await manager.idle()
            await asyncio.sleep(30)
            for _ in range(probes):  # it comes back: no slot of a probe was lost
                async with asyncio.timeout(100):
                    await manager.submit(asyncio.sleep, 0)
        assert gate.wrong == []
        assert gate.state == "closed"
        assert gate._passes == {}


def property_of(
    kind: type[CircuitBreaker], *, examples: int, phases: tuple[Phase, ...] = tuple(Phase)
) -> Callable[[], None]:
    """Return the property of a breaker, for this class."""

    @settings(
        max_examples=examples, phases=phases, derandomize=len(phases) == 1, database=None, report_multiple_bugs=False
    )
    @given(calls=CALLS, probes=st.integers(1, 3))
    def holds(calls: list[Call], probes: int) -> None:
        asyncio.run(play(kind, calls, probes))

    return holds


def test_no_probe_too_many_no_old_result_no_slot_lost() -> None:
    """What three known libraries get wrong, for whatever calls come, fail, hang and are cancelled."""
    property_of(CircuitBreaker, examples=60)()


class LetsAllThrough(CircuitBreaker):
    """Half-open is as good as closed."""

    def eta(self, job: Waiting, now: float) -> float:
        return now if self._state == "half_open" else super().eta(job, now)


class HearsOldResults(CircuitBreaker):
    """Whoever ends is heard, whenever it began."""

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        self._passes[job] = self._epoch
        super().give(job, now, ended)


class KeepsCancelledProbes(CircuitBreaker):
    """A probe that says nothing keeps its slot."""

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        probing = self._probing
        super().give(job, now, ended)
        if self._state == "half_open" and ended.kind is EndKind.CANCELLED:
            self._probing = probing


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [
        (LetsAllThrough, AssertionError, "probes at once"),
        (HearsOldResults, AssertionError, "an old result changed"),
        (KeepsCancelledProbes, TimeoutError, None),
    ],
)
def test_the_property_tells_broken_breakers(
    kind: type[CircuitBreaker], error: type[Exception], told: str | None
) -> None:
    """A property that nothing breaks proves nothing."""
    with pytest.raises(error, match=told):
        property_of(kind, examples=150, phases=(Phase.generate,))()


# ---------------------------------------------------------------- health checks


async def probed_by(check: Any, *, wait: float = 12.0, **options: Any) -> CircuitBreaker:
    """Return a breaker of which *wait* seconds ago two calls failed, with jobs submitted meanwhile."""
    gate = breaker(health_check=check, on_open="hold", probe_timeout=5, **options)

    async def fail() -> None:
        raise OSError

    async with TaskManager(gate) as manager:
        jobs = [manager.submit(fail) for _ in range(2)]
        await manager.idle()
        assert gate.state == "open"
        job = manager.submit(asyncio.sleep, 0)
        await asyncio.sleep(wait)
        if gate.state == "open":
            assert not job.state.is_finished
            await job.cancel()
        else:
            await job
        assert all(job.state.is_finished for job in jobs)
    return gate


async def test_a_good_health_check_spares_jobs_the_risk_of_probing() -> None:
    """It is asked before any job is, and again until it says yes."""
    asked: list[float] = []
    with virtual_loop() as clock:
        began = clock.monotonic()

        async def check() -> bool:
            asked.append(clock.monotonic() - began)
            return len(asked) == 3

        gate = await probed_by(check, wait=80)
        assert gate.state == "closed"
        assert asked == [pytest.approx(10), pytest.approx(30), pytest.approx(70)]


async def raises() -> None:
    raise OSError


async def hangs() -> None:
    await asyncio.sleep(3600)


async def says_no() -> bool:
    return False


@pytest.mark.parametrize("check", [raises, hangs, says_no, lambda: 1 / 0], ids=["raises", "hangs", "no", "sync"])
async def test_a_bad_health_check_is_a_no_and_stops_nothing(check: Any) -> None:
    """The check is a program, too; while it hangs, the flow goes on."""
    with virtual_loop():
        gate = await probed_by(check, wait=16)
        assert gate.state == "open"
        assert gate.stats()["openings"] == 2
        gate.reset()


async def test_nobody_is_let_through_while_a_health_check_is_under_way() -> None:
    """It was asked to spare whoever comes now."""
    with virtual_loop():
        gate = await probed_by(hangs, wait=12)
        gate.update(on_open="fail")
        with pytest.raises(CircuitOpen, match="until its health check succeeds"):
            async with gate:
                pass
        gate.reset()


async def test_a_health_check_that_ignores_its_cancellation_is_not_begun_twice() -> None:
    """Hundreds of them would be the next outage."""
    running = begun = 0
    end = asyncio.Event()

    async def check() -> None:
        nonlocal running, begun
        running, begun = running + 1, begun + 1
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        running -= 1

    with virtual_loop():
        gate = await probed_by(check, wait=200)
        assert (running, begun) == (1, 1)
        assert gate.state == "open"
        end.set()
        await asyncio.sleep(1)
        assert running == 0
        gate.reset()


async def test_an_answer_that_comes_after_reset_is_not_heard() -> None:
    """Who closed it by hand knows more than a check that was under way."""
    with virtual_loop():
        gate = await probed_by(hangs, wait=11)
        gate.isolate()
        await asyncio.sleep(10)
        assert gate.state == "isolated"
        gate.reset()


# ---------------------------------------------------------------- by hand


async def test_isolate_keeps_all_out_until_reset() -> None:
    """For maintenance, of every key and of those that come later."""
    gate = breaker(by="host", name="api")
    async with gate.permit(host="a"):
        gate.isolate()
    for host in ("a", "new"):
        with pytest.raises(CircuitOpen, match=r"api\[host='\w+'\] is isolated until reset"):
            async with gate.permit(host=host):
                pass
    gate.reset()
    async with gate.permit(host="a"), gate.permit(host="new"):
        pass
    assert {stats["state"] for stats in gate.stats_by_key().values()} == {"closed"}


async def test_keys_break_one_by_one() -> None:
    """One host's outage is not another's, and a client's method is a health check of each."""

    class Client:
        def __deepcopy__(self, memo: object) -> Client:
            raise AssertionError("a client cannot be copied")

        async def ping(self) -> None: ...

    gate = breaker(by="host", health_check=Client().ping)
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            async with gate.permit(host="a"):
                raise OSError("down")
    with pytest.raises(CircuitOpen):
        async with gate.permit(host="a"):
            pass
    async with gate.permit(host="b"):
        pass
    gate.reset()


async def test_a_deadline_that_passes_says_nothing_of_the_service() -> None:
    """The job waited too long before it began. The bug: in an app that was a failure, in a manager it was none."""
    gates = [breaker(min_calls=1), breaker(min_calls=1)]
    app = Quarterjack()
    task = app.task(flow=Flow(gates[0], Deadline(5)))(hang)
    async with virtual_time(app) as world:
        job = await app.submit(task)
        async with TaskManager(gates[1], Deadline(5)) as manager:
            other = manager.submit(hang)
            await world.run_for(6)
        assert [job.state, other.state] == [JobState.TIMED_OUT, JobState.TIMED_OUT]
    assert [gate.state for gate in gates] == ["closed", "closed"]


async def hang() -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize("remembers", [{"window": 60}, {"window_calls": 20}], ids=["time", "calls"])
async def test_what_worked_for_a_key_is_not_forgotten_when_another_key_comes(remembers: dict[str, Any]) -> None:
    """The bug: who had not failed yet was dropped with all its good calls, and two failures more opened its breaker."""
    gate = CircuitBreaker(by="host", min_calls=2, jitter=0, **remembers)
    with virtual_loop():
        for _ in range(10):
            async with gate.permit(host="a"):
                pass
        for host in "bcdefgh":
            async with gate.permit(host=host):
                pass
        for _ in range(2):
            with pytest.raises(OSError, match="down"):
                async with gate.permit(host="a"):
                    raise OSError("down")
        assert gate.at("a").stats()["state"] == "closed"
        assert gate.at("a").stats()["calls"] == 12


async def test_keys_that_nobody_uses_any_more_are_forgotten() -> None:
    """Hosts come and go, those that failed too: what is remembered of them is not kept for ever."""
    gates = [CircuitBreaker(by="host", window=60), CircuitBreaker(by="host", window_calls=20)]
    with virtual_loop():
        for gate in gates:
            for number in range(100):
                with pytest.raises(OSError, match="down"):
                    async with gate.permit(host=number):
                        raise OSError("down")
        await asyncio.sleep(86_401)
        for gate in gates:
            for number in range(100, 200):
                async with gate.permit(host=number):
                    pass
            assert len(gate.keys()) <= 101


async def test_a_probe_that_has_ended_leaves_no_timer_and_no_job_behind() -> None:
    """The bug: its timeout was left to ring, and held the job and its result until then."""
    gate = breaker(probe_timeout=600)
    loop = asyncio.get_running_loop()
    with virtual_loop():
        async with TaskManager(gate) as manager:
            for _ in range(2):
                manager.submit(fail)
            await manager.idle()
            await asyncio.sleep(11)
            await manager.submit(asyncio.sleep, 0)
            assert gate.state == "closed"
            assert not Dispatcher.of(loop).alarms


async def fail() -> None:
    raise OSError("down")


def test_moves_are_told_and_a_bad_listener_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An alarm hangs on them."""
    moves: list[tuple[str, str]] = []

    def tell(gate: CircuitBreaker, before: str, after: str) -> None:
        moves.append((before, after))
        raise ValueError

    gate = opened(breaker(on_change=tell))
    call(gate, 10)
    gate.isolate()
    gate.reset()
    gate.reset()
    assert moves == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
        ("closed", "isolated"),
        ("isolated", "closed"),
    ]
    assert "on_change raised" in caplog.text


async def test_settings_change_together_or_not_at_all() -> None:
    """Half an update would be a breaker that nobody meant."""
    gate = breaker(on_open="hold")
    with pytest.raises(InvalidOption, match="probes must be a whole number from 1, got 0"):
        gate.update(min_calls=1, probes=0)
    with pytest.raises(InvalidOption, match=r"update takes failure_ratio, .* got 'window'"):
        gate.update(window=5)
    call(gate, 0, FAILED)
    assert gate.state == "closed", "min_calls is still 2"
    gate.update(min_calls=1, on_open="fail")
    call(gate, 0, FAILED)
    with pytest.raises(CircuitOpen):
        gate.eta(Pass(), 0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"failure_ratio": 0}, "failure_ratio must be a number above 0 and at most 1, got 0"),
        ({"failure_ratio": 1.5}, "failure_ratio must be"),
        ({"min_calls": 0}, "min_calls must be a whole number from 1"),
        ({"window": 0}, "window must be more than 0"),
        ({"window_calls": 5, "min_calls": 6}, "min_calls=6 is above window_calls=5"),
        ({"slow_call": -1}, "slow_call must be more than 0"),
        ({"open_for": "soon"}, "open_for must be seconds"),
        ({"open_for": 5, "max_open_for": 4}, "max_open_for must be open_for=5"),
        ({"jitter": 2}, "jitter must be"),
        ({"probes": 1.5}, "probes must be a whole number"),
        ({"probe_timeout": 0}, "probe_timeout must be more than 0"),
        ({"on_open": "wait"}, "on_open must be 'fail' or 'hold'"),
        ({"counts": ()}, "counts must be exception types"),
        ({"counts": (int,)}, "counts must be exception types"),
        ({"health_check": 5}, "health_check must be a function"),
        ({"on_change": 5}, "on_change must be a function"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_built(options: dict[str, Any], told: str) -> None:
    """A breaker that never opens is found out in the outage."""
    with pytest.raises(InvalidOption, match=told):
        CircuitBreaker(**options)


def test_the_refusal_says_what_to_expect_and_crosses_processes() -> None:
    """It is stored as a job's reason."""
    errors = [
        CircuitOpen("api", 3.0),
        CircuitOpen("api"),
        CircuitOpen("api", None, "half_open"),
        CircuitOpen("api", None, "isolated"),
    ]
    assert [str(error).partition(":")[0] for error in errors] == [
        "api is open for 3 s more",
        "api is open until its health check succeeds",
        "api is half-open, and its probes are under way",
        "api is isolated until reset()",
    ]
    assert [str(pickle.loads(pickle.dumps(error))) for error in errors] == [str(error) for error in errors]
    assert not isinstance(errors[0], JobError)


async def test_why_waiting_is_answered_though_the_breaker_would_turn_it_away() -> None:
    """A question must not raise what only the job's turn decides."""
    limit = ConcurrencyLimit(1)
    gate = breaker()
    async with TaskManager(limit, gate) as manager:
        first = manager.submit(asyncio.sleep, 3600)
        await asyncio.sleep(0)
        second = manager.submit(asyncio.sleep, 0)
        await asyncio.sleep(0)
        gate.isolate()
        assert manager.why_waiting(second) == "ConcurrencyLimit is full, and opens when somebody leaves"
        await first.cancel()
        with pytest.raises(CircuitOpen):
            await second
