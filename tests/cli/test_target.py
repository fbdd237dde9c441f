"""Which app is meant, and whose error it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.kit import APP

QJ = Callable[..., Result]


def ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.split("\t")[0] for line in result.stdout.splitlines()]


SCHEDULES = ["noon", "pulse", "reports.nightly"]


@pytest.mark.parametrize("target", ["shop:app", "shop", "shop.py", "shop.py:app", "./shop.py:app"])
def test_an_app_goes_by_module_or_by_file(qj: QJ, shop: Path, target: str) -> None:
    """People type what they see: a module's name or a file's."""
    assert ids(qj("ls", target)) == SCHEDULES


def test_an_app_goes_by_an_absolute_path_from_anywhere(
    qj: QJ, shop: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor names the file and not a folder to start in."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert ids(qj("ls", f"{shop}:app")) == SCHEDULES


def test_a_file_in_a_package_keeps_its_relative_imports(qj: QJ, folder: Path) -> None:
    """The same file has to work when it is named by its path."""
    package = folder / "store"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "rules.py").write_text("from quarterjack import Every\nrule = Every(seconds=5)\n")
    (package / "jobs.py").write_text(
        "from quarterjack import Quarterjack\nfrom .rules import rule\napp = Quarterjack()\n"
        "@app.task(rule)\nasync def tick() -> None: ...\n"
    )
    assert ids(qj("ls", "store/jobs.py")) == ["tick"]


def test_a_file_named_like_a_module_of_python_is_still_the_file(qj: QJ, folder: Path) -> None:
    """queue.py is a likely name for a file of jobs; the standard library's must not be shown instead."""
    (folder / "queue.py").write_text(APP)
    assert ids(qj("ls", "queue.py")) == SCHEDULES


def test_pyproject_names_the_app_from_any_folder_below(qj: QJ, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a project nobody should have to name its app."""
    (shop.parent / "pyproject.toml").write_text('[tool.quarterjack]\napp = "shop:app"\n')
    below = shop.parent / "docs" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert ids(qj("ls")) == SCHEDULES


def test_pyproject_may_name_a_file_beside_it(qj: QJ, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path is read from the folder of pyproject.toml, not from where one stands."""
    (shop.parent / "pyproject.toml").write_text('[tool.quarterjack]\napp = "shop.py"\n')
    below = shop.parent / "docs"
    below.mkdir()
    monkeypatch.chdir(below)
    assert ids(qj("ls")) == SCHEDULES


@pytest.mark.parametrize("text", ["[tool.quarterjack]\napp = 3\n", "[tool.quarterjack\n"])
def test_a_broken_pyproject_is_named(qj: QJ, folder: Path, text: str) -> None:
    """The error has to say which file is wrong."""
    (folder / "pyproject.toml").write_text(text)
    result = qj("ls")
    assert result.exit_code == 2
    assert "pyproject.toml" in result.stderr


def test_several_apps_are_named_not_guessed(qj: QJ, folder: Path) -> None:
    """To run the wrong app is worse than to ask; one app under two names is one."""
    (folder / "two.py").write_text(
        "from quarterjack import Quarterjack\nfirst = Quarterjack()\nsecond = Quarterjack()\nalias = first\n"
    )
    result = qj("ls", "two")
    assert result.exit_code == 2
    assert "holds 2 apps: first, second" in result.stderr
    assert result.stderr.rstrip().endswith("qj ls two:first")


def test_an_attribute_that_is_no_app_is_named(qj: QJ, shop: Path) -> None:
    """A group, or a typing mistake, is answered with the app that is there."""
    for wrong in ("reports", "nothing"):
        result = qj("ls", f"shop:{wrong}")
        assert result.exit_code == 2
        assert repr(wrong) in result.stderr
        assert result.stderr.rstrip().endswith("qj ls shop:app")


def test_an_import_error_is_shown_as_theirs(qj: QJ, folder: Path) -> None:
    """Their traceback begins in their file: no line of ours, none of importlib's."""
    (folder / "broken.py").write_text("def build():\n    raise LookupError('no settings')\n\nbuild()\n")
    result = qj("ls", "broken")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].endswith('broken.py", line 4, in <module>')
    assert "quarterjack/cli" not in result.stderr
    assert "importlib" not in result.stderr
    assert "Error: broken raised LookupError" in result.stderr


@pytest.mark.parametrize("target", ["wants", "wants.py"])
def test_a_module_missing_in_their_module_is_their_error(qj: QJ, folder: Path, target: str) -> None:
    """'no module here' would send them looking for the wrong file."""
    (folder / "wants.py").write_text("import does_not_exist_anywhere\n")
    result = qj("ls", target)
    assert result.exit_code == 1
    assert 'wants.py", line 1' in result.stderr
    assert "ModuleNotFoundError" in result.stderr


def test_a_syntax_error_shows_its_line(qj: QJ, folder: Path) -> None:
    """The commonest error of all."""
    (folder / "slip.py").write_text("app = Quarterjack(\n")
    result = qj("ls", "slip.py")
    assert result.exit_code == 1
    assert "SyntaxError" in result.stderr
    assert "app = Quarterjack(" in result.stderr


def test_a_module_that_exits_is_told_how_not_to(qj: QJ, folder: Path) -> None:
    """A script without a main guard would otherwise end the command without a word."""
    (folder / "script.py").write_text("raise SystemExit(3)\n")
    result = qj("ls", "script")
    assert result.exit_code == 1
    assert "exit 3" in result.stderr
    assert "__main__" in result.stderr


def test_json_names_the_app_as_it_can_be_typed_again(qj: QJ, shop: Path) -> None:
    """A script takes the name from one answer into the next question."""
    assert json.loads(qj("ls", "shop", "--json").stdout)["app"] == "shop:app"
