"""Stores by their URL: the right engine, a driver only where it is asked for, and words for what is misspelt."""

from __future__ import annotations

import re
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from quarterjack import InvalidOption, MemoryStore, Quarterjack, Store
from quarterjack.cli import main
from quarterjack.stores import _postgres_url
from quarterjack.stores._urls import store_from, without_password
from quarterjack.stores.sqlite import SQLiteStore


def _needs_the_driver_of(url: str) -> None:
    if url.startswith("sqlite"):
        return
    pytest.importorskip("asyncpg" if url.startswith("postgres") else "redis", exc_type=ImportError)


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
    _needs_the_driver_of(url)
    with pytest.raises(InvalidOption, match=rf"did you mean '{meant}'\?") as refused:
        store_from(url)
    assert "secret" not in str(refused.value)


def test_an_option_of_the_driver_is_let_through() -> None:
    """It is near to one of ours, and none."""
    _needs_the_driver_of("postgres")
    _needs_the_driver_of("redis")
    store_from("postgresql://me@host/db?connect_timeout=3&sslmode=disable")
    store_from("redis://host/0?socket_read_size=1000")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://qj:ge#im@host/db",
        "postgresql://qj:ge/im@host/db",
        "postgresql://qj:ge?im@host/db",
        "postgresql://qj:ge@im@host/db",
        "postgresql://qj:ge[im@host/db",
        "postgresql://host/db?user=qj&password=ge#im",
        "postgresql://qj:ge",
        "redis://:ge#im@host/0",
        "redis://:ge/im@host/0",
        "redis://:12/im@host/0",
        "redis://:12?im@host/0",
        "redis://:ge@im@host/0",
        "valkeys://me:ge/im@host/0",
        "unix://me:ge/im@/run/valkey.sock",
    ],
)
def test_a_password_with_a_sign_of_urls_is_told_how_to_write_it(url: str) -> None:
    """Its beginning is read as a host or a port: no part of it may come into the message."""
    _needs_the_driver_of(url)
    with pytest.raises(InvalidOption, match="user and password in a URL are percent-encoded: # is %23") as refused:
        store_from(url)
    told = "".join(traceback.format_exception(refused.value, limit=0))
    assert not re.search(r"\bge\b|\bim\b|\b12\b", told)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("port", ["abc", "65536", "0", "80x", "-1"])
@pytest.mark.parametrize("url", ["postgresql://u:geheim@h:{}/d", "redis://u:geheim@h:{}/0", "valkey://u:geheim@h:{}"])
def test_a_port_that_is_no_number_is_refused(url: str, port: str) -> None:
    """A driver would tell it late, in a traceback, or take another one."""
    _needs_the_driver_of(url)
    with pytest.raises(InvalidOption, match=rf"port in .*h:{port}.* is no number from 1 to 65535") as refused:
        store_from(url.format(port))
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis://:geheim@h:7391/{}", "valkey://:geheim@h/{}", "rediss://:geheim@h/{}?prefix=a"]
)
@pytest.mark.parametrize("database", ["abc", "1abc", "jobs", "-1", "1/2"])
def test_a_database_of_redis_that_is_no_number_is_refused(url: str, database: str) -> None:
    """The driver would use number 0, and so the jobs of somebody else."""
    _needs_the_driver_of(url)
    with pytest.raises(InvalidOption, match=r"is no number; write it as redis://host:6379/0.*\?prefix=shop") as refused:
        store_from(url.format(database))
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://jobs@db-1:5432,db-2:5433/shop",
        "postgresql://me:g%23e%2Fi%40m@[::1]:5432/db",
        "postgresql:///db?host=/run/postgresql&user=me@corp&port=5433",
        "redis://me:g%23e%2Fi%40m@[::1]:6379/12?prefix=shop",
        "redis://host/",
        "unix://me:pw@/run/app%401/valkey.sock?db=1",
        "unix:///run/app@1/valkey.sock",
    ],
)
def test_a_url_that_makes_sense_is_taken(url: str) -> None:
    """Several hosts, IPv6, sockets and what is percent-encoded."""
    _needs_the_driver_of(url)
    store_from(url)


def test_a_switch_is_told_in_the_words_of_the_manual() -> None:
    """It is documented as on and off."""
    _needs_the_driver_of("postgres")
    with pytest.raises(InvalidOption, match="migrate= in the URL of the store must be on or off, got 'of'"):
        store_from("postgresql://host/db?migrate=of")


def test_an_option_that_nobody_knows_is_named() -> None:
    """Not in the driver's words."""
    _needs_the_driver_of("redis")
    with pytest.raises(InvalidOption, match=r"has an option that neither the store nor its driver knows: colour$"):
        store_from("redis://host/0?colour=red")


@pytest.mark.parametrize("words", [("check",), ("jobs",), ("db", "status")])
@pytest.mark.parametrize(
    "url", ["postgresql://u:ge#im@h/d", "postgresql://h:abc/d", "redis://h/abc", "redis://h?prefx=a"]
)
def test_a_command_tries_no_other_store_than_was_meant(words: tuple[str, ...], url: str) -> None:
    """What to try next is copied: it must not lead to another store's jobs."""
    _needs_the_driver_of(url)
    done = CliRunner().invoke(main, [*words, "--store", url])
    assert (done.exit_code, "Traceback" in done.output) == (2, False)
    assert done.output.splitlines()[-1] == "Try:   the same with the URL mended, or without --store: qj check APP"


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
        ("postgresql://host/db?password=sec#ret", "postgresql://host/db?password=***"),
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
