"""What a `Part` is made of: facts of rows, names of jobs, and tables that know what was looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter, is_not
from typing import Any, Final, Generic, TypeVar

from quarterjack.model import JobRecord, Schedule

from ._needs import Missing, Needs, UniqueKey
from ._overlap import OverlapKeys
from ._rows import JOB_STATE_COLUMNS
from ._unique import UniqueKeys

__all__ = ["JOB", "SCHEDULE", "Facts", "Fields", "Known", "Lines", "Names", "Stamps", "Uniques"]

K = TypeVar("K")
V = TypeVar("V")

Facts = tuple[Any, ...]
"""What a row said at one moment."""


class Fields(Generic[V]):
    """Names of the fields of a row that change, always by assignment: so what has changed is told by identity."""

    __slots__ = ("facts", "names")

    def __init__(self, *names: str) -> None:
        self.names = names
        self.facts: Callable[[V], Facts] = attrgetter(*names)
        """Return what a row says now; 0.5 µs for a job."""

    def has_moved(self, row: V, before: Facts) -> bool:
        """Say whether a field was assigned since."""
        return any(map(is_not, self.facts(row), before))

    def restore(self, row: V, before: Facts) -> None:
        """Let the row say what it said."""
        for name, value in zip(self.names, before, strict=True):
            setattr(row, name, value)


JOB: Final[Fields[JobRecord]] = Fields(*(column.name for column in JOB_STATE_COLUMNS))
SCHEDULE: Final[Fields[Schedule]] = Fields(*(name for name in Schedule.__slots__ if name != "id"))
_NEW_JOB: Final[Fields[JobRecord]] = Fields("submitted_at_ns", *JOB.names)


class Names:
    """Ids for the jobs a decision inserts: the same ones each time it is made."""

    __slots__ = ("_draw", "_drawn", "_next")

    def __init__(self, draw: Callable[[], str]) -> None:
        self._draw = draw
        self._drawn: list[str] = []
        self._next = 0

    def __call__(self) -> str:
        """Return the next id."""
        if self._next == len(self._drawn):
            self._drawn.append(self._draw())
        self._next += 1
        return self._drawn[self._next - 1]

    def begin(self) -> None:
        """Begin with the first one again."""
        self._next = 0


class Stamps:
    """Callers' new records as they came, so that a decision can be made on them once more, and a failed one undone."""

    __slots__ = ("_before",)

    def __init__(self, jobs: Iterable[JobRecord]) -> None:
        self._before = [(job, _NEW_JOB.facts(job)) for job in jobs]

    def take_back(self) -> None:
        """Make the records what they were."""
        for job, before in self._before:
            _NEW_JOB.restore(job, before)

    def __enter__(self) -> Stamps:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.take_back()


class Known(dict[K, V]):
    """What was found; to ask for what nobody has looked for raises `Missing`."""

    __slots__ = ("_kind", "asked")

    def __init__(self, found: dict[K, V], asked: frozenset[K], kind: str) -> None:
        super().__init__(found)
        self.asked = asked
        self._kind = kind
        """Which field of `Needs` asks for it."""

    def _missing(self, key: Any) -> Missing:
        return Missing(Needs(**{self._kind: frozenset({key})}))

    def get(self, key: Any, default: Any = None, /) -> Any:
        if key not in self and key not in self.asked:
            raise self._missing(key)
        return super().get(key, default)

    def pop(self, key: Any, default: Any = None, /) -> Any:
        if key not in self and key not in self.asked:
            raise self._missing(key)
        return super().pop(key, default)


class Lines(OverlapKeys):
    """The open jobs of the lines that were loaded. Who is next in a line is the engine's to find."""

    __slots__ = ("_backfills_open", "_lines", "turns")

    def __init__(self, lines: Known[str, list[JobRecord]]) -> None:
        super().__init__()
        self._backfills_open = {key: [job for job in jobs if job.is_backfill] for key, jobs in lines.items()}
        for key, jobs in lines.items():
            lines[key] = [job for job in jobs if not job.is_backfill]
        self._open = self._lines = lines
        self.turns: set[str] = set()
        """Keys whose turn may have come free."""

    def add(self, key: str, job: JobRecord) -> None:
        if key in self._lines or key in self._lines.asked:
            super().add(key, job)
        else:
            job.overlap_key = key

    def close(self, job: JobRecord) -> JobRecord | None:
        if job.overlap_key in self._lines:
            return super().close(job)
        return self.let_go(job) if job.serial else None

    def take(self, job: JobRecord) -> bool:
        key = job.overlap_key
        if not job.serial or key is None:
            return True
        others = [*self.open(key), *self._backfills_open.get(key, ())]
        return not any(other.serial and other is not job and (other.state.is_held or other.zombie) for other in others)

    def let_go(self, job: JobRecord) -> JobRecord | None:
        if job.serial and job.overlap_key is not None:
            self.turns.add(job.overlap_key)
        return None


class Uniques(UniqueKeys):
    """The unique keys that were loaded."""

    __slots__ = ()

    def __init__(self, entries: Known[UniqueKey, tuple[JobRecord, int | None]]) -> None:
        super().__init__()
        self._entries = entries

    @property
    def entries(self) -> dict[UniqueKey, tuple[JobRecord, int | None]]:
        """Who holds which key."""
        return self._entries
