"""How spans of time are shown."""

from __future__ import annotations

__all__ = ["in_words", "span"]


def span(seconds: float) -> str:
    """Return how long something took, in the unit that reads best: ``"2.4 ms"``, ``"6.25 s"``, ``"1 m 9 s"``."""
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 60 else in_words(seconds)


def in_words(seconds: float) -> str:
    """Return a span as its two largest units: ``"4 m 12 s"``, ``"3 d 2 h"``, ``"0.3 s"``."""
    if seconds < 0:
        return f"{in_words(-seconds)} ago"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")):
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count} {unit}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 "))
