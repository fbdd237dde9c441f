"""Apps in files, and two ways to ask about them: in this process, and as a command."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quarterjack.cli import main
from tests.cli.kit import APP, command, environment


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what is imported from it, and logging, are put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    root = logging.getLogger()
    handlers, level, own = list(root.handlers), root.level, logging.getLogger("quarterjack").level
    yield tmp_path
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("quarterjack").setLevel(own)
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and str(file).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def shop(folder: Path) -> Path:
    """A file ``shop.py`` with an app of three schedules."""
    file = folder / "shop.py"
    file.write_text(APP)
    return file


@pytest.fixture
def qj(folder: Path) -> Callable[..., Result]:
    """Run the command in this process, in the empty folder."""
    return lambda *words: CliRunner().invoke(main, list(words), prog_name="qj")


@pytest.fixture
def qj_process(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start real commands in the empty folder; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, **more: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*words),
            cwd=folder,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
