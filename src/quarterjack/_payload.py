"""What a durable store keeps of users' own data, and the hook that may compress or encrypt it.

Arguments, results, errors, progress and checkpoints are JSON. Where an app has
a `PayloadCodec`, the store gets what it makes of that JSON. A payload that
cannot be read back loses nothing: it travels as an `Unreadable`, which knows
why, and is written back as it was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, Self, runtime_checkable

from pydantic_core import PydanticSerializationError, to_json

__all__ = ["MAX_ARGUMENT_BYTES", "PayloadCodec", "Unreadable", "is_storable", "json_size", "no_json", "too_large"]

MAX_ARGUMENT_BYTES: Final = 1_048_576
"""How many bytes of JSON the arguments of one job may take."""


@runtime_checkable
class PayloadCodec(Protocol):
    """Turns the bytes that a store is to keep into others, and back: compression, encryption.

    Both methods are plain functions, called on the app's loop and in its threads, often, so they are quick
    and keep no state between calls. What they raise is told as an error of the payload; no job is lost by it.
    Every process that shares a store needs a codec that reads what the others write.
    """

    def encode(self, data: bytes, /) -> bytes:
        """Return what the store shall keep instead of *data*, which is JSON."""
        ...

    def decode(self, data: bytes, /) -> bytes:
        """Return the JSON from what `encode` returned; raise if it cannot be read."""
        ...


class Unreadable(tuple[Any, ...]):  # noqa: SLOT001  # a tuple has room for no slots of its own
    """Stands where a payload could not be read: an empty tuple, so that it can stand in the place of arguments.

    Attributes:
        raw: What the store has, and keeps.
        reason: Why it cannot be read, in words.
    """

    raw: bytes
    reason: str

    def __new__(cls, raw: bytes, reason: str) -> Self:
        made = super().__new__(cls)
        made.raw, made.reason = raw, reason
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.raw, self.reason)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unreadable) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"<unreadable: {self.reason}>"


def is_storable(text: str) -> bool:
    """Say whether every store can keep *text* as it is: it holds no NUL, and no half of a surrogate pair."""
    try:
        return "\0" not in text and (text.isascii() or bool(text.encode()))
    except UnicodeEncodeError:
        return False


# -- what is told of arguments that a store does not take ----------------------------------


def json_size(value: Any) -> int | None:
    """Return how many bytes of JSON *value* takes; None if it is none."""
    try:
        return len(to_json(value))
    except PydanticSerializationError:
        return None


def no_json(task: str, name: str, value: Any, error: Exception, what: str = "argument ") -> str:
    """Return the message about an argument that cannot be written as JSON."""
    return (
        f"{what}{name} of {task}, of type {type(value).__name__}, cannot be written as JSON: {error}; "
        "pass ids, numbers, texts, or pydantic models instead of live objects"
    )


def too_large(task: str, arguments: Mapping[str, Any], size: int, most: int) -> str:
    """Return the message about arguments that take *size* bytes, where a store takes *most*."""
    sizes = {name: json_size(value) or 0 for name, value in arguments.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    kind = type(arguments[largest]).__name__
    return (
        f"the arguments of {task} take {size} bytes of JSON, and a store takes up to {most}; the largest is {largest}, "
        f"of type {kind}, with {sizes[largest]} bytes: keep it in a file or a bucket and pass its name, "
        "or raise Quarterjack(max_argument_bytes=…)"
    )
