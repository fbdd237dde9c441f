"""Which app is meant: ``module:app``, ``module``, ``path/to/file.py:app``, or what pyproject.toml says.

The user's module is imported as if their program had been started from here:
the current directory is on ``sys.path``. What their code raises is theirs and
is shown as theirs, without a line of ours in the traceback."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import tomllib
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard

import click

from ._shell import EXIT_USAGE, Failure

if TYPE_CHECKING:
    from quarterjack import Quarterjack

__all__ = ["Target", "configured", "folders", "load", "target_argument"]

CONFIG: Final = '[tool.quarterjack] app = "module:app" in pyproject.toml'

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})

target_argument = click.argument("target", required=False, metavar="[APP]")


class Target(NamedTuple):
    """An app, and how to name it on a command line."""

    app: Quarterjack
    name: str


class _Named(NamedTuple):
    """What a target's text says: a module by name, or a file; and perhaps an attribute."""

    module: str
    file: Path | None
    attribute: str | None


def load(text: str | None) -> Target:
    """Return the app that *text* names, or the configured one.

    Raises:
        Failure: If there is no such app (exit code 2), or its module raised
            while it was imported (1; its traceback is on stderr by then).
    """
    named, text, folder = _located(text)
    if folder is not None:
        _at_front(folder)
    _at_front(Path.cwd())
    module = _imported(named)
    return _chosen(module, named, text)


def folders(text: str | None) -> list[Path]:
    """Return where the app's files are, without importing any: the current folder, and what lies outside of it.

    None of them is inside another.

    Raises:
        Failure: If no app is named.
    """
    named, _, folder = _located(text)
    found = [Path.cwd(), folder, _root(named.file.resolve())[0] if named.file is not None else _home(named.module)]
    paths = sorted({path.resolve() for path in found if path is not None}, key=lambda path: len(path.parts))
    return [path for at, path in enumerate(paths) if not any(path.is_relative_to(outer) for outer in paths[:at])]


def _home(module: str) -> Path | None:
    """Return the folder of a module on ``sys.path``; None if there is none, or it is Python's or an installed one."""
    name = module.partition(".")[0]
    spec = PathFinder.find_spec(name, [str(Path.cwd()), *sys.path])
    if spec is None or spec.origin is None or name in sys.stdlib_module_names:
        return None
    folder = Path(spec.origin).parent
    return folder if folder.is_dir() and not _INSTALLED & {*folder.parts} else None


