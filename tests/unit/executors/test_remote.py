"""What travels to another process and back: requests, answers, exceptions, and who the body is there."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from random import Random
from typing import Any

import pytest

from quarterjack import Command, Discard, Quarterjack, Snooze, current_job
from quarterjack.codec import encode_call, result_codec
from quarterjack.errors import InvalidArguments, NoCurrentJob, Orphaned, RaisedElsewhere
from quarterjack.executors._remote import Bodies, Request, outcome_of, request_of, run, take_or_answer
from quarterjack.executors.elsewhere import meta_of
from quarterjack.model import FinishKind, JobRecord, Origin, Outcome, OutcomeKind
from quarterjack.policies.backoff import NO_RETRY, Retry
from quarterjack.runtime.verdict import judge
from tests.unit.executors.kit import FakeCall

app = Quarterjack()


class Plain(Exception):
    """Survives pickling."""


class Odd(OSError):
    """Does not: its constructor wants more than its args."""

    def __init__(self, path: str, code: int) -> None:
        super().__init__(f"{path} is odd ({code})")


@app.task
def next_day(day: date, days: int = 1) -> date:
    return day + timedelta(days=days)


@app.task
async def later(text: str) -> str:
    await asyncio.sleep(0)
    return text


@app.task
def tell() -> list[Any]:
    me = current_job()
    me.progress(1, 2, "half")
    me.checkpoint({"at": 7})
    return [me.id, me.task, me.attempt, me.failures, me.missed_count, me.metadata, me.last_checkpoint]


@app.task
def unwritable() -> object:
    return object()


@app.task
def plan() -> Any:  # no hint: its result would travel as a mapping
    return Command(["echo", "hi"])


@app.task
def wrong(kind: str) -> None:
    raise {
        "plain": Plain("broken"),
        "odd": Odd("/x", 3),
        "exit": SystemExit(3),
        "snooze": Snooze(timedelta(seconds=60)),
        "discard": Discard("no use"),
        "cancelled": asyncio.CancelledError(),
    }[kind]


class Ear:
    """Who hears what bodies say."""

    is_unwanted = False

    def __init__(self) -> None:
        self.said: list[Any] = []

    def progress(self, done: float, total: float | None, text: str) -> None:
        self.said.append((done, total, text))

    def keep(self, value: Any) -> None:
        self.said.append(value)


class TravellingCall(FakeCall):
    """A call of one of this module's tasks."""

    def __init__(self, task: str, *args: Any, record: JobRecord | None = None, **kwargs: Any) -> None:
        self.definition, fn, _ = app.bodies()[task]
        super().__init__(fn, *args)
        self.task, self.kwargs = task, kwargs
        self.record = record or JobRecord(self.job_id, task, args, kwargs, self.definition.options)

    def payload(self) -> bytes:
        return encode_call(self.definition, self.args, self.kwargs)

    def meta(self) -> dict[str, Any]:
        return meta_of(self.record, 2)

    def read_result(self, data: bytes) -> Any:
        return result_codec(self.definition).read(data)


def there_and_back(call: TravellingCall, *, pickles: bool = True, ear: Ear | None = None) -> Outcome:
    """Run a call as another process would, by its bytes alone."""
    body = Bodies(app).take(Request.read(request_of(call)), ear or Ear())
    return outcome_of(call, run(body, pickles=pickles))


def test_arguments_and_results_have_their_types_on_both_sides() -> None:
    """A body gets what its hints say, wherever it runs, and so does who awaits it."""
    outcome = there_and_back(TravellingCall("next_day", date(2026, 2, 28), days=1))
    assert (outcome.kind, outcome.result) == (OutcomeKind.DONE, date(2026, 3, 1))
    assert there_and_back(TravellingCall("later", "å\n€")).result == "å\n€"


def test_a_body_elsewhere_knows_its_job_and_is_heard() -> None:
    """`current_job()` is the same in every place."""
    call = TravellingCall("tell")
    call.record.checkpoint, call.record.failures = [1], 1
    call.record.origin = Origin("hourly", 1, 0, 4)
    ear = Ear()
    outcome = there_and_back(call, ear=ear)
    assert outcome.result == [call.job_id, "tell", 2, 1, 4, None, {"at": 7}]
    assert ear.said == [(1, 2, "half"), {"at": 7}]
    with pytest.raises(NoCurrentJob):
        current_job()


def test_a_result_that_is_no_json_leaves_the_job_done_with_a_reason() -> None:
    """It has run; running it again would not help."""
    outcome = there_and_back(TravellingCall("unwritable"))
    assert (outcome.kind, outcome.result) == (OutcomeKind.DONE, None)
    assert outcome.info is not None
    assert outcome.info.type_name == "ResultNotSerializable"


