"""What `qj show` and `qj errors` say of jobs that wait for other processes, asked from beside them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result

from quarterjack import Quarterjack, why_waiting
from quarterjack.cli import check
from tests.real_time import wait_until

Qj = Callable[..., Result]

APP = """
import asyncio
from quarterjack import ConcurrencyLimit, Flow, Quarterjack

app = Quarterjack("sqlite:///jobs.db")

@app.task
async def plain(n: int) -> int:
    return n

@app.task(flow=Flow(ConcurrencyLimit(1, name="door")))
async def narrow(seconds: float) -> None:
    await asyncio.sleep(seconds)
"""

FARM = """
from dataclasses import replace
from quarterjack import Quarterjack
from quarterjack.executors import LoopExecutor
from quarterjack.model import Outcome, OutcomeKind

class Sent:
    def __init__(self, report):
        self.report = report

    def cancel(self, reason):
        self.report.finished(Outcome(OutcomeKind.CANCELLED, reason=reason))

class Farm(LoopExecutor):
    handed_to = "the farm"

    def submit(self, call, report):
        if self.trouble is None:
            report.accepted()
        return Sent(report)

class Mute(Farm):
    capabilities = replace(LoopExecutor.capabilities, can_report_start=False)

class Away(Farm):
    trouble = "it may be away"

app = Quarterjack("sqlite:///jobs.db")

@app.task(executor=Farm(2))
async def reap(n: int) -> None: ...

@app.task(executor=Mute(2))
async def theirs(n: int) -> None: ...

