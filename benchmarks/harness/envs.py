"""The contenders' environments: one virtual environment each, made on demand.

Peers ask for versions that clash (APScheduler 3 and 4 share a name), so each has
a folder under ``benchmarks/.venvs`` whose requirements are pinned in ``peers.toml``.
A folder is used again as long as its requirements and the interpreter are the same.
It needs python3 with pip, or uv: ``venv`` alone fails on a bare Debian, which has
no ensurepip, so the environment is made without pip and filled from outside."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BENCHMARKS", "Environment", "EnvironmentFailed", "load_environments", "ready"]

BENCHMARKS = Path(__file__).resolve().parent.parent
INSTALL_LIMIT_S = 600


class EnvironmentFailed(Exception):
    """A contender's environment could not be made; its text ends with what the installer said."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One table of ``peers.toml``.

    Attributes:
        requirements: What is installed, pinned.
        packages: The distributions whose versions are printed with the results.
        about: How the contender is set, in words.
        source: Whether this checkout's ``src`` stands on the path.
    """

    name: str
    requirements: tuple[str, ...]
    packages: tuple[str, ...]
    about: str
    source: bool = False

    @property
    def folder(self) -> Path:
        return BENCHMARKS / ".venvs" / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def key(self) -> str:
        """What the environment was made of: it changes when the folder must be made again."""
        text = json.dumps([sorted(self.requirements), sys.version, sys.base_prefix])
        return hashlib.sha256(text.encode()).hexdigest()


def load_environments(path: Path = BENCHMARKS / "peers.toml") -> Mapping[str, Environment]:
    """Return the environments by name.

    Raises:
        KeyError: If a table lacks a field.
        tomllib.TOMLDecodeError: If the file is no TOML.
    """
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["env"]
    return {
        name: Environment(
            name=name,
            requirements=tuple(table["requirements"]),
            packages=tuple(table["packages"]),
            about=table["about"],
            source=table.get("source", False),
        )
        for name, table in tables.items()
    }


def ready(env: Environment) -> Path:
    """Return the environment's interpreter; make the folder first when it is missing or out of date.

    Raises:
        EnvironmentFailed: If the packages cannot be installed.
    """
    stamp = env.folder / "made-of"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == env.key:
        return env.python
    print(f"making the environment {env.name!r}: {', '.join(env.requirements)}", file=sys.stderr)
    shutil.rmtree(env.folder, ignore_errors=True)
    venv.EnvBuilder(with_pip=False, symlinks=True).create(env.folder)
    answer = subprocess.run(_install_command(env), capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    if answer.returncode:
        raise EnvironmentFailed(f"{env.name}: {answer.stderr.strip()[-500:]}")
    # Written last: a run that was interrupted half-way starts over.
    stamp.write_text(env.key, encoding="utf-8")
    return env.python


def _install_command(env: Environment) -> list[str]:
    """Return the command that fills the folder: uv when it is there, else a pip from outside (22.3 or newer)."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", str(env.python), *env.requirements]
    options = ["--quiet", "--disable-pip-version-check", "--no-input"]
    return [*_pip(), "--python", str(env.python), "install", *options, *env.requirements]


def _pip() -> list[str]:
    """Return how to call a pip: that of this interpreter, of the one beneath its environment, or the one on PATH."""
    beneath = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    for python in (sys.executable, str(beneath)):
        has_pip = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
        if has_pip:
            return [python, "-m", "pip"]
    if found := shutil.which("pip3") or shutil.which("pip"):
        return [found]
    raise EnvironmentFailed("neither uv nor pip was found; install one of them (Debian: apt install python3-pip)")
