"""Retries of a `TaskManager` and of an app: how many, when, for what, and within which budget.

What must hold is said once, in `holds`, of any class of policy; the broken ones
after it prove that it can fail."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import (
    CircuitOpen,
    ConcurrencyLimit,
    Fallback,
    Flow,
    InvalidOption,
    Job,
    JobFailed,
    JobState,
    Quarterjack,
    QueueFull,
    Retry,
    RetryBudget,
    RetryLater,
    TaskManager,
    Timeout,
    current_job,
)
from quarterjack.model import FinishKind, Outcome, OutcomeKind
from quarterjack.policies.backoff import equal_jitter, random_walk
from quarterjack.runtime.verdict import decide
from quarterjack.testing import virtual_loop, virtual_time

TIMEOUT_S: Final = 2.0
MOST_JOBS: Final = 4
STALL_S: Final = 0.1
ERRORS: Final[dict[str, tuple[type[Exception], tuple[Any, ...]]]] = {
    "os": (OSError, ("no route",)),
    "timeout": (TimeoutError, ("slow",)),
    "value": (ValueError, ("wrong",)),
    "open": (CircuitOpen, ("api", 5.0)),
}
"""Made anew each time: a traceback grows with each raise."""
WORTH: Final = {"os", "hang", "bad"}
"""What the policies below try again: OSError but not TimeoutError as such, attempts that ran too long, bad results."""


@dataclass(eq=False)
class Course:
    """What became of one job."""

    script: list[str]
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    state: JobState | None = None


def is_worth(error: Exception) -> bool:
    """Say what the policies below try again."""
    return isinstance(error, OSError)


def gives_up(error: Exception) -> bool:
    """Python made TimeoutError an OSError: one that a body raised is not meant."""
    return isinstance(error, TimeoutError) and str(error) == "slow"


async def cancel_at(job: Job[Any], after_s: float) -> None:
    """Cancel *job* in a while."""
    await asyncio.sleep(after_s)
    await job.cancel(0)


async def played(retry: Retry, scripts: list[list[str]], cancels: dict[int, float]) -> list[Course]:
    """Run a job for each script, step by step an attempt, with a stall of the loop for each "stall"."""
    courses = [Course(script) for script in scripts]
    with virtual_loop() as clock:

        async def body(course: Course) -> str:
            step = course.script[min(len(course.starts), len(course.script) - 1)]
            course.starts.append(clock.monotonic())
            try:
                await asyncio.sleep(3600 if step == "hang" else 0.25)
                if step == "stall":
                    clock.move_to(clock.monotonic_ns() + round(STALL_S * 1e9))
                if step in ERRORS:
                    kind, facts = ERRORS[step]
                    raise kind(*facts)
                return step
            finally:
                course.ends.append(clock.monotonic())

        async with TaskManager(Flow(retry, Timeout(TIMEOUT_S))) as manager:
            jobs = [manager.submit(body, course) for course in courses]
            cancelling = [asyncio.create_task(cancel_at(jobs[n % len(jobs)], at)) for n, at in cancels.items()]
        for task in cancelling:
            task.cancel()
        await asyncio.gather(*cancelling, return_exceptions=True)
        for course, job in zip(courses, jobs, strict=True):
            course.state = job.state
    return courses


def holds(retry: Retry, courses: Iterable[Course]) -> None:
    """Assert what spec and documentation promise of every policy."""
    for course in courses:
        script = [course.script[min(n, len(course.script) - 1)] for n in range(len(course.starts))]
        assert len(course.starts) <= retry.attempts, "attempts ≤ max"
        for before, (end, start) in zip(script, zip(course.ends, course.starts[1:], strict=False), strict=False):
            assert before in WORTH, f"{before} is never tried again"
            assert -1e-6 <= start - end <= retry.cap_s + MOST_JOBS * STALL_S + 1e-6, "delays ∈ [0, cap]"
            if retry.deadline_s is not None:
                assert start - course.starts[0] <= retry.deadline_s + 1e-6, "no attempt past the deadline"
        if script and script[-1] not in WORTH and course.state is not JobState.CANCELLED:
            assert (course.state is JobState.DONE) == (script[-1] in {"ok", "stall"})
        assert course.state is not None
        assert course.state.is_finished


STEPS: Final = st.lists(st.sampled_from(["ok", "bad", "hang", "stall", "os", "os", *ERRORS]), min_size=1, max_size=6)
POLICIES: Final = st.fixed_dictionaries(
    {
        "attempts": st.integers(1, 5),
        "deadline": st.none() | st.floats(0.5, 20),
        "base": st.none() | st.floats(0, 4),
        "cap": st.floats(4, 6),
        "mult": st.floats(1, 4),
        "jitter": st.sampled_from(["full", "equal", "decorrelated", "none"]),
        "retry_after": st.sampled_from([None, lambda error: 3.0, lambda error: None, lambda error: timedelta(days=9)]),
    }
)


def policy(kind: Callable[..., Retry], options: dict[str, Any]) -> Retry:
    """Return a policy of *kind*."""
    return kind(on=is_worth, give_up_on=gives_up, on_result=lambda result: result == "bad", **options)


@given(
    options=POLICIES,
    scripts=st.lists(STEPS, min_size=1, max_size=MOST_JOBS),
    cancels=st.dictionaries(st.integers(0, 3), st.floats(0, 10), max_size=2),
)
@settings(max_examples=120)
def test_retries_keep_to_their_policy(
    options: dict[str, Any], scripts: list[list[str]], cancels: dict[int, float]
) -> None:
    """Whatever attempts do, and whenever somebody cancels: what is promised of every policy."""
    retry = policy(Retry, options)
    holds(retry, asyncio.run(played(retry, scripts, cancels)))


class OneMore(Retry):
    """Counts retries instead of attempts."""

    def allows(self, failures: int, error: BaseException | None) -> bool:
        return Retry.allows(self, max(1, failures - 1), error)


class Stubborn(Retry):
    """Tries again whatever was raised."""

    def allows(self, failures: int, error: BaseException | None) -> bool:
        return failures < self.attempts


class Boundless(Retry):
    """Adds its jitter after the cap."""

    def pause_s(self, failures: int, rng: Random, error: BaseException | None = None) -> float:
        return Retry.pause_s(self, failures, rng, error) + 1.0


def late(**options: Any) -> Retry:
    """Return a policy that knows no deadline."""
    without: dict[str, Any] = {**options, "deadline": None}
    return Retry(**without)


@pytest.mark.parametrize(
    ("kind", "options", "script"),
    [
        (OneMore, {"attempts": 2}, ["os"] * 9),
        (Stubborn, {"attempts": 3}, ["open", "open"]),
        (Stubborn, {"attempts": 3}, ["value", "ok"]),
        (Boundless, {"cap": 0.0}, ["os", "ok"]),
        (late, {"attempts": 4, "deadline": 2.0, "base": 3.0, "jitter": "none"}, ["os"] * 9),
    ],
)
def test_check_finds_a_policy_that_does_not_hold(
    kind: Callable[..., Retry], options: dict[str, Any], script: list[str]
) -> None:
    """A check that cannot fail proves nothing."""
    right, wrong = policy(Retry, options), policy(kind, options)
    holds(right, asyncio.run(played(right, [script], {})))
    with pytest.raises(AssertionError):
        holds(right, asyncio.run(played(wrong, [script], {})))


# -- the budget ---------------------------------------------------------------------------------


def within_budget(budget: RetryBudget, kind: type[RetryBudget], calls: list[tuple[float, bool]]) -> None:
    """Assert that in every window retries stay below what *budget* promises; calls are (seconds since, a success?)."""
    tried = kind(ratio=budget.ratio, per_second=budget.per_second, window=budget.window_s)
    now, earned, spent = 1000.0, [], []
    for after, is_success in calls:
        now += after
        if is_success:
            tried.earn(now)
            earned.append(now)
        elif tried.spend(now):
            spent.append(now)
            since = now - budget.window_s
            successes = sum(at > since for at in earned)
            retries = sum(at > since for at in spent)
            assert retries <= budget.per_second * budget.window_s + budget.ratio * successes + 1e-6


CALLS: Final = st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=80)


@given(calls=CALLS, ratio=st.floats(0, 2), per_second=st.floats(0, 2), window=st.floats(0.5, 20))
def test_budget_bounds_retries_in_every_window(
    calls: list[tuple[float, bool]], ratio: float, per_second: float, window: float
) -> None:
    """The promise is kept wherever the window begins, not only where ours does."""
    within_budget(RetryBudget(ratio=ratio, per_second=per_second, window=window), RetryBudget, calls)


class Forgetful(RetryBudget):
    """Forgets what it spent a slice too early, as fixed windows do."""

    def _forget(self, now: float) -> int:
        number = RetryBudget._forget(self, now)
        while self._slices and self._slices[0][0] <= number - 10:
            self._slices.popleft()
        return number


def test_check_finds_a_budget_that_forgets_too_early() -> None:
    """The edge of a window is where limiters cheat."""
    calls = [(0.95, False), (0.0, False), (9.1, False), (0.0, False)]
    budget = RetryBudget(ratio=0, per_second=0.2, window=10)
    within_budget(budget, RetryBudget, calls)
    with pytest.raises(AssertionError):
        within_budget(budget, Forgetful, calls)


def test_budget_is_all_there_again_once_the_window_has_passed() -> None:
    """What was spent long ago binds nobody."""
    budget = RetryBudget(ratio=0.5, per_second=0.2, window=10)
    assert [budget.spend(5.0) for _ in range(4)] == [True, True, False, False]
    for _ in range(4):
        budget.earn(6.0)
    assert [budget.spend(6.0) for _ in range(4)] == [True, True, False, False]
    assert [budget.spend(18.0) for _ in range(4)] == [True, True, False, False]
    assert budget.stats(18.0) == {"left": 0.0, "retries": 6, "refused": 6}


async def test_outage_is_not_multiplied_where_jobs_share_a_budget() -> None:
    """Three attempts each would be 300 calls to a service that is down; the budget allows ten more than 100."""
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise OSError("down")

    with virtual_loop():
        retry = Retry(on=OSError, attempts=3, base=0.1, budget=RetryBudget())
        async with TaskManager(retry) as manager:
            jobs = [manager.submit(call) for _ in range(100)]
    assert calls == 110
    assert {job.state for job in jobs} == {JobState.FAILED}
    assert sum("the retry budget is spent" in (job.reason or "") for job in jobs) == 100


async def test_what_succeeds_earns_retries_for_others() -> None:
    """A service that fails one call in six is retried each time, by a fifth of its successes."""
    with virtual_loop():
        failed: set[int] = set()

        async def call(n: int) -> None:
            await asyncio.sleep(n / 10)
            if n % 6 == 5 and n not in failed:
                failed.add(n)
                raise OSError

        retry = Retry(on=OSError, attempts=2, base=0, budget=RetryBudget(per_second=0, ratio=0.2))
        async with TaskManager(retry) as manager:
            jobs = [manager.submit(call, n) for n in range(60)]
    assert failed
    assert {job.state for job in jobs} == {JobState.DONE}


# -- in a manager ----------------------------------------------------------------------------------


async def test_results_that_are_refused_are_tried_again_and_the_last_one_stays() -> None:
    """An answer that says "not yet" is no exception; when no attempt is left it is still the answer."""
    answers = iter(["202", "202", "200", "202", "202"])

    async def ask() -> str:
        return next(answers)

    with virtual_loop():
        async with TaskManager(Retry(on=(), on_result=lambda answer: answer == "202", attempts=3)) as manager:
            assert await manager.submit(ask) == "200"
        async with TaskManager(Retry(on=(), on_result=lambda answer: answer == "202", attempts=2)) as manager:
            job = manager.submit(ask)
            assert await job == "202"
            assert (job.state, job.attempt, job.failures) == (JobState.DONE, 2, 1)


async def test_retry_that_waits_for_its_gate_past_the_deadline_ends_with_its_error() -> None:
    """A slot that comes too late is not taken, and nobody waits for it in vain."""
    with virtual_loop() as clock:
        starts: list[float] = []
        began = clock.monotonic()

        async def fails() -> None:
            starts.append(clock.monotonic() - began)
            raise OSError("first")

        async def hold() -> None:
            await asyncio.sleep(100)

        limit = ConcurrencyLimit(1)
        async with TaskManager(limit) as manager:
            job = manager.options(retry=Retry(on=OSError, attempts=5, base=1, jitter="none", deadline=10)).submit(fails)
            holder = manager.submit(hold)
            with pytest.raises(OSError, match="first"):
                await job
            assert clock.monotonic() - began == pytest.approx(10)
            assert starts == [0.0]
            assert "past the deadline of 10 s" in (job.reason or "")
            assert holder.state is JobState.RUNNING
            await holder.cancel()
        assert limit.used == 0


async def test_predicate_that_raises_fails_its_job_and_no_other() -> None:
    """The user's code decides here; its mistake must not leave a job that never ends."""

    def broken(error: Any) -> bool:
        raise KeyError("typo")

    async def fails() -> None:
        raise OSError("first")

    async def works() -> str:
        return "fine"

    policies = [
        Retry(on=broken),
        Retry(on=OSError, give_up_on=broken),
        Retry(on=OSError, retry_after=broken),
        Retry(on=OSError, retry_after=lambda error: -1.0),
    ]
    for retry in policies:
        async with TaskManager(retry) as manager:
            job = manager.submit(fails)
            with pytest.raises((KeyError, InvalidOption)) as caught:
                await job
            assert isinstance(caught.value.__context__, OSError)
            assert await manager.submit(works) == "fine"
    async with TaskManager(Retry(on=(), on_result=broken)) as manager:
        with pytest.raises(KeyError, match="typo"):
            await manager.submit(works)


