"""What pages say of each executor: the table of what it can do is made from its flags, which a suite proves."""

from __future__ import annotations

from dataclasses import fields
from inspect import Parameter, signature
from typing import Any

import pytest

pytest.importorskip("celery")
pytest.importorskip("distributed")

from quarterjack import Executor, LoopThread, ProcessExecutor, ThreadExecutor
from quarterjack.errors import BodyDied, CommandFailed
from quarterjack.executors import Capabilities, CommandExecutor, LoopExecutor
from quarterjack.executors.celery import CeleryExecutor, CeleryTask, serve_bodies
from quarterjack.executors.dask import DaskExecutor
from quarterjack.executors.ray import RayExecutor
from tests.repo.checkout import ROOT

PAGE = ROOT / "docs/guides/where-code-runs.md"
EXECUTORS: dict[str, type[Executor]] = {
    "loop": LoopExecutor,
    "thread": ThreadExecutor,
    "`LoopThread`": LoopThread,
    "process": ProcessExecutor,
    "command": CommandExecutor,
    "`CeleryExecutor`": CeleryExecutor,
    "`CeleryTask`": CeleryTask,
    "`DaskExecutor`": DaskExecutor,
    "`RayExecutor`": RayExecutor,
}
WORDS = {
    "can_cancel_queued": "withdraws what has not begun",
    "can_interrupt": "interrupts a body where it stands",
    "can_kill": "ends a body for certain",
    "can_report_start": "tells when it begins",
    "can_report_progress": "tells its progress",
    "survives_worker_restart": "goes on without its worker",
    "submit_is_idempotent": "runs a repeated request once",
    "runs_coroutines": "takes coroutine functions",
}


def table() -> str:
    """Return the flags of every executor, as the page has them."""
    lines = [f"| | {' | '.join(EXECUTORS)} |", "|---" * (len(EXECUTORS) + 1) + "|"]
    for flag in fields(Capabilities):
        says = [getattr(executor.capabilities, flag.name) for executor in EXECUTORS.values()]
        lines.append(f"| {WORDS[flag.name]} | {' | '.join('yes' if one else 'no' for one in says)} |")
    return "\n".join(lines)


@pytest.mark.slow
def test_the_page_says_of_each_executor_what_its_flags_say() -> None:
    """A promise in a table is one as well; where this fails, the table it shows is the one to put there."""
    assert f"<!-- capabilities -->\n{table()}\n" in PAGE.read_text(encoding="utf-8"), table()


def as_written(thing: Any) -> str:
    """Return how a thing is called, as the reference has it."""
    bare = signature(thing)
    plain = [one.replace(annotation=Parameter.empty) for one in bare.parameters.values()]
    return str(thing.__name__) + str(bare.replace(parameters=plain, return_annotation=Parameter.empty))


@pytest.mark.slow
def test_the_reference_names_all_that_executors_take() -> None:
    """A parameter that stands nowhere is met by chance; where this fails, the line it shows is the one to put there."""
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- signatures -->")[2].partition("```text\n")[2].partition("```")[0]
    lines = [line for line in listed.splitlines() if line and not line.startswith("#")]
    things = [one for one in EXECUTORS.values() if one is not LoopExecutor]
    assert sorted(lines) == sorted(map(as_written, [*things, serve_bodies, BodyDied, CommandFailed]))
