"""Verdicts in words, and results to JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quarterjack.lab.results import NotAReport, Results
from quarterjack.lab.verdict import length, span
from quarterjack.lab.ways._catalog import MODULES, all_ways
from tests.unit.lab.kit import kept, losing, results, row


@pytest.mark.parametrize(
    ("ns", "words"),
    [
        (0, "0"),
        (184_000, "0.184 ms"),
        (-2_500_000, "-2.50 ms"),
        (17_280_000_000, "17.3 s"),
        (450_000_000, "450 ms"),
        (26_820_000_000_000, "7.45 h"),
        (1_500_000_000_000, "25.0 min"),
    ],
)
def test_a_span_has_one_unit_and_three_figures(ns: int, words: str) -> None:
    """Spans from microseconds to days stand in one column, and are compared at a glance."""
    assert span(ns) == words


def test_a_chosen_span_has_no_zeros_at_its_end() -> None:
    """Nobody asks for something every 1.00 s."""
    assert [length(ns) for ns in (10**9, 10**8, 1_500_000_000, 0, 600 * 10**9)] == [
        "1 s",
        "100 ms",
        "1.5 s",
        "0",
        "10 min",
    ]


@pytest.mark.parametrize(
    ("way", "offsets", "words"),
    [
        ("grid-main", kept(0.2), "keeps time, 0.210 ms late in the median"),
        ("sleep-loop", losing(0.2), "drifts 0.200 ms each second: 17.3 s a day"),
        ("sleep-loop", losing(450, 42), "drifts 310 ms each second: 7.45 h a day"),
        ("asyncio-deadline", kept(-0.5), "starts 60 of 60 before their time"),
        ("ours-loop", kept()[:30] + kept()[32:], "misses 2 of 60 ticks"),
        ("ours-loop", sorted([*kept(), 5_500.0]), "doubles 1 of 60 ticks"),
        ("ours-loop", [], "failed: it started nothing"),
    ],
)
def test_the_verdict_says_what_is_wrong_and_nothing_else(way: str, offsets: list[float], words: str) -> None:
    """The sentence is what most readers take away."""
    assert row(way, offsets).verdict == words


def test_an_error_is_the_verdict() -> None:
    """A way that broke half-way is not judged by the half that it did."""
    assert row("ours-loop", kept(), error="ImportError: no").verdict == "failed: ImportError: no"


def test_results_come_back_from_json_as_they_were() -> None:
    """The figures of a long run can be counted and drawn again by whoever doubts them."""
    found = results(row("sleep-loop", losing(3, 59)), row("ours-loop", kept()), row("schedule", [], error="no"))
    told = json.loads(json.dumps(found.to_dict()))
    assert Results.from_dict(told, all_ways()) == found


@pytest.mark.parametrize(
    "told", [{}, [], 1, {"period_s": 1}, {"period_s": "x"}, {**results().to_dict(), "ways": [{"way": "ours-loop"}]}]
)
def test_what_is_no_report_is_refused(told: Any) -> None:
    """Any file may be given to --from."""
    with pytest.raises(NotAReport):
        Results.from_dict(told, all_ways())


def test_every_way_is_registered_where_the_catalogue_says() -> None:
    """A process imports the one module that it needs, and must find the way in it."""
    assert [way.name for way in all_ways()] == [name for names in MODULES.values() for name in names]
    assert all(
        f".{module}" in way.run.__module__
        for module, names in MODULES.items()
        for way in all_ways()
        if way.name in names
    )
