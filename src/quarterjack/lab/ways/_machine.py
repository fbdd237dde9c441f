"""The machine's own noise: a process that does nothing but block on an absolute timer of the kernel.

No event loop and no body: what is late here is the kernel, the hypervisor and the
neighbours. No way can be asked to do better."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from ._case import NS_PER_S, Case
from ._catalog import way

__all__ = ["machine"]

CLOCK_REALTIME: Final = 0
TFD_TIMER_ABSTIME: Final = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


@way(
    "machine",
    "the machine itself",
    "grid",
    "blocks on a kernel timer and runs no body: what is late here, nobody can do better",
    system="linux",
    is_peer=False,
)
def machine(case: Case) -> None:
    """Block on a timerfd, again and again."""
    libc = ctypes.CDLL(None, use_errno=True)
    timer: int = libc.timerfd_create(CLOCK_REALTIME, 0)
    case.go()
    spec = _Itimerspec(_Timespec(*divmod(case.period_ns, NS_PER_S)), _Timespec(*divmod(case.origin_ns, NS_PER_S)))
    if timer < 0 or libc.timerfd_settime(timer, TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
        raise OSError(ctypes.get_errno(), "timerfd")
    case.body = "none"
    while True:
        struct.unpack("Q", os.read(timer, 8))
        case.run_body()
