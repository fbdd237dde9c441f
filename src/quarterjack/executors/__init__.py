"""Where bodies run: the contract (`base`) and one file per place."""

from .base import Call, Capabilities, Executor, Handle, Report
from .loop import LoopExecutor
from .loop_thread import LoopThread
from .thread import ThreadExecutor

__all__ = ["Call", "Capabilities", "Executor", "Handle", "LoopExecutor", "LoopThread", "Report", "ThreadExecutor"]
