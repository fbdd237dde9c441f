"""`Trigger`: a pure rule that yields fire times.

A trigger holds no clock, no counter and no state: `next` of the same instant is
always the same. It is a frozen pydantic model, so it is checked when it is
built, equal by value, hashable, and survives JSON.

Users see aware datetimes; the engine works in integer nanoseconds since the
Unix epoch in UTC, because arithmetic on local datetimes is wrong twice a year.
Built-in triggers implement the ``…_ns`` methods; a trigger of your own needs
only ``next`` (and may have ``prev`` and ``count`` where it knows a short way)."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, from_json, to_json

from quarterjack.errors import InvalidTrigger, NaiveDatetime, NotPeriodic

if TYPE_CHECKING:
    from .filters import Filter

__all__ = ["EPOCH", "NativeTrigger", "Rule", "Trigger", "UnlistedTrigger", "from_ns", "instant_ns"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
SEARCH_STEPS: Final = 10_000
"""How many fire times a search through a trigger that knows only ``next`` looks at."""
_FIRST_WINDOW_NS: Final = 1_000_000_000
_WIDEST_WINDOW_NS: Final = 400 * 366 * 86_400 * 1_000_000_000


def instant_ns(at: datetime, field: str = "datetime") -> int:
    """Return an aware datetime as nanoseconds since the epoch.

    Raises:
        NaiveDatetime: If it has no zone; the message shows the fix.
    """
    if at.tzinfo is None or at.utcoffset() is None:
        raise NaiveDatetime(
            f"{field}={at!r} has no zone, so it names no instant; "
            "write datetime(…, tzinfo=UTC) or ZoneInfo('Europe/Rome')"
        )
    return (at - EPOCH) // _MICROSECOND * 1_000


def from_ns(ns: int, zone: tzinfo | None = UTC) -> datetime:
    """Return nanoseconds since the epoch as an aware datetime in *zone*, to the microsecond below."""
    return (EPOCH + timedelta(microseconds=ns // 1_000)).astimezone(zone)


def problem(name: str, error: ErrorDetails, fields: list[str]) -> str:
    """Return one validation error as a sentence: trigger, field, what is allowed, what was given."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where, fields, n=1)
        return f"{name} has no option {where!r}; " + (f"did you mean {near[0]!r}?" if near else f"it takes {fields}")
    message = error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    given = "" if error["type"] in {"missing", "value_error"} else f", got {error['input']!r}"
    head = "" if message.startswith(name) else f"{name}: {where + ': ' if where else ''}"
    return f"{head}{message}{given}"


class Rule(BaseModel):
    """What triggers and filters share: frozen, checked when built, JSON there and back."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    _by_name: ClassVar[dict[str, type[Rule]]] = {}

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            name, fields = type(self).__name__, list(type(self).model_fields)
            raise InvalidTrigger("; ".join(problem(name, one, fields) for one in error.errors())) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        Rule._by_name[cls.__name__] = cls

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON-ready values with its ``type``; fields at their defaults are left out."""
        found: dict[str, Any] = {"type": type(self).__name__}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.is_required() or value != field.get_default(call_default_factory=True):
                found[name] = _plain(value)
        return found

    def to_json(self) -> str:
        """Return the rule as JSON text; `from_json` gives an equal one back."""
        return to_json(self.to_dict()).decode()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """Return the rule that `to_dict` described.

        Raises:
            InvalidTrigger: If its ``type`` is unknown here, or its values are wrong.
        """
        values = dict(data)
        name = values.pop("type", None)
        kind = Rule._by_name.get(name) if isinstance(name, str) else None
        if kind is None:
            raise InvalidTrigger(f"no trigger of type {name!r} is known here; import the module that defines it")
        return kind(**{key: _revived(value) for key, value in values.items()})

    @classmethod
    def from_json(cls, text: str | bytes) -> Any:
        """Return the rule that `to_json` wrote."""
        return cls.from_dict(from_json(text))


def _plain(value: Any) -> Any:
    if isinstance(value, Rule):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return value


def _revived(value: Any) -> Any:
    kind: type[Any] = type(value)  # pyright: ignore[reportUnknownVariableType]  # JSON's own kinds, asked for one by one
    if kind is dict and "type" in value:
        return Rule.from_dict(value)
    if kind is list:
        return [_revived(item) for item in value]
    return value


