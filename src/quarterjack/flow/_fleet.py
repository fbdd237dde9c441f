"""``scope="fleet"``: the form of a gate whose limit holds for all processes on one store.

It is the gate itself, of which a subclass asks a purse (`_purse`) instead of its
own count. That count goes on all the same: it is what ``on_store_error="local"``
goes by while the store does not answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeGuard, cast

from quarterjack._choices import one_of
from quarterjack._numbers import whole_number
from quarterjack.errors import InvalidOption, UsageError

from ._purse import CreditPurse, Filler, OnStoreError, PurseT, Terms, Tie
from ._rate import RateGate
from .base import Gate
from .outcome import Ended, EndKind
from .waiting import Waiting

if TYPE_CHECKING:
    from quarterjack.clock import Clock

__all__ = ["FleetForm", "FleetRate", "OnStoreError", "Scope", "fleet_forms", "refuse_twins", "settle_scope"]

Scope = Literal["process", "fleet"]

BATCH: Final = 10
"""Starts or slots that are asked for at once."""
_PLAIN: Final = (str, int, float, bool, type(None))
"""Keys of these kinds are written alike in every process."""


def fleet_forms(gates: Iterable[Gate]) -> list[FleetForm[Any]]:
    """Return those of *gates* that hold for a fleet, each once."""
    return [gate for gate in dict.fromkeys(gates) if _is_form(gate)]


def refuse_twins(gates: Iterable[Gate]) -> None:
    """Refuse two of *gates* that would be one limit in the store: a job would need it twice, and might never start.

    One with ``by=`` and one without are two, for a key's limit is one of its own.

    Raises:
        InvalidOption: Naming the limit.
    """
    seen: set[tuple[str, str | None, bool]] = set()
    for gate in fleet_forms(gates):
        limit = (gate._kind, gate.name, gate.by is None)
        if limit in seen:
            raise InvalidOption(
                f"two limits named {gate.name!r} in one flow are one limit, which a job would need twice; "
                "put the same object into both, or give one of them another name"
            )
        seen.add(limit)


def _is_form(gate: Gate) -> TypeGuard[FleetForm[Any]]:
    return isinstance(gate, FleetForm)


def settle_scope(
    gate: Gate, plain: type[Gate], form: type[FleetForm[Any]], scope: str, batch: int | None, on_store_error: str | None
) -> None:
    """Make *gate*, whose constructor is at its end, the *form* of *plain* for a fleet, if *scope* asks for that.

    Raises:
        InvalidOption: Naming the option, the value and what is allowed.
    """
    one_of(scope, "scope", Scope)
    if scope == "process":
        for option, value in (("batch", batch), ("on_store_error", on_store_error)):
            if value is not None:
                raise InvalidOption(f'{option} says how a limit of a fleet is kept; give scope="fleet" as well')
        return
    kind = type(gate).__name__
    if type(gate) is not plain:
        raise InvalidOption(f'{kind} holds in one process: only {plain.__name__} itself has a form with scope="fleet"')
    if not gate.name:
        raise InvalidOption(
            f'{kind} with scope="fleet" needs name=, by which all processes know the limit, such as name="api"'
        )
    if on_store_error is not None:
        one_of(on_store_error, "on_store_error", OnStoreError)
    most = whole_number(BATCH if batch is None else batch, "batch", 1)
    # Not by __new__: whoever asks for the constructor's signature would be shown that one's.
    gate.__class__ = form
    cast("FleetForm[Any]", gate)._set_up(Terms(most, cast("OnStoreError", on_store_error or "closed")))


class FleetForm(Gate, Generic[PurseT]):
    """A gate with a purse. Stands before the gate's class among the bases."""

    _kind: str
    """What the names of such limits begin with in the store."""
    _terms: Terms
    _tie: Tie
    _purse: PurseT

    def _set_up(self, terms: Terms) -> None:
        self._terms, self._tie = terms, Tie()
        self._purse = self._make_purse(f"{self._kind}:{self.name}")

    @abstractmethod
    def _make_purse(self, limit: str) -> PurseT: ...

    @property
    def _is_barred(self) -> bool:
        """The store does not answer, and the gate is to do without it."""
        return self._purse.is_cut_off and self._terms.on_store_error != "closed"

    def eta(self, job: Waiting, now: float) -> float:
        if self._tie.filler is None:
            self.check_bound()
        if not self._is_barred:
            return self._purse.eta(job, now)
        self._purse.fill()
        if self._terms.on_store_error == "open":
            self.check(job)
            return now
        return super().eta(job, now)  # type: ignore[safe-super]  # the gate's own class is behind this one

    def why_closed(self, job: Waiting) -> str:
        if self._purse.is_cut_off:
            return "gets no answer from its store, and lets nobody in before it does"
        return self._purse.why_closed

    def _is_unasked(self, job: Waiting) -> bool:
        is_waited_for = self._post is not None and self._post.best is not None
        return not (is_waited_for or self._purse.is_cut_off or self._purse.is_known_to_lack(job))

    def is_idle(self, now: float) -> bool:
        return super().is_idle(now) and self._purse.is_empty and not self._purse.is_tended

    def forget(self) -> None:
        super().forget()
        self._purse.forget()

    def fresh(self) -> Gate:
        gate = super().fresh()
        form: FleetForm[PurseT] = cast("FleetForm[PurseT]", gate)
        form._purse = form._make_purse("")
        return form

    def _anew(self, clock: Clock) -> Any:
        gate = super()._anew(clock)
        gate._set_up(self._terms)
        return gate

    def at(self, key: Hashable) -> Gate:
        gate = super().at(key)
        purse = cast("FleetForm[PurseT]", gate)._purse
        if not purse.limit:
            purse.limit = f"{self._purse.limit}[{_text_of(key, self)}]"
        return gate

    def key_of(self, job: Waiting) -> Hashable:
        key = super().key_of(job)
        _text_of(key, self)
        return key

    # -- the store -------------------------------------------------------------------

    def bind(self, filler: Filler) -> None:
        """Have *filler* ask its store from now on.

        Raises:
            UsageError: If another one does.
        """
        tie = self._tie
        if tie.filler is not None and tie.filler is not filler:
            raise UsageError(f"{self!r} holds in the store of another app or block already; make one gate for each")
        tie.filler = filler

    def check_bound(self) -> None:
        """Raise `UsageError` if it has no store."""
        if self._tie.filler is None:
            raise UsageError(
                f'{self!r} has scope="fleet", and no store yet: an app that runs gives it its own, a TaskManager '
                "its store=…, and for a gate alone there is `async with fleet(store, gate)`"
            )

    def unbind(self) -> None:
        """Its store is closed."""
        self._tie.filler = None


