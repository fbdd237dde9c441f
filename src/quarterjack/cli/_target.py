"""Which app is meant: ``module:app``, ``module``, ``path/to/file.py:app``, or what pyproject.toml says.

What is named here is imported by `_importing`."""

from __future__ import annotations

import inspect
import shlex
import sys
import tomllib
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard

import click

from ._hints import typed
from ._importing import Named, at_front, imported, root_of
from ._shell import EXIT_USAGE, Failure

if TYPE_CHECKING:
    from quarterjack import Quarterjack

__all__ = ["Target", "configured", "folders", "is_module", "load", "target_argument"]

CONFIG: Final = '[tool.quarterjack] app = "module:app" in pyproject.toml'

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})

target_argument = click.argument("target", required=False, metavar="[APP]")


class Target(NamedTuple):
    """An app, and how to name it on a command line."""

    app: Quarterjack
    name: str
    is_url: bool = False
    """No app was named but a store, whose jobs can be looked at without any code."""

    @property
    def words(self) -> str:
        """What names it on a command line; of a store's URL, which may hold a password, only that one is needed."""
        return "--store URL" if self.is_url else shlex.quote(self.name)


def load(text: str | None) -> Target:
    """Return the app that *text* names, or the configured one.

    Raises:
        Failure: If there is no such app (exit code 2), or its module raised
            while it was imported (1; its traceback is on stderr by then).
    """
    named, text, folder = _located(text)
    if folder is not None:
        at_front(folder)
    at_front(Path.cwd())
    try:
        return _chosen(imported(named, text), named, text)
    except Failure as failure:
        if folder is not None and failure.code == EXIT_USAGE:
            told = f"{failure.message}; {folder / 'pyproject.toml'} names it"
            raise Failure(told, failure.hint, failure.code) from None
        raise


def folders(text: str | None) -> list[Path]:
    """Return where the app's files are, without importing any: the current folder, and what lies outside of it.

    None of them is inside another.

    Raises:
        Failure: If no app is named.
    """
    named, _, folder = _located(text)
    found = [Path.cwd(), folder, root_of(named.file.resolve())[0] if named.file is not None else _home(named.module)]
    paths = sorted({path.resolve() for path in found if path is not None}, key=lambda path: len(path.parts))
    return [path for at, path in enumerate(paths) if not any(path.is_relative_to(outer) for outer in paths[:at])]


def is_module(word: str) -> bool:
    """Say whether a word is the name of a module, or begins with that of a package, without importing it."""
    return word.isascii() and PathFinder.find_spec(word.partition(".")[0], [str(Path.cwd()), *sys.path]) is not None


def _home(module: str) -> Path | None:
    """Return the folder of a module on ``sys.path``; None if there is none, or it is Python's or an installed one."""
    name = module.partition(".")[0]
    spec = PathFinder.find_spec(name, [str(Path.cwd()), *sys.path])
    if spec is None or spec.origin is None or name in sys.stdlib_module_names:
        return None
    folder = Path(spec.origin).parent
    return folder if folder.is_dir() and not _INSTALLED & {*folder.parts} else None


def _located(text: str | None) -> tuple[Named, str, Path | None]:
    """Return what is meant, its text, and the folder of the pyproject.toml that says so, if one does."""
    if text is not None:
        return _parsed(text), text, None
    found = configured()
    if found is None:
        raise Failure(
            "no app was named, and no pyproject.toml from here upwards names one",
            f"{typed()} module:app, or put {CONFIG}",
            EXIT_USAGE,
        )
    text, folder = found
    named = _parsed(text)
    return (named if named.file is None else named._replace(file=folder / named.file)), text, folder


def configured() -> tuple[str, Path] | None:
    """Return the app that the nearest ``[tool.quarterjack]`` names, and the folder that says so.

    Raises:
        Failure: If the file or its entry cannot be read.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            document: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Failure(f"{file} cannot be read: {error}", f"{typed()} module:app", EXIT_USAGE) from None
        settings: Any = document.get("tool", {}).get("quarterjack", {})
        name: Any = settings.get("app") if hasattr(settings, "get") else settings
        if name is None:
            continue
        if not isinstance(name, str) or not name.strip():
            raise Failure(f"{file}: [tool.quarterjack] app must be a text, got {name!r}", f"put {CONFIG}", EXIT_USAGE)
        return name.strip(), folder
    return None


def _parsed(text: str) -> Named:
    head, colon, tail = text.rpartition(":")
    # A tail with a slash or a .py is a path after a drive letter, not an attribute.
    if not colon or "/" in tail or "\\" in tail or tail.endswith(".py"):
        head, tail = text, ""
    if colon and not tail and head != text:
        raise Failure(f"{text!r} names no app behind the colon", typed(head or "module:app"), EXIT_USAGE)
    if head.endswith(".py") or "/" in head or "\\" in head:
        return Named(Path(head).stem, Path(head), tail or None)
    if ":" in head and not tail.startswith(":"):
        raise Failure(f"{text!r} has a colon too many", typed(head), EXIT_USAGE)
    if not head or not all(part.isidentifier() for part in head.split(".")):
        raise Failure(f"{text!r} names no module", f"{typed()} module:app, or path/to/file.py:app", EXIT_USAGE)
    return Named(head, None, tail or None)


def _chosen(module: ModuleType, named: Named, text: str) -> Target:
    shown = str(named.file) if named.file is not None else named.module
    if named.attribute is None:
        return _only(module, shown)
    found: Any = module
    for part in named.attribute.split("."):
        found = getattr(found, part, None)
    if _is_app(found):
        return Target(found, text)
    apps = _apps(module)
    made = f"{named.attribute}()" if inspect.isroutine(found) else "Quarterjack()"
    hint = typed(f"{shown}:{next(iter(apps))}") if apps else f"add to {shown}: app = {made}"
    raise Failure(f"{text}: {named.attribute!r} {_kind(found)}", hint, EXIT_USAGE)


def _kind(found: Any) -> str:
    """Say what was found in place of an app; its value is not ours to print: settings hold secrets."""
    if found is None:
        return "does not exist"
    if inspect.isroutine(found):
        return "is a function: factories are not called"
    return f"is of type {type(found).__name__}, not a Quarterjack"


def _is_app(value: Any) -> TypeGuard[Quarterjack]:
    from quarterjack import Quarterjack  # noqa: PLC0415  # 100 ms, which their module has paid by now

    return isinstance(value, Quarterjack)


def _only(module: ModuleType, shown: str) -> Target:
    apps = _apps(module)
    if len(apps) == 1:
        ((name, app),) = apps.items()
        return Target(app, f"{shown}:{name}")
    if not apps:
        raise Failure(f"{shown} holds no Quarterjack", f"add to {shown}: app = Quarterjack()", EXIT_USAGE)
    names = ", ".join(apps)
    raise Failure(f"{shown} holds {len(apps)} apps: {names}", typed(f"{shown}:{next(iter(apps))}"), EXIT_USAGE)


def _apps(module: ModuleType) -> dict[str, Quarterjack]:
    """Return the module's apps by name; one that goes by two names counts once."""
    found: dict[str, Quarterjack] = {}
    for name, value in vars(module).items():
        if _is_app(value) and not any(value is known for known in found.values()):
            found[name] = value
    return found