def _located(text: str | None) -> tuple[_Named, str, Path | None]:
    """Return what is meant, its text, and the folder of the pyproject.toml that says so, if one does."""
    if text is not None:
        return _parsed(text), text, None
    found = configured()
    if found is None:
        raise Failure(
            "no app was named, and no pyproject.toml from here upwards names one",
            f"qj run module:app, or put {CONFIG}",
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
            raise Failure(f"{file} cannot be read: {error}", "qj run module:app", EXIT_USAGE) from None
        settings: Any = document.get("tool", {}).get("quarterjack", {})
        name: Any = settings.get("app") if hasattr(settings, "get") else settings
        if name is None:
            continue
        if not isinstance(name, str) or not name.strip():
            raise Failure(f"{file}: [tool.quarterjack] app must be a text, got {name!r}", f"put {CONFIG}", EXIT_USAGE)
        return name.strip(), folder
    return None


def _parsed(text: str) -> _Named:
    head, colon, tail = text.rpartition(":")
    # A tail with a slash or a .py is a path after a drive letter, not an attribute.
    if not colon or "/" in tail or "\\" in tail or tail.endswith(".py"):
        head, tail = text, ""
    if colon and not tail and head != text:
        raise Failure(f"{text!r} names no app behind the colon", f"qj ls {head}", EXIT_USAGE)
    if head.endswith(".py") or "/" in head or "\\" in head:
        return _Named(Path(head).stem, Path(head), tail or None)
    if not head or not all(part.isidentifier() for part in head.split(".")):
        raise Failure(f"{text!r} names no module", "qj ls module:app, or path/to/file.py:app", EXIT_USAGE)
    return _Named(head, None, tail or None)


def _at_front(folder: Path) -> None:
    path = str(folder.resolve())
    if path not in sys.path:
        sys.path.insert(0, path)


def _imported(named: _Named) -> ModuleType:
    try:
        return importlib.import_module(named.module) if named.file is None else _imported_file(named.file)
    except ModuleNotFoundError as error:
        if named.file is None and error.name is not None and f"{named.module}.".startswith(f"{error.name}."):
            hint = f"qj ls {named.module.replace('.', '/')}.py, or change to the folder that holds it"
            raise Failure(f"no module {error.name!r} here ({Path.cwd()})", hint, EXIT_USAGE) from None
        raise _theirs(error, named) from None
    except Failure:
        raise
    except SystemExit as error:
        raise Failure(
            f"importing {named.file or named.module} ended the program (exit {error.code!r})",
            'put what starts it under: if __name__ == "__main__":',
        ) from None
    except Exception as error:  # the user's module may raise anything
        raise _theirs(error, named) from None


def _imported_file(file: Path) -> ModuleType:
    path = file.resolve()
    if not path.is_file():
        near = sorted(one.name for one in path.parent.glob("*.py")) if path.parent.is_dir() else []
        hint = f"qj ls {file.parent / near[0]}" if near else "qj ls module:app"
        raise Failure(f"there is no file {file}", hint, EXIT_USAGE)
    root, name = _root(path)
    _at_front(root)
    if "." in name and all(part.isidentifier() for part in name.split(".")):
        return importlib.import_module(name)
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None or name in sys.stdlib_module_names or not name.isidentifier():
        name = "qj_app_" + "".join(sign if sign.isalnum() else "_" for sign in name)
    return _executed(name, path)


def _root(file: Path) -> tuple[Path, str]:
    """Return the folder to import a file from, and its name there; in a package relative imports need the full one."""
    root, name = file.parent, file.stem
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    return root, name


def _executed(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Failure(f"{path} is no Python file", "qj ls path/to/file.py:app", EXIT_USAGE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _theirs(error: Exception, named: _Named) -> Failure:
    """Show the error as Python would have shown it to them, and say that it is theirs."""
    tb = error.__traceback__
    while tb is not None and _is_ours(tb):
        tb = tb.tb_next
    click.echo("".join(traceback.format_exception(type(error), error, tb)).rstrip(), err=True)
    what = named.file or named.module
    return Failure(f"{what} raised {type(error).__name__} while it was imported", f"python -c 'import {named.module}'")


def _is_ours(tb: TracebackType) -> bool:
    file = tb.tb_frame.f_code.co_filename
    return file == __file__ or file.startswith("<frozen importlib") or file == importlib.__file__


def _chosen(module: ModuleType, named: _Named, text: str) -> Target:
    shown = str(named.file) if named.file is not None else named.module
    if named.attribute is None:
        return _only(module, shown)
    found: Any = module
    for part in named.attribute.split("."):
        found = getattr(found, part, None)
    if _is_app(found):
        return Target(found, text)
    apps = _apps(module)
    hint = f"qj ls {shown}:{next(iter(apps))}" if apps else f"add to {shown}: app = Quarterjack()"
    what = f"is {found!r}, no Quarterjack" if found is not None else "does not exist"
    raise Failure(f"{text}: {named.attribute!r} {what}", hint, EXIT_USAGE)


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
    raise Failure(f"{shown} holds {len(apps)} apps: {names}", f"qj ls {shown}:{next(iter(apps))}", EXIT_USAGE)


def _apps(module: ModuleType) -> dict[str, Quarterjack]:
    """Return the module's apps by name; one that goes by two names counts once."""
    found: dict[str, Quarterjack] = {}
    for name, value in vars(module).items():
        if _is_app(value) and not any(value is known for known in found.values()):
            found[name] = value
    return found