async def test_flow_and_options_do_not_both_retry() -> None:
    """Two retries would multiply their attempts."""
    manager = TaskManager(Retry(on=OSError))
    with pytest.raises(InvalidOption, match=r"the flow holds a retry already.*give one of the two"):
        manager.options(retry=2)
    with pytest.raises(InvalidOption, match="a Flow takes one Retry"):
        Flow(Retry(on=OSError), Retry(on=ValueError))
    manager.options(retry=None)  # type: ignore[arg-type]  # none is none of two


async def test_wish_of_the_body_ends_at_the_deadline() -> None:
    """`RetryLater(after=…)` names the pause, not the end of all patience."""

    async def later() -> None:
        raise RetryLater(after=30, reason="busy")

    with virtual_loop():
        async with TaskManager(Retry(on=(), attempts=100, deadline=100)) as manager:
            job = manager.submit(later)
            with pytest.raises(RetryLater):
                await job
            assert job.attempt == 4


async def test_slot_that_comes_after_the_deadline_in_a_stalled_loop_begins_nothing() -> None:
    """The instant that counts is the one at which the body would begin."""
    starts = 0

    async def fails() -> None:
        nonlocal starts
        starts += 1
        raise OSError("first")

    with virtual_loop() as clock:

        async def hold() -> None:
            await asyncio.sleep(9.5)
            clock.move_to(clock.monotonic_ns() + 10**9)

        async with TaskManager(ConcurrencyLimit(1)) as manager:
            job = manager.options(retry=Retry(on=OSError, base=1, jitter="none", deadline=10)).submit(fails)
            manager.submit(hold)
            with pytest.raises(OSError, match="first"):
                await job
    assert starts == 1


