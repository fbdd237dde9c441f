"""Triggers: pure rules that yield fire times. One file per rule, the contract in `base`."""

from .at import At
from .base import Trigger
from .combine import Filtered, Union
from .cron import Cron
from .every import Aligned, Every
from .filters import Filter, Weekdays
from .hooks import OnShutDown, OnShutdown, OnStartUp, OnStartup
from .once import Forever, Once

__all__ = [
    "Aligned",
    "At",
    "Cron",
    "Every",
    "Filter",
    "Filtered",
    "Forever",
    "OnShutDown",
    "OnShutdown",
    "OnStartUp",
    "OnStartup",
    "Once",
    "Trigger",
    "Union",
    "Weekdays",
]
