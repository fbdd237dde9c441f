"""The commands over stored jobs: an app on a file, served by one process and asked by others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result

from quarterjack import Every, Quarterjack
from quarterjack.model import WorkerInfo
from tests.cli.test_look import documented

Qj = Callable[..., Result]

APP = """
from quarterjack import Every, Quarterjack
from tests.cli.test_look import documented

app = Quarterjack("sqlite:///jobs.db", version="1.2")

@app.task(Every(hours=1))
async def pulse() -> None: ...

@app.task
async def add(a: int, b: int) -> int:
    return a + b

@app.task
async def bad(x: int) -> None:
    raise ValueError(f"no {x}")

@app.task
async def counting(to: int) -> None:
    from quarterjack import current_job
    current_job().checkpoint({"done": to})

@app.task
async def napping(seconds: float) -> None:
    import asyncio
    await asyncio.sleep(seconds)
"""


@pytest.fixture
def stored(folder: Path) -> Path:
    """A file ``shop.py`` whose app keeps its jobs in a file."""
    (folder / "shop.py").write_text(APP)
    return folder


@pytest.fixture
def served(stored: Path) -> Iterator[Quarterjack]:
    """The same app, served beside: what another process would do."""
    other: dict[str, object] = {}
    exec(compile(APP, "served.py", "exec"), other)  # the very code of shop.py, as another process has it
    app = other["app"]
    assert isinstance(app, Quarterjack)
    with app.in_thread():
        yield app


def test_job_is_submitted_awaited_and_shown(served: Quarterjack, qj: Qj) -> None:
    """What one process submits another one runs; the first sees the result."""
    done = qj("submit", "shop.py", "add", "2", "b=3", "--wait")
    assert (done.exit_code, done.stdout.strip()) == (0, "5"), done.output
    listed = qj("jobs", "shop.py", "--task", "add")
    job_id, task, state, *_ = listed.stdout.split("\t")
    assert (task, state) == ("add", "done")
    shown = qj("show", "shop.py", job_id)
    assert "add(2, b=3)" in shown.stdout
    assert "result       5" in shown.stdout
    alone = json.loads(qj("show", "--store", "sqlite:///jobs.db", job_id, "--json").stdout)
    assert (alone["args"], alone["kwargs"], alone["result"]) == ([2], {"b": 3}, 5)


def test_checkpoint_is_shown(served: Quarterjack, qj: Qj) -> None:
    """Who asks how far a job is asks what its next attempt would begin with."""
    assert qj("submit", "shop.py", "counting", "7", "--wait").exit_code == 0
    job_id = qj("jobs", "shop.py", "--task", "counting").stdout.split("\t")[0]
    assert "checkpoint   {'done': 7}" in qj("show", "shop.py", job_id).stdout
    assert json.loads(qj("show", "shop.py", job_id, "--json").stdout)["checkpoint"] == {"done": 7}


def test_failed_job_is_told_and_repeated(served: Quarterjack, qj: Qj) -> None:
    """A failure is an exit code, a line among the errors, a traceback, and can be tried again."""
    failed = qj("submit", "shop.py", "bad", "7", "--wait")
    assert failed.exit_code == 1
    assert "ValueError: no 7" in failed.output
    job_id = qj("errors", "shop.py").stdout.split("\t")[0]
    assert "in bad" in qj("show", "shop.py", job_id).stdout
    again = qj("retry", "shop.py", job_id)
    assert again.exit_code == 0
    assert job_id in again.stdout
    refused = qj("retry", "shop.py", "--task", "bad", "--state", "done")
    assert refused.stdout.startswith("0 jobs")


def test_running_job_is_cancelled_from_elsewhere(served: Quarterjack, qj: Qj) -> None:
    """Its worker hears of it, and the command waits for the end."""
    job_id = qj("submit", "shop.py", "napping", "600").stdout.split()[0]
    cancelled = qj("cancel", "shop.py", job_id)
    assert cancelled.exit_code == 0, cancelled.output
    assert "is cancelled" in cancelled.stdout
    assert qj("cancel", "shop.py", job_id).exit_code == 0, "it is what was wanted"


def test_many_are_changed_only_if_it_is_meant(stored: Path, qj: Qj) -> None:
    """A filter may mean more than was thought: it is counted first, and a pipe has to say --yes."""
    for _ in range(3):
        qj("submit", "shop.py", "add", "1", "1")
    asked = qj("cancel", "shop.py", "--task", "add")
    assert asked.exit_code == 2
    assert "3 unfinished jobs" in asked.output
    assert "--yes" in asked.output
    assert qj("cancel", "shop.py", "--task", "add", "--yes").stdout == "3 jobs asked to end\n"
    assert qj("purge", "shop.py", "--older", "0s", "--dry-run").stdout == "3 jobs would be deleted\n"
    assert qj("purge", "shop.py", "--older", "0s", "--yes").stdout == "3 jobs deleted\n"
    assert qj("jobs", "shop.py").stdout == ""


def test_schedule_is_paused_resumed_and_run_now(served: Quarterjack, qj: Qj) -> None:
    """By its id; what was done is kept with who did it."""
    assert qj("pause", "shop.py", "pulse", "--note", "deploy").exit_code == 0
    assert "deploy" in qj("ls", "shop.py").stdout
    for command in ("next", "explain"):
        paused = qj(command, "shop.py", "pulse")
        assert "(deploy), until it is resumed" in paused.output, "the bug: a fire time that had passed, and no word"
        assert not re.search(r"20\d\d-\d\d-\d\d.*ago|\t-", paused.stdout)
    until = datetime.now(UTC) + timedelta(days=2)
    qj("pause", "shop.py", "pulse", "--until", until.isoformat())
    assert datetime.fromisoformat(qj("next", "shop.py", "pulse").stdout.split("\t")[0]) >= until
    assert qj("resume", "shop.py", "pulse").exit_code == 0
    run = qj("trigger", "shop.py", "pulse", "--wait")
    assert run.exit_code == 0
    assert "(pulse) is done" in run.stdout
    near = qj("pause", "shop.py", "puls")
    assert near.exit_code == 2
    assert "pulse" in near.output


def test_schedule_of_an_app_that_has_not_run_is_told_apart_from_one_that_nobody_knows(stored: Path, qj: Qj) -> None:
    """The bug: `qj ls` listed it, and pause said that its task had no schedule."""
    qj("submit", "shop.py", "add", "1", "1")
    for command in ("pause", "resume", "trigger"):
        early = qj(command, "shop.py", "pulse")
        assert "'pulse' is not in the store yet" in early.output
        assert "qj run shop.py" in early.output
    assert "pulse" in qj("pause", "shop.py", "puls").output, "what could be meant"


def test_workers_are_listed_and_told_to_drain(served: Quarterjack, qj: Qj) -> None:
    """An order goes to a process by its id; to none it is an error."""
    worker_id, role, *_ = qj("workers", "shop.py").stdout.split("\t")
    assert role == "both"
    assert "told to drain" in qj("workers", "shop.py", "drain", worker_id).stdout
    gone = qj("workers", "shop.py", "drain", "nobody")
    assert gone.exit_code == 2
    assert "no worker nobody" in gone.output


def test_worker_that_is_lost_is_told_until_it_is_forgotten(served: Quarterjack, qj: Qj) -> None:
    """The bug: after a kill a monitor stayed red for an hour, and nobody could say that it was known."""

    async def die() -> None:
        app = Quarterjack("sqlite:///jobs.db")
        async with app.as_client():
            await app.store.workers_put(WorkerInfo("dead0000", "host", 1, "both", ("default",), 0, 0))

    asyncio.run(die())
    lost = qj("check", "shop.py")
    assert lost.exit_code == 1
    assert "if it is dead: qj workers shop.py:app forget dead0000" in lost.stdout
    states = {row.split("\t")[0]: row.split("\t")[9] for row in qj("workers", "shop.py").stdout.splitlines()}
    assert states.pop("dead0000") == "lost"
    ((living, state),) = states.items()
    assert state == "working"
    refused = qj("workers", "shop.py", "forget", living)
    assert refused.exit_code == 2
    assert f"worker {living} gave a sign of life" in refused.stderr
    assert qj("workers", "shop.py", "forget", "dead0000").stdout == "dead0000 is forgotten\n"
    assert qj("check", "shop.py").exit_code == 0


def test_check_says_what_is_not_in_order(stored: Path, qj: Qj) -> None:
    """Nobody at work is degraded; a store that does not open is down."""
    degraded = qj("check", "shop.py", "--json")
    found = {one["what"]: one["state"] for one in json.loads(degraded.stdout)["findings"]}
    assert (degraded.exit_code, found["workers"], found["store"]) == (1, "degraded", "ok")
    down = qj("check", "--store", "sqlite:///nowhere/jobs.db")
    assert down.exit_code == 2
    assert "nothing was ever stored in sqlite:///" in down.output


def test_check_of_an_app_that_is_served_is_content(served: Quarterjack, qj: Qj) -> None:
    """Then the command ends with 0, as monitors ask for it."""
    result = qj("check", "shop.py")
    assert result.exit_code == 0, result.output


def test_app_whose_jobs_live_in_its_process_cannot_be_asked(folder: Path, qj: Qj) -> None:
    """The memory store ends with its process; the error says what to use instead."""
    (folder / "alone.py").write_text("from quarterjack import Quarterjack\napp = Quarterjack()\n")
    result = qj("jobs", "alone.py")
    assert result.exit_code == 1
    assert "sqlite:///" in result.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("jobs", "--store", "sqlitee:///x.db"), "did you mean"),
        (("jobs", "shop.py", "--state", "dnoe"), "known are"),
        (("jobs", "shop.py", "--since", "yesterday"), "--since 2h"),
        (("show", "shop.py", "00000000-1"), "no job"),
        (("cancel", "shop.py"), "neither a job nor a filter"),
        (("cancel", "shop.py", "what?"), "no id of a job"),
        (("submit", "shop.py", "ad", "1", "2"), "qj submit shop.py"),
        (("submit", "shop.py", "add", "1"), "missing"),
        (("submit", "shop.py", "add", "a=1", "2"), "behind a named argument"),
        (("purge", "shop.py", "--older", "long"), "--older 30d"),
        (("pause", "shop.py", "pulse", "--until", "soon"), "--until"),
    ],
)
def test_what_is_typed_wrong_is_told_with_what_to_type_instead(
    stored: Path, qj: Qj, words: tuple[str, ...], told: str
) -> None:
    """Nothing is done half, and the next step is in the message."""
    qj("submit", "shop.py", "add", "1", "1")
    result = qj(*words)
    assert result.exit_code in {1, 2}
    assert told in result.output


def test_app_as_a_client_neither_fires_nor_enters_its_lifespan(stored: Path) -> None:
    """Whoever only submits must not open what workers need."""
    entered: list[Quarterjack] = []

    @contextlib.contextmanager
    def lifespan(app: Quarterjack) -> Iterator[None]:
        entered.append(app)
        yield

    app = Quarterjack("sqlite:///jobs.db", lifespan=lifespan)

    @app.task(Every(hours=1))
    async def pulse() -> None: ...

    async def main() -> None:
        async with app.as_client():
            await app.submit(pulse)
            assert [job.state.value for job in await app.jobs()] == ["submitted"]
            assert await app.workers() == []

    asyncio.run(main())
    assert entered == []
    assert app.role == "both"


@pytest.mark.parametrize("words", [("jobs", "shop.py"), ("workers", "shop.py"), ("check", "shop.py")])
def test_json_holds_the_documented_keys(served: Quarterjack, qj: Qj, words: tuple[str, ...]) -> None:
    """Programs are written against docs/command.md."""
    qj("submit", "shop.py", "add", "1", "2", "--wait")
    found = json.loads(qj(*words, "--json").stdout)
    example = documented(found["schema"])
    assert found.keys() == example.keys()
    (rows,) = [key for key, value in found.items() if isinstance(value, list)]
    assert found[rows][0].keys() == example[rows][0].keys()
