"""What is refused at the door, by which error, and that the message says what to do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from quarterjack import (
    At,
    Cron,
    DuplicateName,
    Every,
    Group,
    InvalidArguments,
    InvalidOption,
    InvalidTrigger,
    JobFailed,
    JobNotFinished,
    JobTimedOut,
    LoopThread,
    NaiveDatetime,
    Overlap,
    ProcessExecutor,
    Quarterjack,
    Retry,
    TaskManager,
    ThreadExecutor,
    Unique,
    UnknownSchedule,
    UnknownTask,
    UsageError,
    current_job,
    gather,
)
from quarterjack.testing import virtual_time
from tests.app.kit import sleeper

BAD_SECONDS = [-1, math.nan, math.inf, 1e12, "10", None, True, timedelta(seconds=-1)]


@pytest.mark.parametrize("value", [0, *(v for v in BAD_SECONDS if v is not None)], ids=repr)
@pytest.mark.parametrize("option", ["timeout", "start_deadline"])
def test_positive_duration_is_asked_for(option: str, value: Any) -> None:
    """A timeout of 0 or NaN would end every job, or none."""
    app = Quarterjack()
    with pytest.raises(InvalidOption, match=option):
        sleeper(app, **{option: value})


@pytest.mark.parametrize("value", BAD_SECONDS, ids=repr)
@pytest.mark.parametrize("option", ["delay", "cancel_grace"])
def test_duration_of_zero_or_more_is_asked_for(option: str, value: Any) -> None:
    """Negative and endless waits are typing errors."""
    task: Any = sleeper(Quarterjack())
    with pytest.raises(InvalidOption, match=option):
        task.options(**{option: value})
    task.options(**{option: 0})


@pytest.mark.parametrize("value", BAD_SECONDS, ids=repr)
@pytest.mark.parametrize("option", ["shutdown_grace", "lease", "watchdog"])
def test_apps_durations_are_checked(option: str, value: Any) -> None:
    """A wrong setting is told when the app is made, not at its end."""
    if option == "watchdog" and value is None:
        assert Quarterjack(watchdog=None).watchdog_s is None
        return
    with pytest.raises(InvalidOption, match=option):
        Quarterjack(**{option: value})


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1e30], ids=repr)
@pytest.mark.parametrize("field", ["seconds", "milliseconds", "days"])
def test_periods_are_checked_when_the_trigger_is_built(field: str, value: Any) -> None:
    """`Every(seconds=-1)` fails at import, on its own line."""
    with pytest.raises(InvalidTrigger):
        Every(**{field: value})


@pytest.mark.parametrize(
    "policies",
    [
        {"jitter": -1}, {"jitter": math.nan}, {"max_lateness": -1}, {"max_runs": 0}, {"max_catchup": 0},
        {"pause_on_failure": 0}, {"overlap": "sometimes"}, {"missed": "never"}, {"max_runs": 1.5},
        {"missed": "all", "overlap": "skip"}, {"overlapp": "skip"}, {"start": "today"},
    ],
    ids=str,
)  # fmt: skip
async def test_policies_are_checked(policies: dict[str, Any]) -> None:
    """A policy that means nothing must not be taken for the default."""
    name = next(iter(policies))
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app):
        with pytest.raises(InvalidOption, match=name):
            await app.schedule(task.bind(0.0), Every(minutes=1), id="x", **policies)
        assert await app.schedules() == []


@pytest.mark.parametrize(
    "policy",
    [{"attempts": 0}, {"attempts": "3"}, {"base": -1}, {"cap": math.nan}, {"jitter": "some"}, {"on": "OSError"}],
)
def test_retry_policies_are_checked(policy: dict[str, Any]) -> None:
    """A wrong policy would show only when the first job fails, at night."""
    given: dict[str, Any] = {"on": Exception, **policy}
    with pytest.raises(InvalidOption):
        Retry(**given)


@pytest.mark.parametrize("maximum", [0, -1, 1.5])
def test_bounds_of_overlap_are_checked(maximum: Any) -> None:
    """`allow(max=0)` would never run."""
    with pytest.raises(InvalidOption, match="maximum"):
        Overlap("allow", maximum)


@pytest.mark.parametrize(
    "options",
    [{"key": ""}, {"key": "x", "scope": "ever"}, {"key": "x", "scope": timedelta(0)}, {"key": "x", "on_conflict": "?"}],
)
def test_unique_is_checked(options: dict[str, Any]) -> None:
    """A misspelt scope would let two jobs through."""
    with pytest.raises(InvalidOption):
        Unique(**options)


async def test_naive_datetimes_are_refused_with_the_fix() -> None:
    """A datetime without a zone names no instant, and guessing would be wrong half of the time."""
    app = Quarterjack()
    task = sleeper(app)
    naive = datetime(2026, 3, 2, 9)
    async with virtual_time(app):
        with pytest.raises(NaiveDatetime, match="tzinfo=UTC"):
            task.options(run_at=naive)
        for policy in ("start", "end"):
            with pytest.raises(NaiveDatetime, match=policy):
                await app.schedule(task.bind(0.0), Every(minutes=1), **{policy: naive})  # type: ignore[arg-type]
        with pytest.raises(NaiveDatetime, match="since"):
            await app.jobs(since=naive)
        await app.schedule(task.bind(0.0), Every(minutes=1))
        with pytest.raises(NaiveDatetime, match="until"):
            await app.pause("sleeper", until=naive)
    with pytest.raises(NaiveDatetime):
        Every(minutes=1).preview(1, after=naive)


@pytest.mark.parametrize("build", [lambda: At("10:00", tz="Europe/Room"), lambda: Cron("0 0 * * *", tz="Mars")])
def test_unknown_zone_is_refused_when_the_trigger_is_built(build: Any) -> None:
    """A misspelt zone must not mean UTC."""
    with pytest.raises(InvalidTrigger, match=r"zone|tz"):
        build()


def test_duplicate_task_name_is_refused_at_registration() -> None:
    """Two functions under one name: only one of them would ever run."""
    app = Quarterjack()
    sleeper(app)
    with pytest.raises(DuplicateName, match="sleeper"):
        sleeper(app)


async def test_duplicate_across_groups_is_refused_at_the_start() -> None:
    """Group names make full names; equal ones are found before anything runs."""
    app = Quarterjack()
    for _ in range(2):
        group = Group("g")
        sleeper(group)  # type: ignore[arg-type]
        app.include_group(group)
    with pytest.raises(DuplicateName, match=r"g\.sleeper"):
        await app.__aenter__()
    assert not app.is_running


async def test_duplicate_schedule_id_in_code_is_refused() -> None:
    """The second would silently replace the first."""
    app = Quarterjack()
    for name in ("a", "b"):

        @app.task(Every(minutes=1), name=name, id="twice")
        async def task() -> None: ...

    with pytest.raises(DuplicateName, match="twice"):
        await app.__aenter__()


async def test_task_of_another_app_is_refused() -> None:
    """It would wait for ever: nobody here knows it."""
    app, other = Quarterjack(), Quarterjack()
    task = sleeper(other)
    async with virtual_time(app):
        for attempt in (app.submit(task, 1.0), app.submit_many([task.bind(1.0)]), app.call(task, 1.0)):
            with pytest.raises(UnknownTask, match="not registered in this app"):
                await attempt
        with pytest.raises(UnknownTask):
            await app.schedule(task.bind(1.0), Every(minutes=1))


@pytest.mark.parametrize("thing", [print, None])
async def test_what_is_no_task_is_refused(thing: Any) -> None:
    """The decorator was forgotten; the message says so."""
    app = Quarterjack()
    async with virtual_time(app):
        with pytest.raises(UnknownTask, match="decorate"):
            await app.submit(thing)


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2), {}), ((1,), {"more": 2}), ((), {"second": 1})])
async def test_arguments_that_do_not_fit_are_refused_where_they_are_given(args: Any, kwargs: Any) -> None:
    """The traceback must point at the submit, not at a worker an hour later."""
    app = Quarterjack()
    task: Any = sleeper(app)
    async with virtual_time(app) as world:
        with pytest.raises(InvalidArguments, match=r"sleeper\(seconds: .*float"):
            await app.submit(task, *args, **kwargs)
        with pytest.raises(TypeError):
            task.bind(*args, **kwargs)
        assert world.jobs() == []


@pytest.mark.parametrize("value", [object(), "many", [1]])
async def test_arguments_of_the_wrong_type_are_refused_in_a_strict_app(value: Any) -> None:
    """What a durable store would refuse, a test on memory must refuse too."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app):
        with pytest.raises(InvalidArguments):
            await app.submit(task, value)