@pytest.mark.parametrize("on", [Exception, lambda error: True])
def test_what_a_flow_refused_is_never_tried_again(on: Any) -> None:
    """To ask again at once is what a breaker is there to prevent."""
    retry = Retry(on=on)
    assert retry.allows(1, OSError())
    assert not any(retry.allows(1, error) for error in (CircuitOpen("api"), QueueFull(3), asyncio.CancelledError()))


def test_a_budget_is_asked_once_for_a_body_that_does_not_stop() -> None:
    """Its retry is decided when it has really ended, and only then costs one."""
    budget = RetryBudget(per_second=0.1, window=10)
    retry = Retry(on=TimeoutError, budget=budget)
    still = Outcome(OutcomeKind.TIMED_OUT, stopped=False)
    given: dict[str, Any] = {"failures": 0, "retry": retry, "cancel_requested": False, "rng": Random(0)}
    kinds = [decide(one, **given).kind for one in (still, still._replace(stopped=True), still._replace(stopped=True))]
    assert kinds == [FinishKind.RETRY, FinishKind.RETRY, FinishKind.TIMED_OUT]


def test_mistake_of_a_predicate_shows_what_it_was_asked_about() -> None:
    """Where the body ran elsewhere, in a thread, Python does not note it by itself."""
    error = OSError("first")
    retry = Retry(on=lambda error: error.missing)  # type: ignore[attr-defined]
    outcome = Outcome(OutcomeKind.RAISED, error=error)
    verdict = decide(outcome, failures=0, retry=retry, cancel_requested=False, rng=Random(0))
    assert verdict.error is not None
    assert isinstance(verdict.error.exception, AttributeError)
    assert "OSError: first" in verdict.error.traceback_text


