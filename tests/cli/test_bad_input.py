"""What a user meets on a bad day, from the shell: each error says the next step, and nothing stored is lost."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result

from quarterjack import Quarterjack
from quarterjack.errors import StoreUnavailable
from tests.servers.running import OwnServer

Qj = Callable[..., Result]

APP = """
from quarterjack import Quarterjack

app = Quarterjack("{url}", max_argument_bytes=10_000)

@app.task
async def add(a: int, b: int) -> int:
    return a + b

@app.task
async def take(text: str) -> int:
    return len(text)

@app.task
async def long(n: int) -> str:
    return "x" * n

@app.task
async def odd() -> object:
    return object()
"""


def write(folder: Path, url: str = "sqlite:///jobs.db") -> None:
    (folder / "shop.py").write_text(APP.format(url=url))


# -- no store, or not this one -----------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://me:secret@127.0.0.1:9/db", "is the server running, and is this its address?"),
        ("redis://me:secret@127.0.0.1:9/0", "is the server running, and is this its address?"),
        ("sqlite:///missing/jobs.db", "make it with: mkdir -p"),
        ("postgersql://me:secret@host/db", "did you mean 'postgresql://'?"),
        ("sqlite://jobs.db", "sqlite:///jobs.db"),
    ],
)
def test_store_that_is_not_there_is_told_with_the_next_step(folder: Path, qj: Qj, url: str, told: str) -> None:
    """Whoever runs and whoever submits reads the same; neither reads the password."""
    write(folder, url)
    for words in (("run", "shop.py", "--until-idle"), ("submit", "shop.py", "add", "1", "2")):
        result = qj(*words)
        assert result.exit_code == 1, result.output
        assert told in result.stderr
        assert "Try:   qj " in result.stderr
        assert "secret" not in result.stderr.partition("Error:")[2]


def test_command_to_try_again_is_the_one_that_was_typed(folder: Path, qj: Qj) -> None:
    """Once the server is up it is copied from the screen."""
    write(folder, "redis://127.0.0.1:9/0")
    hint = qj("submit", "shop.py", "take", "two words").stderr.splitlines()[-1]
    assert hint == ("Try:   qj submit shop.py take 'two words', once it is mended; qj check shop.py:app tells more")
    checked = qj("check", "shop.py")
    assert (checked.exit_code, "XX store" in checked.stdout) == (2, True)


def test_wrong_password_of_redis_says_where_it_belongs(
    folder: Path, qj: Qj, own_redis: Callable[..., OwnServer]
) -> None:
    """It belongs into the URL."""
    server = own_redis()
    _set_password(server.url)
    for given in ("", "me:wrong@"):
        result = qj("jobs", "--store", f"redis://{given}127.0.0.1:{server.port}/0")
        assert result.exit_code == 1
        assert "redis://user:password@host" in result.stderr
        assert "wrong@" not in result.stderr


def _set_password(url: str) -> None:
    import redis  # noqa: PLC0415  # not there without the driver; then there is no server either

    client = redis.Redis.from_url(url)
    client.config_set("requirepass", "right")
    client.close()


def test_wrong_password_of_postgresql_is_told(folder: Path, qj: Qj, own_postgres: Callable[..., OwnServer]) -> None:
    """With the user's name and without the password."""
    with _asking_for_passwords() as hba:
        server = own_postgres("-c", f"hba_file={hba}")
        asyncio.run(_make_user(server.url))
        right = server.url.replace("qj@", "me:right@")
        assert qj("db", "upgrade", "--store", right).exit_code == 0
        result = qj("jobs", "--store", server.url.replace("qj@", "me:wrong@"))
    assert result.exit_code == 1
    assert 'password authentication failed for user "me"' in result.stderr
    assert "wrong" not in result.stderr


@contextmanager
def _asking_for_passwords() -> Iterator[Path]:
    """A file that asks everybody but the owner for a password, and that the server's user can read."""
    folder = Path(tempfile.mkdtemp(prefix="quarterjack-hba-"))
    folder.chmod(0o755)
    file = folder / "pg_hba.conf"
    file.write_text("host all qj all trust\nlocal all all trust\nhost all all all scram-sha-256\n")
    file.chmod(0o644)
    yield file
    shutil.rmtree(folder)


async def _make_user(url: str) -> None:
    import asyncpg  # noqa: PLC0415  # as above

    connection = await asyncpg.connect(url)
    await connection.execute("CREATE ROLE me LOGIN SUPERUSER PASSWORD 'right'")
    await connection.close()


# -- schemas -----------------------------------------------------------------------------------


