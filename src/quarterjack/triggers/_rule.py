"""`Rule`: what triggers and filters have in common.

A rule is a frozen pydantic model: checked when it is built, equal by value,
hashable, and written as JSON with its type's name in ``type``. Pydantic finds
what is wrong with a value; this module says it in one line that names the rule,
the field, the value, what is allowed and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError, from_json, to_json, to_jsonable_python

from quarterjack.errors import InvalidTrigger

__all__ = ["Rule"]

_OWN_PACKAGE: Final = __name__.rpartition(".")[0]
_RULES: Final[dict[str, type[Rule]]] = {}
"""Every kind of rule by its name: what ``from_dict`` looks the ``type`` up in."""

_LAST_SHOWN: Final = ("tz", "gap", "fold", "bound_id")
_PHRASES: Final = {
    "greater_than_equal": "must be greater than or equal to {ge:g}",
    "greater_than": "must be greater than {gt:g}",
    "less_than_equal": "must be less than or equal to {le:g}",
    "less_than": "must be less than {lt:g}",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "string_type": "must be text",
    "literal_error": "must be {expected}",
}


class Rule(BaseModel):
    """Base of `Trigger` and `Filter`; a model of plain fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    positional: ClassVar[tuple[str, ...]] = ()
    """Fields that may be given by position, in order."""
    example: ClassVar[str] = ""
    """What a correct call looks like; ends the message about a wrong one."""

    def __init__(self, *args: Any, **data: Any) -> None:
        try:
            super().__init__(**self.arranged(args, data))
        except ValidationError as error:
            raise _translated(type(self), error.errors()) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # nested rules are validated without a second call

    @classmethod
    def arranged(cls, args: tuple[Any, ...], data: dict[str, Any]) -> dict[str, Any]:
        """Return the fields by name; subclasses put shorthands and aliases in order here.

        Raises:
            InvalidTrigger: If something is given twice or by position where it has none.
        """
        name = cls.__name__
        if len(args) > len(cls.positional):
            allowed = (
                f"only {', '.join(cls.positional)} by position, the rest by name"
                if cls.positional
                else "its options by name"
            )
            raise InvalidTrigger(f"{name} takes {allowed}, got {', '.join(map(repr, args))}{cls.hint()}")
        for field, value in zip(cls.positional, args, strict=False):
            if field in data:
                raise InvalidTrigger(f"{name}: {field} is given twice, as {value!r} and {data[field]!r}")
            data[field] = value
        return data

    @classmethod
    def hint(cls) -> str:
        """Return the end of a message: what to write instead."""
        return f"; write for example {cls.example}" if cls.example else ""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        known = _RULES.get(cls.__name__)
        if known is not None and _is_ours(known) and not _is_ours(cls):
            raise InvalidTrigger(f"{cls.__name__} is the name of a built-in rule; JSON needs another for {cls!r}")
        _RULES[cls.__name__] = cls

    def __hash__(self) -> int:
        """Return a hash of the fields; a custom rule may hold lists and dicts, which are hashed by their items."""
        return hash((type(self), _hashable(tuple(getattr(self, name) for name in type(self).model_fields))))

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Return what differs from the defaults: ``Every(seconds=10)``."""
        fields = type(self).model_fields
        shown = [(name, value) for name in fields if (value := getattr(self, name)) != fields[name].default]
        shown.sort(key=lambda pair: pair[0] in _LAST_SHOWN)
        return [(name, _short(value)) for name, value in shown]

    # -- JSON ------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON-ready values, its kind under ``type``; fields at their defaults are left out.

        Raises:
            InvalidTrigger: If a field of a custom rule cannot be written as JSON.
        """
        found: dict[str, Any] = {"type": type(self).__name__}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if not field.is_required() and value == field.get_default(call_default_factory=True):
                continue
            try:
                found[name] = _plain(value)
            except PydanticSerializationError as error:
                raise InvalidTrigger(f"{type(self).__name__}: {name} cannot be written as JSON: {error}") from None
        return found

    def to_json(self) -> str:
        """Return the rule as JSON text; `from_json` makes an equal rule of it."""
        return to_json(self.to_dict()).decode()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the rule that `to_dict` described.

        Raises:
            InvalidTrigger: If its ``type`` is not known here, or a value is wrong.
        """
        values = dict(data)
        name = values.pop("type", None)
        kind = _RULES.get(name) if isinstance(name, str) else None
        if kind is None:
            raise InvalidTrigger(_unknown_type(name))
        if not issubclass(kind, cls):
            raise InvalidTrigger(f"{name} is no {cls.__name__}")
        return kind(**{key: _revived(value) for key, value in values.items()})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the rule that `to_json` wrote.

        Raises:
            InvalidTrigger: If the text is no JSON object, its ``type`` is not known here, or a value is wrong.
        """
        try:
            data = from_json(text)
        except ValueError as error:
            raise InvalidTrigger(f"this is no JSON: {error}") from None
        if not isinstance(data, dict):
            raise InvalidTrigger(f"a rule is a JSON object such as {{'type': 'Every', 'seconds': 10}}, got {data!r}")
        return cls.from_dict(cast("dict[str, Any]", data))


