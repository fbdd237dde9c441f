"""The wheel: what is in it, and that it works in an environment that holds nothing but what it asks for.

No index is needed: the wheel is built by the installed hatchling, and its
dependencies are copied from this environment, those that it declares and no others."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import threading
import venv
import zipfile
from collections.abc import Iterable, Iterator
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path
from signal import SIGINT
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.repo.checkout import ROOT, blocks

pytestmark = pytest.mark.slow

README: Final = ROOT / "README.md"
TICK_LIMIT_S: Final = 20.0  # the ten lines tick at the next multiple of ten seconds


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program that must succeed; return what it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def core_requirements(declared: Iterable[str]) -> Iterator[Requirement]:
    """Yield the requirements among *declared* that hold here and belong to no extra."""
    for requirement in map(Requirement, declared):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def closure(declared: Iterable[str]) -> dict[str, Distribution]:
    """Return the installed distributions that *declared* needs, and those that they need."""
    found: dict[str, Distribution] = {}
    waiting = list(core_requirements(declared))
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name not in found:
            found[name] = distribution(requirement.name)
            waiting += core_requirements(found[name].requires or ())
        assert requirement.specifier.contains(found[name].version, prereleases=True), str(requirement)
    return found


def copy_into(environment: Path, wanted: Iterable[Distribution]) -> None:
    """Copy installed distributions into another environment of the same Python."""
    target = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    for one in wanted:
        for file in one.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                destination = target / file
                destination.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(one.locate_file(file)), destination)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as an index would get it."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its dependencies, and nothing else; returns its bin folder."""
    folder = tmp_path_factory.mktemp("empty environment")
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--python", folder / "bin/python", *install, wheel)
    copy_into(folder, closure(metadata(wheel).get_all("Requires-Dist", ())).values())
    return folder / "bin"


def metadata(wheel: Path) -> Message:
    """Return what the wheel says about itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Tests and tools in site-packages would collide with other people's."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"quarterjack"}
    assert "quarterjack/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    in_source = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/quarterjack").rglob("*.py")}
    assert in_source <= set(names)


@pytest.mark.skipif(not README.exists(), reason="there is no README")
def test_wheel_shows_the_readme(wheel: Path) -> None:
    """An index shows what the metadata holds: `readme` in pyproject.toml."""
    assert metadata(wheel)["Description-Content-Type"] == "text/markdown"


DRIVERS: Final = {"asyncpg", "celery", "dask", "distributed", "hiredis", "psutil", "redis"}
"""What the parts of stores and executors may import that stand behind an extra; their own modules tell of the extra."""


def test_every_module_of_the_core_imports(environment: Path, tmp_path: Path) -> None:
    """A dependency that the tests bring along hides one that is not declared."""
    program = (
        "import pkgutil, importlib, quarterjack\n"
        "for module in pkgutil.walk_packages(quarterjack.__path__, 'quarterjack.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        try: importlib.import_module(module.name)\n"
        "        except quarterjack.MissingExtra: pass\n"
        "        except ModuleNotFoundError as error:\n"
        f"            if error.name.split('.')[0] not in {sorted(DRIVERS)}: raise\n"
        "print(quarterjack.__file__)\n"
    )
    where = run(environment / "python", "-I", "-W", "error", "-c", program, cwd=tmp_path).strip()
    assert Path(where).is_relative_to(environment.parent)


@pytest.mark.skipif(not (ROOT / "src/quarterjack/cli/__init__.py").exists(), reason="there is no command")
def test_command_is_installed(environment: Path, tmp_path: Path) -> None:
    """`qj` stands on PATH after an install, and explains itself."""
    assert "Usage: qj" in run(environment / "qj", "--help", cwd=tmp_path)


@pytest.mark.skipif(not README.exists(), reason="there is no README")
def test_ten_lines_of_the_readme_run(environment: Path, tmp_path: Path) -> None:
    """What a stranger copies first ticks, and ends cleanly on Ctrl-C."""
    block = next(block for block in blocks(README) if block.language == "python" and ".serve()" in block.text)
    (tmp_path / "ten_lines.py").write_text(block.text, encoding="utf-8")
    program = subprocess.Popen(
        [environment / "python", "-I", "-u", tmp_path / "ten_lines.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    limit = threading.Timer(TICK_LIMIT_S, program.kill)
    limit.start()
    try:
        assert program.stdout is not None
        first = program.stdout.readline()
        assert first.strip() == "tick", first + program.stdout.read()
        program.send_signal(SIGINT)
        rest, _ = program.communicate(timeout=TICK_LIMIT_S)
    finally:
        limit.cancel()
        limit.join()
        program.kill()
        program.communicate()
    assert program.returncode == 0, rest
    assert "Traceback" not in rest
