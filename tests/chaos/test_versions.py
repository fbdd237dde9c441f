"""Two versions of the app at once, as in every rolling deploy."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Final

import pytest

from tests.chaos.app import MOVED_S, ChaosApp
from tests.chaos.arena import MARKS, Arena
from tests.servers.fixtures import ON_POSTGRES

pytestmark = [*MARKS, pytest.mark.parametrize("store_kind", [ON_POSTGRES], indirect=True)]

NS_PER_S: Final = 1_000_000_000


async def test_versions_side_by_side_fire_once_and_do_not_flip(place: Arena) -> None:
    """The newer declaration counts whoever starts last; a job of a new task waits for a process that knows it."""
    (old,) = await place.start("both", has_moved=True)
    client = ChaosApp(place.chaos.settings.but(version="2.0", role="client", who="newer client"))
    async with client.app:
        newcomer = await client.app.submit(client.app.find_task("newcomer"), 1)
    client.ledger.close()
    await place.more("moved", 3)
    await place.start("both", has_moved=True, version="2.0")
    place.crew.replace(old)  # a crash in mid-deploy: the old one comes back, and declares as it always did
    await place.up()
    await place.until(lambda: place.ended("newcomer") == 1)
    await place.more("moved", 8)
    evidence = await place.judge()
    assert {row.id: row.failures for row in evidence.rows}[newcomer.id] == 0
    fired = Counter(row.origin.nominal_ns for row in evidence.rows if row.task == "moved" and row.origin is not None)
    assert set(fired.values()) == {1}
    gaps = [round((b - a) / NS_PER_S, 6) for a, b in pairwise(sorted(fired))]
    before, after = MOVED_S["1.0"], MOVED_S["2.0"]
    olds = next(n for n, gap in enumerate(gaps) if gap != before)
    assert olds >= 2
    assert gaps[olds + 1 :] == [after] * (len(gaps) - olds - 1), f"from one to the other, once: {gaps}"
    assert len(gaps) >= olds + 6
