"""What a flow puts around bodies: a wrap that would do nothing for a task is refused, and not left out in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from quarterjack import Every, Flow, Group, Hedge, InvalidOption, JobFailed, Quarterjack, Wrap
from quarterjack.executors import Call, Capabilities, Executor, Handle, Home, LoopThread, Report, ThreadExecutor
from quarterjack.testing import virtual_time

HEDGE = Hedge(after=60)


class Timed(Wrap):
    """Wants to run around the body."""

    async def __call__(self, job: Any, proceed: Any) -> Any:
        return await proceed()


class Elsewhere(Executor):
    """Says that it runs bodies in other processes; it is handed none."""

    name = "cluster"
    slots = 1
    is_remote: ClassVar[bool] = True
    capabilities: ClassVar[Capabilities] = ThreadExecutor.capabilities

    @property
    def free(self) -> int:
        return 1

    async def start(self, home: Home) -> None: ...

    def submit(self, call: Call, report: Report) -> Handle:
        raise AssertionError("nothing is to run there")

    async def stop(self, grace_s: float) -> None: ...


def plain() -> None: ...


async def coroutine() -> None: ...


def registered(app: Quarterjack | Group, fn: Any, **options: Any) -> Any:
    return app.task(**options)(fn)


PLAIN = r"is a plain function, and its flow holds Hedge\(after=60, max=2\).*make it async def, with `await asyncio.to_t"
COMMAND = r"runs a command, and its flow holds Hedge\(after=60, max=2\).*leave the Hedge out"
AWAY = r"runs in other processes \(executor '(process|cluster)'\), and its flow holds .*or @app\.around, which runs th"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda app: registered(app, plain, flow=HEDGE), f"task 'plain' {PLAIN}"),
        (lambda app: registered(app, plain, flow=HEDGE, executor="thread"), PLAIN),
        (lambda app: registered(app, plain, flow=HEDGE, executor="loop"), PLAIN),
        (lambda app: app.command("ls", ["ls"], flow=HEDGE), f"task 'ls' {COMMAND}"),
        (lambda app: registered(app, coroutine, flow=HEDGE, executor="command"), COMMAND),
        (lambda app: registered(app, coroutine, flow=HEDGE, executor="process"), f"task 'coroutine' {AWAY}"),
        (lambda app: registered(app, coroutine, flow=HEDGE, executor=Elsewhere()), AWAY),
        (lambda app: registered(app, plain, flow=Timed(), executor="process"), AWAY),
        (lambda app: registered(app, coroutine, flow=HEDGE).options(executor="process"), AWAY),
        (lambda app: registered(app, coroutine, flow=HEDGE).options(executor="command"), COMMAND),
    ],
    ids=["plain", "thread", "loop", "command", "coroutine command", "process", "cluster", "wrap", "sent", "commanded"],
)
def test_a_wrap_that_would_do_nothing_is_refused_where_it_is_written(make: Callable[[Any], Any], said: str) -> None:
    """The bugs: with a plain function a Hedge did nothing, in silence; elsewhere each job failed when its turn came."""
    with pytest.raises(InvalidOption, match=said):
        make(Quarterjack())


async def test_one_of_a_group_or_a_queue_is_refused_when_the_app_starts() -> None:
    """Only then is it known who is in them; before anything runs, all the same."""
    group = Group("reports", flow=HEDGE)
    registered(group, plain)
    app = Quarterjack()
    app.include_group(group)
    with pytest.raises(InvalidOption, match=rf"task 'reports\.plain' {PLAIN}"):
        async with app:
            pytest.fail("it started")
    app = Quarterjack()
    registered(app, coroutine, queue="slow", executor="process")
    app.queue("slow", flow=HEDGE)
    with pytest.raises(InvalidOption, match=f"task 'coroutine' in queue 'slow' {AWAY}"):
        async with app:
            pytest.fail("it started")


async def test_a_task_opts_out_of_its_groups_hedge() -> None:
    """As the text of the refusal says."""
    app = Quarterjack(flow=HEDGE)
    task = registered(app, plain, flow=None)
    async with app:
        await (await app.submit(task))


async def test_a_single_job_that_is_sent_to_where_a_wrap_does_nothing_is_refused_when_it_is_submitted() -> None:
    """Its queue's flow is not that of its task: nothing but the submission can know."""
    app = Quarterjack()
    task = registered(app, plain)
    app.queue("slow", flow=HEDGE)
    async with app:
        with pytest.raises(InvalidOption, match=f"job of 'plain' in queue 'slow' {PLAIN}"):
            await app.submit(task.options(queue="slow"))
        await (await app.submit(task))


async def test_a_schedule_whose_jobs_a_wrap_would_do_nothing_for_is_refused_or_fails_them() -> None:
    """An executor is seen at once; what another queue's flow means for them, when a job's turn comes."""
    app = Quarterjack()
    app.queue("slow", flow=HEDGE)
    timed, task = registered(app, coroutine, flow=Timed()), registered(app, plain)
    async with virtual_time(app) as world:
        with pytest.raises(InvalidOption, match=AWAY):
            await app.schedule(timed.bind(), Every(days=1), executor=Elsewhere())
        row = await app.schedule(task.bind(), Every(days=1))
        await app.update_schedule(row, queue="slow")
        await world.run_for("25h")
        (job,) = world.jobs(task)
        with pytest.raises(JobFailed, match=f"task 'plain' {PLAIN}"):
            await job


@pytest.mark.parametrize("executor", ["loop", "thread", LoopThread("apart")], ids=["loop", "thread", "apart"])
async def test_a_hedge_begins_a_second_body_wherever_coroutine_functions_run(executor: Any) -> None:
    """On the app's loop, on one of a thread's own, and on one that many bodies share."""
    app = Quarterjack()
    begun: list[asyncio.AbstractEventLoop] = []

    @app.task(flow=Flow(Hedge(after=0.01)), executor=executor)
    async def ask() -> int:
        begun.append(asyncio.get_running_loop())
        number = len(begun)
        await asyncio.sleep(60 if number == 1 else 0)
        return number

    async with app:
        assert await (await app.submit(ask)) == 2
    assert begun[0] is begun[1]
