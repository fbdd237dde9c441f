"""Virtual time in a fresh process: pytest's own plugins have loaded here what they have not loaded there."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "src"


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    path = folder / "program.py"
    path.write_text(textwrap.dedent(program), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=40, check=False, env=env)


def test_time_holds_still_while_the_thread_of_a_plain_dependency_works(tmp_path: Path) -> None:
    """Its library, anyio, loads its threads at their first use, which is in the middle of the first world."""
    done = run(
        """
        import asyncio, time
        from quarterjack import Depends, Quarterjack
        from quarterjack.testing import virtual_time

        def slow() -> int:
            time.sleep(0.05)
            return 1

        app = Quarterjack()

        @app.task(timeout=10)
        async def work(value: int = Depends(slow)) -> int:
            return value

        async def main() -> None:
            async with virtual_time(app) as world:
                await app.submit(work)
                await world.run_for(3600)
                print(world.outcomes("work"))

        asyncio.run(main())
        """,
        tmp_path,
    )
    assert done.stdout == "['done']\n", done.stderr


def test_turn_after_turn_at_one_instant_is_told(tmp_path: Path) -> None:
    """A Forever whose body takes no time runs for ever at one instant; without a word a test would just hang."""
    done = run(
        """
        import asyncio, logging, os, sys
        from quarterjack import Forever, Quarterjack
        from quarterjack.testing import _loop, virtual_time

        _loop._PATIENCE_S = 1.0  # five in earnest
        app = Quarterjack()

        @app.task(Forever())
        async def empty() -> None: ...

        class Told(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                print(record.getMessage(), file=sys.stderr, flush=True)
                os._exit(3)

        logging.getLogger("quarterjack").addHandler(Told(logging.WARNING))

        async def main() -> None:
            async with virtual_time(app) as world:
                await world.run_for(60)

        asyncio.run(main())
        """,
        tmp_path,
    )
    assert done.returncode == 3
    assert "stood still" in done.stderr
    assert "something is always ready" in done.stderr
