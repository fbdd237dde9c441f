"""The days on which the clock of a rule's zone is set, and what the rule does on them.

What happens is not guessed from other days: a rule over the wall clock is asked
which of its times the clock skips or shows twice, and by its policies what
becomes of them. Only a rule without a grid (a custom one with a zone) is
compared with the day and the week before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING, Final, NamedTuple

from . import _wall, _words, combine, filters  # whole: `base` leads here before they are complete
from ._stretches import DAY_NS, LONGEST_GAP_NS, Change, changes_in
from .base import from_ns

if TYPE_CHECKING:
    from .base import Trigger

__all__ = ["ClockChange", "clock_changes"]

_MANY: Final = 4
"""More runs in a day than this are told as a number, fewer by their times."""
_KEPT: Final = 100
"""So many times are kept by name; a rule of every second has 3,600 in an hour."""
_COUNTED: Final = 1_000_000
_HOUR_NS: Final = 3_600_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockChange:
    """A moment at which the clock of a rule's zone is set, and what the rule does around it.

    Attributes:
        at: The first instant after the change, in the zone.
        shift: How far the clock is set: positive is forward.
        words: All of it, as in ``on 29 March 2026 the clocks go forward at 02:00: no run is affected``.
        is_affected: Whether the rule has a time that the clock skips or shows twice.
        skipped: Times of day of the rule that do not exist on that day, at most 100.
        instead: When it runs in their place.
        repeated: Times of day of the rule that come twice on that day, at most 100.
    """

    at: datetime
    shift: timedelta
    words: str
    is_affected: bool = False
    skipped: tuple[time, ...] = ()
    instead: tuple[datetime, ...] = ()
    repeated: tuple[time, ...] = ()


def clock_changes(trigger: Trigger, after_ns: int, until_ns: int) -> list[ClockChange]:
    """Return the changes in ``(after, until]`` of every zone whose clock the rule reads, in order."""
    parts = list(_parts(trigger, ()))
    zones = {part.wall.zone for part in parts} or ({trigger.zone} if trigger.zone is not None else set[tzinfo]())
    found: list[ClockChange] = []
    for zone in zones:
        here = [part for part in parts if part.wall.zone == zone]
        found += [
            _told(trigger, here, zone, change, names_zone=len(zones) > 1)
            for change in changes_in(zone, after_ns, until_ns)
            if after_ns < change.at <= until_ns
        ]
    return sorted(found, key=lambda change: change.at)


# -- the parts of a rule that read a clock ----------------------------------------------------


class _Part(NamedTuple):
    """A rule over the wall clock, and the filters it passes, the innermost first."""

    wall: _wall.WallTrigger
    filters: tuple[combine.Filtered, ...]

    def may_mean(self, wall: int, offset: int) -> bool:
        """Say whether its filters allow a wall time, were the clock not set."""
        for one in self.filters:
            by = one.filter
            if isinstance(by, filters.WallFilter) and by.zone == self.wall.zone:
                is_allowed = by.wall_span(wall)[0]
            else:
                is_allowed = by.allows_ns(wall - offset, self.wall.zone)
            if is_allowed is not one.keep:
                return False
        return True

    def lets(self, at: int) -> bool:
        """Say whether its filters allow an instant."""
        return all(one.filter.allows_ns(at, one.trigger.zone) is one.keep for one in self.filters)

    def walls(self, low: int, high: int, offset: int) -> list[int]:
        """Return its wall times in ``[low, high)``."""
        found: list[int] = []
        at = self.wall.grid.next_wall(low - 1)
        while at is not None and at < high:
            if self.may_mean(at, offset):
                found.append(at)
            at = self.wall.grid.next_wall(at)
        return found


def _parts(trigger: Trigger, passed: tuple[combine.Filtered, ...]) -> Iterator[_Part]:
    if isinstance(trigger, _wall.WallTrigger):
        yield _Part(trigger, passed)
    elif isinstance(trigger, combine.Filtered):
        yield from _parts(trigger.trigger, (trigger, *passed))
    elif isinstance(trigger, combine.Union):
        for member in trigger.members:
            yield from _parts(member, passed)


# -- what one change does to one part ---------------------------------------------------------


class _Effect(NamedTuple):
    """What becomes of the wall times that a change skips, or shows twice."""

    walls: list[int]
    runs: list[int]
    """Instants that stand for skipped ones."""
    delta: int
    """How many more runs the day has than it would have had."""
    words: str


def _effect(part: _Part, zone: tzinfo, change: Change) -> _Effect:
    if change.after > change.before:
        return _forward(part, zone, change)
    walls = part.walls(change.at + change.after, change.at + change.before, change.before)
    fold = part.wall._policies[1]
    when = {"first": "the first time", "last": "the second time", "both": "both times"}[fold]
    several = len(walls) > 1
    words = f"{_faces(walls)} {'come' if several else 'comes'} twice, {'they run' if several else 'it runs'} {when}"
    return _Effect(walls, [], len(walls) if fold == "both" else 0, words)


def _forward(part: _Part, zone: tzinfo, change: Change) -> _Effect:
    at, shift = change.at, change.after - change.before
    walls = part.walls(at + change.before, at + change.after, change.before)
    gap = part.wall._policies[0] if shift <= LONGEST_GAP_NS else "skip"
    if gap == "error":
        return _Effect(walls, [], 0, f"{_do_not_exist(walls)}, and its schedule is parked (gap='error')")
    meant = {"run_after": [at] if walls else [], "shift": [wall - change.before for wall in walls], "skip": []}[gap]
    runs = [one for one in meant if part.lets(one)]
    added = [one for one in runs if not part.walls(one + change.after, one + change.after + 1, change.after)]
    return _Effect(walls, runs, len(added) - len(walls), _skipped_words(walls, runs, added, zone))


def _skipped_words(walls: list[int], runs: list[int], added: list[int], zone: tzinfo) -> str:
    head, several = _do_not_exist(walls), len(walls) > 1
    if not runs:
        return f"{head}, {'those runs are' if several else 'that run is'} left out"
    last = from_ns(runs[-1], zone)
    at = f"{_faces([_wall_of(one, zone) for one in runs])} {last:%Z}"
    if not added:
        return f"{head}, {'they become' if several else 'it becomes'} one with the run at {at}"
    return f"{head}, one run at {at} stands for them" if len(runs) < len(walls) else f"{head}, {_runs(walls)} at {at}"


def _runs(walls: list[int]) -> str:
    return "they run" if len(walls) > 1 else "it runs"


def _do_not_exist(walls: list[int]) -> str:
    return f"{_faces(walls)} {'do' if len(walls) > 1 else 'does'} not exist"


def _wall_of(at: int, zone: tzinfo) -> int:
    local = from_ns(at, zone)
    return (local.hour * 3_600 + local.minute * 60 + local.second) * 1_000_000_000 + local.microsecond * 1_000


def _face(wall: int) -> time:
    return from_ns(wall % DAY_NS).time()


def _faces(walls: Sequence[int]) -> str:
    """Return times of day in words; of many the first and the last."""
    names = [_words.clock(_face(wall)) for wall in walls]
    return _words.join(names) if len(names) <= _MANY else f"{names[0]} to {names[-1]}"


# -- all of it, told ----------------------------------------------------------------------------


def _told(trigger: Trigger, parts: list[_Part], zone: tzinfo, change: Change, *, names_zone: bool) -> ClockChange:
    effects = [effect for part in parts if (effect := _effect(part, zone, change)).walls]
    said = _effects_words(trigger, effects, change) if parts else _compared(trigger, zone, change)
    is_forward = change.after > change.before
    walls = sorted({wall for effect in effects for wall in effect.walls})[:_KEPT]
    runs = sorted({run for effect in effects for run in effect.runs})[:_KEPT]
    faces = tuple(map(_face, walls))
    return ClockChange(
        at=from_ns(change.at, zone),
        shift=timedelta(microseconds=(change.after - change.before) // 1_000),
        words=f"{_headline(zone if names_zone else None, change)}: {said or 'no run is affected'}",
        is_affected=bool(said),
        skipped=faces if is_forward else (),
        instead=tuple(from_ns(run, zone) for run in runs),
        repeated=() if is_forward else faces,
    )


def _headline(zone: tzinfo | None, change: Change) -> str:
    shift = change.after - change.before
    before = from_ns(change.at + change.before)
    way = "forward" if shift > 0 else "back"
    by = "" if abs(shift) == _HOUR_NS else f" by {_words.period(abs(shift), every=False)}"
    place = "" if zone is None else f", {_words.zone(str(zone))}"
    return f"on {_words.dates([before.date()])} the clocks go {way}{by} at {_words.clock(before.time())}{place}"


def _effects_words(trigger: Trigger, effects: list[_Effect], change: Change) -> str:
    """Return what becomes of the rule's times on that day; nothing if it has none that matter."""
    delta = sum(effect.delta for effect in effects)
    if delta:
        low, high = _day(change)
        count = trigger.count_ns(low - 1, high - 1, _COUNTED)
        if max(count, count - delta) > _MANY:
            return f"{count:,} run{'' if count == 1 else 's'} that day, not {count - delta:,}"
    return "; ".join(dict.fromkeys(effect.words for effect in effects))


