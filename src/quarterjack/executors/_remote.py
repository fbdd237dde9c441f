"""Bodies in other processes: what travels there, how it is run there, and what comes back.

Both ends, once for every remote executor. Here: `request_of` makes one message of
a call, `outcome_of` reads the answer. There: `Bodies.of` loads the app, `take`
finds the body that a request names, `run` or `run_async` runs it, and what they
return is the answer.

    request   one line of JSON (task, limits, what ``current_job()`` tells), then the arguments as JSON
    answer    one line of JSON (how it ended, and what it raised in words), then the result as JSON,
              or the exception itself

Functions and results are never pickled. An exception travels as its type, its
text and its traceback; as itself only where the answer comes straight from a
process of our own (*pickles*), and only if it survived the way there and back in
that process. Whoever reads an answer imports nothing for it."""

from __future__ import annotations

import asyncio
import io
import logging
import pickle
import sys
import traceback
from collections.abc import Callable, Mapping
from contextvars import Context
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from pydantic_core import PydanticSerializationError, from_json, to_json

from quarterjack import errors
from quarterjack._durations import to_seconds
from quarterjack.codec import encode_result, read_call
from quarterjack.command import unrun
from quarterjack.errors import BodyDied, InvalidArguments, Orphaned, RaisedElsewhere
from quarterjack.model import ErrorInfo, Outcome, OutcomeKind
from quarterjack.task import TaskDefinition

from .base import Call
from .elsewhere import Elsewhere, Told

__all__ = [
    "Answer",
    "Bodies",
    "Body",
    "Relayed",
    "Request",
    "in_figures",
    "in_words",
    "outcome_of",
    "request_of",
    "run",
    "run_async",
    "take_or_answer",
]

log = logging.getLogger("quarterjack.executors")

_HERE: Final = str(Path(__file__).parent)
MAIN_ELSEWHERE: Final = "__mp_main__"
"""What the program's own module is called in another process, as multiprocessing has it."""


# -- here: what goes out ---------------------------------------------------------------


def request_of(call: Call) -> bytes:
    """Return a call as bytes.

    Raises:
        InvalidArguments: If an argument cannot be written as JSON.
    """
    head = {
        "ref": call.ref,
        "task": call.task,
        "deadline_ns": call.deadline_ns,
        "max_result_bytes": call.max_result_bytes,
        "meta": call.meta(),
    }
    try:
        return to_json(head) + b"\n" + call.payload()
    except PydanticSerializationError as error:
        text = f"the metadata or the checkpoint of a job of {call.task} cannot be written as JSON: {error}"
        raise InvalidArguments(text) from None


# -- there: finding the body -------------------------------------------------------------


class Request(NamedTuple):
    """A call, as it arrived."""

    ref: str
    task: str
    deadline_ns: int | None
    max_result_bytes: int | None
    meta: Mapping[str, Any]
    arguments: bytes

    @classmethod
    def read(cls, data: bytes) -> Request:
        """Return the call that `request_of` wrote."""
        line, _, arguments = data.partition(b"\n")
        head = from_json(line)
        deadline_ns, max_bytes = head["deadline_ns"], head["max_result_bytes"]
        return cls(head["ref"], head["task"], deadline_ns, max_bytes, head["meta"], arguments)


class HasBodies(Protocol):
    """What an app has for other processes."""

    def bodies(self) -> Mapping[str, tuple[TaskDefinition, Callable[..., Any], bool]]:
        """Return each task's definition, its body with dependencies and wrappers, and whether that is a coroutine."""
        ...


class Body(NamedTuple):
    """A body and its arguments, ready to run in this process."""

    request: Request
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_coroutine: bool
    context: Context
    job: Elsewhere


class Bodies:
    """The bodies of an app's tasks, in a process that does not run the app."""

    def __init__(self, app: HasBodies) -> None:
        self._by_name = app.bodies()

    def take(self, request: Request, told: Told) -> Body:
        """Return the body that a request names; what it says of itself goes to *told*.

        Raises:
            Orphaned: If the app has no such task here, or the arguments do not fit it.
        """
        known = self._by_name.get(request.task)
        if known is None:
            raise Orphaned(request.task, "the process that was to run it does not know the task")
        definition, fn, is_coroutine = known
        args, kwargs = read_call(definition, request.arguments)
        job = Elsewhere(request.task, request.meta, told)
        return Body(request, fn, args, kwargs, is_coroutine, job.context(), job)


