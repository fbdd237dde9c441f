"""Where schedules and jobs live: one contract (`base`), one file per engine."""

from ._rows import Encoding
from ._urls import store_from
from .base import Store
from .memory import MemoryStore

__all__ = ["Encoding", "MemoryStore", "Store", "store_from"]