class Trigger(Rule):
    """A rule that yields fire times. Subclass it with your fields and ``next``.

    ``next(after)`` returns the first fire time strictly after *after*, or None
    at the end; aware datetimes in, aware datetimes out, and nothing but the
    arguments and the fields may decide.
    """

    # -- what a trigger is -------------------------------------------------------------

    is_periodic: ClassVar[bool] = True
    """False for rules whose fire times depend on how their runs end, and for process hooks."""
    is_hook: ClassVar[bool] = False
    """True for `OnStartup` and `OnShutdown`, which are no schedules."""

    @property
    def zone(self) -> tzinfo | None:
        """The zone its fire times are shown in; None for the caller's."""
        return None

    @property
    def fires_at_creation(self) -> bool:
        """True if a schedule runs once when it is created."""
        return False

    @property
    def after_finish_ns(self) -> int | None:
        """For rules that run again after a run's end: how long after. None for all others."""
        return None

    @property
    def is_elapsed_like(self) -> bool:
        """True for rules that count elapsed time, False for those that name times of day."""
        return True

    def resolved(self, created_ns: int, schedule_id: str) -> Trigger:
        """Return the rule with what only a schedule knows filled in: its creation, its id."""
        del created_ns, schedule_id
        return self

    # -- fire times ----------------------------------------------------------------------

    @abstractmethod
    def next(self, after: datetime) -> datetime | None:
        """Return the first fire time after *after*, or None if there is none.

        Raises:
            NaiveDatetime: If *after* has no zone.
        """
        raise NotImplementedError(f"{type(self).__name__} must define next(after)")

    def prev(self, before: datetime) -> datetime | None:
        """Return the last fire time at or before *before*, or None."""
        found = self._search_back(instant_ns(before, "before"))
        return None if found is None else from_ns(found, self.zone or before.tzinfo)

    def count(self, after: datetime, until: datetime, cap: int | None = None) -> int:
        """Return how many fire times lie in ``(after, until]``, counting at most *cap*."""
        return self.count_ns(instant_ns(after, "after"), instant_ns(until, "until"), 2**62 if cap is None else cap)

    def preview(self, n: int = 10, *, after: datetime) -> list[datetime]:
        """Return the next *n* fire times after *after* (fewer at the end)."""
        found: list[datetime] = []
        at = self.next(after)
        while len(found) < n and at is not None:
            found.append(at)
            at = self.next(at)
        return found

    def explain(self) -> str:
        """Return the rule in words."""
        return repr(self)

    # -- the engine's side -----------------------------------------------------------------

    def next_ns(self, after: int, /) -> int | None:
        """As `next`, in nanoseconds; checks what a custom ``next`` returned.

        Raises:
            InvalidTrigger: If it is no aware datetime after *after*.
        """
        # The datetime is the microsecond below *after*, and the answer is a later microsecond, so after it too.
        found = self.next(from_ns(after, self.zone or UTC))
        if found is None:
            return None
        if not isinstance(found, datetime) or found.utcoffset() is None:
            raise InvalidTrigger(f"{type(self).__name__}.next returned {found!r}; it must return an aware datetime")
        at = instant_ns(found)
        if at <= after:
            raise InvalidTrigger(
                f"{type(self).__name__}.next({from_ns(after).isoformat()}) returned {found.isoformat()}, "
                "which is not after its argument"
            )
        return at

    def prev_ns(self, before: int, /) -> int | None:
        """As `prev`, in nanoseconds."""
        found = self.prev(from_ns(before, self.zone or UTC))
        return None if found is None else instant_ns(found)

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """As `count`, in nanoseconds, stopping at *cap*."""
        found, at = 0, self.next_ns(after)
        while at is not None and at <= until and found < cap:
            found += 1
            at = self.next_ns(at)
        return found

    def _search_back(self, before: int) -> int | None:
        """Find the last fire time at or before *before* with ``next`` alone, in growing windows."""
        window, steps = _FIRST_WINDOW_NS, 0
        while window <= _WIDEST_WINDOW_NS:
            found: int | None = None
            at = self.next_ns(max(before - window, -_WIDEST_WINDOW_NS // 8))
            while at is not None and at <= before:
                found, steps = at, steps + 1
                if steps > SEARCH_STEPS:
                    raise InvalidTrigger(
                        f"{type(self).__name__}: prev looked at {SEARCH_STEPS} fire times without an end; "
                        "define prev(before) next to next(after)"
                    )
                at = self.next_ns(at)
            if found is not None:
                return found
            window *= 8
        return None

    # -- combining -------------------------------------------------------------------------

    def __or__(self, other: Trigger) -> Trigger:
        """Return the union: both rules' fire times, equal ones once."""
        union: Trigger = _combine().Union.of(self, other)
        return union

    def __and__(self, keep: Filter) -> Trigger:
        """Return the fire times that *keep* allows."""
        return _filtered(self, keep, keep=True)

    def __sub__(self, drop: Filter) -> Trigger:
        """Return the fire times that *drop* does not allow."""
        return _filtered(self, drop, keep=False)


def _combine() -> Any:
    from . import combine  # noqa: PLC0415  # combine builds on this module; the operators lead back to it

    return combine


def _filtered(trigger: Trigger, chosen: Any, *, keep: bool) -> Trigger:
    combine = _combine()
    if not isinstance(chosen, combine.Filter):
        raise InvalidTrigger(f"& and - take a filter such as Weekdays('mon-fri'), got {chosen!r}; | joins triggers")
    filtered: Trigger = combine.Filtered(trigger=trigger, filter=chosen, keep=keep)
    return filtered


class NativeTrigger(Trigger):
    """A trigger that works in nanoseconds; the datetimes are a shell over it."""

    @abstractmethod
    def next_ns(self, after: int, /) -> int | None:
        """Return the first fire time after *after*."""

    @abstractmethod
    def prev_ns(self, before: int, /) -> int | None:
        """Return the last fire time at or before *before*."""

    def next(self, after: datetime) -> datetime | None:
        """Return the first fire time after *after*, in the trigger's zone or the argument's."""
        return self._shown(self.next_ns(instant_ns(after, "after")), after)

    def prev(self, before: datetime) -> datetime | None:
        """Return the last fire time at or before *before*, in the trigger's zone or the argument's."""
        return self._shown(self.prev_ns(instant_ns(before, "before")), before)

    def _shown(self, ns: int | None, asked: datetime) -> datetime | None:
        return None if ns is None else from_ns(ns, self.zone or asked.tzinfo)


class UnlistedTrigger(NativeTrigger):
    """A rule whose fire times cannot be listed, because they depend on how its runs end."""

    is_periodic = False

    def next_ns(self, after: int, /) -> int | None:
        """Raise `NotPeriodic`."""
        raise self._unlisted("next", after)

    def prev_ns(self, before: int, /) -> int | None:
        """Raise `NotPeriodic`."""
        raise self._unlisted("prev", before)

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Raise `NotPeriodic`."""
        raise self._unlisted("count", after, until, cap)

    def _unlisted(self, what: str, *instants: int) -> NotPeriodic:
        del instants
        return NotPeriodic(f"{type(self).__name__} has no {what}: when it runs depends on how its runs end")
