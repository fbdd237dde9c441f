#!/usr/bin/env python3
"""Everything one does in a checkout of quarterjack, from nothing but Python 3.11 and pip.

    python3 dev.py demo [args]       a live demonstration in the terminal (`qj demo`)
    python3 dev.py test [args]       the test suite; arguments go to pytest, as in `test -k cron`
    python3 dev.py check [args]      format, lint, layers, types, docs and tests; --fast leaves the tests
                                     out, --only=format,lint runs those steps, the rest goes to pytest
    python3 dev.py bench [case ...]  the benchmarks
    python3 dev.py chaos [args]      processes and servers that are killed, stopped and cut off while they work, and
                                     an oracle: `chaos --for 10m --store postgres --seed 7`
    python3 dev.py docs [serve]      build the documentation strictly, or serve it while it is written
    python3 dev.py fmt               format the code and mend what ruff can mend

The first use makes an environment in `.venv` with uv or pip; later uses find it
complete and touch no network. What it holds follows from pyproject.toml, the
Python that runs this file and the place of the checkout: when one of them
changes, or an install was interrupted, the next use puts it right. `QJ_VENV`
names another folder for it and `QJ_GROUP` another dependency group than `dev`.
Paths among the arguments are relative to the checkout."""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "dev.py needs Python 3.11 or newer and this is {}.{}: run it with a newer one, on Debian 12 or later "
        "after `sudo apt install python3 python3-pip`.".format(*sys.version_info)
    )

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
import tomllib
import venv
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NoReturn

ROOT: Final = Path(__file__).resolve().parent
VENV: Final = Path(os.environ.get("QJ_VENV") or ROOT / ".venv").absolute()
BIN: Final = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON: Final = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP: Final = VENV / "quarterjack-dev.json"  # says whose it is, and, once it is complete, what it was made of
GROUP: Final = os.environ.get("QJ_GROUP") or "dev"
OLDEST_PIP: Final = (22, 3)  # the first with `pip --python`, which needs no pip in the environment
DOCS_CONFIGS: Final = ("zensical.toml", "mkdocs.yml")


# ---------------------------------------------------------------- the environment


def requirements(group: str, groups: dict[str, Any]) -> list[str]:
    """Return what a dependency group asks for, the groups it includes unfolded.

    Read here because `pip install --group` came only with pip 25.1.
    """
    found: list[str] = []
    for item in groups[group]:
        found += [item] if isinstance(item, str) else requirements(item["include-group"], groups)
    return found


def wanted_environment(pyproject: dict[str, Any]) -> dict[str, str]:
    """Return what tells one environment from another, as the stamp records it."""
    parts: dict[str, Any] = {part: pyproject[part] for part in ("build-system", "project")}
    parts["group"] = requirements(GROUP, pyproject["dependency-groups"])
    return {
        "python": f"{sys.implementation.cache_tag} {platform.machine()} {sys.platform}",
        "checkout": str(ROOT),  # the scripts and the editable install hold its path
        "requirements": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
    }


def found_environment() -> dict[str, Any] | None:
    """Return the stamp of a complete environment, or None."""
    try:
        stamp: dict[str, Any] = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if PYTHON.exists() else None


