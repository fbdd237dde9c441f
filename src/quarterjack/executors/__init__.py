"""Where bodies run: the contract (`base`) and one file per place."""

from .base import AppRef, Call, Capabilities, Executor, Handle, Home, Report
from .command import CommandExecutor
from .loop import LoopExecutor
from .loop_thread import LoopThread
from .process import ProcessExecutor
from .thread import ThreadExecutor

__all__ = [
    "AppRef",
    "Call",
    "Capabilities",
    "CommandExecutor",
    "Executor",
    "Handle",
    "Home",
    "LoopExecutor",
    "LoopThread",
    "ProcessExecutor",
    "Report",
    "ThreadExecutor",
]
