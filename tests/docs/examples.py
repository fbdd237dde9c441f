"""The examples of a page: a program, what it prints, and the timeline that is drawn above it.

A program is a ``python`` block that says ``<!-- run -->``; the ``text`` block that
follows is its output. A ``text`` block right before it is its timeline: checked
if it says ``<!-- timeline -->``, and left to the eye with
``<!-- timeline by hand: why -->``."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.docs.play import Played
from tests.repo.checkout import FENCE, HEADING, Block, blocks, closing_line
from tests.repo.test_doc_examples import with_source, write

__all__ = ["BY_HAND", "CHECKED", "Example", "examples", "play_all"]

CHECKED: Final = "timeline"
BY_HAND: Final = "timeline by hand: "


@dataclass(frozen=True, slots=True)
class Example:
    """A program of a page with what stands around it."""

    heading: str
    drawing: Block | None
    program: Block
    output: Block | None

    @property
    def printed(self) -> str:
        """What the page says that it prints."""
        return "" if self.output is None else self.output.text


def examples(page: Path) -> list[Example]:
    """Return the examples of *page* that end by themselves, in order."""
    found, titles = blocks(page), headings(page)
    return [
        Example(
            heading=next((title for line, title in reversed(titles) if line < block.line), ""),
            drawing=found[n - 1] if n and found[n - 1].note.startswith(CHECKED) else None,
            program=block,
            output=found[n + 1] if n + 1 < len(found) and found[n + 1].language == "text" else None,
        )
        for n, block in enumerate(found)
        if block.language == "python" and block.note == "run"
    ]


def headings(page: Path) -> list[tuple[int, str]]:
    """Return the headings of *page* and their lines, counted from 1; what stands in a block is none."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[tuple[int, str]] = []
    at = 0
    while at < len(lines):
        if fence := FENCE.match(lines[at]):
            at = closing_line(lines, at + 1, fence["fence"])
        elif heading := HEADING.match(lines[at]):
            found.append((at + 1, heading["text"].replace("`", "")))
        at += 1
    return found


def play_all(found: list[Example], folder: Path) -> dict[str, Played]:
    """Run each program in a process of its own; return what came of it, by the block's name."""
    paths = write([example.program for example in found], folder)
    answer = subprocess.run(
        [sys.executable, Path(__file__).with_name("play.py"), *paths],
        env=with_source(),
        capture_output=True,
        text=True,
        check=True,
    )
    played: dict[str, Played] = json.loads(answer.stdout)
    return {path.stem: played[path.name] for path in paths}
