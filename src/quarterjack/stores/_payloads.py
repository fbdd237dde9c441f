"""Users' data on its way into rows and out of them: JSON, through the app's codec if it has one.

A payload is bytes: JSON as it is, or a byte that no JSON begins with and then
what the codec made of it. So rows that were written before there was a codec
stay readable, and those that need one are told from broken ones."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from pydantic_core import PydanticSerializationError, from_json, to_json

from quarterjack._payload import PayloadCodec, Unreadable, json_size, no_json, too_large
from quarterjack.errors import InvalidArguments, StoreError
from quarterjack.model import NO_KWARGS, ErrorInfo, Progress

__all__ = ["Payloads", "cleaned"]

_CODED: Final = b"\x01"
"""What a payload begins with that passed a codec."""
_CODED_TEXT: Final = "\x01"
"""What a reason begins with that passed a codec; the rest is that in base64."""


class _UnreadableError(ErrorInfo):
    """An error whose words could not be read."""

    raw: bytes


class _UnreadableProgress(Progress):
    """A progress that could not be read."""

    raw: bytes


class _UnreadableReason(str):
    """A reason that could not be read."""

    __slots__ = ("raw",)

    raw: str


class Payloads:
    """Writes and reads payloads; None is nothing, and kept as nothing."""

    __slots__ = ("_codec", "_max_argument_bytes")

    def __init__(self, codec: PayloadCodec | None, max_argument_bytes: int) -> None:
        self._codec = codec
        self._max_argument_bytes = max_argument_bytes

    # -- any value -----------------------------------------------------------------------

    def packed(self, value: Any) -> bytes | None:
        """Return *value* as a store keeps it.

        Raises:
            ValueError: If it cannot be written as JSON.
            StoreError: If the codec raises.
        """
        if value is None:
            return None
        return value.raw if type(value) is Unreadable else self._coded(to_json(value))

    def unpacked(self, data: bytes | None) -> Any:
        """Return the value that *data* stands for; an `Unreadable` if it cannot be read."""
        if data is None:
            return None
        try:
            return from_json(data if data[:1] != _CODED else self._decoded(data))
        except StoreError as error:
            return Unreadable(data, str(error))
        except ValueError as error:
            return Unreadable(data, f"it is no JSON: {error}")

    def _coded(self, data: bytes) -> bytes:
        if self._codec is None:
            return data
        try:
            return _CODED + self._codec.encode(data)
        except Exception as error:  # a codec of the user's may raise anything
            name = type(self._codec).__name__
            raise StoreError(f"the codec {name} cannot write a payload: {type(error).__name__}: {error}") from error

    def _decoded(self, data: bytes) -> bytes:
        if self._codec is None:
            raise StoreError("it was written through a codec, and this app has none; give it Quarterjack(codec=…)")
        try:
            return self._codec.decode(data[1:])
        except Exception as error:  # a codec of the user's may raise anything
            name = type(self._codec).__name__
            raise StoreError(f"the codec {name} cannot read it: {type(error).__name__}: {error}") from error

    # -- those with a shape --------------------------------------------------------------

    def call(self, task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes | None:
        """Return the arguments of a call as a store keeps them: ``[[…], {…}]``, or None if there are none.

        Raises:
            InvalidArguments: If one is no JSON, or together they are too large.
            StoreError: If the codec raises.
        """
        if type(args) is Unreadable:
            return args.raw
        if not args and not kwargs:
            return None
        try:
            data = to_json((args, kwargs))
        except PydanticSerializationError as error:
            raise InvalidArguments(_no_json(task, args, kwargs, error)) from None
        if len(data) > self._max_argument_bytes:
            raise InvalidArguments(too_large(task, _arguments(args, kwargs), len(data), self._max_argument_bytes))
        return self._coded(data) if self._codec is not None else data

    def call_of(self, data: bytes | None) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Return the arguments of a call, as plain JSON values; an `Unreadable` and none by name where they are not."""
        if data is None:
            return (), NO_KWARGS
        found = self.unpacked(data)
        if type(found) is Unreadable:
            return found, NO_KWARGS
        try:
            args, kwargs = found
            return tuple(args), kwargs or NO_KWARGS
        except (TypeError, ValueError):
            return Unreadable(data, "its arguments are no pair of a list and an object"), NO_KWARGS

    def result(self, value: Any) -> tuple[bytes | None, ErrorInfo | None]:
        """Return a result as a store keeps it, and what is wrong with it where it cannot be kept."""
        try:
            return self.packed(value), None
        except (ValueError, StoreError) as error:
            return None, ErrorInfo("ResultNotSerializable", f"its result is not JSON: {error}")

    def outcome(
        self, result: Any, error: ErrorInfo | None, reason: str | None
    ) -> tuple[bytes | None, bytes | None, str | None]:
        """Return the result, the error and the reason of an end as a store keeps them.

        A result that cannot be kept is an error of the result, in place of any other.
        """
        data = None
        if result is not None:
            data, problem = self.result(result)
            error = problem or error
        return data, None if error is None else self.error(error), None if reason is None else self.reason(reason)

    def error(self, error: ErrorInfo | None) -> bytes | None:
        """Return the words of an error as a store keeps them; the exception itself stays behind."""
        if error is None:
            return None
        if type(error) is _UnreadableError:
            return error.raw
        return self._words(list(error[:3]))

    def error_of(self, data: bytes | None) -> ErrorInfo | None:
        """Return the error that *data* stands for."""
        if data is None:
            return None
        found = self._shaped(data, ErrorInfo)
        if type(found) is not Unreadable:
            return ErrorInfo(*found)
        unreadable = _UnreadableError("UnreadableError", f"what it raised cannot be read: {found.reason}")
        unreadable.raw = found.raw
        return unreadable

    def progress(self, progress: Progress | None) -> bytes | None:
        """Return a progress as a store keeps it."""
        if progress is None:
            return None
        return progress.raw if type(progress) is _UnreadableProgress else self._words(list(progress))

    def progress_of(self, data: bytes | None) -> Progress | None:
        """Return the progress that *data* stands for."""
        if data is None:
            return None
        found = self._shaped(data, Progress)
        if type(found) is not Unreadable:
            return Progress(*found)
        unreadable = _UnreadableProgress(0, None, f"unreadable: {found.reason}")
        unreadable.raw = found.raw
        return unreadable

    def reason(self, reason: str | None) -> str | None:
        """Return why a job is where it is, as the text a store keeps; it may quote what a body raised, or arguments."""
        if reason is None:
            return None
        if type(reason) is _UnreadableReason:
            return reason.raw
        if self._codec is None:
            return reason if reason.isascii() and reason.isprintable() else cleaned(reason)
        return _CODED_TEXT + b64encode(self._coded(to_json(cleaned(reason)))[1:]).decode()

    def reason_of(self, text: str | None) -> str | None:
        """Return the reason that *text* stands for."""
        if text is None or not text.startswith(_CODED_TEXT):
            return text
        try:
            found = self.unpacked(_CODED + b64decode(text[1:]))
        except ValueError:  # no base64: a damaged row
            found = None
        if isinstance(found, str):
            return found
        unreadable = _UnreadableReason("its reason cannot be read")
        unreadable.raw = text
        return unreadable

    def _shaped(self, data: bytes, shape: type[ErrorInfo | Progress]) -> Any:
        found = self.unpacked(data)
        if isinstance(found, list) and len(cast("Sequence[Any]", found)) == 3:
            return cast("Any", found)
        return found if isinstance(found, Unreadable) else Unreadable(data, f"it is no {shape.__name__}")

    def _words(self, fields: list[Any]) -> bytes:
        try:
            return self._coded(to_json(fields))
        except PydanticSerializationError:  # half of a surrogate pair, as file names can hold, or a number of numpy's
            return self._coded(to_json([cleaned(one) if isinstance(one, str) else _number(one) for one in fields]))


def cleaned(text: str) -> str:
    """Return *text* without what no database keeps (a NUL, halves of surrogate pairs) and our own mark: spelled out."""
    kept = text.encode("utf-8", "backslashreplace").decode()
    return kept.replace("\x00", "\\x00").replace(_CODED_TEXT, "\\x01")


def _number(value: Any) -> Any:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


# -- messages ----------------------------------------------------------------------------


def _arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**{f"number {n}": value for n, value in enumerate(args, 1)}, **kwargs}


def _no_json(task: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception) -> str:
    named = _arguments(args, kwargs)
    name = next((name for name, value in named.items() if json_size(value) is None), next(iter(named)))
    return no_json(task, name, named[name], error)
