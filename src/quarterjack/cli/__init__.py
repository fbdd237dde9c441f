"""The command ``qj``: run an app, look at its schedules, understand a rule, see it all live.

This module is the door and nothing more: it knows the names of the commands
and imports each one when it is called, so that ``qj --help`` is answered at
once. What all commands promise stands here and in `quarterjack.cli._shell`:

- exit codes: 0 done, 1 failed, 2 asked wrongly, 130 interrupted (143 by SIGTERM);
- an error is told on stderr and ends with the command to try next;
- what changes something is kept as an audit row;
- tables on a terminal, tab-separated lines when piped, ``--json`` everywhere;
- ``NO_COLOR`` is honoured."""

from __future__ import annotations

import os
from typing import Final

import click

from ._shell import LazyGroup

__all__ = ["main"]

COMMANDS: Final = {
    "run": ("quarterjack.cli.run", "Run an app until it is told to stop, or is idle."),
    "ls": ("quarterjack.cli.ls", "List an app's schedules: next fire, rule in words."),
    "next": ("quarterjack.cli.upcoming", "List the next fire times of an app, a schedule or a cron line."),
    "explain": ("quarterjack.cli.explain", "Put a rule into words, with its next fires and what to know."),
    "why": ("quarterjack.cli.why", "Say why a schedule runs, or does not; or did not at an instant."),
    "jobs": ("quarterjack.cli.jobs", "List stored jobs, by state, task, queue, schedule, age."),
    "show": ("quarterjack.cli.show", "Show one job: moments, arguments, result or error, why it waits."),
    "errors": ("quarterjack.cli.jobs:errors", "List what went wrong."),
    "slowest": ("quarterjack.cli.jobs:slowest", "List the jobs that ran longest."),
    "workers": ("quarterjack.cli.workers", "List the processes at work; drain, resume, stop or forget one."),
    "submit": ("quarterjack.cli.submit", "Submit a job to whoever serves the app's store."),
    "trigger": ("quarterjack.cli.act:trigger", "Run a schedule once now."),
    "pause": ("quarterjack.cli.act:pause", "Stop a schedule from firing."),
    "resume": ("quarterjack.cli.act:resume", "Let a paused schedule fire again."),
    "cancel": ("quarterjack.cli.act:cancel", "Cancel jobs by id, or all that a filter means."),
    "retry": ("quarterjack.cli.act:retry", "Run finished jobs again, by id or by a filter."),
    "purge": ("quarterjack.cli.act:purge", "Delete finished jobs that ended some time ago."),
    "check": ("quarterjack.cli.check", "Say whether the app, its store and its workers are in order."),
    "simulate": ("quarterjack.cli.simulate", "Play an app's schedules in virtual time: collisions, waits, peaks."),
    "db": ("quarterjack.cli.db", "Look at a store's schema, or bring it up to date."),
    "lab": ("quarterjack.cli.lab", "Measure how ways to do something every T seconds keep time."),
    "demo": ("quarterjack.cli.demo", "See what quarterjack does, live, on your terminal."),
}
"""Where each command lives, and its line in the help; a module holds its command as ``command``."""

EPILOG: Final = """\b
An app is named  module:app,  module  or  path/to/file.py:app; it may be left
out where pyproject.toml says  [tool.quarterjack] app = "module:app".

\b
First steps:   qj demo
               qj ls path/to/file.py
               qj explain "*/5 9-17 * * mon-fri" --tz Europe/Rome
"""


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  # 12 ms that only --version needs

    try:
        click.echo(f"qj {version('quarterjack')}")
    except PackageNotFoundError:
        click.echo("qj from a source tree that is not installed")
    context.exit()


@click.group(
    cls=LazyGroup,
    commands_by_name=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and exit."
)
@click.pass_context
def main(context: click.Context) -> None:
    """Things that run later, again, or not all at once."""
    if os.environ.get("NO_COLOR"):
        context.color = False
