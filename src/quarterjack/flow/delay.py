"""`Delay`: a pause between jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal

from quarterjack._choices import one_of
from quarterjack._durations import Seconds, to_seconds
from quarterjack.clock import Clock
from quarterjack.errors import InvalidOption

from ._keys import By
from ._options import changed
from ._rate import LONG_AGO, Pace
from .base import Gate
from .outcome import Ended, EndKind
from .waiting import Waiting

__all__ = ["Delay"]

After = Literal["finish", "start"]
_SETTINGS: Final = ("seconds", "slack")
_SLACK_S: Final = 0.005
"""An asyncio timer rings 1.2 ms late in the median (measured, epoll rounds up to whole milliseconds)."""
_SLACK_SHARE: Final = 0.25


class Delay(Gate):
    """Lets one job start at a time, *seconds* after the one before.

    Use ``after="finish"`` where the other side needs to recover: the pause begins
    when the last job is over, however it ended, and no two run at once. Use
    ``after="start"`` for an even pace: a job starts every so often, however long
    each takes. Not for a quota such as 300 in 15 minutes, which may be used up in
    any rhythm: see `SlidingWindow`.

    With ``"start"`` the instants form a grid that does not slip because a start is a
    little late: any k + 1 starts take at least k delays less the *slack*, and on the
    long run exactly k delays while jobs wait. ``slack=0`` never comes closer than
    the delay, and slips by what the loop is late. A job's cost does not matter.
    O(1) time and space.

    Args:
        seconds: The delay, as a number of seconds or a ``timedelta``, above 0.
        after: What it is counted from, ``"finish"`` (default) or ``"start"``.
        slack: With ``"start"``: how late a start may be, in seconds, without moving those
            after it; a quarter of the delay and at most 5 ms by default.
        by: A delay for each key, such as ``by="host"``.
        name: What it is called in `why_waiting` and `stats`.

    Raises:
        InvalidOption: Naming the option, the value and the range.
    """

    def __init__(
        self,
        seconds: Seconds,
        after: After = "finish",
        *,
        slack: Seconds | None = None,
        by: By | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(by=by, name=name)
        one_of(after, "after", After)
        if slack is not None and after == "finish":
            raise InvalidOption('slack goes with after="start"; the pause after a finish is never shorter')
        self.after: Final[After] = after
        self.seconds = to_seconds(seconds, "seconds", exclusive=True)
        self._given_slack = None if slack is None else to_seconds(slack, "slack")
        self._is_taken = False
        """A job was admitted, and what the delay is counted from has not happened."""
        self._finish_at = LONG_AGO
        self._pace = Pace()
        self._counted_by: Clock | None = None

    @property
    def slack(self) -> float:
        """How late a start may be without moving those after it, in seconds."""
        given = self._given_slack
        return min(_SLACK_S, _SLACK_SHARE * self.seconds) if given is None else given

    def eta(self, job: Waiting, now: float) -> float:
        return math.inf if self._is_taken else self._due()

    def take(self, job: Waiting, now: float) -> None:
        self._is_taken = True

    def stays_closed(self, job: Waiting, held: float) -> bool:
        return self.after == "finish"

    def started(self, job: Waiting, now: float) -> None:
        if self.after == "start":
            self._is_taken = False
            self._counted_by = self.clock
            self._pace.begin(job.enqueued_at, now, self.seconds, self.slack)

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        if ended.kind is EndKind.NOT_STARTED:
            self._is_taken = False
        elif self.after == "finish":
            self._is_taken = False
            self._counted_by = self.clock
            self._finish_at = now

    def is_idle(self, now: float) -> bool:
        return not self._is_taken and self._due() + self.slack <= now

    def forget(self) -> None:
        if self._counted_by is not self.clock:  # on the same clock the delay holds in the next loop, too
            self._finish_at = LONG_AGO
            self._pace = Pace()
        self._is_taken = False

    def stats(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "after": self.after, "is_closed": self._is_taken}

    def _due(self) -> float:
        return self._finish_at + self.seconds if self.after == "finish" else self._pace.due(self.seconds)

    def _check_changes(self, changes: Mapping[str, Any]) -> None:
        changed(self, changes, _SETTINGS)
        to_seconds(changes.get("seconds", self.seconds), "seconds", exclusive=True)
        if "slack" in changes and self.after == "finish":
            raise InvalidOption('slack goes with after="start"; the pause after a finish is never shorter')
        to_seconds(changes.get("slack", 0.0), "slack")

    def _change(self, changes: Mapping[str, Any]) -> None:
        self.seconds = to_seconds(changes.get("seconds", self.seconds), "seconds", exclusive=True)
        if "slack" in changes:
            self._given_slack = to_seconds(changes["slack"], "slack")
