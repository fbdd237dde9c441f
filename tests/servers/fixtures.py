"""The fixtures of tests that need a server; `tests/conftest.py` gives them to every test.

Who uses one is marked `needs_postgres` or `needs_redis` by itself. Where there is
no server the test is skipped, told loudly at the end, or failed with `--require-servers`."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.servers import running
from tests.servers.running import POSTGRES, VALKEY, NoServer, OwnServer

__all__ = ["MARKERS", "ON_POSTGRES", "ON_REDIS", "missing", "needed_kinds", "require"]

MARKERS: Final = {POSTGRES: "needs_postgres", VALKEY: "needs_redis"}
FIXTURES: Final = {
    "postgres_server": POSTGRES,
    "own_postgres": POSTGRES,
    "redis_server": VALKEY,
    "own_redis": VALKEY,
}
MODULES: Final = {POSTGRES: "asyncpg", VALKEY: "redis"}

ON_POSTGRES: Final = pytest.param("postgres", marks=pytest.mark.needs_postgres)
ON_REDIS: Final = pytest.param("redis", marks=pytest.mark.needs_redis)
"""The kinds of store, as parameters of tests."""

SKIPPED: Final = "Skipped: no server: "


def needed_kinds(item: pytest.Item) -> set[str]:
    """Return the kinds of server that a test asks for, by fixture or marker."""
    by_fixture = {FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES}
    return by_fixture | {kind for kind, marker in MARKERS.items() if item.get_closest_marker(marker)}


def require(item: pytest.Item) -> None:
    """Skip or fail *item* if there is no server for it to use."""
    for kind in sorted(needed_kinds(item)):
        if running.environment_url(kind) is None:
            try:
                running.find(kind)
            except NoServer as error:
                refuse = pytest.fail if item.config.getoption("--require-servers") else pytest.skip
                refuse(f"no server: {kind}: {error}")


def missing(skipped: Iterable[pytest.TestReport]) -> Counter[str]:
    """Return how many tests were skipped for want of a server, by the server and the reason."""
    reasons = (report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple))
    return Counter(reason.removeprefix(SKIPPED) for reason in reasons if reason.startswith(SKIPPED))


@contextmanager
def server_url(kind: str) -> Iterator[str]:
    """Yield the URL of the run's server of a kind: the environment's, or one that all its processes share."""
    named = running.environment_url(kind)
    if named is not None:
        yield named
        return
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"{os.getpid()}-{secrets.token_hex(4)}"
    with running.shared(kind, run) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that the run shares; nothing in it is anyone's own."""
    with server_url(POSTGRES) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a Valkey or Redis server that the run shares; nothing in it is anyone's own."""
    with server_url(VALKEY) as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a schema of the test's own, which does not exist yet, and goes after the test."""
    schema = f"qj_{secrets.token_hex(6)}"
    yield with_option(postgres_server, f"schema={schema}")
    asyncio.run(drop_schema(postgres_server, schema))


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """The URL of a key prefix of the test's own; its keys go after the test."""
    prefix = f"qj_{secrets.token_hex(6)}"
    yield with_option(redis_server, f"prefix={prefix}")
    remove_keys(redis_server, prefix)


@pytest.fixture
def own_postgres() -> Iterator[Callable[..., OwnServer]]:
    """Start PostgreSQL servers of the test's own, to stop, kill and pause: ``own_postgres("-c", "fsync=on")``."""
    yield from own_servers(POSTGRES)


@pytest.fixture
def own_redis() -> Iterator[Callable[..., OwnServer]]:
    """Start Valkey servers of the test's own, to stop, kill and pause: ``own_redis("--appendonly", "yes")``."""
    yield from own_servers(VALKEY)


@pytest.fixture(scope="session", params=["sqlite", ON_POSTGRES, ON_REDIS])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of durable store in turn; its server runs."""
    kind: str = request.param
    if kind != "sqlite":
        request.getfixturevalue(f"{kind}_server")
    return kind


@pytest.fixture
def store_url(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a durable store of the test's own, of each kind in turn."""
    if store_kind == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    url: str = request.getfixturevalue(f"{store_kind}_url")
    return url


def own_servers(kind: str) -> Iterator[Callable[..., OwnServer]]:
    """Yield what starts private servers, and end them."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(running.own(kind, *options))


def with_option(url: str, option: str) -> str:
    """Return *url* with one more option."""
    return f"{url}{'&' if '?' in url else '?'}{option}"


async def drop_schema(url: str, schema: str) -> None:
    """Remove all that a test left in the server."""
    import asyncpg  # noqa: PLC0415  # tests without a server need no driver

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
    finally:
        await connection.close()


def remove_keys(url: str, prefix: str) -> None:
    """Remove all that a test left in the server."""
    import redis  # noqa: PLC0415  # likewise

    with redis.Redis.from_url(url) as client:
        for pattern in (f"{prefix}:*", f"{{{prefix}}}:*"):
            for key in client.scan_iter(pattern, count=1_000):
                client.unlink(key)
