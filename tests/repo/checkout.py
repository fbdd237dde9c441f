"""The checkout as its tests see it: its files, and what its Markdown says.

Blocks, headings and links are read by a parser of the few constructs that the
project's pages use: fenced blocks, ATX headings, inline links and images, HTML
comments. Whatever stands in a fenced block or in `code` is no link."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
FENCE: Final = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
HEADING: Final = re.compile(r"^#{1,6}\s+(?P<text>.+?)\s*#*$")
COMMENT: Final = re.compile(r"^\s*<!--(?P<text>.*?)-->\s*$")
LINK: Final = re.compile(
    r"!?\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+\"[^\"]*\")?\)"
)
ANCHOR: Final = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"|\{\s*#([\w-]+)\s*\}")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int  # of its first line of code, counted from 1
    language: str
    text: str
    note: str  # the HTML comment right before it, "" if there is none

    @property
    def name(self) -> str:
        """The block's place, as a name that may be a module's."""
        page = self.page.relative_to(ROOT).with_suffix("")
        return re.sub(r"\W", "_", f"{page}_line_{self.line}").lower()

    @property
    def place(self) -> str:
        """The block's place, for people and editors."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def tracked_files(*, with_new: bool = False) -> list[Path]:
    """Return the files that git tracks, with those it would add, or every file where there is no git."""
    wanted = ["--cached", *(["--others", "--exclude-standard"] if with_new else [])]
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *wanted]
    listed = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("git") else None
    names = listed.stdout.split("\0") if listed and listed.returncode == 0 else walk()
    return sorted({path for name in names if name and (path := ROOT / name).is_file()})


def walk() -> Iterator[str]:
    """Yield the paths below the checkout, but for what tools and installs leave there."""
    skipped = {".git", ".venv", ".venvs", "build", "dist", "site", "__pycache__", "results", ".hypothesis"}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in skipped and not name.endswith(("_cache", ".egg-info"))]
        yield from (str((Path(folder) / name).relative_to(ROOT)) for name in files)


def pages() -> list[Path]:
    """Return the project's Markdown pages, those just written included."""
    return [path for path in tracked_files(with_new=True) if path.suffix == ".md"]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of *page*, in order."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    at, note = 0, ""
    while at < len(lines):
        opening = FENCE.match(lines[at])
        if opening is None:
            comment = COMMENT.match(lines[at])
            if lines[at].strip():  # blank lines keep a note with its block
                note = comment["text"].strip() if comment else ""
            at += 1
            continue
        end = closing_line(lines, at + 1, opening["fence"])
        text = "\n".join(line.removeprefix(opening["indent"]) for line in lines[at + 1 : end]) + "\n"
        language = (opening["info"].split() or [""])[0]
        found.append(Block(page, at + 2, language, text, note))
        at, note = end + 1, ""
    return found


def closing_line(lines: list[str], start: int, fence: str) -> int:
    """Return the index of the line that closes *fence*, or the end of the page."""
    for index in range(start, len(lines)):
        line = lines[index].strip()
        if line and set(line) == {fence[0]} and len(line) >= len(fence):
            return index
    return len(lines)


def prose(page: Path) -> str:
    """Return *page* with its fenced blocks and `code` emptied, line by line."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in blocks(page):
        for index in range(block.line - 2, block.line + block.text.count("\n")):
            if index < len(lines):
                lines[index] = ""
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "`code`", "\n".join(lines))


def anchors(page: Path) -> set[str]:
    """Return the names in *page* that a link may point at."""
    lines = page.read_text(encoding="utf-8").splitlines()
    inside = {index for block in blocks(page) for index in range(block.line - 1, block.line + block.text.count("\n"))}
    found: set[str] = set()
    for index, line in enumerate(lines):
        if index in inside:
            continue
        found.update(name for pair in ANCHOR.findall(line) for name in pair if name)
        if heading := HEADING.match(line):
            found.add(unused(slug(heading["text"]), found))
    return found


def slug(heading: str) -> str:
    """Return the anchor of a heading: lower case, words joined by dashes, signs left out."""
    text = LINK.sub(lambda link: link["text"], ANCHOR.sub("", heading))
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", text.strip().lower()))


def unused(name: str, taken: set[str]) -> str:
    """Return *name*, numbered if an earlier heading has it."""
    numbers = (f"{name}-{number}" for number in range(1, len(taken) + 2))
    return name if name not in taken else next(numbered for numbered in numbers if numbered not in taken)
