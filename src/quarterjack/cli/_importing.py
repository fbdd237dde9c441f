"""How the module that holds an app is imported, and whose error it is if that fails.

As if their program had been started from here: the current directory is on
``sys.path``. What their code raises is theirs and is shown as theirs, without a
line of ours in the traceback. An app that is started meanwhile is refused: a
look at it would run it."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Final, NamedTuple

import click

from ._hints import nearest_file, nearest_module, once_mended, to_import, typed
from ._shell import EXIT_USAGE, Failure

__all__ = ["Named", "NoModule", "at_front", "imported", "root_of"]

_PACKAGE: Final = str(Path(__file__).parents[1])
_ASYNCIO: Final = str(Path(asyncio.__file__).parent)


class NoModule(Failure):
    """There is no module of this name; *is_guess* if the hint names one that is like it."""

    def __init__(self, message: str, hint: str, *, is_guess: bool) -> None:
        super().__init__(message, hint, EXIT_USAGE)
        self.is_guess = is_guess


class Named(NamedTuple):
    """What a target's text says: a module by name, or a file; and perhaps an attribute."""

    module: str
    file: Path | None
    attribute: str | None


def at_front(folder: Path) -> None:
    """Let modules be imported from this folder, before all others."""
    path = str(folder.resolve())
    if path not in sys.path:
        sys.path.insert(0, path)


def imported(named: Named, text: str) -> ModuleType:
    """Return the module; *text* is how it was typed.

    Raises:
        Failure: If there is none (`NoModule`, or exit code 2), or it raised (1).
    """
    from quarterjack._app_life import starts_refused  # noqa: PLC0415  # their module imports it anyway

    try:
        with starts_refused():
            return importlib.import_module(named.module) if named.file is None else _imported_file(named.file)
    except ModuleNotFoundError as error:
        if named.file is None and error.name is not None and f"{named.module}.".startswith(f"{error.name}."):
            raise _not_found(named, error.name) from None
        raise _theirs(error, named, text) from None
    except Failure:
        raise
    except SystemExit as error:
        raise Failure(
            f"importing {named.file or named.module} ended the program (exit {error.code!r})",
            'put what starts it under: if __name__ == "__main__":',
        ) from None
    except Exception as error:  # the user's module may raise anything
        raise _theirs(error, named, text) from None


def _not_found(named: Named, missing: str) -> Failure:
    near = nearest_module(named.module, missing, named.attribute)
    hint = typed(near) if near else f"{typed()} path/to/file.py:app, or change to the folder that holds it"
    return NoModule(f"no module {missing!r} here ({Path.cwd()})", hint, is_guess=near is not None)


def _imported_file(file: Path) -> ModuleType:
    path = file.resolve()
    if not path.is_file():
        raise Failure(f"there is no file {file}", typed(str(nearest_file(file) or "module:app")), EXIT_USAGE)
    root, name = root_of(path)
    at_front(root)
    if "." in name and all(part.isidentifier() for part in name.split(".")):
        return importlib.import_module(name)
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    if known is not None or name in sys.stdlib_module_names or not name.isidentifier():
        name = "qj_app_" + "".join(sign if sign.isalnum() else "_" for sign in name)
    return _executed(name, path)


def root_of(file: Path) -> tuple[Path, str]:
    """Return the folder to import a file from, and its name there; in a package relative imports need the full one."""
    root, name = file.parent, file.stem
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    return root, name


def _executed(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Failure(f"{path} is no Python file", f"{typed()} path/to/file.py:app", EXIT_USAGE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _theirs(error: Exception, named: Named, text: str) -> Failure:
    """Show the error as Python would have shown it to them, and say that it is theirs."""
    from quarterjack.errors import QuarterjackError  # noqa: PLC0415  # as above

    tb = error.__traceback__
    while tb is not None and _is_ours(tb):
        tb = tb.tb_next
    report = traceback.TracebackException(type(error), error, tb)
    what = named.file or named.module
    if isinstance(error, QuarterjackError):  # it says what to write instead, and their line is where
        report.stack = _theirs_alone(report.stack)
        click.echo("".join(report.stack.format()).rstrip(), err=True)
        return Failure(f"{what}: {error}", once_mended(text))
    click.echo("".join(report.format()).rstrip(), err=True)
    return Failure(f"{what} raised {type(error).__name__} while it was imported", _to_import(error, named))


def _is_ours(tb: TracebackType) -> bool:
    file = tb.tb_frame.f_code.co_filename
    return file == __file__ or file.startswith("<frozen importlib") or file == importlib.__file__


def _theirs_alone(stack: traceback.StackSummary) -> traceback.StackSummary:
    """Return the lines up to the one that called us, or asyncio to call us."""
    called = next((at for at, line in enumerate(stack) if line.filename.startswith(_PACKAGE)), len(stack))
    while called > 0 and stack[called - 1].filename.startswith(_ASYNCIO):
        called -= 1
    return traceback.StackSummary.from_list(stack[:called])


def _to_import(error: Exception, named: Named) -> str:
    """Return how to see the error again: by Python alone, or with the file's full name if that was the matter."""
    if named.file is not None:
        root, module = root_of(named.file.resolve())
        return to_import(module, root, named.file)
    file = Path(*named.module.split(".")).with_suffix(".py")
    if isinstance(error, ImportError) and "relative import" in str(error) and file.is_file():
        return typed(str(file) + (f":{named.attribute}" if named.attribute else ""))
    return to_import(named.module, None, None)
