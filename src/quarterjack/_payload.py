"""What a durable store keeps of users' own data, and the hook that may compress or encrypt it.

Arguments, results, errors, progress and checkpoints are JSON. Where an app has
a `PayloadCodec`, the store gets what it makes of that JSON. A payload that
cannot be read back loses nothing: it travels as an `Unreadable`, which knows
why, and is written back as it was found."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

__all__ = ["PayloadCodec", "Unreadable"]


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
