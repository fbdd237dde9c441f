"""The order of versions."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import InvalidOption, Quarterjack
from quarterjack._versions import is_older, valid_version

ASCENDING = [
    "0.9", "1.0.dev3", "1.0a1", "1.0b2", "1.0rc1", "1.0rc2", "1.0", "1.0+build.7", "1.0.post1", "1.0.1", "1.2", "1.9",
    "1.10", "2", "2026.11.3", "2026.11.21", "20261121",
]  # fmt: skip


@pytest.mark.parametrize(("older", "newer"), list(pairwise(ASCENDING)))
def test_versions_are_in_the_order_people_give_them(older: str, newer: str) -> None:
    """1.10 is no older than 1.9, and a release candidate comes before its release."""
    assert is_older(older, newer)
    assert not is_older(newer, older)


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1"), ("v1.2", "1.2"), ("1.0.0rc1", "1rc1"), ("1.0-rc.1", "1.0RC1"), ("1.02", "1.2")]
)
def test_ways_to_write_one_version_are_equal(one: str, other: str) -> None:
    """Neither may take the other for an older one."""
    assert not is_older(one, other)
    assert not is_older(other, one)


def test_who_has_no_version_is_older_than_all_that_have_one() -> None:
    """The deploy that brings the first version must win over those before it."""
    assert is_older(None, "0.0.1")
    assert not is_older("0.0.1", None)
    assert not is_older(None, None)


NUMBERS = st.lists(st.integers(0, 12), min_size=1, max_size=4)


@given(st.lists(st.tuples(NUMBERS, st.sampled_from(["", "rc1", ".post2"])), max_size=8))
def test_order_is_one(drawn: list[tuple[list[int], str]]) -> None:
    """Of any three: if the second is not older than the first, nor the third than the second, nor is the third."""
    versions = [".".join(map(str, numbers)) + suffix for numbers, suffix in drawn]
    for a in versions:
        for b in versions:
            for c in versions:
                assert not (not is_older(b, a) and not is_older(c, b) and is_older(c, a))


@pytest.mark.parametrize("version", ["", "blue", "3f2a1c9", "f00dcafe", "1.2.", "1..2", 1.2, 3, "1.2 beta", "1" * 201])
def test_version_without_an_order_is_refused_where_it_is_written(version: object) -> None:
    """A commit's name looks like one, and would make an old deploy the newest by chance."""
    with pytest.raises(InvalidOption, match=r"version must be numbers that grow, such as .*commit has no order"):
        Quarterjack(version=version)  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("version", [*ASCENDING, "v1.2.3", "1.4.2-3ubuntu1", "1.2.3-alpine", "7", "1.5-beta.2"])
def test_usual_versions_are_taken(version: str) -> None:
    """Those of Python packages, of Debian, of images."""
    assert valid_version(version) == version
