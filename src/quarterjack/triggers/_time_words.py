"""A cron expression's times of day in words: from masks, so that equal rules read alike.

Few times are named one by one, a rhythm is told with its first and last time:
``every 5 minutes from 09:00 to 17:55``. What is said is what happens: a range
that runs over midnight is cut there unless the rule fires every day, because the
hours after midnight belong to the same day as those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from . import _words

__all__ = ["TimesOfDay"]

_NAMED: Final = 6
"""Up to so many times of day are named one by one."""
_LISTED: Final = 9
"""Up to so many values of a field are listed; */7 has nine minutes, and each must be seen."""


class TimesOfDay(NamedTuple):
    """The hours, minutes and seconds that match, each rising."""

    hours: Sequence[int]
    minutes: Sequence[int]
    seconds: Sequence[int]
    is_daily: bool
    """True if the rule fires on every day."""

    def named(self) -> tuple[str, ...]:
        """Return the times of day if they are few or follow no rhythm, else nothing."""
        hours, minutes, seconds = self.hours, self.minutes, self.seconds
        count = len(hours) * len(minutes) * len(seconds)
        in_one_hour = len(hours) == len(seconds) == 1 and len(minutes) <= _LISTED and not _words.stride(minutes)
        if count > _NAMED and not in_one_hour and (len(minutes) * len(seconds) > 1 or self._hourly()):
            return ()
        return tuple(self._clock(h, m, s) for h in hours for m in minutes for s in seconds)

    def rhythm(self) -> str:
        """Return how often it fires, where `named` has nothing to say."""
        if len(self.minutes) * len(self.seconds) == 1:
            return self._hourly()
        if len(self.seconds) == 1:
            return self._within_hours()
        return self._within_minutes()

    # -- clocks ----------------------------------------------------------------------------

    def _clock(self, hour: int, minute: int, second: int) -> str:
        return f"{hour:02}:{minute:02}" + (f":{second:02}" if self.seconds != [0] else "")

    def _past(self, minute: int, second: int) -> str:
        """Return a time within any hour: ``:05``."""
        return f":{minute:02}" + (f":{second:02}" if self.seconds != [0] else "")

    def _window(self, hours: Sequence[int]) -> str:
        """Return the first and the last time in a run of hours."""
        first = self._clock(hours[0], self.minutes[0], self.seconds[0])
        return f"from {first} to {self._clock(hours[-1], self.minutes[-1], self.seconds[-1])}"

    def _hour_runs(self) -> list[list[int]]:
        found = _words.runs(self.hours)
        if self.is_daily and len(found) > 1 and found[0][0] == 0 and found[-1][-1] == 23:
            return [*found[1:-1], found[-1] + found[0]]
        return found

    # -- one time in each hour -------------------------------------------------------------

    def _hourly(self) -> str:
        """Return ``every hour``, ``every 2 hours from 00:00 to 22:00``; empty if the hours follow no rhythm."""
        if len(self.hours) == 24:
            past = self._past(self.minutes[0], self.seconds[0])
            return "every hour" if past == ":00" else f"every hour at {past}"
        if (step := _words.stride(self.hours)) > 1:
            return f"every {step} hours {self._window(self.hours)}"
        found = self._hour_runs()
        if any(len(run) < 3 for run in found):
            return ""
        return f"every hour {_words.join(map(self._window, found))}"

    # -- several in each hour --------------------------------------------------------------

    def _within_hours(self) -> str:
        """Return the words for several minutes of the hour, at one second of each."""
        minutes, second = self.minutes, self.seconds[0]
        if (beat := _beat(minutes, "minute")) is not None:
            return self._in_hours(f"{beat} at second {second}" if second else beat)
        step = _words.stride(minutes)
        if len(self.hours) == 1 and step:
            return f"every {_nth_unit(step, 'minute')} {self._window(self.hours)}"
        if step == 1 or (step and len(minutes) > _LISTED):
            first, last = self._past(minutes[0], second), self._past(minutes[-1], second)
            return self._of_hours(f"every {_nth_unit(step, 'minute')} from {first} to {last}")
        return self._at_times(_listed(minutes, lambda minute: self._past(minute, second)))

    def _within_minutes(self) -> str:
        """Return the words for several seconds of the minute."""
        minutes, seconds = self.minutes, self.seconds
        if len(minutes) * len(seconds) <= _NAMED:
            return self._at_times([self._past(minute, second) for minute in minutes for second in seconds])
        beat = _beat(seconds, "second")
        every = beat or _of_the_minute(seconds)
        if len(minutes) == 60:
            return self._in_hours(every if beat else f"{every} of every minute")
        if len(self.hours) == 1 and _words.stride(minutes) == 1:
            return f"{every if beat else f'{every} of every minute'} {self._window(self.hours)}"
        return self._of_hours(f"{every} {_during_minutes(minutes)}")

    # -- in which hours --------------------------------------------------------------------

    def _at_times(self, past: Sequence[str]) -> str:
        if len(self.hours) == 24:
            return f"every hour at {_words.join(past)}"
        runs = self._hour_runs()
        if any(len(run) < 2 for run in runs):
            return f"at {_words.join(past)} {self._hour_list()}"
        return f"every hour at {_words.join(past)}, {_words.join(map(self._window, runs))}"

    def _of_hours(self, words: str) -> str:
        if len(self.hours) == 24:
            return f"{words} of every hour"
        runs = self._hour_runs()
        if any(len(run) < 2 for run in runs):
            return f"{words} {self._hour_list()}"
        return f"{words} of every hour, {_words.join(map(self._window, runs))}"

    def _in_hours(self, words: str) -> str:
        if len(self.hours) == 24:
            return words
        runs = self._hour_runs()
        if len(runs) <= 3:
            return f"{words} {_words.join(map(self._window, runs))}"
        return f"{words} {self._hour_list()}"

    def _hour_list(self) -> str:
        step = _words.stride(self.hours)
        if step > 1 and len(self.hours) > _NAMED:
            return f"during every {_words.ordinal(step)} hour {self._window(self.hours)}"
        hours = _words.join(_listed(self.hours, "{:02}".format))
        return f"in the hour{'s' if len(self.hours) > 1 else ''} {hours}"


def _listed(values: Sequence[int], name: Callable[[int], str]) -> list[str]:
    """Return all values by name if they are few, else with their runs as spans."""
    return list(map(name, values)) if len(values) <= _LISTED else _words.spans(_words.runs(values), name)


def _nth_unit(step: int, unit: str) -> str:
    return unit if step == 1 else f"{step} {unit}s"


def _beat(values: Sequence[int], unit: str) -> str | None:
    """Return ``every 5 minutes`` if the values go round evenly from 0, else None."""
    step = 30 if list(values) == [0, 30] else _words.stride(values)
    is_even = step and values[0] == 0 and len(values) * step == 60
    return f"every {_nth_unit(step, unit)}" if is_even else None


def _of_the_minute(seconds: Sequence[int]) -> str:
    step = _words.stride(seconds)
    if step == 1:
        return f"at seconds {seconds[0]} to {seconds[-1]}"
    if step and len(seconds) > _LISTED:
        return f"every {step} seconds from second {seconds[0]} to {seconds[-1]}"
    return f"at seconds {_words.join(_listed(seconds, str))}"


def _during_minutes(minutes: Sequence[int]) -> str:
    step = _words.stride(minutes)
    if step and (step == 1 or len(minutes) > _NAMED):
        during = "minutes" if step == 1 else f"every {_words.ordinal(step)} minute from"
        return f"during {during} :{minutes[0]:02} to :{minutes[-1]:02}"
    return f"during minute{'s' if len(minutes) > 1 else ''} {_words.join(_listed(minutes, ':{:02}'.format))}"