# -- in an app -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flow", [False, True])
async def test_app_keeps_to_the_same_policy(in_flow: bool) -> None:
    """Predicates, results, server's hints and the deadline mean the same where a store keeps the job."""
    app = Quarterjack()

    retry = Retry(
        on=lambda error: "again" in str(error),
        on_result=lambda result: result == "bad",
        retry_after=lambda error: float(str(error).split()[-1]),
        attempts=9,
        base=5,
        jitter="none",
        deadline=60,
    )

    async def answered(*answers: str) -> str:
        answer = answers[current_job().attempt - 1]
        if answer.startswith(("again", "never")):
            raise ValueError(answer)
        return answer

    ask = app.task(flow=Flow(retry))(answered) if in_flow else app.task(retry=retry)(answered)
    async with virtual_time(app) as world:
        begin = world.now
        job = await app.submit(ask, "again 7", "bad", "fine")
        assert await job == "fine"
        assert (job.attempt, job.failures, (world.now - begin).total_seconds()) == (3, 2, 17)
        final = await app.submit(ask, "never 1", "fine")
        with pytest.raises(JobFailed, match="never 1"):
            await final
        assert final.attempt == 1
        late = await app.submit(ask, "again 50", "again 50", "fine")
        with pytest.raises(JobFailed):
            await late
        assert late.attempt == 2
        assert "past the deadline of 60 s" in (late.reason or "")


