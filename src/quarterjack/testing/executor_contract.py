"""The suite that holds an executor to `quarterjack.executors.Executor`. Needs pytest and pytest-asyncio.

    from quarterjack.testing.executor_contract import ExecutorContract

    class TestMyExecutor(ExecutorContract):
        def make(self, slots: int) -> Executor:
            return MyExecutor(slots)

It looks at the executor from outside: bodies of an app of its own tell what they
did by files, so that they may run in any process of this machine. Each flag of
`Capabilities` is proved true or false. An executor that is made for coroutine
functions says ``kind = "coroutine"``."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from quarterjack.errors import ExecutorClosed, ExecutorFull, MissingExtra
from quarterjack.executors import Executor
from quarterjack.model import OutcomeKind

from ._executor_bench import ENOUGH_S, BodyKind, ExecutorBench, TestCall, Track, until

try:
    import pytest
except ImportError as error:
    raise MissingExtra("the executor contract suite", "testing") from error

__all__ = ["ExecutorBench", "ExecutorContract"]

_COLOUR: Final[ContextVar[str]] = ContextVar("_COLOUR")
SHORT_S = 0.05
TRIES = 200
"""An idle thread or process may begin a body before it is cancelled; not so many in a row."""


class ExecutorContract:
    """One promise of the contract per case. Subclass it in a test module and give it `make`."""

    kind: BodyKind = "plain"
    """Which bodies the executor is made for."""
    bursts = 100
    """How many bodies the cases about many run; fewer where each is dear."""

    def make(self, slots: int) -> Executor:
        """Return a new executor that runs so many bodies at once."""
        raise NotImplementedError

    @pytest.fixture
    def bench(self, tmp_path: Path) -> ExecutorBench:
        """Give the case an executor to start."""
        return ExecutorBench(self.make, self.kind, tmp_path)

    # -- how bodies end ----------------------------------------------------------------

    async def test_a_body_returns(self, bench: ExecutorBench) -> None:
        """Its result is the outcome's."""
        async with bench.started(1) as executor:
            outcome = await bench.run(executor, "double", 21)
        assert (outcome.kind, outcome.result, outcome.stopped) == (OutcomeKind.DONE, 42, True)

    async def test_a_body_raises(self, bench: ExecutorBench) -> None:
        """Whoever handles it finds its type and its text, however far it came."""
        async with bench.started(1) as executor:
            outcome = await bench.run(executor, "fail", "mine")
            assert (await bench.run(executor, "double", 1)).result == 2
        assert outcome.kind is OutcomeKind.RAISED
        assert isinstance(outcome.error, ValueError) or outcome.info is not None
        assert str(outcome.error).endswith("mine")

    async def test_many_bodies_each_begin_and_end_once(self, bench: ExecutorBench) -> None:
        """The runtime counts on one outcome per call, and on its slot coming back."""
        tracks: list[Track] = []
        async with bench.started(4) as executor:
            for n in range(self.bursts):
                await until(lambda: executor.free > 0)
                tracks.append(bench.begin(executor, "double", n)[1])
            assert [(await track.end()).result for track in tracks] == [2 * n for n in range(self.bursts)]
            await until(lambda: executor.free == executor.slots)
        for track in tracks:
            track.check()

    async def test_large_arguments_and_results_come_through(self, bench: ExecutorBench) -> None:
        """A megabyte each way is no matter."""
        text = "quarter jäck " * 80_000
        async with bench.started(1) as executor:
            assert (await bench.run(executor, "echo", text)).result == text

    async def test_a_body_that_is_not_known_there_is_orphaned(self, bench: ExecutorBench) -> None:
        """In a rolling deploy the other side may have another version of the app: the job is offered again later."""
        async with bench.started(1) as executor:
            if not executor.is_remote:
                return
            track = Track()
            unknown, misfit = (TestCall(bench.name("double"), ("no number",), {}, track) for _ in range(2))
            unknown.task = "none of theirs"
            for call, why in ((unknown, "does not know the task"), (misfit, "do not fit")):
                executor.submit(call, track := Track())
                outcome = await track.end()
                assert (outcome.kind, why in (outcome.reason or "")) == (OutcomeKind.ORPHANED, True)
                assert "began" not in track.log
                track.check()

    async def test_reports_come_in_the_context_of_the_start(self, bench: ExecutorBench) -> None:
        """A job that begins with the report of another one must not inherit the variables of whoever asked for it."""
        async with bench.started(1) as executor:
            if not executor.is_remote:  # in this process a body is reported where it ends
                return
            token = _COLOUR.set("of the one who asked")
            _, track = bench.begin(executor, "double", 21)
            _COLOUR.reset(token)
            at_once = set(track.log)  # that was told to the one who asked
            await track.end()
        assert [what for what, context in track.contexts.items() if what not in at_once and _COLOUR in context] == []

    # -- room ----------------------------------------------------------------------------

    async def test_a_full_executor_refuses_without_a_trace(self, bench: ExecutorBench) -> None:
        """The worker gives such a job back; it must not hear of it twice."""
        async with bench.started(1) as executor:
            _, first = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
            assert executor.free == 0
            second = Track()
            with pytest.raises(ExecutorFull):
                executor.submit(TestCall(bench.name("double"), (1,), {}, second), second)
            bench.let_go("go")
            assert (await first.end()).result == "let go"
            await until(lambda: executor.free == 1)
        assert second.log == []

    async def test_calls_are_taken_only_between_start_and_stop(self, bench: ExecutorBench) -> None:
        """One that is not started, or was stopped, says so at once; it can be started again."""
        executor = self.make(1)
        for n in range(2):
            with pytest.raises(ExecutorClosed):
                bench.begin(executor, "double", 1)
            await executor.start(bench.home())
            try:
                assert (await bench.run(executor, "double", n)).result == 2 * n
            finally:
                await executor.stop(ENOUGH_S)
        await executor.stop(1.0)  # a second one does nothing

    async def test_a_stop_answers_every_call(self, bench: ExecutorBench) -> None:
        """No job may wait for ever for a body that nobody knows any more."""
        executor = self.make(2)
        await executor.start(bench.home())
        tracks = [bench.begin(executor, "hold", bench.file(name), bench.file("go"))[1] for name in ("a", "b")]
        await until(lambda: bool(bench.notes("a")) and bool(bench.notes("b")))
        stop = asyncio.create_task(executor.stop(SHORT_S))
        for track in tracks:
            outcome = await track.end()
            assert outcome.kind is OutcomeKind.CANCELLED
            if outcome.stopped and not executor.capabilities.survives_worker_restart:
                assert "interrupted" in (*bench.notes("a"), *bench.notes("b")) or executor.capabilities.can_kill
            track.check()
        await stop
        bench.let_go("go")

    # -- ending a body ---------------------------------------------------------------------

    async def test_a_timeout_ends_the_attempt(self, bench: ExecutorBench) -> None:
        """It counts from the beginning of the body, and says what it was."""
        async with bench.started(1) as executor:
            _, track = bench.begin(executor, "hold", bench.file("a"), bench.file("go"), timeout_s=0.2)
            outcome = await track.end()
            assert outcome.kind is OutcomeKind.TIMED_OUT
            assert "0.2 s" in (outcome.reason or "")
            bench.let_go("go")
            await until(lambda: executor.free == 1)
        track.check()

    async def test_a_cancel_that_races_the_end_is_answered_once(self, bench: ExecutorBench) -> None:
        """Cancels at every point of a body's short life: one answer each, and no slot lost."""
        async with bench.started(4) as executor:
            for n in range(self.bursts):
                await until(lambda: executor.free > 0)
                handle, track = bench.begin(executor, "double", n)
                for _ in range(n % 7):
                    await asyncio.sleep(0)
                handle.cancel("race")
                handle.cancel("once more")
                outcome = await track.end()
                handle.cancel("too late")
                assert outcome.kind in {OutcomeKind.DONE, OutcomeKind.CANCELLED}
                track.check()
            await until(lambda: executor.free == executor.slots)

    # -- what it can do, flag by flag ----------------------------------------------------------

    async def test_can_cancel_queued(self, bench: ExecutorBench) -> None:
        """True: a body that was cancelled before it began never begins. False: it does."""
        withdrawn = 0
        async with bench.started(1) as executor:
            for n in range(TRIES):
                await until(lambda: executor.free == 1)
                handle, track = bench.begin(executor, "mark", bench.file(str(n)))
                if "began" in track.log:  # it begins in the very step it is handed over in: there is no queue
                    await track.end()
                    return
                handle.cancel("not wanted")
                outcome = await track.end()
                if not outcome.stopped:
                    await track.heard("ended")
                if outcome.kind is OutcomeKind.CANCELLED and "began" not in track.log:
                    withdrawn += 1
                    assert bench.notes(str(n)) == []
                if withdrawn:
                    break
        assert (withdrawn > 0) is executor.capabilities.can_cancel_queued

    async def test_can_interrupt(self, bench: ExecutorBench) -> None:
        """True: a running body is made to raise where it stands. False: it goes on."""
        async with bench.started(1) as executor:
            handle, track = await bench.begun(executor, "hold")
            handle.cancel("changed my mind")
            outcome = await track.end()
            assert (outcome.kind, outcome.reason) == (OutcomeKind.CANCELLED, "changed my mind")
            if executor.capabilities.can_interrupt:
                assert outcome.stopped
                assert bench.notes("a") == ["began", "interrupted"]
            else:
                assert "interrupted" not in bench.notes("a")
            bench.let_go("go")
            await until(lambda: executor.free == 1)
        track.check()

    async def test_can_kill(self, bench: ExecutorBench) -> None:
        """True: a body that ignores everything is over with its grace. False: it keeps its slot until it ends."""
        async with bench.started(2) as executor:
            handle, track = await bench.begun(executor, "defy", cancel_grace_s=SHORT_S)
            handle.cancel("stop")
            outcome = await track.end()
            assert (outcome.kind, outcome.stopped) == (OutcomeKind.CANCELLED, executor.capabilities.can_kill)
            if not executor.capabilities.can_kill:
                assert executor.free == 1
                bench.let_go("go")
                await track.heard("ended")
            await until(lambda: executor.free == 2)
        track.check()

    async def test_can_report_start(self, bench: ExecutorBench) -> None:
        """True: it is told when a body begins, while it runs. False: only that it was accepted."""
        async with bench.started(1) as executor:
            _, track = await bench.begun(executor, "hold")
            if executor.capabilities.can_report_start:
                await track.heard("began")
            else:
                assert "began" not in track.log
            assert "finished" not in track.log
            bench.let_go("go")
            await track.end()

    async def test_can_report_progress(self, bench: ExecutorBench) -> None:
        """True: what a body says last of its progress arrives before its end. False: nothing does."""
        async with bench.started(1) as executor:
            _, track = bench.begin(executor, "say", 3)
            assert (await track.end()).result == f"{bench.name('say')} 1"
        said = track.said[-1:]
        assert said == ([(3, 3, "part 3")] if executor.capabilities.can_report_progress else [])

    async def test_survives_worker_restart(self, bench: ExecutorBench) -> None:
        """True: a body goes on while its executor is stopped, and is found again. False: there is none to find."""
        executor = self.make(1)
        await executor.start(bench.home())
        handle, track = await bench.begun(executor, "hold")
        survives = executor.capabilities.survives_worker_restart
        if survives:
            executor.leave(handle)
        await executor.stop(SHORT_S)
        again = self.make(1)
        await again.start(bench.home())
        try:
            found, call = Track(), TestCall(bench.name("hold"), ("", ""), {}, Track())
            handle_again = again.reattach(f"contract-{int(call.job_id.rpartition('-')[2]) - 1}.1", call, found)
            assert (handle_again is not None) is survives
            bench.let_go("go")
            if survives:
                assert (await found.end()).result == "let go"
                assert "finished" not in track.log
        finally:
            await again.stop(ENOUGH_S)

    async def test_a_result_that_no_store_has_is_found_again(self, bench: ExecutorBench) -> None:
        """Its worker may be killed after it heard the result and before that was stored: the body ran all the same."""
        async with bench.started(1) as executor, bench.started(1) as another:
            if not executor.capabilities.survives_worker_restart:
                return
            call = TestCall(bench.name("mark"), (bench.file("a"),), {}, track := Track())
            executor.submit(call, track)
            await track.end()
            for attempt in (2, 3):
                again = TestCall(bench.name("mark"), (bench.file("a"),), {}, track := Track())
                again.job_id, again.ref = call.job_id, f"{call.job_id}.{attempt}"
                another.reattach(f"{call.job_id}.{attempt - 1}", again, track)
                assert (await track.end()).kind is OutcomeKind.DONE
                assert bench.notes("a") == ["ran"] * (attempt - 1)
                executor.settled(call.ref, is_stored=False)  # refused: it is the other one's by now
                another.settled(again.ref, is_stored=True)

    async def test_a_result_that_no_store_has_outlives_a_stop(self, bench: ExecutorBench) -> None:
        """What ends last is recorded after the stop, if the store is there: until then it can be taken up."""
        async with bench.started(1) as executor:
            if not executor.capabilities.survives_worker_restart:
                return
            call = TestCall(bench.name("mark"), (bench.file("a"),), {}, track := Track())
            executor.submit(call, track)
            await track.end()
        await executor.all_settled()  # no `settled`: its process was killed, or the store did not answer
        for attempt, times in ((2, 1), (3, 2)):
            async with bench.started(1) as executor:
                again = TestCall(bench.name("mark"), (bench.file("a"),), {}, track := Track())
                again.job_id, again.ref = call.job_id, f"{call.job_id}.{attempt}"
                executor.reattach(f"{call.job_id}.{attempt - 1}", again, track)
                assert (await track.end()).kind is OutcomeKind.DONE
            assert bench.notes("a") == ["ran"] * times
            executor.settled(again.ref, is_stored=True)
            await executor.all_settled()

    async def test_submit_is_idempotent(self, bench: ExecutorBench) -> None:
        """True: the same attempt handed over twice runs once. False: it runs twice, so nobody may do that."""
        async with bench.started(2) as executor:
            one, other = Track(), Track()
            call = TestCall(bench.name("mark"), (bench.file("a"),), {}, one)
            twin = TestCall(bench.name("mark"), (bench.file("a"),), {}, other)
            twin.ref = call.ref
            executor.submit(call, one)
            executor.submit(twin, other)
            await one.end()
            await other.end()
        assert len(bench.notes("a")) == (1 if executor.capabilities.submit_is_idempotent else 2)

    async def test_runs_coroutines(self, bench: ExecutorBench) -> None:
        """True: coroutine functions run there. False: they are refused, not begun."""
        async with bench.started(1) as executor:
            outcome = await bench.run(executor, "double", 4, kind="coroutine")
        if executor.capabilities.runs_coroutines:
            assert (outcome.kind, outcome.result) == (OutcomeKind.DONE, 8)
        else:
            assert outcome.kind is OutcomeKind.REJECTED
