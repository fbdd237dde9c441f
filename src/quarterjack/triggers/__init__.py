"""Triggers: pure rules that yield fire times. One file per rule, the contract in `base`."""

from .aligned import Aligned
from .at import At
from .base import Trigger
from .calendar import Calendar
from .clock_changes import ClockChange
from .combine import Filtered, Union
from .cron import Cron
from .every import Every
from .filters import Between, Dates, Filter, Weekdays
from .fixed_delay import FixedDelay
from .forever import Forever
from .hooks import OnShutDown, OnShutdown, OnStartUp, OnStartup
from .once import Once
from .stream import Stream

__all__ = [
    "Aligned",
    "At",
    "Between",
    "Calendar",
    "ClockChange",
    "Cron",
    "Dates",
    "Every",
    "Filter",
    "Filtered",
    "FixedDelay",
    "Forever",
    "OnShutDown",
    "OnShutdown",
    "OnStartUp",
    "OnStartup",
    "Once",
    "Stream",
    "Trigger",
    "Union",
    "Weekdays",
]
