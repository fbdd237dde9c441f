"""The executor for Ray without Ray: its options, and its side of the contract over a stand-in."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from quarterjack import InvalidOption, MissingExtra, UsageError
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.executors import AppRef, Executor, Home, _ray_link, ray
from quarterjack.executors._frames import Frame
from quarterjack.executors.ray import RayExecutor
from quarterjack.model import OutcomeKind
from quarterjack.testing._executor_bench import ENOUGH_S, TestCall, Track, until
from quarterjack.testing.executor_contract import ExecutorBench, ExecutorContract

STANDIN = Path(__file__).with_name("ray_standin")


@pytest.fixture(autouse=True)
def _standin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the stand-in found in Ray's place."""
    monkeypatch.syspath_prepend(STANDIN)


@pytest.fixture
def bench(tmp_path: Path) -> ExecutorBench:
    """Return what submits the contract's bodies."""
    return ExecutorBench(lambda slots: RayExecutor(slots=slots), "plain", tmp_path)


# ---------------------------------------------------------------- options


def test_without_the_extra_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for it learns what to type."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'quarterjack\[ray\]'"):
        RayExecutor()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slots": 0}, "slots must be a whole number from 1, got 0"),
        ({"slots": True}, "slots must be a whole number from 1, got True"),
        ({"num_cpus": -1}, "num_cpus must be a number from 0, got -1"),
        ({"num_gpus": "1"}, "num_gpus must be a number from 0, got '1'"),
        ({"resources": {"fast": float("inf")}}, r"resources\['fast'\] must be a number from 0, got inf"),
        ({"address": object()}, "address must be a text such as"),
        ({"address": "127.0.0.1"}, "no Ray cluster can be at '127.0.0.1'; an address is 'auto', 'local', one such as"),
        ({"address": "10.0.0.5:x"}, "no Ray cluster can be at"),
        ({"address": "ray://"}, "no Ray cluster can be at"),
        ({"address": "http://10.0.0.5:8265"}, "no Ray cluster can be at"),
        ({"address": "tcp://10.0.0.5:6379"}, "no Ray cluster can be at"),
        ({"init": {"job_config": object()}}, "init must be JSON, for it is sent to another process"),
    ],
)
def test_wrong_options_are_refused_where_they_are_written(options: dict[str, Any], words: str) -> None:
    """Ray would tell of them later, in another process."""
    with pytest.raises(InvalidOption, match=words):
        RayExecutor(**options)


def test_address_of_rays_client_is_refused_where_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: its jobs waited, and the log said it again and again."""
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(UsageError, match=r"'ray://10.0.0.5:10001' needs Ray's client: pip install 'ray\[client\]'"):
        RayExecutor("ray://10.0.0.5:10001")
    RayExecutor("10.0.0.5:6379")


# ---------------------------------------------------------------- the contract


class Connected(RayExecutor):
    """Begins with a connection, so that a case meets more than the wait for it."""

    async def start(self, home: Home) -> None:
        await super().start(home)
        await self.warm()
        await until(self.is_connected)

    def is_connected(self) -> bool:
        return self._link is not None and self._link.is_ready


@pytest.mark.slow
class TestContract(ExecutorContract):
    """What is ours of it."""

    bursts = 10

    def make(self, slots: int) -> Executor:
        return Connected(slots=slots)


@asynccontextmanager
async def started(bench: ExecutorBench, address: str | None = None, script: str = "") -> AsyncIterator[RayExecutor]:
    """Start an executor, and wait for nothing; with a script its bodies are that one's."""
    executor, home = RayExecutor(address), bench.home()
    if script:
        file = bench.folder / "script.py"
        file.write_text(script, encoding="utf-8")
        home = Home(SYSTEM_CLOCK, lambda: AppRef(None, str(file), "app"))
    await executor.start(home)
    try:
        yield executor
    finally:
        await executor.stop(ENOUGH_S)


