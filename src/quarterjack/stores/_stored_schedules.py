"""Both declared halves of a schedule in a row, as JSON, and its rule.

A trigger is written as `Rule.to_dict` has it; beside it stand the modules of
custom kinds, so that a process that has not imported one finds it. A trigger
that cannot be rebuilt here (its code is gone, or not there yet) becomes an
`UnknownTrigger`: its schedule is parked *here*, with the reason, and its row is
written back as it was found, for a process that knows it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, cast

from pydantic_core import from_json, to_json

from quarterjack.errors import InvalidTrigger
from quarterjack.model import Overlap, Payload, Schedule, Timing
from quarterjack.triggers import Trigger
from quarterjack.triggers.base import Rule, UnlistedTrigger

from ._memo import Memo
from ._payloads import Payloads
from ._stored_options import OptionsStore

__all__ = ["ScheduleParts", "UnknownTrigger"]


class UnknownTrigger(UnlistedTrigger):
    """Stands for a rule that cannot be rebuilt in this process; it is kept, and never fires here."""

    example: ClassVar[str] = ""

    form: dict[str, Any]
    """The rule as its row has it, with the modules of custom kinds."""
    reason: str
    was: tuple[str | None, int | None, int | None] = (None, None, None)
    """Why the row is parked, its next fire time and its next run, as the row has it."""

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as it was written."""
        return cast("dict[str, Any]", self.form["rule"])

    def explain(self) -> str:
        """Return the rule in words."""
        return f"a rule that is not known here: {self.reason}"

    def _why_unlisted(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Partial(Payload):
    """A payload of a later version, of which this one knows a part: the rest is written back as it was found."""

    left: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unread(Payload):
    """A payload that cannot be rebuilt here: its schedule never fires here, and it is written back as it was found."""

    text: str
    call: bytes | None
    reason: str


_PAYLOAD_FIELDS: Final = tuple(
    field for field in fields(Payload) if field.name not in {"task", "args", "kwargs", "options", "overlap"}
)
_PAYLOAD_NAMES: Final = frozenset(field.name for field in _PAYLOAD_FIELDS)
_NO_OVERLAP: Final = Overlap()
_BUILT_IN: Final = Rule.__module__.rpartition(".")[0]


class ScheduleParts:
    """Writes and reads timings, payloads and rules; equal texts give the same objects, most of the time."""

    __slots__ = ("_options", "_payloads", "_payloads_read", "_payloads_written", "_read", "_timings", "_written")

    def __init__(self, options: OptionsStore, payloads: Payloads) -> None:
        self._options, self._payloads = options, payloads
        self._written: Memo[str] = Memo()
        self._payloads_written: Memo[tuple[object, str, bytes | None]] = Memo()
        self._payloads_read: dict[tuple[str, bytes | None], tuple[object, Payload]] = {}
        self._read: dict[str, Trigger] = {}
        self._timings: dict[str, Timing] = {}

    # -- rules ---------------------------------------------------------------------------

    def rule(self, trigger: Trigger) -> str:
        """Return a trigger as JSON text.

        Raises:
            InvalidTrigger: If it cannot be written as JSON.
        """
        known = self._written.get(trigger)
        return known if known is not None else self._written.put(trigger, _json(_rule_form(trigger)))

    def resolved(self, schedule: Schedule) -> str | None:
        """Return the rule of *schedule* with what only it knows filled in, as JSON text; None if that is nothing.

        Raises:
            InvalidTrigger: If it cannot be written as JSON.
        """
        declared, trigger = schedule.timing.trigger, schedule.trigger
        if trigger is declared:
            return None
        text = self.rule(trigger)
        return None if text == self.rule(declared) else text

    def rule_of(self, text: str) -> Trigger:
        """Return the trigger that `rule` wrote, or an `UnknownTrigger`."""
        known = self._read.get(text)
        if known is not None:
            return known
        found = _rebuilt(_form_of(text))
        if not isinstance(found, UnknownTrigger):  # it may be known later: its module is being imported, say
            _remember(self._read, text, found)
        return found

    # -- the declared halves ---------------------------------------------------------------

    def timing(self, timing: Timing) -> str:
        """Return a timing as JSON text; raises as `rule` does."""
        known = self._written.get(timing)
        if known is None:
            bounds = {"jitter_ns": timing.jitter_ns or None, "start_ns": timing.start_ns, "end_ns": timing.end_ns}
            form = {**_rule_form(timing.trigger), **{name: at for name, at in bounds.items() if at is not None}}
            known = self._written.put(timing, _json(form))
        return known

    def timing_of(self, text: str) -> Timing:
        """Return the timing that `timing` wrote."""
        known = self._timings.get(text)
        if known is not None:
            return known
        form = _form_of(text)
        bounds = {name: form.pop(name) for name in ("jitter_ns", "start_ns", "end_ns") if type(form.get(name)) is int}
        timing = Timing(trigger=_rebuilt(form), **bounds)
        if not isinstance(timing.trigger, UnknownTrigger):
            _remember(self._timings, text, timing)
        return timing

    def payload(self, payload: Payload) -> tuple[str, bytes | None]:
        """Return a payload as JSON text, and its arguments as a payload of theirs.

        Raises:
            InvalidArguments: If its arguments cannot be written as JSON.
            InvalidOption: If one of its options cannot be written down.
        """
        if isinstance(payload, _Unread):
            return payload.text, payload.call
        own = self._options.own(payload.task)
        known = self._payloads_written.get(payload)
        if known is not None and known[0] is own:
            return known[1], known[2]
        form = {f.name: value for f in _PAYLOAD_FIELDS if (value := getattr(payload, f.name)) != f.default}
        if isinstance(payload, _Partial):
            form.update(cast("dict[str, Any]", from_json(payload.left)))
        if payload.overlap != _NO_OVERLAP:
            form["overlap"] = [payload.overlap.mode, payload.overlap.maximum]
        if payload.options is not own and (options := self._options.whole_form(payload.task, payload.options)):
            form["options"] = options
        call = self._payloads.call(payload.task, payload.args, payload.kwargs)
        return self._payloads_written.put(payload, (own, _json(form), call))[1:]

    def payload_of(self, task: str, text: str, call: bytes | None) -> Payload:
        """Return the payload that `payload` wrote."""
        own = self._options.own(task)
        key = f"{task}\0{text}", call
        known = self._payloads_read.get(key)
        if known is not None and known[0] is own:
            return known[1]
        try:
            payload = self._payload_of(task, text, call)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            reason = f"what it runs, and how, cannot be read here: {type(error).__name__}: {error}"
            payload = _Unread(task=task, options=own, text=text, call=call, reason=reason)
        _remember(self._payloads_read, key, (own, payload))
        return payload

    def _payload_of(self, task: str, text: str, call: bytes | None) -> Payload:
        form = cast("dict[str, Any]", from_json(text))
        options = self._options.of_whole_form(task, form.pop("options", {}))
        overlap = Overlap(*form.pop("overlap", ()))
        args, kwargs = self._payloads.call_of(call)
        left = {name: form.pop(name) for name in [*form] if name not in _PAYLOAD_NAMES}
        values: dict[str, Any] = {"task": task, "args": args, "kwargs": kwargs, "options": options, "overlap": overlap}
        values.update(form)
        return _Partial(**values, left=_json(left)) if left else Payload(**values)

    def settled(self, schedule: Schedule) -> Schedule:
        """Return *schedule* as it comes back from a row, to be put; nothing of it is stored that could not come back.

        Raises:
            InvalidTrigger: If its trigger cannot be written as JSON, or would come back as another one.
            InvalidArguments: If its arguments cannot be written as JSON.
            InvalidOption: If one of its options cannot be written down.
        """
        row, timing = schedule.copy(), schedule.timing
        if isinstance(timing.trigger, UnknownTrigger):  # put, it would be planned here, and parked for all
            raise InvalidTrigger(f"schedule {schedule.id!r} cannot be changed by this process: {timing.trigger.reason}")
        try:
            text = self.timing(timing)
            row.timing = self.timing_of(text)
            if row.timing != timing:
                raise InvalidTrigger(_other(timing.trigger, row.timing.trigger))
        except InvalidTrigger as error:
            raise type(error)(f"schedule {schedule.id!r} cannot be stored: {error}") from None
        if row.trigger is timing.trigger:
            row.trigger = row.timing.trigger
        payload, call = self.payload(schedule.payload)
        row.payload = self.payload_of(schedule.payload.task, payload, call)
        return row


def _remember(known: dict[Any, Any], key: Any, value: Any) -> None:
    if len(known) > _MOST:
        known.clear()
    known[key] = value


_MOST: Final = 2_000


def _json(form: dict[str, Any]) -> str:
    return str(form[_UNREADABLE]) if _UNREADABLE in form else to_json(form).decode()


def _form_of(text: str) -> dict[str, Any]:
    """Return what a text says of a rule; one that says nothing is kept in it."""
    try:
        found: Any = from_json(text)
    except ValueError:
        found = None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {_UNREADABLE: text}


_UNREADABLE: Final = "unreadable"


def _other(trigger: Trigger, found: Trigger) -> str:
    if isinstance(found, UnknownTrigger):
        return found.reason
    return (
        f"{trigger!r} would come back from the store as {found!r}; fields of a trigger have to survive JSON: "
        "use numbers, texts, datetimes, other rules"
    )


# -- rules and their kinds ---------------------------------------------------------------


def _rule_form(trigger: Trigger) -> dict[str, Any]:
    if isinstance(trigger, UnknownTrigger):
        return trigger.form
    try:
        form: dict[str, Any] = {"rule": trigger.to_dict()}
    except InvalidTrigger:
        raise
    except Exception as error:  # a custom rule's to_dict, or a field's own serializer, may raise anything
        name = type(trigger).__name__
        raise InvalidTrigger(f"{name} cannot be written as JSON: {type(error).__name__}: {error}") from error
    modules = _custom(trigger)
    if modules:
        form["modules"] = modules
    return form


def _custom(value: Any) -> dict[str, str]:
    """Return the custom kinds of rules in *value*, each with its module.

    Raises:
        InvalidTrigger: If one is defined where no other process finds it.
    """
    if isinstance(value, (list, tuple, set, frozenset)):
        return {name: module for item in cast("list[Any]", value) for name, module in _custom(item).items()}
    if not isinstance(value, Rule):
        return {}
    found: dict[str, str] = {}
    for name in type(value).model_fields:
        found.update(_custom(getattr(value, name)))
    kind = type(value)
    if not kind.__module__.startswith(_BUILT_IN):
        if "<" in kind.__qualname__:
            raise InvalidTrigger(
                f"{kind.__name__} is defined inside a function, where no other process finds it; "
                "move the class to the top of a module"
            )
        spec = getattr(sys.modules.get(kind.__module__), "__spec__", None)
        found[kind.__name__] = kind.__module__ if spec is None else spec.name
    return found


def _rebuilt(form: dict[str, Any]) -> Trigger:
    """Return the trigger that *form* describes, or an `UnknownTrigger` that keeps it."""
    rule = cast("dict[str, Any]", form.get("rule"))
    modules = cast("Mapping[str, str]", form.get("modules", {}))
    if not isinstance(rule, dict) or not isinstance(modules, dict):
        return UnknownTrigger(form=form, reason="its trigger cannot be read: it is no rule written as JSON")
    try:
        return Trigger.from_dict(rule)
    except Exception as error:  # a custom rule's validators may raise anything
        problem: Exception = error
    try:
        for module in modules.values():
            importlib.import_module(module)
        return Trigger.from_dict(rule)
    except Exception as error:  # importing runs a module of the user's
        said = error if isinstance(error, ImportError) else problem
        return UnknownTrigger(form=form, reason=f"its trigger cannot be rebuilt here: {type(said).__name__}: {said}")


def parked_here(row: Schedule) -> None:
    """Park *row* in this process if not all of it is known here; what its row says of that is kept."""
    trigger, declared = row.trigger, row.timing.trigger
    unknown = next(
        (one for one in (trigger, declared, row.payload) if isinstance(one, (UnknownTrigger, _Unread))), None
    )
    if unknown is not None:
        was = row.parked_reason, row.next_nominal_ns, row.next_due_ns
        row.trigger = UnknownTrigger(form=_rule_form(trigger), reason=unknown.reason, was=was)
        row.parked_reason = unknown.reason
        row.next_nominal_ns = row.next_due_ns = None
