"""A wall-clock timer of the Linux kernel, as a file descriptor.

`open_timerfd` gives a `TimerFd`, or None where the system has none. The timer
is absolute, on ``CLOCK_REALTIME``, and cancelled when the clock is set
(``TFD_TIMER_CANCEL_ON_SET``): it becomes readable at the instant it was armed
for *and* whenever somebody steps the clock. Python 3.13 brings the calls in
`os`; before, they are reached through `ctypes`.

Which loop watches the descriptor, and what happens when it is readable, is
the business of `quarterjack.clock`. Descriptors are closed when their owner is
collected, and in the child after a fork, where nobody could use them.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet, finalize

__all__ = ["PORTABLE", "TimerFd", "open_timerfd", "timerfds"]

PORTABLE: Final = "QUARTERJACK_PORTABLE"
"""An environment variable that makes Linux pass for a system without its gifts (timerfd, leash), in tests."""
_NS_PER_S: Final = 1_000_000_000
_CLOCK_REALTIME: Final = 0
_TFD_TIMER_ABSTIME: Final = 1
_TFD_TIMER_CANCEL_ON_SET: Final = 2
_ARM_FLAGS: Final = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
_COUNTER_BYTES: Final = 8  # what a timerfd gives to read: how often it expired

_SetTime = Callable[[int, int, int], None]
"""``(fd, flags, due_ns)``; raises OSError. ``due_ns=0`` disarms."""

_open: WeakSet[TimerFd] = WeakSet()


class TimerFd:
    """One kernel timer. Not thread-safe: it belongs to the loop that watches it."""

    __slots__ = ("__weakref__", "_close", "_set_time", "fd")

    def __init__(self, fd: int, set_time: _SetTime) -> None:
        self.fd = fd
        self._set_time = set_time
        self._close = finalize(self, os.close, fd)
        self._close.atexit = False  # the kernel closes it then
        _open.add(self)

    @property
    def is_open(self) -> bool:
        """The descriptor is ours still."""
        return self._close.alive

    def arm(self, due_ns: int) -> bool:
        """Become readable at *due_ns* (at once if that has passed).

        Returns False if the clock was set since the timer was last armed or
        read. The timer is armed all the same, and the caller has news to tell.
        """
        due_ns = max(due_ns, 1)  # zero would disarm
        try:
            self._set_time(self.fd, _ARM_FLAGS, due_ns)
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
            self._set_time(self.fd, _ARM_FLAGS, due_ns)  # asking once has cleared the mark
            return False
        return True

    def disarm(self) -> None:
        """Never become readable until armed again."""
        self._set_time(self.fd, _TFD_TIMER_ABSTIME, 0)

    def drain(self) -> bool:
        """Take what made the descriptor readable; False if there was nothing."""
        try:
            os.read(self.fd, _COUNTER_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECANCELED:  # the clock was set: as good a reason to wake
                raise
        return True

    def close(self) -> None:
        """Close the descriptor; once, however often it is called and from whatever thread."""
        self._close()


def timerfds() -> set[int]:
    """Return the descriptors open now: waiting on these is waiting for time, not for I/O."""
    return {timer.fd for timer in tuple(_open) if timer.is_open}


def open_timerfd() -> TimerFd | None:
    """Return a disarmed timer, or None where the system has no timerfd (or no descriptor left)."""
    if sys.platform != "linux" or os.environ.get(PORTABLE):
        return None
    try:
        return _create()
    except (OSError, AttributeError):
        return None


if sys.version_info >= (3, 13):

    def _create() -> TimerFd:
        return TimerFd(os.timerfd_create(_CLOCK_REALTIME, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC), _settime_ns)

    def _settime_ns(fd: int, flags: int, due_ns: int) -> None:
        os.timerfd_settime_ns(fd, flags=flags, initial=due_ns)

else:
    _libc: Any = None

    def _create() -> TimerFd:
        global _libc  # noqa: PLW0603  # made once, on first use
        if _libc is None:
            _libc = _Libc()
        return TimerFd(_libc.create(), _libc.set_time)

    class _Libc:
        """The two calls, through the C library."""

        def __init__(self) -> None:
            # Importing ctypes takes 4 ms, a fifth of what we may add to a start-up: only who waits pays.
            import ctypes  # noqa: PLC0415

            if ctypes.sizeof(ctypes.c_long) != ctypes.sizeof(ctypes.c_int64):
                # There the width of time_t depends on how the C library was built: we cannot know.
                raise OSError(errno.ENOSYS, "timerfd through ctypes needs a 64-bit system")
            library = ctypes.CDLL(None, use_errno=True)
            self._timerfd_create = library.timerfd_create
            self._timerfd_create.argtypes = (ctypes.c_int, ctypes.c_int)
            self._timerfd_settime = library.timerfd_settime
            self._timerfd_settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
            self._get_errno = ctypes.get_errno
            # struct itimerspec: interval and first expiry, each in seconds and nanoseconds
            self._itimerspec = ctypes.c_long * 4

        def create(self) -> int:
            fd: int = self._timerfd_create(_CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
            if fd < 0:
                raise OSError(self._get_errno(), "timerfd_create failed")
            return fd

        def set_time(self, fd: int, flags: int, due_ns: int) -> None:
            spec = self._itimerspec(0, 0, due_ns // _NS_PER_S, due_ns % _NS_PER_S)
            if self._timerfd_settime(fd, flags, spec, None) != 0:
                raise OSError(self._get_errno(), "timerfd_settime failed")


def _close_inherited() -> None:
    # In the child of a fork the loop that watched these is dead. They must not be unregistered
    # from it: its epoll set is shared with the parent, who would stop waking.
    for timer in tuple(_open):
        timer.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
