"""Stores by their URL: ``sqlite:///jobs.db``, ``postgresql://…``, ``redis://…``.

The scheme says which engine; the engine reads the rest. It, and with it its
driver, is imported when a URL asks for it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import PurePath
from typing import Any, Final, NamedTuple, cast

from quarterjack._numbers import shown
from quarterjack.errors import InvalidOption, MissingExtra

from .base import Store
from .memory import MemoryStore

__all__ = ["SCHEMES", "refuse_misspelt", "store_from", "without_password"]


class _Engine(NamedTuple):
    module: str
    name: str
    example: str
    extra: str = ""
    """What to install beside quarterjack for its driver."""


_SQLITE: Final = _Engine("sqlite", "SQLiteStore", "sqlite:///jobs.db")
_POSTGRES: Final = _Engine("postgres", "PostgresStore", "postgresql://user:password@host/database", "postgres")
_REDIS: Final = _Engine("redis", "RedisStore", "redis://host:6379/0", "redis")
_ENGINES: Final = {
    "sqlite": _SQLITE,
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
    "redis": _REDIS,
    "rediss": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "unix": _REDIS,
}
SCHEMES: Final = ("memory", *_ENGINES)
"""What the URL of a store may begin with."""
_OTHER_NAMES: Final = {
    "sqlite3": "sqlite",
    "file": "sqlite",
    "redis+unix": "unix",
    "valkey+unix": "unix",
    "mem": "memory",
    "pg": "postgresql",
    "psql": "postgresql",
}
_SECRET: Final = re.compile(r"((?:://[^:/@]*:)|[?&]password=)(?:(?<=:).*(?=@)|(?<==)[^&]*)", re.IGNORECASE)
"""What follows the user's name, up to the last @, as a password may hold any sign; or stands among the options."""
_FILE: Final = re.compile(r"[^:]*\.(?:db|sqlite3?|sqlite-?db)", re.IGNORECASE)


def store_from(given: object) -> Store:
    """Return the store that *given* is or names; nothing is connected yet.

    Raises:
        InvalidOption: If no store goes by that name; the text says what could be meant.
        MissingExtra: If its driver is not installed; the text is the line that installs it.
    """
    if isinstance(given, Store):
        return given
    if not isinstance(given, str):
        raise InvalidOption(_no_text(given))
    if given in {"memory", "memory://"}:
        return MemoryStore()
    scheme, separator, _ = given.partition("://")
    engine = _ENGINES.get(scheme.lower()) if separator else None
    if engine is None:
        raise InvalidOption(_unknown(given))
    return cast("Store", _class_of(engine).from_url(given))


def _class_of(engine: _Engine) -> Any:
    try:
        module = import_module(f".{engine.module}", __package__)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("quarterjack"):
            raise
        raise MissingExtra(f"a {engine.name}", engine.extra) from error
    return getattr(module, engine.name)


def without_password(url: str) -> str:
    """Return *url* as it may be shown."""
    return _SECRET.sub(r"\1***", url)


def refuse_misspelt(name: str, options: Iterable[str], shown: str) -> None:
    """Refuse a *name* in the query of a URL that is nearly one of our *options*; others are the driver's.

    Raises:
        InvalidOption: If it is.
    """
    for near in difflib.get_close_matches(
        name, options, n=1, cutoff=0.75
    ):  # `connect_timeout` is no slip for `timeout`
        raise InvalidOption(f"{shown} has an option {name!r}; did you mean {near!r}?")


def _no_text(given: object) -> str:
    if isinstance(given, type) and issubclass(given, Store):
        return f"store must be an object: write {given.__name__}(…), or its URL; got the class"
    if isinstance(given, PurePath):
        return f"store must be a URL or a Store, got {given!r}; write {_url_of(str(given))!r}"
    return f'store must be a URL such as "sqlite:///jobs.db", or a Store, got {shown(given)}'


def _url_of(path: str) -> str:
    return f"sqlite:///{path}"  # an absolute path brings the fourth slash


def _unknown(given: str) -> str:
    """Return the message about a text that names no store."""
    return f"store={without_password(given)!r} names no store; {_hint(given)}"


def _hint(given: str) -> str:
    scheme, separator, _ = given.partition("://")
    if not separator:
        if _FILE.fullmatch(given):
            return f"did you mean {_url_of(given)!r}?"
        scheme = given.partition(":")[0]
    meant = _meant(scheme.lower())
    if meant is None:
        examples = [*dict.fromkeys(engine.example for engine in _ENGINES.values())]
        return f'it takes "memory", {", ".join(map(repr, examples))}, or a Store'
    if meant == "memory":
        return "did you mean 'memory'?"
    if separator and meant != scheme:
        return f"did you mean {meant + '://'!r}?"
    return f"write it as {_ENGINES[meant].example!r}"


def _meant(scheme: str) -> str | None:
    """Return the scheme that *scheme* is another word for, or a misspelt form of."""
    first = scheme.partition("+")[0]
    plain = _OTHER_NAMES.get(scheme) or _OTHER_NAMES.get(first) or first
    return next(iter(difflib.get_close_matches(plain, SCHEMES, n=1, cutoff=0.7)), None)
