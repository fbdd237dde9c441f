"""``qj run``: an app until it is told to stop, or until nothing is left to do.

Options and nothing more: `_serving` runs the app in this process, `_reload`
runs it in another one and looks after that. Neither is imported before it is
known which: the process that reloads never loads what the app needs."""

from __future__ import annotations

import click

from ._runlog import LogFormat, configure
from ._target import load, target_argument

__all__ = ["command"]


@click.command("run")
@target_argument
@click.option("--until-idle", is_flag=True, help="End when no job waits or runs and no schedule has a next fire.")
@click.option("--reload", "reloads", is_flag=True, help="Start anew whenever a Python file of the project changes.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    metavar="LEVEL",
    help="How much to tell: debug, info, warning or error.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    metavar="FORMAT",
    help="Lines of text for people, or json: an object a line.",
)
@click.option("--lifeline", type=int, hidden=True)  # what `_reload` tells the process that it starts
def command(
    target: str | None, until_idle: bool, reloads: bool, log_level: str, log_format: LogFormat, lifeline: int | None
) -> None:
    """Run an app until SIGINT (Ctrl-C) or SIGTERM, then drain; a second signal means now.

    With --reload the app runs in a process of its own; before each new start
    running jobs have a second to end. The watchdog is on.

    \b
    Ends with
      0    drained after one signal, or idle (--until-idle) and no job failed
      1    start-up or a shutdown hook failed, or with --until-idle a job
           ended failed, timed out or lost
      2    asked wrongly
      130  interrupted: before it had started, before it was idle, or by a
           second signal (143 if that signal was SIGTERM)
    """
    if reloads:
        from ._reload import supervise  # noqa: PLC0415  # see the module's docstring

        configure(log_level, log_format)
        options = [*(["--until-idle"] if until_idle else []), "--log-level", log_level, "--log-format", log_format]
        raise click.exceptions.Exit(supervise(target, options))
    if lifeline is not None:
        from ._reload import follow  # noqa: PLC0415  # likewise

        follow(lifeline)
    found = load(target)
    configure(log_level, log_format)
    from ._serving import serve  # noqa: PLC0415  # likewise

    raise click.exceptions.Exit(serve(found, until_idle=until_idle, is_watched=lifeline is not None))