def test_a_command_that_nobody_has_run_is_no_result() -> None:
    """Elsewhere, too, the job would be done with nothing having been run."""
    outcome = there_and_back(TravellingCall("plan"))
    assert outcome.kind is OutcomeKind.REJECTED
    assert "nothing has run that" in (outcome.reason or "")


def test_an_argument_that_is_no_json_is_named_before_anything_is_sent() -> None:
    """The one who submits can mend it; a process elsewhere could not."""
    with pytest.raises(InvalidArguments, match="day"):
        request_of(TravellingCall("next_day", object()))


def test_a_task_that_the_other_side_does_not_know_is_told() -> None:
    """Another version of the code may run there."""
    request = Request.read(request_of(TravellingCall("tell")))
    with pytest.raises(Orphaned, match="elsewhere"):
        Bodies(app).take(request._replace(task="elsewhere"), Ear())


@pytest.mark.parametrize(
    ("error", "says"), [(SystemExit(3), "SystemExit: 3"), (ImportError("no such"), "ImportError: no such")]
)
def test_module_that_cannot_be_loaded_there_refuses_its_jobs(
    error: BaseException, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One that ends its interpreter would end a process there with each retry; the log there tells the line."""

    def load() -> Bodies:
        raise error

    call = TravellingCall("tell")
    answer = take_or_answer(load, Request.read(request_of(call)), Ear(), "worker of theirs")
    assert isinstance(answer, bytes)
    outcome = outcome_of(call, answer)
    assert outcome.kind is OutcomeKind.REJECTED
    assert outcome.reason == f"it cannot be run by this worker of theirs: {says}"
    assert outcome.info is not None
    assert outcome.info.type_name == "Unloadable"
    assert f"a job of {call.task} cannot be run by this worker of theirs" in caplog.text
    assert "in load\n    raise error" in caplog.text


@pytest.mark.parametrize("pickles", [True, False])
def test_an_exception_that_survives_the_way_travels_as_itself(pickles: bool) -> None:
    """Whoever catches its type shall find it; over a broker nothing is unpickled."""
    outcome = there_and_back(TravellingCall("wrong", "plain"), pickles=pickles)
    assert outcome.kind is OutcomeKind.RAISED
    assert type(outcome.error) is (Plain if pickles else RaisedElsewhere)
    assert outcome.info is not None
    assert outcome.info[:2] == ("Plain", "broken")
    assert "in wrong" in outcome.info.traceback_text


def test_an_exception_that_cannot_be_rebuilt_travels_in_words_and_is_retried_by_its_classes() -> None:
    """`Retry(on=OSError)` must mean the same in every place."""
    outcome = there_and_back(TravellingCall("wrong", "odd"))
    assert isinstance(outcome.error, RaisedElsewhere)
    assert str(outcome.error) == "Odd: /x is odd (3)"

    def verdict(retry: Retry) -> FinishKind:
        return judge(outcome, failures=0, retry=retry, cancel_requested=False, rng=Random(1)).kind

    assert verdict(Retry(on=OSError, attempts=2)) is FinishKind.RETRY
    assert verdict(Retry(on=Odd, attempts=2)) is FinishKind.RETRY
    assert verdict(Retry(on=ValueError, attempts=2)) is FinishKind.FAILED
    final = judge(outcome, failures=0, retry=NO_RETRY, cancel_requested=False, rng=Random(1))
    assert final.error is not None
    assert (final.error.type_name, final.reason) == ("Odd", "Odd: /x is odd (3)")
    assert "in wrong" in final.error.traceback_text


def test_system_exit_elsewhere_ends_nothing_here() -> None:
    """In this process it ends the app; of another it is that body's failure."""
    outcome = there_and_back(TravellingCall("wrong", "exit"))
    assert isinstance(outcome.error, RaisedElsewhere)
    assert outcome.error.type_name == "SystemExit"


@pytest.mark.parametrize("pickles", [True, False])
def test_verbs_of_a_body_keep_their_meaning(pickles: bool) -> None:
    """`raise Snooze(60)` steers the job from any place."""
    snooze = there_and_back(TravellingCall("wrong", "snooze"), pickles=pickles)
    assert isinstance(snooze.error, Snooze)
    assert snooze.error.delay == 60
    discard = there_and_back(TravellingCall("wrong", "discard"), pickles=pickles)
    assert isinstance(discard.error, Discard)
    assert there_and_back(TravellingCall("wrong", "cancelled")).kind is OutcomeKind.CANCELLED
