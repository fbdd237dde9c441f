"""Faults on demand: the next calls of a store fail, are late, or fail after they have worked.

    with faults(app.store) as broken:
        broken.fail_next("claim")                  # jobs_claim raises StoreUnavailable, once
        broken.fail_next("finish", times=3, after=True)   # the work is done, the answer is lost
        broken.delay_next("fire", 2.0)

A call may be named in full (``"jobs_claim"``) or by its last word where that
names one call only. What is pending when the block ends is forgotten."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Final, NamedTuple

from quarterjack._durations import Seconds, to_seconds
from quarterjack.errors import InvalidOption, StoreUnavailable
from quarterjack.stores import Store

__all__ = ["Faults", "faults"]

_CALLS: Final = tuple(
    name for name in sorted(Store.__abstractmethods__) if iscoroutinefunction(getattr(Store, name)) and "_" in name
)


class _Fault(NamedTuple):
    """What happens to one call."""

    error: Exception | None
    delay_s: float
    is_after: bool


class Faults:
    """The faults that wait for a store's calls; made by `faults`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: dict[str, deque[_Fault]] = {}
        self.calls: list[str] = []
        """Every call that was made inside the block, in order."""

    def fail_next(self, call: str, *, times: int = 1, error: Exception | None = None, after: bool = False) -> None:
        """Make the next calls raise.

        Args:
            call: Such as ``"claim"`` or ``"schedules_fire"``.
            times: How many calls.
            error: What they raise, this very object; by default a new `StoreUnavailable` each.
            after: Do the work first: the caller cannot tell, as when a connection breaks before the answer.

        Raises:
            InvalidOption: If the store has no such call, or more than one.
        """
        # One object raised twice would gather the frames of both.
        self._add(
            call, [_Fault(error or StoreUnavailable(f"{call} failed on demand"), 0.0, after) for _ in range(times)]
        )

    def delay_next(self, call: str, delay: Seconds, *, times: int = 1) -> None:
        """Make the next calls wait *delay* seconds before they work.

        Raises:
            InvalidOption: If the store has no such call, or more than one; or *delay* is no duration.
        """
        self._add(call, [_Fault(None, to_seconds(delay, "delay"), is_after=False)] * times)

    @property
    def pending(self) -> int:
        """Faults that no call has met yet."""
        return sum(map(len, self._pending.values()))

    def _add(self, call: str, added: list[_Fault]) -> None:
        self._pending.setdefault(_full_name(call), deque()).extend(added)

    async def _call(self, name: str, real: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        self.calls.append(name)
        pending = self._pending.get(name)
        fault = pending.popleft() if pending else None
        if fault is None:
            return await real(*args, **kwargs)
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.error is not None and not fault.is_after:
            raise fault.error
        answer = await real(*args, **kwargs)
        if fault.error is not None:
            raise fault.error
        return answer


def _full_name(call: str) -> str:
    found = [name for name in _CALLS if call == name or name.endswith("_" + call)]
    if call in found:
        return call
    if len(found) == 1:
        return found[0]
    raise InvalidOption(
        f"{call!r} names {'several calls' if found else 'no call'}; one of {', '.join(found or _CALLS)}"
    )


@contextmanager
def faults(store: Store) -> Iterator[Faults]:
    """Let the calls of *store* fail on demand inside the block."""
    injected = Faults(store)
    # On the object, not the class: other stores go on, and the store's own calls to itself are not touched
    # by a wrapper that has to copy its class attributes.
    for name in _CALLS:
        setattr(store, name, partial(injected._call, name, getattr(store, name)))
    setattr(store, "never_suspends", False)  # noqa: B010  # on this object; the class says what the store is
    try:
        yield injected
    finally:
        for name in (*_CALLS, "never_suspends"):
            delattr(store, name)
