"""What is public: listed in `quarterjack.__all__`, explained by a docstring, described in the reference."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

import quarterjack
from tests.repo.checkout import HEADING, ROOT, prose

# A reference page describes a name in a heading, `Name` or `Name(...)`, or by a directive, `::: quarterjack.Name`.
DESCRIBED: Final = re.compile(r"`(?:quarterjack\.)?(?P<name>[A-Za-z]\w*)(?:\([^`]*\))?`")
SOURCE: Final = ROOT / "src"
DIRECTIVE: Final = re.compile(r"^::: quarterjack\.(?P<name>[A-Za-z]\w*)$")


def reference_pages() -> list[Path]:
    """Return the pages of the reference; there may be one or a folder of them."""
    return [page for page in (ROOT / "docs/reference.md", *(ROOT / "docs/reference").rglob("*.md")) if page.exists()]


def described_names(page: Path) -> set[str]:
    """Return the names that *page* describes in its headings or by directives."""
    found: set[str] = set()
    for line, words in zip(page.read_text(encoding="utf-8").splitlines(), prose(page).splitlines(), strict=False):
        if HEADING.match(words):
            found.update(match["name"] for match in DESCRIBED.finditer(line))
        if directive := DIRECTIVE.match(line):
            found.add(directive["name"])
    return found


def module_names() -> list[str]:
    """Return the names of the package's modules, but for programs."""
    paths = [path.relative_to(SOURCE).with_suffix("") for path in sorted((SOURCE / "quarterjack").rglob("*.py"))]
    return [".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__"]


def undocumented(owner: ModuleType, name: str) -> list[str]:
    """Return which of the public things behind *name* have no docstring, their own or inherited."""
    thing = getattr(owner, name)
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return []  # values and type aliases are explained where they are defined
    missing = [] if own_docstring(thing) else [name]
    members = vars(thing).items() if inspect.isclass(thing) else ()
    for member, value in members:
        is_described = not isinstance(value, property | staticmethod | classmethod) and not inspect.isroutine(value)
        if not member.startswith("_") and not is_described and not inspect.getdoc(getattr(thing, member)):
            missing.append(f"{name}.{member}")
    return missing


def own_docstring(thing: object) -> str | None:
    """Return the docstring that *thing* itself was given: a dataclass without one shows its signature."""
    said = thing.__doc__
    is_signature = inspect.isclass(thing) and said is not None and said.startswith(f"{thing.__name__}(")
    return None if is_signature else said


def test_all_lists_what_the_package_exports() -> None:
    """`__all__` is the promise: nothing public is missing from it, nothing in it is missing."""
    listed = quarterjack.__all__
    assert len(set(listed)) == len(listed)
    public = {
        name
        for name, thing in vars(quarterjack).items()
        if not name.startswith("_") and not inspect.ismodule(thing) and name != "annotations"
    }
    assert set(listed) == public


@pytest.mark.parametrize("name", quarterjack.__all__ if hasattr(quarterjack, "__all__") else [])
def test_public_name_has_a_docstring(name: str) -> None:
    """An editor shows the docstring before anybody opens the documentation."""
    assert undocumented(quarterjack, name) == []


@pytest.mark.parametrize("name", module_names())
def test_module_says_what_it_is_for_and_keeps_its_all(name: str) -> None:
    """A module opens with its purpose, and exports only what it has."""
    try:
        module = importlib.import_module(name)
    except quarterjack.MissingExtra as missing:  # an edge whose extra is not installed
        pytest.skip(str(missing))
    assert module.__doc__
    assert [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)] == []


@pytest.mark.skipif(not reference_pages(), reason="there is no reference page")
def test_reference_describes_exactly_the_public_names() -> None:
    """A name without a description is not public, and a description without a name is a promise broken."""
    described = set().union(*map(described_names, reference_pages()))
    assert {
        "missing": sorted(set(quarterjack.__all__) - described),
        "too many": sorted(described - set(quarterjack.__all__)),
    } == {
        "missing": [],
        "too many": [],
    }


def test_described_names_are_those_of_headings_and_directives(tmp_path: Path) -> None:
    """The reader of reference pages reads what the pages say, not what their examples do."""
    page = tmp_path / "reference.md"
    page.write_text(
        "# Names\n## `Every(seconds=1)` and `Aligned`\n`Mentioned`\n::: quarterjack.Cron\n```\n# `Example`\n```\n"
    )
    assert described_names(page) == {"Every", "Aligned", "Cron"}
