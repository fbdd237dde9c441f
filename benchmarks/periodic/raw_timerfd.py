"""The machine's own noise: a thread that does nothing but block on an absolute timerfd.

No event loop and no body: what is late here is the kernel, the hypervisor and
the neighbours. No contender can be asked to do better."""

from __future__ import annotations

import ctypes
import os
import struct

from grid import Periodic
from measure import SECOND

CLOCK_REALTIME = 0
TFD_TIMER_ABSTIME = 1

libc = ctypes.CDLL(None, use_errno=True)


class Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Itimerspec(ctypes.Structure):
    _fields_ = (("interval", Timespec), ("value", Timespec))


def armed(first_ns: int, period_ns: int) -> int:
    """Return a descriptor that becomes readable at *first_ns* and every period after."""
    descriptor = libc.timerfd_create(CLOCK_REALTIME, 0)
    spec = Itimerspec(Timespec(*divmod(period_ns, SECOND)), Timespec(*divmod(first_ns, SECOND)))
    if descriptor < 0 or libc.timerfd_settime(descriptor, TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
        raise OSError(ctypes.get_errno(), "timerfd")
    return int(descriptor)


def main() -> None:
    case = Periodic.from_options()
    timer = armed(case.origin_ns, case.period_ns)
    case.begin()
    case.meter.start()
    left = round(case.args.seconds / case.args.period)
    while left > 0:
        (expired,) = struct.unpack("Q", os.read(timer, 8))
        case.hit(0)
        left -= expired
    case.meter.stop()
    os.close(timer)
    case.report()


main()
