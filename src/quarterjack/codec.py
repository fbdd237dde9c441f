"""Arguments and results as JSON: what a durable store keeps, and what strict apps check on memory too.

Never pickles, never code. Arguments are decoded against the task's own type
hints with pydantic, so what a body gets has the types it declared; a call that
does not fit is refused where it was submitted. What was stored and fits no more
when it is to run (another version of the code) is `Orphaned`, and stays stored.

A call stays as it was written: what was given by position comes back by position,
what was given by name by name, so that strategies see the same on every store.

Values that JSON gives back as they are, under a hint that says so, are passed
through: most calls are, and cost a tenth of what the way through JSON does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from types import NoneType
from typing import Any, Final

from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from ._payload import MAX_ARGUMENT_BYTES, Unreadable, no_json, too_large
from .command import Command
from .errors import InvalidArguments, Orphaned
from .model import NO_KWARGS, ErrorInfo, JobRecord
from .options import runs_commands
from .task import TaskDefinition

__all__ = [
    "CallCodec",
    "ResultCodec",
    "decode_call",
    "decode_result",
    "encode_call",
    "encode_result",
    "give_types",
    "plain_checkpoint",
    "read_call",
    "result_codec",
]

Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]

_SAME: Final = frozenset({int, str, bool, float, NoneType})
"""Types whose values JSON gives back as they are."""
_BY_POSITION: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME: Final = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_SHORT: Final = 1_000
"""So many characters of ASCII are looked at no further."""


def decode_call(definition: TaskDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """Return the arguments that a body gets, from those a durable store gave back.

    Raises:
        Orphaned: If they cannot be read, or do not fit the task as it is here.
    """
    return _calls(definition).decode(args, kwargs)


def encode_call(definition: TaskDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """Return arguments as the JSON that travels to another process: ``[args, kwargs]``.

    Raises:
        InvalidArguments: If one cannot be written as JSON.
    """
    try:
        return to_json((args, kwargs))
    except PydanticSerializationError:
        for name, value in definition.signature.bind_partial(*args, **kwargs).arguments.items():
            try:
                to_json(value)
            except PydanticSerializationError as error:
                raise InvalidArguments(no_json(definition.name, name, value, error)) from None
        raise


def read_call(definition: TaskDefinition, data: bytes) -> Arguments:
    """Return the arguments that a body gets, from what `encode_call` made in another process.

    Raises:
        Orphaned: If they do not fit the task as it is here.
    """
    args, kwargs = from_json(data)
    return decode_call(definition, tuple(args), kwargs)


def encode_result(value: Any, max_bytes: int | None) -> bytes:
    """Return a result as JSON.

    Raises:
        ValueError: Carrying an `ErrorInfo`, if it is no JSON or takes more than *max_bytes*.
    """
    try:
        encoded = to_json(value)
    except PydanticSerializationError as error:
        raise ValueError(ErrorInfo("ResultNotSerializable", f"its result is not JSON: {error}")) from None
    if max_bytes is not None and len(encoded) > max_bytes:
        text = f"its result is {len(encoded)} bytes of JSON, max_result_bytes is {max_bytes}"
        raise ValueError(ErrorInfo("ResultTooLarge", text))
    return encoded


def decode_result(definition: TaskDefinition | None, value: Any) -> Any:
    """Return the result that whoever awaits a job gets, from the plain JSON value that a durable store gave back.

    It is decoded against the task's return hint; one that does not fit it, or whose task is
    not known here, is returned as it is.
    """
    return value if definition is None else result_codec(definition).decode(value)


def give_types(definition: TaskDefinition, record: JobRecord) -> None:
    """Turn the plain JSON values of a row into those that the hints of its task say, as far as they fit."""
    if record.result is not None:
        record.result = decode_result(definition, record.result)
    try:
        record.args, record.kwargs = decode_call(definition, record.args, record.kwargs)
    except Orphaned:  # shown as they are: whether it can run is asked where it is to run
        pass


def plain_checkpoint(task: str, value: Any, max_bytes: int = MAX_ARGUMENT_BYTES) -> Any:
    """Return the plain JSON value that the next attempt gets of a checkpoint; later changes of *value* do not touch it.

    Raises:
        InvalidArguments: If it cannot be written as JSON, or takes more than *max_bytes*.
    """
    try:
        data = to_json(value)
    except PydanticSerializationError as error:
        raise InvalidArguments(no_json(task, "checkpoint", value, error, "")) from None
    if len(data) > max_bytes:
        raise InvalidArguments(
            f"the checkpoint of a job of {task} takes {len(data)} bytes of JSON, and a store takes up to {max_bytes}: "
            "keep where the work stands, and the work itself elsewhere"
        )
    return from_json(data)


class CallCodec:
    """Encodes and decodes the arguments of one task."""

    __slots__ = (
        "_adapters",
        "_by_name",
        "_by_position",
        "_definition",
        "_max_bytes",
        "_named_rest",
        "_rest",
        "_signature",
        "_types",
    )

    def __init__(self, definition: TaskDefinition, max_bytes: int = MAX_ARGUMENT_BYTES) -> None:
        self._definition = definition
        self._max_bytes = max_bytes
        self._signature = definition.signature  # dependencies fill the others, and those are no data
        hints = definition.hints.known
        parameters = self._signature.parameters
        self._adapters = {name: _adapter(hints.get(name, Any)) for name in parameters}
        self._types = (
            () if definition.positional is None else tuple(_type_of(hints.get(name, Any)) for name in parameters)
        )
        """For each parameter, where all can be given by position: the type that comes through JSON as it is."""
        self._by_position = [name for name, one in parameters.items() if one.kind in _BY_POSITION]
        self._by_name = frozenset(name for name, one in parameters.items() if one.kind in _BY_NAME)
        kinds = {one.kind: name for name, one in parameters.items()}
        self._rest = kinds.get(inspect.Parameter.VAR_POSITIONAL, "")
        self._named_rest = kinds.get(inspect.Parameter.VAR_KEYWORD, "")

    def round_trip(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """Return the arguments as a body gets them after a durable store kept them.

        Raises:
            InvalidArguments: If they cannot be written as JSON, are too large, or do not fit the type hints.
        """
        if not kwargs and len(args) <= len(self._types) and all(map(_passes, args, self._types)):
            return args, NO_KWARGS
        self._definition.check_call(args, kwargs)
        size = 0

        def through(name: str, value: Any) -> Any:
            nonlocal size
            try:
                data = to_json(value)
            except PydanticSerializationError as error:
                raise InvalidArguments(no_json(self._definition.name, name, value, error)) from None
            size += len(data)
            return self._validated(name, value, data)

        found = self._each(args, kwargs, through)
        if size > self._max_bytes:
            given = self._signature.bind_partial(*args, **kwargs).arguments
            raise InvalidArguments(too_large(self._definition.name, given, size, self._max_bytes))
        return found

    def decode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """Return the arguments that a body gets, from plain JSON values.

        Raises:
            Orphaned: If they cannot be read, or do not fit the task as it is here.
        """
        if type(args) is Unreadable:
            raise Orphaned(self._definition.name, f"its arguments cannot be read: {args.reason}")
        bounds = self._definition.positional
        if not kwargs and bounds is not None and bounds[0] <= len(args) <= bounds[1]:
            for value, expected in zip(args, self._types, strict=False):
                if expected is not Any and type(value) is not expected:
                    break
            else:
                return args, NO_KWARGS
        try:
            self._signature.bind(*args, **kwargs)
            return self._each(args, kwargs, self._plain)
        except (TypeError, InvalidArguments) as error:  # both are: an argument too many or too few is the former
            why = f"its arguments do not fit {self._definition.name}{self._signature} here: {error}"
            raise Orphaned(self._definition.name, why) from None

    def _plain(self, name: str, value: Any) -> Any:
        return self._validated(name, value, to_json(value))

    def _each(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], decode: Callable[[str, Any], Any]) -> Arguments:
        """Return arguments that fit, each as *decode* makes it of the name of its parameter and its value."""
        names = chain(self._by_position, repeat(self._rest))
        given = tuple(decode(name, value) for name, value in zip(names, args, strict=False))
        if not kwargs:
            return given, NO_KWARGS
        by_name = self._by_name
        return given, {
            name: decode(name if name in by_name else self._named_rest, value) for name, value in kwargs.items()
        }

    def _validated(self, name: str, value: Any, data: bytes) -> Any:
        try:
            return self._adapters[name].validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (name, *first["loc"]))
            raise InvalidArguments(
                f"argument {where} of {self._definition.name}: {first['msg']}, got {value!r}"
            ) from None


def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint)
    except (PydanticUserError, PydanticUndefinedAnnotation):  # no type of pydantic's: taken as it is
        return TypeAdapter(Any)


def _type_of(hint: Any) -> Any:
    """Return the type whose values pass a hint unchanged; Any where all do, and a type of nothing where none does."""
    if hint is None:
        return NoneType
    return hint if hint is Any or (isinstance(hint, type) and hint in _SAME) else _Nothing


class _Nothing:
    """A type that no value has."""


def _passes(value: Any, expected: Any) -> bool:
    """Say whether *value* comes back from JSON as it is, and fits its parameter; and takes next to no room."""
    if type(value) is not expected and (expected is not Any or type(value) not in _SAME):
        return False
    return type(value) is not str or (len(value) < _SHORT and value.isascii())


class ResultCodec:
    """Takes the results of one task through JSON, as a durable store will."""

    __slots__ = ("_adapter", "_type")

    def __init__(self, definition: TaskDefinition) -> None:
        hint = definition.hints.known.get("return", Any)
        if runs_commands(definition.options.executor):  # its body returns what to run, and gets that back as it ran
            hint = Command
        self._adapter, self._type = _adapter(hint), _type_of(hint)

    def round_trip(self, value: Any, max_bytes: int) -> Any:
        """Return *value* as whoever awaits the job gets it after a durable store kept it.

        It is decoded against the task's return hint; a result that does not fit its hint
        comes back as plain JSON, as the body has run and its hint is no reason to fail it.

        Raises:
            ValueError: Carrying an `ErrorInfo`, if it is no JSON or takes more than *max_bytes*.
        """
        if _passes(value, self._type) and max_bytes >= _SHORT * 2:
            return value
        return self.read(encode_result(value, max_bytes))

    def decode(self, value: Any) -> Any:
        """Return the result from its plain JSON value, against the task's return hint if it fits that."""
        if self._type is Any or type(value) is self._type or type(value) is Unreadable:
            return value
        return self.read(to_json(value))

    def read(self, data: bytes) -> Any:
        """Return the result from its JSON, against the task's return hint if it fits that."""
        try:
            return self._adapter.validate_json(data)
        except ValidationError:
            return from_json(data)


# -- one of each per task ----------------------------------------------------------------


def _calls(definition: TaskDefinition) -> CallCodec:
    codec: CallCodec | None = definition.codecs[0]
    if codec is None:
        codec = definition.codecs[0] = CallCodec(definition)
    return codec


def result_codec(definition: TaskDefinition) -> ResultCodec:
    """Return what takes the results of a task through JSON."""
    codec: ResultCodec | None = definition.codecs[1]
    if codec is None:
        codec = definition.codecs[1] = ResultCodec(definition)
    return codec
