"""The page of policies: every program prints what stands under it, every timeline shows what happened.

Each policy has its example and its test here, named by the example's heading;
`DECISIONS` says where in the code it is decided. Who breaks a decision finds
its test failing, and who moves one finds the pointer broken."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from quarterjack.model import OverlapMode
from quarterjack.options import POLICY_FIELDS
from quarterjack.policies.missed import MissedMode
from tests.docs.examples import BY_HAND, CHECKED, Example, examples, play_all
from tests.docs.play import JobFacts, Played
from tests.docs.timeline import Scale, differences, drawn
from tests.repo.checkout import ROOT, blocks

PAGE: Final = ROOT / "docs/policies.md"
EXAMPLES: Final = examples(PAGE)

DECISIONS: Final = {
    'missed="latest" (default)': "policies.missed:_chosen",
    'missed="earliest"': "policies.missed:_chosen",
    'missed="all"': "policies.missed:_chosen",
    "max_catchup=": "policies.missed:_newest",
    'missed="skip"': "policies.missed:fold_missed",
    "max_lateness=": "planner:_oldest_allowed",
    "start_deadline=": "runtime.worker:Worker._is_too_late",
    'overlap="skip" (default)': "policies.overlap:admit",
    'overlap="queue_one"': "policies.overlap:admit",
    'overlap="queue_latest"': "policies.overlap:admit",
    'overlap="queue_all"': "policies.overlap:admit",
    'overlap=Overlap("queue_all", 2)': "policies.overlap:admit",
    'overlap="cancel_previous"': "policies.overlap:admit",
    'overlap="allow"': "policies.overlap:admit",
    'overlap=Overlap("allow", 2)': "policies.overlap:admit",
    "overlap_key=": "model:Schedule.overlap_key",
    "start=, end=": "planner:_Bounded",
    "max_runs=": "planner:_runs_left",
    "jitter=": "policies.jitter:due_ns",
    "pause, resume": "planner:resumed",
    "resume(catch_up=True)": "planner:resumed",
    "pause(until=)": "runtime.scheduler:Scheduler._resume",
    "pause_on_failure=": "stores._book_base:BookBase._count_failure",
    "trigger_now": "stores.memory:MemoryStore.schedules_trigger",
    "backfill": "backfill:backfill_plan",
    "Another time: a new generation": "planner:upserted",
    "Another call or policy: a new revision": "planner:upserted",
    "gap=": "triggers._zone:_first_of_gap",
    "fold=": "triggers._zone:_first_in",
    "The clock is set forward": "policies.missed:fold_missed",
    "The clock is set back": "planner:rebased",
    "The clock is set back by three hours or more": "planner:rebased",
    "The machine sleeps": "runtime.run:Attempt.stamp",
}
"""Where each policy of the page is decided, by the heading of its example."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    """What came of each program of the page, by the block's name."""
    return play_all(EXAMPLES, tmp_path_factory.mktemp("policies"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.heading)
def test_policy_does_what_its_example_prints(example: Example, played: dict[str, Played]) -> None:
    """A policy that does something else than the page says costs somebody a night."""
    what = played[example.program.name]
    assert what["status"] == 0, f"{example.program.place}\n{what['complained']}"
    assert what["printed"] == example.printed, example.program.place


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.heading)
def test_timeline_shows_what_the_example_did(example: Example, played: dict[str, Played]) -> None:
    """Readers look at the drawing first, and many no further."""
    assert example.drawing is not None, f"{example.program.place} has no timeline"
    if example.drawing.note != CHECKED:
        assert example.drawing.note.removeprefix(BY_HAND).strip(), "a drawing that is not checked says why"
        return
    assert differences(example.drawing.text, played[example.program.name]["jobs"]) == [], example.drawing.place


def test_every_program_of_the_page_is_an_example_with_its_output() -> None:
    """A block that nobody runs is the one that goes out of date."""
    programs = [block.place for block in blocks(PAGE) if block.language == "python"]
    assert programs == [example.program.place for example in EXAMPLES]
    assert all(example.output is not None for example in EXAMPLES)
    assert [example.heading for example in EXAMPLES] == list(DECISIONS), "each policy once, under its own heading"


