"""Registration: what decorators, groups and apps refuse on the line where it is written, and who owns a group."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from inspect import Parameter, signature
from typing import Any

import pytest

from quarterjack import (
    DuplicateName,
    Every,
    Forever,
    Group,
    InvalidOption,
    Job,
    OnShutdown,
    OnStartup,
    Quarterjack,
    Retry,
    UsageError,
)
from quarterjack.testing import virtual_time
from tests.app.kit import sleeper

# -- what a trigger calls ----------------------------------------------------------------


@pytest.mark.parametrize("trigger", [Every(seconds=1), Forever(), OnStartup(), OnShutdown()], ids=repr)
def test_trigger_on_a_task_with_a_required_argument_is_refused(trigger: Any) -> None:
    """Nobody passes it: every fire would fail, for ever."""

    async def fetch(url: str) -> None: ...

    with pytest.raises(InvalidOption, match=r"'url'.*default.*fetch\.bind"):
        Quarterjack().task(trigger)(fetch)


def test_trigger_on_a_method_is_refused() -> None:
    """A class has no `self` to give; the message says where to register it instead."""

    class Shop:
        async def open_up(self) -> None: ...

    with pytest.raises(InvalidOption, match="a method without its object"):
        Quarterjack().task(Every(seconds=1))(Shop.open_up)
    Quarterjack().task(Every(seconds=1))(Shop().open_up)


def test_trigger_added_to_a_task_is_checked_as_the_first() -> None:
    """Decorating a task again is another way to the same mistake."""
    app = Quarterjack()

    @app.task
    async def fetch(url: str) -> None: ...

    with pytest.raises(InvalidOption, match="'url'"):
        app.task(Every(seconds=1))(fetch)


# -- options of the decorator ------------------------------------------------------------


def test_fields_of_a_rule_are_told_to_stand_in_one() -> None:
    """`@app.task(seconds=5)` is what one types first; the message is what to type next."""
    task: Any = Quarterjack().task
    with pytest.raises(InvalidOption, match=r"write @app\.task\(Every\(minutes=1, seconds=5\)\)"):
        task(minutes=1, seconds=5, timeout=3)
    with pytest.raises(InvalidOption, match=r"write @app\.task\(At\(hour=5\)\)"):
        task(hour=5)
    with pytest.raises(InvalidOption, match="did you mean 'timeout'"):
        task(timout=5)
    with pytest.raises(InvalidOption, match="did you mean 'name'"):
        task(nam="x")


@pytest.mark.parametrize(
    "make", [lambda **given: Quarterjack().task(**given), Quarterjack, lambda **given: Group("g", **given)]
)
def test_flow_is_among_the_options_that_are_told(make: Callable[..., object]) -> None:
    """The bug: of flows=, or limit=, all options were listed but the one that was meant."""
    with pytest.raises(InvalidOption, match="no option 'flows'; did you mean 'flow'"):
        make(flows=1)
    with pytest.raises(InvalidOption, match=r"no option 'xyz'; it takes .*\bflow\b"):
        make(xyz=1)


@pytest.mark.parametrize("options", [{}, {"timeout": 5}])
def test_class_of_rules_is_no_function(options: dict[str, Any]) -> None:
    """`@app.task(Every)` would register the class, and never run the function below."""
    task: Any = Quarterjack().task
    with pytest.raises(InvalidOption, match=r"Every is a class of rules.*write @app\.task\(Every\(…\)\)"):
        task(Every, **options)


def test_decorator_used_twice_keeps_its_name() -> None:
    """The second function must not become a task of its own name in silence."""
    named = Quarterjack().task(name="one")

    @named
    async def first() -> None: ...

    with pytest.raises(DuplicateName, match="'one'"):

        @named
        async def second() -> None: ...


@pytest.mark.parametrize("name", ["", 5, "x" * 201])
def test_task_name_that_is_no_name_is_refused(name: Any) -> None:
    """It stands in logs, filters and stores."""
    decorate: Any = Quarterjack().task(name=name)
    with pytest.raises(InvalidOption, match="name must be a name of 1 to 200 characters"):
        decorate(lambda: None)


@pytest.mark.parametrize("fn", [None, 5, lambda: None, lambda job, more: None])
@pytest.mark.parametrize("hook", ["on_submit", "on_done", "on_retry"])
def test_callback_that_cannot_take_the_job_is_refused(hook: str, fn: Any) -> None:
    """It would raise at each job, and only the log would know."""
    task = sleeper(Quarterjack())
    with pytest.raises(InvalidOption, match=f"{hook} takes a function of one argument, the job"):
        getattr(task, hook)(fn)


def test_callback_that_can_take_the_job_is_taken() -> None:
    """Defaults, variadic arguments, methods, built-in functions: whatever one argument fits."""
    task = sleeper(Quarterjack())
    jobs: list[Job[Any]] = []
    for fn in (jobs.append, print, lambda job, more=1: None, lambda *args: None):
        task.on_done(fn)
    assert len(task.definition.callbacks["done"]) == 4


# -- delay and run_at --------------------------------------------------------------------

SOON = datetime(2030, 1, 1, tzinfo=UTC)


def test_nearer_of_delay_and_run_at_wins() -> None:
    """They say one thing in two ways, so a call's own word replaces the task's, the task's the group's."""
    group = Group("g", delay=60)

    @group.task
    async def by_group() -> None: ...

    @group.task(run_at=SOON)
    async def by_task() -> None: ...

    app = Quarterjack()
    app.include_group(group)
    app.declared_schedules()
    assert (by_group.run_options.delay_ns, by_group.run_options.run_at_ns) == (60 * 10**9, None)
    for task in (by_task, by_group.options(run_at=SOON), by_group.options(run_at=SOON).options(priority=1)):
        assert (task.run_options.delay_ns, task.run_options.run_at_ns) == (0, int(SOON.timestamp()) * 10**9)
    back = by_task.options(delay=timedelta(seconds=5))
    assert (back.run_options.delay_ns, back.run_options.run_at_ns) == (5 * 10**9, None)
    with pytest.raises(InvalidOption, match="not both"):
        by_task.options(delay=1, run_at=SOON)


# -- defaults ----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Quarterjack, lambda **defaults: Group("g", **defaults)], ids=["app", "group"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": -5}, {"timeout": "abc"}, {"retry": 0}, {"queue": ""}, {"overlap": "nope"}, {"jitter": -1},
        {"max_runs": 0}, {"start": "today"}, {"start_deadline": 0}, {"id": "x"}, {"timout": 5},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_defaults_are_refused_where_they_are_written(make: Any, wrong: dict[str, Any]) -> None:
    """Told at the start, of a task, they would send the reader to the wrong line."""
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        make(**wrong)


def test_defaults_that_only_a_task_makes_sense_of_are_taken() -> None:
    """`missed="all"` needs another overlap than the default, which each task of the group may name."""
    group = Group("g", missed="all", start_deadline=5)

    @group.task(Every(seconds=1), overlap="allow")
    async def task() -> None: ...

    app = Quarterjack()
    app.include_group(group)
    assert [row.payload.missed for row in app.declared_schedules()] == ["all"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"queues": []}, {"queues": [5]}, {"queues": "default"}, {"queues": 5}, {"clock": 5}, {"strict": "no"},
        {"version": 1}, {"concurrency": 0}, {"role": "chief"}, {"lifespan": 5}, {"store": "memroy"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_of_an_app_are_refused(wrong: dict[str, Any]) -> None:
    """Each is named with what it may be."""
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        Quarterjack(**wrong)


def test_misspelt_setting_of_an_app_names_the_right_one() -> None:
    """Whatever is no setting goes on to the options of tasks; the hint must know of both."""
    parameters = signature(Quarterjack.__init__).parameters.values()
    settings = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
    for name in (*settings, "timeout", "overlap"):
        with pytest.raises(InvalidOption, match=f"has no option '{name}x'; did you mean '{name}'"):
            Quarterjack(**{f"{name}x": 1})  # type: ignore[arg-type]


async def test_misspelt_parameter_of_update_schedule_names_the_right_one() -> None:
    """`triger=` is no policy, and the list of policies would not help."""
    app = Quarterjack()
    async with virtual_time(app):
        update: Any = app.update_schedule
        with pytest.raises(InvalidOption, match="no option 'triger'; did you mean 'trigger'"):
            await update("x", triger=Every(seconds=1))


@pytest.mark.parametrize("name", ["a b", "a.b", "a\n", "a\tb", 5, None, "x" * 201])
def test_group_name_that_is_no_part_of_a_name_is_refused(name: Any) -> None:
    """It stands before every name of its tasks, on command lines too."""
    with pytest.raises(InvalidOption, match=r"without blanks and dots .* got"):
        Group(name)


# -- retry policies ------------------------------------------------------------------------


def test_misspelt_field_of_a_retry_policy_names_the_right_one() -> None:
    """An option that is not there, one that is left out, and one of the wrong kind are three different sentences."""
    policy: Any = Retry
    with pytest.raises(InvalidOption, match="no option 'base_s'; did you mean 'base'"):
        policy(on=OSError, base_s=1)
    with pytest.raises(InvalidOption, match="it takes on, attempts, deadline, base, cap, mult, jitter"):
        policy(on=OSError, zzz=1)
    with pytest.raises(InvalidOption, match="base must be seconds as a number, or a timedelta, not '1s'"):
        policy(on=OSError, base="1s")
    with pytest.raises(InvalidOption, match="Retry needs on="):
        policy(attempts=3)
    with pytest.raises(InvalidOption, match="retry=3 is short for"):
        policy(3)
    with pytest.raises(InvalidOption, match="Retry takes its options by name, got 1 by position"):
        policy(3, on=OSError)


def test_retry_policy_is_copied_and_pickled_as_any_value() -> None:
    """It travels with the job's options."""
    policy = Retry(on=Exception, attempts=3, base=2)
    assert pickle.loads(pickle.dumps(policy)) == copy.deepcopy(policy) == copy.copy(policy) == policy


