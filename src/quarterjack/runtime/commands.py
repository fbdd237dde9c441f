"""What an operator may ask of a process, and how it obeys.

``drain``: take and fire nothing more, finish what runs. ``resume``: go on.
``stop``: drain, and end where the app is served."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from .scheduler import Scheduler
    from .worker import Worker

__all__ = ["COMMANDS", "CommandsHost", "obey"]

log = logging.getLogger("quarterjack")

COMMANDS: Final = ("drain", "resume", "stop")


class CommandsHost(Protocol):
    """What is needed of the app around it."""

    is_held: bool
    """Whether it takes and fires nothing more because an operator has said so."""

    @property
    def worker(self) -> Worker | None: ...
    @property
    def scheduler(self) -> Scheduler | None: ...
    @property
    def is_draining(self) -> bool: ...
    def stop(self) -> None: ...


def obey(host: CommandsHost, command: str) -> None:
    """Do what an operator asks; what is not known is told and left undone."""
    if command not in COMMANDS:
        log.error("an operator asks for %r, which is not known here; it is one of %s", command, ", ".join(COMMANDS))
        return
    log.warning("an operator asks this process to %s", command)
    is_open = command == "resume"
    if is_open and host.is_draining:
        log.warning("it is ending, and does not go on")
        return
    host.is_held = not is_open
    if host.worker is not None:
        host.worker.claimer.is_open = is_open
        if not is_open:
            host.worker.leave_flows()  # it would begin no more here, and be renewed as if it could
        host.worker.poke()
    if host.scheduler is not None:
        host.scheduler.hold(is_held=not is_open)
    if command == "stop":
        host.stop()