async def test_deadline_of_an_app_counts_from_when_the_job_was_due() -> None:
    """A delay of a day uses up nothing, and `app.retry` begins anew."""
    app = Quarterjack()

    @app.task(retry=Retry(on=OSError, attempts=9, base=4, mult=1, jitter="none", deadline=10))
    async def fails() -> None:
        raise OSError

    async with virtual_time(app):
        for delay in (0, 86_400):
            job = await app.submit(fails.options(delay=delay))
            with pytest.raises(JobFailed):
                await job
            assert job.attempt == 3
        assert await app.retry(task="fails") == 2
        for again in await app.jobs(task="fails"):
            with pytest.raises(JobFailed):
                await again
            assert again.attempt == 6


@pytest.mark.parametrize("in_flow", [False, True])
async def test_retry_that_found_no_slot_in_time_is_not_begun(in_flow: bool) -> None:
    """The claim, or the gate, comes after the deadline: the job ends with what went wrong, as in a manager."""
    app = Quarterjack(concurrency=5 if in_flow else 1)

    limit = ConcurrencyLimit(1)
    retry = Retry(on=OSError, attempts=9, base=4, jitter="none", deadline=10)
    starts = 0

    async def fails() -> None:
        nonlocal starts
        starts += 1
        raise OSError("first")

    async def hold() -> None:
        await asyncio.sleep(60)

    failing = app.task(flow=Flow(limit, retry))(fails) if in_flow else app.task(retry=retry)(fails)
    holding = app.task(flow=limit)(hold) if in_flow else app.task(hold)
    async with virtual_time(app):
        job = await app.submit(failing)
        await asyncio.sleep(1)
        holder = await app.submit(holding)
        with pytest.raises(JobFailed) as caught:
            await job
        assert "past the deadline of 10 s" in (job.reason or "")
        assert isinstance(caught.value.__cause__, OSError)
        assert starts == 1
        await holder


