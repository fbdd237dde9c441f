"""The stores of the chaos tests, on servers that the whole run shares."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.arena import POSTGRES, REDIS, Arena, arena
from tests.chaos.ground import Ground, ground

SERVERS = [*POSTGRES, *REDIS]


@pytest.fixture(scope="session", params=["sqlite", *SERVERS])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of store in turn; its server runs."""
    kind: str = request.param
    if kind != "sqlite":
        request.getfixturevalue(f"{kind}_server")
    return kind


@pytest.fixture
def store_url(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store of the test's own."""
    if store_kind == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    url: str = request.getfixturevalue(f"{store_kind}_url")
    return url


@pytest.fixture
async def place(store_url: str, tmp_path: Path) -> AsyncIterator[Arena]:
    """An arena on a store of each kind in turn."""
    async with arena(store_url, tmp_path) as made:
        yield made


@pytest.fixture(params=SERVERS)
async def on(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """A server of the test's own of each kind in turn, behind a proxy."""
    async with ground(request.param, tmp_path) as made:
        yield made
