"""Schedules in code and in the store: whose declaration counts, and who fires it.

Several processes may run several versions of one application on one store.
Each puts the schedules its code declares when it starts. A row remembers by a
hash what code last said of it (`code_hash_of`), and what was said before that;
what an operator changes at run time is none of that and stays until the code
says something else. Pure functions: the store asks `judged` in the transaction
that puts a row, every process asks `why_not_fired` before it fires one.

    what the code says, beside the row           verdict
    there is no row                              NEW          it is made
    the same hash                                SAME         the row stays as it is
    another one, of an older version             OLDER        the row stays as it is
    the one before the row's, not a newer one    ALTERNATED   it is put, and somebody is told
    another one                                  CHANGED      it is put

ALTERNATED is A-B-A: two codes that run at once, or by turns, and disagree. With
versions, the older one gives way; without, the last one that starts wins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Container, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from types import FunctionType
from typing import Any, Final, NamedTuple, cast

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ._versions import is_older
from .model import Schedule
from .triggers.base import Rule

__all__ = ["Put", "Verdict", "adopt", "code_hash_of", "declared_form", "judged", "why_not_fired"]


class Verdict(StrEnum):
    """What becomes of a schedule that is put; see the module's head."""

    NEW = "new"
    SAME = "same"
    CHANGED = "changed"
    ALTERNATED = "alternated"
    OLDER = "older"


class Put(NamedTuple):
    """A row after its schedule was put, and what became of what was put."""

    row: Schedule
    verdict: Verdict


# -- the declared form --------------------------------------------------------------------------


def code_hash_of(schedule: Schedule) -> str:
    """Return what tells one declaration of a schedule from another: the same for equal ones, in every process."""
    return hashlib.sha256(_json(declared_form(schedule)).encode()).hexdigest()[:32]


def declared_form(schedule: Schedule) -> dict[str, Any]:
    """Return both halves of a declaration as JSON-ready values.

    What stands at its default is left out, so that an option which a later version of
    quarterjack knows changes no hash. A live object, as only the memory store takes
    it, is told by its repr.
    """
    return {"timing": _plain(schedule.timing), "payload": _plain(schedule.payload)}


def _json(form: Any) -> str:
    return json.dumps(form, sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Rule):
        return _rule(value)
    if isinstance(value, (type, FunctionType)):  # code is told by its name: its repr is another one in each process
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, BaseModel):
        return {name: _plain(item) for name, item in value}
    if is_dataclass(value):
        given = ((name, getattr(value, name), default) for name, default in _defaults(type(value)))
        return {name: _field(name, found) for name, found, default in given if found != default}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, (set, frozenset)):  # their order is another one in each process
        return sorted((_plain(item) for item in cast("Collection[Any]", value)), key=_json)
    try:
        return to_jsonable_python(value, fallback=repr)
    except ValueError:  # bytes that are no text
        return repr(value)


def _defaults(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    """Return the fields of a dataclass that count, with their defaults, `MISSING` where there is none."""
    known = _DEFAULTS.get(kind)
    if known is None:
        known = _DEFAULTS[kind] = tuple(
            (field.name, field.default if field.default_factory is MISSING else field.default_factory())
            for field in fields(kind)
            if field.init and field.compare
        )
    return known


_DEFAULTS: Final[dict[type[Any], tuple[tuple[str, Any], ...]]] = {}
"""What was found so far; to look at the fields each time would triple what a hash costs (68 µs for 22)."""


def _field(name: str, value: Any) -> Any:
    return value.name if name == "executor" and not isinstance(value, str) else _plain(value)


def _rule(rule: Rule) -> Any:
    try:
        return rule.to_dict()
    except Exception:  # a rule of a user's own, with a field that is no JSON: a durable store refuses it
        return {"type": type(rule).__qualname__, "repr": repr(rule)}


# -- whose declaration counts -------------------------------------------------------------------


def judged(old: Schedule | None, declared: Schedule) -> Verdict:
    """Return what becomes of *declared* beside the stored row *old*.

    What is put at run time (it has no ``code_hash``) is somebody's order, and counts.
    """
    if old is None:
        return Verdict.NEW
    if declared.code_hash is None:
        is_equal = (old.timing, old.payload) == (declared.timing, declared.payload)
        return Verdict.SAME if is_equal else Verdict.CHANGED
    if not old.in_code:
        return Verdict.CHANGED
    if old.code_hash == declared.code_hash:
        return Verdict.SAME
    if is_older(declared.version, old.version):
        return Verdict.OLDER
    is_newer = is_older(old.version, declared.version)
    return Verdict.ALTERNATED if old.code_before == declared.code_hash and not is_newer else Verdict.CHANGED


def adopt(row: Schedule, declared: Schedule) -> None:
    """Note in *row*, which takes over what *declared* says, who said it."""
    if declared.code_hash is None:
        if not declared.in_code:  # a schedule made at run time takes its place
            row.code_hash = row.code_before = None
        row.version = declared.version
    elif declared.code_hash != row.code_hash:
        row.code_before, row.code_hash = row.code_hash, declared.code_hash
        row.version = declared.version
    elif is_older(row.version, declared.version):
        row.version = declared.version
    row.in_code = declared.in_code


def why_not_fired(row: Schedule, tasks: Container[str], code: Mapping[str, str]) -> str | None:
    """Return why a process does not fire *row*, in words; None if it does.

    Args:
        row: A schedule of the store.
        tasks: The tasks that the process knows.
        code: The hash of each schedule that its code declares.
    """
    by = "" if row.version is None else f" by version {row.version}"
    if row.in_code and row.id not in code:
        return f"it was declared in code{by}, and the code here does not declare it"
    if row.in_code and row.code_hash is not None and row.code_hash != code[row.id]:
        return f"it was declared otherwise{by} than by the code here"
    if row.payload.task not in tasks:
        return f"no task {row.payload.task!r} is known here"
    return None
