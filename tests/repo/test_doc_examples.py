"""The Python blocks of README and docs are programs: they pass both type checkers, and they import.

Each block is a file of its own. An HTML comment on the line before it says more:

- ``<!-- run -->``: it is run as a script and ends by itself;
- ``<!-- run for 3s -->``: it runs for that long after its first line, is interrupted and ends cleanly;
- ``<!-- no-import: why -->``: it is type-checked alone;
- ``<!-- no-check: why -->``: it is left alone. A reason is not optional."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from tests.repo.checkout import ROOT, Block, blocks, pages

RUN: Final = re.compile(r"^run(?: for (?P<seconds>\d+(?:\.\d+)?)s)?$")
NO_IMPORT: Final = re.compile(r"^no-import:\s*\S+")
NO_CHECK: Final = re.compile(r"^no-check:\s*\S+")
SCRIPT_LIMIT_S: Final = 30.0  # how long a script may take, or take to end
LOOK_S: Final = 0.02


def python_blocks(paths: Iterable[Path]) -> list[Block]:
    """Return the Python blocks of *paths* that are to be checked."""
    found = [block for page in paths for block in blocks(page) if block.language in {"python", "py"}]
    return [block for block in found if not NO_CHECK.match(block.note)]


BLOCKS: Final = python_blocks(pages())
IMPORTED: Final = [block for block in BLOCKS if not NO_IMPORT.match(block.note)]
SCRIPTS: Final = [block for block in BLOCKS if RUN.match(block.note)]


def write(found: Iterable[Block], folder: Path) -> list[Path]:
    """Write each block to a file named after its place."""
    paths: list[Path] = []
    for block in found:
        paths.append(folder / f"{block.name}.py")
        paths[-1].write_text(block.text, encoding="utf-8")
    return paths


def with_source() -> dict[str, str]:
    """Return an environment in which quarterjack is found, installed or not."""
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "MYPYPATH": str(ROOT / "src"), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}


def mypy_complaints(folder: Path) -> dict[str, list[str]]:
    """Return what mypy says about each file of *folder*, in one run."""
    config = folder / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\ndisable_error_code = empty-body\n", encoding="utf-8")
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            config,
            "--cache-dir",
            ROOT / ".mypy_cache",
            *folder.glob("*.py"),
        ],
        env=with_source(),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode in {0, 1}, answer.stdout + answer.stderr
    complaints: dict[str, list[str]] = {}
    for line in answer.stdout.splitlines():
        name, _, rest = line.partition(":")
        if ": error:" in line:
            complaints.setdefault(Path(name).name, []).append(f"mypy, line {rest.strip()}")
    return complaints


def pyright_complaints(folder: Path) -> dict[str, list[str]]:
    """Return what pyright says about each file of *folder*, in one run."""
    settings = {"typeCheckingMode": "standard", "extraPaths": [str(ROOT / "src")], "reportReturnType": "error"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", folder],
        env=with_source(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode in {0, 1}, answer.stdout + answer.stderr
    complaints: dict[str, list[str]] = {}
    for said in json.loads(answer.stdout)["generalDiagnostics"]:
        if said["severity"] == "error" and not is_empty_body(said):
            line = said["range"]["start"]["line"] + 1
            complaints.setdefault(Path(said["file"]).name, []).append(f"pyright, line {line}: {said['message']}")
    return complaints


def is_empty_body(said: dict[str, str]) -> bool:
    """Say whether pyright misses a body where `...` stands for one: its name for mypy's empty-body."""
    return said.get("rule") == "reportReturnType" and "must return value on all code paths" in said["message"]


@pytest.fixture(scope="session")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What both checkers say about the blocks, by file name."""
    folder = tmp_path_factory.mktemp("typed")
    write(BLOCKS, folder)
    by_mypy, by_pyright = mypy_complaints(folder), pyright_complaints(folder)
    return {name: by_mypy.get(name, []) + by_pyright.get(name, []) for name in by_mypy.keys() | by_pyright.keys()}


@pytest.fixture(scope="session")
def import_failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the blocks that cannot be imported have said, by file name."""
    paths = write(IMPORTED, tmp_path_factory.mktemp("imported"))
    return failures_of_import(paths)


def failures_of_import(paths: list[Path]) -> dict[str, str]:
    """Import each file in a process of its own; return what those that failed have said."""
    answer = subprocess.run(
        [sys.executable, Path(__file__).with_name("run_blocks.py"), *paths],
        env=with_source(),
        capture_output=True,
        text=True,
        check=True,
    )
    failures: dict[str, str] = json.loads(answer.stdout)
    return failures


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_block_passes_both_type_checkers(block: Block, complaints: dict[str, list[str]]) -> None:
    """Users copy examples into projects with strict checkers."""
    assert not complaints.get(f"{block.name}.py"), f"{block.place}\n" + "\n".join(complaints[f"{block.name}.py"])