def take_or_answer(load: Callable[[], Bodies], request: Request, told: Told, where: str) -> Body | bytes:
    """Return the body that a request names, or the answer that it cannot be run there, which the log there tells, too.

    Args:
        load: Returns the app's bodies; it may import the user's module.
        request: What is asked.
        told: Who hears what the body says.
        where: What runs bodies here, in words.
    """
    try:
        return load().take(request, told)
    except Orphaned as error:
        return Answer.orphaned(error.why)
    except (Exception, SystemExit) as error:  # the user's module is loaded here, and may end its interpreter
        log.exception("a job of %s cannot be run by this %s", request.task, where)
        why = "".join(traceback.format_exception_only(error)).strip()
        return Answer.rejected(f"it cannot be run by this {where}: {why}", error)


# -- there: running it -------------------------------------------------------------------


def run(body: Body, *, pickles: bool = False) -> bytes:
    """Run a body to its end, a coroutine function on a loop of its own; return the answer, never raise."""
    try:
        if body.is_coroutine:
            with asyncio.Runner() as runner:
                return runner.run(run_async(body, pickles=pickles), context=body.context)
        result = body.context.run(body.fn, *body.args, **body.kwargs)
    except BaseException as error:  # the user's code ran here, and whatever it raised is its job's outcome
        return Answer.raised(error, pickles=pickles)
    return Answer.returned(result, body.request.max_result_bytes)


async def run_async(body: Body, *, pickles: bool = False) -> bytes:
    """Run a body that is a coroutine function, in the task that calls; return the answer."""
    try:
        result = await body.fn(*body.args, **body.kwargs)
    except BaseException as error:  # likewise; SystemExit must not pass through asyncio
        return Answer.raised(error, pickles=pickles)
    return Answer.returned(result, body.request.max_result_bytes)


class Answer:
    """Makes the bytes that say how a body ended."""

    @staticmethod
    def returned(result: Any, max_bytes: int | None) -> bytes:
        """The body returned."""
        if (why := unrun(result)) is not None:
            return Answer.rejected(why)
        try:
            return b'{"kind":"done"}\n' + encode_result(result, max_bytes)
        except ValueError as error:
            info: ErrorInfo = error.args[0]
            return to_json({"kind": "done", "problem": info[:2]}) + b"\nnull"

    @staticmethod
    def raised(error: BaseException, *, pickles: bool) -> bytes:
        """The body raised."""
        if isinstance(error, asyncio.CancelledError):
            return Answer.cancelled("the body raised CancelledError")
        head: dict[str, Any] = {
            "kind": "raised",
            "type": type(error).__qualname__,
            "text": text_of(error),
            "traceback": trace_of(error),
            "kinds": [_kind_name(kind) for kind in type(error).__mro__[:-1]],
        }
        own = _own_error(error)
        if own is not None:
            head["own"] = own
        itself = _pickled(error) if pickles and own is None and isinstance(error, Exception) else b""
        return to_json(head) + b"\n" + itself

    @staticmethod
    def cancelled(reason: str) -> bytes:
        """The body was interrupted, or interrupted itself."""
        return to_json({"kind": "cancelled", "reason": in_words(reason)}) + b"\n"

    @staticmethod
    def missed(reason: str) -> bytes:
        """It was too late for the body to begin."""
        return to_json({"kind": "missed", "reason": reason}) + b"\n"

    @staticmethod
    def orphaned(why: str) -> bytes:
        """The body is not known there, or takes other arguments: another version of the app may run it."""
        return to_json({"kind": "orphaned", "reason": in_words(why)}) + b"\n"

    @staticmethod
    def died(code: int | None, hint: str) -> bytes:
        """The body's process ended under it."""
        return to_json({"kind": "died", "code": code, "hint": hint}) + b"\n"

    @staticmethod
    def lost(why: str) -> bytes:
        """Whoever could know what became of the body is out of reach."""
        return to_json({"kind": "lost", "reason": why}) + b"\n"

    @staticmethod
    def rejected(why: str, error: BaseException | None = None, *, trace: str = "") -> bytes:
        """The body cannot be run there."""
        trace = trace if error is None else trace_of(error)
        return to_json({"kind": "rejected", "why": in_words(why), "traceback": trace}) + b"\n"


def in_words(text: str) -> str:
    """Return a text that JSON takes: half a surrogate pair, as in the name of a file, is written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def in_figures(done: float, total: float | None, text: str) -> tuple[float, float | None, str]:
    """Return what a body says of its progress as JSON takes it: numbers of a library become Python's."""
    return _plain_number(done), None if total is None else _plain_number(total), in_words(text)


