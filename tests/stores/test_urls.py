"""Stores by their URL: the right engine, a driver only where it is asked for, and words for what is misspelt."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quarterjack import InvalidOption, MemoryStore, Quarterjack, Store
from quarterjack.stores import _postgres_url
from quarterjack.stores._urls import store_from, without_password
from quarterjack.stores.sqlite import SQLiteStore


def test_a_url_names_its_engine() -> None:
    """The same program moves from one store to another by a text that may stand in its environment."""
    assert isinstance(store_from("memory"), MemoryStore)
    assert isinstance(store_from("memory://"), MemoryStore)
    found = Quarterjack("sqlite:///jobs.db?synchronous=normal").store
    assert isinstance(found, SQLiteStore)
    assert found.path == Path("jobs.db")
    assert isinstance(store_from("SQLite:////var/jobs.db"), SQLiteStore)


@pytest.mark.parametrize(
    "url", ["redis://host:6379/0", "rediss://u:pw@host", "valkey://host", "valkeys://host", "unix:///run/valkey.sock"]
)
def test_redis_goes_by_many_names(url: str) -> None:
    """Valkey is one too, TLS and sockets included."""
    redis = pytest.importorskip("quarterjack.stores.redis", exc_type=ImportError)
    assert type(store_from(url)) is redis.RedisStore


@pytest.mark.parametrize("url", ["postgresql://me:pw@host/db?schema=qj", "postgres://host/db"])
def test_postgres_goes_by_both_its_names(url: str) -> None:
    """Providers hand out either."""
    postgres = pytest.importorskip("quarterjack.stores.postgres", exc_type=ImportError)
    assert type(store_from(url)) is postgres.PostgresStore


def test_a_store_is_taken_as_it_is() -> None:
    """Settings that no URL has are given to the class."""
    store = MemoryStore(keep_finished=3)
    assert store_from(store) is store


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("sqlit:///jobs.db", r"did you mean 'sqlite://'\?"),
        ("sqlite3:///jobs.db", r"did you mean 'sqlite://'\?"),
        ("sqlite+aiosqlite:///jobs.db", r"did you mean 'sqlite://'\?"),
        ("postgresql+asyncpg://host/db", r"did you mean 'postgresql://'\?"),
        ("postgre://host/db", r"did you mean 'postgres(ql)?://'\?"),
        ("reddis://host", r"did you mean 'redis://'\?"),
        ("jobs.db", r"did you mean 'sqlite:///jobs\.db'\?"),
        ("/var/lib/jobs.sqlite3", r"did you mean 'sqlite:////var/lib/jobs\.sqlite3'\?"),
        ("sqlite:jobs.db", "write it as 'sqlite:///jobs.db'"),
        ("sqlite", "write it as 'sqlite:///jobs.db'"),
        ("Memory", r"did you mean 'memory'\?"),
        ("amqp://host", "it takes \"memory\", 'sqlite:///jobs.db', .*or a Store"),
        ("", 'it takes "memory"'),
    ],
)
def test_a_misspelt_url_is_told_what_is_meant(given: str, hint: str) -> None:
    """A setting of a deployment is corrected by its message, without the manual."""
    with pytest.raises(InvalidOption, match=rf"^store={re.escape(repr(given))} names no store; .*{hint}"):
        Quarterjack(given)


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("redis://:secret@host/0?prefx=shop", "prefix"),
        ("postgresql://me:secret@host/db?shema=shop", "schema"),
        ("postgresql://me:secret@host/db?migrat=off", "migrate"),
        ("postgresql://me:secret@host/db?pgbouncr=on", "pgbouncer"),
        ("sqlite:///jobs.db?synchronus=off", "synchronous"),
    ],
)
def test_a_misspelt_option_of_a_url_is_told_what_is_meant(url: str, meant: str) -> None:
    """The driver would take it for one of its own, or of the server's, and refuse it in words of theirs."""
    with pytest.raises(InvalidOption, match=rf"did you mean '{meant}'\?") as refused:
        store_from(url)
    assert "secret" not in str(refused.value)


def test_an_option_of_the_driver_is_let_through() -> None:
    """It is near to one of ours, and none."""
    store_from("postgresql://me@host/db?connect_timeout=3&sslmode=disable")
    store_from("redis://host/0?socket_read_size=1000")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (MemoryStore, r"store must be an object: write MemoryStore\(…\)"),
        (Path("jobs.db"), r"write 'sqlite:///jobs\.db'"),
        (Path("/var/jobs.db"), r"write 'sqlite:////var/jobs\.db'"),
        (None, 'store must be a URL such as "sqlite:///jobs.db", or a Store, got None'),
        (3, "got 3"),
    ],
    ids=["class", "path", "absolute path", "none", "number"],
)
def test_what_is_no_url_is_refused(given: Any, words: str) -> None:
    """A path or a class comes near enough to be told what to write."""
    with pytest.raises(InvalidOption, match=words):
        Quarterjack(given)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rediss://me:se:c/ret@host/0", "rediss://me:***@host/0"),
        ("redis://:secret@host?prefix=qj", "redis://:***@host?prefix=qj"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("sqlite:///jobs.db", "sqlite:///jobs.db"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    """Messages end in logs."""
    assert without_password(url) == shown


def test_a_misspelt_url_shows_no_password() -> None:
    """Even the message about a wrong scheme ends in a log."""
    with pytest.raises(InvalidOption, match="names no store") as caught:
        Quarterjack("rdis://me:secret@host/0")
    assert "secret" not in str(caught.value)


def test_a_driver_is_imported_only_for_its_url() -> None:
    """A program on the memory store needs no driver, and pays for none."""
    program = (
        "import sys; from quarterjack import Quarterjack; Quarterjack()\n"
        "assert not {'redis', 'asyncpg', 'sqlite3'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [
        ("redis://host", "redis", "redis"),
        ("postgresql://host/db", "asyncpg", "postgres"),
    ],
)
def test_a_missing_driver_names_the_line_that_installs_it(url: str, driver: str, extra: str) -> None:
    """Whoever changes the URL first learns what else it takes."""
    program = (
        f"import sys; sys.modules[{driver!r}] = None\n"
        "from quarterjack import MissingExtra, Quarterjack\n"
        f"try: Quarterjack({url!r})\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=30, capture_output=True, text=True)
    assert f"pip install 'quarterjack[{extra}]'" in done.stdout


def test_every_engine_is_a_store() -> None:
    """What a URL returns is what an app takes."""
    assert issubclass(SQLiteStore, Store)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://host/db",
        "postgresql://host/db?schema=",
        "postgresql://host/db?schema=pg_mine",
        'postgresql://host/db?schema=a"b',
        "postgresql://host/db?pool=1",
        "postgresql://host/db?timeout=soon",
        "postgresql://host/db?pgbouncer=perhaps",
    ],
)
def test_postgres_urls_that_make_no_sense_are_refused(url: str) -> None:
    """A typo must not become a default."""
    with pytest.raises(InvalidOption):
        _postgres_url.parse(url)


def test_postgres_url_keeps_the_drivers_options_and_shows_no_password() -> None:
    """What is not ours is the driver's; what is secret stays so."""
    settings = _postgres_url.parse(
        "postgresql://me:se%40cret@host:5433/db?sslmode=require&schema=jobs&password=x&poll=yes"
    )
    assert settings.dsn == "postgresql://me:se%40cret@host:5433/db?sslmode=require&password=x"
    assert settings.shown == "postgresql://me:***@host:5433/db?sslmode=require&schema=jobs&password=***&poll=yes"
    assert (settings.schema, settings.listens) == ("jobs", False)
