"""Import each of the given files in a child process of its own, and say on stdout how it went.

A program of the documentation's tests: quarterjack is imported once, each child
starts from there, and nothing that a block registers meets another block."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO, Final

import quarterjack  # noqa: F401  # pyright: ignore[reportUnusedImport]  # before the forks, so that each child has it for nothing

TIME_LIMIT_S: Final = 60


def import_file(path: Path) -> None:
    """Import *path* as a module, so that what it defines is importable, as a user's code is."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)


def in_child(path: Path, told: IO[str]) -> int:
    """Import *path* in a child whose words go to *told*; return its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(TIME_LIMIT_S)
            os.dup2(told.fileno(), 1)
            os.dup2(told.fileno(), 2)
            import_file(path)
            status = 0
        except BaseException:  # SystemExit and the like are failures here
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(paths: list[str]) -> None:
    """Print a JSON object: what each file that failed has said."""
    failures: dict[str, str] = {}
    for path in map(Path, paths):
        with tempfile.TemporaryFile("w+", encoding="utf-8") as told:
            status = in_child(path, told)
            if status != 0:
                told.seek(0)
                failures[path.name] = f"exit status {status}\n{told.read()}"
    print(json.dumps(failures))


if __name__ == "__main__":
    main(sys.argv[1:])