async def test_what_a_fallback_returns_is_not_judged() -> None:
    """It is the second best, and the last word: asked again it would come for ever."""
    app = Quarterjack()
    retry = Retry(on=OSError, on_result=lambda result: result == "bad", attempts=2, base=0)

    @app.task(retry=retry, flow=Flow(Fallback("bad")))
    async def ask() -> str:
        raise ValueError

    async with virtual_time(app):
        job = await app.submit(ask)
        assert await job == "bad"
        assert job.attempt == 1


async def test_app_shares_a_budget_over_its_tasks() -> None:
    """The service behind two tasks is one."""
    app = Quarterjack()
    retry = Retry(on=OSError, attempts=5, base=0.1, budget=RetryBudget(per_second=0.5))
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise OSError

    one, two = app.task(name="one", retry=retry)(call), app.task(name="two", retry=retry)(call)
    async with virtual_time(app):
        for job in [await app.submit(task) for task in (one, two) * 10]:
            with pytest.raises(JobFailed):
                await job
            assert "the retry budget is spent" in (job.reason or "")
    assert calls == 25


# -- values ----------------------------------------------------------------------------------------------


def test_a_policy_is_a_value_that_shows_how_it_was_written() -> None:
    """It stands in messages, travels with options, and is compared; a budget stays the one that is shared."""
    budget = RetryBudget()
    retry = Retry(on=OSError, attempts=4, cap=timedelta(minutes=1), budget=budget)
    assert (
        repr(retry) == "Retry(on=OSError, attempts=4, cap=60, budget=RetryBudget(ratio=0.2, per_second=1, window=10))"
    )
    assert retry == Retry(on=(OSError,), attempts=4, cap=60, budget=budget)
    copied = pickle.loads(pickle.dumps(retry))
    assert (copied.on, copied.cap_s, copied.budget.window_s) == ((OSError,), 60, 10)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mult": 0.5}, "mult"),
        ({"mult": float("nan")}, "mult"),
        ({"deadline": 0}, "deadline"),
        ({"on_result": 5}, "on_result"),
        ({"retry_after": int}, "retry_after"),
        ({"give_up_on": "OSError"}, "give_up_on"),
        ({"budget": 0.2}, "budget"),
    ],
)
def test_option_that_means_nothing_is_refused(options: dict[str, Any], named: str) -> None:
    """Here, and not at the first failure."""
    with pytest.raises(InvalidOption, match=named):
        Retry(on=OSError, **options)


@pytest.mark.parametrize("options", [{"ratio": -0.1}, {"per_second": float("nan")}, {"window": 0}, {"ratio": "0.2"}])
def test_budget_that_means_nothing_is_refused(options: dict[str, Any]) -> None:
    """Likewise."""
    with pytest.raises(InvalidOption, match=next(iter(options))):
        RetryBudget(**options)


@given(base=st.floats(0, 1e6), cap=st.floats(0, 1e6), failures=st.integers(1, 10**6), seed=st.integers())
def test_every_jitter_stays_within_the_cap(base: float, cap: float, failures: int, seed: int) -> None:
    """And equal jitter above its half, a walk above its base."""
    rng = Random(seed)
    assert cap / 2 <= equal_jitter(cap, rng) <= cap
    assert min(base, cap) <= random_walk(failures, base, cap, rng) <= cap


def test_random_walk_grows_as_one_that_goes_on() -> None:
    """Its pauses begin near the base and reach for the cap, none of them by a fixed ladder."""
    rng = Random(7)
    means = [sum(random_walk(n, 1.0, 100.0, rng) for _ in range(500)) / 500 for n in (1, 2, 3, 5, 9)]
    assert all(earlier < later for earlier, later in pairwise(means)), means
    assert 1.8 < means[0] < 2.2
