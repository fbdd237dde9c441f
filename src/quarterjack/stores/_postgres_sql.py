"""The statements of a PostgreSQL store, with what their names in braces stand for."""

from __future__ import annotations

from typing import Any, Final

from quarterjack._durations import NS_PER_S
from quarterjack.model import JobFilter

from ._postgres_columns import given
from ._postgres_moves import moves
from ._postgres_url import Settings
from ._rows import JOB_COLUMNS, NEW_JOB_COLUMNS, SCHEDULE_COLUMNS, Column
from ._schema import queries
from .base import AGING_NS, LOOK_AHEAD

__all__ = ["COLUMNS", "filter_arguments", "statements"]

COLUMNS: Final = ", ".join(column.name for column in JOB_COLUMNS)
"""The columns of a job, in the order of `JOB_COLUMNS`."""

SPARE: Final = 64
"""How many more candidates than wanted jobs a claim looks at: another one may be claiming the same ones."""
MINUTE_NS: Final = 60 * NS_PER_S
OUTCOME_NS: Final = 24 * 60 * MINUTE_NS
"""How long the counts per minute are kept."""
TIDIED_NS: Final = 60 * MINUTE_NS
"""How far back counts of one minute are added up; every process does that each minute."""

_KINDS: Final = {column.name: column for column in JOB_COLUMNS}
_PUT: Final = (*map(_KINDS.__getitem__, NEW_JOB_COLUMNS), _KINDS["run_at_ns"], Column("delay_ns", "int"))
_FINISHED: Final = (
    *("id", "attempt", "owner", "state", "finished_at_ns", "started_at_ns", "running_at_ns"),
    *("result", "error", "reason"),
)

_FILTER: Final = """
    ($1::text[] IS NULL OR state = ANY($1))
    AND ($2::text IS NULL OR task = $2)
    AND ($3::text IS NULL OR queue = $3)
    AND ($4::text IS NULL OR origin_schedule = $4)
    AND ($5::bigint IS NULL OR coalesce(submitted_at_ns, 0) >= $5)
    AND ($6::text IS NULL OR position($6 IN id) > 0 OR position($6 IN task) > 0
        OR position($6 IN coalesce(reason, '')) > 0)
    AND (NOT $7::boolean OR zombie OR state IN ('new', 'submitted', 'scheduled', 'started', 'running'))
"""


def statements(settings: Settings) -> dict[str, str]:
    """Return the statements by their names in ``sql/postgres/queries.sql``, and those of `_postgres_moves`.

    Those that lock rows come twice: the ones that wait for who has a row, and with
    ``_at_once`` those that fail there.
    """
    meaning = {
        "{schema}": settings.quoted_schema,
        "{columns}": COLUMNS,
        "{schedule_columns}": ", ".join(column.name for column in SCHEDULE_COLUMNS),
        "{new_jobs}": given(_PUT),
        "{finishes}": given([_KINDS[name] for name in _FINISHED]),
        "{filter}": _FILTER,
        "{aging_ns}": str(AGING_NS),
        "{minute_ns}": str(MINUTE_NS),
        "{outcome_ns}": str(OUTCOME_NS),
        "{tidied_ns}": str(TIDIED_NS),
        "{spare}": str(SPARE),
        "{look_ahead}": str(LOOK_AHEAD),
    }
    found = {name: _filled(text, meaning) for name, text in queries("postgres").items()}
    for name in [name for name, text in found.items() if "{wait}" in text]:
        found[f"{name}_at_once"] = found[name].replace("{wait}", "NOWAIT")
        found[name] = found[name].replace("{wait}", "")
    return found | moves(settings.quoted_schema)


def _filled(text: str, meaning: dict[str, str]) -> str:
    for name, value in meaning.items():
        text = text.replace(name, value)
    return text


def filter_arguments(where: JobFilter) -> list[Any]:
    """Return the arguments $1 to $7 of a statement with a ``{filter}``."""
    states = [state.value for state in where.states] or None
    return [states, where.task, where.queue, where.schedule_id, where.since_ns, where.text, where.is_open]
