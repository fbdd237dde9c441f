"""A store beside a plain model of it, driven by Hypothesis, with time as one of the rules. Needs hypothesis.

    from quarterjack.testing.store_machine import store_machine

    TestMyStore = store_machine(lambda: Bench(MyStore())).TestCase

Jobs are put, backfilled, claimed, finished, released, renewed, cancelled and
retried by several owners in any order, while leases run out. After every step the
store must show what the model shows; no job is ever held twice, no occurrence made
twice, and of those that take turns never two are held."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from quarterjack._durations import NS_PER_S
from quarterjack.backfill import PRIORITY, Backfill, BackfillOverlap
from quarterjack.errors import MissingExtra
from quarterjack.model import Fenced, FinishKind, JobFilter, JobRecord, JobState, Unique
from quarterjack.stores.base import AGING_NS, CancelAnswer, Renewal

from .store_contract import Bench

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
except ImportError as error:
    raise MissingExtra("the stores' state machine", "testing") from error

__all__ = ["Model", "store_machine"]

T = TypeVar("T")

_ENDS = {
    FinishKind.DONE: "done",
    FinishKind.FAILED: "failed",
    FinishKind.TIMED_OUT: "timed_out",
    FinishKind.CANCELLED: "cancelled",
}


@dataclass
class Row:
    """A job as the model sees it; *state* is ``waiting``, ``held`` or the final state's name."""

    id: str
    task: str
    priority: int
    max_rescues: int
    key: str | None
    run_at: int
    state: str = "waiting"
    attempt: int = 0
    failures: int = 0
    rescues: int = 0
    owner: str = ""
    lease_until: int = 0
    wants_cancel: bool = False
    takes_turns: bool = False

    @property
    def order(self) -> int:
        """What claims go by."""
        return self.run_at + self.priority * AGING_NS

    @property
    def fence(self) -> Fenced:
        """The right of its holder."""
        return Fenced(self.id, self.attempt, self.owner)

    def back(self, now: int, delay: int = 0) -> None:
        """Wait again."""
        self.state, self.owner = "waiting", ""
        self.run_at = now + delay if delay else min(self.run_at, now)


@dataclass
class Model:
    """What a store of jobs is, without any of its speed."""

    now: int = 0
    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    past: list[Fenced] = field(default_factory=list[Fenced])
    """Every right that was ever given."""
    made: dict[int, str] = field(default_factory=dict[int, str])
    """The jobs of backfills, by fire time."""

    def holder_of(self, task: str, key: str | None) -> Row | None:
        """Return the unfinished job with this key."""
        open_rows = (row for row in self.rows.values() if row.state in {"waiting", "held"} and row.task == task)
        return next((row for row in open_rows if key is not None and row.key == key), None)

    def rescue(self) -> None:
        """Take back what ran out."""
        for row in self.rows.values():
            if row.state == "held" and row.lease_until <= self.now:
                row.rescues += 1
                if row.rescues > row.max_rescues:
                    row.state, row.owner = "lost", ""
                elif row.wants_cancel:
                    row.state, row.owner = "cancelled", ""
                else:
                    row.back(self.now)

    def free(self, tasks: frozenset[str]) -> list[Row]:
        """Return what may be claimed, most urgent first."""
        due = [r for r in self.rows.values() if r.state == "waiting" and r.run_at <= self.now and r.task in tasks]
        return sorted(due, key=lambda row: row.order)

    def is_turn_taken(self) -> bool:
        """Say whether one of those that take turns is held."""
        return any(row.takes_turns and row.state == "held" for row in self.rows.values())

    def held_by(self, fence: Fenced) -> Row | None:
        """Return the row if this right is still good."""
        row = self.rows.get(fence.job_id)
        return row if row is not None and row.state == "held" and row.fence == fence else None


def store_machine(make: Callable[[], Bench]) -> type[RuleBasedStateMachine]:
    """Return the state machine for the store that *make* makes anew for each run."""

    class StoreMachine(_StoreMachine):
        def make(self) -> Bench:
            return make()

    return StoreMachine


