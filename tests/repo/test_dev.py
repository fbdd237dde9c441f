"""dev.py: from a fresh checkout to a command that runs, and what it says when it cannot.

A `uv` of our own stands first on PATH and installs a `pytest` that tells its
arguments, so that all but one of these tests need neither index nor minutes."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from tests.repo.checkout import ROOT, tracked_files

DEV: Final = ROOT / "dev.py"
ANYWHERE: Final = Path(ROOT.anchor)
ENOUGH: Final = ["pytest>=8.4", "pytest-asyncio>=1.1", "pytest-timeout>=2.3", "hypothesis>=6.112"]
"""What a test of this suite cannot do without."""

FAKE_UV: Final = """\
import pathlib, sys
here = pathlib.Path({folder!r})
with (here / "calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
if (here / "broken").exists():
    sys.exit("no index")
python = pathlib.Path(sys.argv[sys.argv.index("--python") + 1])
(packages,) = python.parent.parent.glob("lib/python*/site-packages")
(packages / "pytest.py").write_text("import json, os, sys; print(json.dumps([os.getcwd(), sys.prefix, *sys.argv[1:]]))")
"""


class Checkout:
    """A checkout of dev.py and pyproject.toml alone, and a machine with an installer of our own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout with spaces"
        self.tools = folder / "tools"
        self.root.mkdir()
        self.tools.mkdir()
        for name in ("dev.py", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root)
        program = self.tools / "uv.py"
        program.write_text(FAKE_UV.format(folder=str(self.tools)))
        uv = self.tools / "uv"  # by way of sh: a first line of #! takes no path with spaces
        uv.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}" "$@"\n')
        uv.chmod(0o755)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def dev(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run dev.py from some other folder; pip can reach nothing."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "QJ_", "PYTHON"))}
        closed = {
            "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": os.devnull,
        }
        return subprocess.run(
            [sys.executable, self.root / "dev.py", *words],
            cwd=ANYWHERE,
            env={**kept, **closed, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def installs(self) -> list[str]:
        """Return what the installer was asked for, call by call."""
        calls = self.tools / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def break_installer(self, *, is_broken: bool) -> None:
        """Make installs fail, or succeed again."""
        broken = self.tools / "broken"
        broken.touch() if is_broken else broken.unlink()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout that was never used."""
    return Checkout(tmp_path)


@pytest.fixture
def dev(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """dev.py as a module, its environment a folder that does not exist."""
    monkeypatch.setenv("QJ_VENV", str(tmp_path / "environment"))
    spec = importlib.util.spec_from_file_location("dev_under_test", DEV)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_arguments_reach_pytest_from_any_folder(checkout: Checkout) -> None:
    """`python3 dev.py test -k cron` runs those tests, wherever one stands and whatever the path is called."""
    done = checkout.dev("test", "-k", "cron or every", "--require-servers")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        str(checkout.root),
        str(checkout.venv),
        "-k",
        "cron or every",
        "--require-servers",
    ]


def test_install_names_the_checkout_and_the_whole_group(checkout: Checkout) -> None:
    """What pyproject.toml asks for is what gets installed, included groups unfolded."""
    checkout.dev("test")
    (call,) = checkout.installs()
    assert f"-e {checkout.root} " in call
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    plain = [item for group in groups.values() for item in group if isinstance(item, str)]
    assert plain
    assert all(requirement in call for requirement in plain)


def test_second_start_installs_nothing(checkout: Checkout) -> None:
    """The second start costs nothing, and works without a network."""
    checkout.dev("test")
    checkout.break_installer(is_broken=True)
    assert checkout.dev("test").returncode == 0
    assert len(checkout.installs()) == 1


def test_interrupted_install_is_repaired(checkout: Checkout) -> None:
    """Half an environment is worse than none, so it is made anew."""
    checkout.break_installer(is_broken=True)
    failed = checkout.dev("test")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("dev.py: the install failed")
    (checkout.venv / "left over").touch()
    checkout.break_installer(is_broken=False)
    assert checkout.dev("test").returncode == 0
    assert not (checkout.venv / "left over").exists()


def test_changed_requirements_are_installed_in_place(checkout: Checkout) -> None:
    """A new dependency is one install away, not a new environment."""
    checkout.dev("test")
    (checkout.venv / "kept").touch()
    pyproject = checkout.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"hypothesis>=', '"one-more", "hypothesis>='))
    assert checkout.dev("test").returncode == 0
    assert "one-more" in checkout.installs()[-1]
    assert (checkout.venv / "kept").exists()


def test_settings_of_tools_are_no_requirements(checkout: Checkout) -> None:
    """Editing ruff's settings must not need a network."""
    checkout.dev("test")
    pyproject = checkout.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("line-length = 120", "line-length = 119"))
    assert checkout.dev("test").returncode == 0
    assert len(checkout.installs()) == 1


def test_moved_checkout_is_installed_anew(checkout: Checkout, tmp_path: Path) -> None:
    """Scripts and editable installs hold paths, which a move makes wrong."""
    checkout.dev("test")
    checkout.root = checkout.root.rename(tmp_path / "elsewhere")
    done = checkout.dev("test")
    assert json.loads(done.stdout)[:2] == [str(checkout.root), str(checkout.venv)]
    assert len(checkout.installs()) == 2


def test_environment_may_stand_elsewhere(checkout: Checkout, tmp_path: Path) -> None:
    """One checkout, several Pythons: each has its environment."""
    done = checkout.dev("test", QJ_VENV=str(tmp_path / "second"))
    assert json.loads(done.stdout)[1] == str(tmp_path / "second")
    assert not checkout.venv.exists()


def test_smaller_group_may_be_enough(checkout: Checkout) -> None:
    """A Python that only runs tests needs no type checkers."""
    checkout.dev("test", QJ_GROUP="test")
    assert "pytest-asyncio" in checkout.installs()[0]
    assert "pyright" not in checkout.installs()[0]
    checkout.dev("test")
    assert "pyright" in checkout.installs()[1]


@pytest.mark.parametrize("file", ["thesis.txt", "pyvenv.cfg"])
def test_folder_that_dev_py_did_not_make_is_left_alone(file: str, checkout: Checkout, tmp_path: Path) -> None:
    """A slip in QJ_VENV must not cost anybody's files, nor the environment that somebody made to work in."""
    (tmp_path / file).touch()
    done = checkout.dev("test", QJ_VENV=str(tmp_path))
    assert done.returncode == 1
    assert "was not made by dev.py" in done.stderr
    assert (tmp_path / file).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_checkout_is_told_in_one_sentence(checkout: Checkout) -> None:
    """A traceback says less than a sentence."""
    checkout.root.chmod(0o555)
    try:
        done = checkout.dev("test")
    finally:
        checkout.root.chmod(0o755)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("dev.py: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_usage_names_every_command(checkout: Checkout, words: list[str]) -> None:
    """Without a command there is nothing to do but explain, and nothing to install."""
    done = checkout.dev(*words)
    assert done.returncode == (0 if words else 2)
    assert all(
        f"dev.py {command}" in done.stdout for command in ("demo", "test", "check", "bench", "chaos", "docs", "fmt")
    )
    assert checkout.installs() == []


def test_unknown_command_is_an_error_with_the_known_ones(checkout: Checkout) -> None:
    """A slip of the finger gets the list, not an install."""
    done = checkout.dev("tset")
    assert done.returncode == 2
    assert "demo, test, check, bench, chaos, docs, fmt" in done.stderr
    assert not checkout.venv.exists()


def test_old_python_gets_one_sentence() -> None:
    """The file must still parse there, and say what is missing before it imports what is not there."""
    source = DEV.read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))
    program = f"import sys; sys.version_info = (3, 9, 18); exec(compile(open({str(DEV)!r}).read(), 'dev.py', 'exec'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "needs Python 3.11 or newer and this is 3.9" in sentence
    assert "sudo apt install python3 python3-pip" in sentence


@pytest.mark.parametrize(("version", "told"), [((), "has no pip"), ((20, 3), "has pip 20.3")])
def test_missing_or_old_pip_gets_one_sentence(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], told: str
) -> None:
    """A bare Debian has no pip: the reader wants the line to type."""
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setattr(dev, "pip_version", lambda python: version)
    with pytest.raises(SystemExit) as ended:
        list(dev.installers())
    assert told in str(ended.value)
    assert "sudo apt install python3-pip" in str(ended.value)


