"""The stores of the chaos tests, on servers that the whole run shares."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.arena import Arena, arena
from tests.chaos.ground import Ground, ground
from tests.servers.fixtures import ON_POSTGRES, ON_REDIS


@pytest.fixture
async def place(store_url: str, tmp_path: Path) -> AsyncIterator[Arena]:
    """An arena on a store of each kind in turn."""
    async with arena(store_url, tmp_path) as made:
        yield made


@pytest.fixture(params=[ON_POSTGRES, ON_REDIS])
async def on(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """A server of the test's own of each kind in turn, behind a proxy."""
    async with ground(request.param, tmp_path) as made:
        yield made
