"""What stands in the project's files holds on every machine, and in every reader's hands."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import Final

import pytest

from tests.repo.checkout import ROOT, tracked_files

# Somebody's machine, spelt so that this line is none of its own finds.
MACHINE_PATH: Final = re.compile(r"(?<![\w.~-])/(?:ro[o]t|wor[k]|home/\w[\w.-]*|Users/\w[\w.-]*)(?:/|\b)(?!\w)")
BINARY: Final = frozenset({".png", ".ico", ".gif", ".jpg", ".woff2", ".db", ".gz", ".whl"})
SOURCES: Final = sorted((ROOT / "src").rglob("*.py"))


def machine_paths(text: str) -> list[str]:
    """Return the lines of *text* that name a place on somebody's machine."""
    return [line for line in text.splitlines() if MACHINE_PATH.search(line)]


def unexplained_broad_excepts(source: str) -> list[int]:
    """Return the lines of handlers that catch everything, do not raise it again and do not say why."""
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return [
        handler.lineno
        for handler in ast.walk(ast.parse(source))
        if isinstance(handler, ast.ExceptHandler)
        and is_broad(handler)
        and not any(isinstance(step, ast.Raise) for step in handler.body)
        and not comments & {handler.lineno - 1, handler.lineno, handler.lineno + 1}
    ]


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Say whether a handler catches whatever users' code may raise."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}) for kind in kinds
    )


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    """A path that exists on one machine breaks on all others, and tells who wrote it."""
    found: dict[str, list[str]] = {}
    for path in tracked_files():
        if path.suffix not in BINARY and (lines := machine_paths(path.read_text(encoding="utf-8"))):
            found[str(path.relative_to(ROOT))] = lines
    assert found == {}


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("cd /ro" + "ot/project", True),
        ("see '/ho" + "me/ann/x.py'", True),
        ("open(/wor" + "k)", True),
        ("https://example.com/home/page", False),
        ("src/work/item.py and a/root", False),
        ("/homework /rooted", False),
    ],
)
def test_machine_paths_are_told_from_other_paths(line: str, is_found: bool) -> None:
    """The search would be switched off if it found what is none."""
    assert bool(machine_paths(line)) is is_found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_broad_except_has_its_reason_beside_it(path: Path) -> None:
    """`except Exception` stands only where users' code runs, and says so; anywhere else it hides a bug."""
    assert unexplained_broad_excepts(path.read_text(encoding="utf-8")) == []


def test_broad_excepts_without_a_reason_are_found() -> None:
    """A reader of handlers that finds none would let every one through."""
    source = (
        "try: pass\nexcept Exception:\n    pass\n"
        "try: pass\nexcept (ValueError, BaseException) as error:  # users' code\n    pass\n"
        "try: pass\nexcept BaseException:\n    clean = 1\n    raise\n"
        "try: pass\nexcept ValueError:\n    pass\n"
        "try: pass\nexcept:\n    pass\n"
    )
    assert unexplained_broad_excepts(source) == [2, 15]