def _plain_number(value: float) -> float:
    return value if type(value) in {int, float} else float(value)


def text_of(error: BaseException) -> str:
    """Return an exception's text; its own ``__str__`` may raise."""
    try:
        return in_words(str(error))
    except Exception as unprintable:  # a user's code runs here
        return f"(its text cannot be had: {type(unprintable).__name__})"


def trace_of(error: BaseException) -> str:
    """Return an exception's traceback in words, from the first line that is not of this package."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_HERE):
        tb = tb.tb_next
    text = "".join(traceback.TracebackException(type(error), error, tb).format())
    return in_words(text.replace(f"{MAIN_ELSEWHERE}.", ""))


def _kind_name(kind: type) -> str:
    module = "__main__" if kind.__module__ == MAIN_ELSEWHERE else kind.__module__
    return f"{module}.{kind.__qualname__}"


def _own_error(error: BaseException) -> list[Any] | None:
    """Return one of our errors, such as `Snooze`, as its name and its fields; None if it is another."""
    if type(error).__module__ != errors.__name__:
        return None
    seconds = [to_seconds(one, "delay") if hasattr(one, "total_seconds") else one for one in error.args]
    fields = [in_words(one) if isinstance(one, str) else one for one in seconds]
    return [type(error).__name__, *fields] if all(isinstance(one, _PLAIN) for one in fields) else None


_PLAIN: Final = (str, int, float, type(None))


def _pickled(error: BaseException) -> bytes:
    """Return an exception as itself, if it survives that; else nothing."""
    try:
        data = pickle.dumps(error)
        again = pickle.loads(data)  # noqa: S301  # made in the line before
        return data if type(again) is type(error) and text_of(again) == text_of(error) else b""
    except Exception:  # a user's code runs here: most classes with an __init__ of their own do not survive
        return b""


# -- here: what came back ----------------------------------------------------------------


_IN_WORDS: Final = frozenset({"cancelled", "missed", "orphaned", "lost"})
"""Ends of which there is a reason, and nothing more."""


class Relayed:
    """A call that came from elsewhere, where its answer is awaited: here that is its result, as it is."""


def outcome_of(call: Call, data: bytes) -> Outcome:
    """Return how a body ended, from its answer; a result that cannot be read here is what the body raised."""
    if isinstance(call, Relayed):
        return Outcome(OutcomeKind.DONE, data)
    try:
        return _read(call, data)
    except Exception as error:  # the result's type is the user's code
        return Outcome(OutcomeKind.RAISED, error=error)


def _read(call: Call, data: bytes) -> Outcome:
    line, _, rest = data.partition(b"\n")
    head: dict[str, Any] = from_json(line)
    kind = head["kind"]
    if kind == "done":
        problem = head.get("problem")
        result = call.read_result(rest)
        return Outcome(OutcomeKind.DONE, result, info=None if problem is None else ErrorInfo(*problem))
    if kind in _IN_WORDS:
        return Outcome(OutcomeKind(kind), reason=head["reason"])
    if kind == "rejected":
        info = ErrorInfo("Unloadable", head["why"], head["traceback"])
        return Outcome(OutcomeKind.REJECTED, reason=head["why"], info=info)
    if kind == "died":
        error = BodyDied(head["code"], head["hint"])
        return Outcome(OutcomeKind.DIED, error=error, reason=str(error))
    return _raised(head, rest)


def _raised(head: Mapping[str, Any], itself: bytes) -> Outcome:
    error: BaseException | None = None
    if "own" in head:
        name, *fields = head["own"]
        error = getattr(errors, name)(*fields)
    elif itself:
        error = _unpickled(itself)
    words = head["type"], head["text"], head["traceback"]
    info = ErrorInfo(*words, error)
    if error is None:
        error = RaisedElsewhere(*words, tuple(head["kinds"]))
    return Outcome(OutcomeKind.RAISED, error=error, info=info)


class _Known(pickle.Unpickler):
    """Knows classes of modules that are loaded here, and imports none."""

    def find_class(self, module: str, name: str) -> Any:
        found: Any = sys.modules["__main__" if module == MAIN_ELSEWHERE else module]
        for part in name.split("."):
            found = getattr(found, part)
        return found


def _unpickled(data: bytes) -> BaseException | None:
    try:
        error = _Known(io.BytesIO(data)).load()
    except Exception:  # its module is not loaded here, or is another version: its words do
        return None
    return error if isinstance(error, Exception) else None
