"""The pages of the strategies: every program prints what stands under it, every timeline shows what happened."""

from __future__ import annotations

import ast
from typing import Final

import pytest

from tests.docs.examples import BY_HAND, CHECKED, Example, examples, play_all
from tests.docs.play import Played
from tests.docs.timeline import differences
from tests.repo.checkout import ROOT, blocks

PAGES: Final = sorted((ROOT / "docs/flow").glob("*.md"))
EXAMPLES: Final = [example for page in PAGES for example in examples(page)]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    """What came of each program of the pages, by the block's name."""
    return play_all(EXAMPLES, tmp_path_factory.mktemp("flow"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.program.place)
def test_strategy_does_what_its_example_prints(example: Example, played: dict[str, Played]) -> None:
    """A reader chooses by the page, and builds on it."""
    what = played[example.program.name]
    assert what["status"] == 0, f"{example.program.place}\n{what['complained']}"
    assert what["printed"] == example.printed, example.program.place


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.program.place)
def test_timeline_shows_what_the_example_did(example: Example, played: dict[str, Played]) -> None:
    """Readers look at the drawing first, and many no further."""
    if example.drawing is None:
        return
    if example.drawing.note != CHECKED:
        assert example.drawing.note.removeprefix(BY_HAND).strip(), "a drawing that is not checked says why"
        return
    assert differences(example.drawing.text, played[example.program.name]["jobs"]) == [], example.drawing.place


def test_every_program_of_the_pages_is_an_example_with_its_output() -> None:
    """A block that nobody runs is the one that goes out of date."""
    programs = [block.place for page in PAGES for block in blocks(page) if block.language == "python"]
    assert programs == [example.program.place for example in EXAMPLES]
    assert [example.program.place for example in EXAMPLES if example.output is None] == []


def test_strategies_of_your_own_take_less_than_fifteen_lines() -> None:
    """The page promises that a gate, an order and a wrap are small things to write."""
    shown = {
        base.id: (node.end_lineno or 0) - node.lineno + 1
        for example in examples(ROOT / "docs/flow/custom.md")[:3]
        for node in ast.parse(example.program.text).body
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Name)
    }
    assert shown.keys() == {"Gate", "Order", "Wrap"}
    assert max(shown.values()) < 15