class _StoreMachine(RuleBasedStateMachine):
    """The rules."""

    def make(self) -> Bench:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.bench = self.make()
        self.model = Model()
        self.do(self.bench.open())
        self.do(self.bench.schedule())
        self.model.now = self.do(self.bench.store.now_ns())

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self.do(self.bench.store.close())
            self.runner.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    # -- rules -----------------------------------------------------------------------

    @rule(
        task=st.sampled_from("ab"),
        priority=st.integers(0, 4),
        delay_s=st.sampled_from([0, 0, 5, 40]),
        max_rescues=st.integers(0, 2),
        key=st.sampled_from([None, None, "k"]),
    )
    def put(self, task: str, priority: int, delay_s: int, max_rescues: int, key: str | None) -> None:
        options = {"priority": priority, "delay_ns": delay_s * NS_PER_S, "max_rescues": max_rescues}
        job = self.bench.job(task, unique=None if key is None else Unique(key), **options)
        (row,) = self.do(self.bench.store.jobs_put([job]))
        holder = self.model.holder_of(task, key)
        if holder is not None:
            assert row.id == holder.id, "the key was taken"
            return
        assert row.id == job.id
        run_at = self.model.now + delay_s * NS_PER_S
        self.model.rows[row.id] = Row(row.id, task, priority, max_rescues, key, run_at)

    @rule(fire_times=st.sets(st.integers(1, 6)), overlap=st.sampled_from(get_args(BackfillOverlap)))
    def backfill(self, fire_times: set[int], overlap: BackfillOverlap) -> None:
        plan = Backfill("s", 1, tuple(sorted(fire_times)), overlap)
        done = self.do(self.bench.store.schedules_backfill(plan))
        assert done is not None
        assert [row.origin and row.origin.nominal_ns for row in done.rows] == list(plan.nominals)
        for row, nominal in zip(done.rows, plan.nominals, strict=True):
            assert (row.id in done.new) is (nominal not in self.model.made), "each occurrence once"
            assert self.model.made.setdefault(nominal, row.id) == row.id
            if row.id in done.new:
                mine = Row(row.id, "a", PRIORITY, row.options.max_rescues, None, self.model.now)
                mine.takes_turns = overlap == "queue_all"
                self.model.rows[row.id] = mine

    @rule(
        owner=st.sampled_from(["w1", "w2", "w3"]),
        slots=st.integers(1, 4),
        lease_s=st.integers(2, 30),
        tasks=st.sampled_from([frozenset("a"), frozenset("b"), frozenset("ab")]),
    )
    def claim(self, owner: str, slots: int, lease_s: int, tasks: frozenset[str]) -> None:
        got = self.do(self.bench.claim(slots, owner=owner, lease_s=lease_s, tasks=tasks))
        model = self.model
        model.rescue()
        free = model.free(tasks)
        alone = [row.order for row in free if not row.takes_turns]
        may_take_turn = not model.is_turn_taken() and any(row.takes_turns for row in free)
        taken = [model.rows[row.id] for row in got]
        turns = sum(row.takes_turns for row in taken)
        assert turns <= may_take_turn, "one at a time"
        assert len(taken) == min(slots, len(alone) + may_take_turn)
        # Among equals each store may choose; what it may not is to leave out a more urgent one.
        assert sorted(row.order for row in taken if not row.takes_turns) == alone[: slots - turns]
        for row in got:
            mine = model.rows[row.id]
            assert mine.state == "waiting", "held twice at once"
            mine.state, mine.owner, mine.attempt = "held", owner, mine.attempt + 1
            mine.lease_until = model.now + lease_s * NS_PER_S
            model.past.append(mine.fence)
            assert (row.attempt, row.rescues, row.failures) == (mine.attempt, mine.rescues, mine.failures)

    @precondition(lambda self: self.model.past)
    @rule(
        data=st.data(), kind=st.sampled_from([*_ENDS, FinishKind.RETRY, FinishKind.SNOOZE]), delay_s=st.integers(0, 9)
    )
    def finish(self, data: Any, kind: FinishKind, delay_s: int) -> None:
        fence = data.draw(st.sampled_from(self.model.past))
        mine = self.model.held_by(fence)
        was_taken = self.do(self.bench.finish(fence, kind, delay_ns=delay_s * NS_PER_S))
        assert was_taken is (mine is not None), "a right is good once, and only while it is held"
        if mine is None:
            return
        mine.failures += kind in {FinishKind.FAILED, FinishKind.TIMED_OUT, FinishKind.RETRY}
        if kind in _ENDS:
            mine.state, mine.owner = _ENDS[kind], ""
        elif mine.wants_cancel:
            mine.state, mine.owner = "cancelled", ""
        else:
            mine.back(self.model.now, delay_s * NS_PER_S)

    @precondition(lambda self: self.model.past)
    @rule(data=st.data(), delay_s=st.integers(0, 9))
    def release(self, data: Any, delay_s: int) -> None:
        fence = data.draw(st.sampled_from(self.model.past))
        mine = self.model.held_by(fence)
        self.do(self.bench.store.jobs_release([fence], delay_ns=delay_s * NS_PER_S))
        if mine is not None:
            mine.back(self.model.now, delay_s * NS_PER_S)

    @precondition(lambda self: self.model.past)
    @rule(data=st.data(), lease_s=st.integers(2, 30))
    def renew(self, data: Any, lease_s: int) -> None:
        fence = data.draw(st.sampled_from(self.model.past))
        mine = self.model.held_by(fence)
        renewal = Renewal(fence.job_id, fence.attempt)
        lost, cancelled = self.do(self.bench.store.jobs_renew(fence.owner, [renewal], lease_s))
        assert lost == ([] if mine is not None else [fence.job_id])
        if mine is not None:
            assert cancelled == ([mine.id] if mine.wants_cancel else [])
            mine.lease_until = self.model.now + lease_s * NS_PER_S

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        mine = self.model.rows[data.draw(st.sampled_from(sorted(self.model.rows)))]
        (answer,) = self.do(self.bench.store.jobs_request_cancel([mine.id]))
        if mine.state == "waiting":
            assert answer is CancelAnswer.CANCELLED
            mine.state, mine.wants_cancel = "cancelled", True
        elif mine.state == "held":
            assert answer is CancelAnswer.REQUESTED
            mine.wants_cancel = True
        else:
            assert answer is CancelAnswer.FINISHED

    @rule(state=st.sampled_from([JobState.CANCELLED, JobState.FAILED, JobState.LOST, JobState.DONE]))
    def retry(self, state: JobState) -> None:
        meant = [row for row in self.model.rows.values() if row.state == state.value]
        ids = self.do(self.bench.store.jobs_retry(JobFilter(states=frozenset({state}))))
        free = [row for row in meant if row.key is None]
        keyed = {(r.task, r.key) for r in meant if r.key is not None and self.model.holder_of(r.task, r.key) is None}
        again = [self.model.rows[job_id] for job_id in ids]
        # Of several with one key that is free, one runs again: which, is the store's to choose.
        assert sorted(r.id for r in again if r.key is None) == sorted(r.id for r in free)
        assert sorted((r.task, r.key or "") for r in again if r.key is not None) == sorted(
            (t, k or "") for t, k in keyed
        )
        for row in again:
            row.state, row.wants_cancel, row.run_at = "waiting", False, self.model.now
            row.failures = row.rescues = 0

    @rule(seconds=st.integers(1, 60))
    def time_passes(self, seconds: int) -> None:
        self.do(self.bench.advance(seconds))
        self.model.now += seconds * NS_PER_S

    # -- always ----------------------------------------------------------------------

    @invariant()
    def store_shows_what_the_model_shows(self) -> None:
        if not hasattr(self, "bench"):
            return
        ids = list(self.model.rows)
        for row, mine in zip(self.do(self.bench.store.jobs_get(ids)), self.model.rows.values(), strict=True):
            assert row is not None
            assert _seen(row) == (mine.state, mine.attempt, mine.failures, mine.rescues, mine.owner), row


def _seen(row: JobRecord) -> tuple[str, int, int, int, str]:
    words = {JobState.SUBMITTED: "waiting"}
    state = "held" if row.state.is_held else words.get(row.state, row.state.value)
    return (state, row.attempt, row.failures, row.rescues, row.owner or "")
