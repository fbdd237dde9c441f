"""``qj db``: the schema of an app's store: how far it is, bringing it up to date, the statements.

A store upgrades its schema by itself when it is opened, unless its URL says
``migrate=off``. These commands are for those who want to do it at another time, as
another user, or by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from quarterjack.errors import QuarterjackError
from quarterjack.stores import Store
from quarterjack.stores._schema import HasSchema, SchemaStatus
from quarterjack.stores._urls import store_from

from ._client import URL_MENDED
from ._hints import typed
from ._output import json_option, show_json
from ._shell import EXIT_USAGE, Failure
from ._target import load, target_argument

__all__ = ["command"]

T = TypeVar("T")

store_option = click.option("--store", "url", metavar="URL", help="The store itself, instead of an app's.")


@click.group("db")
def command() -> None:
    """Look at the schema of a store, or bring it up to date.

    The store is an app's, or the one that --store names. No command starts the app.
    """


@command.command("status")
@target_argument
@store_option
@json_option
def status(target: str | None, url: str | None, as_json: bool) -> None:
    """Say how far the schema is; exit code 1 if it is not up to date."""
    found = _run(_store(target, url).schema_status())
    if as_json:
        fields = {"current": found.current, "known": found.known, "pending": list(found.pending)}
        show_json("db", store=found.url, **fields)
    else:
        _tell(found)
    if found.pending or found.current > found.known:
        raise click.exceptions.Exit(1)


@command.command("upgrade")
@target_argument
@store_option
def upgrade(target: str | None, url: str | None) -> None:
    """Apply the migrations that are pending, under a lock; others may upgrade at the same time."""
    before = _run(_store(target, url).schema_upgrade())
    for name in before.pending:
        click.echo(f"applied {name}")
    if not before.pending:
        click.echo(f"{before.url} is up to date at {before.current}")


@command.command("sql")
@target_argument
@store_option
@click.option("--after", type=int, default=0, metavar="N", help="Only the migrations behind number N.")
def sql(target: str | None, url: str | None, after: int) -> None:
    """Print the statements of the migrations, to be read, or run by hand."""
    click.echo(_store(target, url).schema_sql(after), nl=False)


def _store(target: str | None, url: str | None) -> HasSchema:
    try:
        store: Store = store_from(url) if url is not None else load(target).app.store
    except QuarterjackError as error:
        raise Failure(str(error), URL_MENDED if url is not None else _checking(target), EXIT_USAGE) from None
    if isinstance(store, HasSchema):
        return store
    raise Failure(f"the {store.name} store has no schema", _checking(None if url else target), EXIT_USAGE)


def _checking(target: str | None) -> str:
    return f"qj check {target or 'APP'}"


def _run(asked: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(asked)
    except QuarterjackError as error:
        raise Failure(str(error), f"{typed()}, once that is mended") from None


def _tell(found: SchemaStatus) -> None:
    click.echo(f"store    {found.url}")
    click.echo(f"schema   {found.current or 'not there yet'}")
    click.echo(f"known    {found.known}")
    for name in found.pending:
        click.echo(f"pending  {name}")
