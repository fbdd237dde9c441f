"""The SQLite store keeps the contract of every store, and what it promises beyond."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings

from quarterjack.errors import InvalidOption
from quarterjack.stores._rows import Encoding
from quarterjack.stores._sqlite_url import warn_of_network
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing.store_contract import Bench, StoreContract
from quarterjack.testing.store_machine import store_machine


class TestSQLiteStore(StoreContract):
    """The contract, case by case."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "jobs.db"

    def bench(self) -> Bench:
        return Bench(SQLiteStore(self.path))


# -- where it is, and how it is opened ---------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path", "settings"),
    [
        ("sqlite:///jobs.db", "jobs.db", ("FULL", 30.0, 0.05)),
        ("sqlite:////var/lib/my%20app/jobs.db", "/var/lib/my app/jobs.db", ("FULL", 30.0, 0.05)),
        ("sqlite:///a/jobs.db?synchronous=normal&timeout=5&poll=0.2", "a/jobs.db", ("NORMAL", 5.0, 0.2)),
    ],
)
def test_url_names_the_file_and_its_options(url: str, path: str, settings: tuple[str, float, float]) -> None:
    """Three slashes are relative, four absolute, as everywhere."""
    store = SQLiteStore.from_url(url)
    assert store.path == Path(path)
    assert store._settings[2:] == settings


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "does not name a file: write three slashes"),
        ("sqlite://jobs.db", "does not name a file: write three slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "leave the store out to keep all in memory"),
        ("sqlite:///jobs.db?synchronos=off", "no option 'synchronos'; did you mean 'synchronous'"),
        ("sqlite:///jobs.db?x=1", "no option 'x'; there are synchronous, timeout, poll"),
        ("sqlite:///jobs.db?synchronous=never", "one of full, normal, off, extra, got 'never'"),
        ("sqlite:///jobs.db?timeout=soon", "number of seconds above 0, got 'soon'"),
        ("sqlite:///jobs.db?poll=0", "number of seconds above 0, got '0'"),
    ],
)
def test_url_with_a_mistake_says_what_is_right(url: str, words: str) -> None:
    """A typo in a setting must not become a default."""
    with pytest.raises(InvalidOption) as caught:
        SQLiteStore.from_url(url)
    assert words in str(caught.value)


def test_network_file_system_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """There locks do not keep two machines apart, and jobs would run twice in silence."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /srv/shared\\040files rw,relatime shared:1 - nfs4 server:/export rw\n"
    )
    warn_of_network(Path("/srv/local/jobs.db"), "sqlite:////srv/local/jobs.db", mounts)
    warn_of_network(Path("/srv/shared files/jobs.db"), "sqlite:////elsewhere", tmp_path / "none")
    assert caplog.messages == []
    warn_of_network(Path("/srv/shared files/jobs.db"), "sqlite:////srv/shared files/jobs.db", mounts)
    assert "network file system (nfs4)" in caplog.messages[0]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Return a function that opens one more store on the file, as another process would."""
    benches: list[Bench] = []

    async def open_(**options: Any) -> Bench:
        bench = Bench(SQLiteStore(tmp_path / "jobs.db", **options))
        if benches:
            bench.clock = benches[0].clock
        benches.append(bench)
        await bench.store.open(bench.clock, bench.ids, Encoding())
        return bench

    yield open_
    for bench in benches:
        await bench.store.close()


# -- the contract as a machine -----------------------------------------------------------

_folder = TemporaryDirectory(prefix="quarterjack-test-", ignore_cleanup_errors=True)
_runs = count()


@pytest.fixture(scope="module", autouse=True)
def _clean_up() -> Iterator[None]:
    yield
    _folder.cleanup()


def _machines_bench() -> Bench:
    return Bench(SQLiteStore(Path(_folder.name, f"{next(_runs)}.db"), synchronous="off"))


TestSQLiteMachine = store_machine(_machines_bench).TestCase
TestSQLiteMachine.settings = settings(max_examples=30, stateful_step_count=30)
