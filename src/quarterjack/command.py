"""A command of the operating system: what to run, and, once it has run, how that went."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import InvalidOption

__all__ = ["Command", "command_body"]


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
        output: What it wrote, to stdout and stderr in their order: the first and the last 32 KB.
        size: How many bytes it wrote.

    Raises:
        InvalidOption: If *words* is empty or of the wrong kind, or an exit code is no number.
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
            if not words or not all(isinstance(word, str) for word in words):
                raise InvalidOption(f"a command is a list of texts, at least one, got {self.words!r}")
            object.__setattr__(self, "words", words)
        if not self.words:
            raise InvalidOption("a command is a text that is not empty")
        codes: Any = (self.ok_codes,) if isinstance(self.ok_codes, int) else tuple(self.ok_codes)
        if not all(isinstance(code, int) for code in codes):
            raise InvalidOption(f"ok_codes must be numbers such as (0, 1), got {self.ok_codes!r}")
        object.__setattr__(self, "ok_codes", codes)
        if self.cwd is not None:
            object.__setattr__(self, "cwd", os.fspath(self.cwd))

    @property
    def argv(self) -> list[str]:
        """The words that the system gets."""
        return ["/bin/sh", "-c", self.words] if isinstance(self.words, str) else list(self.words)

    def ended(self, code: int, output: str, size: int) -> Command:
        """Return it with how it went, and without its environment: that may hold secrets."""
        return replace(self, code=code, output=output, size=size, env=None)


def command_body(made: Command) -> Callable[..., Command]:
    """Return the function of a task that runs *made*, with a job's arguments as further words."""
    if made.shell:

        def body() -> Command:
            return made

        return body

    def body_with_words(*words: str) -> Command:
        return replace(made, words=(*made.words, *words))

    return body_with_words