@pytest.mark.parametrize("block", IMPORTED, ids=lambda block: block.place)
def test_block_imports(block: Block, import_failures: dict[str, str]) -> None:
    """An example that names what is no longer there is worse than none."""
    said = import_failures.get(f"{block.name}.py")
    assert said is None, f"{block.place}\n{said}"


@pytest.mark.slow
@pytest.mark.parametrize("block", SCRIPTS, ids=lambda block: block.place)
def test_script_runs_and_ends(block: Block, tmp_path: Path) -> None:
    """An example that says it runs has been run."""
    problem = problem_of_script(block, tmp_path)
    assert problem is None, f"{block.place}: {problem}"


def problem_of_script(block: Block, folder: Path) -> str | None:
    """Run a block as its note says; return what was wrong, or None."""
    note = RUN.match(block.note)
    assert note is not None
    (path,) = write([block], folder)
    told = path.with_suffix(".told")
    with told.open("wb") as output:
        script = subprocess.Popen(
            [sys.executable, path],
            env={**with_source(), "PYTHONUNBUFFERED": "1"},
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        problem = problem_of_run(script, told, float(note["seconds"]) if note["seconds"] else None)
    finally:
        script.kill()
        script.wait()
    return None if problem is None else f"{problem}:\n{told.read_text(encoding='utf-8')}"


def problem_of_run(script: subprocess.Popen[bytes], told: Path, run_for_s: float | None) -> str | None:
    """Wait for a script, interrupting it when its time since the first line is over; return what was wrong."""
    if run_for_s is not None:
        until_it_speaks(script, told)
        try:
            script.wait(run_for_s)
        except subprocess.TimeoutExpired:
            script.send_signal(signal.SIGINT)
        else:
            return f"ended before its {run_for_s:g} s were over"
    try:
        status = script.wait(SCRIPT_LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"did not end within {SCRIPT_LIMIT_S:g} s"
    return None if status == 0 and b"Traceback" not in told.read_bytes() else f"exit status {status}"


def until_it_speaks(script: subprocess.Popen[bytes], told: Path) -> None:
    """Wait for the first line, or the end: on a busy machine the imports alone may take seconds."""
    for _ in range(round(SCRIPT_LIMIT_S / LOOK_S)):
        if told.stat().st_size or script.poll() is not None:
            break
        time.sleep(LOOK_S)


# ---------------------------------------------------------------- the tests' own instruments

SAMPLE = """
Text

```python
import asyncio
x: int = 1
```

```python
import quarterjack_of_elsewhere
```

<!-- no-check: a sketch -->

```python
this is no Python
```

<!-- no-check: -->
```python
y: int = "text"
def body() -> int: ...
```

<!-- run -->
```python
print("ran")
```

<!-- run -->
```python
raise SystemExit(3)
```

<!-- run for 0.5s -->
```python
import time

if __name__ == "__main__":
    try:
        print("hello")
        time.sleep(60)
    except KeyboardInterrupt:
        print("bye")
```

<!-- run for 5s -->
```python
print("too early")
```
"""


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Block]:
    """The blocks of a page that has one of each."""
    monkeypatch.setattr("tests.repo.checkout.ROOT", tmp_path)
    page = tmp_path / "sample.md"
    page.write_text(textwrap.dedent(SAMPLE))
    return python_blocks([page])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_checkers_find_what_is_wrong(sample: list[Block], tmp_path: Path) -> None:
    """Two checkers that find nothing would pass every page."""
    folder = tmp_path / "blocks"
    folder.mkdir()
    write(sample, folder)
    for complaints_of in (mypy_complaints, pyright_complaints):
        found = complaints_of(folder)
        assert sorted(found) == ["sample_line_10.py", "sample_line_21.py"]
        assert len(found["sample_line_21.py"]) == 1, "a body of `...` is no error"


def test_import_finds_what_is_missing(sample: list[Block], tmp_path: Path) -> None:
    """One block that fails to import is told, and the others are imported all the same."""
    folder = tmp_path / "blocks"
    folder.mkdir()
    failures = failures_of_import(write(sample, folder))
    assert "No module named 'quarterjack_of_elsewhere'" in failures.pop("sample_line_10.py")
    assert "SystemExit: 3" in failures.pop("sample_line_32.py")
    assert failures == {}


@pytest.mark.slow
def test_scripts_that_do_not_behave_are_told(sample: list[Block], tmp_path: Path) -> None:
    """A script must end with 0, and no sooner than it says."""
    told = [problem_of_script(block, tmp_path) for block in sample if RUN.match(block.note)]
    assert told[0] is None
    assert str(told[1]).startswith("exit status 3")
    assert told[2] is None
    assert str(told[3]).startswith("ended before its 5 s")
