"""What a callable takes: its signature and its type hints, however it was made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

__all__ = ["hints_of", "signature_of"]


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """Return the signature; ``(*args, **kwargs)`` for the built-in functions that do not tell theirs."""
    try:
        return inspect.signature(fn)
    except ValueError:
        kinds = (("args", inspect.Parameter.VAR_POSITIONAL), ("kwargs", inspect.Parameter.VAR_KEYWORD))
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds])


def hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """Return the type hints with their ``Annotated`` extras; none where one cannot be resolved."""
    target = fn if inspect.isroutine(fn) else getattr(fn, "__call__", fn)  # noqa: B004  # a callable instance
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError):
        return {}
