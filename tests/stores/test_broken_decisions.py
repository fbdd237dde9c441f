"""Each mechanism of a durable store's decisions, broken once: the stories that all stores answer alike must notice.

What no test misses would not be there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from quarterjack import MemoryStore
from quarterjack.errors import IllegalMove
from quarterjack.model import Finish, JobRecord, JobState
from quarterjack.stores._book_jobs import BookJobs
from quarterjack.stores._part import Part
from quarterjack.stores._part_rows import Fields, Known, Lines, Names, Stamps, Uniques
from quarterjack.testing.store_contract import Bench
from tests.stores.reference import ReferenceStore
from tests.stores.stories import Teller, story, told_alike


def unfenced(self: Part, finishes: Sequence[Finish], now: int) -> list[JobState | None]:
    """Take the outcome of whoever brings one."""
    rows = [self.jobs.get(end.job_id) for end in finishes]
    mended = [
        end if row is None else end._replace(attempt=row.attempt, owner=row.owner or end.owner)
        for end, row in zip(finishes, rows, strict=True)
    ]
    return BookJobs.finish(self, mended, now)


def nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def absent(self: Known[Any, Any], key: Any, default: Any = None) -> Any:
    """Take what was not loaded for what is not there."""
    return dict.get(self, key, default)


def unseen(self: Fields[Any], row: Any, before: tuple[Any, ...]) -> bool:
    """Look at the state alone."""
    return isinstance(row, JobRecord) and row.state is not before[0]


Break = tuple[type[Any], str, Callable[..., Any]]
BROKEN: dict[str, Break] = {
    "fence": (Part, "finish", unfenced),
    "unique key that nobody holds": (Uniques, "holder", nothing),
    "overlap that sees nobody": (Lines, "open", lambda self, key: []),
    "overlap that forgets who ended": (Lines, "close", nothing),
    "chain that is not let go": (Part, "free_chains", nothing),
    "turn that anybody takes": (Lines, "take", lambda self, job: True),
    "turn that is never given back": (Lines, "let_go", nothing),
    "backfill that forgets what was made": (Part, "forget_occurrences", nothing),
    "outcome that is not counted": (Part, "record", nothing),
    "change that is not seen": (Fields, "has_moved", unseen),
    "row that was not loaded": (Known, "get", absent),
    "try that leaves something behind": (Part, "_take_back", nothing),
    "caller's record that keeps the stamps of a try": (Stamps, "take_back", nothing),
    "job with another name in each try": (Names, "begin", nothing),
}


FOUND_FROM = {
    "overlap that forgets who ended": 28,
    "turn that anybody takes": 15,
    "turn that is never given back": 32,
    "caller's record that keeps the stamps of a try": 25,
}
"""Where to begin to look: earlier stories do not come to it."""


async def tell(seed: int) -> None:
    mine, other = Teller(Bench(MemoryStore())), Teller(Bench(ReferenceStore(whim=Random(seed))))
    await told_alike(story(seed), mine, other)


@pytest.mark.parametrize("what", BROKEN)
def test_stories_notice_a_broken_decision(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A suite that passes proves something only if it would not pass with this."""
    owner, name, broken = BROKEN[what]
    asyncio.run(tell(0))
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((AssertionError, IllegalMove, KeyError, RecursionError)):  # noqa: PT012  # the seed that finds it
        for seed in range(FOUND_FROM.get(what, 0), 60):
            asyncio.run(tell(seed))