@app.task(executor=Away(2))
async def away(n: int) -> None: ...
"""
"""An app on a cluster in which nobody begins anything."""


@pytest.fixture
def stored(folder: Path) -> Path:
    """A file ``shop.py`` whose app keeps its jobs in a file."""
    (folder / "shop.py").write_text(APP)
    return folder


@contextmanager
def at_work(code: str = APP) -> Iterator[Quarterjack]:
    """Serve the same app beside, as another process would do."""
    names: dict[str, object] = {}
    exec(compile(code, "served.py", "exec"), names)
    app = names["app"]
    assert isinstance(app, Quarterjack)
    with app.in_thread():
        yield app


def submitted(qj: Qj, *words: str) -> str:
    result = qj("submit", "shop.py", *words)
    assert result.exit_code == 0, result.output
    return result.stdout.split()[0]


def shown(qj: Qj, job_id: str, *where: str) -> dict[str, str]:
    """Return the lines of `qj show` by their labels."""
    result = qj("show", *(where or ("shop.py",)), job_id)
    assert result.exit_code == 0, result.output
    return {line[:12].strip(): line[13:] for line in result.stdout.splitlines() if line[:12].strip()}


def waits_until(app: Quarterjack, job_id: str, state: str) -> None:
    """Wait until a job has come so far."""

    async def look() -> None:
        async with asyncio.timeout(20):
            while (await app.job(job_id)).state.value != state:
                await asyncio.sleep(0.01)

    asyncio.run(look())


@pytest.mark.parametrize("where", [("shop.py",), ("--store", "sqlite:///jobs.db")])
def test_job_waits_for_somebody_to_be_at_work(stored: Path, qj: Qj, where: tuple[str, ...]) -> None:
    """The bug: it was said to need a worker with queues=, in an app that has no queue."""
    told = shown(qj, submitted(qj, "plain", "1"), *where)
    assert told["waits"] == "nobody is at work: qj run starts a process"
    assert told["attempts"] == "0"


def test_job_in_a_queue_that_nobody_serves_names_it(stored: Path, qj: Qj) -> None:
    """Processes are at work, only not for this queue."""
    with at_work():
        result = qj("submit", "shop.py", "plain", "1", "--queue", "elsewhere")
        job_id = result.stdout.split()[0]
        told = shown(qj, job_id)
        words = "nobody at work serves its queue 'elsewhere': give it to a worker by queues=, or start one: "
        assert told["waits"] == f"{words}qj run --queue elsewhere"
        assert result.stderr == f"· {job_id} waits: {told['waits']}\n", "a misspelt queue was taken in silence"
        assert "nobody at work takes those in queue elsewhere" in qj("check", "shop.py").stdout


def test_job_that_another_process_holds_in_its_flow_is_not_said_to_begin(stored: Path, qj: Qj) -> None:
    """The bug: it was about to begin for seven hours, at its first attempt, while a gate kept it."""
    with at_work() as app:
        first = submitted(qj, "narrow", "600")
        waits_until(app, first, "running")
        second = submitted(qj, "narrow", "600")
        waits_until(app, second, "scheduled")
        told, blind = shown(qj, second), shown(qj, second, "--store", "sqlite:///jobs.db")
        wait_until(lambda: "runs" in shown(qj, first))  # the process that runs it tells others within a second
        runs = shown(qj, first)["runs"]
        attempts = {row.split("\t")[0]: row.split("\t")[5] for row in qj("jobs", "shop.py").stdout.splitlines()}
        qj("cancel", "shop.py", first, second)
    worker = told["waits"].split()[1]
    assert told["waits"] == f"worker {worker} has it: it is waiting there in its flow (door), or about to begin"
    assert blind["waits"] == f"worker {worker} has it: it is about to begin, or waits there in its flow"
    assert told["attempts"] == "0", "it was leased, and its body has not begun"
    assert attempts == {first: "1", second: "0"}, "as `qj show` counts"
    assert runs.startswith(f"it runs at worker {worker} (")


def test_orphan_has_one_reason(stored: Path, qj: Qj) -> None:
    """The bug: its state said ORPHANED, and the line below that its queue was not served."""
    job_id = submitted(qj, "plain", "1")
    changed = APP.replace("plain(n: int)", "plain(text: str, n: int)")
    (stored / "shop.py").write_text(changed)
    with at_work(changed):
        told = _orphaned(qj, job_id)
        assert told["waits"].startswith(told["state"].removeprefix("submitted: "))
    after = shown(qj, job_id, "--store", "sqlite:///jobs.db")["waits"]
    assert after.startswith("ORPHANED: ")
    assert "queue" not in after


def _orphaned(qj: Qj, job_id: str) -> dict[str, str]:
    states: list[str] = []
    for _ in range(200):
        told = shown(qj, job_id)
        if "ORPHANED" in told["state"]:
            return told
        states.append(told["state"])
    raise AssertionError(states)


def test_job_in_the_queue_of_a_cluster_is_told_with_whom_it_was_handed_to(
    stored: Path, qj: Qj, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: it was about to begin for as long as no worker of the cluster was there, and all was in order."""
    (stored / "shop.py").write_text(FARM)
    monkeypatch.setattr(check, "LATE_S", 0.0)
    with at_work(FARM) as app:
        theirs = submitted(qj, "theirs", "1")
        waits_until(app, theirs, "started")
        before = qj("check", "shop.py").stdout
        ours = submitted(qj, "reap", "1")
        waits_until(app, ours, "started")
        told, blind, mute = shown(qj, ours), shown(qj, ours, "--store", "sqlite:///jobs.db"), shown(qj, theirs)
        after = qj("check", "shop.py").stdout
        qj("cancel", "shop.py", ours, theirs)
    worker = told["waits"].split()[1]
    since = r"[0-9.]+ seconds? ago"
    assert re.fullmatch(rf"worker {worker} handed it to the farm {since}; nobody there has begun it yet", told["waits"])
    assert re.fullmatch(rf"worker {worker} handed it to its executor {since}; nobody .* yet", blind["waits"])
    assert re.fullmatch(rf"worker {worker} handed it to the farm {since}, which does not .* begins", mute["waits"])
    assert "ok handed     1 job handed over, and not known to have begun\n" in before
    assert f"!! handed     2 jobs handed over, and not known to have begun; of reap ({ours}): worker " in after


def test_job_for_a_cluster_that_is_away_is_not_said_to_begin(
    stored: Path, qj: Qj, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: it was about to begin, for as long as the cluster was away."""
    (stored / "shop.py").write_text(FARM)

    async def why(app: Quarterjack, job_id: str) -> str:
        return (await app.why_waiting(await app.job(job_id))).words

    with at_work(FARM) as app:
        job_id = submitted(qj, "away", "1")
        waits_until(app, job_id, "scheduled")
        there = asyncio.run(why(app, job_id))
        soon = shown(qj, job_id)["waits"]
        monkeypatch.setattr(why_waiting, "_AT_ONCE_S", 0.0)
        later = shown(qj, job_id)["waits"]
        qj("cancel", "shop.py", job_id)
    worker = soon.split()[1]
    assert there == f"worker {worker} has it: it is to be handed to the farm: it may be away"
    assert soon == f"worker {worker} has it: it is about to be handed to the farm"
    assert re.fullmatch(rf"worker {worker} has it: it is to be handed to the farm, since .* seconds?: what .*", later)