# -- whose group it is ---------------------------------------------------------------------


async def test_group_serves_one_app_after_another() -> None:
    """An app factory with groups of module level is called anew for each test."""
    group = Group("g")
    task = sleeper(group)  # type: ignore[arg-type]
    for timeout in (5, 7):
        app = Quarterjack(timeout=timeout)
        app.include_group(group)
        async with virtual_time(app):
            assert await (await app.submit(task, 1.0)) == 1.0
            assert task.run_options.timeout_s == timeout


async def test_group_of_two_running_apps_keeps_its_name_or_is_refused() -> None:
    """The second app would rename the tasks of the first while it runs: submits there ended in UnknownTask."""
    group, outer = Group("g"), Group("o")
    task = sleeper(group)  # type: ignore[arg-type]
    outer.include_group(group)
    first, equal, renaming, other = Quarterjack(), Quarterjack(), Quarterjack(), Quarterjack(timeout=5)
    for app in (first, equal, other):
        app.include_group(group)
    renaming.include_group(outer)
    async with virtual_time(first, equal):
        for app in (first, equal):
            assert await (await app.submit(task, 0.0)) == 0.0
        for app in (renaming, other):
            with pytest.raises(UsageError, match=r"'g\.sleeper' runs in .*make the group in a function"):
                await app.__aenter__()
        assert await (await first.submit(task, 0.0)) == 0.0
    async with virtual_time(renaming):
        assert task.name == "o.g.sleeper"
        assert await (await renaming.submit(task, 0.0)) == 0.0