async def test_call_that_ray_never_heard_of_is_missed_at_its_deadline(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: while the cluster was away nothing happened at that moment: the job held its slot for the outage."""
    monkeypatch.setattr(RayExecutor, "_connect", lambda self: None)
    async with started(bench) as executor:
        call = TestCall("double", (1,), {}, track := Track())
        call.deadline_ns = SYSTEM_CLOCK.now_ns()
        executor.submit(call, track)
        assert (await track.end()).kind is OutcomeKind.MISSED
        assert (executor.free, len(executor._waiting)) == (executor.slots, 0)
        track.check()


# ---------------------------------------------------------------- the process that speaks to Ray


@pytest.mark.slow
async def test_what_a_dead_process_had_is_lost_and_the_next_one_takes_what_comes(bench: ExecutorBench) -> None:
    """Ray ends that process when its cluster is gone; the app goes on."""
    async with started(bench) as executor:
        _, first = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
        await first.heard("began")
        assert executor._link is not None
        assert executor._link._process is not None
        executor._link._process.kill()
        assert (await first.end()).kind is OutcomeKind.LOST
        bench.let_go("go")  # Ray ends what it had begun; the stand-in does not
        assert (await bench.run(executor, "double", 4)).result == 8


@pytest.mark.slow
@pytest.mark.parametrize("mood", ["cut", "gone"])
async def test_bodies_of_a_cluster_that_rays_client_has_lost_are_lost(mood: str, bench: ExecutorBench) -> None:
    """The bug: a dead connection by ``ray://`` was kept, and all that came later was refused, for good."""
    executor = RayExecutor(init={"mood": mood})
    await executor.start(bench.home())
    try:
        _, track = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
        assert (await track.end()).kind is OutcomeKind.LOST
    finally:
        bench.let_go("go")
        await executor.stop(ENOUGH_S)


class Owner:
    """Takes what a link hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Frame, int, bytes]] = []
        self.gone: list[int | None] = []

    def on_ready(self) -> None: ...
    def on_unready(self, why: str, trace: str) -> None: ...

    def on_frame(self, kind: Frame, number: int, data: bytes) -> None:
        self.heard.append((kind, number, data))

    def on_gone(self, link: _ray_link.Link) -> None:
        self.gone.append(link.code)


async def test_what_a_process_said_before_it_ended_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: what one read did not take went with the socket; of bodies that had returned nobody heard that."""
    program = (
        "import os, sys; from quarterjack.executors._frames import Frame, numbered, pack\n"
        "os.write(int(sys.argv[1]), pack(Frame.ENDED, numbered(7, b'x' * 100_000))); os._exit(0)"
    )

    def popen(_: _ray_link.Link, link: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", program, str(link)], pass_fds=[link])

    monkeypatch.setattr(_ray_link.Link, "_popen", popen)
    monkeypatch.setattr(_ray_link, "LAST_WORDS_S", ENOUGH_S)
    monkeypatch.setattr("asyncio.selector_events._SelectorTransport.max_size", 64)  # as if it were much
    owner = Owner()
    await _ray_link.Link(owner).live({})
    assert owner.heard == [(Frame.ENDED, 7, b"x" * 100_000)]
    assert owner.gone == [0]


async def test_a_connection_that_fails_in_any_way_is_told_and_made_anew(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bug: but for an OSError all that wait for it did so for ever, without a word."""
    monkeypatch.setattr(ray, "PAUSE_S", (0.01, 0.01))
    lives: list[_ray_link.Link] = []

    async def live(link: _ray_link.Link, settings: object) -> None:
        lives.append(link)
        raise TypeError(f"not {type(settings).__name__}")

    monkeypatch.setattr(_ray_link.Link, "live", live)
    async with started(bench) as executor:
        bench.begin(executor, "double", 1)
        await until(lambda: len(lives) > 1)
    assert "TypeError: not dict" in caplog.text


@pytest.mark.slow
async def test_executors_of_one_app_share_a_connection(bench: ExecutorBench) -> None:
    """Each would begin a local cluster of its own, and all would count the same processors."""
    async with started(bench) as first, started(bench, "10.0.0.5:6379") as elsewhere:
        async with started(bench) as second:
            tracks = [bench.begin(one, "double", number)[1] for number, one in enumerate([first, second, elsewhere])]
            assert [(await track.end()).result for track in tracks] == [0, 2, 4]
            assert first._link is second._link is not elsewhere._link
            assert first._link is not None
        assert (await bench.run(first, "double", 5)).result == 10
        link = first._link
        assert link._process is not None
        link._process.kill()
        await until(lambda: link.is_over)
        assert (await bench.run(first, "double", 6)).result == 12
    assert first._link is None


@pytest.mark.slow
async def test_what_is_heard_is_told_in_the_context_of_the_start(bench: ExecutorBench) -> None:
    """The bug: it was told in that of the job whose call connected, for as long as the connection lived."""
    await ExecutorContract().test_reports_come_in_the_context_of_the_start(bench)


@pytest.mark.slow
async def test_call_that_waits_for_a_cluster_is_withdrawn_by_a_cancel_and_by_a_stop(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was handed over, so nobody else has to be asked."""
    monkeypatch.setattr(ray, "PAUSE_S", (0.01, 0.01))
    async with started(bench, "away:1") as executor:
        handle, first = bench.begin(executor, "double", 1)
        _, second = bench.begin(executor, "double", 2)
        handle.cancel("not wanted")
        assert (await first.end()).reason == "not wanted"
        assert len(executor._waiting) == 1  # for none at all nobody would try again
    assert (await second.end()).kind is OutcomeKind.CANCELLED
    assert first.log == second.log == ["finished"]


@pytest.mark.slow
async def test_cluster_that_is_away_is_tried_again(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the process ends in the middle of it, as Ray's may."""
    monkeypatch.setattr(ray, "PAUSE_S", (0.01, 0.01))
    async with started(bench, "away:1") as executor:
        _, track = bench.begin(executor, "double", 1)
        why = "Ray may be away: it could not be connected to, tried again until it works, at least every 0.01 s: "
        await until(lambda: f"{why}ConnectionError: there is no cluster (NotFound: nobody listens)" in caplog.text)
        executor._address, executor._init = "there", {"mood": "dies"}
        await until(lambda: "exit code" in caplog.text or executor._link is None)
        executor._init = {}
        assert (await track.end()).result == 2


@pytest.mark.slow
async def test_cluster_that_does_not_answer_is_told(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray itself gives up after a minute; until then nobody would know what the job waits for."""
    monkeypatch.setattr(ray, "SLOW_S", 0.1)
    async with started(bench, "10.0.0.5:6379") as executor:
        executor._init = {"mood": "slow"}
        _, track = bench.begin(executor, "double", 1)
        await until(
            lambda: "1 job waits for it" in caplog.text and "at 10.0.0.5:6379 has not answered for 0 s" in caplog.text
        )
        assert executor._link is not None
        executor._link._owner.on_unready("ConnectionError: no token", "")
        executor._link._owner.on_unready("ConnectionError: no token", "")
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert [one for one in warnings if "token" in one] == ["Ray could not be connected to: ConnectionError: no token"]
    assert (await track.end()).kind is OutcomeKind.CANCELLED


@pytest.mark.slow
async def test_body_in_the_clusters_queue_is_withdrawn(bench: ExecutorBench) -> None:
    """Two processors are taken: the third body waits there, and never begins."""
    async with started(bench) as executor:
        held = [bench.begin(executor, "hold", bench.file(name), bench.file("go"))[1] for name in "ab"]
        for track in held:
            await track.heard("began")
        handle, third = bench.begin(executor, "mark", bench.file("c"))
        await third.heard("accepted")
        handle.cancel("not wanted")
        assert (await third.end()).reason == "not wanted"
        bench.let_go("go")
        assert [(await track.end()).result for track in held] == ["let go"] * 2
    assert third.log == ["accepted", "finished"]
    assert bench.notes("c") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        ("os._exit(3)", OutcomeKind.DIED, "its process died: WorkerCrashedError: its worker died"),
        ("raise SystemExit(3)", OutcomeKind.RAISED, None),
    ],
)
async def test_ends_are_told_as_what_they_are(
    script: str, kind: OutcomeKind, reason: str | None, bench: ExecutorBench
) -> None:
    """What is dead for certain is for the retry policy, and at once."""
    app = f"import os\nfrom quarterjack import Quarterjack\napp = Quarterjack()\n@app.task\ndef double(n): {script}\n"
    async with started(bench, script=app) as executor:
        outcome = await bench.run(executor, "double", 1)
    assert (outcome.kind, outcome.reason) == (kind, reason)


@pytest.mark.slow
async def test_body_that_comes_too_late_does_not_begin(bench: ExecutorBench) -> None:
    """It waited in the cluster's queue past its start deadline."""
    async with started(bench) as executor:
        late, track = TestCall("mark", (bench.file("a"),), {}, Track()), Track()
        late.deadline_ns = 1
        executor.submit(late, track)
        assert (await track.end()).kind is OutcomeKind.MISSED
    assert bench.notes("a") == []


@pytest.mark.slow
@pytest.mark.leaks("tasks")
def test_app_that_ended_without_stopping_it_leaves_the_next_one_nothing(bench: ExecutorBench) -> None:
    """A test or a notebook has one loop after the other."""
    executor = RayExecutor()

    async def use(*, stops: bool) -> object:
        await executor.start(bench.home())
        outcome = await bench.run(executor, "double", 4)
        if stops:
            await executor.stop(1)
        return outcome.result

    assert asyncio.run(use(stops=False)) == 8
    assert asyncio.run(use(stops=True)) == 8


@pytest.mark.slow
async def test_process_that_does_not_leave_is_killed(bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app's stop must not wait for Ray for ever."""
    monkeypatch.setattr(_ray_link, "EXIT_S", 0.1)
    async with started(bench) as executor:
        await bench.run(executor, "double", 1)
        assert executor._link is not None
        process = executor._link._process
        monkeypatch.setattr(executor._link, "send", lambda kind, data=b"": None)
    assert process is not None
    assert process.returncode == -9
