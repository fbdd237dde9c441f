"""Random loads for strategies: jobs that come, cost, fail, hang, are cancelled; a loop that stands still.

`played` runs a load through strategies on virtual time and returns when each
body began and ended. A property of a strategy is a function of what was played,
so that a broken variant can be held against the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final, Literal

from hypothesis import Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from quarterjack import Job, TaskManager
from quarterjack.flow.flow import Strategy
from quarterjack.testing import VirtualClock, virtual_loop

__all__ = ["Load", "Played", "Start", "Work", "breaks", "is_in_order", "loads", "played", "stall"]

End = Literal["returns", "raises", "hangs", "cancelled"]
PATIENCE_S: Final = 10_000
"""Virtual seconds after which a job that has not ended never will."""
START: Final = "2026-03-02T08:59:58Z"


@dataclass(frozen=True)
class Work:
    """One job: when it comes and how it ends; instants and spans in milliseconds."""

    comes: int
    lasts: int = 0
    end: End = "returns"
    cost: int = 1
    cancel_after: int = 0


@dataclass(frozen=True)
class Load:
    """Jobs, and when the loop stands still for how long, in milliseconds, so many turns after that instant."""

    works: tuple[Work, ...]
    stalls: tuple[tuple[int, int, int], ...] = ()
    is_eager: bool = True
    """Bodies begin as they are admitted, where Python can do that, and not one turn of the loop later."""

    @property
    def is_undisturbed(self) -> bool:
        """True if nothing but the strategies makes a job wait: no stall, nobody in front who gives up meanwhile."""
        return not self.stalls and all(work.end != "cancelled" or not work.cancel_after for work in self.works)


@dataclass
class Start:
    """One body that began; instants in seconds, monotonic and wall."""

    number: int
    cost: int
    came: float
    at: float
    wall_ns: int
    ended: float = 0.0


@dataclass
class Played:
    """What came of a load."""

    starts: list[Start] = field(default_factory=list[Start])
    jobs: list[Job[None]] = field(default_factory=list[Job[None]])
    is_whole: bool = False
    """Every job has ended by itself."""


def stall(clock: VirtualClock, seconds: float) -> None:
    """Let the loop stand still: time goes on inside of one callback."""
    clock.move_to(clock.monotonic_ns() + round(seconds * 1e9))


def played(strategies: Sequence[Strategy], load: Load, *, start: str = START) -> Played:
    """Run *load* through a manager with *strategies* on virtual time."""
    return asyncio.run(_play(strategies, load, start))


async def _play(strategies: Sequence[Strategy], load: Load, start: str) -> Played:
    found = Played()
    loop = asyncio.get_running_loop()
    if not load.is_eager:
        loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
    with virtual_loop(start=start) as clock:
        began = clock.monotonic()
        async with TaskManager(*strategies) as manager:

            async def body(one: Start, work: Work) -> None:
                one.at, one.wall_ns = clock.monotonic(), clock.now_ns()
                found.starts.append(one)
                try:
                    await asyncio.sleep(3600 if work.end == "hangs" else work.lasts / 1000)
                    if work.end == "raises":
                        raise OSError(work.comes)
                finally:
                    one.ended = clock.monotonic()

            def come(work: Work) -> None:  # timers of one instant ring in any order
                one = Start(len(found.jobs), work.cost, clock.monotonic(), 0.0, 0)
                timeout: dict[str, Any] = {"timeout": (work.lasts + 1) / 1000} if work.end == "hangs" else {}
                submitter = manager.options(cost=work.cost, **timeout)
                job = submitter.submit(body, one, work)
                found.jobs.append(job)
                if work.end == "cancelled":
                    loop.call_later(work.cancel_after / 1000, partial(cancel, job))

            def cancel(job: Any) -> None:
                manager._jobs.running().cancel(job._record)  # here and now: between its admission and its body, perhaps

            for work in load.works:
                loop.call_at(began + work.comes / 1000, partial(come, work))
            for at, ms, turns in load.stalls:
                loop.call_at(began + at / 1000, partial(_after_turns, loop, turns, partial(stall, clock, ms / 1000)))
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.sleep(max(work.comes for work in load.works) / 1000 + 0.001)
                    await manager.idle()
                    found.is_whole = True
            await manager.stop(drain=found.is_whole)
    return found


def _after_turns(loop: asyncio.AbstractEventLoop, turns: int, callback: Callable[[], None]) -> None:
    if turns:
        loop.call_soon(_after_turns, loop, turns - 1, callback)
    else:
        callback()


@st.composite
def loads(draw: st.DrawFn, *, most: int = 14, span_ms: int = 1500, max_cost: int = 1, with_stalls: bool = True) -> Load:
    """Loads of a few jobs in a second or two, in bursts and alone."""
    instants = st.sampled_from([0, 0, 0, 1, 99, 100, 101, 500, 999, 1000]) | st.integers(0, span_ms)
    works = st.builds(
        Work,
        comes=instants,
        lasts=st.sampled_from([0, 1, 30, 400]),
        end=st.sampled_from(["returns", "returns", "raises", "hangs", "cancelled"]),
        cost=st.integers(1, max_cost),
        cancel_after=st.sampled_from([0, 0, 1, 50, 1000]),
    )
    a_stall = st.tuples(instants, st.sampled_from([1, 30, 250]), st.integers(0, 2))
    stalls = st.lists(a_stall, max_size=3 if with_stalls else 0)
    found = draw(st.lists(works, min_size=1, max_size=most))
    return Load(tuple(sorted(found, key=lambda work: work.comes)), tuple(draw(stalls)), draw(st.booleans()))


def is_in_order(starts: list[Start]) -> bool:
    """Say whether who came first began first."""
    return [one.number for one in starts] == sorted(one.number for one in starts)


def at(*instants: int, stalls: tuple[tuple[int, int, int], ...] = ()) -> Load:
    """Return a load of jobs that come at these instants, each to begin a turn of the loop after its admission."""
    return Load(tuple(Work(comes) for comes in instants), stalls, is_eager=False)


HARD: Final = (
    at(0, 0, 0, 1000, 1000, 1000, 1100, stalls=((0, 250, 1), (0, 250, 2))),
    at(999, 999, 999, 1100, 1100, 1100, 1500, stalls=((999, 30, 1), (999, 30, 2))),
    Load((Work(0, end="cancelled"), *at(0, 0, 0, 0).works), is_eager=False),
)
"""Loads on which mistakes show: bodies that begin later than they were let in, one that is cancelled in between."""


def breaks(holds: Callable[[Load], bool], among: st.SearchStrategy[Load]) -> Load | None:
    """Return a load under which something does not hold, or None if a few hundred show none."""
    for load in HARD:
        if not holds(load):
            return load
    try:
        return find(
            among,
            lambda load: not holds(load),
            random=Random(1),
            settings=settings(max_examples=400, database=None, phases=[Phase.generate]),
        )
    except NoSuchExample:
        return None
