"""The command as a whole: help, errors, exit codes, completion, what it imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import Result

from tests.cli.kit import command, environment

QJ = Callable[..., Result]


def test_help_names_every_command_without_importing_them() -> None:
    """Help must be there at once, so it may load neither the commands nor rich."""
    program = (
        "import sys; from quarterjack.cli import main\n"
        "try: main(['--help'], prog_name='qj')\n"
        "except SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('quarterjack.cli.') or name == 'rich'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    for name in ("run", "ls", "next", "explain", "demo"):
        assert f"\n  {name} " in done.stdout
    assert done.stdout.splitlines()[-1] == "['quarterjack.cli._shell']"


def test_what_reloads_loads_nothing_that_the_app_needs() -> None:
    """It stands beside an app all day, and every start of one begins with it."""
    program = (
        "import sys, quarterjack.cli.run, quarterjack.cli._reload\n"
        "print(sorted(name.rpartition('.')[2] for name in sys.modules if name.startswith('quarterjack.cli.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    needed = [
        "_children",
        "_following",
        "_hints",
        "_importing",
        "_reload",
        "_runlog",
        "_shell",
        "_spans",
        "_target",
        "run",
    ]
    assert done.stdout.strip() == str(needed)


def test_every_command_in_the_help_exists(qj: QJ) -> None:
    """A lazily loaded command that cannot be loaded would only fail when it is needed."""
    for name in ("run", "ls", "next", "explain", "demo"):
        result = qj(name, "--help")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"Usage: qj {name}")


@pytest.mark.parametrize(
    ("words", "try_next"),
    [
        (("lss",), "qj ls"),
        (("bogus-command",), "qj --help"),
        (("ls", "--bogus"), "qj ls --help"),
        (("next", "* * * * *", "--tz", "Rome"), "qj next --help"),
        (("next", "99 * * * *"), "qj next"),
        (("next", "shop:app", "--after", "soon"), "qj next shop:app --after 2027"),
        (("next", "* * * * *", "--after", "soon"), "qj next '* * * * *' --after"),
        (("ls",), "qj ls module:app"),
        (("ls", "nowhere"), "qj ls path/to/file.py"),
        (("ls", "missing.py"), "qj ls module:app"),
        (("ls", "a b:c"), "qj ls module:app"),
        (("ls", "shop:"), "qj ls shop"),
        (("explain", "a", "b", "c"), "qj explain --help"),
        (("demo", "--for", "soon"), "qj demo --help"),
        (("demo", "--for", "0s"), "qj demo --help"),
    ],
)
def test_what_is_asked_wrongly_exits_2_and_says_what_to_try(qj: QJ, words: tuple[str, ...], try_next: str) -> None:
    """An error that leaves people standing costs them a search; its last line is a command."""
    result = qj(*words)
    assert result.exit_code == 2, result.output
    error, hint = result.stderr.splitlines()[-2:]
    assert error.startswith("Error: ")
    assert hint.startswith(f"Try:   {try_next}")
    assert result.stdout == ""


def test_without_a_command_the_help_is_shown(qj: QJ) -> None:
    """Who types qj alone wants to know what there is; scripts see that nothing was done."""
    result = qj()
    assert result.exit_code == 2
    assert "Usage: qj" in result.output


def test_version_is_one_line(qj: QJ) -> None:
    """Bug reports begin with it."""
    result = qj("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("qj ")
    assert result.stdout.count("\n") == 1


def test_completion_offers_the_commands() -> None:
    """The shell asks through the environment; it must get the names, and no import of an app."""
    env = environment(_QJ_COMPLETE="bash_complete", COMP_WORDS="qj exp", COMP_CWORD="1")
    program = "from quarterjack.cli import main; main(prog_name='qj')"
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,explain"]


def test_python_dash_m_is_the_command() -> None:
    """Where scripts are not on PATH, python -m quarterjack has to do."""
    done = subprocess.run(command("--help"), env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: qj ")