def test_every_policy_that_can_be_chosen_has_its_example() -> None:
    """A policy without a drawing is one that its users have to guess."""
    headings = "\n".join(example.heading for example in EXAMPLES)
    modes = [f'missed="{mode}"' for mode in get_args(MissedMode)] + [f'"{mode}"' for mode in get_args(OverlapMode)]
    fields = [f"{name}=" for name in POLICY_FIELDS - {"id", "missed", "overlap"}]
    assert [policy for policy in modes + fields if policy not in headings] == []


@pytest.mark.parametrize(("heading", "decision"), DECISIONS.items(), ids=DECISIONS)
def test_pointer_to_the_decision_leads_somewhere(heading: str, decision: str) -> None:
    """Who reads the example and asks why finds the lines that decide."""
    module, _, path = decision.partition(":")
    found: Any = importlib.import_module(f"quarterjack.{module}")
    for name in path.split("."):
        found = getattr(found, name, None)
    assert found is not None, f"{heading} is no longer decided in {decision}"


# ---------------------------------------------------------------- the tests' own instruments


def job(state: str, nominal: float, began: float | None, ended: float | None, missed: int = 0) -> JobFacts:
    """Return the facts of a job; instants are hours of the day."""
    hours = [None if hour is None else hour * 60 for hour in (nominal, began, ended)]
    return JobFacts(state=state, nominal=hours[0], is_manual=False, began=hours[1], ended=hours[2], missed=missed)


DAY: Final = [
    job("done", 9, 9, 10.5),
    job("skipped", 10, None, 10),
    job("missed", 13, None, 13.5, missed=2),
    job("done", 13, 13.5, 13.5),
    job("running", 14, 14, None),
]
GOOD: Final = """\
          09:00     10:00     11:00     12:00     13:00     14:00
words     |         |         |         |         |         |
of nine   [==============]                             o    [==>
left out            x         x         x     by the machine
"""


def test_drawing_that_is_true_has_no_differences() -> None:
    """The sample is the notation: every sign of it, in its place."""
    assert differences(GOOD, DAY) == []
    assert drawn(GOOD)["x"] == [20, 30, 40]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[==============]", "[===============]"),
        ("[==============]", " [=============]"),
        ("[==============]", "[==============!"),
        ("[==============]", "[==============>"),
        (" o  ", "    "),
        ("[==>", "[==]"),
        ("x         x         x", "          x         x"),
        ("  x         x         x", " x          x         x"),
        ("x         x         x", "x         x    x     "),
        ("words     |  ", "words        "),
    ],
)
def test_drawing_that_is_wrong_in_one_sign_is_told(old: str, new: str) -> None:
    """A checker that finds nothing would let every drawing through."""
    assert old in GOOD
    assert differences(GOOD.replace(old, new, 1), DAY)


def test_scale_goes_on_past_midnight_over_a_gap_and_beyond_its_end() -> None:
    """Nights are where clocks change, and a label that jumps is how a gap is drawn."""
    night = Scale("          23:00     00:00     01:00     03:00")
    assert [night.column(hour * 60) for hour in (23, 24, 24.5, 25, 27, 28)] == [10, 20, 25, 30, 40, 45]
    with pytest.raises(ValueError, match="two times of day"):
        Scale("no clock at all")


def test_program_that_fails_or_prints_otherwise_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed and what is complained of are kept apart, and a failure is one."""
    monkeypatch.setattr("tests.repo.checkout.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# `One`\n<!-- run -->\n```python\nimport sys\nprint(1)\nprint(2, file=sys.stderr)\n```\n```text\n1\n```\n"
        "# Two\n<!-- run -->\n```python\n# no heading\nraise SystemExit(3)\n```\n"
    )
    one, two = examples(page)
    came = play_all([one, two], tmp_path)
    assert (one.heading, one.printed, two.heading, two.output) == ("One", "1\n", "Two", None)
    assert came[one.program.name] == Played(status=0, printed="1\n", complained="2\n", jobs=[])
    assert (came[two.program.name]["status"], "SystemExit: 3" in came[two.program.name]["complained"]) == (1, True)