def ensure_environment() -> None:
    """Make the environment, or bring it up to date; cost nothing when it is."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = wanted_environment(pyproject)
    if found_environment() == wanted:
        return
    VENV.mkdir(parents=True, exist_ok=True)
    with one_at_a_time():
        found = found_environment()  # somebody else may have made it meanwhile
        if found == wanted:
            return
        if found is None or any(found.get(part) != wanted[part] for part in ("python", "checkout")):
            make_empty()
        STAMP.write_text("{}", encoding="utf-8")  # begun, and ours
        install(["-e", str(ROOT), *requirements(GROUP, pyproject["dependency-groups"])])
        STAMP.write_text(json.dumps(wanted, indent=1), encoding="utf-8")


@contextlib.contextmanager
def one_at_a_time() -> Generator[None]:
    """Keep a second dev.py waiting while this one installs, where the system can."""
    try:
        import fcntl  # noqa: PLC0415  # POSIX only
    except ImportError:
        yield
        return
    folder = os.open(VENV, os.O_RDONLY)  # a folder can be locked: no lock file to leave behind
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def make_empty() -> None:
    """Make an environment without pip: a bare Debian has no ensurepip to put one in."""
    if VENV.is_dir() and any(VENV.iterdir()) and not STAMP.exists():
        sys.exit(f"dev.py: {VENV} was not made by dev.py, so it is left alone: move or delete it, or set QJ_VENV.")
    say(f"making {VENV} with Python {platform.python_version()} (on first use; takes a minute)")
    venv.EnvBuilder(with_pip=False, clear=True, symlinks=os.name != "nt").create(VENV)


def install(arguments: Sequence[str]) -> None:
    """Install into the environment with the first installer that manages to."""
    say("installing the requirements of pyproject.toml")
    environment = {**os.environ, "PIP_USER": "0"}  # a user's `user = true` has no place in an environment
    for installer in installers():
        if subprocess.run([*installer, *arguments], env=environment, check=False).returncode == 0:
            return
    sys.exit("dev.py: the install failed, as told above; the first use needs a package index that can be reached.")


def installers() -> Iterator[list[str]]:
    """Yield the commands that install into the environment, best first."""
    uv = shutil.which("uv")
    if uv:
        yield [uv, "pip", "install", "--quiet", "--python", str(PYTHON)]
    base: str = getattr(sys, "_base_executable", None) or sys.executable  # this may run in an environment without pip
    version = pip_version(base)
    if version >= OLDEST_PIP:
        yield [base, "-m", "pip", "--python", str(PYTHON), "install", "--quiet", "--no-input"]
    elif not uv:
        have = f"pip {'.'.join(map(str, version))}" if version else "no pip"
        sys.exit(
            f"dev.py needs pip 22.3 or newer and {base} has {have}: install it, on Debian or Ubuntu "
            "with `sudo apt install python3-pip`, and run this again."
        )


def pip_version(python: str) -> tuple[int, ...]:
    """Return the version of *python*'s pip, empty if it has none."""
    answer = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, text=True, check=False)
    match = re.match(r"pip (\d+)\.(\d+)", answer.stdout)
    return tuple(map(int, match.groups())) if match else ()