def _day(change: Change) -> tuple[int, int]:
    """Return the day of the change, as instants ``[low, high)``."""
    first_wall = min(change.at + change.before, change.at + change.after)
    midnight = first_wall // DAY_NS * DAY_NS
    low, high = midnight - change.before, midnight + DAY_NS - change.after
    return min(low, change.at), max(high, change.at)


def _compared(trigger: Trigger, zone: tzinfo, change: Change) -> str:
    """Return how a rule without a grid differs on that day from the day, or the week, before it."""
    low, high = _day(change)
    that_day = _times(trigger, zone, low, high)
    before = [_times(trigger, zone, low - days * DAY_NS, low - (days - 1) * DAY_NS) for days in (1, 7)]
    if that_day in before:
        return ""
    usual = max(before, key=len)
    if max(len(that_day), len(usual)) > _MANY:
        return f"{len(that_day):,} runs that day, not {len(usual):,}"
    return f"it runs at {_words.join(that_day)}" if that_day else "it does not run that day"


def _times(trigger: Trigger, zone: tzinfo, low: int, high: int) -> list[str]:
    found: list[str] = []
    at = trigger.next_ns(low - 1)
    while at is not None and at < high and len(found) < _KEPT**2:
        found.append(_words.clock(from_ns(at, zone).time()))
        at = trigger.next_ns(at)
    return found
