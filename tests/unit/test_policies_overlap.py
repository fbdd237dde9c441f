"""Overlap: the whole table of decisions, and what it comes to when fire times meet open jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack.policies.overlap import SERIAL_MODES, Action, OverlapMode, Verdict, admit

MODES: Final[tuple[OverlapMode, ...]] = get_args(OverlapMode)

VERDICTS: Final = {
    "run": Verdict(Action.RUN),
    "skip": Verdict(Action.SKIP),
    "take": Verdict(Action.RUN, drop_waiting=True),
    "kill": Verdict(Action.RUN, cancel_open=True),
}
# Open jobs of the key: running, waiting.
# fmt: off
COLUMNS: Final =               [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
TABLE: Final[dict[tuple[OverlapMode, int | None], str]] = {
    ("skip", None):             "run     skip    skip    skip    skip    skip    skip    skip    skip",
    ("queue_one", None):        "run     skip    skip    run     skip    skip    run     skip    skip",
    ("queue_latest", None):     "run     take    take    run     take    take    run     take    take",
    ("queue_all", None):        "run     run     run     run     run     run     run     run     run",
    ("queue_all", 1):           "run     skip    skip    run     skip    skip    run     skip    skip",
    ("queue_all", 2):           "run     run     skip    run     run     skip    run     run     skip",
    ("cancel_previous", None):  "run     kill    kill    kill    kill    kill    kill    kill    kill",
    ("allow", None):            "run     run     run     run     run     run     run     run     run",
    ("allow", 1):               "run     skip    skip    skip    skip    skip    skip    skip    skip",
    ("allow", 2):               "run     run     skip    run     skip    skip    skip    skip    skip",
    ("allow", 4):               "run     run     run     run     run     run     run     run     skip",
}
# fmt: on
CASES: Final = [
    pytest.param(mode, maximum, *counts, VERDICTS[word], id=f"{mode}({maximum})-{counts[0]}+{counts[1]}-{word}")
    for (mode, maximum), row in TABLE.items()
    for counts, word in zip(COLUMNS, row.split(), strict=True)
]


@pytest.mark.parametrize(("mode", "maximum", "running", "waiting", "verdict"), CASES)
def test_decision_table(mode: OverlapMode, maximum: int | None, running: int, waiting: int, verdict: Verdict) -> None:
    """Each policy beside each number of open jobs; the cell that is wrong names itself."""
    assert admit(mode, maximum, running=running, waiting=waiting) == verdict


def test_the_table_has_every_mode() -> None:
    """A mode that is added without its row would be decided by nobody."""
    assert {mode for mode, _ in TABLE} == set(MODES)
    assert set(MODES) >= SERIAL_MODES


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("maximum", [None, 1, 5])
def test_a_key_with_nothing_open_never_holds_up_a_run(mode: OverlapMode, maximum: int | None) -> None:
    """Whatever the policy, an idle schedule runs, and touches nothing else."""
    assert admit(mode, maximum, running=0, waiting=0) == Verdict(Action.RUN)


@given(
    mode=st.sampled_from(MODES),
    maximum=st.none() | st.integers(1, 100),
    running=st.integers(0, 1_000),
    waiting=st.integers(0, 1_000),
)
def test_a_skipped_run_touches_no_other_job(mode: OverlapMode, maximum: int | None, running: int, waiting: int) -> None:
    """To drop or cancel a job and then not run in its place would lose both."""
    verdict = admit(mode, maximum, running=running, waiting=waiting)
    if verdict.action is Action.SKIP:
        assert not verdict.drop_waiting
        assert not verdict.cancel_open
    assert not (verdict.drop_waiting and verdict.cancel_open)
    assert not verdict.drop_waiting or waiting


# -- what the decisions come to ---------------------------------------------------------------


@dataclass
class Key:
    """The open jobs of one overlap key, as a store keeps them."""

    mode: OverlapMode
    maximum: int | None
    running: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    ended: dict[int, str] = field(default_factory=dict)

    def fire(self, number: int) -> None:
        verdict = admit(self.mode, self.maximum, running=len(self.running), waiting=len(self.waiting))
        if verdict.action is Action.SKIP:
            self.ended[number] = "skipped"
            return
        if verdict.drop_waiting or verdict.cancel_open:
            self._end(self.waiting, "replaced")
        if verdict.cancel_open:
            self._end(self.running, "cancelled")
        self.waiting.append(number)

    def start(self) -> None:
        if self.waiting and not (self.mode in SERIAL_MODES and self.running):
            self.running.append(self.waiting.pop(0))

    def finish(self) -> None:
        self._end(self.running[:1], "done")
        del self.running[:1]

    def _end(self, jobs: list[int], how: str) -> None:
        self.ended |= dict.fromkeys(jobs, how)
        jobs.clear()

    @property
    def bound(self) -> tuple[float, float]:
        """How many may be open, and how many of them may wait."""
        unbounded = float("inf") if self.maximum is None else self.maximum
        return {
            "skip": (1.0, 1.0),
            "queue_one": (2.0, 1.0),
            "queue_latest": (2.0, 1.0),
            "queue_all": (1 + unbounded, max(unbounded, 1.0)),
            "cancel_previous": (1.0, 1.0),
            "allow": (unbounded, unbounded),
        }[self.mode]


@given(
    mode=st.sampled_from(MODES),
    maximum=st.none() | st.integers(1, 4),
    moves=st.lists(st.sampled_from(["fire", "fire", "start", "finish"]), max_size=60),
)
def test_however_fire_times_and_ends_fall_the_bound_holds(
    mode: OverlapMode, maximum: int | None, moves: list[str]
) -> None:
    """Each fire time has one fate, and never are more jobs open than the policy promises."""
    key, number = Key(mode, maximum), 0
    for move in moves:
        if move == "fire":
            key.fire(number)
            number += 1
        elif move == "start":
            key.start()
        else:
            key.finish()
        most_open, most_waiting = key.bound
        assert len(key.running) + len(key.waiting) <= most_open
        assert len(key.waiting) <= most_waiting
        assert sorted([*key.running, *key.waiting, *key.ended]) == list(range(number))


@pytest.mark.parametrize(
    ("mode", "maximum", "kept"),
    [
        ("skip", None, [0]),
        ("queue_one", None, [0, 1]),
        ("queue_latest", None, [0, 86_399]),
        ("queue_all", 3, [0, 1, 2, 3]),
        ("cancel_previous", None, [86_399]),
        ("allow", 3, [0, 1, 2]),
    ],
)
def test_a_day_of_seconds_beside_a_body_that_does_not_end(
    mode: OverlapMode, maximum: int | None, kept: list[int]
) -> None:
    """The promise in numbers: workers that hang for a day leave a few jobs, not 86,400."""
    key = Key(mode, maximum)
    for number in range(86_400):
        key.fire(number)
        if not number:
            key.start()
    assert [*key.running, *key.waiting] == kept
    assert len(key.ended) == 86_400 - len(kept)
