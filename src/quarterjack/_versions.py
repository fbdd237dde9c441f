"""The order of an application's versions: ``1.9 < 1.10rc1 < 1.10 < 1.10.post1 < 2026.11``.

Numbers count as numbers, and zeros at the end as nothing, so ``1.0`` is ``1.0.0``.
What follows a number by a letter comes before it if it says so (``dev``, ``a``,
``b``, ``rc``), and what follows after ``-``, ``+`` or another word comes after it.
A name without an order, such as a commit's, is refused: there is no older one."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from .errors import InvalidOption

__all__ = ["is_older", "valid_version"]

_EARLY: Final = {"dev": -4, "a": -3, "alpha": -3, "b": -2, "beta": -2, "c": -1, "rc": -1, "pre": -1, "preview": -1}
_ATTACHED: Final = "|".join(sorted([*_EARLY, "post", "rev", "r"], key=len, reverse=True))
_VERSION: Final = re.compile(
    rf"v?[0-9]+(?:(?:{_ATTACHED})[0-9]*){{0,3}}"  # 2, 2rc1; few of them, for "rcrc…" can be read in 2**n ways
    r"(?:[-+_.][0-9a-z]+)*",  # .4, .5rc1, .dev3, -3ubuntu1, +build.7
    re.IGNORECASE,
)
_PART: Final = re.compile(r"[0-9]+|[a-z]+")
_END: Final = (0, 0, "")
"""Where a version ends: after what leads up to it, before what comes on top of it."""

Key = tuple[tuple[int, int, str], ...]


def valid_version(value: Any) -> str:
    """Return *value* if versions of this kind have an order.

    Raises:
        InvalidOption: If it is no text such as ``"1.4.2"``, ``"1.5rc1"`` or ``"2026.11.21"``.
    """
    if not isinstance(value, str) or len(value) > 200 or not _VERSION.fullmatch(value):
        raise InvalidOption(
            f'version must be numbers that grow, such as "1.4.2", "1.5rc1" or "2026.11.21", got {value!r}; '
            "a commit has no order: take the number of its build, or its date"
        )
    return value


@lru_cache(maxsize=256)
def _key(version: str) -> Key:
    parts = [_part(text) for text in _PART.findall(version.lower().removeprefix("v"))]
    kept: list[tuple[int, int, str]] = []
    for part in (*parts, _END):
        if part[0] != 2:  # a word, or the end: zeros before it say nothing
            while kept and kept[-1] == (2, 0, ""):
                kept.pop()
        kept.append(part)
    return tuple(kept)


def _part(text: str) -> tuple[int, int, str]:
    if text.isdigit():
        return 2, int(text), ""
    early = _EARLY.get(text)
    return (1, 0, text) if early is None else (early, 0, "")


def is_older(version: str | None, than: str | None) -> bool:
    """Say whether *version* is older than another. Who has none is older than all that have one."""
    if version is None or than is None:
        return version is None and than is not None
    return _key(version) < _key(than)