def test_file_of_a_newer_version_is_refused_and_left_alone(folder: Path, qj: Qj) -> None:
    """An old process must not write what it does not understand; its jobs wait for the new one."""
    write(folder)
    qj("submit", "shop.py", "add", "1", "2")
    db = sqlite3.connect("jobs.db", isolation_level=None)
    db.execute("INSERT INTO qj_schema (version, at_ns) VALUES (9999, 0)")
    for words in (("run", "shop.py", "--until-idle"), ("jobs", "shop.py"), ("submit", "shop.py", "add", "1", "2")):
        result = qj(*words)
        assert result.exit_code == 1
        assert "has schema 9999, which takes a version of quarterjack that knows 9999" in result.stderr
    assert db.execute("SELECT count(*) FROM qj_jobs").fetchone() == (1,)
    db.close()


def test_missing_schema_names_the_command_that_makes_it(folder: Path, qj: Qj, postgres_url: str) -> None:
    """Where the URL forbids to make it: the deploy does, as another user."""
    write(folder, f"{postgres_url}&migrate=off")
    result = qj("run", "shop.py", "--until-idle")
    assert result.exit_code == 1
    assert "has no tables of quarterjack yet" in result.stderr
    assert "qj db upgrade --store" in result.stderr


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 400 KiB; `mount -o remount` changes what it allows."""
    folder = tmp_path_factory.mktemp("disk")
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("a small file system is mounted on Linux alone")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


def test_full_disk_refuses_what_it_cannot_keep_and_loses_nothing_else(disk: Path, folder: Path, qj: Qj) -> None:
    """What was answered is there; with room again it runs, and nobody has to repair anything."""
    url = f"sqlite:///{disk / 'jobs.db'}"
    write(folder, url)
    stored = asyncio.run(_filled(url))
    refused = qj("submit", "shop.py", "take", "x" * 5_000)
    assert refused.exit_code == 1
    assert "the disk is full: make room; nothing was stored" in refused.stderr
    assert len(refused.stderr) < 1_000, "the text that was refused does not bury what to do"
    remount(disk, "size=8m")
    done = qj("run", "shop.py", "--until-idle")
    assert done.exit_code == 0, done.output
    ended = json.loads(qj("jobs", "shop.py", "--limit", "1000", "--json").stdout)["jobs"]
    assert {(job["id"], job["state"]) for job in ended} == {(job_id, "done") for job_id in stored}


async def _filled(url: str) -> list[str]:
    """Submit until the store refuses; return the ids of what it took."""
    app = Quarterjack(url)

    @app.task
    async def take(text: str) -> int:
        return len(text)

    stored: list[str] = []

    async def fill() -> None:
        while len(stored) < 1_000:
            stored.append((await app.submit(take, "x" * 5_000)).id)

    async with app.as_client():
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await fill()
    return stored


def test_file_that_may_only_be_read_is_told(disk: Path, folder: Path, qj: Qj) -> None:
    """A mount that went read-only is met after a fault of the disk; the jobs are there afterwards."""
    write(folder, f"sqlite:///{disk / 'jobs.db'}")
    assert qj("submit", "shop.py", "add", "1", "2").exit_code == 0
    remount(disk, "ro")
    for words in (("run", "shop.py", "--until-idle"), ("submit", "shop.py", "add", "1", "2")):
        result = qj(*words)
        assert result.exit_code == 1
        assert "see that the file may be read and written by this user" in result.stderr
    remount(disk, "rw")
    assert len(qj("jobs", "shop.py").stdout.splitlines()) == 1


# -- arguments and results ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("add", "{", "2"), "argument a of add: Input should be a valid integer"),
        (("add", "[1, 2", "2"), "unable to parse string as an integer, got '[1, 2'"),
        (("add", "1"), "missing a required argument: 'b'"),
        (("add", "1", "2", "3"), "too many positional arguments"),
        (("take", "x" * 20_000), "max_argument_bytes"),
        (("nothing", "1"), "has no task 'nothing'; known are add, long, odd, take"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_stored(
    folder: Path, qj: Qj, words: tuple[str, ...], told: str
) -> None:
    """Text that is no JSON is a text; whether one fits is the task's to say."""
    write(folder)
    result = qj("submit", "shop.py", *words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr) < 1_000
    assert qj("jobs", "shop.py").stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [(("odd",), "its result is not JSON"), (("long", "300000"), "max_result_bytes is 262144")],
)
def test_result_that_cannot_be_kept_is_told_and_the_job_is_done(
    folder: Path, qj: Qj, words: tuple[str, ...], told: str
) -> None:
    """Its effects have happened: to run it again would double them. The bug: `qj show` gave its result as None."""
    write(folder)
    job_id = qj("submit", "shop.py", *words).stdout.split()[0]
    assert qj("run", "shop.py", "--until-idle").exit_code == 0
    shown = qj("show", "shop.py", job_id).stdout
    assert "state        done" in shown
    assert told in shown.partition("result       not kept: ")[2]