def _is_ours(kind: type[Rule]) -> bool:
    return kind.__module__.startswith(_OWN_PACKAGE)


def _unknown_type(name: object) -> str:
    near = difflib.get_close_matches(str(name), _RULES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "import the module that defines it first"
    return f"no rule of type {name!r} is known here; {hint}"


def _short(value: Any) -> Any:
    """Return a float that is whole as an int, because ``Every(seconds=10)`` is what was written."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _hashable(value: Any) -> object:
    """Return something equal for equal values, and hashable: what cannot be is left to the comparison."""
    try:
        hash(value)
    except TypeError:
        if isinstance(value, (list, tuple)):
            return tuple(_hashable(item) for item in cast("list[object]", value))
        if isinstance(value, dict):
            return frozenset((key, _hashable(item)) for key, item in cast("dict[Any, object]", value).items())
        return frozenset(cast("set[object]", value)) if isinstance(value, set) else None
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Rule):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, (set, frozenset)):  # in an order that is the same in every process
        return sorted((_plain(item) for item in cast("Collection[Any]", value)), key=to_json)
    return to_jsonable_python(value)


def _revived(value: Any) -> Any:
    if isinstance(value, list):
        return [_revived(item) for item in cast("list[object]", value)]
    is_rule = isinstance(value, dict) and "type" in value
    return Rule.from_dict(cast("dict[str, Any]", value)) if is_rule else cast("Any", value)


# -- messages ------------------------------------------------------------------------------


def _translated(kind: type[Rule], errors: list[ErrorDetails]) -> InvalidTrigger:
    """Return the first error of each field as one; a validator's own kind of it (NeverFires) stays what it is."""
    first_by_field: dict[object, ErrorDetails] = {}
    for error in errors:
        first_by_field.setdefault(error["loc"][:1], error)
    text = "; ".join(_problem(kind, error) for error in first_by_field.values())
    raised = next((cause for error in errors if isinstance(cause := _cause(error), InvalidTrigger)), None)
    # A semicolon stands before advice; what gives none ends with an example.
    return (InvalidTrigger if raised is None else type(raised))(text if ";" in text else text + kind.hint())


def _cause(error: ErrorDetails) -> object:
    return error.get("ctx", {}).get("error")


def _problem(kind: type[Rule], error: ErrorDetails) -> str:
    name, field, code = kind.__name__, ".".join(map(str, error["loc"][:1])), error["type"]
    if code == "extra_forbidden":
        near = difflib.get_close_matches(field, kind.model_fields, n=1)
        return f"{name} has no option {field!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if code == "missing":
        return f"{name} needs {field}"
    if code in {"value_error", "assertion_error"}:
        said = str(_cause(error) or error["msg"])
        return said if said.startswith(name) else f"{name}: {said}"
    phrase = _PHRASES.get(code)
    said = phrase.format(**error.get("ctx", {})) if phrase else f"is wrong: {error['msg']}"
    return f"{name}: {field} {said}, got {error['input']!r}"
