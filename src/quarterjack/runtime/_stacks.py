"""What a loop's thread is doing, as another thread sees it: asleep, or at which line of whose code."""

from __future__ import annotations

import os
import selectors
import traceback
from asyncio.base_events import BaseEventLoop
from asyncio.events import Handle
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

__all__ = ["Sleeping", "Stack"]

_OURS: Final = str(Path(__file__).parent.parent) + os.sep
_STDLIB: Final = str(Path(os.__file__).parent) + os.sep
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
"""Below the standard library's folder, but not of it."""

_CALLBACK: Final = Handle._run.__code__  # where asyncio's part of the stack ends


def _code_of(function: Any) -> CodeType:
    return function.__code__  # type: ignore[no-any-return]  # every Python function has one


_TURN: Final = _code_of(BaseEventLoop._run_once)  # type: ignore[attr-defined]  # asyncio's own
_SELECTS: Final = frozenset(
    _code_of(selector.select)
    for name in ("EpollSelector", "KqueueSelector", "DevpollSelector", "PollSelector", "SelectSelector")
    if (selector := getattr(selectors, name, None)) is not None
)


class Sleeping:
    """Tells from a thread's innermost frame that its loop sleeps. When in doubt it says no.

    asyncio's loop sleeps in its selector. A loop without Python frames of its own,
    such as uvloop, sleeps when its caller's frame is the innermost; which one that
    is has to be learnt from a callback.
    """

    __slots__ = ("_caller",)

    def __init__(self) -> None:
        self._caller: CodeType | None = None

    def learn(self, caller: FrameType) -> None:
        """Look at the frame that called a callback of the loop."""
        if caller.f_code is not _CALLBACK:
            self._caller = caller.f_code

    def is_so(self, innermost: FrameType | None) -> bool:
        """Return whether the loop whose thread has this innermost frame sleeps."""
        if innermost is None:
            return False
        code, back = innermost.f_code, innermost.f_back
        if code in _SELECTS:
            return back is not None and back.f_code is _TURN
        return code is self._caller


class Stack:
    """The frames of a running thread, from the callback its loop is in to the innermost.

    Lines are read when it is made; the thread goes on meanwhile, and its frames change.
    """

    __slots__ = ("_frames",)

    def __init__(self, innermost: FrameType) -> None:
        self._frames: list[tuple[FrameType, int]] = []
        frame: FrameType | None = innermost
        while frame is not None and frame.f_code is not _CALLBACK:
            self._frames.append((frame, frame.f_lineno or 0))
            frame = frame.f_back
        self._frames.reverse()

    def where(self) -> str:
        """Return ``file:line in function`` of the user's innermost frame, else of the innermost."""
        if not self._frames:
            return "an unknown place"
        frame, line = next(
            (entry for entry in reversed(self._frames) if _is_users(entry[0].f_code.co_filename)), self._frames[-1]
        )
        return f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"

    def text(self) -> str:
        """Return the stack as a traceback shows it, from the body's own first frame; reads the files it names."""
        return "".join(traceback.StackSummary.extract(iter(self._frames[self._first() :])).format())

    def _first(self) -> int:
        """Return where the user's code begins: below our last frame that called it."""
        files = [frame.f_code.co_filename for frame, _ in self._frames]
        innermost = next((at for at in reversed(range(len(files))) if _is_users(files[at])), 0)
        return next((at + 1 for at in reversed(range(innermost)) if files[at].startswith(_OURS)), 0)


def _is_users(filename: str) -> bool:
    if filename.startswith((_OURS, "<frozen")):
        return False
    return not filename.startswith(_STDLIB) or any(part in filename for part in _INSTALLED)
