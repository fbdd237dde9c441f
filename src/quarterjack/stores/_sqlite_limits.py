"""Slots and tokens that all processes on a file share. What they mean is in `_limits`.

Slots are rows with a holder and an end; tokens one instant per bucket (GCRA).
Rows that say nothing any more go as their neighbours are asked for."""

from __future__ import annotations

from quarterjack._durations import NS_PER_S

from ._sqlite_engine import Session

__all__ = ["acquire", "release", "renew", "take"]


def acquire(session: Session, limit: str, holder: str, n: int, maximum: int, ttl_s: float) -> bool:
    """Take *n* slots for *holder*, in place of what it has; all or none."""
    now = session.now_ns
    session.run("DELETE FROM qj_slots WHERE name = ? AND until_ns <= ?", (limit, now))
    (others,) = session.one("SELECT coalesce(sum(n), 0) FROM qj_slots WHERE name = ? AND holder <> ?", (limit, holder))
    if others + n > maximum:
        return False
    until = now + round(ttl_s * NS_PER_S)
    session.run("INSERT OR REPLACE INTO qj_slots (name, holder, n, until_ns) VALUES (?, ?, ?, ?)",
                (limit, holder, n, until))  # fmt: skip
    return True


def renew(session: Session, limit: str, holder: str, ttl_s: float) -> bool:
    """Extend the holder's slots; False if it has none any more."""
    until = session.now_ns + round(ttl_s * NS_PER_S)
    sql = "UPDATE qj_slots SET until_ns = ? WHERE name = ? AND holder = ? AND until_ns > ?"
    return session.run(sql, (until, limit, holder, session.now_ns)).rowcount == 1


def release(session: Session, limit: str, holder: str) -> None:
    """Give the holder's slots back."""
    session.run("DELETE FROM qj_slots WHERE name = ? AND holder = ?", (limit, holder))


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
