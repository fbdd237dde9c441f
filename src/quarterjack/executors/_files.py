"""Files for messages that are too large for a socket: one folder per pool, in the system's temporary one.

Each child has two names there, for what it is sent and for what it answers; the
reader of a file deletes it, and what a child leaves behind goes when it is gone.
An app holds a lock on its folder for as long as it lives. A pool that begins
removes the folders whose locks are free: their apps were killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

from ._leash import not_for_forks

__all__ = ["ANSWER", "REQUEST", "Files", "remove", "sweep"]

PREFIX: Final = "quarterjack-pool-"
REQUEST: Final = ".request"
ANSWER: Final = ".answer"


class Files:
    """The folder of one pool."""

    def __init__(self) -> None:
        self.folder, self._lock = _made()

    def of(self, number: int) -> str:
        """Return what the names of a child's files begin with."""
        return str(self.folder / str(number))

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        not_for_forks(self._lock, None)
        os.close(self._lock)


def remove(files: str) -> None:
    """Remove what a child that is gone has left."""
    for kind in (REQUEST, ANSWER):
        with contextlib.suppress(OSError):  # there is none, or it cannot be removed: the folder goes later
            os.unlink(files + kind)  # noqa: PTH108  # once per child, and per large message


def sweep() -> None:
    """Remove the folders of apps that were killed; may take some milliseconds."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another one is quicker, or it is not ours
            lock = _locked(path)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _made() -> tuple[Path, int]:
    """Make a folder, and lock it; anew if somebody swept it in between."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock = _locked(path)
            if path.exists():
                not_for_forks(lock, partial(os.close, lock))
                return path, lock
            os.close(lock)


def _locked(path: Path) -> int:
    """Return a descriptor that holds the folder's lock.

    Raises:
        BlockingIOError: If another process holds it.
        OSError: If it is no folder, or not for us.
    """
    import fcntl  # noqa: PLC0415  # not on every system

    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd
