"""`Trigger`: a pure rule that yields fire times.

A trigger holds no clock, no counter and no state: the same question has the
same answer for ever. Users ask with aware datetimes; the engine works in integer
nanoseconds since the Unix epoch, UTC, because arithmetic on local datetimes is
wrong twice a year and slow always.

    what you write            what it is for
    class X(Trigger)          a rule of your own: ``next`` is enough, ``prev`` and
                              ``count`` are found with its help, or defined too
    class X(NativeTrigger)    a rule in nanoseconds: all of quarterjack's own

When a schedule is created, what only it knows (its creation, its id) is filled
in by `Trigger.resolved`; the scheduler asks the resolved rule, and compares the
declared one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, ClassVar, Final

from quarterjack.errors import InvalidTrigger, NaiveDatetime, NotPeriodic

from . import _search
from ._rule import Rule
from ._words import Sentence
from ._zone import FIRST_NS, LAST_NS

if TYPE_CHECKING:
    from .clock_changes import ClockChange
    from .combine import Filtered
    from .filters import Filter

__all__ = ["NativeTrigger", "Rule", "Trigger", "UnlistedTrigger", "from_ns", "in_utc", "instant_ns"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_UNLIMITED: Final = 2**62
_YEAR: Final = timedelta(days=366)


def instant_ns(at: datetime, field: str = "datetime") -> int:
    """Return an aware datetime as nanoseconds since the epoch.

    Raises:
        NaiveDatetime: If it has no zone; the message shows the fix.
        InvalidTrigger: If it is no datetime at all.
    """
    if not isinstance(at, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]  # custom triggers return anything
        raise InvalidTrigger(f"{field} must be a datetime with a zone, got {at!r}")
    if at.utcoffset() is None:
        raise NaiveDatetime(
            f"{field}={at.isoformat()} has no zone, so it names no instant; "
            "write datetime(…, tzinfo=UTC), or tzinfo=ZoneInfo('Europe/Rome')"
        )
    return (at - _EPOCH) // _MICROSECOND * 1_000


def in_utc(at: datetime, field: str) -> datetime:
    """Return an aware datetime in UTC.

    Raises:
        NaiveDatetime: If it has no zone.
        ValueError: If in UTC it lies before the year 1 or after 9999, as the last evening in New York does.
    """
    instant_ns(at, field)
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{field}={at.isoformat()} lies outside the years 1 to 9999 in UTC; give it in UTC") from None


def from_ns(ns: int, zone: tzinfo | None = UTC) -> datetime:
    """Return an instant as an aware datetime, at the microsecond at or after it.

    Up, not down: an instant rounded down would lie before itself, and asking for
    the one after it would give it again.
    """
    return (_EPOCH + timedelta(microseconds=-(-ns // 1_000))).astimezone(zone)


class Trigger(Rule):
    """A rule that yields fire times. Subclass it with your fields and ``next``.

    It is a pydantic model: fields are validated when the rule is built, rules are
    immutable, equal by value and hashable, and survive JSON. Nothing but the
    argument and the fields may decide what ``next`` returns.

    ``a | b`` is the union of two rules, ``rule & keep`` and ``rule - drop`` keep
    or drop fire times by a `Filter`.
    """

    is_periodic: ClassVar[bool] = True
    """False for rules whose fire times depend on how runs end, and for hooks: no next, prev or count."""
    is_hook: ClassVar[bool] = False
    """True for `OnStartup`, `OnShutdown` and `Stream`, which belong to the process and are no schedules."""

    @property
    def zone(self) -> tzinfo | None:
        """The zone fire times are shown in; None for that of the argument."""
        return None

    @property
    def is_elapsed_like(self) -> bool:
        """True for rules that count elapsed time, False for those that name times of day."""
        return True

    @property
    def needs_resolution(self) -> bool:
        """True while something only a schedule knows is missing: then `next` raises, and `resolved` helps."""
        return False

    @property
    def fires_at_creation(self) -> bool:
        """True if a schedule runs once when it is created, besides the rule's fire times."""
        return False

    @property
    def after_finish_ns(self) -> int | None:
        """How long after the final outcome of its last job the rule runs again; None for all that do not."""
        return None

    def resolved(self, created_ns: int, schedule_id: str) -> Trigger:
        """Return the rule with a schedule's creation (in nanoseconds) and id filled in; itself if it needs neither."""
        del created_ns, schedule_id
        return self

    # -- fire times ------------------------------------------------------------------------

    @abstractmethod
    def next(self, after: datetime) -> datetime | None:
        """Return the first fire time after *after*, or None if there is none.

        Args:
            after: An aware datetime; not itself a possible answer.

        Returns:
            An aware datetime in the rule's zone, else in that of *after*.

        Raises:
            NaiveDatetime: If *after* has no zone.
            NotPeriodic: If the rule's fire times depend on how its runs end.
        """

    def prev(self, before: datetime) -> datetime | None:
        """Return the last fire time at or before *before*, or None; raises as `next` does.

        A rule that defines only ``next`` is searched with its help: about fifty
        questions, however far back the answer lies (at most 400 years).
        """
        found = _search.last_at_or_before(self.next_ns, instant_ns(before, "before"))
        return self._shown(found, before)

    def count(self, after: datetime, until: datetime, cap: int | None = None) -> int:
        """Return how many fire times lie in ``(after, until]``, counting no further than *cap*.

        Raises:
            NaiveDatetime: If one of the two has no zone.
            NotPeriodic: If the rule's fire times depend on how its runs end.
            InvalidTrigger: Without a cap, if a rule that defines only ``next`` has over 10,000 of them there.
        """
        low, high = instant_ns(after, "after"), instant_ns(until, "until")
        return _search.count_forward(self, low, high, cap)

    def preview(self, n: int = 10, *, after: datetime) -> list[datetime]:
        """Return the next *n* fire times after *after*, fewer where the rule ends."""
        found: list[datetime] = []
        at = after
        while len(found) < n and (following := self.next(at)) is not None:
            found.append(following)
            at = following
        return found

    def explain(self) -> str:
        """Return the rule in words; a custom rule is shown as it is written."""
        return repr(self)

    def clock_changes(self, *, after: datetime, until: datetime | None = None) -> list[ClockChange]:
        """Return when the clock of the rule's zone is set, and what the rule does then; in words and as facts.

        Args:
            after: Changes after this instant.
            until: And up to this one; 366 days later without it.

        Returns:
            The changes in order: none in UTC, nor for a rule that counts elapsed time and reads no clock.

        Raises:
            NaiveDatetime: If *after* or *until* has no zone.
            InvalidTrigger: If the rule holds what only a schedule knows, such as a cron ``H``.
        """
        low = instant_ns(after, "after")
        high = instant_ns(in_utc(after, "after") + _YEAR if until is None else until, "until")
        return _clock_changes.clock_changes(self, low, high)

    def _sentence(self) -> Sentence:
        """Return the rule in words, in parts from which a combination makes one sentence."""
        return Sentence(when=self.explain())

    # -- the engine's side -----------------------------------------------------------------

    def next_ns(self, after: int, /) -> int | None:
        """As `next`, in nanoseconds since the epoch.

        Raises:
            InvalidTrigger: If a custom ``next`` returned no aware datetime after its argument.
        """
        # A custom rule lives on whole microseconds, so asking from the one below loses nothing.
        asked = after // 1_000 * 1_000
        if asked > LAST_NS:
            return None
        found = self.next(from_ns(max(asked, FIRST_NS), self.zone or UTC))
        if found is None:
            return None
        at = self._checked(found, f"next(after={from_ns(asked).isoformat()})")
        if at <= after:
            raise InvalidTrigger(
                f"{type(self).__name__}.next(after={from_ns(asked).isoformat()}) returned {found.isoformat()}, "
                "which is not after its argument"
            )
        return at

    def prev_ns(self, before: int, /) -> int | None:
        """As `prev`, in nanoseconds since the epoch; a ``prev`` of your own is asked, and checked."""
        if type(self).prev is Trigger.prev:
            return _search.last_at_or_before(self.next_ns, before)
        asked = min(before // 1_000 * 1_000, LAST_NS)
        if asked < FIRST_NS:
            return None
        found = self.prev(from_ns(asked, self.zone or UTC))
        if found is None:
            return None
        at = self._checked(found, f"prev(before={from_ns(asked).isoformat()})")
        if at > before:
            raise InvalidTrigger(
                f"{type(self).__name__}.prev(before={from_ns(asked).isoformat()}) returned {found.isoformat()}, "
                "which is after its argument"
            )
        return at

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """As `count`, in nanoseconds since the epoch, stopping at *cap*; a ``count`` of your own is asked."""
        if type(self).count is Trigger.count:
            return _search.count_forward(self, after, until, cap)
        low, high = (from_ns(min(max(at // 1_000 * 1_000, FIRST_NS), LAST_NS)) for at in (after, until))
        return min(cap, self.count(low, high, cap))

    def _checked(self, found: object, asked: str) -> int:
        if isinstance(found, Coroutine):
            found.close()  # or Python warns of it, beside the point
            name = asked.partition("(")[0]
            raise InvalidTrigger(f"{type(self).__name__}.{name} is async; a rule only computes, so write def {name}")
        if not isinstance(found, datetime) or found.utcoffset() is None:
            raise InvalidTrigger(
                f"{type(self).__name__}.{asked} returned {found!r}; it must return an aware datetime or None"
            )
        return instant_ns(found)

    def _shown(self, ns: int | None, asked: datetime) -> datetime | None:
        if ns is None or not FIRST_NS <= ns <= LAST_NS:
            return None
        return from_ns(ns, self.zone or asked.tzinfo)

    # -- combining ---------------------------------------------------------------------------

    def __or__(self, other: Trigger) -> Trigger:
        """Return the union: the fire times of both, equal ones once."""
        if not isinstance(other, Trigger):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidTrigger(f"| joins two triggers, got {other!r}; write Every(hours=1) | At('14:30')")
        return _combine.Union.of(self, other)

    def __and__(self, keep: Filter) -> Trigger:
        """Return the rule with only the fire times that *keep* allows."""
        return self._filtered(keep, "&", keep=True)

    def __sub__(self, drop: Filter) -> Trigger:
        """Return the rule without the fire times that *drop* allows."""
        return self._filtered(drop, "-", keep=False)

    def _filtered(self, by: Filter, operator: str, *, keep: bool) -> Filtered:
        if not isinstance(by, _filters.Filter):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidTrigger(
                f"{operator} takes a filter such as Weekdays('mon-fri'), got {by!r}; "
                "two triggers hardly ever fire at one instant: join them with |"
            )
        return _combine.Filtered(trigger=self, filter=by, keep=keep)


class NativeTrigger(Trigger):
    """A rule in nanoseconds; its datetimes are a shell over them."""

    @abstractmethod
    def next_ns(self, after: int, /) -> int | None:
        """Return the first fire time after *after*, or None."""

    @abstractmethod
    def prev_ns(self, before: int, /) -> int | None:
        """Return the last fire time at or before *before*, or None."""

    @abstractmethod
    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Return how many fire times lie in ``(after, until]``, at most *cap*."""

    def next(self, after: datetime) -> datetime | None:
        """Return the first fire time after *after*, in the rule's zone or else in that of *after*; None at the end.

        Raises:
            NaiveDatetime: If *after* has no zone.
            NotPeriodic: If the rule's fire times depend on how its runs end.
        """
        return self._shown(self.next_ns(instant_ns(after, "after")), after)

    def prev(self, before: datetime) -> datetime | None:
        """Return the last fire time at or before *before*, or None; raises as `next` does."""
        return self._shown(self.prev_ns(instant_ns(before, "before")), before)

    def count(self, after: datetime, until: datetime, cap: int | None = None) -> int:
        """Return how many fire times lie in ``(after, until]``, counting no further than *cap*."""
        low, high = instant_ns(after, "after"), instant_ns(until, "until")
        return self.count_ns(low, high, _UNLIMITED if cap is None else cap) if low < high else 0


class UnlistedTrigger(NativeTrigger):
    """A rule without fire times of its own: a hook, or one that waits for its last run to end."""

    is_periodic: ClassVar[bool] = False

    def next_ns(self, after: int, /) -> int | None:
        """Raise NotPeriodic."""
        del after
        raise self._refusal("next")

    def prev_ns(self, before: int, /) -> int | None:
        """Raise NotPeriodic."""
        del before
        raise self._refusal("prev")

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Raise NotPeriodic."""
        del after, until, cap
        raise self._refusal("count")

    def _refusal(self, what: str) -> NotPeriodic:
        return NotPeriodic(f"{self!r} has no {what}: {self._why_unlisted()}")

    def _why_unlisted(self) -> str:
        return "it runs with its process" if self.is_hook else "when it runs depends on how its last run ended"


# Both build on this module, and the operators above lead back to them; they are complete before anyone can
# have two rules to combine.
from . import clock_changes as _clock_changes  # noqa: E402
from . import combine as _combine  # noqa: E402
from . import filters as _filters  # noqa: E402
