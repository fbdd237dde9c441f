"""``qj submit``: one job of a task, from the command line."""

from __future__ import annotations

import json
from typing import Any, Final

import click

from quarterjack import Job, JobState, Quarterjack
from quarterjack._durations import parse_duration
from quarterjack.errors import InvalidOption, UnknownTask

from ._client import ask, asked, store_option
from ._hints import nearest, typed
from ._output import json_option, show_json
from ._shell import EXIT_FAILED, EXIT_USAGE, Failure
from .act import ended
from .jobs import as_dict

__all__ = ["command"]

_APP: Final = (":", "/", "\\")


@click.command("submit", context_settings={"ignore_unknown_options": False})
@click.argument("words", nargs=-1, required=True, metavar="[APP] TASK [ARGUMENT]...")
@click.option("--in", "delay", metavar="SPAN", help="Not before so long, as 5m.")
@click.option("--priority", type=click.IntRange(0, 4), help="0 is most urgent.")
@click.option("--queue", metavar="NAME", help="In this queue.")
@click.option("--unique", metavar="KEY", help="Unless an unfinished job of the task has this key.")
@click.option("--wait", is_flag=True, help="Wait for its end and print its result; ends with 1 if it fails.")
@store_option
@json_option
def command(
    words: tuple[str, ...],
    delay: str | None,
    priority: int | None,
    queue: str | None,
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
    """
    if url is not None:
        raise Failure(
            "the app is needed: its tasks say what arguments they take", typed("module:app", *words), EXIT_USAGE
        )
    found = asked(words, None, least=1, is_app=_is_app)
    name, *given = found.words
    app_words = words[: len(words) - len(found.words)]
    args, kwargs = arguments(given)
    options: dict[str, Any] = {"priority": priority, "queue": queue, "unique": unique}
    if delay is not None:
        try:
            options["delay"] = parse_duration(delay, "--in")
        except InvalidOption as error:
            raise Failure(str(error), typed(*words, "--in", "5m"), EXIT_USAGE) from None
    options = {key: value for key, value in options.items() if value is not None}

    async def work(app: Quarterjack) -> Job[Any]:
        try:
            task = app.find_task(name)
        except UnknownTask:
            names = list(app.tasks())
            near = nearest(name, names)
            known = f"; known are {', '.join(names)}" if names and near is None else ""
            raise Failure(
                f"{found.target.name} has no task {name!r}{known}",
                typed(*app_words, near, *given) if near else "qj ls",
                EXIT_USAGE,
            ) from None
        job: Job[Any] = await app.submit(task.options(**options) if options else task, *args, **kwargs)
        await app.note("submit", job.id, name)
        return await ended(job) if wait else job

    job = ask(found.target, work)
    _tell(job, wait=wait, as_json=as_json)
    if wait and job.state is not JobState.DONE:
        raise click.exceptions.Exit(EXIT_FAILED)


def _is_app(word: str) -> bool:
    return word.endswith(".py") or any(sign in word for sign in _APP)


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
        click.echo(json.dumps(job.result(), ensure_ascii=False, default=str))
        return
    there = "; it was there before, with this unique key" if job.is_duplicate else ""
    told = f": {job.reason or (job.error.message if job.error else '')}".rstrip(": ")
    click.echo(f"{job.id} ({job.task}) is {job.state.value}{told}{there}")
