"""``qj submit``: one job of a task, from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import click

from quarterjack import Job, JobState, Quarterjack, Task
from quarterjack.errors import ResultUnavailable, UnknownTask, UsageError

from ._client import ask, asked, ended, store_option, tell_if_unserved
from ._hints import nearest, typed
from ._output import json_option, show_json, tell_notes
from ._shell import EXIT_FAILED, EXIT_USAGE, Failure
from ._target import Target, configured, is_module
from ._times import span_of
from .jobs import as_dict

__all__ = ["command"]

_APP: Final = (":", "/", "\\")


@click.command("submit", context_settings={"ignore_unknown_options": False})
@click.argument("words", nargs=-1, required=True, metavar="[APP] TASK [ARGUMENT]...")
@click.option("--in", "delay", metavar="SPAN", help="Not before so long, as 5m; a number is seconds.")
@click.option("--priority", type=click.IntRange(0, 1_000), help="0 is most urgent; 2 is usual.")
@click.option("--queue", metavar="NAME", help="In this queue.")
@click.option("--timeout", metavar="SPAN", help="End it after so long, as 30s; a number is seconds.")
@click.option("--cost", type=float, metavar="NUMBER", help="What it weighs in the gates of its flow; 1 without it.")
@click.option("--metadata", multiple=True, metavar="NAME=JSON", help="A key for flows that go by it. May be repeated.")
@click.option("--unique", metavar="KEY", help="Unless an unfinished job of the task has this key.")
@click.option("--wait", is_flag=True, help="Wait for its end and print its result; ends with 1 if it fails.")
@store_option
@json_option
def command(
    words: tuple[str, ...],
    delay: str | None,
    priority: int | None,
    queue: str | None,
    timeout: str | None,
    cost: float | None,
    metadata: tuple[str, ...],
    unique: str | None,
    wait: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Submit a job to whoever serves the app's store.

    Arguments are JSON, or name=JSON; what is no JSON is a text:

    \b
        qj submit shop.py:app add 2 3 --wait
        qj submit emails.send to=ada@example.com 'tags=["new"]' --in 5m
        qj submit crawl https://example.org --metadata tenant=acme
    """
    if url is not None:
        raise Failure(
            "the app is needed: its tasks say what arguments they take", typed("module:app", *words), EXIT_USAGE
        )
    found = asked(words, None, least=1, is_app=lambda word: _is_app(word, words))
    name, *given = found.words
    app_words = words[: len(words) - len(found.words)]
    args, kwargs = arguments(given)
    options: dict[str, Any] = {
        "priority": priority,
        "queue": queue,
        "unique": unique,
        "cost": cost,
        "delay": None if delay is None else span_of(delay, "--in", "5m", is_bare=True),
        "timeout": None if timeout is None else span_of(timeout, "--timeout", "30s", is_bare=True),
        "metadata": _metadata(metadata) or None,
    }
    options = {key: value for key, value in options.items() if value is not None}
    task = _task(found.target, name, [*app_words], given)

    async def work(app: Quarterjack) -> Job[Any]:
        try:
            job: Job[Any] = await app.submit(task.options(**options) if options else task, *args, **kwargs)
        except UsageError as error:
            raise Failure(str(error), f"{typed(*words)}, once that is mended", EXIT_USAGE) from None
        await app.note("submit", job.id, name)
        if wait:
            return await ended(app, job)
        await tell_if_unserved(app, job)
        return job

    job = ask(found.target, work, may_begin=True)
    _tell(job, wait=wait, as_json=as_json)
    if wait and job.state is not JobState.DONE:
        raise click.exceptions.Exit(EXIT_FAILED)


def _task(target: Target, name: str, app_words: list[str], given: list[str]) -> Task[..., Any]:
    """Return the task of this name.

    Raises:
        Failure: If the app has none.
    """
    try:
        return target.app.find_task(name)
    except UnknownTask:
        names = list(target.app.tasks())
        near = nearest(name, names)
        known = f"; known are {', '.join(names)}" if names and near is None else ""
        raise Failure(
            f"{target.name} has no task {name!r}{known}",
            typed(*app_words, near or "TASK", *given),
            EXIT_USAGE,
        ) from None


def _metadata(words: tuple[str, ...]) -> dict[str, Any]:
    """Return what ``--metadata`` says, in the form of named arguments.

    Raises:
        Failure: If a name is missing.
    """
    positional, named = arguments([*words])
    if positional:
        told = f"--metadata {words[0]!r} has no name"
        raise Failure(told, f"{typed()} … --metadata tenant={words[0]}", EXIT_USAGE)
    return named


def _is_app(word: str, words: Sequence[str]) -> bool:
    """Say whether a word names the app: by its form, or, before a task, as a module where no other app is meant."""
    if word.endswith(".py") or any(sign in word for sign in _APP):
        return True
    return len(words) > 1 and configured() is None and is_module(word)


def arguments(words: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and named arguments: ``2``, ``"text"``, ``text``, ``name=[1, 2]``."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if sign and name.isidentifier():
            kwargs[name] = _value(value)
        elif kwargs:
            raise Failure(f"{word!r} stands behind a named argument", "put it before, or name it too", EXIT_USAGE)
        else:
            args.append(_value(word))
    return args, kwargs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _tell(job: Job[Any], *, wait: bool, as_json: bool) -> None:
    if as_json:
        show_json("submit", **as_dict(job), is_duplicate=job.is_duplicate)
        return
    if wait and job.state is JobState.DONE:
        try:
            click.echo(json.dumps(job.result(), ensure_ascii=False, default=str))
        except ResultUnavailable as error:
            tell_notes([str(error)])
        return
    there = "; it was there before, with this unique key" if job.is_duplicate else ""
    told = f": {job.reason or (job.error.message if job.error else '')}".rstrip(": ")
    click.echo(f"{job.id} ({job.task}) is {job.state.value}{told}{there}")
