"""What every command of ``qj`` shares: lazy loading, errors with a next step, exit codes.

`LazyGroup` imports a command when it is named and turns whatever ends it into
one exit code. `Failure` is how a command says that it could not do its work:
a sentence, and the command to try next."""

from __future__ import annotations

import difflib
import importlib
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final, NoReturn

import click

from quarterjack.errors import QuarterjackError

__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_USAGE", "Failure", "LazyGroup", "wrapped"]

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
"""As shells count it: 128 and the number of SIGINT."""


class Failure(click.ClickException):
    """The command could not do its work; *hint* is the command, or the deed, to try next."""

    def __init__(self, message: str, hint: str, code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code

    def show(self, file: IO[Any] | None = None) -> None:
        """Print what went wrong and what to try."""
        _tell(self.message, self.hint, file)


def _tell(message: str, hint: str, file: IO[Any] | None = None) -> None:
    click.echo(wrapped(f"Error: {message}", indent=7), file=file, err=file is None)
    click.echo(f"Try:   {hint}", file=file, err=file is None)


def wrapped(line: str, indent: int, stream: IO[str] | None = None) -> str:
    """Return a line for *stream* (stderr): on a terminal broken between words, the rest indented; else as it is."""
    if not (stream or sys.stderr).isatty() or "\n" in line:
        return line
    width = max(shutil.get_terminal_size().columns, 4 * indent)
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


class LazyGroup(click.Group):
    """A group whose commands are modules, imported when they are named.

    Args:
        commands_by_name: For each command the module that holds it as
            ``command``, or ``module:name``, and its line in the help.
    """

    def __init__(self, *args: Any, commands_by_name: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = commands_by_name

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        del ctx
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for a name that is none."""
        del ctx
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, _, name = place[0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name or "command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one is answered with the nearest."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in self._places and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, self._places, n=1)
            raise Failure(f"there is no command {name!r}", f"qj {near[0] if near else '--help'}", EXIT_USAGE)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into the help without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._places.items()])

    def main(  # type: ignore[override]  # click's own overloads say when it returns; ours as a command never does
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        *,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and, as a command, end the process with the documented exit code."""
        if not standalone_mode:
            return super().main(args, prog_name, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
        except Failure as failure:
            failure.show()
            sys.exit(failure.code)
        except QuarterjackError as error:  # what is wrong with their app is told by what it was asked
            _tell(str(error), f"{shlex.join(['qj', *(sys.argv[1:] if args is None else args)])}, once that is mended")
            sys.exit(EXIT_FAILED)
        except click.ClickException as error:
            _usage(error)
        except click.Abort:
            click.echo("Interrupted.", err=True)
            sys.exit(EXIT_INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


def _usage(error: click.ClickException) -> NoReturn:
    """Tell click's own errors in our form: what is wrong, then where the help is."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "qj"
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help; click has it since 8.2
        error.show()
    else:
        _tell(error.format_message().rstrip(), f"{path} --help")
    sys.exit(error.exit_code)