def say(text: str) -> None:
    """Tell the person, apart from what programs print for programs."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the commands


def child_environment() -> dict[str, str]:
    """Return the environment variables of a program that runs in the environment."""
    variables = {**os.environ, "VIRTUAL_ENV": str(VENV), "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    variables.pop("PYTHONHOME", None)
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # tests start Python a thousand times, and would compile all anew
    variables.setdefault("PYRIGHT_PYTHON_IGNORE_WARNINGS", "1")  # else it asks an index for newer releases of itself
    return variables


def become(program: Path, *arguments: str) -> NoReturn:
    """Become *program*, in the checkout: signals and the exit code are its own."""
    os.chdir(ROOT)
    sys.stdout.flush()
    if os.name != "nt":
        os.execve(program, [str(program), *arguments], child_environment())
    sys.exit(subprocess.run([program, *arguments], env=child_environment(), check=False).returncode)


def demo(arguments: list[str]) -> NoReturn:
    """Show what the library is about."""
    become(BIN / "qj", "demo", *arguments)


def test(arguments: list[str]) -> NoReturn:
    """Run the test suite."""
    become(PYTHON, "-m", "pytest", *arguments)


def bench(arguments: list[str]) -> NoReturn:
    """Run the benchmarks."""
    become(PYTHON, "benchmarks/run.py", *arguments)


def chaos(arguments: list[str]) -> NoReturn:
    """Kill, stop and cut off real processes for a while, and say whether anything went wrong."""
    become(PYTHON, "-m", "tests.chaos", *arguments)


def docs(arguments: list[str]) -> NoReturn:
    """Build the documentation, or serve it."""
    if not has_docs():
        sys.exit(f"dev.py: there is no documentation to build: the checkout has neither {' nor '.join(DOCS_CONFIGS)}.")
    become(PYTHON, "-m", "zensical", *(arguments or ["build", "--clean", "--strict"]))


def fmt(arguments: list[str]) -> int:
    """Mend what ruff can mend, then format."""
    mended = run([PYTHON, "-m", "ruff", "check", "--fix", *(arguments or ["."])])
    return run([PYTHON, "-m", "ruff", "format", *(arguments or ["."])]) or mended


def check(arguments: list[str]) -> int:
    """Run the checks to their end, and say at the end which failed."""
    names, test_arguments = chosen_steps(arguments)
    steps = check_steps(test_arguments)
    unknown = sorted(names - steps.keys())
    if unknown:
        sys.exit(f"dev.py: check has no step {', '.join(unknown)}; there are {', '.join(steps)}.")
    ended = dict(run_steps({step: steps[step] for step in steps if step in names}))
    print("\n==> summary")
    for name, (status, seconds) in ended.items():
        print(f"{'FAILED' if status else 'ok':>6}  {seconds:6.1f} s  {name}")
    return 1 if any(status for status, _ in ended.values()) else 0


def run_steps(steps: dict[str, list[str | Path]]) -> Iterator[tuple[str, tuple[int, float]]]:
    """Run the steps and tell what they print, in their order; yield each one's exit code and seconds.

    They run beside each other, for each uses one processor, but for the tests, which use all.
    """
    beside = ThreadPoolExecutor(os.cpu_count())
    try:
        runs = {name: beside.submit(run_quietly, command) for name, command in steps.items() if name != "tests"}
        for name, run_of_it in runs.items():
            status, seconds, told = run_of_it.result()
            print(f"\n==> {name}\n{told}", end="", flush=True)
            yield name, (status, seconds)
    finally:
        beside.shutdown(cancel_futures=True)  # after Ctrl-C none begins any more
    if "tests" in steps:
        print("\n==> tests", flush=True)
        started = time.monotonic()
        yield "tests", (run(steps["tests"]), time.monotonic() - started)


def chosen_steps(arguments: list[str]) -> tuple[set[str], list[str]]:
    """Return which steps *arguments* ask for, and what is left of them for pytest."""
    names = set(check_steps([]))
    left: list[str] = []
    for argument in arguments:
        if argument == "--fast":
            names -= {"tests"}
        elif argument.startswith("--only="):
            names = set(argument.removeprefix("--only=").split(","))
        else:
            left.append(argument)
    return names, left


def check_steps(test_arguments: list[str]) -> dict[str, list[str | Path]]:
    """Return the commands of `check` by their names, the quick ones first."""
    typed = [name for name in ("src", "tests", "examples") if any((ROOT / name).rglob("*.py"))]
    steps: dict[str, list[str | Path]] = {
        "format": [PYTHON, "-m", "ruff", "format", "--check", "."],
        "lint": [PYTHON, "-m", "ruff", "check", "."],
        "layers": [BIN / "lint-imports"],
        "mypy": [PYTHON, "-m", "mypy", *typed, "dev.py"],
        "pyright": [PYTHON, "-m", "pyright", "--pythonpath", PYTHON],
    }
    if has_docs():
        steps["docs"] = [PYTHON, "-m", "zensical", "build", "--clean", "--strict"]
    steps["tests"] = [
        PYTHON,
        "-m",
        "pytest",
        *side_by_side(test_arguments),
        *test_arguments,
    ]
    return steps


def side_by_side(test_arguments: list[str]) -> list[str]:
    """Return what has pytest use the processors twice over: half of the tests' time is waiting for real processes."""
    asked = any(argument.startswith(("-n", "--numprocesses", "--dist", "--pdb")) for argument in test_arguments)
    return [] if asked else ["-n", str(min(4, 2 * (os.cpu_count() or 1))), "--dist", "worksteal"]


def has_docs() -> bool:
    """Say whether the checkout has a documentation to build."""
    return any((ROOT / name).exists() for name in DOCS_CONFIGS)


def run(command: Sequence[str | Path]) -> int:
    """Run a program of the environment in the checkout and return its exit code."""
    return subprocess.run(command, cwd=ROOT, env=child_environment(), check=False).returncode


def run_quietly(command: Sequence[str | Path]) -> tuple[int, float, str]:
    """Run a program as `run` does; return its exit code, the seconds it took and what it printed."""
    started = time.monotonic()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, time.monotonic() - started, done.stdout


COMMANDS: Final[dict[str, Callable[[list[str]], int]]] = {
    "demo": demo,
    "test": test,
    "check": check,
    "bench": bench,
    "chaos": chaos,
    "docs": docs,
    "fmt": fmt,
}


def main(words: list[str]) -> int:
    """Carry out one command; return the exit code."""
    if not words or words[0] in {"-h", "--help", "help"}:
        print(__doc__)
        return 0 if words else 2
    command = COMMANDS.get(words[0])
    if command is None:
        say(
            f"there is no command {words[0]!r}; there are {', '.join(COMMANDS)}. `python3 dev.py --help` explains them."
        )
        return 2
    try:
        ensure_environment()
    except OSError as error:
        sys.exit(
            f"dev.py: {VENV} cannot be made: {error}. Make the checkout writable, or set QJ_VENV to a folder that is."
        )
    return command(words[1:])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
