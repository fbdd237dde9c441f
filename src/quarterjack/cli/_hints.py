"""What to try next: the command as it was typed, with the name that was probably meant.

A hint names only what is there: files of the folder, ids of the app."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import click

__all__ = [
    "is_job_id",
    "listing",
    "may_begin_an_id",
    "nearest",
    "nearest_file",
    "nearest_module",
    "once_mended",
    "to_import",
    "typed",
]

LISTED: Final = 8
"""So many names are listed; of more the number is told."""
LONGEST: Final = 100
"""Longer words are cut where a command is told: a document given as an argument would bury what to do."""


_JOB: Final = re.compile(r"[0-9a-z]{8}-[0-9a-f]+")
_BEGINNING: Final = re.compile(r"[0-9a-z]{1,7}|[0-9a-z]{8}(-[0-9a-f]*)?")


def is_job_id(word: str) -> bool:
    """Say whether a word has the form of a job's id."""
    return _JOB.fullmatch(word) is not None


def may_begin_an_id(word: str) -> bool:
    """Say whether a word may be the beginning of a job's id."""
    return _BEGINNING.fullmatch(word) is not None


def typed(*words: str) -> str:
    """Return the command that runs now, as ``qj next``, and *words* quoted for the shell."""
    context = click.get_current_context(silent=True)
    path = context.command_path if context is not None and context.parent is not None else "qj run"
    return " ".join([path, *(shlex.quote(word if len(word) <= LONGEST else f"{word[:LONGEST]}…") for word in words)])


def once_mended(app: str) -> str:
    """Return the hint for a mistake in the user's own code, whose text says what to write instead.

    The command with all its words where it takes several; else with its *app*.
    """
    context = click.get_current_context(silent=True)
    words: Iterable[str] = context.params.get("words", ()) if context is not None else ()
    return f"{typed(*(words or [app]))}, once that is mended"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name that was probably meant; what stands behind a dot may be given alone."""
    names = list(known)
    behind = [one for one in names if one.rpartition(".")[2] == name]
    return next(iter(behind or difflib.get_close_matches(name, names, n=1)), None)


def listing(names: Collection[str]) -> str:
    """Return the names, or the first of them and how many more there are."""
    found = list(names)
    more = len(found) - LISTED
    return ", ".join(found) if more <= 1 else f"{', '.join(found[:LISTED])} and {more} more"


def nearest_file(file: Path) -> Path | None:
    """Return the Python file beside *file* that was probably meant."""
    beside = [one.name for one in file.parent.glob("*.py")] if file.parent.is_dir() else []
    near = nearest(file.name, beside)
    return None if near is None else file.parent / near


def nearest_module(module: str, missing: str, attribute: str | None) -> str | None:
    """Return the target that was probably meant by a module of which the part *missing* was not found."""
    parent, _, last = missing.rpartition(".")
    rest = module[len(missing) :]
    if not parent:
        near = nearest(last, _importable([str(Path.cwd())]))
    elif hasattr(sys.modules[parent], "__path__"):
        near = nearest(last, _importable(sys.modules[parent].__path__))
    else:  # a dot that should have been a colon
        found = f"{last}{rest}"
        return f"{parent}:{found}" if hasattr(sys.modules[parent], last) else parent
    if near is None:
        return None
    return f"{parent}{'.' if parent else ''}{near}{rest}" + (f":{attribute}" if attribute else "")


def _importable(folders: Iterable[str]) -> list[str]:
    """Return the names of modules and packages in these folders."""
    found: set[str] = set()
    for folder in map(Path, folders):
        if folder.is_dir():
            found |= {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/*.py")}
    return sorted(name for name in found if name.isidentifier())


def to_import(module: str, root: Path | None, file: Path | None) -> str:
    """Return a command that imports what this one could not, by Python alone; *root* is the folder to do it in."""
    if not all(part.isidentifier() for part in module.split(".")):
        return f"python {shlex.quote(str(file))}"
    line = f"python -c 'import {module}'"
    return line if root is None or root == Path.cwd() else f"cd {shlex.quote(os.path.relpath(root))} && {line}"
