"""A picture as PNG, by resvg, which comes as a wheel (``pip install 'quarterjack[lab]'``)."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Final

from quarterjack.errors import MissingExtra

__all__ = ["require_png", "to_png"]

RESVG: Final = "resvg_py"
SCALE: Final = 2
"""Pixels per unit: sharp on screens with small ones."""


def require_png() -> None:
    """Raise unless pictures can be made into PNG here.

    Raises:
        MissingExtra: If the package is missing.
    """
    if find_spec(RESVG) is None:
        raise MissingExtra("a picture as PNG", "lab")


def to_png(svg: str) -> bytes:
    """Return a picture as PNG; of a theme that follows the reader, the bright one.

    Raises:
        MissingExtra: If the package is missing.
    """
    require_png()
    return bytes(import_module(RESVG).svg_to_bytes(svg_string=svg, zoom=SCALE))
