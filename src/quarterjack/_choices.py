"""Options that are one of a few words, a yes or no, or a name, checked: the field, the value, what is allowed."""

from __future__ import annotations

from typing import Any, get_args

from ._numbers import shown
from .errors import InvalidOption

__all__ = ["flag", "name_or_none", "one_of"]


def one_of(value: Any, field: str, words: Any) -> Any:
    """Return *value* if it is one of *words*, which are those of a ``Literal``.

    Raises:
        InvalidOption: Naming *field*, the value and the words.
    """
    allowed = get_args(words)
    if not isinstance(value, str) or value not in allowed:
        named = [repr(word) for word in allowed]
        text = " or ".join(named) if len(named) < 3 else f"one of {', '.join(named)}"
        raise InvalidOption(f"{field} must be {text}, got {shown(value)}")
    return value


def flag(value: Any, field: str) -> bool:
    """Return *value* if it is True or False; ``"no"`` is neither.

    Raises:
        InvalidOption: Naming *field* and the value.
    """
    if not isinstance(value, bool):
        raise InvalidOption(f"{field} must be True or False, got {shown(value)}")
    return value


def name_or_none(value: Any, field: str = "name", example: str = "api") -> str | None:
    """Return *value* if it is a text of at least a character, or None.

    Raises:
        InvalidOption: Naming *field* and the value.
    """
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise InvalidOption(f'{field} must be a text such as "{example}", got {shown(value)}')
    return value
