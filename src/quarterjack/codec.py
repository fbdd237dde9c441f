"""Arguments and results as JSON: what a durable store keeps, and what strict apps check on memory too.

Never pickles, never code. Arguments are decoded against the task's own type
hints with pydantic, so what a body gets has the types it declared; a call that
does not fit is refused where it was submitted."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from .errors import InvalidArguments
from .model import NO_KWARGS, ErrorInfo
from .task import TaskDefinition

__all__ = ["CallCodec", "ResultCodec"]


class CallCodec:
    """Encodes and decodes the arguments of one task."""

    __slots__ = ("_adapters", "_definition", "_signature")

    def __init__(self, definition: TaskDefinition) -> None:
        self._definition = definition
        self._signature = definition.signature  # dependencies fill the others, and those are no data
        hints = definition.hints.known
        self._adapters: dict[str, TypeAdapter[Any]] = {
            name: _adapter(hints.get(name, Any)) for name in self._signature.parameters
        }

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Return the arguments as JSON: ``{"args": […], "kwargs": {…}}``.

        Raises:
            InvalidArguments: If one cannot be written as JSON.
        """
        try:
            return to_json({"args": args, "kwargs": dict(kwargs)})
        except PydanticSerializationError as error:
            raise InvalidArguments(
                f"the arguments of {self._definition.name} cannot be written as JSON: {error}; "
                "pass ids, numbers, texts, or pydantic models instead of live objects"
            ) from None

    def round_trip(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Return the arguments as a body gets them after a durable store kept them.

        Raises:
            InvalidArguments: If they cannot be written as JSON, or do not fit the type hints.
        """
        self.encode(args, kwargs)
        bound = self._signature.bind_partial(*args, **kwargs)
        for name, value in bound.arguments.items():
            bound.arguments[name] = self._decode(name, value)
        return bound.args, bound.kwargs or NO_KWARGS

    def _decode(self, name: str, value: Any) -> Any:
        kind = self._signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            return tuple(self._decode_one(name, item) for item in value)
        if kind is inspect.Parameter.VAR_KEYWORD:
            return {key: self._decode_one(name, item) for key, item in value.items()}
        return self._decode_one(name, value)

    def _decode_one(self, name: str, value: Any) -> Any:
        try:
            return self._adapters[name].validate_json(to_json(value))
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


class ResultCodec:
    """Takes the results of one task through JSON, as a durable store will."""

    __slots__ = ("_adapter",)

    def __init__(self, definition: TaskDefinition) -> None:
        self._adapter = _adapter(definition.hints.known.get("return", Any))

    def decode(self, value: Any) -> Any:
        """Return stored JSON as the return hint says; as it is if it does not fit."""
        try:
            return self._adapter.validate_json(to_json(value))
        except ValidationError:
            return value

    def round_trip(self, value: Any, max_bytes: int) -> Any:
        """Return *value* as whoever awaits the job gets it after a durable store kept it.

        It is decoded against the task's return hint; a result that does not fit its hint
        comes back as plain JSON, as the body has run and its hint is no reason to fail it.

        Raises:
            ValueError: Carrying an `ErrorInfo`, if it is no JSON or takes more than *max_bytes*.
        """
        try:
            encoded = to_json(value)
        except PydanticSerializationError as error:
            raise ValueError(ErrorInfo("ResultNotSerializable", f"its result is not JSON: {error}")) from None
        if len(encoded) > max_bytes:
            text = f"its result is {len(encoded)} bytes of JSON, max_result_bytes is {max_bytes}"
            raise ValueError(ErrorInfo("ResultTooLarge", text))
        try:
            return self._adapter.validate_json(encoded)
        except ValidationError:
            return from_json(encoded)
