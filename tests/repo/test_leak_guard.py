"""The leak guard of the suite: what it finds, what it lets be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"


@pytest.fixture(autouse=True)
def _conftest_finds_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the copy of conftest.py import what stands beside the original."""
    monkeypatch.setenv("PYTHONPATH", str(CONFTEST.parents[1]), prepend=os.pathsep)


LEAKY = """
import asyncio, os, subprocess, sys, threading
import pytest

KEEP = []
STOP = threading.Event()

async def pump():
    await asyncio.Event().wait()

async def test_task():
    KEEP.append(asyncio.create_task(pump(), name="the-pump"))

def test_task_of_asyncio_run():
    async def main():
        KEEP.append(asyncio.create_task(pump(), name="run-pump"))
    asyncio.run(main())

@pytest.fixture
async def fixture_that_leaks():
    KEEP.append(asyncio.create_task(pump(), name="fixture-pump"))
    yield

async def test_task_of_a_fixture(fixture_that_leaks):
    pass

def test_thread():
    threading.Thread(target=STOP.wait, name="the-thread", daemon=True).start()

def test_file():
    KEEP.append(os.pipe())

def test_child():
    KEEP.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "the-child"]))

def test_zombie():
    KEEP.append(os.posix_spawn("/bin/true", ["true"], {}))
    os.waitid(os.P_PID, KEEP[-1], os.WEXITED | os.WNOWAIT)

def test_failure_is_enough():
    KEEP.append(os.pipe())
    assert not "reached"

@pytest.mark.leaks("files")
def test_leak_by_permission():
    KEEP.append(os.pipe())

@pytest.mark.leaks("files")
def test_permission_is_for_a_kind():
    threading.Thread(target=STOP.wait, name="other-thread", daemon=True).start()

@pytest.fixture(scope="module", autouse=True)
def _clean_up():
    yield
    STOP.set()
    for it in KEEP:
        if isinstance(it, tuple):
            [os.close(fd) for fd in it]
        elif isinstance(it, int):
            os.waitpid(it, 0)
        elif isinstance(it, subprocess.Popen):
            it.kill()
            it.wait()
"""

TIDY = """
import asyncio, subprocess, tempfile, threading, time
import pytest

async def nothing():
    pass

async def test_task_that_is_about_to_end():
    asyncio.create_task(nothing())

async def test_thread_pool_of_the_loop():
    await asyncio.to_thread(time.sleep, 0.01)

def test_thread_that_is_about_to_end():
    threading.Thread(target=time.sleep, args=(0.1,)).start()

def test_child_that_was_waited_for():
    subprocess.run(["true"], check=True)

def test_file_that_was_closed():
    with tempfile.TemporaryFile():
        pass

@pytest.fixture
async def server():
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    task = asyncio.create_task(server.serve_forever())
    yield server
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

async def test_fixture_that_tidies_up(server):
    pass

def test_loop_on_uvloop():
    uvloop = pytest.importorskip("uvloop")
    uvloop.run(nothing())
"""


def run_inside(pytester: pytest.Pytester, program: str) -> pytest.RunResult:
    conftest = CONFTEST.read_text(encoding="utf-8")
    patience = "GRACE_S: Final = 1.0"
    assert patience in conftest
    pytester.makeconftest(conftest.replace(patience, "GRACE_S: Final = 0.3"))
    pytester.makepyfile(program)
    pytester.makeini(
        """
        [pytest]
        asyncio_mode = auto
        asyncio_default_fixture_loop_scope = function
        filterwarnings = error
        markers =
            leaks(*kinds): leaves something behind
        """
    )
    return pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider")


def test_every_kind_of_leak_fails_its_test_by_name(pytester: pytest.Pytester) -> None:
    """A leak that only makes later tests flaky costs days; one that names itself costs minutes."""
    result = run_inside(pytester, LEAKY)
    result.assert_outcomes(passed=9, failed=1, errors=8)
    told = result.stdout.str()
    for name in (
        "leaked task 'the-pump' (pump at ",
        "leaked task 'run-pump' (pump at ",
        "leaked task 'fixture-pump' (pump at ",
        "leaked thread 'the-thread'",
        "(pipe:[",
        "the-child)",
        "(zombie)",
        "leaked thread 'other-thread'",
    ):
        assert name in told
    assert "test_failure_is_enough - leaked" not in told
    assert "ERROR at teardown of test_leak_by_permission" not in told


def test_what_goes_by_itself_is_no_leak(pytester: pytest.Pytester) -> None:
    """A guard that cries wolf gets switched off."""
    run_inside(pytester, TIDY).assert_outcomes(passed=7)


def test_missing_server_skips_loudly_or_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """CI must not turn green because a server did not start."""
    monkeypatch.delenv("QJ_TEST_REDIS_URL", raising=False)
    monkeypatch.setenv("QJ_TEST_POSTGRES_URL", "postgresql://somewhere")
    absent = "\nfrom tests.servers import running\nrunning.find_valkey = lambda: None\n"
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8") + absent)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.needs_redis
        def test_with_redis(): ...

        @pytest.mark.needs_postgres
        def test_with_postgres(): ...
        """
    )
    skipped = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "ignore")
    skipped.assert_outcomes(passed=1, skipped=1)
    skipped.stdout.fnmatch_lines(["NOT TESTED: 1 tests, no valkey: neither QJ_TEST_REDIS_URL nor *"])
    pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "ignore", "--require-servers").assert_outcomes(
        passed=1, errors=1
    )
