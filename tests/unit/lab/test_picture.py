"""The picture: well-formed, told apart by colour, and true to the account."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack.lab._scale import LogScale, bins_of, histogram
from quarterjack.lab._svg import DARK, LIGHT, text
from quarterjack.lab.picture import picture
from tests.unit.lab.kit import kept, losing, results, row

SVG = "{http://www.w3.org/2000/svg}"


def classes(svg: str) -> list[str]:
    """Return the class of each element of a picture, which must be well-formed XML."""
    return [found.get("class", "") for found in ET.fromstring(svg).iter()]  # our own


def words(svg: str) -> list[str]:
    return [found.text or "" for found in ET.fromstring(svg).iter(f"{SVG}text")]  # our own


def test_each_way_has_a_panel_its_name_and_its_verdict() -> None:
    """A picture travels without the table that stood beside it."""
    svg = picture(results(row("sleep-loop", losing(0.2)), row("ours-loop", kept())))
    found = words(svg)
    assert {"time.sleep(T)", "drifts 0.200 ms each second: 17.3 s a day", "quarterjack, loop"} <= set(found)
    assert found[0] == "Something every 1 s: measured for 1 min"
    assert classes(svg).count("panel") == 4
    assert (classes(svg).count("line"), classes(svg).count("ours-line")) == (1, 1)


def test_missed_ticks_and_early_starts_are_red() -> None:
    """The two faults that a line of lags cannot show."""
    assert "wrong" not in classes(picture(results(row("ours-loop", kept()))))
    assert classes(picture(results(row("ours-loop", kept()[:30] + kept()[33:])))).count("wrong") == 3
    assert classes(picture(results(row("ours-loop", kept(-0.5))))).count("wrong") == 60
    assert "wrong" not in classes(picture(results(row("sleep-loop", losing(450, 42)))))  # its drift says it all


def test_early_starts_are_no_punctual_ones() -> None:
    """The bug: before its tick lay at the foot of the axis, as the most punctual of all, and was "-4.60 ms late"."""
    offsets = [0.0, *(1_000 * tick - 4.6 + 4 * (tick % 3 - 1) for tick in range(1, 59)), 59_003.0]
    svg = picture(results(row("celery-beat", offsets), row("ours-loop", kept())))
    assert "keeps time, 4.60 ms early in the median" in words(svg)
    assert "58 of 60 earlier than their tick" in words(svg)
    assert "wrong" not in classes(svg), "it promises no grid"
    drawn = {kind: [one for one in ET.fromstring(svg).iter() if one.get("class") == kind] for kind in ("bar", "line")}
    assert [len((one.get("points") or "").split()) for one in drawn["line"]] == [2], "the two that were not early"
    assert sorted(one.get("height") or "" for one in drawn["bar"]) == ["4"] * 58 + ["74"] * 2, "58 marks at the foot"
    assert not any("earlier" in one for one in words(picture(results(row("ours-loop", kept())))))


@pytest.mark.parametrize(("theme", "has_bright", "has_dark"), [("light", 1, 0), ("dark", 0, 1), ("auto", 1, 1)])
def test_a_theme_is_bright_dark_or_follows_the_reader(theme: str, has_bright: int, has_dark: int) -> None:
    """One file serves a page in both; a picture that is mailed around keeps to one."""
    svg = picture(results(row("ours-loop", kept())), theme)
    assert (svg.count(LIGHT["page"]), svg.count(DARK["page"])) == (has_bright, has_dark)
    assert svg.count("prefers-color-scheme:dark") == (theme == "auto")


def test_both_themes_colour_the_same_things() -> None:
    """A class without a colour is black on black."""
    assert LIGHT.keys() == DARK.keys()
    assert not LIGHT.items() & DARK.items()


def test_ways_that_failed_are_not_drawn_and_nothing_at_all_can_be() -> None:
    """Ctrl-C in the first second leaves a picture without rows, not a traceback."""
    assert "panel" not in classes(picture(results(row("ours-loop", [], error="no"))))
    assert words(picture(results()))[0] == "Something every 1 s: measured for 1 min"


def test_text_is_escaped() -> None:
    """Error texts and names hold what XML reads as its own."""
    assert text(0, 0, "a<b & c").count("a&lt;b &amp; c") == 1


@given(st.lists(st.integers(-(10**7), 10**16), min_size=1))
def test_every_lag_has_its_place_on_the_axis(lags: list[int]) -> None:
    """What lies beyond an end is drawn at the end, and nothing beside the panel."""
    scale = LogScale.around(lags)
    shares = [scale.share(lag) for lag in sorted(lags)]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    assert sum(histogram(lags, scale, 50)) == len(lags)


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 100)), min_size=1), st.integers(1, 50))
def test_bins_hold_every_start_between_their_ends(points: list[tuple[int, int]], most: int) -> None:
    """The one start that was late by a second must not vanish among thousands."""
    bins = bins_of(points, 1_000, most)
    assert len(bins) <= most
    assert max(one.high_ns for one in bins) == max(lag for _, lag in points)
    assert min(one.low_ns for one in bins) == min(lag for _, lag in points)
    assert all(one.low_ns <= one.mid_ns <= one.high_ns for one in bins)
