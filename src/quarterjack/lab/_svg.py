"""SVG by hand: a few elements, text that is escaped, and colours for bright and dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

__all__ = ["THEMES", "document", "element", "points", "text"]

LIGHT: Final[Mapping[str, str]] = {
    "page": "fill:#ffffff",
    "ink": "fill:#1f2328",
    "dim": "fill:#59636e",
    "panel": "fill:#f6f8fa",
    "rule": "stroke:#d1d9e0",
    "band": "fill:#8c959f;fill-opacity:.35",
    "line": "stroke:#57606a",
    "bar": "fill:#8c959f",
    "ours-band": "fill:#0969da;fill-opacity:.25",
    "ours-line": "stroke:#0550ae",
    "ours-bar": "fill:#218bff",
    "ours-ink": "fill:#0550ae",
    "wrong": "fill:#cf222e",
}
DARK: Final[Mapping[str, str]] = {
    "page": "fill:#0d1117",
    "ink": "fill:#f0f6fc",
    "dim": "fill:#9198a1",
    "panel": "fill:#161b22",
    "rule": "stroke:#30363d",
    "band": "fill:#8b949e;fill-opacity:.35",
    "line": "stroke:#b1bac4",
    "bar": "fill:#6e7681",
    "ours-band": "fill:#58a6ff;fill-opacity:.3",
    "ours-line": "stroke:#79c0ff",
    "ours-bar": "fill:#388bfd",
    "ours-ink": "fill:#79c0ff",
    "wrong": "fill:#ff7b72",
}
SHAPES: Final = (
    "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif}"
    ".line,.ours-line{fill:none;stroke-width:1.4;stroke-linejoin:round}.rule{stroke-width:1}"
)
THEMES: Final = ("auto", "light", "dark")
"""``auto`` follows the page's reader: a picture in a page has no other way to know."""


def document(width: float, height: float, theme: str, title: str, parts: Iterable[str]) -> str:
    """Return a whole picture.

    Args:
        width: In pixels, as *height*.
        height: See *width*.
        theme: One of `THEMES`.
        title: What the picture shows, for those who do not see it.
        parts: Its elements.
    """
    colours = _rules(DARK if theme == "dark" else LIGHT)
    if theme == "auto":
        colours += f"@media (prefers-color-scheme:dark){{{_rules(DARK)}}}"
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{SHAPES}{colours}</style>",
            element("rect", "page", width=width, height=height),
            *parts,
            "</svg>\n",
        ]
    )


def element(name: str, kind: str, **attributes: float | str) -> str:
    """Return an empty element of a class; underscores in names of attributes stand for hyphens."""
    return f'<{name} class="{kind}" {_attributes(attributes)}/>'


def text(x: float, y: float, words: str, kind: str = "ink", size: float = 11, **attributes: float | str) -> str:
    """Return a line of text whose base line is at *y*."""
    told = _attributes({"x": x, "y": y, "font_size": size, **attributes})
    return f'<text class="{kind}" {told}>{escape(words)}</text>'


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """Return coordinates as ``points=`` takes them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def _rules(colours: Mapping[str, str]) -> str:
    return "".join(f".{kind}{{{rule}}}" for kind, rule in colours.items())


def _attributes(attributes: Mapping[str, float | str]) -> str:
    return " ".join(
        f'{name.replace("_", "-")}="{f"{value:.5g}" if isinstance(value, float) else escape(str(value))}"'
        for name, value in attributes.items()
    )
