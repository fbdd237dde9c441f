"""Which app is meant, and whose error it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from quarterjack import Quarterjack
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


def hint(result: Result) -> str:
    assert result.exit_code != 0, result.output
    return result.stderr.splitlines()[-1].removeprefix("Try:").strip()


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("shopp:app", "qj ls shop:app"),
        ("shopp", "qj ls shop"),
        ("shop.app", "qj ls shop:app"),
        ("shop.nothing", "qj ls shop"),
        ("store.jbs:app", "qj ls store.jobs:app"),
        ("stor.jobs", "qj ls store.jobs"),
        ("shpo.py", "qj ls shop.py"),
        ("store/jobz.py", "qj ls store/jobs.py"),
        ("shop:app:x", "qj ls shop:app"),
        (":", "qj ls module:app"),
        ("nothing_like_it", "qj ls path/to/file.py:app, or change"),
        ("nothing.like.it", "qj ls path/to/file.py:app, or change"),
    ],
)
def test_a_hint_names_only_what_is_there(qj: QJ, shop: Path, target: str, meant: str) -> None:
    """Who is sent to a file that does not exist is worse off than before."""
    package = shop.parent / "store"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jobs.py").write_text(APP)
    result = qj("ls", target)
    assert result.exit_code == 2
    assert hint(result).startswith(meant)


@pytest.mark.parametrize("words", [("run",), ("next",), ("ls",), ("explain", "shopp:app", "noon")])
def test_the_hint_repeats_the_command_that_was_typed(qj: QJ, shop: Path, words: tuple[str, ...]) -> None:
    """A hint is copied; who wanted to run an app does not want its list."""
    command, *rest = words
    assert hint(qj(command, *(rest or ["shopp:app"]))) == f"qj {command} shop:app"
    if not rest:
        assert hint(qj(command)).startswith(f"qj {command} module:app")


def test_what_is_no_app_is_named_by_its_type_alone(qj: QJ, folder: Path) -> None:
    """Settings hold secrets, and a terminal is often shared or logged."""
    (folder / "conf.py").write_text("from quarterjack import Quarterjack\napp = Quarterjack()\ncfg = {'k': 's3cret'}\n")
    result = qj("ls", "conf:cfg")
    assert "of type dict, not a Quarterjack" in result.stderr
    assert "s3cret" not in result.stderr


def test_a_factory_is_said_not_to_be_called(qj: QJ, folder: Path) -> None:
    """Other servers call one, so people try; what to write instead is one line."""
    (folder / "made.py").write_text("from quarterjack import Quarterjack\ndef create_app(): return Quarterjack()\n")
    result = qj("ls", "made:create_app")
    assert "factories are not called" in result.stderr
    assert hint(result) == "add to made: app = create_app()"


def test_a_wrong_name_in_pyproject_is_said_to_stand_there(qj: QJ, shop: Path) -> None:
    """Nobody remembers having typed it."""
    (shop.parent / "pyproject.toml").write_text('[tool.quarterjack]\napp = "shpo:app"\n')
    result = qj("ls")
    assert f"{shop.parent / 'pyproject.toml'} names it" in result.stderr
    assert hint(result) == "qj ls shop:app"


def test_the_hint_for_a_module_that_raises_can_be_typed(qj: QJ, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports the module under its full name, from the folder where that works."""
    package = folder / "deep"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "bad.py").write_text("1/0\n")
    (folder / "my-jobs.py").write_text("1/0\n")
    assert hint(qj("ls", "deep/bad.py")) == "python -c 'import deep.bad'"
    assert hint(qj("ls", "my-jobs.py")) == "python my-jobs.py"
    monkeypatch.chdir(package)
    assert hint(qj("ls", "bad.py")) == "cd .. && python -c 'import deep.bad'"


def test_a_module_inside_a_package_is_to_be_named_as_a_file(
    qj: QJ, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the package's own folder its relative imports fail under the short name, and work for the file."""
    package = folder / "inner"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "rules.py").write_text("from quarterjack import Every\nrule = Every(seconds=5)\n")
    (package / "work.py").write_text(
        "from .rules import rule\nfrom quarterjack import Quarterjack\napp = Quarterjack()\n"
        "@app.task(rule)\nasync def tick() -> None: ...\n"
    )
    monkeypatch.chdir(package)
    assert hint(qj("ls", "work:app")) == "qj ls work.py:app"
    assert ids(qj("ls", "work.py:app")) == ["tick"]


def test_a_mistake_that_quarterjack_refuses_is_shown_by_their_line_alone(qj: QJ, folder: Path) -> None:
    """The sentence says what to write instead; the frames of the library would bury it."""
    (folder / "slip.py").write_text(
        "from quarterjack import Every, Quarterjack\napp = Quarterjack()\n"
        "@app.task(Every(seconds=5), timeout=-1)\nasync def tick() -> None: ...\n"
    )
    result = qj("ls", "slip.py")
    assert result.exit_code == 1
    place, *_, error, try_next = result.stderr.splitlines()
    assert place.endswith('slip.py", line 3, in <module>')
    assert error.startswith("Error: slip.py: ")
    assert "timeout must be more than 0" in error
    assert try_next == "Try:   qj ls slip.py, once that is mended"
    assert hint(qj("next", "slip.py", "tick")) == "qj next slip.py tick, once that is mended"
    assert "quarterjack/" not in result.stderr


STARTS = {
    "serve": "asyncio.run(app.serve())",
    "block": "async def main():\n    async with app:\n        await asyncio.sleep(60)\nasyncio.run(main())",
    "thread": "with app.in_thread():\n    time.sleep(60)",
}


@pytest.mark.parametrize("how", STARTS)
def test_an_import_does_not_run_the_app(qj: QJ, folder: Path, how: str) -> None:
    """A script without a guard would run under `qj ls` for ever, jobs and all; as a script it is right."""
    (folder / f"open_{how}.py").write_text(
        "import asyncio, time\nfrom quarterjack import OnStartup, Quarterjack\napp = Quarterjack()\n"
        f"@app.task(OnStartup())\nasync def up(): raise AssertionError('started')\n{STARTS[how]}\n"
    )
    result = qj("ls", f"open_{how}:app")
    assert result.exit_code == 1
    assert "started while its module is imported" in result.stderr
    assert '`if __name__ == "__main__":`' in result.stderr
    assert "quarterjack/" not in result.stderr


async def test_after_an_import_apps_start_as_ever(qj: QJ, shop: Path) -> None:
    """The refusal is the import's, and ends with it, also where it fails."""
    (shop.parent / "falls.py").write_text("1/0\n")
    qj("ls", "shop")
    qj("ls", "falls")
    async with Quarterjack() as app:
        assert app.is_running
