"""``qj db``: the schema of a store, looked at and upgraded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from quarterjack.stores._schema import migrations

QJ = Callable[..., Result]


def test_upgrade_makes_what_status_misses(postgres_url: str, qj: QJ) -> None:
    """A deploy upgrades once, before the new processes start."""
    before = qj("db", "status", "--store", postgres_url)
    assert before.exit_code == 1
    assert "schema   not there yet" in before.output
    assert "pending  0001 start" in before.output
    assert qj("db", "upgrade", "--store", postgres_url).output.startswith("applied 0001 start")
    again = qj("db", "upgrade", "--store", postgres_url).output
    assert again.rstrip().endswith(f"is up to date at {migrations('postgres')[-1].number}")
    after = qj("db", "status", "--store", postgres_url, "--json")
    assert after.exit_code == 0
    told = json.loads(after.output)
    assert (told["schema"], told["current"], told["pending"]) == ("quarterjack.db/1", told["known"], [])


def test_store_of_an_app_is_meant_without_a_url(folder: Path, qj: QJ) -> None:
    """The same command for whichever store the app has."""
    (folder / "filed.py").write_text('from quarterjack import Quarterjack\napp = Quarterjack("sqlite:///jobs.db")\n')
    assert qj("db", "upgrade", "filed").exit_code == 0
    assert qj("db", "status", "filed").exit_code == 0
    assert "CREATE TABLE" in qj("db", "sql", "filed").output


def test_statements_come_in_a_schema_of_ones_own(qj: QJ) -> None:
    """They are read before they are run, and need no server."""
    script = qj("db", "sql", "--store", "postgresql://host/db?schema=jobs").output
    assert script.startswith('CREATE SCHEMA IF NOT EXISTS "jobs";')
    assert 'CREATE TABLE "jobs".job (' in script
    assert "{" + "schema}" not in script
    assert qj("db", "sql", "--after", "9999", "--store", "postgresql://host/db").output == ""


def test_what_has_no_schema_or_no_server_is_told(shop: Path, qj: QJ) -> None:
    """Each error ends with what to try."""
    memory = qj("db", "status", "shop")
    assert (memory.exit_code, "the memory store has no schema" in memory.output) == (2, True)
    away = qj("db", "status", "--store", "postgresql://me:secret@127.0.0.1:9/db")
    assert (away.exit_code, "is the server running" in away.output, "secret" in away.output) == (1, True, False)
    typo = qj("db", "status", "--store", "postgersql://host/db")
    assert (typo.exit_code, "Try:" in typo.output) == (2, True)
