"""Links between the project's pages lead somewhere."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.repo.checkout import LINK, ROOT, anchors, pages, prose


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    """Return the relative links of *page* whose file or anchor does not exist."""
    broken: list[str] = []
    for target in (link["target"] for link in LINK.finditer(prose(page))):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue  # other people's pages come and go, and the tests need no network
        there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        is_lost = not there.exists() or not there.is_relative_to(root)
        if is_lost or (parts.fragment and there.suffix == ".md" and parts.fragment not in anchors(there)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_resolve(page: Path) -> None:
    """A reader who follows a link wants to arrive."""
    assert broken_links(page) == []


def test_checker_tells_good_links_from_broken_ones(tmp_path: Path) -> None:
    """A checker that finds nothing would let every link through."""
    (tmp_path / "other.md").write_text("# Two words, `code`!\n\n# Twice\n\n# Twice\n\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#two-words-code) [c](other.md#twice-1) [d](https://example.com/x)\n"
        "[e](missing.md) [f](other.md#no-heading) [g](#nowhere) ![h](no.png) [i](../outside.md)\n"
        "`[j](code.md)`\n```\n[k](block.md)\n```\n"
    )
    assert broken_links(page, tmp_path) == ["missing.md", "other.md#no-heading", "#nowhere", "no.png", "../outside.md"]
