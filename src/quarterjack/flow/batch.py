"""`Batch`: many submitted items, one call of a body that takes them all.

A stage in front of a flow: items gather until there are enough of them or the
first has waited long enough; what then passes the gates is the batch, once.
Here is how items gather and what a body's answer means; `runtime.batching` runs
the bodies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from pydantic_core import to_json

from quarterjack._choices import one_of
from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import whole_number
from quarterjack._signatures import Explained
from quarterjack.errors import BatchMismatch

__all__ = ["Basket", "Batch", "OnError", "results_of", "size_of"]

OnError = Literal["fail_all", "bisect", "singles"]
"""What becomes of the items of a batch whose body raised."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, init=False)
class Batch(Explained):
    """When items that gather become a batch, and what becomes of them if its body raises.

    Use it where one call for many costs little more than one call for one: inserts,
    bulk endpoints, writes to a file. Not where items are slow each by itself (take a
    `ConcurrencyLimit`): the batch is as slow as all of them together.

    The body takes a list of items and returns a list of as many results, in the same
    order; an exception among them fails that item alone. A batch passes the flow once
    and takes a slot once, however many items it has. O(1) time per item, O(n) space.

    Args:
        max_size: Items of a batch, 1 or more; so many go at once.
        max_wait: Seconds that the first item of a batch waits for others; 0 gathers
            what comes in the same turn of the loop.
        max_bytes: Bytes of a batch: an item that would go beyond lets those before it
            go without it. Texts count in UTF-8, other items as JSON; one that is
            larger by itself goes alone.
        on_error: When the body raises, ``"fail_all"`` fails every item with that;
            ``"bisect"`` tries both halves anew, down to single items, and ``"singles"``
            each item alone, so that one bad item fails alone. The body may then see an
            item several times, and each call passes the flow; an item's timeout counts from
            the first of them.

    Raises:
        InvalidOption: Naming the option, the value and the range.
    """

    max_size: int
    max_wait_s: float
    max_bytes: int | None
    on_error: OnError

    def __init__(
        self,
        max_size: int,
        max_wait: Seconds = 0.05,
        max_bytes: int | None = None,
        on_error: OnError = "fail_all",
    ) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("max_size", whole_number(max_size, "max_size", 1, 1_000_000))
        put("max_wait_s", to_seconds(max_wait, "max_wait"))
        put("max_bytes", None if max_bytes is None else whole_number(max_bytes, "max_bytes", 1))
        put("on_error", one_of(on_error, "on_error", OnError))

    def parts(self, items: list[T], called_with: int) -> list[list[T]]:
        """Return what to try anew after a body raised; nothing where its items fail with that.

        Args:
            items: Those that have not left meanwhile.
            called_with: How many the body was called with; with one, it is this one that fails.
        """
        if called_with < 2 or self.on_error == "fail_all":
            return []
        if self.on_error == "singles" or len(items) < 2:
            return [[item] for item in items]
        middle = (len(items) + 1) // 2
        return [items[:middle], items[middle:]]


def size_of(item: Any) -> int:
    """Return how many bytes *item* counts for."""
    if isinstance(item, bytes | bytearray):
        return len(item)
    if isinstance(item, str):
        return len(item.encode())
    return len(to_json(item, fallback=repr))


def results_of(returned: Any, count: int, task: str) -> Sequence[Any]:
    """Return the results of a body, one for each item.

    Raises:
        BatchMismatch: If they are no list, or not as many as the items.
    """
    if not _is_list(returned):
        raise BatchMismatch(task, count, type(returned).__name__)
    results: Sequence[Any] = returned
    if len(results) != count:
        raise BatchMismatch(task, count, f"{len(results)} results")
    return results


def _is_list(returned: Any) -> bool:
    return isinstance(returned, Sequence) and not isinstance(returned, str | bytes | bytearray)


class Alarm(Protocol):
    """Something that rings once."""

    def cancel(self) -> None: ...


class Basket(Generic[T]):
    """Items of the next batch, in order of arrival.

    Args:
        batch: When they go.
        monotonic: Where time is read.
        call_at: Sets an alarm at a monotonic instant.
        go: Called with the items of a batch.
    """

    __slots__ = ("_alarm", "_batch", "_bytes", "_call_at", "_entries", "_go", "_monotonic")

    def __init__(
        self,
        batch: Batch,
        monotonic: Callable[[], float],
        call_at: Callable[[float, Callable[[], None]], Alarm],
        go: Callable[[list[T]], None],
    ) -> None:
        self._batch: Final = batch
        self._monotonic = monotonic
        self._call_at = call_at
        self._go = go
        self._entries: dict[T, tuple[float, int]] = {}
        self._bytes = 0
        self._alarm: Alarm | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Any:
        return iter(self._entries)

    @property
    def due(self) -> float:
        """When the batch goes at the latest, in monotonic seconds."""
        first = next(iter(self._entries.values()), None)
        return (self._monotonic() if first is None else first[0]) + self._batch.max_wait_s

    def add(self, item: T, size: int = 0) -> None:
        """Take *item*, which is *size* bytes; the batch goes if that makes it full."""
        batch, entries = self._batch, self._entries
        if batch.max_bytes is not None and entries and self._bytes + size > batch.max_bytes:
            self.flush()
        entries[item] = (self._monotonic(), size)
        self._bytes += size
        is_full = batch.max_bytes is not None and self._bytes >= batch.max_bytes
        if is_full or len(entries) >= batch.max_size:
            self.flush()
        elif self._alarm is None:
            self._arm()

    def remove(self, item: T) -> bool:
        """Take *item* out; say whether it was there. Who is first now may wait for as long as any first."""
        entry = self._entries.get(item)
        if entry is None:
            return False
        was_first = next(iter(self._entries)) is item
        del self._entries[item]
        self._bytes -= entry[1]
        if was_first:
            self._arm()
        return True

    def flush(self) -> None:
        """Let the batch go as it is."""
        if not self._entries:
            return
        items = list(self._entries)
        self._entries.clear()
        self._bytes = 0
        self._arm()
        self._go(items)

    def _arm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._entries:
            self._alarm = self._call_at(self.due, self._on_waited)

    def _on_waited(self) -> None:
        self._alarm = None
        self.flush()
