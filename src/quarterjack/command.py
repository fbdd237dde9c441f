"""A command of the operating system: what to run, and, once it has run, how that went."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from .errors import InvalidOption

__all__ = ["Command", "command_body", "unrun"]

_MOST_CODE: Final = 255
_MOST_SIGNAL: Final = 64


@dataclass(frozen=True)
class Command:
    """A program with its arguments; as a job's result also its exit code and its output.

    Attributes:
        words: The program and its arguments; a text only with *shell*.
        shell: Have ``/bin/sh`` read the text. Never put into it what you have not written yourself.
        ok_codes: The exit codes that mean success; any other is a failure of the job.
        cwd: The folder to run it in; None is the app's.
        env: Environment variables beside, or instead of, the app's own. They are not stored.
        code: How it ended; None before it has. A negative one is the signal that ended it.
        output: What it wrote, to stdout and stderr in their order, without its lines of progress: the first and the
            last 32 KB.
        size: How many bytes that was; more than *output* has if some were left out.

    Raises:
        InvalidOption: If *words* is empty or of the wrong kind, there is a NUL in a text, or *ok_codes* names what
            no program ends with.
    """

    words: Sequence[str] | str
    shell: bool = field(default=False, kw_only=True)
    ok_codes: Sequence[int] = field(default=(0,), kw_only=True)
    cwd: str | None = field(default=None, kw_only=True)
    env: Mapping[str, str] | None = field(default=None, kw_only=True, repr=False)
    code: int | None = field(default=None, kw_only=True)
    output: str = field(default="", kw_only=True)
    size: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.words, str) is not self.shell:
            raise InvalidOption(
                "a command is a list of words such as ['pg_dump', 'shop'], or a text with shell=True, "
                f"got {self.words!r}"
            )
        if not isinstance(self.words, str):
            words = tuple(str(word) if isinstance(word, Path) else word for word in self.words)
            if not words:
                raise InvalidOption("a command is a list of words, at least one: the program")
            for word in words:
                if not isinstance(word, str):
                    kind = type(word).__name__
                    raise InvalidOption(
                        f"the words of a command are texts, and {word!r} in {words!r} is of type {kind}"
                    )
            object.__setattr__(self, "words", words)
        if not self.words:
            raise InvalidOption("a command is a text that is not empty")
        object.__setattr__(self, "ok_codes", _exit_codes(self.ok_codes))
        if self.cwd is not None:
            object.__setattr__(self, "cwd", _folder(self.cwd))
        if self.env is not None:
            _check_env(self.env)
        for text in (*self.argv, self.cwd, *(item for pair in (self.env or {}).items() for item in pair)):
            if isinstance(text, str) and "\0" in text:
                raise InvalidOption(f"no program takes a NUL, and there is one in {text!r}")

    @property
    def argv(self) -> list[str]:
        """The words that the system gets."""
        return ["/bin/sh", "-c", self.words] if isinstance(self.words, str) else list(self.words)

    def ended(self, code: int, output: str, size: int) -> Command:
        """Return it with how it went, and without its environment: that may hold secrets."""
        return replace(self, code=code, output=output, size=size, env=None)


def _folder(value: str | os.PathLike[str]) -> str:
    try:
        found = os.fspath(value)
    except TypeError:
        found = None
    if not isinstance(found, str):
        raise InvalidOption(f"cwd must be a folder, a text or a Path, got {value!r}")
    return found


def _check_env(env: Mapping[Any, Any]) -> None:
    if not hasattr(env, "items"):
        raise InvalidOption("env must be a mapping of names to texts")  # not shown: it may hold secrets
    for name, text in env.items():
        if not isinstance(name, str) or not name or "=" in name:
            raise InvalidOption(f"env has a name that no variable can have: {name!r}")
        if not isinstance(text, str):
            raise InvalidOption(f"env[{name!r}] must be a text, got one of type {type(text).__name__}")


def _exit_codes(value: Collection[int] | int) -> tuple[int, ...]:
    codes = tuple(value) if isinstance(value, Collection) else (value,)
    if not codes or not all(type(code) is int and -_MOST_SIGNAL <= code <= _MOST_CODE for code in codes):
        raise InvalidOption(
            f"ok_codes must be exit codes such as (0, 1), from 0 to {_MOST_CODE}, -9 for signal 9, got {value!r}"
        )
    return codes


def command_body(made: Command) -> Callable[..., Command]:
    """Return the function of a task that runs *made*, with a job's arguments as further words."""
    if made.shell:

        def body() -> Command:
            return made

        return body

    def body_with_words(*words: str) -> Command:
        return replace(made, words=(*made.words, *words))

    return body_with_words


def unrun(result: Any) -> str | None:
    """Return what is wrong if a body that was to do its work itself returned a command that nobody has run."""
    if not isinstance(result, Command) or result.code is not None:
        return None
    return (
        f'its body returned {_short(result)} and nothing has run that: only executor="command" does; '
        "give it to the task, or make one of it by app.command(…)"
    )


def _short(command: Command) -> str:
    text = f"Command({command.words!r})"
    return text if len(text) <= 200 else text[:197] + "…)"
