"""What the tests of several modules about stores are given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.stores.sqlite_kit import Computer


@pytest.fixture
async def computer(tmp_path: Path) -> AsyncIterator[Computer]:
    async with AsyncExitStack() as stack:
        yield Computer(tmp_path / "jobs.db", stack)
