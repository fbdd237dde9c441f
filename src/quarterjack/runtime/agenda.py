"""The agenda: the schedules a process knows, and which of them is next.

A heap of instants, and the schedules of each instant in a list: ten thousand
schedules of one second cost one push and one pop of the heap, where an entry
for each would cost ten thousand (0.8 µs each to pop).

A schedule may stand at an instant it no longer means, because it was changed
meanwhile; such an entry is passed over. What counts is the row's own
`Schedule.wake_ns`, also where the store changes it in place."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from sys import intern

from quarterjack.model import TICK_LANE, Schedule

__all__ = ["Agenda", "lane_of"]


def lane_of(row: Schedule) -> str:
    """Return the lane of a schedule's runs; see `stores.base.Want`."""
    return intern(TICK_LANE + row.payload.task + row.payload.options.lane_suffix)


class Agenda:
    """Schedules by the next instant at which they must be looked at. Not thread-safe."""

    __slots__ = ("_at", "_begun_ns", "_dues", "_lane_by_id", "_lane_set", "_lanes", "_rows")

    def __init__(self) -> None:
        self._rows: dict[str, Schedule] = {}
        self._lane_by_id: dict[str, str] = {}
        self._lanes: Counter[str] = Counter()
        """How many schedules there are of each lane."""
        self._lane_set: frozenset[str] | None = None
        self._dues: list[int] = []
        self._at: dict[int, list[str]] = {}
        self._begun_ns: int | None = None
        """The instant whose schedules are being taken: its list is turned round, to be taken from the end."""

    def __len__(self) -> int:
        """Return how many schedules are known."""
        return len(self._rows)

    def put(self, row: Schedule) -> None:
        """Know *row*, in place of what was known of this id."""
        schedule_id = row.id
        self._rows[schedule_id] = row
        lane = lane_of(row)
        if self._lane_by_id.get(schedule_id) is not lane:
            self._leave_lane(schedule_id)
            self._lane_by_id[schedule_id] = lane
            self._lanes[lane] += 1
            if self._lanes[lane] == 1:
                self._lane_set = None
        due = row.wake_ns
        if due is None:
            return
        ids = self._at.get(due)
        if ids is None:
            self._at[due] = [schedule_id]
            heappush(self._dues, due)
        else:
            ids.append(schedule_id)

    def get(self, schedule_id: str) -> Schedule | None:
        """Return what is known of this id."""
        return self._rows.get(schedule_id)

    def forget(self, schedule_id: str) -> bool:
        """Know the schedule no more; say whether it was known."""
        self._leave_lane(schedule_id)
        return self._rows.pop(schedule_id, None) is not None

    def _leave_lane(self, schedule_id: str) -> None:
        lane = self._lane_by_id.pop(schedule_id, None)
        if lane is not None:
            self._lanes[lane] -= 1
            if not self._lanes[lane]:
                del self._lanes[lane]
                self._lane_set = None

    @property
    def lanes(self) -> frozenset[str]:
        """The lanes of the schedules' runs; the same object as long as there are no others."""
        if self._lane_set is None:
            self._lane_set = frozenset(self._lanes)
        return self._lane_set

    def clear(self) -> None:
        """Know nothing."""
        self._rows.clear()
        self._lane_by_id.clear()
        self._lanes.clear()
        self._lane_set = None
        self._dues.clear()
        self._at.clear()
        self._begun_ns = None

    @property
    def next_ns(self) -> int | None:
        """The earliest instant at which a schedule must be looked at."""
        while self._dues:
            due = self._dues[0]
            ids = self._turned(due)
            while ids and self._row(ids[-1], due) is None:
                ids.pop()
            if ids:
                return due
            self._drop_first()
        return None

    def take(self, until_ns: int, most: int) -> list[Schedule]:
        """Remove and return what must be looked at up to *until_ns*, at most *most*, earliest first.

        The schedules stay known; `put` them again when their next instant is known.
        """
        found: list[Schedule] = []
        taken: set[str] = set()
        while self._dues and self._dues[0] <= until_ns:
            due = self._dues[0]
            ids = self._turned(due)
            while ids:
                if len(found) >= most:
                    return found
                schedule_id = ids.pop()
                row = self._row(schedule_id, due)
                if row is not None and schedule_id not in taken:
                    taken.add(schedule_id)
                    found.append(row)
            self._drop_first()
        return found

    def _row(self, schedule_id: str, due_ns: int) -> Schedule | None:
        row = self._rows.get(schedule_id)
        return row if row is not None and row.wake_ns == due_ns else None

    def _turned(self, due_ns: int) -> list[str]:
        """Return the ids at the first instant, the one put there first at the end."""
        ids = self._at[due_ns]
        if due_ns != self._begun_ns:
            ids.reverse()
            self._begun_ns = due_ns
        return ids

    def _drop_first(self) -> None:
        del self._at[heappop(self._dues)]
        self._begun_ns = None
