"""Two apps on one durable store and one virtual clock, and a fault at every store call they make.

One scenario (`tests.runtime.playing`) is played again and again, and each time something else goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quarterjack.model import Finish, JobState, Schedule
from quarterjack.planner import Plan
from quarterjack.runtime import worker
from quarterjack.runtime.claiming import Claimer
from quarterjack.runtime.recording import Recorder
from quarterjack.runtime.renewal import Renewer
from quarterjack.stores._book_jobs import BookJobs
from quarterjack.stores._firing import Firing
from quarterjack.stores._part import Part
from tests.runtime.playing import CALLS, KINDS, MAIN, Fault, Outage, Play, Stop, check


@pytest.fixture(autouse=True)
def _same_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every play draw the same numbers."""
    for name, module in list(sys.modules.items()):
        if name.startswith("quarterjack.runtime.") and hasattr(module, "Random"):
            monkeypatch.setattr(module, "Random", partial(Random, 7))


def faults(most: int) -> Iterator[Fault]:
    """Return faults at the first calls of each kind; which app has them hardly matters."""
    for call, nth, kind in product(CALLS, range(1, most + 1), KINDS):
        yield Fault(("one", "two")[(nth + len(call)) % 2], call, nth, kind)


async def test_without_a_fault_all_is_well() -> None:
    """The scenario itself: and it makes every kind of call that a fault may strike."""
    play = Play()
    rows = await play.perform()
    check(play, rows)
    assert max(play.tries.values()) == 2  # the one that fails once


async def went_wrong(play: Play) -> str | None:
    """Play it; return what went wrong, if anything did."""
    troubles = len(play.faults) + 2 * len(play.outages) + len(play.stops) if len(play.apps) > 1 else 0
    try:
        check(play, await play.perform())
        assert max(play.tries.values()) <= 1 + max(1, troubles), play.tries
    except (AssertionError, TimeoutError) as error:
        return f"{play.faults} {play.outages} {play.stops}: {error}"
    return None


async def played(*those: Fault) -> str | None:
    """Play the scenario with these faults; return what went wrong, if anything did."""
    return await went_wrong(Play(those))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_at_the_first_call_of_each_sort_loses_nothing(kind: str) -> None:
    """Whatever fails first, in whichever way, the others make up for it."""
    wrong = [await played(fault) for fault in faults(1) if fault.kind == kind and fault.call in MAIN]
    assert [one for one in wrong if one is not None] == []


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 4])
async def test_a_fault_at_any_of_the_next_calls_loses_nothing(nth: int) -> None:
    """The same later on, when jobs run, leases are renewed and outcomes wait; and at every other call."""
    chosen = [fault for fault in faults(nth) if fault.nth == nth and (nth > 1 or fault.call not in MAIN)]
    wrong = [await played(fault) for fault in chosen]
    assert [one for one in wrong if one is not None] == []


at_any_call = st.builds(
    Fault,
    st.sampled_from(["one", "two"]),
    st.sampled_from(MAIN + MAIN + CALLS),
    st.integers(1, 8),
    st.sampled_from([kind for kind in KINDS if "dies" not in kind]),
)


@given(those=st.lists(at_any_call, min_size=2, max_size=4, unique_by=lambda fault: (fault.app, fault.call, fault.nth)))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_several_faults_together_lose_nothing(those: list[Fault]) -> None:
    """Troubles seldom come alone."""
    assert await played(*those) is None


STRUCK_S: Final = (0.05, 0.35, 2.1, 3.9)
OUTAGES: Final = [Outage(app, at_s, for_s) for app, at_s, for_s in product((None, "one"), STRUCK_S, (0.5, 2.5, 5.0))]


@pytest.mark.slow
async def test_an_outage_of_all_calls_loses_nothing() -> None:
    """No claim, no outcome, no renewal and no fire works, for less than a lease or for much more."""
    wrong = [await went_wrong(Play(outages=(outage,))) for outage in OUTAGES]
    assert [one for one in wrong if one is not None] == []


