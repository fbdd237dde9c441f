"""Files of large messages: whose they are, and who removes them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from quarterjack.executors._files import ANSWER, REQUEST, Files, remove, sweep

DIES = """
import os, signal
from quarterjack.executors._files import Files, REQUEST
open(Files().of(1) + REQUEST, "w").close()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_files_of_an_app_that_was_killed_go_with_the_next_start(temporary: Path) -> None:
    """Nobody else would ever remove a payload that it left; those of apps that live stay."""
    subprocess.run([sys.executable, "-c", DIES], env={**os.environ, "TMPDIR": str(temporary)}, check=False)
    (dead,) = temporary.iterdir()
    assert len(list(dead.iterdir())) == 1
    (temporary / "quarterjack-pool-file").touch()
    alive, other = Files(), Files()
    sweep()
    assert not dead.exists()
    assert alive.folder.exists()
    assert other.folder.exists()
    for files in (alive, other):
        files.close()
    assert [path.name for path in temporary.iterdir()] == ["quarterjack-pool-file"]  # no folder of ours


def test_what_a_child_leaves_is_removed_without_its_neighbours() -> None:
    """Names begin alike: 1 and 11."""
    files = Files()
    for number in (1, 11):
        for kind in (REQUEST, ANSWER):
            Path(files.of(number) + kind).touch()
    remove(files.of(1))
    remove(files.of(2))  # it had none
    assert sorted(path.name for path in files.folder.iterdir()) == ["11.answer", "11.request"]
    files.close()


def test_a_folder_that_is_swept_before_it_is_locked_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another app begins in that very moment."""
    made: list[str] = []

    def swept(prefix: str) -> str:
        path = make(prefix=prefix)
        made.append(path)
        if len(made) == 1:
            sweep()
        return path

    make = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", swept)
    files = Files()
    assert str(files.folder) == made[1]
    files.close()
