"""Every fire time has one fate: it ran, was missed, was skipped, or fell into a pause. Whatever happens to the clock.

A state machine looks at a schedule at random moments, pauses it, changes its
policies and sets the clock, and keeps a book of fates beside it; two more
properties ask the same of quarterjack's own rules and of the rows in a store."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, Final, Literal, get_args

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from quarterjack import planner
from quarterjack.model import JobRecord, JobState, Overlap, Schedule
from quarterjack.planner import Plan
from quarterjack.policies.jitter import due_ns
from quarterjack.policies.missed import MissedMode
from quarterjack.policies.overlap import Action, OverlapMode, admit
from quarterjack.stores.memory import MemoryStore
from quarterjack.testing.store_contract import Bench
from quarterjack.testing.strategies import triggers
from quarterjack.triggers import Every, Trigger
from tests.unit.rules import NOON, Listed, S, created, declared, fired, planned

Fate = Literal["ran", "missed", "skipped", "paused"]

missed_modes = st.sampled_from(get_args(MissedMode))
overlap_modes = st.sampled_from(get_args(OverlapMode))
policies = st.fixed_dictionaries(
    {
        "missed": missed_modes,
        "max_catchup": st.integers(1, 5),
        "max_lateness_ns": st.none() | st.integers(0, 100),
    }
)
jumps = st.integers(0, 30) | st.integers(0, 300)


class Book(RuleBasedStateMachine):
    """A schedule whose fire times are a known list, and what became of each of them."""

    @initialize(
        steps=st.lists(st.integers(1, 20), max_size=60),
        jitter_ns=st.integers(0, 40),
        start=st.none() | st.integers(0, 100),
        end=st.none() | st.integers(100, 500),
        max_runs=st.none() | st.integers(1, 10),
        policy=policies,
        overlap=overlap_modes,
        maximum=st.none() | st.integers(1, 3),
    )
    def create(
        self,
        steps: list[int],
        jitter_ns: int,
        start: int | None,
        end: int | None,
        max_runs: int | None,
        policy: dict[str, Any],
        overlap: OverlapMode,
        maximum: int | None,
    ) -> None:
        fire_times = [NOON]
        for step in steps:
            fire_times.append(fire_times[-1] + step)
        low = NOON if start is None else NOON + start
        high = None if end is None else NOON + end
        self.fire_times = [n for n in fire_times if n >= low and (high is None or n <= high)]
        last = [(n, None if high is None else high + 1) for n in self.fire_times[-1:]]
        self.due = {n: due_ns("s", n, jitter_ns, below=b) for n, b in [*pairwise(self.fire_times), *last]}
        self.fixed: dict[str, Any] = {"max_runs": max_runs, "overlap": Overlap(overlap, maximum)}
        self.timing: dict[str, Any] = {
            "jitter_ns": jitter_ns,
            "start_ns": None if start is None else low,
            "end_ns": high,
        }
        self.rule = Listed(instants=tuple(fire_times))
        self.now = NOON - 5
        self.row = created(self.rule, self.now, **self.timing, **self.fixed, **policy)
        self.fates: dict[tuple[int, int], Fate] = {}
        self.running = self.waiting = 0

    def settle(self, after: int, until: int, fates: dict[int, Fate], generation: int, otherwise: Fate) -> None:
        """Write down what became of the fire times in ``(after, until]``; none of them has a fate yet."""
        for n in self.fire_times:
            if after < n <= until:
                assert (generation, n) not in self.fates, f"{n - NOON} was accounted for twice"
                self.fates[generation, n] = fates.get(n, otherwise)

    # -- what happens ------------------------------------------------------------------

    @rule(ns=jumps)
    def time_passes(self, ns: int) -> None:
        """Or jumps: a planner cannot tell the difference."""
        self.now += ns

    @rule(ns=st.integers(1, 60))
    def clock_is_set_back(self, ns: int) -> None:
        self.now -= ns
        moved = planner.rebased(self.row, self.now, ns)
        if moved is None:
            assert self.row.cursor_ns <= self.now
            return
        assert (moved.generation, moved.cursor_ns) == (self.row.generation + 1, self.now)
        self.row = moved

    @rule()
    def scheduler_looks(self) -> None:
        while (plan := planner.plan(self.row, self.now)) is not None:
            assert self.row.paused_at_ns is None
            self.fire(plan)

    def fire(self, plan: Plan) -> None:
        overdue = [n for n in self.fire_times if plan.old_cursor_ns < n <= plan.cursor_ns]
        assert set(plan.nominals) <= set(overdue)
        assert all(one < other for one, other in pairwise(plan.nominals))
        assert all(self.due[n] <= self.now for n in overdue), "early"
        assert plan.missed == len(overdue) - len(plan.nominals)
        assert plan.cursor_ns > plan.old_cursor_ns
        fates: dict[int, Fate] = {n: self.admitted() for n in plan.nominals}
        self.settle(plan.old_cursor_ns, plan.cursor_ns, fates, plan.generation, "missed")
        self.row = fired(self.row, plan, admitted=sum(fate == "ran" for fate in fates.values()))

    def admitted(self) -> Fate:
        policy = self.row.payload.overlap
        verdict = admit(policy.mode, policy.maximum, running=self.running, waiting=self.waiting)
        if verdict.action is Action.SKIP:
            return "skipped"
        if verdict.drop_waiting or verdict.cancel_open:
            self.waiting = 0
        if verdict.cancel_open:
            self.running = 0
        self.waiting += 1
        return "ran"

    @rule(begun=st.integers(0, 5), ended=st.integers(0, 5))
    def workers_go_on(self, begun: int, ended: int) -> None:
        self.running = max(0, self.running - ended)
        begun = min(begun, self.waiting)
        self.waiting, self.running = self.waiting - begun, self.running + begun

    @rule(catch_up=st.booleans())
    def pause_or_resume(self, catch_up: bool) -> None:
        if self.row.paused_at_ns is None:
            self.row = self.row.copy()
            self.row.paused_at_ns = self.now
        else:
            self.replace(planner.resumed(self.row, self.now, catch_up=catch_up))

    @rule(policy=policies)
    def policies_change(self, policy: dict[str, Any]) -> None:
        new = declared(self.rule, **self.timing, **self.fixed, **policy)
        self.replace(planner.upserted(self.row, new, self.now))

    def replace(self, row: Schedule) -> None:
        assert row.cursor_ns >= self.row.cursor_ns
        assert row.generation == self.row.generation
        self.settle(self.row.cursor_ns, row.cursor_ns, {}, row.generation, "paused")
        self.row = row

    # -- what holds ----------------------------------------------------------------------

    @invariant()
    def nothing_is_forgotten(self) -> None:
        """The next run is the first fire time without a fate, unless the schedule is over."""
        after = [n for n in self.fire_times if n > self.row.cursor_ns]
        most = self.row.payload.max_runs
        if not after or (most is not None and self.row.runs >= most):
            assert self.row.next_nominal_ns is None
        else:
            assert (self.row.next_nominal_ns, self.row.next_due_ns) == (after[0], self.due[after[0]])

    @invariant()
    def runs_are_those_that_ran(self) -> None:
        """``max_runs`` counts what was admitted, and is never passed."""
        assert self.row.runs == sum(fate == "ran" for fate in self.fates.values())
        most = self.row.payload.max_runs
        assert most is None or self.row.runs <= most


Book.TestCase.settings = settings(max_examples=200, stateful_step_count=30)
TestEveryFireTimeHasOneFate = Book.TestCase
TestEveryFireTimeHasOneFate.__doc__ = "The promise that nothing is dropped in silence, nor done twice, as a game."


# -- quarterjack's own rules -----------------------------------------------------------------

FAR: Final = 120  # fire times that may pass at once: a list to compare with, not a measure of cost


def following(trigger: Trigger, after: int, count: int) -> list[int]:
    """Return the next *count* fire times, walked one by one."""
    found: list[int] = []
    at: int | None = after
    while len(found) < count and at is not None and (at := trigger.next_ns(at)) is not None:
        found.append(at)
    return found


@settings(max_examples=150)
@given(
    trigger=triggers(),
    created_s=st.integers(0, 2**31),
    outages=st.lists(st.tuples(st.integers(0, FAR), st.floats(0, 1)), min_size=1, max_size=5),
    jitter_ns=st.integers(0, 3_600 * S),
    missed=missed_modes,
    max_catchup=st.integers(1, 20),
)
def test_no_outage_hides_a_fire_time_of_any_rule(
    trigger: Trigger,
    created_s: int,
    outages: list[tuple[int, float]],
    jitter_ns: int,
    missed: MissedMode,
    max_catchup: int,
) -> None:
    """Down for some fire times and back somewhere between two: the plans account for all that passed, in order."""
    now = created_s * S
    row = created(trigger, now, jitter_ns=jitter_ns, missed=missed, max_catchup=max_catchup, overlap=Overlap("allow"))
    for passed, share in outages:
        ahead = following(trigger, row.cursor_ns, passed + 1)
        assume(len(ahead) == passed + 1)
        before, after = [row.cursor_ns, *ahead][-2:]
        now = max(now, before + int(share * (after - before)))
        cursor = row.cursor_ns
        while planner.plan(row, now) is not None:
            plan = planned(row, now)
            overdue = following(trigger, cursor, len(plan.nominals) + plan.missed)
            assert plan.nominals == tuple(n for n in overdue if n in plan.nominals)
            assert overdue[-1] == plan.cursor_ns, "as many as lie up to the cursor"
            row, cursor = fired(row, plan), plan.cursor_ns
        coming = following(trigger, cursor, 2)
        assert row.next_nominal_ns == coming[0]
        assert due_ns("s", coming[0], jitter_ns, below=coming[1]) > now, "nothing that is due is left"


# -- as rows ----------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    moves=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 3), st.integers(0, 3)), max_size=12),
    missed=missed_modes,
    overlap=overlap_modes,
    maximum=st.none() | st.integers(1, 3),
)
def test_every_fire_time_is_a_row_with_its_reason(
    moves: list[tuple[int, int, int]], missed: MissedMode, overlap: OverlapMode, maximum: int | None
) -> None:
    """What people find in the store adds up: runs, skips that name their blocker, and misses with their number."""
    asyncio.run(_rows_add_up(moves, missed, Overlap(overlap, maximum)))


async def _rows_add_up(moves: list[tuple[int, int, int]], missed: MissedMode, overlap: Overlap) -> None:
    bench = Bench(MemoryStore())
    await bench.open()
    row = await bench.schedule(trigger=Every(seconds=10), missed=missed, overlap=overlap)
    begin = row.cursor_ns
    rows: list[JobRecord] = []
    held: list[JobRecord] = []
    for seconds, begun, ended in moves:
        await bench.advance(seconds)
        while (plan := planner.plan(row, await bench.store.now_ns())) is not None:
            fired_rows = await bench.store.schedules_fire([plan])
            rows += fired_rows.rows
            (stored,) = fired_rows.schedules
            assert stored is not None
            row = stored
        if begun:
            held += await bench.claim(begun, lease_s=None)
        for job in held[:ended]:
            await bench.finish(job.fence)
        del held[:ended]
    fire_times = following(Every(seconds=10), begin, (row.cursor_ns - begin) // (10 * S))
    counted = sum(job.origin.missed_count for job in rows if job.origin is not None and job.state is JobState.MISSED)
    served = [job.origin.nominal_ns for job in rows if job.origin is not None and job.state is not JobState.MISSED]
    assert sorted(set(served)) == served, "in order, each once"
    assert set(served) <= set(fire_times)
    assert len(served) + counted == len(fire_times)
    await bench.store.close()
    assert all(job.reason for job in rows if job.state in {JobState.SKIPPED, JobState.MISSED})
