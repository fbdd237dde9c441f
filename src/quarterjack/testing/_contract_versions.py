"""The part of the store contract's suite that is about schedules declared by several codes."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

from quarterjack._durations import NS_PER_S
from quarterjack.declared import Put, Verdict
from quarterjack.model import Payload, Schedule, Timing
from quarterjack.triggers import Every

from ._bench import Bench

__all__ = ["VersionContract"]


async def put(b: Bench, every_s: float, version: str | None = None) -> Put:
    """Put what some code declares of schedule ``s``."""
    schedule = Schedule("s", Timing(trigger=Every(seconds=every_s)), Payload(task="a"), in_code=True, version=version)
    schedule.code_hash = f"every {every_s:g}"
    (done,) = await b.store.schedules_put([schedule])
    return done


async def period(b: Bench) -> float:
    """Return how long it takes from one run to the next, by the store's row."""
    row = await b.store.schedules_get("s")
    assert row is not None
    assert row.next_nominal_ns is not None
    return ((row.trigger.next_ns(row.next_nominal_ns) or 0) - row.next_nominal_ns) / NS_PER_S


class VersionContract:
    """What ``schedules_put`` promises where processes disagree, a case for each."""

    async def test_older_code_leaves_the_row_as_it_is(self, b: Bench) -> None:
        """It fires on, by the rule of the newer one, with nothing lost."""
        await put(b, 60, "1.10")
        await b.advance(70)
        before = await b.plan()
        row, verdict = await put(b, 30, "1.9")
        assert (verdict, row.generation, row.version, await period(b)) == (Verdict.OLDER, 1, "1.10", 60)
        assert (await b.store.schedules_fire([before])).schedules != [None]

    async def test_newer_code_replaces_the_row(self, b: Bench) -> None:
        """From now on, as a new generation."""
        assert (await put(b, 60, "1.9")).verdict is Verdict.NEW
        row, verdict = await put(b, 30, "1.10")
        assert (verdict, row.generation, row.version, await period(b)) == (Verdict.CHANGED, 2, "1.10", 30)

    async def test_code_without_a_version_wins_by_starting_last_and_turns_are_told(self, b: Bench) -> None:
        """The row remembers what it was before."""
        verdicts = [(await put(b, every_s)).verdict for every_s in (60, 60, 30, 60, 30, 15)]
        told = ["new", "same", "changed", "alternated", "alternated", "changed"]
        assert [verdict.value for verdict in verdicts] == told
        assert await period(b) == 15

    async def test_change_at_run_time_outlives_a_restart_of_the_same_code(self, b: Bench) -> None:
        """And none of it outlives a change of the code."""
        await put(b, 60)
        by_hand = Schedule("s", Timing(trigger=Every(seconds=10)), Payload(task="a"), in_code=True)
        (changed,) = await b.store.schedules_put([by_hand])
        assert (changed.row.code_hash, changed.row.in_code) == ("every 60", True)
        assert ((await put(b, 60)).verdict, await period(b)) == (Verdict.SAME, 10)
        assert ((await put(b, 30)).verdict, await period(b)) == (Verdict.CHANGED, 30)
