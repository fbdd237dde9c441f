"""What a Celery worker knows of the app whose bodies it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from quarterjack.executors._celery_worker import _Place

APP = "from quarterjack import Quarterjack\napp = Quarterjack()\n@app.task\ndef work() -> None: ...\n"


def test_app_is_found_beside_the_module_of_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ``celery`` has the folder that it is started in on the path only while it imports its own app."""
    name = "app_beside_a_worker"
    (tmp_path / f"{name}.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    path = list(sys.path)
    place = _Place(name)
    assert [*place.bodies()._by_name] == ["work"]
    assert place.bodies() is place.bodies()
    assert sys.path == path
    del sys.modules[name]
