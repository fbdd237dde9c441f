"""`Stream`: each item of an asynchronous iterable becomes a job. Any queue or broker is a trigger by it.

The rule only says where items come from and what is done with them; taking
them is the runtime's part (`runtime.consumer`). As it holds functions, it has no
JSON: it belongs to the process that declares it, like the hooks."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from pydantic import ValidationInfo, field_validator

from quarterjack._durations import Seconds, to_seconds
from quarterjack._signatures import check_plain, kind_of, label_of, misfit
from quarterjack.errors import InvalidTrigger

from . import _words
from .base import UnlistedTrigger

__all__ = ["Stream"]

Item = TypeVar("Item")
Source = AsyncIterable[Item] | AbstractAsyncContextManager[AsyncIterable[Item]]

_MOST: Final = 1_000_000
_SHORTEST_S: Final = 0.001


class Stream(UnlistedTrigger):
    """One job per item of an asynchronous iterable: ``@app.task(Stream(orders))`` above ``async def handle(order)``.

    Every process that fires schedules (role ``"both"`` or ``"scheduler"``) takes
    items for itself, beginning at its start, so a broker shares them out as it does
    among any consumers. The item is the one argument of its job. The next item is
    asked for when the job of the last one is stored, and not before: in an
    asynchronous generator, what follows ``yield`` runs when the item is safe.

    An item that cannot become a job (its arguments do not fit, or *value* or *key*
    raised) is refused: told with its reason, counted, not acknowledged; the stream goes on.
    A source that raises is closed and opened anew, after pauses that grow from
    about 1 to 60 seconds and begin small again once it has given an item. It is not a
    schedule: it has no fire times, nothing is missed, and it cannot be combined.

    Args:
        factory: Called without arguments at each (re)start. Returns an asynchronous
            iterable (a generator function does), or an asynchronous context manager
            that yields one; it may be a coroutine function.
        ack: Called with an item once its job is stored. Without it the item's own
            ``ack()``, if it has one. Plain or a coroutine function.
        reject: Called with an item that was refused, and why (an exception). Plain or a coroutine function.
        value: What the job gets instead of the item: ``lambda message: message.body``.
        key: The job's unique key: ``lambda order: order.id``. While a job holds it,
            the same item makes no second one. A ``unique=Unique(…)`` of the task says for how long, and
            what happens then; its own key is not used.
        max_waiting: Unfinished jobs (waiting, running, between retries) of this process's
            stream at which it asks for no more items, 1 to 1,000,000.
        restart: Seconds after which a source that has ended is opened anew, at least 0.001; None leaves it at that.

    Raises:
        InvalidTrigger: Naming the value and what is allowed.
    """

    is_hook: ClassVar[bool] = True
    positional: ClassVar[tuple[str, ...]] = ("factory",)
    example: ClassVar[str] = "Stream(orders), where orders is an asynchronous generator function"

    factory: Any
    ack: Any = None
    reject: Any = None
    value: Any = None
    key: Any = None
    max_waiting: int = 100
    restart: float | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            factory: Callable[[], Source[Item] | Awaitable[Source[Item]]],
            *,
            ack: Callable[[Item], object] | None = None,
            reject: Callable[[Item, Exception], object] | None = None,
            value: Callable[[Item], object] | None = None,
            key: Callable[[Item], str] | None = None,
            max_waiting: int = 100,
            restart: Seconds | None = None,
        ) -> None: ...

    @field_validator("factory", mode="before")
    @classmethod
    def _makes_a_source(cls, factory: Any) -> Any:
        if not callable(factory):
            made = getattr(factory, "__name__", None) or "the_function"
            advice = f"write Stream({made}), not Stream({made}())"
            if hasattr(factory, "get"):  # a queue, which is no iterable at all
                advice = "write async def items(): while True: yield await the_queue.get(), and Stream(items)"
            raise InvalidTrigger(
                f"factory must be a function that returns an asynchronous iterable, got {factory!r}; "
                f"it is called anew at each start, so {advice}"
            )
        if (why := misfit(factory, 0)) is not None:
            raise InvalidTrigger(f"factory is called without arguments; {why}")
        if kind_of(factory) == "generator":
            raise InvalidTrigger(f"{label_of(factory)} is a plain generator and would block the loop; write async def")
        return factory

    @field_validator("value", "key", mode="before")
    @classmethod
    def _is_plain(cls, fn: Any, field: ValidationInfo) -> Any:
        if fn is not None:
            check_plain(fn, str(field.field_name))
        return _checked(fn, 1, "one argument, the item")

    @field_validator("ack", mode="before")
    @classmethod
    def _takes_an_item(cls, fn: Any) -> Any:
        return _checked(fn, 1, "one argument, the item")

    @field_validator("reject", mode="before")
    @classmethod
    def _takes_an_item_and_a_reason(cls, fn: Any) -> Any:
        return _checked(fn, 2, "two arguments, the item and the exception that says why")

    @field_validator("max_waiting", mode="before")
    @classmethod
    def _is_count(cls, count: Any) -> int:
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST:
            raise InvalidTrigger(f"max_waiting must be a whole number from 1 to {_MOST}, got {count!r}")
        return count

    @field_validator("restart", mode="before")
    @classmethod
    def _is_pause(cls, pause: Any) -> float | None:
        return None if pause is None else to_seconds(pause, "restart", minimum=_SHORTEST_S)

    @property
    def source(self) -> str:
        """What people call the factory."""
        return label_of(self.factory)

    def explain(self) -> str:
        """Return the rule in words."""
        words = f"one job for each item of {self.source}, at most {self.max_waiting} unfinished"
        if self.restart is None:
            return words
        again = _words.period(round(self.restart * 1e9), every=False)
        return f"{words}; when it ends, again {again} later"

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Return its functions by their names: ``Stream(orders, max_waiting=5)``."""
        shown = [(name, _Name(label_of(it)) if callable(it) else it) for name, it in super().__repr_args__()]
        return [(None if name == "factory" else name, it) for name, it in shown]

    def _why_unlisted(self) -> str:
        return "it runs when an item comes"


class _Name(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _checked(fn: Any, count: int, what: str) -> Any:
    if fn is not None and (why := misfit(fn, count)) is not None:
        raise InvalidTrigger(f"it is called with {what}; {why}")
    return fn
