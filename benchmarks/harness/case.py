"""What a case is: who runs, what is shown of it, and what it is compared with.

A contender is a script of this folder, an environment of ``peers.toml`` and options.
One process runs one contender once and answers with one line of JSON (``measure.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["LAGS", "PER_JOB", "Case", "Column", "Contender"]

Options = Mapping[str, float | int | str]


@dataclass(frozen=True, slots=True)
class Contender:
    """Who runs: *name* in the table, a script, its environment and the options that are its own."""

    name: str
    script: str
    env: str
    options: Options = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        return self.env == "ours"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: the metric, its heading with the unit, and how many decimals are shown."""

    metric: str
    heading: str
    decimals: int = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One table.

    Attributes:
        ratio_of: The metric that ratios are made of, this case's verdict.
        reference: The contender that the ratio is 1 for.
        floor: A contender that shows the machine's own noise; what it measures
            is taken off the metric *over_floor* in a column of its own.
        options: Given to every contender; *quick* ones replace them under ``--quick``.
        seconds: A contender that takes longer is stopped and counted as failed.
    """

    name: str
    title: str
    contenders: tuple[Contender, ...]
    columns: tuple[Column, ...]
    ratio_of: str
    reference: str
    options: Options = field(default_factory=dict)
    quick: Options = field(default_factory=dict)
    floor: str | None = None
    over_floor: str | None = None
    seconds: float = 180.0


LAGS: Final = (
    Column("p50_ms", "lag p50 ms", 3),
    Column("p99_ms", "p99 ms"),
    Column("max_ms", "max ms"),
    Column("early", "early", 0),
    Column("doubled", "doubled", 0),
    Column("missed", "missed", 0),
    Column("drift_ms", "drift ms"),
    Column("cpu_us_per_fire", "CPU µs/start", 0),
)
PER_JOB: Final = (
    Column("cpu_us_per_job", "CPU µs/job"),
    Column("wall_us_per_job", "wall µs/job"),
    Column("n", "jobs", 0),
)
