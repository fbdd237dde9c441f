"""The leash: a child that ends with its parent, whatever either is doing at that moment.

A pipe per child. The parent holds the one end for as long as it lives; the
kernel is asked to kill the child when the other one breaks (``O_ASYNC`` with
SIGKILL as its signal), so it needs no instruction of the child's: one inside a
C call that holds the interpreter goes as well. (``PR_SET_PDEATHSIG`` would
follow the process that forked the child, not the app's.)

Linux alone has it. Elsewhere the nursery kills its children when the app is
gone; a child whose nursery was killed too ends when it next reads."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Final

from quarterjack._timerfd import PORTABLE

__all__ = ["fasten", "fasten_group", "has_leash", "not_for_forks", "unfasten"]

_F_SETSIG: Final = 10  # Linux's; Python's fcntl names it on some builds only
_SIGKILL: Final = 9


_ours: Final[dict[int, Callable[[], object]]] = {}
"""By descriptor, what closes it in a process that is forked from this one."""


def has_leash() -> bool:
    """Say whether this system has it, and nobody asked to do without what only Linux has."""
    return sys.platform.startswith("linux") and not os.environ.get(PORTABLE)


def not_for_forks(fd: int, close: Callable[[], object] | None) -> None:
    """Have a forked process call *close*, for it would hold a leash of ours for as long as it lives; None: no more."""
    if close is None:
        _ours.pop(fd, None)
    else:
        _ours[fd] = close


def _after_fork() -> None:
    for close in _ours.values():
        close()
    _ours.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def fasten_group(leash: int, group: int) -> None:
    """Have the kernel kill a process group likewise; one of them has to hold *leash* open.

    One that is gone already, and buried because SIGCHLD is ignored here, needs no leash.
    """
    if has_leash():
        with contextlib.suppress(ProcessLookupError):
            _fasten(leash, -group)


def unfasten(leash: int) -> None:
    """Have nobody killed by *leash* any more."""
    if has_leash():
        import fcntl  # noqa: PLC0415  # likewise

        fcntl.fcntl(leash, fcntl.F_SETFL, fcntl.fcntl(leash, fcntl.F_GETFL) & ~os.O_ASYNC)


def _fasten(leash: int, owner: int) -> None:
    import fcntl  # noqa: PLC0415  # not on every system

    fcntl.fcntl(leash, fcntl.F_SETOWN, owner)
    fcntl.fcntl(leash, _F_SETSIG, _SIGKILL)
    fcntl.fcntl(leash, fcntl.F_SETFL, fcntl.fcntl(leash, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)


def fasten(leash: int) -> None:
    """Have the kernel kill this process when the other end of the pipe *leash* is closed, or its holder dies."""
    if not has_leash():
        return
    _fasten(leash, os.getpid())
    try:
        is_broken = not os.read(leash, 1)
    except BlockingIOError:
        is_broken = False
    if is_broken:  # before it was fastened
        os._exit(1)
