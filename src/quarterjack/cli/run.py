"""``qj run``: an app until it is told to stop, or until nothing is left to do.

Options and nothing more: `_serving` runs the app in this process, `_reload`
runs it in another one and `_fleet` in several, and they look after those.
None is imported before it is known which: a process that looks after others
never loads what the app needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import click

from ._hints import typed
from ._runlog import LogFormat, configure
from ._shell import EXIT_USAGE, Failure
from ._target import Target, load, target_argument

__all__ = ["command"]

Role = Literal["both", "scheduler", "worker"]

WATCHDOG_S: Final = 0.1
"""While people write code a loop that stands still for so long is reported, as in asyncio's debug mode."""


@click.command("run")
@target_argument
@click.option("--until-idle", is_flag=True, help="End when no job waits or runs and no schedule has a next fire.")
@click.option("--reload", "reloads", is_flag=True, help="Start anew whenever a Python file of the project changes.")
@click.option(
    "--workers", type=click.IntRange(1, 1000), default=1, metavar="N", help="Run the app in so many processes."
)
@click.option(
    "--role",
    type=click.Choice(["both", "scheduler", "worker"]),
    metavar="ROLE",
    help="both: fire schedules and run jobs; scheduler: only fire; worker: only run.",
)
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Run jobs of this queue alone; may be repeated.")
@click.option(
    "--isolate-scheduler", "isolates", is_flag=True, help="Fire in a process of its own; the workers only run jobs."
)
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
# What `_reload` and `_fleet` tell the processes that they start.
@click.option("--lifeline", type=int, hidden=True)
@click.option("--member", hidden=True)
@click.option("--coloured", is_flag=True, hidden=True)
def command(
    target: str | None,
    until_idle: bool,
    reloads: bool,
    workers: int,
    role: Role | None,
    queues: tuple[str, ...],
    isolates: bool,
    log_level: str,
    log_format: LogFormat,
    lifeline: int | None,
    member: str | None,
    coloured: bool,
) -> None:
    """Run an app until SIGINT (Ctrl-C) or SIGTERM, then drain; a second signal means now.

    With --workers or --isolate-scheduler it runs in several processes, which are
    started anew when they end unasked; their lines begin with [w1], [w2], … They
    need a store that processes share, such as SQLite.

    With --reload the app runs in a process of its own; before each new start
    running jobs have a second to end. The watchdog is on.

    \b
    Ends with
      0    drained after one signal, or idle (--until-idle) and no job failed
      1    start-up or a shutdown hook failed, or with --until-idle a job
           ended failed, timed out or lost; one of several processes ended
           five times in a row before it had started
      2    asked wrongly
      130  interrupted: before it had started, before it was idle, or by a
           second signal (143 if that signal was SIGTERM)
    """
    wanted = _Wanted(role, queues, until_idle, log_level, log_format)
    _check(wanted, reloads=reloads, is_alone=workers == 1, isolates=isolates)
    if workers > 1 or isolates:
        from ._fleet import roles_of, supervise  # noqa: PLC0415  # see the module's docstring

        configure(log_level, log_format)
        roles = roles_of(workers, role, isolates_scheduler=isolates)
        code = supervise(target, wanted.options(), roles, until_idle=until_idle, form=log_format)
    elif reloads:
        from ._reload import supervise as watch  # noqa: PLC0415  # likewise

        configure(log_level, log_format)
        code = watch(target, [*wanted.options(), *(["--role", role] if role is not None else [])])
    elif member is not None and lifeline is not None:
        code = _run_member(target, wanted, member, lifeline, is_coloured=coloured)
    else:
        code = _run(target, wanted, lifeline)
    raise click.exceptions.Exit(code)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What each process of the app is asked for."""

    role: Role | None
    queues: tuple[str, ...]
    until_idle: bool
    log_level: str
    log_format: LogFormat

    def options(self) -> list[str]:
        """Return all of it but the role as words of a command line."""
        words = ["--log-level", self.log_level, "--log-format", self.log_format]
        words += [word for queue in self.queues for word in ("--queue", queue)]
        return [*words, "--until-idle"] if self.until_idle else words


def _check(wanted: _Wanted, *, reloads: bool, is_alone: bool, isolates: bool) -> None:
    """Refuse options that do not go together.

    Raises:
        Failure: With exit code 2.
    """
    if isolates and wanted.role is not None:
        raise _misused("--isolate-scheduler gives each process its role; leave --role out")
    if isolates and wanted.until_idle:
        raise _misused("--until-idle needs processes that fire and run; leave --isolate-scheduler out")
    if reloads and (isolates or not is_alone):
        raise _misused("--reload is for one process; leave --workers and --isolate-scheduler out")


def _misused(message: str) -> Failure:
    return Failure(message, typed("--help"), EXIT_USAGE)


def _run(target: str | None, wanted: _Wanted, lifeline: int | None) -> int:
    """Run the app in this process, which `_reload` has started if there is a *lifeline*."""
    is_followed = lifeline is not None
    if lifeline is not None:
        from ._following import follow  # noqa: PLC0415  # likewise

        follow(lifeline)
    found = _adapted(load(target), wanted, is_alone=True)
    if is_followed and found.app.watchdog_s is None:
        found.app.watchdog_s = WATCHDOG_S
    configure(wanted.log_level, wanted.log_format)
    from ._serving import serve  # noqa: PLC0415  # likewise

    return serve(found, until_idle=wanted.until_idle, is_followed=is_followed)


def _run_member(target: str | None, wanted: _Wanted, name: str, lifeline: int, *, is_coloured: bool) -> int:
    """Run the app as one of the processes of a `_fleet`."""
    from ._following import Member  # noqa: PLC0415  # likewise

    member = Member(name, lifeline)
    member.follow()
    found = _adapted(load(target), wanted, is_alone=False)
    configure(wanted.log_level, wanted.log_format, process=name, is_coloured=is_coloured)
    from ._serving import serve  # noqa: PLC0415  # likewise

    member.loaded(found.app)
    return serve(found, until_idle=wanted.until_idle, is_followed=True, on_started=member.started)


def _adapted(found: Target, wanted: _Wanted, *, is_alone: bool) -> Target:
    """Give the app the role and the queues that were asked for.

    Raises:
        Failure: If other processes would have to see its store and cannot, or no queue can have such a name.
    """
    from quarterjack.errors import InvalidOption  # noqa: PLC0415  # the app has imported both by now
    from quarterjack.options import valid_name  # noqa: PLC0415

    app = found.app
    if not app.store.is_shared and (not is_alone or wanted.role in {"scheduler", "worker"}):
        raise Failure(
            f"{found.name} keeps its jobs in its own memory, where no other process sees them: --workers, "
            "--isolate-scheduler and --role need a store that processes share, such as SQLite",
            'app = Quarterjack("sqlite:///jobs.db")',
            EXIT_USAGE,
        )
    if wanted.role is not None:
        app.role = wanted.role
    if wanted.queues:
        try:
            app.queues = tuple(valid_name(queue, "--queue") for queue in wanted.queues)
        except InvalidOption as error:
            raise _misused(str(error)) from None
    return found
