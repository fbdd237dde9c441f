"""The verdict: an account in a sentence, and spans of time in words."""

from __future__ import annotations

from typing import Final

from .account import NS_PER_HOUR, Account

__all__ = ["length", "span", "verdict"]

UNITS: Final = (("h", NS_PER_HOUR), ("min", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000))


def verdict(account: Account) -> str:
    """Return what is to be said of a way: whether it drifts, and what else goes wrong; else that it keeps time."""
    wrong = [*_drift(account), *_wrong_starts(account)]
    if wrong:
        return "; ".join(wrong)
    side = "early" if account.p50_ns < 0 else "late"  # early only where there is no grid to be early for
    return f"keeps time, {span(abs(account.p50_ns))} {side} in the median"


def _drift(account: Account) -> list[str]:
    per_hour_ns = account.drift_per_hour_ns
    if not account.drift_ns:
        return []
    way = "drifts" if per_hour_ns > 0 else "runs ahead by"
    per_second, per_day = span(abs(per_hour_ns) // 3_600), span(abs(per_hour_ns) * 24)
    return [f"{way} {per_second} each second: {per_day} a day"]


def _wrong_starts(account: Account) -> list[str]:
    counted = (
        (account.early, "starts {} of {} before their time", account.starts),
        (account.doubled, "doubles {} of {} ticks", account.ticks),
        # What drifts is behind by whole periods sooner or later; that is told by its drift.
        (0 if account.drift_ns else account.missed, "misses {} of {} ticks", account.ticks),
    )
    return [words.format(f"{n:,}", f"{of:,}") for n, words, of in counted if n]


def span(ns: int) -> str:
    """Return a span in one unit, with three figures: ``"0.184 ms"``, ``"17.3 s"``, ``"7.45 h"``; ``"0"`` for none."""
    if ns == 0:
        return "0"
    size, unit = next(((size, unit) for unit, size in UNITS if abs(ns) >= size), (1_000_000, "ms"))
    return f"{_three_figures(ns / size)} {unit}"


def length(ns: int) -> str:
    """Return a span that somebody chose, in one unit and without zeros at its end: ``"1 s"``, ``"1.5 h"``."""
    number, _, unit = span(ns).partition(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}".rstrip()


def _three_figures(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if magnitude >= 10 else f"{value:.2f}" if magnitude >= 1 else f"{value:.3f}"
