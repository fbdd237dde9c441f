"""The oracle finds what it is there to find: made-up ledgers and rows, each with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quarterjack.model import JobRecord, JobState, Origin, RunOptions
from tests.chaos.app import LIMIT, TICK_S
from tests.chaos.ledger import Entry
from tests.chaos.oracle import EVERYBODY, Evidence, verdict

NS_PER_S = 1_000_000_000
TICK_NS = round(TICK_S * NS_PER_S)


class Story:
    """What happened; all is well at first."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.rows: dict[str, JobRecord] = {}
        self.at(0.0, "start", "w1").at(0.0, "start", "w2").at(0.5, "up", "w1").at(0.5, "up", "w2")
        self.runs("job-1", 1.0, 2.0)
        for n in range(4):
            self.runs(f"tick-{n}", 1.0 + n * TICK_S, 1.1 + n * TICK_S, task="tick")
            self.rows[f"tick-{n}"].origin = Origin("tick", 1, n * TICK_NS)
        self.at(20.0, "dead", "w1").at(20.0, "dead", "w2")

    def at(self, at_s: float, kind: str, who: str, job: str = "", attempt: int = 0, task: str = "") -> Story:
        self.entries.append(Entry(kind, round(at_s * NS_PER_S), who, job, attempt, task))
        return self

    def runs(
        self, job: str, from_s: float, to_s: float | None, who: str = "w1", attempt: int = 1, task: str = "long"
    ) -> Story:
        """A body ran, and if it came to its end the store knows it."""
        self.at(from_s, "begin", who, job, attempt, task)
        row = self.rows.setdefault(job, JobRecord(job, task, (), {}, RunOptions()))
        row.attempt = attempt
        if to_s is not None:
            self.at(to_s, "end", who, job, attempt, task)
            row.state, row.result = JobState.DONE, [attempt, who]
        return self

    def told(self) -> list[str]:
        """Return what the oracle finds wrong."""
        self.entries.sort(key=lambda entry: entry.at_ns)
        return verdict(Evidence(self.entries, list(self.rows.values()), ["job-1"], 2.0))


def dies(story: Story, taken_up_s: float) -> None:
    """A worker dies at 5.0 with a job in its hands, which another one takes up."""
    story.at(0.0, "start", "w3").at(0.5, "up", "w3").at(5.0, "dead", "w3")
    story.runs("job-2", 4.0, None, "w3").runs("job-2", taken_up_s, taken_up_s + 1, "w2", 2)


def stands_still(story: Story) -> None:
    """A worker is stopped for longer than its lease, and its job is run by another one beside it."""
    story.at(4.0, "stopped", "w1").at(9.0, "going on", "w1")
    story.runs("job-2", 3.0, 9.1).runs("job-2", 6.5, 8.0, "w2", 2)


def stands_still_before_it_begins(story: Story) -> None:
    """A worker is stopped when it has claimed, for longer than its lease, and then begins what is another one's."""
    story.at(4.0, "stopped", "w1").at(9.0, "going on", "w1")
    story.runs("job-2", 9.1, 9.2).runs("job-2", 6.5, 8.0, "w2", 2)


def is_cut_off(story: Story) -> None:
    """Nobody reaches the store for a while, and a job that had returned is run again."""
    story.at(4.0, "cut off", EVERYBODY).at(7.0, "connected", EVERYBODY)
    story.runs("job-2", 3.0, 3.9).runs("job-2", 8.0, 9.0, "w2", 2)


def is_slow(story: Story) -> None:
    """The machine has other things to do: to take up a job takes it as long as to start a process."""
    story.entries = [
        entry._replace(at_ns=entry.at_ns + 5 * NS_PER_S) if entry.kind == "up" else entry for entry in story.entries
    ]
    story.at(0.0, "start", "w3").at(5.5, "up", "w3").at(6.0, "dead", "w3")
    story.runs("job-2", 5.8, None, "w3").runs("job-2", 13.0, 14.0, "w2", 2)


EXCUSED: dict[str, Callable[[Story], object]] = {
    "nothing": lambda story: None,
    "a death": lambda story: dies(story, 7.1),
    "a stop": stands_still,
    "a stop between a claim and its body": stands_still_before_it_begins,
    "an outage": is_cut_off,
    "a slow machine": is_slow,
    "a limit that is reached": lambda story: [
        story.runs(f"limited-{n}", 3.0 + n // LIMIT, 3.9 + n // LIMIT, task="limited") for n in range(2 * LIMIT)
    ],
}


@pytest.mark.parametrize("what", EXCUSED)
def test_what_must_happen_then_is_not_held_against_anybody(what: str) -> None:
    """An oracle that cries wolf is soon not heard."""
    story = Story()
    EXCUSED[what](story)
    assert story.told() == []


def change(job: str, **facts: object) -> Callable[[Story], object]:
    """Return what changes a row."""

    def change_it(story: Story) -> None:
        for name, value in facts.items():
            setattr(story.rows[job], name, value)

    return change_it


WRONG: dict[str, tuple[Callable[[Story], object], str]] = {
    "a job is gone": (lambda story: story.rows.pop("job-1"), "job-1 is lost"),
    "a job did not end": (change("job-1", state=JobState.SUBMITTED), "has not ended"),
    "a job ended badly": (change("job-1", state=JobState.LOST), "ended as lost"),
    "a result is nobody's": (change("job-1", result=[1, "w2"]), "nobody returned"),
    "a stale result": (change("job-1", attempt=2), "by attempt 2 with the result of"),
    "an attempt twice": (lambda story: story.runs("job-1", 3.0, 4.0, "w2"), "one attempt twice"),
    "a job beside itself": (lambda story: story.runs("job-1", 1.5, 4.0, "w2", 2), "while the first one had it"),
    "a job again": (lambda story: story.runs("job-1", 9.0, 9.5, "w2", 2), "although the first one returned"),
    "a tick is missing": (lambda story: story.rows.pop("tick-1"), "1 fire times are missing"),
    "a tick twice": (change("tick-1", origin=Origin("tick", 1, 2 * TICK_NS)), "has 2 jobs"),
    "two have the turn": (
        lambda story: story.runs("line-1", 3.0, 4.0, task="line").runs("line-2", 3.5, 4.5, "w2", task="line"),
        "had the turn",
    ),
    "too many at once": (
        lambda story: [story.runs(f"limited-{n}", 3.0, 4.0, task="limited") for n in range(LIMIT + 1)],
        f"{LIMIT + 1} bodies of limited",
    ),
    "taken up late": (lambda story: dies(story, 11.0), "waited for 6.00 s"),
    "an end unasked": (lambda story: story.at(3.0, "ended", "w1"), "ended by itself"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_found(what: str) -> None:
    """An oracle that finds nothing proves nothing."""
    breaks, words = WRONG[what]
    story = Story()
    breaks(story)
    assert any(words in told for told in story.told()), story.told()