@pytest.mark.parametrize("options", [{"priorty": 1}, {"priority": -1}, {"priority": 1.5}, {"queue": ""}, {"retry": 0}])
def test_options_are_checked_where_they_are_written(options: dict[str, Any]) -> None:
    """Unknown and impossible options are errors, with the nearest right name."""
    task = sleeper(Quarterjack())
    with pytest.raises(InvalidOption, match=next(iter(options))):
        task.options(**options)


def test_misspelt_option_names_the_right_one() -> None:
    """The next thing to type stands in the message."""
    with pytest.raises(InvalidOption, match="did you mean 'priority'"):
        sleeper(Quarterjack()).options(priorty=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("fn", [lambda: None, iter([1]), 5])
def test_what_cannot_be_a_task_is_refused(fn: Any) -> None:
    """Nameless and uncallable things."""
    with pytest.raises(InvalidOption):
        Quarterjack().task(fn)


def test_generator_function_is_refused() -> None:
    """Its body would never begin."""
    with pytest.raises(InvalidOption, match="generator"):

        @Quarterjack().task
        def gen() -> Any:
            yield 1


async def test_bulk_verbs_without_a_filter_are_refused() -> None:
    """`cancel()` by accident must not cancel everything."""
    app = Quarterjack()
    async with virtual_time(app):
        with pytest.raises(InvalidOption, match="needs a filter"):
            await app.cancel()
        with pytest.raises(InvalidOption, match="needs a filter"):
            await app.retry()


@pytest.mark.parametrize("given", [5, "", b"x", "x" * 201])
async def test_schedule_id_that_is_no_name_is_refused(given: Any) -> None:
    """Ids are compared and sorted: a number among them would stop the scheduler of everybody."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app):
        with pytest.raises(InvalidOption, match="id must be a name"):
            await app.schedule(task.bind(0.0), Every(minutes=1), id=given)

    with pytest.raises(InvalidOption, match="id must be a name"):

        @app.task(Every(minutes=1), id=given)
        async def declared() -> None: ...


async def test_a_call_in_place_of_a_task_is_told_how_to_write_it() -> None:
    """`app.submit(add(1))` and `app.submit("add")` are what newcomers write first."""
    app = Quarterjack()

    @app.task
    async def add(n: int) -> int:
        return n

    async with virtual_time(app):
        with pytest.raises(UnknownTask, match=r"write app\.submit\(add, …\)"):
            await app.submit(add(1))  # type: ignore[call-overload]
        with pytest.raises(UnknownTask, match="not its name"):
            await app.submit("add", 1)  # type: ignore[call-overload]


async def test_gather_of_what_are_no_jobs_is_told_how_to_write_it() -> None:
    """`gather(a, b)` is asyncio's form, and a forgotten await gives a coroutine."""
    app = Quarterjack()
    task = sleeper(app)
    untyped: Any = gather
    async with virtual_time(app):
        job = await app.submit(task, 0.0)
        for wrong in ((job, job), (job,)):
            with pytest.raises(UsageError, match=r"gather\(\[first, second\]\)"):
                await untyped(*wrong)
        with pytest.raises(UsageError, match=r"await app\.submit"):
            await untyped([app.submit(task, 0.0)])


async def test_misspelt_filters_are_refused() -> None:
    """A misspelt task or state would pass for "there are none"."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app):
        await app.submit(task, 0.0)
        with pytest.raises(UnknownTask, match="did you mean 'sleeper'"):
            await app.jobs(task="sleper")
        with pytest.raises(UnknownTask):
            await app.retry(task="sleper")
        with pytest.raises(InvalidOption, match="done, failed"):
            await app.jobs(state="dne")  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="limit must be a whole number from 0, got -1"):
            await app.jobs(limit=-1)
        with pytest.raises(InvalidOption, match="n must be a whole number"):
            await app.slowest(1.5)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="limit must be a whole number from 1"):
            app.events(0)


async def test_result_and_wait_say_which_job_is_not_finished() -> None:
    """An empty `TimeoutError:` in a log helps nobody."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app):
        job = await app.submit(task, 60.0)
        with pytest.raises(JobNotFinished, match=r"\(sleeper\) is"):
            job.result()
        with pytest.raises(TimeoutError, match=r"\(sleeper\) is running after 5 s of waiting; it goes on"):
            await job.wait(5)
        with pytest.raises(JobTimedOut, match="longer than its timeout"):
            await (await app.submit(task.options(timeout=1), 60.0)).wait(5)


@pytest.mark.parametrize("wrong", [5, None, "print", lambda: None], ids=["number", "None", "text", "no parameters"])
async def test_callbacks_and_wrappers_that_cannot_be_called_are_refused(wrong: Any) -> None:
    """They would fail at each call, at night."""
    app = Quarterjack()
    task = sleeper(app)
    with pytest.raises(InvalidOption, match="two arguments"):
        app.around(wrong)
    async with virtual_time(app):
        job = await app.submit(task, 1.0)
        with pytest.raises(InvalidOption, match="on_done takes a function of one argument"):
            job.on_done(wrong)
        with pytest.raises(InvalidOption, match="on_done"):
            task.on_done(wrong)


async def test_strict_apps_check_what_schedules_are_given() -> None:
    """As of a job: what fails on a durable store is to fail in the test."""
    app = Quarterjack()

    @app.task
    async def fetch(url: str) -> None: ...

    async with virtual_time(app):
        with pytest.raises(InvalidArguments, match="argument url of fetch"):
            await app.schedule(fetch.bind(5), Every(minutes=1), id="x")  # type: ignore[arg-type]


async def test_strict_apps_take_results_through_json() -> None:
    """Whoever awaits a job gets what a durable store would give: typed by the task's return hint, else plain JSON."""
    app = Quarterjack()

    @app.task
    async def untyped() -> Any:
        return {1: ("a", "b")}

    @app.task
    async def typed() -> dict[int, tuple[str, timedelta]]:
        return {1: ("a", timedelta(seconds=90))}

    async with virtual_time(app):
        assert await (await app.submit(untyped)) == {"1": ["a", "b"]}
        assert await (await app.submit(typed)) == {1: ("a", timedelta(seconds=90))}
        assert await app.call(untyped) == {"1": ["a", "b"]}


async def test_what_verbs_are_given_by_position_is_refused_with_what_to_write() -> None:
    """`app.cancel(job.id)` is what a newcomer tries first; Python's own words name a private class."""
    app = Quarterjack()
    task = app.task(add)
    verbs: Any = app
    async with app:
        with pytest.raises(InvalidOption, match=r"`await \(await app.job\(id\)\).cancel\(\)`, got 'x-1'"):
            await verbs.cancel("x-1")
        with pytest.raises(InvalidOption, match="retry takes filters by name"):
            await verbs.retry("x-1")
        with pytest.raises(InvalidOption, match=r"app.submit_many\(task.bind\(item\) for item in …\)"):
            await verbs.submit_many(task, range(3))
        with pytest.raises(UnknownSchedule, match="a schedule is named by its id, as in 'add'"):
            await verbs.pause(task)


def test_method_under_a_trigger_is_told_apart_from_a_missing_argument() -> None:
    """A default for self is no cure."""
    app = Quarterjack()
    with pytest.raises(InvalidOption, match=r"`app.task\(trigger\)\(obj.tick\)`"):

        @app.task(Every(seconds=1))
        async def tick(self: object) -> None: ...  # as it is when the decorator in a class body sees it


async def test_virtual_clock_speaks_in_dates() -> None:
    """Nanoseconds since 1970 are not for people."""
    async with virtual_time(Quarterjack(), start="2026-03-02T09:00") as world:
        with pytest.raises(InvalidOption, match=r"is past 2020-01-01T00:00:00\+00:00: it shows 2026-03-02T09:00"):
            await world.run_until("2020-01-01")
        with pytest.raises(InvalidOption, match="'tomorrow' is no instant, as 2026-03-01T09:00 is one"):
            await world.run_until("tomorrow")


async def add(a: int = 1) -> int:
    """Return what it is given."""
    return a


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (
            ProcessExecutor,
            {"slots": 2},
            "ProcessExecutor has no option 'slots'; how many children there are is workers=",
        ),
        (ProcessExecutor, {"max_job": 5}, "ProcessExecutor has no option 'max_job'; did you mean 'max_jobs'?"),
        (ThreadExecutor, {"workers": 2}, "ThreadExecutor has no option 'workers'; it takes"),
        (LoopThread, {}, "LoopThread needs name; it takes"),
    ],
)
def test_options_of_executors_are_refused_like_all_others(
    kind: Callable[..., object], given: dict[str, Any], words: str
) -> None:
    """One calls it slots, another one workers: Python's own TypeError leaves the reader to look it up."""
    with pytest.raises(InvalidOption, match=re.escape(words)):
        kind(**given)


@pytest.mark.parametrize("figures", [(math.nan,), (1, math.inf), ("3",), (None,), (10**400,)])
async def test_progress_that_is_no_finite_number_is_refused(figures: tuple[Any, ...]) -> None:
    """No store and no page could show it; the line that says it is named."""
    app = Quarterjack()

    @app.task
    async def body() -> None:
        current_job().progress(*figures)

    async with virtual_time(app):
        with pytest.raises(JobFailed, match="of a job's progress must be a finite number, got"):
            await (await app.submit(body))
        async with TaskManager() as manager:
            with pytest.raises(InvalidOption, match="must be a finite number"):
                await manager.submit(body)
