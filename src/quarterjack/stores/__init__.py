"""Where schedules and jobs live: one contract (`base`), one file per engine."""

from .base import Store
from .memory import MemoryStore

__all__ = ["MemoryStore", "Store"]