@pytest.mark.parametrize("for_s", [0.5, 3.0, 5.0])
async def test_an_outage_takes_no_job_from_the_only_process(for_s: float) -> None:
    """What runs goes on, what ended is recorded: nobody else was there to have it, and it does not begin again."""
    for at_s in STRUCK_S:
        play = Play(outages=(Outage(None, at_s, for_s),), apps=("one",))
        rows = await play.perform()
        check(play, rows)
        assert max(play.tries.values()) == 2, "the one that fails once"
        assert {row.state for row in rows if row.task == "once"} == {JobState.DONE}


@pytest.mark.slow
async def test_a_stop_loses_nothing_whenever_it_comes() -> None:
    """Also in the middle of an outage: what one app gives back, or could not, the other one has in the end."""
    stops = [Stop("one", at_s) for at_s in (0.002, 0.1, 0.31, 1.9, 2.005, 2.1, 4.8)]
    plays = [Play(stops=(stop,)) for stop in stops]
    plays += [Play(stops=(stop,), outages=(Outage("one", stop.at_s - 0.05, 1.5),)) for stop in stops[1:]]
    wrong = [await went_wrong(play) for play in plays]
    assert [one for one in wrong if one is not None] == []


async def _nothing(*args: object) -> None:
    del args


def _not_at_all(*args: object) -> None:
    del args


async def _at_once(*args: object) -> bool:
    del args
    return True


def _drop(self: Recorder, batch: object) -> None:
    del batch
    self._under_way = 0


def _unfenced(self: Part, finishes: Sequence[Finish], now: int) -> list[JobState | None]:
    rows = [self.jobs[finish.job_id] for finish in finishes]
    named = [end._replace(attempt=row.attempt, owner=row.owner or "") for end, row in zip(finishes, rows, strict=True)]
    return BookJobs.finish(self, named, now)


def _whoever_fires(self: Firing, plan: Plan, fire: Callable[[Firing, Plan], Schedule | None] = Firing.fire) -> Any:
    row = self._book.schedules[plan.schedule_id]
    return fire(self, plan._replace(old_cursor_ns=row.cursor_ns))


NTHS: Final = (1, 2, 3)
BROKEN: Final = {
    "leases are not renewed": (Renewer, "_renew", _nothing, [Play()]),
    "outcomes are dropped": (Recorder, "_put_back", _drop, [Play((Fault("one", "jobs_finish", 1, "before"),))]),
    "outcomes of whatever attempt count": (
        Part,
        "finish",
        _unfenced,
        [Play((Fault("two", "jobs_finish", nth, "late before"),), (Outage("two", 5.0, 4.0),)) for nth in (4, 5, 6)],
    ),
    "jobs of the dead are not taken up": (
        Part,
        "rescue",
        _not_at_all,
        [Play((Fault("one", "jobs_renew", nth, "dies before"),)) for nth in NTHS],
    ),
    "whoever fires wins": (Firing, "fire", _whoever_fires, [Play()]),
    "after an outage leases are not renewed before the first claim": (
        Claimer,
        "_is_calm",
        _at_once,
        [Play(outages=(Outage(None, at_s, 5.0),)) for at_s in STRUCK_S],
    ),
    "late claims are begun": (
        worker,
        "FRESH_SHARE",
        1e-9,
        [Play((Fault("one", c, n, "late after"),)) for c in ("schedules_fire", "jobs_claim") for n in (1, 2)],
    ),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_broken_mechanism_is_found(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation that cannot fail would prove nothing."""
    owner, name, broken, plays = BROKEN[how]
    assert [one for one in [await went_wrong(replace(play)) for play in plays] if one is not None] == []
    monkeypatch.setattr(owner, name, broken)
    assert [one for one in [await went_wrong(replace(play)) for play in plays] if one is not None] != []
