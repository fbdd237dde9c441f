"""The contract's body that waits for a file; here it also notes that it has ended."""

from __future__ import annotations

from pathlib import Path

from quarterjack import Quarterjack
from quarterjack.testing import _contract_bodies

app = Quarterjack()


@app.task
def hold(file: str, until: str) -> str:
    """Wait, and note that it has ended."""
    result: str = _contract_bodies.hold.__wrapped__(file, until)
    with Path(file).open("a", encoding="utf-8") as notes:
        notes.write("ended\n")
    return result
