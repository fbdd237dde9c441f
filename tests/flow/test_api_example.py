"""The strategies' section of docs/api.md: what stands there does what its comments say."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from quarterjack import ConcurrencyLimit, Flow, Quarterjack, TaskManager, gather
from quarterjack.testing import virtual_loop, virtual_time
from tests.repo.checkout import ROOT, blocks

PROGRAM: Final = next(block.text for block in blocks(ROOT / "docs/api.md") if "class BusinessHours" in block.text)


@pytest.fixture(name="example")
def program() -> dict[str, Any]:
    """Return the program's names, with bodies where it has none."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(PROGRAM, "docs/api.md", "exec"), names)  # our own documentation
    return names


async def test_three_at_a_time_and_the_block_drains(
    example: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight jobs of a second, three at once: three seconds; then one under the whole flow, and two bare passes."""

    async def sample(name: str, delay: float) -> str:
        await asyncio.sleep(delay)
        return name

    example["sample"] = sample
    with virtual_loop() as clock:
        began = clock.monotonic()
        await example["main"]()
        assert clock.monotonic() - began == pytest.approx(3.1, abs=0.01)
    first, second = capsys.readouterr().out.splitlines()
    assert first == str([f"task-{n}" for n in range(8)])
    assert second.startswith(
        "its turn comes in the loop's next turn {'waiting': 1, 'pausing': 0, 'running': 0, 'failed': 0, 'gates':"
    )
    assert "CircuitBreaker" in second
    assert [kind.__name__ for kind in map(type, example["flow"].gates)] == [
        "CircuitBreaker",
        "SlidingWindow",
        "ConcurrencyLimit",
    ]


async def test_its_gate_opens_at_nine(example: dict[str, Any]) -> None:
    """The dispatcher asks again at the instant that the gate named."""
    app = example["app"]
    app.queue("office", flow=example["BusinessHours"]())
    async with virtual_time(app, start="2026-03-02T08:30", tz="UTC") as world:
        job = await app.submit(example["call_api"].options(queue="office"), "acme")
        await world.run_for(25 * 60)
        assert not job.state.is_finished
        await world.run_for(6 * 60)
        assert job.timestamps.running_at.hour == 9


async def test_its_batch_and_its_task_run_in_an_app(example: dict[str, Any]) -> None:
    """The task by the flow that the manager had as well, the items together."""
    app: Quarterjack = example["app"]
    batches: list[list[str]] = []

    @app.batch(max_size=100, max_wait=0.05, name="lengths")
    async def lengths(rows: list[str]) -> list[int]:
        batches.append(rows)
        return [len(row) for row in rows]

    async with virtual_time(app):
        await (await app.submit(example["call_api"], "acme"))
        assert await gather([await app.submit(lengths, "x" * n) for n in range(1, 4)]) == [1, 2, 3]
    assert [len(batch) for batch in batches] == [3]


async def test_its_retry_tries_again_and_holds_no_slot_meanwhile(example: dict[str, Any]) -> None:
    """Four attempts in all, and the urgent job in between."""
    tries: list[str] = []

    async def flaky(name: str) -> str:
        tries.append(name)
        if tries.count(name) < 4:
            raise OSError
        return name

    narrow = Flow(example["flow"].retry, ConcurrencyLimit(1), example["flow"].order)
    with virtual_loop():
        async with TaskManager(narrow) as manager:
            jobs = [manager.submit(flaky, "a"), manager.options(priority=0).submit(flaky, "b")]
            assert await gather(jobs) == ["a", "b"]
    assert tries[0] == "b"
    assert sorted(tries) == ["a"] * 4 + ["b"] * 4