def test_check_runs_every_step_and_fails_if_one_does(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run tells all that is wrong, and its last lines say which steps."""
    ran: list[str] = []
    fails = "-m mypy"

    def run(command: list[object]) -> int:
        words = " ".join(map(str, command))
        ran.append(words)
        return int(fails in words)

    monkeypatch.setattr(dev, "run", run)
    monkeypatch.setattr(dev, "run_quietly", lambda command: (run(command), 0.0, f"said by {command[1:3]}\n"))
    assert dev.check(["-k", "cron"]) == 1
    assert len(ran) == len(dev.check_steps([]))
    assert ran[-1].endswith("-k cron")
    steps, summary = capsys.readouterr().out.split("==> summary")
    assert "==> mypy\nsaid by ['-m', 'mypy']\n" in steps
    assert [line.split()[-1] for line in summary.split("\n") if "FAILED" in line] == ["mypy"]
    fails = "-m pytest"
    assert dev.check([]) == 1
    fails = "nothing"
    assert dev.check([]) == 0


def test_what_is_compiled_is_kept_whatever_the_machine_prefers(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers like to forbid it, and each process that a test starts would compile the whole package first."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in dev.child_environment()


def test_check_runs_the_steps_that_were_asked_for(dev: ModuleType) -> None:
    """The quick steps are run before each commit, so they can be had alone; a slip in a name is no pass."""
    assert dev.chosen_steps(["--fast", "-x"]) == (set(dev.check_steps([])) - {"tests"}, ["-x"])
    assert dev.chosen_steps(["--only=format,lint"]) == ({"format", "lint"}, [])
    with pytest.raises(SystemExit, match="no step lnt; there are format, lint, layers"):
        dev.check(["--only=lnt"])


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(600)
def test_fresh_checkout_works_with_pip_and_then_without_a_network(tmp_path: Path) -> None:
    """The promise of the README's first screen, with nothing but this Python and its pip.

    The group is what these tests cannot do without; CI itself begins with the whole of it.
    """
    root = tmp_path / "a fresh checkout"
    for path in tracked_files(with_new=True):
        destination = root / path.relative_to(ROOT)
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, destination)
    pyproject = root / "pyproject.toml"
    groups = "[dependency-groups]\n"
    pyproject.write_text(pyproject.read_text().replace(groups, f"{groups}enough = {ENOUGH}\n"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QJ_", "PYTHON", "VIRTUAL_ENV"))}
    path_without_uv = os.pathsep.join(
        folder for folder in os.environ["PATH"].split(os.pathsep) if not (Path(folder) / "uv").exists()
    )

    def dev_test(**variables: str) -> str:
        done = subprocess.run(
            [sys.executable, root / "dev.py", "test", "--collect-only", "-q", "tests/repo/test_links.py"],
            cwd=ANYWHERE,
            env={**kept, "QJ_GROUP": "enough", "PATH": path_without_uv, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "test_checker_tells_good_links_from_broken_ones" in dev_test()
    nowhere = "http://127.0.0.1:9"
    assert "test_checker_tells_good_links_from_broken_ones" in dev_test(
        HTTPS_PROXY=nowhere, HTTP_PROXY=nowhere, PIP_NO_INDEX="1"
    )
