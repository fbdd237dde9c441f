"""What a session of the laboratory found: settings, a row per way, and the way to JSON and back.

JSON holds every start, so that a long run can be counted and drawn again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Final

from .account import Account, count
from .verdict import verdict
from .ways._catalog import Way
from .ways._heat import Recorded

__all__ = ["SCHEMA", "NotAReport", "Results", "Row", "Settings"]

SCHEMA: Final = "drift"


class NotAReport(ValueError):
    """What was read is no JSON of `Results`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How it was measured.

    Attributes:
        period_ns: The time from one tick to the next.
        seconds: How long each way was to be measured.
        body: One of `quarterjack.lab.ways._case.BODIES`.
        is_side_by_side: Whether all ways ran at the same time.
        machine: Facts in words, by name: system, processors, Python.
        simulated_s: The seconds that were simulated; 0 for what was measured.
    """

    period_ns: int
    seconds: float
    body: str
    is_side_by_side: bool
    machine: Mapping[str, str] = field(default_factory=dict[str, str])
    simulated_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One way: what was recorded of it, the account, and the verdict in words."""

    way: Way
    recorded: Recorded
    account: Account | None
    verdict: str

    @classmethod
    def of(cls, way: Way, recorded: Recorded, period_ns: int) -> Row:
        """Count what was recorded of a way and judge it."""
        length_ns = round(recorded.seconds * 1e9)
        account = (
            None
            if recorded.error
            else count(
                recorded.starts_ns,
                origin_ns=recorded.origin_ns,
                period_ns=period_ns,
                length_ns=length_ns,
                promise=way.promise,
            )
        )
        if account is None:
            return cls(way, recorded, None, f"failed: {recorded.error or 'it started nothing'}")
        return cls(way, recorded, account, verdict(account))


@dataclass(frozen=True, slots=True)
class Results:
    """The whole: *left_out* has for each way that could not run here the reason, with the line that helps."""

    settings: Settings
    rows: tuple[Row, ...]
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        settings = self.settings
        return {
            "period_s": settings.period_ns / 1e9,
            "seconds": settings.seconds,
            "body": settings.body,
            "is_side_by_side": settings.is_side_by_side,
            "simulated_s": settings.simulated_s,
            "machine": dict(settings.machine),
            "ways": [_row_to_dict(row) for row in self.rows],
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_dict(cls, told: Any, ways: Iterable[Way]) -> Results:
        """Return what `to_dict` was made of; everything that was counted is counted anew.

        Args:
            told: What stood in the JSON.
            ways: The ways there are. A row of a way that is not among them is left out.

        Raises:
            NotAReport: If it is none.
        """
        known = {way.name: way for way in ways}
        try:
            settings = Settings(
                round(told["period_s"] * 1e9),
                told["seconds"],
                told["body"],
                told["is_side_by_side"],
                told["machine"],
                told["simulated_s"],
            )
            rows = tuple(
                Row.of(known[one["way"]], _recorded(one), settings.period_ns)
                for one in told["ways"]
                if one["way"] in known
            )
            return cls(settings, rows, told["left_out"])
        except (KeyError, TypeError, AttributeError) as error:
            raise NotAReport(f"{type(error).__name__}: {error}") from None


def _row_to_dict(row: Row) -> dict[str, Any]:
    recorded, account = row.recorded, row.account
    found: dict[str, Any] = {
        "way": row.way.name,
        "title": row.way.title,
        "promise": row.way.promise,
        "verdict": row.verdict,
        "error": recorded.error,
        "seconds": recorded.seconds,
        "cpu_s": recorded.cpu_s,
        "memory_bytes": recorded.memory_bytes,
        **dict.fromkeys(_COUNTED),
        "origin_ns": recorded.origin_ns,
        # The first start after the first tick, then each one after the one before: a third of the length.
        "gaps_ns": [b - a for a, b in pairwise([recorded.origin_ns, *recorded.starts_ns])],
    }
    if account is not None:
        for name in _COUNTED:
            value = getattr(account, name.removesuffix("_ms") + "_ns" if name.endswith("_ms") else name)
            found[name] = value / 1e6 if name.endswith("_ms") else value
    return found


_COUNTED: Final = (
    "ticks",
    "starts",
    "missed",
    "doubled",
    "early",
    "p50_ms",
    "p99_ms",
    "max_ms",
    "drift_ms",
    "drift_per_hour_ms",
    "scatter_ms",
)
"""The numbers of an account that JSON has, those in milliseconds by the names they have in nanoseconds."""


def _recorded(told: Mapping[str, Any]) -> Recorded:
    gaps: list[int] = told["gaps_ns"]
    starts = list(accumulate(gaps, initial=int(told["origin_ns"])))[1:]
    return Recorded(
        told["way"],
        told["origin_ns"],
        told["seconds"],
        starts,
        told["cpu_s"],
        told["memory_bytes"],
        told["error"],
    )
