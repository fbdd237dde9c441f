"""Timelines drawn in text: what one shows, and what it should show.

A drawing opens with the line of its clock, ``09:00`` standing where nine o'clock
is. Below, each sign says what happened there:

    |   a fire time                      o   a run that ends within its column
    [   a run begins                     ]   it ends
    >   it goes on                       !   it is cut off: cancelled, or out of time
    x   a job is left out, or a fire time that has none: skipped, or missed

Words stand anywhere, and signs without a meaning (``=``, ``.``, ``~``) too; they are not compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from tests.docs.play import JobFacts

__all__ = ["Scale", "differences", "drawn"]

SIGNS: Final = "|o[]>!x"
LABEL: Final = re.compile(r"(?P<hour>\d\d):(?P<minute>\d\d)")
WORD: Final = re.compile(r"(?<![A-Za-z])(?![xo]+(?![A-Za-z]))[A-Za-z]{2,}")
"""Letters that stand together, other than signs of runs in columns next to each other."""


class Scale:
    """Where on a drawing an instant stands."""

    def __init__(self, clock: str) -> None:
        self.marks: list[tuple[int, int]] = []
        day = 0
        for label in LABEL.finditer(clock):
            minutes = day + int(label["hour"]) * 60 + int(label["minute"])
            if self.marks and minutes <= self.marks[-1][0]:  # past midnight
                day, minutes = day + 24 * 60, minutes + 24 * 60
            self.marks.append((minutes, label.start()))
        if len(self.marks) < 2:
            raise ValueError(f"a drawing opens with two times of day or more, not with {clock!r}")

    def column(self, minutes: float) -> int:
        """Return the column of *minutes* since midnight, between the nearest two labels or beyond the last."""
        later = next((n for n, (at, _) in enumerate(self.marks[1:-1], 1) if minutes <= at), len(self.marks) - 1)
        (first, left), (second, right) = self.marks[later - 1], self.marks[later]
        return int(left + (minutes - first) * (right - left) / (second - first) + 0.5)


def drawn(drawing: str) -> dict[str, list[int]]:
    """Return the columns where each sign stands, in order."""
    clock, *rows = drawing.splitlines()
    first = Scale(clock).marks[0][1]
    found: dict[str, list[int]] = {sign: [] for sign in SIGNS}
    for row in rows:
        bare = WORD.sub(lambda word: " " * len(word[0]), row)
        for column, sign in enumerate(bare):
            if column >= first and sign in found:
                found[sign].append(column)
    return {sign: sorted(columns) for sign, columns in found.items()}


def ran(jobs: Iterable[JobFacts], scale: Scale) -> dict[str, list[int]]:
    """Return where the signs of runs belong for *jobs*."""
    signs: dict[str, list[int]] = {sign: [] for sign in "o[]!"}
    for job in jobs:
        if job["began"] is None:
            continue
        begins = scale.column(job["began"])
        ends = None if job["ended"] is None else scale.column(job["ended"])
        if begins == ends:
            signs["o"].append(begins)
            continue
        signs["["].append(begins)
        if ends is not None:
            signs["]" if job["state"] in {"done", "failed"} else "!"].append(ends)
    return {sign: sorted(columns) for sign, columns in signs.items()}


def differences(drawing: str, jobs: list[JobFacts]) -> list[str]:
    """Return in words where *drawing* does not show what became of *jobs*."""
    scale, shown = Scale(drawing.splitlines()[0]), drawn(drawing)
    wrong = [
        f"{sign} stands at {shown[sign]} and belongs at {columns}"
        for sign, columns in ran(jobs, scale).items()
        if shown[sign] != columns
    ]
    going_on = sum(job["began"] is not None and job["ended"] is None for job in jobs)
    if len(shown[">"]) != going_on:
        wrong.append(f"> stands {len(shown['>'])} times, and {going_on} go on")
    return wrong + wrong_fire_times(shown, jobs, scale)


def wrong_fire_times(shown: Mapping[str, list[int]], jobs: list[JobFacts], scale: Scale) -> list[str]:
    """Return what is wrong with the fire times, and with what is left out.

    A job that is left out has its sign where that was decided, fire times for which
    there was no job have theirs where they are; a run by hand has no fire time.
    """
    left_out = [job for job in jobs if job["state"] in {"skipped", "missed"}]
    decided = {scale.column(job["ended"] or 0) for job in left_out if not job["missed"]}
    fired = {scale.column(job["nominal"] or 0) for job in jobs if not job["is_manual"]} | set(shown["x"]) - decided
    count = sum(max(job["missed"], 1) for job in left_out)
    wrong: list[str] = []
    if len(shown["x"]) != count:
        wrong.append(f"x stands {len(shown['x'])} times, and {count} were left out")
    if not decided <= set(shown["x"]):
        wrong.append(f"x stands at {shown['x']}, and jobs were left out at {sorted(decided)}")
    if not fired <= set(shown["|"]):
        wrong.append(f"| stands at {shown['|']}, and fire times were {sorted(fired)}")
    return wrong