async def test_group_in_two_places_of_one_app_is_refused() -> None:
    """One task has one name."""
    group, outer, app = Group("g"), Group("o"), Quarterjack()
    sleeper(group)  # type: ignore[arg-type]
    outer.include_group(group)
    app.include_group(group)
    with pytest.raises(DuplicateName, match="included already"):
        app.include_group(group)
    app.include_group(outer)
    with pytest.raises(DuplicateName, match=r"'g\.sleeper' would be 'o\.g\.sleeper' as well"):
        app.declared_schedules()


async def test_what_comes_too_late_is_refused() -> None:
    """A running app never looks again, so the schedule would never fire and nobody would be told."""
    app, outer, inner, late = Quarterjack(), Group("o"), Group("i"), Group("late")
    outer.include_group(inner)
    app.include_group(outer)
    task = sleeper(inner)  # type: ignore[arg-type]
    decorate: Any = inner.task(Every(seconds=1))
    async with virtual_time(app):
        for include in (app.include_group, inner.include_group):
            with pytest.raises(UsageError, match=r"'late'.*comes too late"):
                include(late)
        for registry in (app, outer, inner):
            with pytest.raises(UsageError, match="'sleep_for' comes too late"):
                sleeper(registry)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="'sleeper' comes too late"):
            decorate(task)
    assert inner.task(name="later")(sleeper).name == "later"
