"""What a Celery worker knows of the app whose bodies it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery import Celery

from quarterjack import InvalidOption, Quarterjack
from quarterjack.executors._celery_worker import _Place
from quarterjack.executors.celery import serve_bodies

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


def test_workers_run_the_bodies_of_one_app() -> None:
    """Celery kept the first task of that name in silence, and all jobs of the other app went round as unknown."""
    one, other, app = Celery("one"), Celery("other"), Quarterjack()
    serve_bodies(one, "shop:app")
    serve_bodies(one, "shop:app")  # the module was loaded once more
    serve_bodies(other, app)
    for celery in (one, other):
        with pytest.raises(InvalidOption, match="make a Celery app for each"):
            serve_bodies(celery, "another:app")
