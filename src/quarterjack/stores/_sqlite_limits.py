"""Slots and tokens that all processes on a file share. What they mean is in `_limits`.

Slots are rows with a holder and an end, of those who wait with n = 0; tokens one
instant per bucket (GCRA). Rows that say nothing any more go as their neighbours
are asked for, and with the purge."""

from __future__ import annotations

from collections.abc import Sequence

from quarterjack._durations import NS_PER_S

from ._sqlite_engine import Session
from .base import WAITER_S, Acquired, Hint

__all__ = ["acquire", "release", "renew", "take"]

_PUT = "INSERT OR REPLACE INTO qj_slots (name, holder, n, until_ns) VALUES (?, ?, ?, ?)"


def acquire(
    session: Session, limit: str, holders: Sequence[str], maximum: int, ttl_s: float, waiter: str | None
) -> Acquired:
    """Take a slot for each of *holders*, as many as are free."""
    now = session.now_ns
    session.run("DELETE FROM qj_slots WHERE name = ? AND (until_ns <= ? OR (n = 0 AND holder = ?))",
                (limit, now, waiter))  # fmt: skip
    held = {name for (name,) in session.run("SELECT holder FROM qj_slots WHERE name = ? AND n > 0", (limit,))}
    taken: list[str] = []
    for holder in holders:
        if len(held - {holder}) < maximum:
            held.add(holder)
            taken.append(holder)
            session.run(_PUT, (limit, holder, 1, now + round(ttl_s * NS_PER_S)))
    waiting, ends = session.one("""
        SELECT count(*) FILTER (WHERE n = 0), min(until_ns) FILTER (WHERE n > 0) FROM qj_slots WHERE name = ?
    """, (limit,))  # fmt: skip
    if len(taken) == len(holders):
        return Acquired(tuple(taken), waiting)
    if waiter is not None:
        session.run(_PUT, (limit, waiter, 0, now + round(WAITER_S * NS_PER_S)))
    return Acquired(tuple(taken), waiting, 0.0 if ends is None else (ends - now) / NS_PER_S)


def renew(session: Session, limit: str, holders: Sequence[str], ttl_s: float) -> list[str]:
    """Extend slots; return the holders that have none any more."""
    until = session.now_ns + round(ttl_s * NS_PER_S)
    sql = "UPDATE qj_slots SET until_ns = ? WHERE name = ? AND holder = ? AND n > 0 AND until_ns > ?"
    return [name for name in holders if session.run(sql, (until, limit, name, session.now_ns)).rowcount == 0]


def release(session: Session, limit: str, holders: Sequence[str]) -> None:
    """Give slots back; who waits for one is told."""
    for holder in holders:
        session.run("DELETE FROM qj_slots WHERE name = ? AND holder = ? AND n > 0", (limit, holder))
    waits = "SELECT 1 FROM qj_slots WHERE name = ? AND n = 0 AND until_ns > ?"
    if session.one(waits, (limit, session.now_ns)) is not None:
        session.tell(Hint.LIMITS, (limit,))


def take(session: Session, limit: str, n: float, rate: float, burst: float) -> float:
    """Take *n* tokens and return 0.0, or take none and return the seconds until they are there."""
    now, per_token = session.now_ns, NS_PER_S / rate
    row = session.one("SELECT arrival_ns FROM qj_tokens WHERE name = ?", (limit,))
    arrival = max(now if row is None else row[0], now) + round(n * per_token)
    wait = arrival - now - round(burst * per_token)
    if wait > 0:
        return wait / NS_PER_S
    session.run("INSERT OR REPLACE INTO qj_tokens (name, arrival_ns) VALUES (?, ?)", (limit, arrival))
    return 0.0
