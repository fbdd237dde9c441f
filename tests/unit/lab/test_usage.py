"""What a process and its descendants take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quarterjack.lab.ways import _usage
from quarterjack.lab.ways._usage import Usage, usage_of

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
PROGRAM = """
import subprocess, sys, time
child = "import time; sum(range(3_000_000)); print('ready', flush=True); time.sleep(60)"
gone = "sum(range(3_000_000))"
subprocess.run([sys.executable, "-c", gone])
with subprocess.Popen([sys.executable, "-c", child]) as process:
    time.sleep(60)
"""


@LINUX
def test_children_count_those_that_live_and_those_that_have_ended() -> None:
    """A way that starts a process per tick takes what they take."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            whole = usage_of(process.pid)
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            part = usage_of(int(child))
        finally:
            for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                subprocess.run(["kill", "-9", pid], check=True)
            process.kill()
    assert whole is not None
    assert part is not None
    assert part.memory_bytes > 2**20
    assert whole.memory_bytes > part.memory_bytes + 2**20
    assert part.cpu_ns > 10_000_000
    assert whole.cpu_ns > part.cpu_ns + 20_000_000  # its own, and that of the child it has collected


def test_only_the_time_since_counts() -> None:
    """What the set-up took is no part of the measurement; memory is as it stands."""
    assert Usage(70, 5).since(Usage(50, 9)) == Usage(20, 5)
    assert Usage(40, 5).since(Usage(50, 9)) == Usage(
        0, 5
    )  # a child that ended and was not collected takes its time along


def test_a_system_that_does_not_tell_and_a_process_that_is_gone_are_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Elsewhere than on Linux the columns say so, and the measurement goes on."""
    assert usage_of(2**22 + 1) is None
    monkeypatch.setattr(_usage, "PROC", tmp_path / "none")
    assert usage_of(1) is None