class FleetRate(FleetForm[CreditPurse], RateGate):
    """A gate that counts starts, on credits that the store granted."""

    def _make_purse(self, limit: str) -> CreditPurse:
        return CreditPurse(self, self._tie, limit, self._terms)

    def eta(self, job: Waiting, now: float) -> float:
        return max(super().eta(job, now), self._held_until)

    def take(self, job: Waiting, now: float) -> None:
        super().take(job, now)
        self._purse.take(job)

    def started(self, job: Waiting, now: float) -> None:
        super().started(job, now)
        self._purse.began(job)

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        super().give(job, now, ended)
        if ended.kind is EndKind.NOT_STARTED:
            self._purse.take_back(job)

    def stats(self) -> dict[str, Any]:
        return {**super().stats(), "credits": self._purse.available}


def _text_of(key: Hashable, gate: Gate) -> str:
    """Return *key* as every process writes it.

    Raises:
        InvalidOption: If no two need write it alike.
    """
    parts = cast("tuple[object, ...]", key) if isinstance(key, tuple) else (key,)
    for part in parts:
        if type(part) not in _PLAIN:
            raise InvalidOption(
                f"{gate!r} holds for all processes, which must write its keys alike: "
                f"by= must find a text, a number or a tuple of these, got {key!r}"
            )
    return repr(parts) if isinstance(key, tuple) else repr(parts[0])
