"""Why fire times were left out, in words: the policy that did it, as its user wrote it."""

from __future__ import annotations

import pytest

from quarterjack.policies.missed import Due, MissedMode, fold_missed, missed_by

HOUR_NS = 3_600 * 10**9
MODES: list[MissedMode] = ["latest", "earliest", "skip"]


def said(mode: MissedMode, *, ran: int, missed: int, max_lateness_ns: int | None = None, max_catchup: int = 100) -> str:
    return missed_by(mode, ran=ran, missed=missed, max_lateness_ns=max_lateness_ns, max_catchup=max_catchup)


@pytest.mark.parametrize("mode", MODES)
def test_without_a_limit_of_lateness_the_mode_has_done_it(mode: MissedMode) -> None:
    """Whoever asks why must not be sent to a policy that was never set."""
    for ran, missed in ((0, 1), (0, 3), (1, 1), (1, 3)):
        assert said(mode, ran=ran, missed=missed) == f"missed={mode!r}"


@pytest.mark.parametrize(
    ("mode", "ran", "missed", "words"),
    [
        ("latest", 1, 3, "missed='latest'"),
        ("earliest", 1, 3, "missed='earliest'"),
        ("latest", 1, 1, "missed='latest'"),
        ("latest", 0, 3, "max_lateness=3600"),
        ("earliest", 0, 3, "max_lateness=3600"),
        ("skip", 0, 3, "missed='skip'"),
        ("latest", 0, 1, "max_lateness=3600"),
        ("skip", 0, 1, "max_lateness=3600"),
    ],
)
def test_lateness_has_done_it_where_the_mode_would_have_run_one(
    mode: MissedMode, ran: int, missed: int, words: str
) -> None:
    """Each mode but skip runs one of several, and each runs a single late one."""
    assert said(mode, ran=ran, missed=missed, max_lateness_ns=HOUR_NS) == words


@pytest.mark.parametrize(
    ("ran", "lateness", "words"),
    [
        (5, None, "max_catchup=5"),
        (4, HOUR_NS, "max_lateness=3600"),
        (5, HOUR_NS, "max_catchup=5"),
        (0, HOUR_NS, "max_lateness=3600"),
    ],
)
def test_all_is_bounded_by_its_number_or_by_lateness(ran: int, lateness: int | None, words: str) -> None:
    """As many as may run did: the number has left out the others; fewer did: they were too old."""
    assert said("all", ran=ran, missed=7, max_lateness_ns=lateness, max_catchup=5) == words


class Contradicting:
    """A rule of a user's whose ``next`` says another thing than its ``prev``."""

    def __init__(self, later: int | None) -> None:
        self._later = later

    def next_ns(self, after: int, /) -> int | None:
        return {0: 10, 10: 20}.get(after, self._later)

    def prev_ns(self, before: int, /) -> int | None:
        return 30

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        return 3


@pytest.mark.parametrize("later", [None, 99])
def test_rule_that_contradicts_itself_runs_nothing_outside_what_is_due(later: int | None) -> None:
    """Its answers make no sense together, and still no fire time of tomorrow may run today."""
    assert fold_missed(Contradicting(later), 0, 35, mode="earliest", oldest_ns=25) == Due((), 3, 30, later)
