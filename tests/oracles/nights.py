"""One night in one zone: rules are drawn, walked by brute force and compared with what they say themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from random import Random
from typing import Final

from quarterjack import InvalidTrigger, Trigger

from . import draw
from .walk import HOUR, MINUTE, SECOND, Change, Walk, shown

__all__ = ["Disagreement", "Night", "compare", "enumerated", "one_night"]

_TENTH: Final = SECOND // 10
_MOST: Final = 10**7


class Disagreement(AssertionError):
    """A rule says something else than brute force."""


@dataclass(frozen=True, slots=True)
class Night:
    """A zone, and one of the instants at which its clock is set, or any instant (*shift* 0)."""

    zone: str
    change: Change

    @property
    def day(self) -> date:
        """The date, in UTC."""
        return draw.day_of(self.change.at)


def enumerated(trigger: Trigger, start: int, end: int) -> list[int]:
    """Return the fire times in ``(start, end]`` by asking for one after the other."""
    found: list[int] = []
    at = _next(trigger, start)
    while at is not None and at <= end:
        found.append(at)
        at = _next(trigger, at)
        if at is not None and at <= found[-1]:
            raise Disagreement(f"{trigger!r}: next({shown(found[-1])}) is {shown(at)}, which is not after it")
    return found


def _backwards(trigger: Trigger, start: int, end: int) -> list[int]:
    found: list[int] = []
    at = _prev(trigger, end)
    while at is not None and at > start:
        found.append(at)
        at = _prev(trigger, at - 1)
        if at is not None and at >= found[-1]:
            raise Disagreement(f"{trigger!r}: prev(before {shown(found[-1])}) is {shown(at)}")
    return found[::-1]


def _next(trigger: Trigger, at: int) -> int | None:
    try:
        return trigger.next_ns(at)
    except InvalidTrigger as error:
        _expect_exhausted(error)
        return None


def _prev(trigger: Trigger, at: int) -> int | None:
    try:
        return trigger.prev_ns(at)
    except InvalidTrigger as error:
        _expect_exhausted(error)
        return None


def _expect_exhausted(error: InvalidTrigger) -> None:
    """A filter that lets nothing more through says so after 10,000 leaps; every other error is one."""
    if "let nothing through" not in str(error):
        raise error


def compare(trigger: Trigger, expected: list[int], start: int, end: int, rng: Random) -> None:
    """Ask a rule everything there is about its fire times in ``(start, end]``.

    Raises:
        Disagreement: Naming the rule and the first instant about which they differ.
    """
    _same(trigger, "next", enumerated(trigger, start, end), expected)
    _same(trigger, "prev", _backwards(trigger, start, end), expected)
    if (count := trigger.count_ns(start, end, _MOST)) != len(expected):
        raise Disagreement(f"{trigger!r}: count({shown(start)}, {shown(end)}) is {count}, not {len(expected)}")
    cap = rng.randint(0, len(expected))
    if trigger.count_ns(start, end, cap) != cap:
        raise Disagreement(f"{trigger!r}: count does not stop at its cap of {cap}")
    _ask_in_between(trigger, expected, start, end, rng)
    revived = Trigger.from_json(trigger.to_json())
    if revived != trigger or hash(revived) != hash(trigger) or _next(revived, start) != _next(trigger, start):
        raise Disagreement(f"{trigger!r} comes back from JSON as {revived!r}")


def _same(trigger: Trigger, how: str, got: list[int], expected: list[int]) -> None:
    if got != expected:
        first = min(set(got) ^ set(expected))
        zone = str(trigger.zone or "UTC")
        what = "has" if first in set(got) else "lacks"
        raise Disagreement(f"{trigger!r}: {how} {what} {shown(first, zone)}, one of {len(got)} for {len(expected)}")


def _ask_in_between(trigger: Trigger, expected: list[int], start: int, end: int, rng: Random) -> None:
    """Ask from instants that are no fire times: beside some, and anywhere."""
    asked = [rng.randint(start + 1, end - 1) for _ in range(3)]
    for one in rng.sample(expected, min(2, len(expected))):
        asked += [one - 1, one, one + 1]
    for at in asked:
        later = next((one for one in expected if one > at), None)
        if later is not None and trigger.next_ns(at) != later:
            raise Disagreement(f"{trigger!r}: next({shown(at)}) is not {shown(later)}")
        earlier = next((one for one in reversed(expected) if one <= at), None)
        if earlier is not None and trigger.prev_ns(at) != earlier:
            raise Disagreement(f"{trigger!r}: prev({shown(at)}) is not {shown(earlier)}")
    at = min(max(asked[-1], start), end)
    if trigger.count_ns(at, end, _MOST) != (count := sum(at < one for one in expected)):
        raise Disagreement(f"{trigger!r}: count({shown(at)}, {shown(end)}) is not {count}")


# -- a night -------------------------------------------------------------------------------


def _window(night: Night, rng: Random, reach: int, unit: int) -> tuple[int, int]:
    """Return a window that holds the change, but for some: there its end or beginning is the change itself."""
    at = night.change.at // unit * unit
    before, after = rng.randint(0, reach // unit), rng.randint(1, reach // unit)
    return at - rng.choice([1, before, before, before]) * unit, at + rng.choice([0, 1, after, after, after]) * unit


def _by_minutes(night: Night, rng: Random, rules: int) -> tuple[Walk, list[draw.Subject | None]]:
    start, end = _window(night, rng, 30 * HOUR, MINUTE)
    walk = Walk(night.zone, start - HOUR, end + HOUR, MINUTE)
    kinds: list[Callable[[], draw.Subject | None]] = [
        lambda: draw.cron(rng, night.zone, night.day, by_second=False),
        lambda: draw.cron(rng, night.zone, night.day, by_second=False),
        lambda: draw.at(rng, night.zone, by_second=False),
        lambda: draw.aligned(rng, night.zone, MINUTE),
        lambda: draw.calendar(rng, night.zone, night.day, by_second=False),
    ]
    return walk, [rng.choice(kinds)() for _ in range(rules)]


def _by_seconds(night: Night, rng: Random, rules: int) -> tuple[Walk, list[draw.Subject | None]]:
    start, end = _window(night, rng, HOUR, SECOND)
    walk = Walk(night.zone, start, end, SECOND)
    kinds: list[Callable[[], draw.Subject | None]] = [
        lambda: draw.cron(rng, night.zone, night.day, by_second=True),
        lambda: draw.at(rng, night.zone, by_second=True),
        lambda: draw.aligned(rng, night.zone, SECOND),
        lambda: draw.calendar(rng, night.zone, night.day, by_second=True),
    ]
    return walk, [rng.choice(kinds)() for _ in range(rules)]


def _by_tenths(night: Night, rng: Random, rules: int) -> tuple[Walk, list[draw.Subject | None]]:
    start, end = _window(night, rng, 5 * MINUTE, _TENTH)
    walk = Walk(night.zone, start, end, _TENTH)
    return walk, [draw.aligned(rng, night.zone, _TENTH) for _ in range(rules)]


def one_night(night: Night, rng: Random, rules: int, *, step: int = MINUTE) -> int:
    """Compare *rules* random rules, their unions and filtered ones with brute force; return how many were compared.

    Raises:
        Disagreement: At the first difference.
    """
    make = {MINUTE: _by_minutes, SECOND: _by_seconds, _TENTH: _by_tenths}[step]
    walk, drawn = make(night, rng, rules)
    subjects = [subject for subject in drawn if subject is not None]
    answers = [walk.fire_times(subject.matches, gap=subject.gap, fold=subject.fold) for subject in subjects]
    for subject, expected in zip(subjects, answers, strict=True):
        compare(subject.trigger, expected, walk.start, walk.end, rng)
        _compare_error(subject, walk)
    for combined, expected in _combined(night, rng, subjects, answers):
        compare(combined, expected, walk.start, walk.end, rng)
    return len(subjects)


def _combined(
    night: Night, rng: Random, subjects: list[draw.Subject], answers: list[list[int]]
) -> Iterator[tuple[Trigger, list[int]]]:
    """Build a union and a filtered rule of what was drawn, with what set algebra makes of the answers."""
    if not subjects:
        return
    chosen = rng.sample(range(len(subjects)), min(len(subjects), rng.randint(1, 3)))
    union, merged = subjects[chosen[0]].trigger, set(answers[chosen[0]])
    for index in chosen[1:]:
        union, merged = union | subjects[index].trigger, merged | set(answers[index])
    yield union, sorted(merged)
    sieve = draw.sieve(rng, rng.choice([night.zone, night.zone, "Europe/Rome"]), night.day)
    kept = {at for at in merged if sieve.allows(at)}
    if kept:
        yield union & sieve.filter, sorted(kept)
    if kept != merged:
        yield union - sieve.filter, sorted(merged - kept)


def _compare_error(subject: draw.Subject, walk: Walk) -> None:
    """With ``gap="error"`` a rule fires up to a gap that holds one of its times, and there it raises."""
    data = subject.trigger.to_dict() | {"gap": "error", "fold": subject.fold}
    trigger = Trigger.from_dict(data)
    gaps = [at for at, _ in walk.lost(subject.matches) if walk.start < at <= walk.end]
    first = min(gaps, default=walk.end + 1)
    expected = [at for at in walk.fire_times(subject.matches, gap="skip", fold=subject.fold) if at < first]
    got: list[int] = []
    try:
        at = trigger.next_ns(walk.start)
        while at is not None and at <= walk.end:
            got.append(at)
            at = trigger.next_ns(at)
    except InvalidTrigger as error:
        if "does not exist" not in str(error) or (not gaps and not _raised_beyond(subject, walk, got)):
            raise Disagreement(f"{trigger!r} raises after {[shown(one) for one in got[-1:]]}: {error}") from None
    else:
        if gaps:
            raise Disagreement(f"{trigger!r} does not raise at {shown(first)}")
    _same(trigger, "next", got, expected)


def _raised_beyond(subject: draw.Subject, walk: Walk, got: list[int]) -> bool:
    """Say whether the search for what follows the last fire time may rightly have met a gap behind the window."""
    gentle = Trigger.from_dict(subject.trigger.to_dict() | {"gap": "run_after", "fold": subject.fold})
    following = gentle.next_ns(got[-1] if got else walk.start)
    return following is not None and following > walk.end
